"""The buyer: use of compute, spot, revenue, cash, funding and distress."""

from __future__ import annotations

from .. import elementary
from ..layout import HOURS_PER_QUARTER, TINY, YEARS_PER_QUARTER, Plan

# MH100e × US$ per H100e-hour over a quarter, in US$ bn.
_SPOT_BILLIONS = HOURS_PER_QUARTER * 1.0e-3


def initial(plan: Plan, zero) -> dict:
    """Cash and funding at the start; nobody is in distress before quarter 0."""
    state = {"cash": zero + plan.buyer.cash}
    if plan.buyer.floor is not None:
        state["funding"] = zero
        if plan.buyer.limit is not None:
            state["distress"] = zero > 1.0
    return state


def market(ops, plan: Plan, world: dict, online, factor: dict, zero) -> dict:
    """Demand against compute online: use, spot and what is served. `factor` numbers the named factors."""
    buyer = plan.buyer
    demand = world["level"][factor["demand"]] + zero
    gap = ops.maximum(demand - online, 0.0)
    spot = zero
    if buyer.spot_share > 0.0:
        spot = buyer.spot_share * gap
        if buyer.spot_cap is not None:
            spot = ops.minimum(spot, buyer.spot_cap * online * world["ratio"][factor["market_supply"]])
    supplied = online + spot
    served = ops.minimum(supplied / demand, 1.0)
    view = {
        "demand": demand,
        "use": ops.minimum(demand / ops.maximum(online, TINY), 1.0),
        "spot": spot,
        "shortfall": ops.maximum(gap - spot, 0.0),
        "served": served,
        "served_inference": served,
        "served_training": served,
        "spot_cost": spot * (world["level"][factor["spot_price"]] * _SPOT_BILLIONS),
    }
    if buyer.inference_first:
        view.update(_inference_first(ops, buyer.training_share, demand, supplied, served, zero))
    return view


def _inference_first(ops, training_share: float, demand, supplied, served, zero) -> dict:
    """Training takes what inference leaves; a use without demand counts as served."""
    if training_share == 0.0:
        return {"served_training": zero + 1.0}
    if training_share == 1.0:
        return {"served_inference": zero + 1.0, "served_training": served}
    inference = (1.0 - training_share) * demand
    left = ops.maximum(supplied - inference, 0.0)
    return {
        "served_inference": ops.minimum(supplied / inference, 1.0),
        "served_training": ops.minimum(left / (training_share * demand), 1.0),
    }


def revenue(ops, plan: Plan, world: dict, served_inference, factor: dict):
    """Revenue of the quarter: the factor's yearly rate, reduced by what inference is not served."""
    earned = world["level"][factor["revenue"]] * YEARS_PER_QUARTER
    elasticity = plan.buyer.elasticity
    if elasticity == 0.0:
        return earned + 0.0 * served_inference
    if elasticity == 1.0:
        return earned * served_inference
    if elasticity == 0.5:
        return earned * ops.sqrt(served_inference)
    power = elementary.exp2(ops, elasticity * elementary.log2(ops, ops.maximum(served_inference, TINY)))
    return earned * ops.where(served_inference > 0.0, power, 0.0)


def settle(ops, plan: Plan, state: dict, earned, spend, spot_cost, inflows) -> dict:
    """Cash and funding at the quarter's end: funding fills up to the floor, cash above the target repays
    it.
    """
    buyer = plan.buyer
    cash = state["cash"] * (1.0 + buyer.cash_yield) + earned * buyer.margin - buyer.fixed
    cash = cash - spend - spot_cost
    if "funding" not in state:
        return {**state, "cash": cash + inflows}
    cash = cash - state["funding"] * buyer.interest + inflows
    drawn = ops.maximum(buyer.floor - cash, 0.0)
    funding = state["funding"] + drawn
    cash = ops.maximum(cash, buyer.floor)
    if buyer.target is not None:
        repaid = ops.minimum(funding, ops.maximum(cash - buyer.target, 0.0))
        funding, cash = funding - repaid, cash - repaid
    after = {**state, "cash": cash, "funding": funding}
    if buyer.limit is not None:
        after["distress"] = funding > buyer.limit
    return after
