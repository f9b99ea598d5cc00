"""The equations of the peers' study, element by element.

Every peer runs these; what differs is who draws, how arrays are laid out and who takes the statistics. `xp`
is numpy, jax.numpy, or for `settle` anything with `maximum` and `minimum`. Arrays over deals have the shape
that `terms_of` was asked for. The equations are those of docs/model.md, but for one clause: that less than
10⁻⁵ GW counts as none.
"""

from __future__ import annotations

from typing import Any

from .terms import QUARTER, Terms

HOURS = 2191.5


def start(xp: Any, terms: Terms, score: Any, uniform: Any) -> Any:
    """Own starts, quarters after the portfolio's, from normal scores and uniforms by deal; inf for never."""
    slip = terms.slip
    late = slip["median"] + score * xp.where(score < 0.0, slip["below"], slip["above"])
    begun = terms.start + xp.maximum(late, slip["least"])
    return xp.where(uniform < terms.follow_through, begun, xp.inf)


def served_quarters(xp: Any, terms: Terms, since_start: Any) -> Any:
    """GW-quarters delivered by a time since own start, for each GW of the ladder."""
    served = xp.clip(since_start, 0.0, terms.term)
    ramping = xp.minimum(served, terms.ramp)
    return served - ramping + ramping * ramping / (2.0 * terms.ramp)


def market(
    xp: Any, terms: Terms, compute: Any, demand: Any, revenue: Any, spot_price: Any
) -> tuple[Any, Any]:
    """Use of the compute online, and US$ bn of the quarter before contracts and interest."""
    buyer = terms.buyer
    spot = buyer["spot_share"] * xp.maximum(demand - compute, 0.0)
    served = xp.minimum((compute + spot) / demand, 1.0)
    earned = revenue * QUARTER * served ** buyer["served_elasticity"] * buyer["margin"]
    use = xp.minimum(demand / xp.maximum(compute, 1e-9), 1.0)
    return use, earned - buyer["fixed_cost"] * QUARTER - spot * spot_price * (HOURS * 1e-3)


def shares(xp: Any, weights: Any, delivered: Any, use: Any) -> Any:
    """Capacity, compute and spend of every deal, stacked, from the GW-quarters that each delivers."""
    capacity, compute, firm, flexible = weights
    return xp.stack([capacity * delivered, compute * delivered, (firm + flexible * use) * delivered])


def settle(xp: Any, terms: Terms, cash: Any, funding: Any, net: Any) -> tuple[Any, Any]:
    """Cash and funding at the end of a quarter, from those of the one before and what it brings, US$ bn."""
    buyer = terms.buyer
    cash = cash * (1.0 + buyer["cash_yield"] * QUARTER) + net - funding * (buyer["interest_rate"] * QUARTER)
    funding = funding + xp.maximum(buyer["floor"] - cash, 0.0)
    cash = xp.maximum(cash, buyer["floor"])
    repaid = xp.minimum(funding, xp.maximum(cash - buyer["target"], 0.0))
    return cash - repaid, funding - repaid
