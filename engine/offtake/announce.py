"""The deals as announced: every distribution at its headline, nothing random, and the totals that follow.

The totals are float64 and exact; a run of the announced study reproduces them quarter by quarter in float32.
"""

from __future__ import annotations

from typing import Any

from offtake.deals import Commitment, Deal, Equity, Hosting, Power, Purchase, VendorInvestment
from offtake.ladder import planned_ladder
from offtake.quantiles import median
from offtake.study import Study
from offtake.world import Factor

_NO_CLAUSE: dict[str, Any] = {
    "slip": 0.0,
    "size": 1.0,
    "stretch": 1.0,
    "long_stop": None,
    "late_credit": None,
    "cancel": None,
    "default": None,
    "extension": None,
    "blocked_while": None,
    "deferrable": False,
    "follows_sites": False,
}


def announced(study: Study) -> Study:
    """The study with slips 0, sizes, stretches, prices and follow-throughs 1, no indexation, full
    take-or-pay,

    no extension, no waiting, no hazards, no regime and no volatility; other distributions at their medians.
    """
    deals = {name: _announced_deal(deal) for name, deal in study.portfolio.deals.items()}
    buyer = study.portfolio.buyer.model_copy(update={"on_distress": "record"})
    portfolio = study.portfolio.model_copy(update={"deals": deals, "buyer": buyer})
    factors = {name: _announced_factor(factor) for name, factor in study.world.factors.items()}
    world = study.world.model_copy(update={"factors": factors, "regime": None, "correlation": {}})
    return study.model_copy(update={"portfolio": portfolio, "world": world})


def _announced_deal(deal: Deal) -> Deal:
    ladder = {name: rung.model_copy(update={"follow_through": 1.0}) for name, rung in deal.ladder.items()}
    pays = {name: _announced_leg(leg) for name, leg in deal.pays.items()}
    return deal.model_copy(update={**_NO_CLAUSE, "ladder": ladder, "pays": pays})


def _announced_leg(leg):
    still = {"escalator": 0.0, "pass_through": 0.0, "leverage": 0.0}
    if isinstance(leg, Commitment):
        return leg.model_copy(update={**still, "price": 1.0, "take_or_pay": 1.0})
    if isinstance(leg, Purchase):
        return leg.model_copy(update=still)
    if isinstance(leg, Power):
        return leg.model_copy(update={"pue": median(leg.pue)})
    return leg


def _announced_factor(factor: Factor) -> Factor:
    if factor.table is not None:
        return factor
    return factor.model_copy(update={"initial": median(factor.initial), "volatility": 0.0, "bust": None})


def headline(deal: Deal) -> dict[str, float]:
    """What a deal is announced to be worth, US$ bn: what is paid (by kind) and what is received."""
    found = {"commitment": 0.0, "purchase": 0.0, "hosting": 0.0, "received": 0.0}
    gw = list(deal.ladder.values())[-1].gw
    for leg in deal.pays.values():
        if isinstance(leg, Commitment):
            found["commitment"] += leg.total
        elif isinstance(leg, Purchase):
            found["purchase"] += leg.per_gw * gw
        elif isinstance(leg, Hosting) and deal.term is not None:
            found["hosting"] += leg.per_gw_year * planned_ladder(deal).integral(deal.term) / 4.0
    for leg in deal.receives.values():
        if isinstance(leg, Equity):
            found["received"] += leg.amount + (leg.conditional.amount if leg.conditional else 0.0)
        elif isinstance(leg, VendorInvestment):
            found["received"] += sum(tranche.amount for tranche in leg.tranches.values())
    return found


def announced_totals(study: Study) -> dict[str, Any]:
    """Deals as announced, by supplier, with GW, terms and sources, and the announced total in US$ bn."""
    deals = []
    for name, deal in study.portfolio.deals.items():
        amounts = headline(deal)
        deals.append(
            {
                "deal": name,
                "supplier": deal.supplier,
                "layer": deal.layer,
                "region": deal.region,
                "start": deal.start.isoformat(),
                "term_quarters": deal.term,
                "gw": list(deal.ladder.values())[-1].gw,
                "signed": next(iter(deal.ladder.values())).follow_through,
                **{f"{key}_bn": value for key, value in amounts.items()},
                "paid_bn": sum(value for key, value in amounts.items() if key != "received"),
                "as_of": deal.facts.as_of.isoformat() if deal.facts.as_of else None,
                "source": deal.facts.source,
                "confidence": deal.facts.confidence,
                "note": deal.facts.note,
            }
        )
    suppliers: dict[str, float] = {}
    for deal in deals:
        suppliers[deal["supplier"]] = suppliers.get(deal["supplier"], 0.0) + deal["paid_bn"]
    return {
        "portfolio": study.portfolio.name,
        "deals": deals,
        "suppliers_bn": suppliers,
        "commitments_bn": sum(deal["commitment_bn"] for deal in deals),
        "announced_bn": sum(suppliers.values()),
        "received_bn": sum(deal["received_bn"] for deal in deals),
    }
