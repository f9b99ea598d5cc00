"""A path from its terms to its results, quarter by quarter: the order of the stages, for any backend.

State is a dict of arrays (lists of dicts inside): {"world", "groups", "buyer", "sums", "signals",
"delivered"}. `scalars` are the quarter's numbers: t, growth, discount, table, vintage by group.
"""

from __future__ import annotations

from types import SimpleNamespace

from ..layout import Plan
from . import buyer, deliver, pay, pool, record, world
from .terms import deal_terms


def factor_numbers(plan: Plan) -> dict:
    """Number of each factor by name."""
    return {name: number for number, name in enumerate(plan.world.names)}


def begin(ops, plan: Plan, draws) -> tuple[list, dict]:
    """Terms of every group, and the state before the first quarter (or before history)."""
    zero = draws.zero
    terms, groups = [], []
    for number, group in enumerate(plan.groups):
        ops.stage("terms", group.deals)
        terms.append(deal_terms(ops, plan, number, draws))
    ops.stage("opening state")
    for group, term in zip(plan.groups, terms, strict=True):
        state = deliver.initial(ops, group, term, zero)
        blank = term["start"] * 0.0 + zero
        groups.append({**state, "legs": pay.initial(group, blank)})
    state = {
        "world": world.initial(ops, plan, draws),
        "groups": groups,
        "buyer": buyer.initial(plan, zero),
        "sums": record.initial(plan, zero),
        "hhi": zero + 1.0,
        "sites_short": zero > 1.0,
        "delivered": [0.0 * term["start"] + zero for term in terms],
    }
    return terms, state


def _deliver_all(ops, plan: Plan, terms, state, zero, t, vintages, lagged, history: bool):
    signals = {
        "history": history,
        "zero": zero,
        "distress": state["buyer"].get("distress"),
        "sites_short": state["sites_short"],
        "bust": state["world"].get("bust"),
        "service_end": {},
    }
    groups, deliveries = [], []
    for number, group in enumerate(plan.groups):
        if history and not group.standing:
            groups.append(state["groups"][number])
            deliveries.append(deliver.nothing(group))
            continue
        ops.stage("deliver", group.deals)
        after, delivery = deliver.deliver(
            ops, group, terms[number], state["groups"][number], signals, t, vintages[number], lagged[number]
        )
        for row, deal in enumerate(group.deals):
            if delivery["end"] is not None:
                signals["service_end"][deal] = delivery["end"][row]
        groups.append(after)
        deliveries.append(delivery)
    return groups, deliveries


def _capacity(ops, group, pooled):
    return ops.stack([pooled["capacity"][deal] for deal in group.deals])


def history_quarter(ops, plan: Plan, terms, state, zero, t, vintages, lagged) -> tuple[dict, list]:
    """A quarter before the study: what stands is delivered and milestones pass, without money or events."""
    groups, deliveries = _deliver_all(ops, plan, terms, state, zero, t, vintages, lagged, history=True)
    ops.stage("pool")
    pooled = pool.pool(ops, plan, deliveries, zero)
    for number, group in enumerate(plan.groups):
        if group.features.milestones:
            capacity = _capacity(ops, group, pooled)
            groups[number] = pay.milestones(
                ops, group, terms[number], groups[number], capacity, pooled["capacity"]
            )
    return {**state, "groups": groups, **_carried(ops, pooled, zero)}, deliveries


def _carried(ops, pooled, zero):
    hhi = ops.where(pooled["online"] > 0.0, pooled["hhi"], 1.0)
    return {"hhi": hhi, "sites_short": pooled.get("sites_short", zero > 1.0)}


def quarter(ops, plan: Plan, terms, state, zero, scalars: SimpleNamespace, lagged) -> tuple[dict, dict, list]:
    """One quarter: (state with the world still at this quarter, recorded metrics, deliveries)."""
    t = scalars.t
    factor = factor_numbers(plan)
    ops.stage("world")
    view = world.levels(ops, plan, state["world"], scalars.table, plan.world.table[0])
    groups, deliveries = _deliver_all(
        ops, plan, terms, state, zero, t, scalars.vintages, lagged, history=False
    )
    ops.stage("pool")
    pooled = pool.pool(ops, plan, deliveries, zero)
    online = pooled["online"]
    ops.stage("market")
    market = buyer.market(ops, plan, view, online, factor, zero)
    for number, group in enumerate(plan.groups):
        if group.features.extension != "never":
            ops.stage("extend", group.deals)
            own = ops.stack([pooled["compute"][deal] for deal in group.deals])
            groups[number], deliveries[number] = deliver.extend(
                ops, group, groups[number], deliveries[number], own, market["demand"], online, t
            )
    flows = _pay_all(ops, plan, terms, state, groups, deliveries, pooled, market, view, t)
    ops.stage("buyer")
    earned = buyer.revenue(ops, plan, view, market["served_inference"], factor)
    spend, inflows = pool.total(flows["spend"]), pool.total(flows["inflows"])
    settled = buyer.settle(ops, plan, state["buyer"], earned, spend, market["spot_cost"], inflows)
    market["bust"] = view["bust"]
    market["factors"] = [view["level"][number] for number in range(len(plan.world.names))]
    ops.stage("record")
    recorded = record.quarter_metrics(ops, plan, settled, market, pooled, flows, earned, zero)
    after = {
        **state,
        "groups": groups,
        "buyer": settled,
        "sums": record.accumulate(
            ops, plan, state["sums"], recorded, settled.get("distress"), scalars.discount, t
        ),
        "delivered": [done + d["base_mean"] for done, d in zip(state["delivered"], deliveries, strict=True)],
        **_carried(ops, pooled, zero),
    }
    return after, recorded, deliveries


def _pay_all(ops, plan, terms, state, groups, deliveries, pooled, market, view, t) -> dict:
    """Flows by deal; advances the legs' state inside `groups`."""
    flows: dict = {
        flow: [0.0] * len(plan.deal_names) for flow in ("spend", "power", "inflows", "commitments")
    }
    for number, group in enumerate(plan.groups):
        context = SimpleNamespace(
            t=t,
            delivery=deliveries[number],
            world=view,
            market={"use": market["use"], "hhi": state["hhi"]},
            energised=pooled["capacity"],
            capacity=_capacity(ops, group, pooled) if group.features.uses_capacity else None,
            pooled=pooled,
        )
        ops.stage("pay", group.deals)
        groups[number], paid = pay.pay(ops, group, terms[number], groups[number], context)
        for flow, amount in paid.items():
            if not isinstance(amount, float):
                for row, deal in enumerate(group.deals):
                    flows[flow][deal] = amount[row]
    return flows


def end(ops, plan: Plan, terms, state, deliveries, view) -> dict:
    """Per-path metrics after the last quarter; `view` is the world of that quarter."""
    ops.stage("path metrics")
    ends = [{"start": delivery["start"], "scheduled": delivery["scheduled_end"]} for delivery in deliveries]
    return record.path_metrics(
        ops, plan, terms, state["groups"], state["delivered"], ends, state["sums"], view
    )
