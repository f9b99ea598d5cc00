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
from peers import BY_DEAL, PEERS, Answer, Peer, Series, agreement

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
    """A device on the study, compiled. It records `totals`, `deals` too (both as peers answer), or `all`."""

    def __init__(self, backend: str, arithmetic: str, recorded: str) -> None:
        choice = {"name": backend, "arithmetic": arithmetic}
        self._device: Device = hal.open_device(DeviceChoice.model_validate(choice))
        compiled = compile_study(offtake.load(common.plain()))
        self._plan = compiled.plan
        self._rows = compiled.catalogue.rows, compiled.catalogue.threshold_rows
        if recorded != "all":
            self._plan = agreement.plan_of(common.plain(), by_deal=recorded == "deals")
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

    def __init__(self, peer: Peer) -> None:
        begun = time.perf_counter()
        self.paths, self._calls = peer.paths, 1
        self._run: Callable[[int], Answer] = peer.prepare(common.plain(), peer.paths)
        self.prepare_seconds = time.perf_counter() - begun

    def distances(self, ours: Summary) -> dict[tuple[Series, str], float]:
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
        series, statistic = max(distances, key=distances.__getitem__)
        found[name] = {
            "paths": peer.paths,
            "worst": distances[series, statistic],
            "of": " of ".join(filter(None, [statistic, *series])),
        }
        if distances[series, statistic] >= agreement.FALSE_ALARM:
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
    works: dict[str, Ours | Theirs] = {}
    for recorded, peers in (("totals", PEERS), ("deals", BY_DEAL)):
        ours = {_name(label(*choice), recorded): Ours(*choice, recorded) for choice in CHOICES}
        theirs = {_name(name, recorded): Theirs(peer) for name, peer in peers.items()}
        agreed = checked(theirs, ours[_name("numpy", recorded)].summary(CHECKED_PATHS))
        found.setdefault("agreement", {}).update(agreed)
        works |= {**ours, **theirs}
    works |= {_name(label(*choice), "all"): Ours(*choice, "all") for choice in CHOICES}
    timed = {name: rates(times) for name, times in alternate(works, rounds).items()}
    found["offtake"] = {
        name: {
            "paths": TIMED_PATHS,
            "compile_seconds": work.compile_seconds,
            **{kind: spread(values) for kind, values in timed[name].items()},
        }
        for name, work in works.items()
        if isinstance(work, Ours)
    }
    for key, recorded, peers in (("peers", "totals", PEERS), ("peers_by_deal", "deals", BY_DEAL)):
        found[key] = {name: _beside(name, recorded, works, timed) for name in peers}
    return found


def _beside(name: str, recorded: str, works: dict[str, Ours | Theirs], timed: dict[str, Any]) -> Any:
    """A peer's rate, and how many times it each of our devices does."""
    work, rate = works[_name(name, recorded)], timed[_name(name, recorded)]
    assert isinstance(work, Theirs)
    return {
        "paths": work.paths,
        "prepare_seconds": work.prepare_seconds,
        "rate": spread(rate["statistics"]),
        "times": {
            label(*choice): spread(_ratios(timed[_name(label(*choice), recorded)], rate))
            for choice in CHOICES
        },
    }


def _name(work: str, recorded: str) -> str:
    return work + {"totals": "", "deals": ", by deal", "all": ", every metric"}[recorded]


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
