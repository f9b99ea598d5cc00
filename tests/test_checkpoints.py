"""Files of a run that goes on: whole or absent, checked, one run a folder."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from offtake.checkpoints import (
    BlockStore,
    read_manifest,
    unpack,
    write_atomically,
    write_manifest,
    write_tally,
)
from offtake.errors import OfftakeError
from offtake_kernels.kept import Kept
from offtake_kernels.tally import Tally, TallyBuilder


def tally_of(seed: int) -> Tally:
    builder = TallyBuilder(3, 2)
    values = np.random.default_rng(seed).normal(0, 10, (3, 64)).astype(np.float32)
    for row in range(3):
        builder.add(row, values[row], seed * 64)
    builder.add_threshold(1, seed)
    return builder.build(64)


def kept_of(seed: int) -> Kept:
    rng = np.random.default_rng(seed)
    return Kept(
        np.arange(2, dtype=np.uint64) + np.uint64(2**63 + seed * 2),
        {"cash": rng.normal(size=(2, 5)).astype(np.float32)},
        {"deal ../é.lateness": rng.normal(size=2).astype(np.float32)},
        frozenset({"unit_cost"}),
    )


def test_units_come_back_as_they_were(tmp_path):
    with BlockStore(tmp_path / "run", "abc", "offtake") as store:
        store.save(192, 64, tally_of(3))
        store.save(0, 64, tally_of(0), kept_of(0))
    with BlockStore(tmp_path / "run", "abc", "offtake") as store:
        first, second = store.load_all()
        assert (first.first_path, first.paths, first.tally.digest()) == (0, 64, tally_of(0).digest())
        assert (second.first_path, second.tally.digest()) == (192, tally_of(3).digest())
        assert second.kept is None
        kept, expected = first.kept, kept_of(0)
        assert kept is not None
        assert kept.path.tolist() == expected.path.tolist()
        assert kept.nullable == expected.nullable
        assert (kept.quarter_values["cash"] == expected.quarter_values["cash"]).all()
        assert (
            kept.scalar_values["deal ../é.lateness"] == expected.scalar_values["deal ../é.lateness"]
        ).all()
        assert store.damaged == []
        store.clear()
        assert list(store.load_all()) == []
    assert not (tmp_path / "run" / "blocks").exists()


def damage_every_way(content: bytes):
    rng = np.random.default_rng(1)
    for bit in rng.choice(len(content) * 8, 200, replace=False):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        yield bytes(flipped)
    for length in (0, 1, 31, 32, 33, len(content) // 2, len(content) - 1):
        yield content[:length]
    yield content + b"\0"


def test_a_flipped_bit_or_a_lost_tail_is_found_and_the_unit_is_missing_again(tmp_path):
    with BlockStore(tmp_path, "abc", "offtake") as store:
        store.save(0, 64, tally_of(0), kept_of(0))
        store.save(64, 64, tally_of(1))
        file = tmp_path / "blocks" / "unit-0000000000.npz"
        whole = file.read_bytes()
        for count, content in enumerate(damage_every_way(whole), start=1):
            file.write_bytes(content)
            assert [unit.first_path for unit in store.load_all()] == [64]
            assert len(store.damaged) == count
            assert "unit-0000000000" in store.damaged[-1]
            assert not file.exists()
        file.write_bytes(whole)
        assert [unit.first_path for unit in store.load_all()] == [0, 64]


def test_a_unit_under_another_number_is_not_counted_twice(tmp_path):
    with BlockStore(tmp_path, "abc", "offtake") as store:
        store.save(0, 64, tally_of(0))
        blocks = tmp_path / "blocks"
        (blocks / "unit-0000000007.npz").write_bytes((blocks / "unit-0000000000.npz").read_bytes())
        assert [unit.first_path for unit in store.load_all()] == [0]
        assert "another unit" in store.damaged[0]


def test_nothing_is_unpickled(tmp_path):
    file = tmp_path / "evil.npz"
    np.savez(file, header=np.array([{"a": 1}], dtype=object))
    body = file.read_bytes()
    with pytest.raises(ValueError, match="pickle"):
        unpack(body + hashlib.sha256(body).digest())


def test_units_of_another_study_are_refused(tmp_path):
    with BlockStore(tmp_path, "abc", "offtake") as store:
        store.save(0, 64, tally_of(0))
    with BlockStore(tmp_path, "def", "offtake") as store, pytest.raises(OfftakeError, match="another study"):
        list(store.load_all())


def test_units_computed_by_something_else_are_refused(tmp_path):
    with BlockStore(tmp_path, "abc", "offtake in fast arithmetic") as store:
        store.save(0, 64, tally_of(0))
    with BlockStore(tmp_path, "abc", "offtake") as store:
        message = "was computed by offtake in fast arithmetic, not by offtake"
        with pytest.raises(OfftakeError, match=message):
            list(store.load_all())


def test_a_folder_named_like_a_unit_is_let_be(tmp_path):
    (tmp_path / "blocks" / "unit-0000000000.npz").mkdir(parents=True)
    with BlockStore(tmp_path, "abc", "offtake") as store:
        assert list(store.load_all()) == []
        store.clear()


def test_a_manifest_nested_too_deeply_is_damaged(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(OfftakeError, match="damaged"):
        read_manifest(tmp_path)


def test_a_child_of_the_process_does_not_hold_the_folder(tmp_path):
    store = BlockStore(tmp_path, "abc", "offtake")
    assert store._lock is not None
    with subprocess.Popen(["sleep", "60"], pass_fds=[store._lock]) as child:
        store.close()
        BlockStore(tmp_path, "abc", "offtake").close()
        child.kill()


def test_a_second_run_in_the_folder_is_refused_until_the_first_ends(tmp_path):
    with BlockStore(tmp_path, "abc", "offtake"), pytest.raises(OfftakeError, match="another run"):
        BlockStore(tmp_path, "abc", "offtake")
    store = BlockStore(tmp_path, "abc", "offtake")
    store.close()
    store.close()
    BlockStore(tmp_path, "abc", "offtake").close()


def hold_and_die(folder: Path) -> None:
    store = BlockStore(folder, "abc", "offtake")
    store.save(0, 64, tally_of(0))
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # between the temporary file and its name
    store.save(64, 64, tally_of(1))


def test_a_run_killed_before_the_rename_leaves_whole_units_and_no_lock(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=hold_and_die, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert list((tmp_path / "blocks").glob(".*.tmp"))
    with BlockStore(tmp_path, "abc", "offtake") as store:
        assert [unit.first_path for unit in store.load_all()] == [0]
        assert store.damaged == []
        assert not list((tmp_path / "blocks").glob(".*.tmp"))


def test_a_full_disk_names_the_folder_and_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OfftakeError, match=f"{tmp_path}.*No space"):
        write_atomically(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"
    with pytest.raises(OfftakeError, match="No space"):
        BlockStore(tmp_path / "run", "abc", "offtake")


def test_a_disk_that_fills_up_within_a_tally_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "summary.npz"
    sha = write_tally(file, tally_of(0), None, {})
    whole, written = file.read_bytes(), []
    assert hashlib.sha256(whole).hexdigest() == sha
    write_array = np.lib.format.write_array

    def full(member, array, **options):
        written.append(array)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_array(member, array, **options)

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OfftakeError, match=f"summary.npz in {tmp_path}: No space"):
        write_tally(file, tally_of(1), None, {})
    assert os.listdir(tmp_path) == ["summary.npz"]
    assert file.read_bytes() == whole


def test_a_folder_that_takes_no_file_is_refused_before_computing(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OfftakeError, match="file"):
        BlockStore(tmp_path / "file", "abc", "offtake")

    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("builtins.open", read_only)
    with pytest.raises(OfftakeError, match="Read-only"):
        BlockStore(tmp_path / "run", "abc", "offtake")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OfftakeError, match="Permission"):
        BlockStore(tmp_path, "abc", "offtake")
    tmp_path.chmod(0o700)


def test_a_manifest_round_trips_and_an_altered_one_is_refused(tmp_path):
    manifest = {"status": "running", "seed": 2**64 - 1, "device": "Zürich — 1", "seconds": 1.5, "files": {}}
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    write_manifest(tmp_path, {**read_manifest(tmp_path), "status": "complete"})
    text = (tmp_path / "manifest.json").read_text()
    assert json.loads(text)["status"] == "complete"
    for altered in (
        text.replace("1.5", "1.6"),
        text.replace("complete", "stopped"),
        text[:-20],
        "[]",
        "\0",
        "",
    ):
        (tmp_path / "manifest.json").write_text(altered)
        with pytest.raises(OfftakeError, match="damaged"):
            read_manifest(tmp_path)
    with pytest.raises(OfftakeError, match="not the folder of a run"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(OfftakeError, match="status"):
        write_manifest(tmp_path, {"status": "done"})
