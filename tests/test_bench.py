"""The benchmarks time work that is done: when `run` returns, nothing is left to wait for. And they run."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import fake_cupy
import numpy as np
import pytest
import simple

from offtake import hal
from offtake.compile import compile_study
from offtake.hal import jax_device
from offtake.hal.device import Device
from offtake.study import DeviceChoice
from offtake_kernels import path_cuda
from offtake_kernels.layout import Plan

ROOT = Path(__file__).parent.parent
PATHS, LAUNCH, KEEP = 3000, 1000, 1100

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++ to compile the kernel for the host"
)


def _plan() -> Plan:
    """A small study with history, draws of every quarter, and a threshold."""
    terms = {
        "slip": {"quantiles": {0.1: 0.0, 0.9: 2.0}},
        "pays": {"fee": {"kind": "commitment", "total": 10.0}},
    }
    study = simple.study(
        {"new": simple.deal(**terms), "old": simple.deal(start="2025-01-01", **terms)},
        quarters=6,
        factors={"revenue": {"initial": 4.0, "volatility": 0.3}},
        settings={"thresholds": [{"metric": "cash", "op": "<", "level": 4.0}]},
    )
    return compile_study(study).plan


PLAN = _plan()


def _open(name: str, arithmetic: str = "strict") -> Device:
    choice = {"name": name, "arithmetic": arithmetic, "launch_paths": LAUNCH}
    return hal.open_device(DeviceChoice.model_validate(choice))


def _run(device: Device) -> list[np.ndarray]:
    """Every array that a run returns."""
    tally, kept = device.run(PLAN, 0, PATHS, KEEP)
    assert kept is not None
    found = [getattr(tally, name) for name in tally.arrays()]
    return [*found, kept.path, *kept.quarter_values.values(), *kept.scalar_values.values()]


def _is_hosts(array: Any) -> bool:
    """Whether an array is numpy's own memory: no view of what a library may still write."""
    while type(array) is np.ndarray and array.base is not None:
        array = array.base
    return type(array) is np.ndarray and bool(array.flags.owndata)


class Call:
    """A call of an executable, and the calls whose results it was given."""

    def __init__(self, before: list[Call]):
        self._before, self.is_over = before, False

    def wait(self) -> None:
        """What the host reads has been computed, and all that it was computed from."""
        waiting = [self]
        while waiting:
            call = waiting.pop()
            if not call.is_over:
                call.is_over = True
                waiting += call._before


class Promised:
    """A result of a call. Its readiness is a matter of who reads it, not of how fast the machine is."""

    def __init__(self, array: Any, call: Call):
        self.array, self.call = array, call

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        self.call.wait()
        return np.asarray(self.array, dtype)

    def __getitem__(self, place: Any) -> Promised:
        return Promised(self.array[place], self.call)


def _promising(original: Callable, calls: list[Call]) -> Callable:
    """An executable's `__call__`, with every call noted and its results promised."""

    def call(self, values: Any, rest: Any) -> Any:
        several = isinstance(values, list)
        given = values if several else [values]
        made = Call([one.call for one in given if isinstance(one, Promised)])
        calls.append(made)
        arrays = [one.array if isinstance(one, Promised) else one for one in given]
        results = original(self, arrays if several else arrays[0], rest)
        return type(results)(Promised(result, made) for result in results)

    return call


@pytest.fixture(
    scope="module",
    params=[
        "tally of the host",
        pytest.param("tally of the device", marks=pytest.mark.slow),
        pytest.param("fast", marks=pytest.mark.slow),
    ],
)
def jax_opened(request) -> Device:
    """A device that has compiled PLAN."""
    pytest.importorskip("jax")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax_device, "tallied_on_host", lambda platform: request.param != "tally of the device")
        device = _open("jax", "fast" if request.param == "fast" else "strict")
    device.run(PLAN, 0, 1, 0)
    return device


@pytest.fixture
def calls(monkeypatch) -> list[Call]:
    """The calls of JAX's executables from now on."""
    from offtake_kernels import program_jax, tally_jax

    found: list[Call] = []
    for kind in (program_jax.Executable, tally_jax.Histograms):
        monkeypatch.setattr(kind, "__call__", _promising(kind.__call__, found))
    return found


@needs_jax
def test_jax_has_computed_everything_when_a_run_returns(jax_opened: Device, calls: list[Call]):
    import jax

    found = _run(jax_opened)
    assert all(array.is_ready() for array in jax.live_arrays())
    assert all(call.is_over for call in calls)
    assert len(calls) > PATHS // LAUNCH * PLAN.quarters
    assert all(map(_is_hosts, found))


@needs_jax
def test_a_call_that_nobody_waits_for_is_noticed(jax_opened: Device, calls: list[Call], monkeypatch):
    from offtake_kernels import path_jax

    finish = path_jax.Tile.finish

    def and_once_more(tile: path_jax.Tile) -> dict:
        found = finish(tile)
        tile.advance(PLAN.quarters - 1)
        return found

    monkeypatch.setattr(path_jax.Tile, "finish", and_once_more)
    _run(jax_opened)
    assert sum(not call.is_over for call in calls) == PATHS // LAUNCH


@pytest.fixture
def cupy(monkeypatch, tmp_path) -> fake_cupy.Fake:
    return fake_cupy.install(monkeypatch, tmp_path / "cache")


@needs_compiler
def test_cuda_has_waited_for_every_stream_when_a_run_returns(cupy):
    found = _run(_open("cuda"))
    assert sum(lanes for _, lanes in cupy.launches) == PATHS
    assert not cupy.unfinished
    assert all(map(_is_hosts, found))


@needs_compiler
def test_a_stream_that_nobody_waits_for_is_noticed(cupy, monkeypatch):
    device = _open("cuda")
    device.launch_paths(PLAN)
    monkeypatch.setattr(path_cuda.Gpu, "_settle", lambda gpu: None)
    _run(device)
    assert cupy.unfinished == {None}
    monkeypatch.setattr(fake_cupy._Stream, "synchronize", lambda stream: None)
    _run(device)
    assert len(cupy.unfinished) == 1 + path_cuda._FLYING


def test_numpy_returns_memory_of_its_own():
    assert all(map(_is_hosts, _run(_open("numpy"))))


@needs_jax
def test_a_view_of_jaxs_memory_is_noticed():
    import jax.numpy as jnp

    assert not _is_hosts(np.asarray(jnp.arange(5)))
    assert not _is_hosts(np.asarray(jnp.arange(5))[1:])


@pytest.mark.parametrize("quarters", [20, 41])
def test_contracts_that_last_are_the_frozen_ones_up_to_41_quarters(quarters: int):
    assert common.lasting(12, quarters) == common.portfolio(12, quarters)


# cupy is that of the host where a case is of cuda.
_SUITE = """
import sys, pytest
sys.path.insert(0, {tests!r})
if {fake}:
    import fake_cupy
    sys.modules["cupy"] = fake_cupy.Fake()
sys.exit(pytest.main({arguments!r}))
"""


def _suite(*arguments: str, fake: bool = False) -> str:
    """What pytest says of bench/ in a process of its own."""
    code = _SUITE.format(
        tests=str(ROOT / "tests"), fake=fake, arguments=["bench", "-p", "no:cacheprovider", *arguments]
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "arithmetics"),
    [
        ("numpy", ["strict"]),
        pytest.param("jax", ["strict", "fast"], marks=needs_jax),
        pytest.param("cuda", ["strict", "fast"], marks=needs_compiler),
    ],
)
def test_the_smallest_benchmark_of_a_backend(tmp_path, backend: str, arithmetics: list[str]):
    file = tmp_path / "found.json"
    case = f"3x20-1e4-{backend}"
    _suite("-k", case, "--benchmark-only", f"--benchmark-json={file}", fake=backend == "cuda")
    found = json.loads(file.read_text())
    names = [measured["name"] for measured in found["benchmarks"]]
    assert names == [f"test_device[{case}-{arithmetic}]" for arithmetic in arithmetics]
    for measured, arithmetic in zip(found["benchmarks"], arithmetics, strict=True):
        assert measured["group"] == "3 deals x 20 quarters"
        assert (measured["params"]["backend"], measured["params"]["arithmetic"]) == (backend, arithmetic)
        extra = measured["extra_info"]
        assert extra["paths"] == 10_000
        assert 0 < extra["paths_per_second"] <= extra["paths_per_second_fastest"]
        assert "compile_seconds" in extra
        assert extra["device"]["backend"] == backend
        assert "device_bytes" in extra
        assert backend != "cuda" or extra["device_bytes"] > 0
    assert {"processor", "load_average", "offtake", "numpy", "jax"} <= set(found["machine_info"])


@pytest.mark.slow
def test_plain_numpy_computes_the_same_study():
    assert "52 passed" in _suite("-k", "test_naive_agrees")


@pytest.mark.slow
def test_peers_compute_the_same_study():
    """Those that need no library of their own, and JAX where it is installed."""
    found = _suite("-v", "-k", "peer and not statistics")
    here = ["naive numpy", "blocked numpy"]
    here += [] if importlib.util.find_spec("jax") is None else ["JAX vmap"]
    for recorded in ("totals", "deals"):
        for name in here:
            assert f"test_a_peer_agrees[{recorded}-{name}] PASSED" in found


@pytest.mark.slow
def test_long_benchmarks_run_when_asked_for():
    def cases(*arguments: str) -> set[str]:
        listed = _suite("--collect-only", "-q", "-k", "test_device", *arguments)
        return {line for line in listed.splitlines() if "test_device[" in line}

    def is_long(case: str) -> bool:
        return any(part in case for part in ("48x120", "-1e6", "-1e7"))

    short, long = cases(), cases("-m", "long")
    assert short
    assert not any(map(is_long, short))
    assert set(filter(is_long, short | long)) <= long
    assert not short & long
