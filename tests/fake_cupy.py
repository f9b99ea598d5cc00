"""A small CuPy on the host: the calls that the CUDA backend makes, with kernels compiled by g++.

`Fake` stands in for the module `cupy`. Faults are set on it: memory that runs out, a kernel that fails, a
driver that is missing, a compiler that complains.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import subprocess
import sys
import tempfile
import threading
import weakref
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from offtake_kernels import path_cuda

HERE = Path(__file__).parent
YARDSTICK = "offtake_yardstick"
FLAGS = ("-std=c++20", "-w", "-ffp-contract=off", "-fPIC", "-pthread")
BUILDING = threading.Lock()
HOST = tempfile.TemporaryDirectory(prefix="offtake-host-")


class NVRTCError(RuntimeError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


@cache
def _header(flags: tuple[str, ...]) -> Path:
    """tests/host_cuda.h, compiled ahead for these flags."""
    folder = Path(HOST.name) / hashlib.sha256(repr(flags).encode()).hexdigest()[:16]
    folder.mkdir()
    copy = folder / "host_cuda.h"
    copy.write_bytes((HERE / "host_cuda.h").read_bytes())
    command = ["g++", *FLAGS, *flags, "-x", "c++-header", str(copy), "-o", f"{copy}.gch"]
    subprocess.run(command, check=True, capture_output=True)
    return copy


def build(source: str, flags: tuple[str, ...]) -> bytes:
    """The printed source as a shared library for this machine."""
    with BUILDING:
        header = _header(flags)
    with tempfile.TemporaryDirectory(dir=header.parent) as folder:
        text, library = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        launch = "host_yardstick.h" if YARDSTICK in source else "host_launch.h"
        text.write_text(f"{source}\n{(HERE / launch).read_text()}")
        include = ("-include", str(header), "-shared", "-o", str(library), str(text))
        found = subprocess.run(["g++", *FLAGS, *flags, *include], capture_output=True, text=True)
        if found.returncode:
            raise NVRTCError(found.stderr[-4000:])
        return library.read_bytes()


class Array(np.ndarray):
    """Device memory: read by `get`, written by `set` and by kernels."""

    def get(self) -> np.ndarray:
        return np.array(self)

    def set(self, values: np.ndarray) -> None:
        self[...] = values

    @property
    def data(self):  # type: ignore[override]
        def copy_from_device(source, size: int) -> None:
            ctypes.memmove(self.ctypes.data, source.ptr, size)

        return SimpleNamespace(
            ptr=self.ctypes.data,
            memset=lambda byte, size: self.view(np.uint8).fill(byte),
            copy_from_device=copy_from_device,
        )


class Fake:
    """The module. devices: (name, major, minor) of each GPU; memory: bytes that arrays may take in all."""

    __version__ = "fake"
    __spec__ = ModuleSpec("cupy", None)

    def __init__(self, devices=(("Fake", 9, 0),), memory: int = 1 << 34):
        self.devices, self.memory, self.taken = list(devices), memory, 0
        self.driver_fault = self.launch_fault = self.compile_fault = ""
        self.short_launches = 0
        self.launches: list[tuple[str, int]] = []
        self.used: list[int] = []
        self.compiled = 0
        # Streams with a kernel that nobody has waited for since; None is the default stream.
        self.unfinished: set[_Stream | None] = set()
        runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=self._count,
            getDeviceProperties=self._properties,
            memGetInfo=lambda: (self.memory - self.taken, self.memory),
            driverGetVersion=lambda: 13000,
            deviceGetAttribute=lambda attribute, number: {13: 1_755_000}[attribute],
            memcpyHostToDevice=1,
            memcpy=lambda to, of, size, kind: ctypes.memmove(to, of, size),
        )
        nvrtc = SimpleNamespace(
            NVRTCError=NVRTCError,
            getVersion=lambda: (13, 0),
            getSupportedArchs=lambda: (75, 80, 90, 100, 120),
            createProgram=lambda source, *rest: {"source": source},
            compileProgram=self._compile,
            getPTX=lambda program: "",
            getCUBIN=lambda program: program["cubin"],
            getProgramLog=lambda program: program.get("log", ""),
            destroyProgram=lambda program: None,
        )
        nvtx = SimpleNamespace(available=True, RangePush=lambda name: None, RangePop=lambda: None)
        self.cuda = SimpleNamespace(
            runtime=runtime,
            nvrtc=nvrtc,
            nvtx=nvtx,
            driver=SimpleNamespace(
                CUDADriverError=CUDADriverError,
                occupancyMaxActiveBlocksPerMultiprocessor=lambda function, threads, shared: 2,
                funcSetAttribute=lambda function, attribute, value: None,
            ),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            function=SimpleNamespace(Module=lambda: _Module(self)),
            Device=lambda number=None: _Device(self, number),
            Stream=lambda non_blocking: _Stream(self),
        )

    def empty(self, size, dtype) -> Array:
        array = self._take(size, dtype)
        array.view(np.uint8).fill(0xA5)
        return array

    def zeros(self, size, dtype) -> Array:
        array = self._take(size, dtype)
        array.fill(0)
        return array

    def asarray(self, values) -> Array:
        array = self._take(np.size(values), np.asarray(values).dtype)
        array[...] = np.ravel(values)
        return array

    def get_default_memory_pool(self):
        return SimpleNamespace(free_all_blocks=lambda: None, used_bytes=lambda: self.taken)

    def _take(self, size, dtype) -> Array:
        """Memory for an array, until nobody holds it."""
        wanted = int(size) * np.dtype(dtype).itemsize
        if self.taken + wanted > self.memory:
            raise OutOfMemoryError(f"out of memory allocating {wanted:,} bytes")
        self.taken += wanted
        array = np.empty(size, dtype).view(Array)
        weakref.finalize(array, self._give_back, wanted)
        return array

    def _give_back(self, size: int) -> None:
        self.taken -= size

    def _count(self) -> int:
        if self.driver_fault:
            raise CUDARuntimeError(self.driver_fault)
        return len(self.devices)

    def _properties(self, number: int) -> dict:
        name, major, minor = self.devices[number]
        memory = {"multiProcessorCount": 132, "totalGlobalMem": self.memory}
        return {"name": name.encode(), "major": major, "minor": minor, **memory}

    def _compile(self, program: dict, options: list[str]) -> None:
        if self.compile_fault:
            program["log"] = self.compile_fault
            raise NVRTCError("NVRTC_ERROR_COMPILATION (6)")
        self.compiled += 1
        defined = [option for option in options if option.startswith("-D")]
        program["cubin"] = build(program["source"], ("-O1", *defined))


def install(monkeypatch, cache: Path, **settings) -> Fake:
    """A fake in the place of CuPy, and compiled kernels in a folder of the test's."""
    fake = Fake(**settings)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setenv("OFFTAKE_CACHE_DIR", str(cache))
    return fake


class _Device(contextlib.AbstractContextManager):
    def __init__(self, fake: Fake, number: int | None):
        self._fake, self._number = fake, number
        self.pci_bus_id = f"0000:0{number or 0}:00.0"

    def __enter__(self):
        if self._number is not None:
            self._fake.used.append(self._number)
        return self

    def __exit__(self, *error) -> None:
        return None

    def synchronize(self) -> None:
        self._fake.unfinished.clear()


class _Stream(contextlib.AbstractContextManager):
    def __init__(self, fake: Fake):
        self._fake = fake

    def __exit__(self, *error) -> None:
        return None

    def synchronize(self) -> None:
        if self._fake.launch_fault:
            raise CUDARuntimeError(self._fake.launch_fault)
        self._fake.unfinished.discard(self)


class _Module:
    def __init__(self, fake: Fake):
        self._fake = fake

    def load(self, cubin: bytes) -> None:
        # A library of its own for each GPU: constant memory is a device's.
        with tempfile.NamedTemporaryFile(dir=HOST.name, suffix=".so", delete=False) as file:
            file.write(cubin)
        self._library = ctypes.CDLL(file.name)

    def get_global_var(self, name: str) -> int:
        return ctypes.addressof(ctypes.c_char.in_dll(self._library, name))

    def get_function(self, name: str):
        kernel = 0 if name == YARDSTICK else path_cuda._KERNELS.index(name)

        def launch(grid, block, arguments, shared=0, stream=None) -> None:
            fake = self._fake
            fake.unfinished.add(stream)
            if name == "offtake_paths":
                if arguments[1]:
                    fake.launches.append((name, int(arguments[1])))
                if arguments[1] and fake.short_launches:
                    fake.short_launches -= 1
                    raise CUDADriverError("CUDA_ERROR_OUT_OF_MEMORY: out of memory")
            held = [_argument(argument) for argument in arguments]
            pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held))
            sizes = (ctypes.c_uint * 2)(*grid[:2])
            self._library.host_launch(kernel, sizes, ctypes.c_uint(block[0]), pointers)

        launch.ptr = kernel  # type: ignore[attr-defined]
        return launch


def _argument(value):
    if isinstance(value, np.ndarray):
        return ctypes.c_uint64(value.ctypes.data)
    return {np.uint64: ctypes.c_uint64, np.uint32: ctypes.c_uint32}[type(value)](int(value))
