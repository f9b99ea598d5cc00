"""The naive numpy version is of the same study: its means agree with offtake's, row by row."""

from __future__ import annotations

import common
import naive_numpy
import numpy as np
import pytest

import offtake
from offtake.results import Result

PATHS = 20_000
# Of four thousand comparisons, six combined standard errors leave a false alarm below 1e-5.
EVERYWHERE = 6.0


Theirs = dict[tuple[str, str, str], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def ours() -> Result:
    """The frozen portfolio on offtake's numpy backend."""
    return offtake.run(common.study(paths=PATHS), device="numpy")


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    """The same in plain numpy, laid out by output row."""
    study = common.portfolio()
    summary = naive_numpy.summarise(naive_numpy.simulate(study, PATHS))
    found = {}
    for (scope, metric), statistics in summary.items():
        for number, name in enumerate(naive_numpy.names(study)[scope]):
            found[scope, metric, name] = {
                key: np.asarray(value if scope == "total" else value[..., number]).reshape(-1)
                for key, value in statistics.items()
            }
    return found


def _distance(ours: Result, theirs: Theirs, position: int, statistic: str = "mean") -> float:
    """Difference of a statistic in combined standard errors of the mean; 0 where one has no value."""
    row = ours.summary.rows[position]
    numbers = theirs[row.scope, row.metric, row.name]
    other, other_se = (float(numbers[name][row.quarter or 0]) for name in (statistic, "se"))
    here, here_se = (float(ours.summary.statistics[name][position]) for name in (statistic, "se"))
    if np.isnan(here) or np.isnan(other):
        return 0.0
    # Where hardly anything varies, float32 against float64 is all the difference there is.
    error = max(float(np.hypot(here_se, other_se)), 1e-6 * abs(here), 1e-9)
    return abs(here - other) / error


@pytest.mark.parametrize("quarter", [2, 7, 13, 22, 31, 40])
@pytest.mark.parametrize("metric", ["capacity_gw", "spend", "revenue", "cash", "funding"])
def test_totals_agree(ours: Result, theirs: Theirs, metric: str, quarter: int):
    """Means of the headline totals lie within five combined standard errors."""
    assert _distance(ours, theirs, ours.summary.find(metric, "total", "", quarter)) < 5.0


def test_same_rows(ours: Result, theirs: Theirs):
    """Both report the same metrics, scopes and names."""
    assert set(theirs) == {(row.scope, row.metric, row.name) for row in ours.summary.rows}


def test_every_mean_agrees(ours: Result, theirs: Theirs):
    """So do the means of every other row, where more than a few paths have a value."""
    paths = ours.summary.statistics["paths"] * (1.0 - ours.summary.statistics["share_none"])
    far = [
        (row.scope, row.metric, row.name, row.quarter)
        for position, row in enumerate(ours.summary.rows)
        if paths[position] > 100 and _distance(ours, theirs, position) > EVERYWHERE
    ]
    assert not far


@pytest.mark.parametrize("statistic", ["p05", "p50", "p95", "es_low", "es_high"])
@pytest.mark.parametrize("metric", ["capacity_gw", "spend", "revenue", "funding"])
def test_distributions_agree(ours: Result, theirs: Theirs, metric: str, statistic: str):
    """So do quantiles and tail means, by a bound that is loose for them."""
    assert _distance(ours, theirs, ours.summary.find(metric, "total", "", 22), statistic) < 20.0
