"""How many worker processes a study gets, and what they share."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import struct
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import offtake
from offtake import estimate as estimates
from offtake import executors, workers
from offtake.blocks import BLOCK_PATHS, Unit
from offtake.compile import compile_study
from offtake.errors import DeviceError, InputError, OfftakeError
from offtake.estimate import estimate
from offtake.hal import host
from offtake.hal.numpy_device import NumpyDevice
from offtake.study import DeviceChoice, ExecutorChoice
from offtake_kernels.tally import TallyBuilder


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000", 8), ("150000 100000", 2), ("100000 100000", 1), ("50000 100000", 1), (None, 8)],
)
def test_a_containers_limit_counts_as_cores(text, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "_LIMITS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    if text is not None:
        (tmp_path / "cpu.max").write_text(text + "\n")
    assert host.cores() == expected


@pytest.mark.parametrize(("gib", "expected"), [("max", 8), (str(5 * 2**30), 2), (str(2**30), 1)])
def test_workers_have_memory(gib, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "_LIMITS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": 2**24}.__getitem__)
    (tmp_path / "memory.max").write_text(gib + "\n")
    assert host.workers() == expected


@pytest.mark.parametrize(
    ("overrides", "most", "expected"),
    [
        (["device=numpy", "study.paths=1e7"], 8, 8),
        (["device=numpy", "study.paths=1e7"], 1, 1),
        (["device=numpy", "study.paths=1e4"], 8, 1),
        (["device=numpy", "study.paths=1e6", "executor.workers=3"], 8, 3),
        (["device=numpy", "study.paths=1e4", "executor.workers=3"], 8, 1),  # of one unit
        (["device=null", "study.paths=1e7"], 8, 1),
        (["device=jax", "study.paths=1e7"], 8, 8),
        (["device=jax", "study.paths=1e5"], 8, 1),
    ],
)
def test_as_many_workers_as_a_study_is_worth(overrides, most, expected):
    assert estimate(offtake.load("openai", overrides), most)["workers"] == expected


def test_auto_knows_how_many_cores_numpy_has(monkeypatch):
    study = offtake.load("openai", ["study.paths=2e6"])
    monkeypatch.setattr(estimates, "cores", lambda: 64)
    assert estimate(study, 1)["workers"] == 1
    assert estimate(study, 64)["seconds"] < 60


def test_workers_beyond_units_and_cores_are_neither_time_nor_memory(monkeypatch):
    study = offtake.load("demo", ["world=demo", "device=numpy", "study.paths=1e6", "executor.workers=500"])
    monkeypatch.setattr(estimates, "cores", lambda: 2)
    few = offtake.load("demo", ["world=demo", "device=numpy", "study.paths=1e6", "executor.workers=16"])
    assert estimate(study)["workers"] == estimate(study)["units"] == 16
    assert estimate(study) == estimate(few)
    two = offtake.load("demo", ["world=demo", "device=numpy", "study.paths=1e6", "executor.workers=2"])
    assert estimate(few)["seconds"] == estimate(two)["seconds"]


def test_paths_kept_whole_are_memory():
    def memory(kept: str) -> float:
        study = ["world=demo", "device=numpy", "study.paths=1e6", f"study.keep_paths={kept}"]
        return estimate(offtake.load("demo", study))["memory_gib"]

    # Numbers of a path: 21 metrics of 24 quarters and 36 of the path.
    assert memory("1e6") - memory("1") == pytest.approx(1e6 * (21 * 24 + 36) * 14 / 2**30, abs=0.02)


def test_a_study_of_more_memory_than_there_is_is_refused(monkeypatch):
    study = offtake.load("demo", ["world=demo", "device=numpy", "study.paths=100", "study.keep_paths=1e8"])
    monkeypatch.setattr(estimates, "memory_gib", lambda: 0.01)
    with pytest.raises(InputError, match=r"study\.keep_paths: about .* GiB of memory"):
        offtake.run(study)
    assert offtake.run(study, force=True).summary_hash


def _workers_used(monkeypatch) -> list[int]:
    used, pooled = [], executors._run_pooled

    def spy(plan, units, keep_paths, device, workers):
        used.append(workers)
        return pooled(plan, units, keep_paths, device, workers)

    monkeypatch.setattr(executors, "_run_pooled", spy)
    return used


def test_python_has_one_worker_unless_told(monkeypatch):
    monkeypatch.setattr(NumpyDevice, "seconds_a_worker", 1e-9)
    used = _workers_used(monkeypatch)
    study = offtake.load("anthropic", [f"study.paths={BLOCK_PATHS + 1}", "study.keep_paths=0"])
    alone = offtake.run(study, device="numpy")
    assert used == []
    assert offtake.run(study, device="numpy", workers=2).summary_hash == alone.summary_hash
    assert used == [2]


@pytest.mark.slow
def test_workers_of_jax_share_what_one_of_them_compiled(tmp_path, monkeypatch):
    class Kept(TemporaryDirectory):
        def cleanup(self):
            kept.extend(os.listdir(self.name))
            super().cleanup()

    import jax  # noqa: F401 (sets variables of its own when it is first imported)

    kept: list[str] = []
    monkeypatch.setattr(workers, "TemporaryDirectory", Kept)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    overrides = [f"study.paths={BLOCK_PATHS + 1}", "study.keep_paths=0", "executor.workers=2"]
    study = offtake.load("anthropic", overrides)
    before = dict(os.environ)
    found = offtake.run(study, device="jax")
    assert dict(os.environ) == before
    assert kept
    alone = study.model_copy(update={"executor": study.executor.model_copy(update={"workers": 1})})
    assert found.summary_hash == offtake.run(alone, device="numpy").summary_hash


def test_a_device_without_use_for_processes_says_so():
    from offtake.hal.cuda_device import CudaDevice
    from offtake.hal.null_device import NullDevice

    assert CudaDevice.seconds_a_worker == NullDevice.seconds_a_worker == math.inf


def test_a_unit_that_nobody_wants_apart_goes_into_the_study_s_tally():
    plan = compile_study(offtake.load("anthropic")).plan
    units = [Unit(0, 300), Unit(300, 200), Unit(500, 100)]
    choice, executor = DeviceChoice(name="numpy"), ExecutorChoice(workers=1)
    builder = TallyBuilder(plan.rows, plan.threshold_rows)
    found = list(executors.run_units(plan, units, 310, choice, executor, into=builder, apart=1))
    assert [unit for unit, _, _ in found] == units
    assert [tally is None for _, tally, _ in found] == [False, True, True]
    assert [kept.path.size if kept else 0 for _, _, kept in found] == [300, 10, 0]
    assert found[0][1] is not None
    builder.absorb(found[0][1])
    assert builder.build(600).digest() == NumpyDevice(choice).run(plan, 0, 600, 0)[0].digest()


def _run_with_workers(_) -> str:
    study = offtake.load("anthropic", ["study.paths=10", "executor.workers=2"])
    try:
        offtake.run(study, device="numpy")
    except OfftakeError as error:
        return str(error)
    return ""


def test_a_daemonic_process_is_told_that_it_has_no_workers():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (said,) = pool.map(_run_with_workers, [0])
    assert "executor.workers=1 computes in this one" in said


def test_nothing_to_do_needs_no_workers():
    plan = compile_study(offtake.load("anthropic")).plan
    choice, executor = DeviceChoice(name="numpy"), ExecutorChoice(workers=2)
    assert list(executors.run_units(plan, [], 0, choice, executor)) == []


class _Dying:
    """A worker's pipe: some workers announce a thousand bytes of their tally, send three and are killed."""

    def __init__(self, pipe):
        self._pipe, self._dead = pipe, Path(os.environ["OFFTAKE_TEST_DEAD"])
        self.recv = pipe.recv

    def send(self, answer):
        for death in range(int(os.environ["OFFTAKE_TEST_DEATHS"]) if answer is not None else 0):
            with suppress(FileExistsError):
                (self._dead / str(death)).touch(exist_ok=False)
                os.write(self._pipe.fileno(), struct.pack("!i", 1000) + b"...")
                os.kill(os.getpid(), signal.SIGKILL)
        self._pipe.send(answer)


def _dies_in_the_middle_of_its_answer(pipe, *given):
    dying: Any = _Dying(pipe)
    workers._work(dying, *given)


@pytest.fixture
def doomed(tmp_path, monkeypatch):
    """A plan, its units, and workers of which some die."""
    monkeypatch.setattr(workers, "_work", _dies_in_the_middle_of_its_answer)
    monkeypatch.setenv("OFFTAKE_TEST_DEAD", str(tmp_path))
    plan = compile_study(offtake.load("anthropic")).plan
    return plan, [Unit(0, 300), Unit(300, 200)]


def test_a_worker_killed_while_it_answers_is_replaced(doomed, monkeypatch, tmp_path):
    plan, units = doomed
    deaths = workers._WAITING
    monkeypatch.setenv("OFFTAKE_TEST_DEATHS", str(deaths))
    choice, executor = DeviceChoice(name="numpy"), ExecutorChoice(workers=2)
    found = {unit: tally for unit, tally, _ in executors.run_units(plan, units, 0, choice, executor)}
    assert len(os.listdir(tmp_path)) == deaths
    alone = NumpyDevice(choice)
    assert {unit: tally.digest() for unit, tally in found.items() if tally is not None} == {
        unit: alone.run(plan, unit.first_path, unit.paths, 0)[0].digest() for unit in units
    }


def test_a_unit_that_kills_three_workers_fails_the_run(doomed, monkeypatch):
    plan, units = doomed
    monkeypatch.setenv("OFFTAKE_TEST_DEATHS", "99")
    choice, executor = DeviceChoice(name="numpy"), ExecutorChoice(workers=2)
    with pytest.raises(OfftakeError, match=r"paths .* the worker died 3 times, exit code -9"):
        list(executors.run_units(plan, units, 0, choice, executor))


def test_what_a_worker_raises_is_raised():
    plan = compile_study(offtake.load("anthropic")).plan
    choice, executor = DeviceChoice(name="cuda", index=(99,)), ExecutorChoice(workers=2)
    with pytest.raises(DeviceError, match="cuda") as caught:
        list(executors.run_units(plan, [Unit(0, 1)], 0, choice, executor))
    assert "in open_device" in caught.value.__notes__[0]


def test_tallies_that_nobody_takes_yet_stay_with_their_workers(monkeypatch):
    received, receive = [], workers._Worker.receive

    def counted(worker):
        answer = receive(worker)
        received.append(answer)
        return answer

    monkeypatch.setattr(workers._Worker, "receive", counted)
    plan = compile_study(offtake.load("anthropic")).plan
    units = [Unit(10 * number, 10) for number in range(8)]
    choice, executor = DeviceChoice(name="numpy"), ExecutorChoice(workers=2)
    found = executors.run_units(plan, units, 0, choice, executor)
    first = next(found)
    time.sleep(2.0)
    assert 1 <= sum(answer is not None for answer in received) <= 1 + workers._WAITING
    assert {first[0], *(unit for unit, _, _ in found)} == set(units)
