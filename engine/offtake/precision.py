"""When a study is precise enough: how many paths are tried, and how well its `until` statistic is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from offtake.study import StudySettings, Until
from offtake.summary import QUANTILES, Summary


def targets(settings: StudySettings) -> Iterator[int]:
    """Numbers of paths after which precision is looked at: paths, then doubling up to max_paths."""
    wanted = settings.paths
    yield wanted
    if settings.until is not None:
        while wanted < settings.until.max_paths:
            wanted = min(2 * wanted, settings.until.max_paths)
            yield wanted


def precision_of(until: Until, summary: Summary) -> dict[str, Any]:
    """What `until` asked for and what was reached; None where that is not known."""
    reached = relative_error(until, summary)
    return {
        "metric": until.metric,
        "statistic": until.statistic,
        "rel_se": until.rel_se,
        "reached": reached if np.isfinite(reached) else None,
    }


def relative_error(until: Until, summary: Summary) -> float:
    """The largest relative standard error of the `until` metric's rows; infinite where one is not known yet.

    A row without any value has nothing to be known.
    """
    worst = 0.0
    for number, row in enumerate(summary.rows):
        if row.metric == until.metric and row.scope == "total":
            value, error = _estimate(summary, number, until.statistic)
            if np.isnan(value) or error == 0.0:
                continue
            worst = max(worst, error / abs(value) if value and not np.isnan(error) else np.inf)
    return worst


def _estimate(summary: Summary, number: int, statistic: str) -> tuple[float, float]:
    """A statistic of a row and its standard error; NaN for one that is not known."""
    if statistic in QUANTILES:
        return summary.quantile(number, float(QUANTILES[statistic]))
    column = "se" if statistic == "mean" else f"se_{statistic}"
    return float(summary.statistics[statistic][number]), float(summary.statistics[column][number])
