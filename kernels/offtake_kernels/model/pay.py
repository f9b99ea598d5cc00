"""What a group of deals pays and receives in one quarter, US$ bn.

Each kind of leg is one function: (ops, leg, numbers, drawn, quarter) → amount, with its own state where it
needs one. `quarter` is the group's view of the quarter: its terms, delivery, the world and the market.
"""

from __future__ import annotations

from types import SimpleNamespace

from .. import elementary
from ..layout import REACHED, Group
from . import ladder
from .pool import total


def initial(group: Group, blank) -> list[dict]:
    """State of each leg of a group; `blank` is float32 zeros [deals, lanes]."""
    states: list[dict] = []
    for leg in group.features.legs:
        state: dict = {}
        if leg.kind == "purchase" and leg.deposit:
            state["secured"] = blank
        if leg.tranches:
            state["reached"] = [blank > 1.0] * leg.tranches
        if leg.kind == "warrants":
            state["vested"] = [blank > 1.0] * leg.tranches
            state["highest"] = blank
            state["value_at_vest"] = blank
        states.append(state)
    return states


def pay(ops, group: Group, terms: dict, state: dict, quarter: SimpleNamespace) -> tuple[dict, dict]:
    """One quarter's flows: (state, {"spend", "power", "inflows", "commitments"}), each [deals, lanes] or 0.0.

    quarter: t, delivery, world, market (`use` = min(1, D/C), `hhi` of the quarter before),
    energised (rows by deal), capacity (of the group), pooled.
    """
    flows = {"spend": 0.0, "power": 0.0, "inflows": 0.0, "commitments": 0.0}
    states = []
    quarter.terms, quarter.group = terms, group
    quarter.starts = _starts(ops, quarter)
    if group.features.has("commitment"):
        quarter.owed = _owed(ops, quarter)
    for leg, numbers, drawn, before in zip(
        group.features.legs, group.legs, terms["legs"], state["legs"], strict=True
    ):
        after, amounts = _LEGS[leg.kind](ops, leg, numbers, drawn, before, quarter)
        states.append(after)
        for flow, amount in amounts.items():
            flows[flow] = flows[flow] + amount
    flows["spend"] = flows["spend"] + flows["power"]
    return {**state, "legs": states}, flows


def milestones(ops, group: Group, terms: dict, state: dict, capacity, energised) -> dict:
    """Before quarter 0: milestones already reached are history, and are never paid."""
    states = []
    for leg, numbers, before in zip(group.features.legs, group.legs, state["legs"], strict=True):
        after = before
        if leg.tranches:
            standing = _standing(ops, leg, terms, capacity, energised)
            reached = [standing >= gw * REACHED for gw in numbers["gw"]]
            after = {
                **before,
                "reached": [b | now for b, now in zip(before["reached"], reached, strict=True)],
            }
        if "secured" in before:
            after = {**after, "secured": state["level"]}
        states.append(after)
    return {**state, "legs": states}


def _starts(ops, quarter):
    """Whether service begins in this quarter."""
    start, end = quarter.delivery["start"], quarter.delivery["end"]
    starts = (start >= quarter.t) & (start < quarter.t + 1.0)
    return starts if end is None else starts & (start < end)


def _index(ops, leg, numbers, quarter):
    """The price index of the quarter, times the discount that having several suppliers earns; None when 1."""
    index = leg.index
    value = None
    if index.factor is not None:
        ratio = quarter.world["ratio"][index.factor]
        if index.capped:
            ratio = ops.minimum(ratio, numbers["cap"])
        value = numbers["fixed_share"] + numbers["pass_through"] * ratio
    if index.escalates:
        age = ops.maximum(quarter.t - quarter.delivery["start"], 0.0)
        escalated = elementary.exp2(ops, age * numbers["escalation"])
        value = escalated if value is None else value * escalated
    if index.leverage:
        discount = 1.0 - numbers["leverage"] * (1.0 - quarter.market["hhi"])
        value = discount if value is None else value * discount
    return value


def _times(amount, factor):
    return amount if factor is None else amount * factor


def _owed(ops, quarter) -> dict:
    """Remaining weights of the capacity profile, GW-quarters: of the first term and of the extension.

    `now`: from the quarter's end to the known end of service. `scheduled`: from there, had nothing ended it;
    read only where a cancellation takes effect, at the beginning of a quarter that delivers nothing.
    """
    delivery, group, terms = quarter.delivery, quarter.group, quarter.terms
    # Where nothing waits, this is how far the quarter's mean went; past the end of service nothing is left.
    moves = not group.features.waits
    reached = delivery["position"] + delivery["service"] if moves else delivery["reached"]
    here = ladder.integral(ops, terms["segments"], reached)
    weights = _weights_to(ops, quarter, reached, quarter.t + 1.0, delivery["end"])
    owed = {"now": _left(ops, quarter, here, weights, quarter.t + 1.0, delivery["end"])}
    if group.features.cancel:
        end = delivery["scheduled_end"]
        if "weights" in terms:
            weights = [ops.maximum(terms["weights"][0], here)]
            if group.features.extension != "never":
                whole = ops.where(end > delivery["base_end"], terms["weights"][1], 0.0)
                weights.append(ops.maximum(whole, weights[0]))
        else:
            weights = _weights_to(ops, quarter, reached, quarter.t, end)
        owed["scheduled"] = _left(ops, quarter, here, weights, quarter.t, end)
    return owed


def _weights_to(ops, quarter, reached, t, end) -> list:
    """Weights of the whole first term and, where there may be one, with its extension, cut off at `end`; the
    ladder is at `reached` at time `t`.
    """
    ends = [ops.minimum(quarter.delivery["base_end"], end)]
    if quarter.group.features.extension != "never":
        ends.append(end)
    segments = quarter.terms["segments"]
    return [ladder.integral(ops, segments, reached + ops.maximum(stop - t, 0.0)) for stop in ends]


def _left(ops, quarter, here, weights, t, end) -> dict:
    """What is left at `t` of weights, `here` until then, and of time."""
    start, base_end = quarter.delivery["start"], quarter.delivery["base_end"]
    owed = {
        "base": weights[0] - here,
        "base_time": ops.maximum(ops.minimum(base_end, end) - ops.maximum(start, t), 0.0),
    }
    if len(weights) > 1:
        owed["extension"] = weights[1] - weights[0]
        owed["extension_time"] = ops.maximum(end - ops.maximum(base_end, t), 0.0)
    return owed


def _commitment(ops, leg, numbers, drawn, state, quarter):
    delivery, price = quarter.delivery, drawn["price"]
    if leg.flat:
        until = ops.minimum(delivery["end"], quarter.t + 1.0)
        since = ops.maximum(delivery["start"], quarter.t)
        weight = ops.maximum(ops.minimum(until, delivery["base_end"]) - since, 0.0)
        extra = ops.maximum(until - ops.maximum(since, delivery["base_end"]), 0.0)
    else:
        weight, extra = delivery["base_mean"], delivery["mean"] - delivery["base_mean"]
    charge = numbers["rate"] * weight
    if quarter.group.features.extension != "never":
        charge = charge + numbers["extension_rate"] * extra
    charge = _times(charge * price, _index(ops, leg, numbers, quarter))
    if leg.usage:
        charge = charge * (numbers["take_or_pay"] + numbers["usage"] * quarter.market["use"])
    owed = _still_owed(leg, numbers, quarter.owed["now"]) * price
    if leg.prepaid:
        prepayment = numbers["prepayment"] * price
        charge = charge + ops.where(quarter.starts, prepayment, 0.0)
        unpaid = (delivery["start"] >= quarter.t + 1.0) & (delivery["start"] < delivery["end"])
        owed = owed + ops.where(unpaid, prepayment, 0.0)
    if quarter.group.features.cancel:
        fee = (
            quarter.group.parameters["cancel_fee"]
            * _still_owed(leg, numbers, quarter.owed["scheduled"])
            * price
        )
        charge = charge + ops.where(delivery["cancelled"], fee, 0.0)
    return state, {"spend": charge, "commitments": owed}


def _still_owed(leg, numbers, weights):
    """τ·((1-π)·V·base weight + V·price·extension weight), before the price multiplier."""
    base, extension = ("base_time", "extension_time") if leg.flat else ("base", "extension")
    owed = numbers["rate"] * weights[base]
    if extension in weights:
        owed = owed + numbers["extension_rate"] * weights[extension]
    return owed * numbers["take_or_pay"]


def _purchase(ops, leg, numbers, drawn, state, quarter):
    delivery, size = quarter.delivery, quarter.terms["size"]
    due = numbers["per_gw"] * delivery["added"]
    if leg.deposit:
        ahead = numbers["lead"]
        if delivery["end"] is not None:
            ahead = ops.minimum(ops.maximum(delivery["end"] - (quarter.t + 1.0), 0.0), ahead)
        secured = ladder.level(ops, quarter.terms["segments"], delivery["reached"] + ahead)
        secured = ops.maximum(state["secured"], secured)
        due = due + numbers["deposit_per_gw"] * (secured - state["secured"])
        state = {"secured": secured}
    return state, {"spend": _times(due * size, _index(ops, leg, numbers, quarter))}


def _hosting(ops, leg, numbers, drawn, state, quarter):
    return state, {"spend": numbers["per_gw_quarter"] * quarter.delivery["raw_gw"]}


def _power(ops, leg, numbers, drawn, state, quarter):
    load = quarter.capacity
    if quarter.group.features.layer == "site":
        load = quarter.delivery["gw"] * quarter.pooled["site_load"] if "site_load" in quarter.pooled else 0.0
    return state, {"power": drawn["cost"] * load * quarter.world["level"][leg.factor]}


def _standing(ops, leg, terms, capacity, energised):
    """Energised GW that counts for a leg's milestones: its deal's and of those it names.

    A deal that does not happen reaches none.
    """
    if not leg.milestone_from:
        return capacity
    standing = capacity + total(energised[deal] for deal in leg.milestone_from)
    return standing if "ends" not in terms else ops.where(terms["ends"] > 0.0, standing, 0.0)


def _vendor_investment(ops, leg, numbers, drawn, state, quarter):
    standing = _standing(ops, leg, quarter.terms, quarter.capacity, quarter.energised)
    inflow, flags = 0.0, []
    for gw, amount, before in zip(numbers["gw"], numbers["amount"], state["reached"], strict=True):
        reached = before | (standing >= gw * REACHED)
        inflow = inflow + ops.where(reached & ~before, amount, 0.0)
        flags.append(reached)
    return {"reached": flags}, {"inflows": inflow}


def _equity(ops, leg, numbers, drawn, state, quarter):
    inflow = ops.where(quarter.starts, numbers["at_start"], 0.0)
    if not leg.conditional:
        return state, {"inflows": inflow}
    after, conditional = _vendor_investment(ops, leg, numbers, drawn, state, quarter)
    return after, {"inflows": inflow + conditional["inflows"]}


def _warrants(ops, leg, numbers, drawn, state, quarter):
    price = quarter.world["level"][leg.factor]
    highest = ops.maximum(state["highest"], price)
    in_time = quarter.t <= numbers["expiry"]
    value, after = 0.0, {"reached": [], "vested": [], "highest": highest}
    tranches = zip(*(numbers[k] for k in ("gw", "hurdle", "shares", "strike")), strict=True)
    for (gw, hurdle, shares, strike), reached, vested in zip(
        tranches, state["reached"], state["vested"], strict=True
    ):
        reached = reached | (quarter.capacity >= gw * REACHED)
        vests = reached & (highest >= hurdle) & in_time & ~vested
        value = value + ops.where(vests, shares * ops.maximum(price - strike, 0.0), 0.0)
        after["reached"].append(reached)
        after["vested"].append(vested | vests)
    after["value_at_vest"] = state["value_at_vest"] + value
    return after, {"inflows": value if leg.monetised else 0.0}


def warrant_values(ops, group: Group, state: dict, world: dict):
    """Worth of the group's warrants when they vested, and of the vested ones at the share price given."""
    at_vest = at_horizon = 0.0
    for leg, numbers, held in zip(group.features.legs, group.legs, state["legs"], strict=True):
        if leg.kind != "warrants":
            continue
        at_vest = at_vest + total(held["value_at_vest"])
        for shares, strike, vested in zip(numbers["shares"], numbers["strike"], held["vested"], strict=True):
            worth = shares * ops.maximum(world["level"][leg.factor] - strike, 0.0)
            at_horizon = at_horizon + total(ops.where(vested, worth, 0.0))
    return at_vest, at_horizon


_LEGS = {
    "commitment": _commitment,
    "purchase": _purchase,
    "hosting": _hosting,
    "power": _power,
    "vendor_investment": _vendor_investment,
    "equity": _equity,
    "warrants": _warrants,
}
