"""What a run leaves on disk while it goes on: a lock, a manifest and one file per finished unit of blocks.

A file is either whole or absent: it is written beside its name, synced, renamed, and the folder synced. Every
unit's file ends in the SHA-256 of what stands before it, and manifest.json carries its own, so that no
flipped bit or lost tail goes unseen; a damaged unit is deleted and computed again. Nothing is pickled.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offtake.errors import OfftakeError
from offtake_kernels.kept import Kept
from offtake_kernels.tally import Tally

MANIFEST = "manifest.json"
STATUSES = ("running", "complete", "stopped", "failed")

_DIGEST_BYTES = 32
_SEAL = "manifest_sha256"


def write_atomically(path: Path, content: bytes) -> None:
    """Puts a whole file in place, on disk when this returns. Raises OfftakeError naming the folder."""
    with _put_in_place(path) as file:
        file.write(content)


@contextlib.contextmanager
def _put_in_place(path: Path) -> Iterator[io.BufferedRandom]:
    """A file beside the path that takes its place when it is whole. Raises OfftakeError naming the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OfftakeError(f"cannot write {path.name} in {path.parent}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def prepare_folder(folder: Path) -> None:
    """Makes a folder and proves that it takes a file. Raises OfftakeError naming it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OfftakeError(f"cannot make the folder {folder}: {error.strerror}") from error
    probe = folder / ".probe"
    write_atomically(probe, b"offtake\n")
    probe.unlink(missing_ok=True)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes manifest.json with a checksum of itself. Raises OfftakeError on a bad status or folder."""
    if manifest.get("status") not in STATUSES:
        raise OfftakeError(f"a run's status is one of {', '.join(STATUSES)}, not {manifest.get('status')!r}")
    sealed = {key: value for key, value in manifest.items() if key != _SEAL}
    sealed[_SEAL] = _seal(sealed)
    write_atomically(folder / MANIFEST, (json.dumps(sealed, indent=2, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of a run's folder. Raises OfftakeError where there is none or it was altered."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if isinstance(manifest, dict) and manifest.pop(_SEAL, None) == _seal(manifest):
            return manifest
    except OSError as error:
        raise OfftakeError(f"{folder} is not the folder of a run: {MANIFEST}: {error.strerror}") from error
    except (ValueError, RecursionError):
        pass
    raise OfftakeError(f"{folder / MANIFEST} is damaged: it is not what offtake wrote")


def write_tally(path: Path, tally: Tally, kept: Kept | None, about: Mapping[str, Any]) -> str:
    """Puts in place an npz of a tally, kept paths and any JSON `about` them, followed by the SHA-256 of those
    bytes; returns that of the file. Raises OfftakeError naming the folder.

    Beside the tally, memory for one of its arrays.
    """
    with _put_in_place(path) as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in _arrays(tally, kept, about):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        file.seek(0)
        sha = hashlib.file_digest(file, "sha256")
        end = sha.digest()
        file.write(end)
        sha.update(end)
    return sha.hexdigest()


def _arrays(tally: Tally, kept: Kept | None, about: Mapping[str, Any]) -> Iterator[tuple[str, NDArray]]:
    yield from tally.narrow()
    header = {"about": dict(about), "rows": tally.rows, "paths": tally.paths}
    if kept is not None:
        header["kept"] = {
            "quarter": list(kept.quarter_values),
            "scalar": list(kept.scalar_values),
            "nullable": sorted(kept.nullable),
        }
        yield "kept_path", kept.path
        for kind, values in (("quarter", kept.quarter_values), ("scalar", kept.scalar_values)):
            for index, array in enumerate(values.values()):
                yield f"kept_{kind}_{index}", array
    yield "header", np.frombuffer(json.dumps(header).encode(), np.uint8)


def unpack(content: bytes) -> tuple[Tally, Kept | None, dict[str, Any]]:
    """What `write_tally` was given. Raises ValueError when the bytes are not those it wrote."""
    body, digest = memoryview(content)[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if len(content) <= _DIGEST_BYTES or hashlib.sha256(body).digest() != digest:
        raise ValueError("damaged: its checksum is not that of its content")
    with np.load(io.BytesIO(body), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop("header").tobytes())
    kept = None
    if "kept" in header:
        names = header["kept"]
        kept = Kept(
            arrays.pop("kept_path"),
            {name: arrays.pop(f"kept_quarter_{i}") for i, name in enumerate(names["quarter"])},
            {name: arrays.pop(f"kept_scalar_{i}") for i, name in enumerate(names["scalar"])},
            frozenset(names["nullable"]),
        )
    return Tally.widened(header["rows"], header["paths"], arrays), kept, header["about"]


@dataclass(frozen=True, eq=False)
class Unit:
    """One finished unit of blocks: `paths` paths from `first_path` on."""

    first_path: int
    paths: int
    tally: Tally
    kept: Kept | None


class BlockStore:
    """The finished units of one run, in FOLDER/blocks; a context manager that holds the folder's lock.

    config_hash, computed: which study, and by what its bits were computed, so that no others are taken.
    damaged: what was found broken and deleted, one sentence each.
    Raises OfftakeError when another run holds the folder or it takes no file: before anything is computed.
    """

    def __init__(self, folder: str | Path, config_hash: str, computed: str):
        self.folder = Path(folder)
        self.config_hash = config_hash
        self.computed = computed
        self.damaged: list[str] = []
        self._blocks = self.folder / "blocks"
        prepare_folder(self.folder)
        self._lock: int | None = _lock(self.folder)
        try:
            prepare_folder(self._blocks)
            for left_over in (*self.folder.glob(".*.tmp"), *self._blocks.glob(".*.tmp")):
                left_over.unlink(missing_ok=True)
        except OfftakeError:
            self.close()
            raise

    def __enter__(self) -> "BlockStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the folder back to other runs."""
        if self._lock is not None:
            # A child of the process would hold it on, by a copy of the descriptor.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None

    def save(self, first_path: int, paths: int, tally: Tally, kept: Kept | None = None) -> None:
        """Keeps one finished unit, on disk when this returns. Raises OfftakeError naming the folder."""
        about = {
            "config_hash": self.config_hash,
            "computed": self.computed,
            "first_path": first_path,
            "paths": paths,
        }
        write_tally(self._path(first_path), tally, kept, about)

    def load_all(self) -> Iterator[Unit]:
        """Every whole unit by first path, one in memory at a time; damaged ones are deleted and noted.

        Raises OfftakeError on a unit of another study, or of this one computed by something else.
        """
        for path in sorted(self._files()):
            try:
                tally, kept, about = unpack(path.read_bytes())
                unit = Unit(about["first_path"], about["paths"], tally, kept)
                if self._path(unit.first_path) != path:
                    raise ValueError("damaged: it is another unit's file")
            except (OSError, ValueError) as error:
                self.damaged.append(f"{path}: {error}; it was computed again")
                path.unlink(missing_ok=True)
                continue
            if about["config_hash"] != self.config_hash:
                raise OfftakeError(
                    f"{path} belongs to another study ({about['config_hash'][:12]}); choose another out="
                )
            if about["computed"] != self.computed:
                raise OfftakeError(
                    f"{path} was computed by {about['computed']}, not by {self.computed}; choose another out="
                )
            yield unit

    def clear(self) -> None:
        """Removes the units and their folder, once the results are written."""
        for path in self._files():
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a file of someone else's keeps the folder
            self._blocks.rmdir()

    def _files(self) -> list[Path]:
        return [path for path in self._blocks.glob("unit-*.npz") if path.is_file()]

    def _path(self, first_path: int) -> Path:
        return self._blocks / f"unit-{first_path:010d}.npz"


def _lock(folder: Path) -> int:
    """An exclusive lock that the system drops with the process, however it ends."""
    try:
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OfftakeError(f"cannot lock {folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise OfftakeError(
            f"another run is writing to {folder}; wait for it or choose another out="
        ) from error
    return descriptor


def _seal(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
