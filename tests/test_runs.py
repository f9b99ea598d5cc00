"""A run's folder through stops, kills, edits and damage: nothing lost, nothing counted twice."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import offtake
from offtake.blocks import BLOCK_PATHS
from offtake.errors import InputError, OfftakeError, StoppedError
from offtake.resolved import config_yaml

PATHS = 4 * BLOCK_PATHS
RENT = {"kind": "commitment", "total": 8.0}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A study file of four blocks that takes seconds, and its hash when nothing disturbs it."""
    from simple import deal

    folder = tmp_path_factory.mktemp("study")
    text = {
        "portfolio": {"name": "small", "start": "2026-01-01", "quarters": 6, "deals": {
            "a": deal(slip={"dist": "expon", "mean": 1.0}, pays={"rent": RENT}),
        }},
        "world": {
            "factors": {"demand": {"volatility": 0.3}, "revenue": {"volatility": 0.2}},
            "hardware": {"chip": {"h100e_per_gw": 1.0}},
        },
        "study": {"paths": PATHS, "keep_paths": 10},
        "device": {"name": "numpy"},
    }  # fmt: skip
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(text))
    return file, offtake.run(offtake.load(file)).summary_hash


def _command(file: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "offtake.cli", "run", str(file), f"out={out}", *more]


def _hash(folder: Path) -> str:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    return manifest["summary_hash"]


def _wait_for_blocks(folder: Path, process: subprocess.Popen, count: int) -> None:
    while len(list(folder.glob("blocks/unit-*.npz"))) < count and process.poll() is None:
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_resumable(small, tmp_path, number):
    file, whole = small
    process = subprocess.Popen(_command(file, tmp_path), stderr=subprocess.PIPE, text=True)
    _wait_for_blocks(tmp_path, process, 1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    assert "--resume goes on" in errors
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "stopped"
    done = subprocess.run(_command(file, tmp_path, "--resume"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert _hash(tmp_path) == whole
    assert not (tmp_path / "blocks").exists()


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_hash(small, tmp_path):
    file, whole = small
    dice = random.Random(1)
    for attempt in range(12):
        process = subprocess.Popen(
            _command(file, tmp_path, "--resume"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=dice.uniform(0.6, 2.5) + 0.1 * attempt)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    done = subprocess.run(_command(file, tmp_path, "--resume"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert _hash(tmp_path) == whole


def _stop_after(blocks: int):
    def progress(done: int, total: int) -> None:
        if done >= blocks * BLOCK_PATHS:
            raise KeyboardInterrupt

    return progress


def test_a_damaged_block_is_computed_again(small, tmp_path):
    file, whole = small
    study = offtake.load(file)
    with pytest.raises(StoppedError):
        offtake.run(study, out=tmp_path, progress=_stop_after(2))
    block = sorted(tmp_path.glob("blocks/unit-*.npz"))[0]
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.write_bytes(content)
    again = offtake.run(study, out=tmp_path, resume=True)
    assert again.summary_hash == whole
    assert again.manifest["damaged"] == [
        f"{block}: damaged: its checksum is not that of its content; it was computed again"
    ]


def test_blocks_without_a_manifest_are_taken_from_the_same_computation_only(small, tmp_path):
    study = offtake.load(small[0])
    with pytest.raises(StoppedError):
        offtake.run(study, out=tmp_path, progress=_stop_after(2), device="null")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(offtake.OfftakeError, match="was computed by the null device"):
        offtake.run(study, out=tmp_path, resume=True)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("stop", [False, True])
def test_what_the_null_device_left_is_no_answer(small, tmp_path, resume, stop):
    study = offtake.load(small[0])
    with pytest.raises(StoppedError) if stop else contextlib.nullcontext():
        offtake.run(study, out=tmp_path, device="null", progress=_stop_after(1) if stop else False)
    message = "holds this study computed by the null device, which computes nothing, not by offtake"
    with pytest.raises(InputError, match=message):
        offtake.run(study, out=tmp_path, device="numpy", resume=resume)


@pytest.mark.parametrize("name", ["config.yaml", "paths.parquet"])
def test_a_file_of_someone_elses_is_not_written_over(small, tmp_path, name):
    study = offtake.load(small[0])
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"has a {name} that is no run's; choose another out="):
        offtake.run(study, out=tmp_path)
    with pytest.raises(InputError, match="choose another out="):
        offtake.run(study).save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_with_a_manifest_of_something_else_is_left_alone(small, tmp_path):
    result = offtake.run(offtake.load(small[0]), device="null")
    (tmp_path / "manifest.json").write_text('{"name": "my web app"}')
    (tmp_path / "config.yaml").write_text("mine")
    with pytest.raises(OfftakeError, match="is not what offtake wrote"):
        result.save(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "mine"


def test_a_folder_in_the_place_of_a_file_is_no_run_s(small, tmp_path):
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(InputError, match=r"has a config\.yaml that is no run's"):
        offtake.run(offtake.load(small[0]), out=tmp_path, device="null")


def test_a_run_that_has_lost_its_manifest_says_so(small, tmp_path):
    offtake.run(offtake.load(small[0]), out=tmp_path, device="null")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"has this study's config\.yaml and a summary\.npz, but no"):
        offtake.run(offtake.load(small[0]), out=tmp_path, device="null")


def test_a_run_killed_before_its_manifest_was_there_is_run(small, tmp_path):
    file, whole = small
    study = offtake.load(file)
    (tmp_path / "config.yaml").write_text(config_yaml(study))
    assert offtake.run(study, out=tmp_path).summary_hash == whole


def test_a_finished_run_is_not_run_again(small, tmp_path):
    file, whole = small
    study = offtake.load(file)
    offtake.run(study, out=tmp_path)
    before = (tmp_path / "quarters.parquet").stat().st_mtime_ns
    told = []
    again = offtake.run(study, out=tmp_path, progress=lambda done, total: told.append(done))
    assert again.summary_hash == whole
    assert told == []
    assert (tmp_path / "quarters.parquet").stat().st_mtime_ns == before
    assert offtake.open(tmp_path).summary_hash == whole


def test_another_study_is_refused_with_the_difference(small, tmp_path):
    file, _ = small
    with pytest.raises(StoppedError):
        offtake.run(offtake.load(file), out=tmp_path, progress=_stop_after(1))
    edited = offtake.load(file, ["portfolio.deals.a.pays.rent.total=9"])
    with pytest.raises(InputError, match=r"(?s)-\s+total: 8\.0.*\+\s+total: 9\.0"):
        offtake.run(edited, out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"portfolio: [", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", r"\+portfolio:"),
        (b"- a list\n", r"\+portfolio:"),
    ],
)
def test_another_study_is_refused_whatever_its_config_holds(small, tmp_path, content, shown):
    file, _ = small
    with pytest.raises(StoppedError):
        offtake.run(offtake.load(file), out=tmp_path, progress=_stop_after(1))
    (tmp_path / "config.yaml").write_bytes(content)
    edited = offtake.load(file, ["portfolio.deals.a.pays.rent.total=9"])
    with pytest.raises(InputError, match=f"(?s)holds another study.*{shown}"):
        offtake.run(edited, out=tmp_path, resume=True)
    assert (tmp_path / "config.yaml").read_bytes() == content


def test_a_resumed_run_counts_its_own_paths_as_its_speed(small, tmp_path):
    study = offtake.load(small[0])

    def stop(done: int, _: int) -> None:
        if done > BLOCK_PATHS:
            raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        offtake.run(study, out=tmp_path, progress=stop)
    done = json.loads((tmp_path / "manifest.json").read_text())["paths_done"]
    manifest = offtake.run(study, out=tmp_path, resume=True).manifest
    assert manifest["paths_resumed"] == done > 0
    assert manifest["paths"] == PATHS
    computed = manifest["paths_per_second"] * manifest["seconds"]
    assert computed == pytest.approx(PATHS - done, rel=0.01)


def test_resume_needs_a_folder(small):
    with pytest.raises(InputError, match="resume: needs out="):
        offtake.run(offtake.load(small[0]), resume=True)


def test_an_unfinished_run_waits_for_resume(small, tmp_path):
    file, _ = small
    study = offtake.load(file)
    with pytest.raises(StoppedError, match="65,536 paths"):
        offtake.run(study, out=tmp_path, progress=_stop_after(1))
    with pytest.raises(InputError, match="--resume"):
        offtake.run(study, out=tmp_path)


def test_a_second_run_in_the_same_folder_is_refused(small, tmp_path):
    file, _ = small
    study = offtake.load(file)

    def again(done: int, total: int) -> None:
        with pytest.raises(OfftakeError, match="another run"):
            offtake.run(study, out=tmp_path)
        raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        offtake.run(study, out=tmp_path, progress=again)


@pytest.mark.parametrize(
    ("met", "raised", "said", "status"),
    [
        (
            OfftakeError("cannot write summary.npz: No space left on device"),
            OfftakeError,
            "No space",
            "failed",
        ),
        (MemoryError("cannot allocate"), MemoryError, "allocate", "failed"),
        (KeyboardInterrupt(), StoppedError, "--resume", "stopped"),
    ],
)
def test_results_that_are_not_written_are_said_to_be_and_resume_writes_them(
    small, tmp_path, monkeypatch, met, raised, said, status
):
    file, whole = small
    study = offtake.load(file)

    def meet(*_):
        raise met

    with monkeypatch.context() as patched:
        patched.setattr("offtake.results.write_tally", meet)
        with pytest.raises(raised, match=said):
            offtake.run(study, out=tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["status"], manifest["paths_done"]) == (status, study.study.paths)
    told = []
    again = offtake.run(study, out=tmp_path, resume=True, progress=lambda done, total: told.append(done))
    assert again.summary_hash == whole == _hash(tmp_path)
    assert told[:3] == [BLOCK_PATHS, 2 * BLOCK_PATHS, 3 * BLOCK_PATHS]


@pytest.mark.parametrize("name", ["1e3", "1e-3", "1.5", "12", "null", "no", "2026-01-01"])
def test_the_saved_config_keeps_names_that_look_otherwise(tmp_path, name):
    from simple import deal
    from simple import study as made

    study = made({name: deal(supplier=name, region=name)})
    (tmp_path / "config.yaml").write_text(config_yaml(study))
    assert offtake.load(tmp_path / "config.yaml").portfolio == study.portfolio


def test_the_saved_config_gives_the_same_hash(small, tmp_path):
    file, whole = small
    offtake.run(offtake.load(file), out=tmp_path)
    assert offtake.run(offtake.load(tmp_path / "config.yaml")).summary_hash == whole


def _workers_of(process: subprocess.Popen) -> list[int]:
    children = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(line.split()[0]) for line in children.stdout.splitlines() if "spawn_main" in line]


def _is_running(process: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


@pytest.fixture
def at_work(small, tmp_path):
    """A long run by two workers, in a process group of its own, that has finished its first unit."""
    command = _command(small[0], tmp_path, "executor.workers=2", f"study.paths={100 * BLOCK_PATHS}")
    (tmp_path / "tmp").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    _wait_for_blocks(tmp_path, process, 1)
    workers = _workers_of(process)
    assert len(workers) == 2
    yield process, workers
    process.kill()
    process.communicate()


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_workers_too(at_work, tmp_path, presses):
    """Ctrl-C reaches every process of the terminal's group; impatient people press it again."""
    process, workers = at_work
    for _ in range(presses):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert not any(map(_is_running, workers))
    if presses == 1:
        assert process.returncode == 4, errors
        assert "Traceback" not in errors
        assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "stopped"


def test_workers_do_not_outlive_a_killed_parent(at_work, tmp_path):
    process, workers = at_work
    assert list((tmp_path / "tmp").glob("offtake-*"))
    process.kill()
    deadline = time.monotonic() + 30
    while any(map(_is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_is_running, workers))
    assert not list((tmp_path / "tmp").glob("offtake-*"))


def test_a_worker_that_dies_is_replaced(small, tmp_path):
    """One of two spawned workers is killed once, from outside, before its first unit is done."""
    file, whole = small
    process = subprocess.Popen(
        _command(file, tmp_path, "executor.workers=2"), stderr=subprocess.PIPE, text=True
    )
    workers: list[int] = []
    while not workers and process.poll() is None:
        workers = _workers_of(process)
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert _hash(tmp_path) == whole


def test_a_run_goes_on_only_as_it_was_begun(small, tmp_path, monkeypatch):
    file, _ = small
    overrides = ["study.paths=100"]
    offtake.run(offtake.load(file, overrides), out=tmp_path)
    with pytest.raises(InputError, match=r"computed by offtake .* in strict arithmetic, not by .* in fast"):
        offtake.run(offtake.load(file, [*overrides, "device.arithmetic=fast"]), out=tmp_path, device="jax")
    # numpy has one arithmetic.
    again = offtake.run(offtake.load(file, [*overrides, "device.arithmetic=fast"]), out=tmp_path)
    assert again.manifest["arithmetic"] == "strict"
    monkeypatch.setattr("offtake.simulate.__version__", "0.0.9")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"computed by offtake .*, not by offtake 0\.0\.9"):
            offtake.run(offtake.load(file, overrides), out=tmp_path, resume=resume)


@pytest.mark.parametrize("workers", [0, -1])
def test_there_is_at_least_one_worker(small, workers):
    with pytest.raises(InputError, match="workers: must be at least 1"):
        offtake.run(offtake.load(small[0]), workers=workers)
