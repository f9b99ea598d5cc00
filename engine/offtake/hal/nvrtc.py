"""CUDA C++ to machine code by NVRTC, and a cache of it in the user's cache folder.

Compiled here and loaded as it is: CuPy's own RawModule appends -ftz=true to the options, and the last one
wins.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offtake.errors import DeviceError

_EXACT = ("-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")
_FAST = ("-fmad=true", "-ftz=true", "-prec-div=false", "-prec-sqrt=false", "-DOFFTAKE_FAST")
_CACHES = (12, 9)
_DIGEST_BYTES = 32
_SHARED_KIB = {
    **dict.fromkeys((75,), 64),
    **dict.fromkeys((86, 89, 120, 121), 99),
    **dict.fromkeys((80, 87), 163),
    **dict.fromkeys((90, 100, 103, 110), 227),
}
OLDEST = 75
EXTRAS = "python -m pip install 'offtake[cuda13]' (or 'offtake[cuda12]' for a driver older than 580)"


@dataclass(frozen=True)
class Compiled:
    """What NVRTC made of a source: `log` tells registers and spills."""

    cubin: bytes
    ptx: str
    log: str


def load() -> Any:
    """NVRTC as CuPy has it. Raises DeviceError when CuPy or the compiler is missing."""
    try:
        compiler = importlib.import_module("cupy").cuda.nvrtc
        compiler.getVersion()
    except (ImportError, RuntimeError) as error:
        raise DeviceError(f"no NVRTC to compile with ({error}); {EXTRAS}") from None
    return compiler


def shared_bytes(architecture: int) -> int:
    """The most shared memory of a block (CUDA C++ Programming Guide, technical specifications by compute
    capability); a new one is taken to have what the smallest has.
    """
    return _SHARED_KIB.get(architecture, min(_SHARED_KIB.values())) * 1024


def options(architecture: int, *, strict: bool, threads: int) -> tuple[str, ...]:
    """NVRTC's options for a compute capability (90 for 9.0) and blocks of so many threads."""
    block = (f"-DOFFTAKE_THREADS={threads}", f"-DOFFTAKE_SHARED={shared_bytes(architecture)}")
    chosen = (*(_EXACT if strict else _FAST), *block)
    # Since C++20 a shift may push bits out of a signed number.
    return ("--std=c++20", f"-arch=sm_{architecture}", *chosen, "-Xptxas", "-v")


def compile_source(nvrtc: Any, source: str, given: tuple[str, ...]) -> Compiled:
    """Compiles with `nvrtc`, CuPy's module. Raises DeviceError with the compiler's log."""
    program = nvrtc.createProgram(source, "offtake.cu", [], [])
    # What the compiler has in a cache of its own comes without a log.
    anew = ("--no-cache",) if nvrtc.getVersion() >= _CACHES else ()
    try:
        nvrtc.compileProgram(program, [*given, *anew])
        ptx = nvrtc.getPTX(program)
        text = ptx.decode() if isinstance(ptx, bytes) else ptx
        # CuPy drops the last byte of the code as if it ended a text.
        return Compiled(nvrtc.getCUBIN(program) + b"\0", text, nvrtc.getProgramLog(program))
    except nvrtc.NVRTCError as error:
        message = f"device=cuda: NVRTC cannot compile the kernel ({error}); please report it\n"
        raise DeviceError(message + nvrtc.getProgramLog(program)) from None
    finally:
        nvrtc.destroyProgram(program)


def cubin(nvrtc: Any, source: str, architecture: int, *, strict: bool, threads: int) -> bytes:
    """Machine code for a compute capability, from the cache where it is there and whole."""
    given = options(supported(nvrtc, architecture), strict=strict, threads=threads)
    version = "{}.{}".format(*nvrtc.getVersion())
    key = hashlib.sha256("\n".join([version, *given, source]).encode()).hexdigest()
    file = cache_folder() / f"{key}.cubin"
    found = _read(file)
    if found is None:
        found = compile_source(nvrtc, source, given).cubin
        _write(file, found)
    return found


def supported(nvrtc: Any, architecture: int) -> int:
    """The newest architecture that NVRTC knows and whose code runs on one: of its own generation.

    Raises DeviceError when there is none.
    """
    known = [n for n in nvrtc.getSupportedArchs() if n // 10 == architecture // 10 and n <= architecture]
    if not known:
        message = f"NVRTC {'.'.join(map(str, nvrtc.getVersion()))} cannot compile for compute capability"
        other = "cuda13" if architecture >= 100 else "cuda12"
        raise DeviceError(f"device=cuda: {message} {architecture / 10}; try the extra {other}")
    return max(known)


def cache_folder() -> Path:
    """OFFTAKE_CACHE_DIR, or offtake in the user's cache folder."""
    given = os.environ.get("OFFTAKE_CACHE_DIR")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "offtake" / "kernels"


def _read(file: Path) -> bytes | None:
    """The code of a file that begins with its digest; None when it is not there or damaged."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(file: Path, code: bytes) -> None:
    """Whole or not at all; a folder that cannot be written to is left alone."""
    part = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(code).digest() + code)
        os.replace(part, file)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
