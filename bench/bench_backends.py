"""Backends by workload: make bench, or pytest bench --benchmark-only -p no:xdist

A group is a workload. Timed is `device.run` of a compiled plan, simulation and exact tally, on a device that
has run a path before. `extra_info` holds paths and rates, what compiling took, and the device.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import Any

import common
import naive_numpy
import pytest

import offtake
from offtake import hal
from offtake.compile import compile_study
from offtake.hal.device import Device
from offtake.study import DeviceChoice
from offtake_kernels.layout import Plan

Workload = tuple[int, int] | str

DEALS, QUARTERS, EXPONENTS = (3, 12, 48), (20, 41, 120), (4, 5, 6, 7)
BACKENDS = (
    ("numpy", "strict"),
    ("jax", "strict"),
    ("jax", "fast"),
    ("cuda", "strict"),
    ("cuda", "fast"),
)
# What is run without being asked for, minutes in all on two cores: every workload but the longest with the
# fewest paths, and two with more.
SHORT_PATHS = 10**4
LONG_WORKLOAD = (48, 120)
MORE_PATHS: dict[Workload, int] = {(3, 20): 10**5, (12, 41): 10**5}
ROUNDS = 3
# From here on one round: hours of numpy.
MANY_PATHS = 10**7
NAIVE_PATHS = 8_192


@dataclass
class Opened:
    """A device that has compiled a plan and run one path of it.

    compile_seconds: what the first path took longer than the second; 0 where that is lost in the noise.
    """

    device: Device
    plan: Plan
    compile_seconds: float


# The one that is open: another would find less of a GPU's memory.
_OPEN: dict[tuple[Workload, str, str], Opened] = {}


def opened(workload: Workload, backend: str, arithmetic: str) -> Opened:
    """The device with the workload's plan, as the case before left it or opened now. Skips where it is not
    usable.
    """
    key = workload, backend, arithmetic
    if key not in _OPEN:
        _OPEN.clear()
        reason = hal.backend_class(backend).unusable()
        if reason is not None:
            pytest.skip(f"device={backend}: {reason}")
        study = common.openai(1) if isinstance(workload, str) else offtake.load(common.lasting(*workload))
        plan = compile_study(study).plan
        choice = DeviceChoice.model_validate({"name": backend, "arithmetic": arithmetic})
        begun = time.perf_counter()
        device = hal.open_device(choice)
        device.run(plan, 0, 1, 0)
        first = time.perf_counter() - begun
        second = common.seconds(lambda: device.run(plan, 0, 1, 0))
        _OPEN[key] = Opened(device, plan, max(0.0, first - second))
    return _OPEN[key]


def device_bytes(backend: str) -> int | None:
    """Bytes of the device: what CuPy holds for the launches, or the most that JAX has held on its first
    device since the process began. None where the library does not tell, as of a CPU.
    """
    if backend == "cuda":
        return importlib.import_module("cupy").get_default_memory_pool().used_bytes()
    if backend == "jax":
        return (importlib.import_module("jax").devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None


def _cases() -> list[Any]:
    """Every case; those that share a device lie side by side."""
    workloads: list[Workload] = [(deals, quarters) for deals in DEALS for quarters in QUARTERS]
    cases = []
    for workload in [*workloads, "openai"]:
        name = workload if isinstance(workload, str) else "{}x{}".format(*workload)
        for backend, arithmetic in BACKENDS:
            for exponent in EXPONENTS:
                most = MORE_PATHS.get(workload, SHORT_PATHS)
                long = workload == LONG_WORKLOAD or 10**exponent > most
                case = pytest.param(
                    workload,
                    10**exponent,
                    backend,
                    arithmetic,
                    id=f"{name}-1e{exponent}-{backend}-{arithmetic}",
                    marks=[pytest.mark.long] if long else [],
                )
                cases.append(case)
    return cases


def _measure(benchmark: Any, work: Any, paths: int, rounds: int = ROUNDS, warmup_rounds: int = 0) -> None:
    """Times `work`; a round that warms up is not counted."""
    benchmark.extra_info["paths"] = paths
    benchmark.pedantic(work, rounds=rounds, iterations=1, warmup_rounds=warmup_rounds)
    if benchmark.stats is not None:
        found = benchmark.stats.stats
        benchmark.extra_info["paths_per_second"] = round(paths / found.median)
        benchmark.extra_info["paths_per_second_fastest"] = round(paths / found.min)


@pytest.mark.parametrize(("workload", "paths", "backend", "arithmetic"), _cases())
def test_device(benchmark, workload: Workload, paths: int, backend: str, arithmetic: str):
    """A compiled plan on a device."""
    of = opened(workload, backend, arithmetic)
    benchmark.group = workload if isinstance(workload, str) else "{} deals x {} quarters".format(*workload)
    benchmark.extra_info["compile_seconds"] = round(of.compile_seconds, 3)
    benchmark.extra_info["device"] = of.device.describe()
    rounds = 1 if paths >= MANY_PATHS else ROUNDS
    _measure(benchmark, lambda: of.device.run(of.plan, 0, paths, 0), paths, rounds)
    benchmark.extra_info["device_bytes"] = device_bytes(backend)


def test_naive(benchmark):
    """The frozen portfolio in plain numpy, whole arrays in memory, every statistic."""
    study = common.portfolio(12, 41)
    benchmark.group = "12 deals x 41 quarters"

    def work():
        return naive_numpy.summarise(naive_numpy.simulate(study, NAIVE_PATHS))

    _measure(benchmark, work, NAIVE_PATHS, warmup_rounds=1)


def test_quick(benchmark):
    """What `offtake run study=quick` computes, composing and validating it included."""

    def work():
        study = offtake.load("openai", ["study=quick", "device=numpy"])
        return offtake.run(study).summary.statistics

    benchmark.group = "openai, study=quick"
    _measure(benchmark, work, 10_000, warmup_rounds=1)
