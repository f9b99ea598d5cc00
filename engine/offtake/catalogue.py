"""What a study reports: recorded series for the plan, and the output rows that read them.

A row of the tally is a series at a quarter (or over the path). Output rows that must be equal share one: a
supplier with a single deal, the delivered GW of a ready service, what a deal never receives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offtake.metrics import METRICS, Metric, reach_metric, reach_name
from offtake.study import Study
from offtake.summary import Row, ThresholdRow
from offtake_kernels.layout import NOTHING, Series, Threshold


@dataclass(frozen=True)
class Catalogue:
    """Series to record, thresholds to count, and the rows of the answer with their place in the tally."""

    quarter_series: tuple[Series, ...]
    path_series: tuple[Series, ...]
    plan_thresholds: tuple[Threshold, ...]
    rows: tuple[Row, ...]
    threshold_rows: tuple[ThresholdRow, ...]
    reach: tuple[tuple[str, float], ...]
    units: dict[str, str]


def compile_catalogue(
    study: Study, deals: Sequence[str], suppliers: Sequence[str], factors: Sequence[str]
) -> Catalogue:
    """The catalogue of a study whose deals, suppliers and factors are numbered in the order given."""
    quarters = study.portfolio.quarters
    names = {"total": ("",), "deal": tuple(deals), "supplier": tuple(suppliers), "factor": tuple(factors)}
    quarter_series: dict[Series, int] = {}
    path_series: dict[Series, int] = {}
    quarterly: list[tuple[Metric, str, str, int]] = []
    per_path: list[tuple[Metric, str, str, int]] = []
    metrics = (*METRICS, *(reach_metric(level) for level in study.study.reach))
    for metric in metrics:
        for scope in metric.scopes:
            for index, name in enumerate(names[scope]):
                series = _source(study, metric, scope, index, names)
                if metric.per == "quarter":
                    position = quarter_series.setdefault(series, len(quarter_series))
                    quarterly.append((metric, scope, name, position))
                else:
                    position = path_series.setdefault(series, len(path_series))
                    per_path.append((metric, scope, name, position))
    base = len(quarter_series) * quarters
    rows = [
        Row(metric.name, scope, name, t, metric.nullable, position * quarters + t)
        for metric, scope, name, position in quarterly
        for t in range(quarters)
    ]
    rows += [
        Row(m.name, scope, name, None, m.nullable, base + position) for m, scope, name, position in per_path
    ]
    plan_thresholds, threshold_rows = _thresholds(study, quarter_series, path_series)
    return Catalogue(
        tuple(quarter_series),
        tuple(path_series),
        plan_thresholds,
        tuple(rows),
        threshold_rows,
        tuple((reach_name(level), level) for level in study.study.reach),
        {metric.name: metric.unit for metric in metrics},
    )


def _source(
    study: Study, metric: Metric, scope: str, index: int, names: dict[str, tuple[str, ...]]
) -> Series:
    """The recorded series that an output row reads."""
    deals = study.portfolio.deals
    if scope == "supplier":
        members = [
            n for n, name in enumerate(names["deal"]) if deals[name].supplier == names["supplier"][index]
        ]
        if len(members) == 1:
            return _source(study, metric, "deal", members[0], names)
    if scope == "deal" and metric.per == "quarter":
        deal = deals[names["deal"][index]]
        if metric.name == "delivered_gw" and deal.layer == "compute":
            return Series("capacity_gw", "deal", index)
        nothing = {
            "inflows": not deal.receives,
            "spend": not deal.pays,
            "capacity_gw": deal.layer == "site",
            "compute": deal.layer == "site",
        }
        if nothing.get(metric.name, False):
            return Series(NOTHING, "total", 0)
    return Series(metric.name, scope, index, metric.nullable)  # type: ignore[arg-type]


def _thresholds(study: Study, quarter_series: dict[Series, int], path_series: dict[Series, int]):
    plan: list[Threshold] = []
    rows: list[ThresholdRow] = []
    by_metric = {s.metric: n for s, n in quarter_series.items() if s.scope == "total"}
    by_path = {s.metric: n for s, n in path_series.items() if s.scope == "total"}
    for wanted in study.study.thresholds:
        per_path = wanted.metric in by_path
        series = by_path[wanted.metric] if per_path else by_metric[wanted.metric]
        plan.append(Threshold(series, per_path, wanted.op, wanted.level))
        quarters = [None] if per_path else range(study.portfolio.quarters)
        rows += [ThresholdRow(wanted.metric, "total", "", t, wanted.op, wanted.level) for t in quarters]
    return tuple(plan), tuple(rows)
