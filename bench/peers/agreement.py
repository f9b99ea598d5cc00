"""offtake's answer to the peers' study, and how far a peer's is from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from kernel_counts import four_metrics
from numpy.typing import NDArray

from offtake.compile import compile_study
from offtake.portfolio import load
from offtake.summary import Row, Summary
from offtake_kernels.layout import Plan

from . import Answer, Series
from .terms import SHARED_METRICS

# Some seven hundred comparisons a peer, or seven thousand by deal; by chance one is beyond it in 300,000
# peers, or in 30,000.
FALSE_ALARM = 5.85
# GW, MH100e and US$ bn that float32 and the clause about small deliveries may make of a value.
RESOLUTION = 1e-4
# Relative width of a bin of offtake's histograms, inside which it does not tell values apart.
BIN = 2.0**-8
QUANTILES = {"p05": 0.05, "p50": 0.50, "p95": 0.95}


def plan_of(study: dict[str, Any], *, by_deal: bool = False) -> Plan:
    """The study compiled, recording nothing but what peers answer."""
    plan = compile_study(load(study)).plan
    totals = four_metrics(plan)
    if not by_deal:
        return totals
    shares = [s for s in plan.quarter_series if s.scope == "deal" and s.metric in SHARED_METRICS]
    return dataclasses.replace(totals, quarter_series=(*totals.quarter_series, *shares))


def rows_of(plan: Plan) -> list[Row]:
    """What the rows of such a plan's tally are."""
    names = ["" if s.scope == "total" else plan.deal_names[s.index] for s in plan.quarter_series]
    return [
        Row(series.metric, series.scope, names[place], t, nullable=False, tally=place * plan.quarters + t)
        for place, series in enumerate(plan.quarter_series)
        for t in range(plan.quarters)
    ]


def distances(ours: Summary, theirs: Answer, paths: int) -> dict[tuple[Series, str], NDArray[np.float64]]:
    """How far a peer's answer from `paths` paths is, [quarters] by series and statistic, in standard errors.

    A mean's is the combined one. A p-quantile is compared as a probability: as many of offtake's paths as p
    must lie below it, up to the standard error of both shares, so that atoms are nothing special.
    """
    found = {}
    for series, answer in theirs.items():
        metric, deal = series
        quarters = range(len(answer["mean"]))
        positions = [ours.find(metric, "deal" if deal else "total", deal, t) for t in quarters]
        found[series, "mean"] = _of_means(ours, positions, answer, paths)
        for name, p in QUANTILES.items():
            error = np.sqrt(p * (1.0 - p) * (1.0 / ours.tally.paths + 1.0 / paths))
            levels = answer[name]
            shares = [_beyond(ours, positions[t], float(levels[t]), p) for t in quarters]
            found[series, name] = np.array(shares) / error
    return found


def _of_means(
    ours: Summary, positions: list[int], theirs: dict[str, NDArray], paths: int
) -> NDArray[np.float64]:
    """Both errors by offtake's deviation: a peer's few paths may show none of what is rare."""
    mean, sd = (ours.statistics[name][positions] for name in ("mean", "sd"))
    error = sd * np.sqrt(1.0 / ours.tally.paths + 1.0 / paths)
    apart = np.maximum(np.abs(theirs["mean"] - mean) - RESOLUTION, 0.0)
    return apart / np.maximum(error, RESOLUTION / FALSE_ALARM)


def _beyond(ours: Summary, position: int, level: float, p: float) -> float:
    """By how much p is outside the shares of offtake's paths below the level and up to it."""
    width = RESOLUTION + BIN * abs(level)
    below = ours.probability(position, "<", level - width)[0]
    up_to = ours.probability(position, "<=", level + width)[0]
    return max(below - p, p - up_to, 0.0)
