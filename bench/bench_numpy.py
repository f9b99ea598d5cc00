"""The numpy backend by workload: pytest bench --benchmark-only -p no:xdist

A group is a workload; `extra_info` holds paths, and `paths_per_second` of the fastest round. Whole runs are
timed: compile, simulate, tally, merge and every statistic of the summary.
"""

from __future__ import annotations

import common
import naive_numpy
import pytest

import offtake

CASES = [
    (3, 20, 65_536),
    (3, 41, 65_536),
    (12, 20, 65_536),
    (12, 41, 65_536),
    (48, 20, 16_384),
    (48, 41, 16_384),
]
NAIVE_PATHS = 8_192


def _measure(benchmark, work, paths: int, rounds: int = 3) -> None:
    """Times `work` after one round that is not counted."""
    benchmark.extra_info["paths"] = paths
    benchmark.pedantic(work, rounds=rounds, iterations=1, warmup_rounds=1)
    if benchmark.stats is not None:
        benchmark.extra_info["paths_per_second"] = round(paths / benchmark.stats.stats.min)


@pytest.mark.parametrize(("deals", "quarters", "paths"), CASES)
def test_frozen(benchmark, deals: int, quarters: int, paths: int):
    """The frozen portfolio."""
    study = common.study(deals, quarters, paths)
    benchmark.group = f"{deals} deals x {quarters} quarters"
    _measure(benchmark, lambda: offtake.run(study).summary.statistics, paths)


def test_naive(benchmark):
    """The same in plain numpy, whole arrays in memory."""
    study = common.portfolio(12, 41)
    benchmark.group = "12 deals x 41 quarters"
    _measure(
        benchmark, lambda: naive_numpy.summarise(naive_numpy.simulate(study, NAIVE_PATHS)), NAIVE_PATHS, 2
    )


def test_openai(benchmark):
    """The shipped OpenAI portfolio."""
    study = common.openai(16_384)
    benchmark.group = "openai"
    _measure(benchmark, lambda: offtake.run(study).summary.statistics, 16_384)


def test_quick(benchmark):
    """What `offtake run study=quick` computes, composing and validating it included."""

    def work():
        study = offtake.load("openai", ["study=quick", "device=numpy"])
        return offtake.run(study).summary.statistics

    benchmark.group = "openai, study=quick"
    _measure(benchmark, work, 10_000)
