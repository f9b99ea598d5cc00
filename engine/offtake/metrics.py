"""The catalogue of recorded metrics: one row each, read by validation, summaries, results and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["total", "deal", "supplier", "factor"]


@dataclass(frozen=True)
class Metric:
    """What is recorded under one name.

    `nullable` metrics can be "none" on a path: counted, never NaN. Money in US$ bn, power in GW of IT load,
    compute in MH100e (million H100-equivalents), times in quarters from the portfolio's start.
    """

    name: str
    scopes: tuple[Scope, ...]
    per: Literal["quarter", "path"]
    unit: str
    description: str
    nullable: bool = False


_TOTAL: tuple[Scope, ...] = ("total",)
_DEAL: tuple[Scope, ...] = ("deal",)
_EACH: tuple[Scope, ...] = ("total", "deal", "supplier")

METRICS: tuple[Metric, ...] = (
    Metric("capacity_gw", _EACH, "quarter", "GW", "energised IT load that computes, mean of the quarter"),
    Metric("delivered_gw", _EACH, "quarter", "GW", "delivered, energised or not; the total adds sites too"),
    Metric("compute", _EACH, "quarter", "MH100e", "compute online"),
    Metric("demand", _TOTAL, "quarter", "MH100e", "compute wanted"),
    Metric("shortfall", _TOTAL, "quarter", "MH100e", "demand that neither contracts nor spot serve"),
    Metric("served", _TOTAL, "quarter", "share", "share of demand served"),
    Metric("served_inference", _TOTAL, "quarter", "share", "share of inference demand served"),
    Metric("served_training", _TOTAL, "quarter", "share", "share of training demand served"),
    Metric("utilisation", _TOTAL, "quarter", "share", "share of compute online that is used"),
    Metric("revenue", _TOTAL, "quarter", "US$ bn", "revenue of the quarter"),
    Metric(
        "spend",
        _EACH,
        "quarter",
        "US$ bn",
        "payments on deals, power included",
    ),
    Metric("inflows", _EACH, "quarter", "US$ bn", "equity, vendor investment and monetised warrants"),
    Metric("power_cost", _TOTAL, "quarter", "US$ bn", "electricity of the quarter"),
    Metric("spot_cost", _TOTAL, "quarter", "US$ bn", "compute bought at the spot price"),
    Metric("cash", _TOTAL, "quarter", "US$ bn", "cash at the end of the quarter"),
    Metric("funding", _TOTAL, "quarter", "US$ bn", "outstanding funding at the end of the quarter"),
    Metric("commitments", _TOTAL, "quarter", "US$ bn", "take-or-pay money and prepayments still owed"),
    Metric("unit_cost", _TOTAL, "quarter", "US$ per H100e-hour", "spend per compute online", nullable=True),
    Metric("spend_compute", _TOTAL, "quarter", "US$ bn × MH100e", "spend × compute, for unit_cost_of_means"),
    Metric("concentration", _TOTAL, "quarter", "index", "HHI of compute by supplier", nullable=True),
    Metric("bust", _TOTAL, "quarter", "0 or 1", "whether the quarter is in a bust"),
    Metric("factor", ("factor",), "quarter", "as the factor", "value at the start of the quarter"),
    Metric("total_spend", _TOTAL, "path", "US$ bn", "sum of spend over the horizon"),
    Metric("npv_spend", _TOTAL, "path", "US$ bn", "discounted spend"),
    Metric("total_inflows", _TOTAL, "path", "US$ bn", "sum of inflows over the horizon"),
    Metric("npv_net", _TOTAL, "path", "US$ bn", "discounted margin − fixed cost − spend − spot + inflows"),
    Metric("peak_funding", _TOTAL, "path", "US$ bn", "largest outstanding funding"),
    Metric("min_cash", _TOTAL, "path", "US$ bn", "lowest cash"),
    Metric("first_shortage", _TOTAL, "path", "quarters", "first quarter with a shortfall", nullable=True),
    Metric(
        "first_distress",
        _TOTAL,
        "path",
        "quarters",
        "first quarter with funding above limit",
        nullable=True,
    ),
    Metric("warrant_value_vest", _TOTAL, "path", "US$ bn", "value of warrants when they vest"),
    Metric("warrant_value_horizon", _TOTAL, "path", "US$ bn", "value of vested warrants at the horizon"),
    Metric(
        "delivered_share", _DEAL, "path", "share", "delivered share of the planned GW-quarters", nullable=True
    ),
    Metric("lateness", _DEAL, "path", "quarters", "own start − planned start, waiting included"),
    Metric("realised_rungs", _DEAL, "path", "rungs", "rungs of the ladder that happen"),
    Metric("ended_term", _DEAL, "path", "0 or 1", "whether the term ran out"),
    Metric("ended_cancelled", _DEAL, "path", "0 or 1", "whether it was cancelled"),
    Metric("ended_default", _DEAL, "path", "0 or 1", "whether the supplier failed"),
    Metric("ended_long_stop", _DEAL, "path", "0 or 1", "whether the slip passed the long stop"),
)


def reach_name(level_gw: float) -> str:
    """Name of the metric "first quarter in which capacity reaches a level": reach_5, reach_2.5."""
    return f"reach_{level_gw:g}"


def reach_metric(level_gw: float) -> Metric:
    """The row of `reach_name(level_gw)`."""
    return Metric(
        reach_name(level_gw),
        _TOTAL,
        "path",
        "quarters",
        f"first quarter with {level_gw:g} GW of capacity",
        nullable=True,
    )


def total_metric_names(reach_gw: tuple[float, ...]) -> tuple[str, ...]:
    """Every metric with a total, the study's reach levels included: what thresholds and `until` may name."""
    fixed = tuple(metric.name for metric in METRICS if "total" in metric.scopes)
    return fixed + tuple(reach_name(level) for level in reach_gw)
