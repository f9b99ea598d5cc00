"""offtake's answer to the peers' study, and how far a peer's is from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from kernel_counts import four_metrics
from numpy.typing import NDArray

from offtake.compile import compile_study
from offtake.portfolio import load
from offtake.summary import Row, Summary
from offtake_kernels.layout import Plan

from . import Answer
from .terms import METRICS

# Some seven hundred comparisons a peer; by chance one is beyond it in 300,000 peers.
FALSE_ALARM = 5.85
# GW, MH100e and US$ bn that float32 and the clause about small deliveries may make of a value.
RESOLUTION = 1e-4
# Relative width of a bin of offtake's histograms, inside which it does not tell values apart.
BIN = 2.0**-8
QUANTILES = {"p05": 0.05, "p50": 0.50, "p95": 0.95}


def plan_of(study: dict[str, Any]) -> Plan:
    """The study compiled, recording nothing but the four metrics."""
    return four_metrics(compile_study(load(study)).plan)


def rows_of(plan: Plan) -> list[Row]:
    """What the rows of such a plan's tally are."""
    return [
        Row(series.metric, series.scope, "", t, nullable=False, tally=place * plan.quarters + t)
        for place, series in enumerate(plan.quarter_series)
        for t in range(plan.quarters)
    ]


def distances(ours: Summary, theirs: Answer, paths: int) -> dict[tuple[str, str], NDArray[np.float64]]:
    """How far a peer's answer from `paths` paths is, [quarters] by metric and statistic, in standard errors.

    A mean's is the combined one. A p-quantile is compared as a probability: as many of offtake's paths as p
    must lie below it, up to the standard error of both shares, so that atoms are nothing special.
    """
    found = {}
    for metric in METRICS:
        quarters = range(len(theirs[metric]["mean"]))
        positions = [ours.find(metric, "total", "", t) for t in quarters]
        found[metric, "mean"] = _of_means(ours, positions, theirs[metric])
        for name, p in QUANTILES.items():
            error = np.sqrt(p * (1.0 - p) * (1.0 / ours.tally.paths + 1.0 / paths))
            levels = theirs[metric][name]
            shares = [_beyond(ours, positions[t], float(levels[t]), p) for t in quarters]
            found[metric, name] = np.array(shares) / error
    return found


def _of_means(ours: Summary, positions: list[int], theirs: dict[str, NDArray]) -> NDArray[np.float64]:
    mean, se = (ours.statistics[name][positions] for name in ("mean", "se"))
    apart = np.maximum(np.abs(theirs["mean"] - mean) - RESOLUTION, 0.0)
    return apart / np.maximum(np.hypot(se, theirs["se"]), RESOLUTION / FALSE_ALARM)


def _beyond(ours: Summary, position: int, level: float, p: float) -> float:
    """By how much p is outside the shares of offtake's paths below the level and up to it."""
    width = RESOLUTION + BIN * abs(level)
    below = ours.probability(position, "<", level - width)[0]
    up_to = ours.probability(position, "<=", level + width)[0]
    return max(below - p, p - up_to, 0.0)
