"""Devices beside one another on one study: how fast, how far from what each could do, at what price.

`measure` runs every usable backend in strict and fast arithmetic, a round of each in turn, so that a machine
that slows down slows them all. What is timed is a device's whole answer: paths and their exact tally, merged
on the host. Compiling is apart. `docs/bench.md` says how to read it.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from offtake import hal
from offtake._version import __version__
from offtake.compile import compile_study
from offtake.errors import InputError, Mistake
from offtake.hal.device import Device
from offtake.hal.host import processor
from offtake.hal.limits import Limits
from offtake.study import DeviceChoice, Study
from offtake_kernels.bins import MOST_LANES
from offtake_kernels.cost import cost_of
from offtake_kernels.layout import Plan

ROUNDS = 5
# How many paths a round needs is found from so many, at most so many times more at once.
_FEW_PATHS, _MOST_GROWTH = 4_096, 8
_ARITHMETIC = {"numpy": ("strict",), "jax": ("strict", "fast"), "cuda": ("strict", "fast")}
Say = Callable[[str], None]


def measure(study: Study, seconds: float, say: Say = lambda _: None) -> dict[str, Any]:
    """Every usable backend on a study, or the one that it names, each for about so many seconds; as JSON
    holds it. say: told what is about to happen.

    Raises DeviceError when the study names a device that is not usable.
    """
    plan = compile_study(study).plan
    cost = cost_of(plan)
    found: dict[str, Any] = {
        "offtake": __version__,
        "machine": {**processor(), "system": platform.platform(), "python": platform.python_version()},
        "numpy": np.__version__,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "study": {
            "portfolio": study.portfolio.name,
            "deals": len(study.portfolio.deals),
            "quarters": plan.quarters,
            "path": {"operations": cost.operations, "words": cost.words, "bytes": cost.bytes},
        },
        "skipped": [],
    }
    entries = []
    for choice in _choices(study.device, found["skipped"]):
        say(f"{label(choice.name, choice.arithmetic)}: compiling")
        entries.append(_Entry(choice, plan, seconds))
    for number in range(ROUNDS):
        for entry in entries:
            say(f"round {number + 1} of {ROUNDS}: {label(entry.choice.name, entry.choice.arithmetic)}")
            entry.go()
    limits: dict[str, Limits] = {}
    for entry in entries:
        if entry.choice.name not in limits:
            say(f"limits of {entry.choice.name}")
            limits[entry.choice.name] = entry.device.limits()
    found["devices"] = [entry.result(found["study"], limits[entry.choice.name]) for entry in entries]
    return found


def label(backend: str, arithmetic: str) -> str:
    """A device's name in tables."""
    return backend if backend == "numpy" else f"{backend} {arithmetic}"


def _choices(asked: DeviceChoice, skipped: list[dict[str, str]]) -> Iterator[DeviceChoice]:
    """The device that the study names, or every usable one in each arithmetic."""
    if asked.name != "auto":
        yield asked
        return
    for name, kinds in _ARITHMETIC.items():
        reason = hal.backend_class(name).unusable()
        if reason is not None:
            skipped.append({"backend": name, "reason": reason})
            continue
        for arithmetic in kinds:
            yield asked.model_copy(update={"name": name, "arithmetic": arithmetic})


class _Entry:
    """A device with the plan compiled, and the rounds that it has run."""

    def __init__(self, choice: DeviceChoice, plan: Plan, seconds: float):
        self.choice, self._plan = choice, plan
        self.device: Device = hal.open_device(choice)
        begun = time.perf_counter()
        self.device.run(plan, 0, 1, 0)
        self._compiling = time.perf_counter() - begun
        self._paths = self._paths_of_a_round(seconds / ROUNDS)
        self._rates: list[float] = []
        self._joules = 0.0

    def _paths_of_a_round(self, seconds: float) -> int:
        """As many as take so long; whole blocks, which keep every core busy, where that is one or more."""
        paths = _FEW_PATHS
        while True:
            wanted = paths * seconds / self._seconds(paths)
            if wanted < 1.5 * paths:
                return round(wanted / MOST_LANES) * MOST_LANES or max(1, round(wanted))
            paths = round(min(wanted, _MOST_GROWTH * paths))

    def _seconds(self, paths: int) -> float:
        begun = time.perf_counter()
        self.device.run(self._plan, 0, paths, 0)
        return time.perf_counter() - begun

    def go(self) -> None:
        """Runs a round."""
        before = self.device.joules()
        self._rates.append(self._paths / self._seconds(self._paths))
        self._joules += (self.device.joules() or 0.0) - (before or 0.0)

    def result(self, study: dict[str, Any], limits: Limits) -> dict[str, Any]:
        """Rates, limits and energy."""
        path = study["path"]
        most = limits.paths_per_second(path["operations"], path["words"], path["bytes"])
        middle = median(self._rates)
        return {
            "backend": self.choice.name,
            "arithmetic": self.choice.arithmetic,
            "device": self.device.describe(),
            "compile_seconds": round(self._compiling, 3),
            "paths_a_round": self._paths,
            "paths_per_second": {"median": middle, "least": min(self._rates), "most": max(self._rates)},
            "deal_quarters_per_second": middle * study["deals"] * study["quarters"],
            "limits": {
                "multiply_adds": limits.multiply_adds,
                "words": limits.words,
                "bytes": limits.bytes,
                "paths_per_second": most,
            },
            "share_of_limit": middle / most,
            "joules_per_million_paths": self._joules / (self._paths * ROUNDS) * 1e6 or None,
        }


def read(file: Path) -> dict[str, Any]:
    """What `offtake bench --json` wrote. Raises InputError naming the file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError([Mistake(str(file), "", f"cannot be read: {error.strerror}")]) from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"study", "machine", "devices"} <= found.keys():
        raise InputError([Mistake(str(file), "", "is not what `offtake bench --json` writes")])
    return found


def compare(first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
    """Each device of the second beside the same of the first: median rates and the ratio, with the least and
    the most that the rounds allow. Raises InputError when the studies differ.
    """
    if first["study"] != second["study"]:
        names = " and ".join(
            f"{study['portfolio']} ({study['deals']} deals, {study['quarters']} quarters, "
            f"{study['path']['operations']:,} operations a path)"
            for study in (first["study"], second["study"])
        )
        raise InputError([Mistake("bench compare", "", f"the files are of different studies: {names}")])
    known = {(one["backend"], one["arithmetic"]): one["paths_per_second"] for one in first["devices"]}
    rows = []
    for one in second["devices"]:
        before, after = known.get((one["backend"], one["arithmetic"])), one["paths_per_second"]
        if before is not None:
            ratio = {
                "median": after["median"] / before["median"],
                "least": after["least"] / before["most"],
                "most": after["most"] / before["least"],
            }
            device = label(one["backend"], one["arithmetic"])
            rows.append({"device": device, "first": before, "second": after, "ratio": ratio})
    return rows
