"""What a path fixes once for a group of deals: slip, size, prices, realised rungs, thresholds of events."""

from __future__ import annotations

import numpy as np

from .. import elementary
from ..layout import NEVER, Group, Plan, Random
from ..quantile_table import interpolate
from . import ladder


def _column(values):
    return np.asarray(values, dtype=np.float32)[:, None]


def sample(ops, plan: Plan, draws, own_score, random: Random):
    """Values of a one-time random term from its own score, and its driver's when it names one."""
    score = own_score
    if random.driver:
        loading = np.asarray(random.loading, dtype=np.float64)
        rest = np.sqrt(1.0 - loading * loading)
        score = _column(loading) * draws.shared(random.driver) + _column(rest) * own_score
    return interpolate(ops, plan.tables, np.asarray(random.tables, np.int32)[:, None], score)


def deal_terms(ops, plan: Plan, number: int, draws) -> dict:
    """Terms of group `number`: a dict of [deals, lanes] arrays, or [deals, 1] where all paths agree."""
    group = plan.groups[number]
    features, parameters = group.features, group.parameters
    terms: dict = {}

    def draw(random: Random | None, constant):
        return (
            constant
            if random is None
            else sample(ops, plan, draws, draws.score(number, random.score), random)
        )

    slip = _slip(ops, plan, number, draws)
    terms["slip"] = slip
    terms["start"] = parameters["start"] + slip
    terms["size"] = draw(features.size, parameters.get("size"))
    _ladder(ops, group, terms, draw(features.stretch, None), draws.word, number)
    exists = terms["realised"][0] if features.segments and not features.segments[0].certain else None
    if features.long_stop:
        late = slip > parameters["long_stop"]
        terms["ended_long_stop"] = late if exists is None else late & exists
        exists = ~late if exists is None else exists & ~late
    if exists is not None:
        terms["ends"] = ops.where(exists, NEVER, -NEVER)
    for event in ("cancel", "default"):
        if getattr(features, event):
            terms[f"{event}_threshold"] = elementary.exponential(ops, draws.word(number, event))
    if features.cancel and features.has("commitment") and not features.waits:
        ends = [parameters["term"]]
        if features.extension != "never":
            ends.append(ends[0] + parameters["extension_quarters"])
        terms["weights"] = [ladder.integral(ops, terms["segments"], end) for end in ends]
    late_price = None
    if features.late_credit:
        credit = parameters["late_per_quarter"] * ops.maximum(slip - parameters["late_grace"], 0.0)
        late_price = 1.0 - ops.minimum(parameters["late_max"], credit)
    terms["legs"] = []
    for leg, numbers in zip(features.legs, group.legs, strict=True):
        drawn = {}
        if leg.kind == "commitment":
            price = draw(leg.price, numbers.get("price"))
            drawn["price"] = price if late_price is None else price * late_price
        if leg.kind == "power":
            pue = draw(leg.pue, None)
            drawn["cost"] = numbers["cost"] if pue is None else numbers["cost"] * pue
        terms["legs"].append(drawn)
    return terms


def _slip(ops, plan: Plan, number: int, draws):
    """Slip in quarters; its score loads on the supply chain, the deal's region and the deal itself."""
    features, parameters = plan.groups[number].features, plan.groups[number].parameters
    if features.slip is None:
        return parameters["slip"]
    score = draws.score(number, features.slip.score)
    if features.slip_shared:
        score = (
            parameters["slip_supply_chain"] * draws.supply_chain()
            + parameters["slip_region"] * draws.shared(features.regions)
            + parameters["slip_own"] * score
        )
    return sample(ops, plan, draws, score, features.slip)


def _ladder(ops, group: Group, terms: dict, stretch, word, number: int) -> None:
    """The realised curve's segments, and how many rungs the path realises."""
    segments, realised, count = [], [], 0.0
    uncertain = word(number, "ladder") if group.features.uncertain else None
    for segment, numbers in zip(group.features.segments, group.segments, strict=True):
        entry = {"kind": segment.kind, **{k: numbers[k] for k in ("gw", "begin", "length")}}
        if segment.certain:
            realised.append(None)
            count = count + 1.0
        else:
            happens = uncertain < numbers["threshold"]
            realised.append(happens)
            entry["gw"] = ops.where(happens, numbers["gw"], 0.0)
            count = count + ops.to_float(happens)
        if stretch is not None:
            entry["begin"], entry["length"] = numbers["begin"] * stretch, numbers["length"] * stretch
        if segment.kind == "ramp":
            entry["half_inverse"] = 0.5 / entry["length"]
        segments.append(entry)
    terms["segments"], terms["realised"], terms["realised_rungs"] = segments, realised, count
