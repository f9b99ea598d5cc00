"""What is recorded: the quarter's metrics, and the sums and firsts that a path accumulates."""

from __future__ import annotations

from ..layout import NEVER, NONE, NOTHING, REACHED, SHORTAGE, TINY, UNIT_COST, Group, Plan
from . import pay
from .pool import total


def quarter_metrics(
    ops, plan: Plan, state: dict, view: dict, pooled: dict, deals: dict, earned, zero
) -> dict:
    """Arrays by (scope, metric): a single row for totals, lists of rows by deal, supplier and factor."""
    spend, inflows = total(deals["spend"]) + zero, total(deals["inflows"]) + zero
    online = pooled["online"]
    some = online > 0.0
    bust = view["bust"]
    totals = {
        "capacity_gw": pooled["capacity_gw"],
        "delivered_gw": pooled["delivered_gw"],
        "compute": online,
        "demand": view["demand"],
        "shortfall": view["shortfall"],
        "served": view["served"],
        "served_inference": view["served_inference"],
        "served_training": view["served_training"],
        "utilisation": view["use"],
        "revenue": earned,
        "spend": spend,
        "inflows": inflows,
        "power_cost": total(deals["power"]) + zero,
        "spot_cost": view["spot_cost"],
        "cash": state["cash"],
        "funding": state.get("funding", zero),
        "commitments": total(deals["commitments"]) + zero,
        "unit_cost": ops.where(some, spend * UNIT_COST / ops.maximum(online, TINY), NONE),
        "spend_compute": spend * online,
        "concentration": ops.where(some, pooled["hhi"], NONE),
        "bust": zero if bust is None else ops.to_float(bust),
    }
    recorded = {("total", metric): [row] for metric, row in totals.items()}
    by_deal = {
        "capacity_gw": pooled["capacity"],
        "delivered_gw": pooled["gw"],
        "compute": pooled["compute"],
        "spend": deals["spend"],
        "inflows": deals["inflows"],
    }
    for metric, rows in by_deal.items():
        recorded["deal", metric] = rows
        recorded["supplier", metric] = [
            total(rows[deal] for deal in members) for members in plan.supplier_deals
        ]
    recorded["factor", "factor"] = view["factors"]
    recorded["total", NOTHING] = [zero]
    return recorded


def initial(plan: Plan, zero) -> dict:
    """Accumulators of a path before quarter 0."""
    state: dict = dict.fromkeys(
        ("total_spend", "npv_spend", "total_inflows", "npv_net", "peak_funding"), zero
    )
    state["min_cash"] = zero + 1.0e30
    firsts = ["first_shortage", "first_distress", *(name for name, _ in plan.reach)]
    return {**state, **dict.fromkeys(firsts, zero + NONE)}


def accumulate(ops, plan: Plan, state: dict, recorded: dict, distress, discount, t) -> dict:
    """Path sums and firsts after a quarter; `discount` is (1+r)^(-tΔ)."""

    def now(metric):
        return recorded["total", metric][0]

    def first(name, happens):
        return ops.where(happens & (state[name] < 0.0), t, state[name])

    spend, inflows = now("spend"), now("inflows")
    net = plan.buyer.margin * now("revenue") - plan.buyer.fixed - spend - now("spot_cost") + inflows
    after = {
        "total_spend": state["total_spend"] + spend,
        "npv_spend": state["npv_spend"] + spend * discount,
        "total_inflows": state["total_inflows"] + inflows,
        "npv_net": state["npv_net"] + net * discount,
        "peak_funding": ops.maximum(state["peak_funding"], now("funding")),
        "min_cash": ops.minimum(state["min_cash"], now("cash")),
        "first_shortage": first("first_shortage", now("shortfall") > SHORTAGE * now("demand")),
        "first_distress": state["first_distress"] if distress is None else first("first_distress", distress),
    }
    for name, level in plan.reach:
        after[name] = first(name, now("capacity_gw") >= level * REACHED)
    return after


def path_metrics(
    ops, plan: Plan, terms: list, states: list, delivered: list, ends: list, sums: dict, world: dict
) -> dict:
    """Per-path results by (scope, metric), after the last quarter. `delivered`: base GW-quarters of each
    group.
    """
    at_vest = at_horizon = 0.0 * sums["total_spend"]
    count = len(plan.deal_names)
    metrics = (
        "delivered_share",
        "lateness",
        "realised_rungs",
        "ended_term",
        "ended_cancelled",
        "ended_default",
        "ended_long_stop",
    )
    by_deal: dict = {metric: [0.0] * count for metric in metrics}
    for group, term, state, weight, end in zip(plan.groups, terms, states, delivered, ends, strict=True):
        vest, horizon = pay.warrant_values(ops, group, state, world)
        at_vest, at_horizon = at_vest + vest, at_horizon + horizon
        for metric, rows in _deal_metrics(ops, plan, group, term, state, weight, end).items():
            for row, deal in enumerate(group.deals):
                by_deal[metric][deal] = rows[row]
    totals = {("total", name): [row] for name, row in sums.items()}
    totals["total", "warrant_value_vest"] = [at_vest]
    totals["total", "warrant_value_horizon"] = [at_horizon]
    return {**totals, **{("deal", metric): rows for metric, rows in by_deal.items()}}


def _deal_metrics(ops, plan: Plan, group: Group, term: dict, state: dict, weight, end) -> dict:
    features, parameters = group.features, group.parameters
    blank = parameters["start"] * 0.0
    planned = parameters["planned_in_horizon"]
    share = weight / ops.maximum(planned, TINY)
    horizon = float(plan.quarters)
    cancel_at = state.get("cancel_at", blank + NEVER)
    default_at = state.get("default_at", blank + NEVER)
    found = {
        "delivered_share": ops.where(planned > 0.0, share, NONE),
        "lateness": end["start"] - parameters["start"],
        "realised_rungs": term["realised_rungs"] + blank,
        "ended_long_stop": ops.to_float(term["ended_long_stop"]) if features.long_stop else blank,
    }
    scheduled = end["scheduled"] if features.term else blank + NEVER
    by_default = (default_at <= horizon) & (default_at < scheduled) & (default_at < cancel_at)
    by_cancel = (cancel_at <= horizon) & (cancel_at < scheduled) & ~by_default
    found["ended_default"] = ops.to_float(by_default)
    found["ended_cancelled"] = ops.to_float(by_cancel)
    by_term = (scheduled <= horizon) & ~by_default & ~by_cancel
    if "ends" in term:
        by_term = by_term & (term["ends"] > 0.0)
    found["ended_term"] = ops.to_float(by_term)
    return found
