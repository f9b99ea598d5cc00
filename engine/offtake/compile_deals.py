"""One deal → its shape and its numbers; deals of one shape → a group (model, sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from offtake.compile_world import event_threshold
from offtake.deals import (
    Commitment,
    Deal,
    Equity,
    Hosting,
    Power,
    Purchase,
    VendorInvestment,
    Warrants,
)
from offtake.distributions import Distribution
from offtake.ladder import Ladder, planned_ladder, planned_weight, quarters_between
from offtake.quantiles import is_degenerate, lowest, quantile_table
from offtake.study import Study
from offtake_kernels import layout
from offtake_kernels.layout import HOURS_PER_QUARTER, YEARS_PER_QUARTER

# GW × US$ per MWh over a quarter, in US$ bn.
_POWER_BILLIONS = HOURS_PER_QUARTER * 1.0e-6


@dataclass
class RandomTerm:
    """A one-time term that is drawn: what to draw it from, and the name that keys its stream."""

    stream: str
    distribution: Distribution

    @property
    def driver(self) -> str | None:
        """Name of the shared score that it loads on."""
        return getattr(self.distribution, "driver", None)

    @property
    def loading(self) -> float:
        """Correlation with that score."""
        return getattr(self.distribution, "loading", 0.0)


@dataclass
class CompiledDeal:
    """A deal in numbers. `shape` groups deals; `random` holds its drawn terms by role."""

    name: str
    shape: tuple[Any, ...]
    features: layout.Features
    parameters: dict[str, float]
    segments: list[dict[str, float]]
    legs: list[dict[str, Any]]
    random: dict[str, RandomTerm] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    earliest: float = 0.0
    hardware: tuple[float, float, float] | None = None


def compile_deal(
    study: Study, name: str, factor_number: Mapping[str, int], fixed: frozenset[int]
) -> CompiledDeal:
    """A deal's shape and numbers. `fixed` are the factors that never move, so that no price need follow
    them.
    """
    deal = study.portfolio.deals[name]
    ladder = planned_ladder(deal)
    start = quarters_between(study.portfolio.start, deal.start)
    random: dict[str, RandomTerm] = {}
    parameters = {"start": start, **_clauses(deal)}
    for role, distribution in (("slip", deal.slip), ("stretch", deal.stretch), ("size", deal.size)):
        table = quantile_table(distribution)
        if not is_degenerate(table):
            random[role] = RandomTerm(f"deal/{name}/{role}", distribution)
        elif role != "stretch":
            parameters[role] = float(table[1][0])
    loading = deal.slip_loading or study.world.slip_loading
    driven = getattr(deal.slip, "driver", None) is not None
    shared = "slip" in random and not driven and (loading.supply_chain > 0 or loading.region > 0)
    if shared:
        own = max(1.0 - loading.supply_chain - loading.region, 0.0)
        parameters["slip_supply_chain"] = loading.supply_chain**0.5
        parameters["slip_region"] = loading.region**0.5
        parameters["slip_own"] = own**0.5
    span = start + deal.term if deal.term else float(study.portfolio.quarters)
    ends = min(span, study.portfolio.quarters)
    planned = (
        ladder.integral(ends - start) - ladder.integral(max(-start, 0.0)) if ends > max(start, 0.0) else 0.0
    )
    parameters["planned_in_horizon"] = planned
    fixed_stretch = lowest(deal.stretch) if "stretch" not in random else 1.0
    segments, certain = _segments(deal, ladder, fixed_stretch)
    legs, templates = [], []
    for role, leg_name, leg in legs_of(deal):
        template, numbers = _LEGS[type(leg)](study, deal, ladder, leg, factor_number, fixed)
        for term in ("price", "pue"):
            if getattr(leg, term, None) is not None:
                _leg_term(
                    f"deal/{name}/{role}/{leg_name}/{term}", f"{len(legs)}/{term}", leg, term, numbers, random
                )
        legs.append(numbers)
        templates.append(template)
    words = {"ladder": f"deal/{name}/ladder"} if not all(certain) else {}
    words |= {event: f"deal/{name}/{event}" for event in ("cancel", "default") if getattr(deal, event)}
    features = layout.Features(
        layer=deal.layer,
        segments=tuple(
            layout.Segment(kind, sure) for (kind, *_), sure in zip(ladder.segments, certain, strict=True)
        ),
        legs=tuple(templates),
        slip_shared=shared,
        **_flags(study, deal),
    )
    drawn = tuple(sorted((role, term.driver is not None) for role, term in random.items()))
    shape = (features, drawn, deal.blocked_while is not None, "stretch" in random)
    hardware = None
    if deal.hardware is not None:
        generation = study.world.hardware[deal.hardware]
        reference = generation.reference or study.portfolio.start
        hardware = (
            generation.h100e_per_gw,
            generation.improvement,
            quarters_between(study.portfolio.start, reference),
        )
        parameters["h100e_per_gw"] = generation.h100e_per_gw
    lowest_slip = lowest(deal.slip)
    return CompiledDeal(
        name, shape, features, parameters, segments, legs, random, words, start + lowest_slip, hardware
    )


def _leg_term(stream: str, role: str, leg, term: str, numbers: dict, random: dict[str, RandomTerm]) -> None:
    """A leg's own distribution: drawn, or folded into the leg's numbers."""
    table = quantile_table(getattr(leg, term))
    if not is_degenerate(table):
        random[role] = RandomTerm(stream, getattr(leg, term))
    elif term == "price":
        numbers["price"] = float(table[1][0])
    else:
        numbers["cost"] *= float(table[1][0])


def _segments(deal: Deal, ladder: Ladder, stretch: float) -> tuple[list[dict[str, float]], list[bool]]:
    segments, certain, probability = [], [], 1.0
    for rung, (_, gw, begin, length) in zip(deal.ladder.values(), ladder.segments, strict=True):
        probability *= rung.follow_through
        certain.append(probability == 1.0)
        segments.append(
            {
                "gw": gw,
                "begin": begin * stretch,
                "length": length * stretch,
                # A rung that is certain needs no word, so that a threshold always fits one.
                "threshold": min(event_threshold(probability), 2**32 - 1),
            }
        )
    return segments, certain


def _clauses(deal: Deal) -> dict[str, float]:
    """Numbers of the clauses that a deal has."""
    found: dict[str, float] = {}
    if deal.term is not None:
        found["term"] = deal.term
    if deal.long_stop is not None:
        found["long_stop"] = deal.long_stop
    if deal.late_credit is not None:
        credit = deal.late_credit
        found |= {"late_grace": credit.grace, "late_per_quarter": credit.per_quarter, "late_max": credit.max}
    for event in ("cancel", "default"):
        clause = getattr(deal, event)
        if clause is not None:
            hazard = clause.hazard * YEARS_PER_QUARTER
            found[f"{event}_hazard"] = hazard
            found[f"{event}_bust"] = hazard * (clause.bust_multiplier - 1.0)
    if deal.cancel is not None:
        found |= {"cancel_notice": deal.cancel.notice, "cancel_fee": deal.cancel.fee}
    if deal.extension is not None and deal.extension.when != "never":
        found |= {
            "extension_quarters": deal.extension.quarters,
            "extension_threshold": deal.extension.threshold,
        }
    return found


def _flags(study: Study, deal: Deal) -> dict[str, Any]:
    """Which clauses a deal has, as far as they can matter in this study."""
    regime, buyer = study.world.regime is not None, study.portfolio.buyer
    defers = buyer.on_distress == "defer" and buyer.floor is not None and buyer.funding_limit is not None

    def in_bust(clause) -> bool:
        return clause is not None and regime and clause.bust_multiplier != 1.0

    hardware = study.world.hardware[deal.hardware] if deal.hardware is not None else None
    return {
        "term": deal.term is not None,
        "extension": deal.extension.when if deal.extension is not None else "never",
        "deferrable": deal.deferrable and defers,
        "follows_sites": deal.follows_sites,
        "long_stop": deal.long_stop is not None,
        "late_credit": deal.late_credit is not None,
        "cancel": deal.cancel is not None,
        "cancel_in_bust": in_bust(deal.cancel),
        "default": deal.default is not None,
        "default_in_bust": in_bust(deal.default),
        "life": deal.life,
        "improves": hardware is not None and hardware.improvement != 0.0,
    }


def legs_of(deal: Deal) -> Iterator[tuple[str, str, Any]]:
    """Legs of a deal in a fixed order: what it pays, then what it receives, by kind and name."""
    for role, legs in (("pays", deal.pays), ("receives", deal.receives)):
        for name, leg in sorted(legs.items(), key=lambda item: (item[1].kind, item[0])):
            yield role, name, leg


def _index(leg: Commitment | Purchase, factor_number, fixed) -> tuple[layout.Index, dict[str, float]]:
    factor = factor_number[leg.index]
    # A factor that never moves matters only through a cap below its ratio of 1.
    moves = factor not in fixed or (leg.index_cap is not None and leg.index_cap < 1.0)
    follows = leg.pass_through != 0.0 and moves
    index = layout.Index(
        factor=factor if follows else None,
        capped=follows and leg.index_cap is not None,
        escalates=leg.escalator != 0.0,
        leverage=leg.leverage != 0.0,
    )
    numbers = {
        "fixed_share": 1.0 - leg.pass_through,
        "pass_through": leg.pass_through,
        "leverage": leg.leverage,
    }
    numbers["escalation"] = float(np.log2(1.0 + leg.escalator)) * YEARS_PER_QUARTER
    if leg.index_cap is not None:
        numbers["cap"] = leg.index_cap
    return index, numbers


def _commitment(study, deal: Deal, ladder: Ladder, leg: Commitment, factor_number, fixed):
    index, numbers = _index(leg, factor_number, fixed)
    weight = planned_weight(deal, leg)
    numbers |= {
        "rate": (1.0 - leg.prepay) * leg.total / weight,
        "extension_rate": leg.total / weight * (deal.extension.price if deal.extension else 1.0),
        "take_or_pay": leg.take_or_pay,
        "usage": 1.0 - leg.take_or_pay,
        "prepayment": leg.prepay * leg.total,
    }
    return layout.Leg(
        kind="commitment",
        index=index,
        flat=leg.profile == "flat",
        usage=leg.take_or_pay < 1.0,
        prepaid=leg.prepay > 0.0,
    ), numbers


def _purchase(study, deal: Deal, ladder: Ladder, leg: Purchase, factor_number, fixed):
    index, numbers = _index(leg, factor_number, fixed)
    numbers |= {
        "per_gw": leg.per_gw * (1.0 - leg.deposit),
        "deposit_per_gw": leg.per_gw * leg.deposit,
        "lead": float(leg.lead),
    }
    return layout.Leg(kind="purchase", index=index, deposit=leg.deposit > 0.0), numbers


def _hosting(study, deal: Deal, ladder: Ladder, leg: Hosting, factor_number, fixed):
    return layout.Leg(kind="hosting"), {"per_gw_quarter": leg.per_gw_year * YEARS_PER_QUARTER}


def _power(study, deal: Deal, ladder: Ladder, leg: Power, factor_number, fixed):
    return layout.Leg(kind="power", factor=factor_number["power_price"]), {"cost": _POWER_BILLIONS}


def _vendor_investment(study, deal: Deal, ladder: Ladder, leg: VendorInvestment, factor_number, fixed):
    order = {name: number for number, name in enumerate(sorted(study.portfolio.deals))}
    tranches = list(leg.tranches.values())
    template = layout.Leg(
        kind="vendor_investment",
        tranches=len(tranches),
        milestone_from=tuple(sorted(order[other] for other in leg.milestone_from)),
    )
    return template, {"gw": [t.gw for t in tranches], "amount": [t.amount for t in tranches]}


def _equity(study, deal: Deal, ladder: Ladder, leg: Equity, factor_number, fixed):
    numbers: dict[str, Any] = {"at_start": leg.amount}
    if leg.conditional is not None:
        numbers |= {"gw": [leg.conditional.gw], "amount": [leg.conditional.amount]}
    conditional = leg.conditional is not None
    return layout.Leg(kind="equity", conditional=conditional, tranches=int(conditional)), numbers


def _warrants(study, deal: Deal, ladder: Ladder, leg: Warrants, factor_number, fixed):
    tranches = list(leg.tranches.values())
    template = layout.Leg(
        kind="warrants",
        tranches=len(tranches),
        factor=factor_number[leg.share],
        monetised=leg.monetise == "vest",
    )
    numbers = {key: [getattr(t, key) for t in tranches] for key in ("gw", "hurdle", "shares", "strike")}
    return template, {**numbers, "expiry": quarters_between(study.portfolio.start, leg.expiry)}


_LEGS = {
    Commitment: _commitment,
    Purchase: _purchase,
    Hosting: _hosting,
    Power: _power,
    VendorInvestment: _vendor_investment,
    Equity: _equity,
    Warrants: _warrants,
}


def columns(values: list, kind: type = np.float32):
    """A parameter of a group's deals as a column [deals, 1]."""
    return np.asarray(values, dtype=kind).reshape(-1, 1)


def assemble(
    group: list[CompiledDeal], numbers: tuple[int, ...], random: dict[str, layout.Random], **extra
) -> layout.Group:
    """A group from its deals. `random`: its drawn terms by role; `extra`: regions, blockers, vintages,
    standing.
    """
    template = group[0].features
    legs = tuple(
        replace(leg, price=random.get(f"{position}/price"), pue=random.get(f"{position}/pue"))
        for position, leg in enumerate(template.legs)
    )
    vintage, standing = extra.pop("vintage"), extra.pop("standing")
    features = replace(
        template,
        legs=legs,
        slip=random.get("slip"),
        stretch=random.get("stretch"),
        size=random.get("size"),
        **extra,
    )
    parameters = {key: columns([deal.parameters[key] for deal in group]) for key in group[0].parameters}
    segments = tuple(
        {
            key: columns(
                [deal.segments[k][key] for deal in group], np.uint32 if key == "threshold" else np.float32
            )
            for key in group[0].segments[k]
        }
        for k in range(len(template.segments))
    )
    return layout.Group(
        features,
        numbers,
        parameters,
        segments,
        tuple(_leg_columns(group, k) for k in range(len(legs))),
        vintage,
        standing,
    )


def _leg_columns(group: list[CompiledDeal], position: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, first in group[0].legs[position].items():
        values = [deal.legs[position][key] for deal in group]
        if isinstance(first, list):
            found[key] = [columns([value[k] for value in values]) for k in range(len(first))]
        else:
            found[key] = columns(values)
    return found
