"""Small studies for closed forms: a deal at a time, everything else switched off."""

from __future__ import annotations

import numpy as np

import offtake
from offtake.path_replay import Replay, replay
from offtake.study import Study

START = "2026-01-01"


def quarter_date(t: int) -> str:
    """First day of quarter t of a study that starts on START."""
    return f"{2026 + t // 4}-{1 + 3 * (t % 4):02d}-01"


def deal(**terms) -> dict:
    """A ready service of 1 GW from quarter 0, all at once, for the terms not given."""
    service = {
        "supplier": "acme",
        "layer": "compute",
        "hardware": "chip",
        "start": START,
        "ladder": {"all": {"after": 0, "gw": 1.0}},
        "term": 8,
    }
    service.update(terms)
    return {key: value for key, value in service.items() if value is not None}


def study(deals: dict, *, quarters: int = 12, buyer=None, factors=None, world=None, settings=None) -> Study:
    """A study of the deals in a world without randomness: demand 1 MH100e, no revenue to speak of."""
    return offtake.load(
        {
            "portfolio": {
                "name": "test",
                "start": START,
                "quarters": quarters,
                "buyer": {"discount_rate": 0.0, **(buyer or {})},
                "deals": deals,
            },
            "world": {
                "factors": {"demand": {"initial": 1.0}, "revenue": {"initial": 4.0}, **(factors or {})},
                "hardware": {"chip": {"h100e_per_gw": 1.0}},
                **(world or {}),
            },
            "study": {"paths": 1, "keep_paths": 1, **(settings or {})},
            "device": {"name": "numpy"},
        }
    )


def path(*arguments, **keywords) -> Replay:
    """Path 0 of such a study."""
    return replay(study(*arguments, **keywords), 0)


def series(replayed: Replay, metric: str) -> np.ndarray:
    """A total metric by quarter."""
    return np.array(replayed.quarters[metric], dtype=np.float64)


def statistic(
    result, name: str, metric: str, quarter: int | None = None, scope: str = "total", item: str = ""
):
    """A statistic of a result's row."""
    row = result.summary.find(metric, scope, item, quarter)
    return float(result.summary.statistics[name][row])


def z_score(result, metric: str, exact: float, quarter: int | None = None, scope="total", item="") -> float:
    """How many standard errors a mean lies from its exact value."""
    mean, se = (statistic(result, name, metric, quarter, scope, item) for name in ("mean", "se"))
    return (mean - exact) / se


# With some 200 statistical assertions, 5.85 standard errors keep the suite's false alarms below 1e-6.
FALSE_ALARM = 5.85
