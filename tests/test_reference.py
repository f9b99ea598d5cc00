"""The kernels against the plain reference in `reference.py`, path by path, and against themselves.

The reference is float64 and the kernels float32: values agree within TOLERANCE of themselves and of the
largest value of their series. An event decided by a tie may fall differently in float32; such paths are
counted (FLIPS), never tolerated by a wider margin.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from reference import philox, simulate
from studies import random_study

import offtake

EXAMPLE = Path(__file__).parent / "data" / "example.yaml"
TOLERANCE = 2e-4
FLIPS = 0.005
"""Largest share of paths on which an event may fall differently."""
BALANCES = ("npv_net", "min_cash")
"""Scalars that are differences of larger amounts."""


class Disagreement(NamedTuple):
    """One metric on one path: production and reference."""

    metric: str
    quarter: int | None
    production: float | None
    reference: float | None


def _differ(production: float | None, reference: float | None, scale: float) -> bool:
    if production is None or reference is None:
        return production is not reference
    return abs(production - reference) > TOLERANCE * (max(abs(production), abs(reference)) + scale)


def _compare_series(metric: str, production, reference, scales) -> Iterator[Disagreement]:
    """The first quarter in which a series differs."""
    for t, (value, expected) in enumerate(zip(production, reference, strict=True)):
        if _differ(value, expected, scales[t]):
            yield Disagreement(metric, t, value, expected)
            return


def _largest(series) -> float:
    return max((abs(value) for value in series if value is not None), default=0.0)


def _scales(metric: str, expected: dict[str, list]) -> list[float]:
    """How large an error of rounding may be in each quarter, over TOLERANCE."""
    series = expected[metric]
    if metric != "unit_cost":
        return [_largest(series)] * len(series)
    # A ratio: what compute's rounding makes of it where compute is small beside what it was or becomes.
    online, most = expected["compute"], _largest(expected["compute"])
    return [
        value * most / compute if value and compute else 0.0
        for value, compute in zip(series, online, strict=True)
    ]


def disagreements(study: offtake.Study, path: int) -> list[Disagreement]:
    """Every total metric and scalar of one path on which the kernels and the reference differ."""
    expected, found = simulate(study, path), offtake.replay(study, path)
    totals = expected["quarters"]
    assert set(found.quarters) == set(totals)
    assert set(found.scalars) == set(expected["scalars"])
    differing: list[Disagreement] = []
    for metric, series in found.quarters.items():
        differing += _compare_series(metric, series, totals[metric], _scales(metric, totals))
    flow = _largest(totals["revenue"]) + _largest(totals["spend"])
    for metric, value in found.scalars.items():
        scale = flow if metric in BALANCES else 1e-2
        if _differ(value, expected["scalars"][metric], scale):
            differing.append(Disagreement(metric, None, value, expected["scalars"][metric]))
    return differing


def _disagreeing(seeds: range, paths: int) -> tuple[int, dict[tuple[int, int], list[Disagreement]]]:
    """Paths compared, and those of them that differ, by seed of the study and path."""
    differing = {}
    for seed in seeds:
        study = offtake.load(random_study(seed))
        for path in range(paths):
            if found := disagreements(study, path):
                differing[seed, path] = found
    return len(seeds) * paths, differing


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ],
)
def test_the_references_generator(counter, key, words):
    assert philox((*counter,), (*key,)) == tuple(int(word, 16) for word in words.split())


@pytest.mark.parametrize("path", [*range(12), 2**32 - 1, 2**32 + 5])
def test_example(path):
    study = offtake.load(EXAMPLE, ["study.paths=1", "device=numpy"])
    assert disagreements(study, path) == []


def test_random_studies():
    count, differing = _disagreeing(range(30), 1)
    assert len(differing) <= FLIPS * count, differing


@pytest.mark.slow
@pytest.mark.parametrize("begin", range(30, 280, 125))
def test_many_random_studies(begin: int):
    count, differing = _disagreeing(range(begin, begin + 125), 3)
    assert len(differing) <= FLIPS * count, differing


def _rows(study: offtake.Study) -> dict[tuple[str, str, str], list[float | None]]:
    """Series of a study's single path by metric, scope and name: with one path the mean is its value."""
    table = offtake.run(study).quarters.table.select(["metric", "scope", "name", "quarter", "mean"])
    series: dict[tuple[str, str, str], list[float | None]] = {}
    for row in table.to_pylist():
        held = series.setdefault((row["metric"], row["scope"], row["name"]), [])
        assert row["quarter"] == len(held)
        held.append(row["mean"])
    return series


def _expected_rows(study: offtake.Study) -> dict[tuple[str, str, str], list[float]]:
    expected = simulate(study, 0)
    rows = {("factor", "factor", name): series for name, series in expected["factors"].items()}
    deals = study.portfolio.deals
    for name, metrics in expected["deals"].items():
        for metric, series in metrics.items():
            rows[metric, "deal", name] = series
            key = metric, "supplier", deals[name].supplier
            before = rows.get(key, [0.0] * len(series))
            rows[key] = [a + b for a, b in zip(before, series, strict=True)]
    return rows


def _compare_rows(study: offtake.Study) -> list[tuple[str, Disagreement]]:
    found, differing = _rows(study), []
    for (metric, scope, name), series in _expected_rows(study).items():
        produced = found[metric, scope, name]
        scales = [_largest(series)] * len(series)
        differing += [(name, one) for one in _compare_series(metric, produced, series, scales)]
    return differing


def test_deals_suppliers_and_factors():
    differing = {seed: _compare_rows(offtake.load(random_study(seed))) for seed in range(1000, 1012)}
    assert not any(differing.values()), differing


@pytest.mark.slow
def test_deals_suppliers_and_factors_of_many_studies():
    seeds = range(1012, 1112)
    differing = {seed: _compare_rows(offtake.load(random_study(seed))) for seed in seeds}
    wrong = {seed: found for seed, found in differing.items() if found}
    assert len(wrong) <= FLIPS * len(seeds), wrong


@pytest.mark.parametrize("seed", [3, 11, 24, 38])
def test_launches_change_nothing_and_kept_paths_are_replayed(seed):
    study = random_study(seed)
    study["study"] |= {"paths": 40, "keep_paths": 12}
    results = [
        offtake.run(offtake.load({**study, "device": {"name": "numpy", "launch_paths": launch}}))
        for launch in (7, 65_536)
    ]
    assert results[0].summary_hash == results[1].summary_hash
    kept, once = results[0].paths.table.to_pylist(), results[0].path_scalars.table.to_pylist()
    loaded = offtake.load(study)
    quarters = loaded.portfolio.quarters
    assert len(once) == 12
    for path in range(12):
        again = offtake.replay(loaded, path)
        for t, row in enumerate(kept[path * quarters : (path + 1) * quarters]):
            assert (row["path"], row["quarter"]) == (path, t)
            assert {name: row[name] for name in again.quarters} == {
                name: series[t] for name, series in again.quarters.items()
            }
        assert {name: once[path][name] for name in again.scalars} == again.scalars


# --- What random studies found, as small as it gets


def _small(quarters: int, deals: dict[str, Any], **buyer: Any) -> offtake.Study:
    """A study of a few deals of GW-ladders in a constant world."""
    common = {"supplier": "acme", "start": "2025-10-01", "layer": "site", "ladder": IN_A_YEAR}
    filled = {}
    for name, deal in deals.items():
        hardware = {"hardware": "h"} if deal.get("layer", "site") != "site" else {}
        filled[name] = {**common, **hardware, **deal}
    portfolio = {"name": "small", "start": "2025-10-01", "quarters": quarters, "buyer": buyer}
    portfolio["deals"] = filled
    world = {
        "factors": {"demand": {"initial": 1.0}, "revenue": {"initial": 1.0}},
        "hardware": {"h": {"h100e_per_gw": 1.0}},
    }
    return offtake.load({"portfolio": portfolio, "world": world, "study": {"paths": 1}})


AT_ONCE = {"full": {"after": 0, "gw": 1.0}}
IN_A_YEAR = {"full": {"after": 4, "gw": 1.0}}
RARE = {"full": {"after": 4, "gw": 1.0, "follow_through": 0.0}}
PERHAPS = {"dist": "uniform", "low": 1.1, "high": 1.5}
RACKS = {"racks": {"kind": "purchase", "per_gw": 10.0, "deposit": 0.5}}
CLOUD = {"cloud": {"kind": "commitment", "total": 10.0}}
SURE = 400.0
"""A hazard, a year, that hits in the first quarter on practically every path."""

SMALL: dict[str, Any] = {
    "a deposit after the term": lambda: _small(4, {"a": {"term": 1.5, "pays": RACKS}}),
    "a deposit after a long stop": lambda: _small(6, {"a": {"slip": 2.0, "long_stop": 1.0, "pays": RACKS}}),
    "a deposit after a cancellation": lambda: _small(
        4, {"a": {"start": "2026-01-01", "cancel": {"hazard": SURE}, "pays": RACKS}}
    ),
    "a deposit after a default": lambda: _small(4, {"a": {"default": {"hazard": SURE}, "pays": RACKS}}),
    "the lateness of a deal cancelled while its clock stood still": lambda: _small(
        8,
        {
            "rack": {"layer": "chips", "ladder": AT_ONCE},
            "a": {"layer": "chips", "start": "2026-10-01", "follows_sites": True,
                  "cancel": {"hazard": SURE, "notice": 2}},
        },
    ),
    "what is committed to a blocked deal while its clock stands still": lambda: _small(
        4,
        {
            "rack": {"layer": "chips", "ladder": AT_ONCE},
            "first": {"layer": "compute", "term": 8.0, "exclusive": True},
            "a": {"layer": "chips", "follows_sites": True, "blocked_while": "first", "term": 4.0,
                  "pays": CLOUD},
        },
    ),
    "a blocked deal whose clock stands still as its blocker ends": lambda: _small(
        6,
        {
            "rack": {"layer": "chips", "ladder": AT_ONCE},
            "first": {"layer": "compute", "term": 2.5, "exclusive": True},
            "a": {"layer": "chips", "follows_sites": True, "blocked_while": "first",
                  "receives": {"stake": {"kind": "equity", "amount": 1.0}}},
        },
    ),
    "a fee in a quarter in which the clock stands still": lambda: _small(
        5,
        {
            "rack": {"layer": "chips", "ladder": AT_ONCE},
            "a": {"layer": "chips", "start": "2027-10-01", "follows_sites": True, "term": 4.0,
                  "cancel": {"hazard": SURE, "notice": 2, "fee": 1.0}, "pays": CLOUD},
        },
    ),
    "a cap below the opening value of a constant index": lambda: _small(
        4, {"a": {"pays": {"racks": {"kind": "purchase", "per_gw": 10.0, "index_cap": 0.9}}}}
    ),
    "training without demand, inference first": lambda: _small(2, {"a": {}}, priority="inference"),
    "a long stop of a deal whose first rung does not happen": lambda: _small(
        2, {"a": {"slip": 2.0, "long_stop": 1.0, "ladder": RARE}}
    ),
    "a term extended in the last quarter of the horizon": lambda: _small(
        4, {"a": {"term": 4.0, "extension": {"when": "shortage", "quarters": 4}}}
    ),
    "no extension after a notice": lambda: _small(
        6,
        {"a": {"term": 3.0, "ladder": AT_ONCE, "extension": {"when": "shortage", "quarters": 4},
               "cancel": {"hazard": SURE, "notice": 4}}},
    ),
    "a random size, price and power usage": lambda: _small(
        4,
        {"a": {"size": PERHAPS, "term": 4.0, "pays": {
            "cloud": {"kind": "commitment", "total": 1.0, "price": PERHAPS},
            "power": {"kind": "power", "pue": PERHAPS}}}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(SMALL))
def test_small(case):
    assert disagreements(SMALL[case](), 0) == []
