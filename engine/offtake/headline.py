"""The numbers that answer a study at a glance, each with its standard error: for the terminal and for
--json.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from offtake.announce import announced_totals
from offtake.results import Result, period
from offtake.study import Study
from offtake.summary import Row, wilson
from offtake_kernels.kept import Kept

YEARLY_LEVELS = ("capacity_gw", "compute", "demand", "served", "cash", "funding")
YEARLY_FLOWS = ("spend", "revenue")
# Paths from which a correlation is known to a few hundredths, and an error with it.
_ENOUGH_KEPT = 256


@dataclass(frozen=True)
class Number:
    """A value and its Monte Carlo standard error; None where there is none."""

    value: float | None
    se: float | None

    @classmethod
    def of(cls, value: float, se: float) -> Number:
        """NaN, the mark of a statistic without a value, becomes None."""
        return cls(None if math.isnan(value) else float(value), None if math.isnan(se) else float(se))

    def plain(self) -> dict[str, float | None]:
        """For JSON."""
        return {"value": self.value, "se": self.se}


def _at_a_glance(row: Row) -> bool:
    """Whether a headline reads the row."""
    if row.scope == "total":
        return row.quarter is None or row.metric in (*YEARLY_LEVELS, *YEARLY_FLOWS)
    return row.scope == "deal" and (row.quarter is None or row.metric == "spend")


class Headline:
    """Reads a result by metric; every method returns a Number or rows of them."""

    def __init__(self, result: Result, study: Study) -> None:
        self.result, self.study = result, study
        rows = [n for n, row in enumerate(result.summary.rows) if _at_a_glance(row)]
        self._statistics = result.summary.statistics_of(rows)
        self._place = {row: place for place, row in enumerate(rows)}

    def statistic(
        self, name: str, metric: str, scope: str = "total", item: str = "", quarter: int | None = None
    ) -> Number:
        """A statistic of one row, with the standard error that is reported for it."""
        row = self._place[self.result.summary.find(metric, scope, item, quarter)]
        error = "se" if name == "mean" else f"se_{name}"
        return Number.of(self._statistics[name][row], self._statistics[error][row])

    def happens(self, metric: str) -> Number:
        """Probability that a "first …" metric has a value."""
        row = self._place[self.result.summary.find(metric, "total", "", None)]
        return self._probability(1.0 - self._statistics["share_none"][row], row)

    def ends_early(self, deal: str) -> Number:
        """Probability that a deal is cancelled, defaulted on or past its long stop: one of them at most."""
        rows = [
            self._place[self.result.summary.find(f"ended_{how}", "deal", deal, None)]
            for how in ("cancelled", "default", "long_stop")
        ]
        return self._probability(sum(self._statistics["mean"][row] for row in rows), rows[0])

    def _probability(self, share: float, row: int) -> Number:
        """A share of a row's paths, with the error of a probability."""
        paths = self._statistics["paths"][row]
        return Number.of(*wilson(paths * share, paths)[:2])

    def probabilities(self) -> dict[str, Number]:
        """Chances over the whole horizon."""
        found = {
            "distress": self.happens("first_distress"),
            "shortage": self.happens("first_shortage"),
        }
        for level in self.study.study.reach:
            found[f"reach_{level:g}"] = self.happens(f"reach_{level:g}")
        return found

    def thresholds(self) -> list[dict[str, Any]]:
        """The study's thresholds, a row for each quarter; period is None where a path has one number."""
        summary, start = self.result.summary, self.result.start
        chances = summary.threshold_statistics
        return [
            {
                "metric": row.metric,
                "op": row.op,
                "level": row.level,
                "period": None if row.quarter is None else period(start, row.quarter),
                "probability": Number.of(probability, se),
            }
            for row, probability, se in zip(
                summary.thresholds, chances["probability"], chances["se"], strict=True
            )
        ]

    def years(self) -> list[dict[str, Any]]:
        """Means by calendar year: levels in its last quarter, flows over its quarters."""
        rows: dict[int, list[int]] = {}
        start = self.study.portfolio.start
        for t in range(self.study.portfolio.quarters):
            rows.setdefault(start.year + (start.month - 1 + 3 * t) // 12, []).append(t)
        return [self._year(year, quarters) for year, quarters in rows.items()]

    def _year(self, year: int, quarters: list[int]) -> dict[str, Any]:
        found: dict[str, Any] = {"year": year, "quarters": len(quarters)}
        for metric in YEARLY_LEVELS:
            found[metric] = self.statistic("mean", metric, quarter=quarters[-1])
        for metric in YEARLY_FLOWS:
            found[metric] = self._over_quarters(metric, quarters)
        return found

    @property
    def errors_add_up(self) -> bool:
        """Whether too few paths are kept whole to tell how a flow's quarters go together."""
        return self._kept_enough is None

    @property
    def _kept_enough(self) -> Kept | None:
        kept = self.result.kept
        return None if kept is None or kept.path.size < _ENOUGH_KEPT else kept

    def _over_quarters(self, metric: str, quarters: list[int]) -> Number:
        """A flow over quarters, with the error √(e'Re).

        e: the quarters' errors; R: their correlation in the paths kept whole. Where those are too few, or do
        not differ, R is 1: errors add up, which is an upper bound.
        """
        parts = [self.statistic("mean", metric, quarter=t) for t in quarters]
        bound, kept = _added(parts), self._kept_enough
        if kept is None or bound.se is None:
            return bound
        errors = np.array([part.se for part in parts], np.float64)
        with np.errstate(all="ignore"):
            together = np.corrcoef(kept.quarter_values[metric][:, quarters].astype(np.float64), rowvar=False)
        together = np.nan_to_num(np.atleast_2d(together), nan=1.0)
        return Number(bound.value, math.sqrt(max(errors @ together @ errors, 0.0)))

    def deals(self) -> list[dict[str, Any]]:
        """Deals by the planned GW-quarters that they are expected to miss, most first."""
        rows = []
        for name in self.study.portfolio.deals:
            share = self.statistic("mean", "delivered_share", "deal", name)
            spend = [
                self.statistic("mean", "spend", "deal", name, t) for t in range(self.study.portfolio.quarters)
            ]
            gw = list(self.study.portfolio.deals[name].ladder.values())[-1].gw
            missing = 0.0 if share.value is None else (1.0 - share.value) * gw
            rows.append(
                {
                    "deal": name,
                    "gw": gw,
                    "missing_gw": missing,
                    "delivered_share": share,
                    "lateness": self.statistic("mean", "lateness", "deal", name),
                    "ends_early": self.ends_early(name),
                    "spend": _added(spend),
                }
            )
        return sorted(rows, key=lambda row: -row["missing_gw"])

    def totals(self) -> dict[str, Number]:
        """Sums and extremes of a path."""
        found = {
            f"{m}_mean": self.statistic("mean", m)
            for m in ("total_spend", "npv_spend", "total_inflows", "npv_net")
        }
        for name in ("p05", "p50", "p95"):
            found[f"total_spend_{name}"] = self.statistic(name, "total_spend")
            found[f"peak_funding_{name}"] = self.statistic(name, "peak_funding")
        found["min_cash_p05"] = self.statistic("p05", "min_cash")
        return found

    def plain(self) -> dict[str, Any]:
        """Everything, for JSON."""
        announced = announced_totals(self.study)
        keys = (
            "summary_hash",
            "config_hash",
            "seed",
            "paths",
            "backend",
            "device",
            "arithmetic",
            "seconds",
            "paths_per_second",
        )
        return {
            "portfolio": self.study.portfolio.name,
            **{key: self.result.manifest[key] for key in keys},
            "announced_bn": announced["announced_bn"],
            "totals": {key: number.plain() for key, number in self.totals().items()},
            "probabilities": {key: number.plain() for key, number in self.probabilities().items()},
            "thresholds": [_plain_row(row) for row in self.thresholds()],
            "years": [_plain_row(row) for row in self.years()],
            "deals": [_plain_row(row) for row in self.deals()],
        }


def _added(parts: list[Number]) -> Number:
    """Their sum, with the sum of their errors: an upper bound, whatever their correlation."""
    error = None if any(part.se is None for part in parts) else sum(part.se or 0.0 for part in parts)
    return Number(sum(part.value or 0.0 for part in parts), error)


def _plain_row(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value.plain() if isinstance(value, Number) else value for key, value in row.items()}
