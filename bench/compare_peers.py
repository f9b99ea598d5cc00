"""offtake beside its peers on one reduced study: see the package `peers`.

    python bench/compare_peers.py --json bench/results/peers.json

Needs `pip install '.[peers]'`. Nothing is timed before every peer's means and quantiles agree with offtake's.
Then all are timed in alternation, in one process on one core, in CPU seconds; compiling is apart.
`python docs/tables.py --write` puts the results into docs/bench.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
from compare_naive import spread
from peers import PEERS, Answer, agreement

import offtake
from offtake import hal
from offtake.benchmark import label
from offtake.compile import compile_study
from offtake.hal.device import Device
from offtake.hal.host import processor
from offtake.study import DeviceChoice
from offtake.summary import Summary

CHECKED_PATHS = 262_144
TIMED_PATHS = 131_072
# What a peer computes in a round, at least.
SECONDS = 1.0
CHOICES = (("numpy", "strict"), ("jax", "strict"), ("jax", "fast"))

# Paths, and the CPU seconds that they took: until the tally is there, and until the statistics are.
Timed = tuple[int, float, float]


class Ours:
    """A device on the study, with the four metrics or with every one; compiled."""

    def __init__(self, backend: str, arithmetic: str, *, every_metric: bool) -> None:
        choice = {"name": backend, "arithmetic": arithmetic}
        self._device: Device = hal.open_device(DeviceChoice.model_validate(choice))
        compiled = compile_study(offtake.load(common.plain()))
        self._plan = compiled.plan
        self._rows = compiled.catalogue.rows, compiled.catalogue.threshold_rows
        if not every_metric:
            self._plan = agreement.plan_of(common.plain())
            self._rows = agreement.rows_of(self._plan), ()
        begun = time.perf_counter()
        self._device.run(self._plan, 0, 1, 0)
        self.compile_seconds = time.perf_counter() - begun

    def summary(self, paths: int) -> Summary:
        """Of the first paths; its statistics are computed when they are asked for."""
        return Summary(self._device.run(self._plan, 0, paths, 0)[0], *self._rows)

    def timed(self) -> Timed:
        """One round."""
        begun = time.process_time()
        summary = self.summary(TIMED_PATHS)
        tallied = time.process_time()
        assert summary.statistics
        return TIMED_PATHS, tallied - begun, time.process_time() - begun


class Theirs:
    """A peer, prepared."""

    def __init__(self, name: str) -> None:
        peer, begun = PEERS[name], time.perf_counter()
        self.paths, self._calls = peer.paths, 1
        self._run: Callable[[int], Answer] = peer.prepare(common.plain(), peer.paths)
        self.prepare_seconds = time.perf_counter() - begun

    def distances(self, ours: Summary) -> dict[tuple[str, str], float]:
        """How far the answer is from offtake's in the worst quarter, in standard errors."""
        found = agreement.distances(ours, self._run(1), self.paths)
        # A NaN is far, too.
        return {key: float(np.nan_to_num(apart, nan=math.inf).max()) for key, apart in found.items()}

    def timed(self) -> Timed:
        """One round: the answer as often as it takes to fill it."""
        begun = time.process_time()
        for seed in range(self._calls):
            self._run(seed)
        seconds, calls = time.process_time() - begun, self._calls
        self._calls = max(calls, math.ceil(SECONDS / seconds * calls))
        return calls * self.paths, seconds, seconds


def checked(theirs: dict[str, Theirs], ours: Summary) -> dict[str, dict[str, Any]]:
    """The worst distance of each peer. Raises SystemExit where one disagrees."""
    found = {}
    for name, peer in theirs.items():
        distances = peer.distances(ours)
        metric, statistic = max(distances, key=distances.__getitem__)
        found[name] = {
            "paths": peer.paths,
            "worst": distances[metric, statistic],
            "of": f"{statistic} of {metric}",
        }
        if distances[metric, statistic] >= agreement.FALSE_ALARM:
            raise SystemExit(f"{name} disagrees with offtake, and nothing is timed: {found[name]}")
    return found


def alternate(works: dict[str, Ours | Theirs], rounds: int) -> dict[str, list[Timed]]:
    """The rounds of each, after one that warms up."""
    found: dict[str, list[Timed]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            timed = work.timed()
            if number:
                found[name].append(timed)
    return found


def rates(timed: list[Timed]) -> dict[str, list[float]]:
    """Paths a CPU second by round: until the tally, and with the statistics."""
    return {
        "tally": [paths / seconds for paths, seconds, _ in timed],
        "statistics": [paths / seconds for paths, _, seconds in timed],
    }


def measure(rounds: int) -> dict[str, Any]:
    """Everything, as JSON holds it."""
    found: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "processor": processor()["kind"],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": dict(versions()),
        "load_average": os.getloadavg()[0],
        "rounds": rounds,
        "checked_paths": CHECKED_PATHS,
    }
    ours = {label(*choice): Ours(*choice, every_metric=False) for choice in CHOICES}
    theirs = {name: Theirs(name) for name in PEERS}
    found["agreement"] = checked(theirs, ours["numpy"].summary(CHECKED_PATHS))
    every = {f"{label(*choice)}, every metric": Ours(*choice, every_metric=True) for choice in CHOICES}
    timed = {name: rates(times) for name, times in alternate({**ours, **every, **theirs}, rounds).items()}
    found["offtake"] = {
        name: {
            "paths": TIMED_PATHS,
            "compile_seconds": work.compile_seconds,
            **{kind: spread(values) for kind, values in timed[name].items()},
        }
        for name, work in {**ours, **every}.items()
    }
    found["peers"] = {
        name: {
            "paths": work.paths,
            "prepare_seconds": work.prepare_seconds,
            "rate": spread(timed[name]["statistics"]),
            "times": {one: spread(_ratios(timed[one], timed[name])) for one in ours},
        }
        for name, work in theirs.items()
    }
    return found


def versions() -> Iterator[tuple[str, str]]:
    """offtake's version and those of the libraries."""
    for library in ("offtake", *dict.fromkeys(peer.library for peer in PEERS.values())):
        yield library, importlib.metadata.version(library)


def _ratios(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> list[float]:
    return [one / other for one, other in zip(ours["statistics"], theirs["statistics"], strict=True)]


def on_one_core() -> None:
    """Starts the program anew on one core, before any library counts cores for its threads."""
    if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        os.execv(sys.executable, [sys.executable, *sys.argv])


def main() -> None:
    """Measures, prints, and writes where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    on_one_core()
    found = measure(options.rounds)
    print(json.dumps(found, indent=1))
    common.save(found, options.json)


if __name__ == "__main__":
    main()
