"""The numbers of the peers' study, read from the study that offtake itself runs."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.special import ndtri

from . import Series

QUARTER = 0.25
METRICS = ("capacity_gw", "compute", "spend", "cash")
# Of these, what every deal has a share of.
SHARED_METRICS = METRICS[:3]
# Of the study's factors, those on which the four metrics depend.
FACTORS = ("demand", "revenue", "spot_price")


@dataclass(frozen=True)
class Terms:
    """What the contracts, the factors and the buyer fix.

    names                          of the deals

    By deal, in the shape that a peer asks for:
        start                      announced, quarters after the portfolio's
        ramp, term                 quarters from own start to the full GW, and of service
        follow_through             probability that the deal happens
        slip                       dict: median and least, quarters; below and above, quarters a unit of the
                                   normal score on either side of the median
        chain, area, own           weights of supply chain, region and the deal itself in that score
    region [deals]                 number of the deal's region
    weights [4, deals]             of a delivered GW-quarter: GW, MH100e, and US$ bn owed whatever is used and
                                   owed at full use
    opening [factors], drift [quarters - 1, factors], volatility [factors], correlation [factors, factors]
                                   of the factors' natural logs, a quarter
    buyer                          as in the study, with spot_share; a year where it is a rate
    """

    quarters: int
    names: tuple[str, ...]
    start: NDArray[Any]
    ramp: NDArray[Any]
    term: NDArray[Any]
    follow_through: NDArray[Any]
    slip: dict[str, NDArray[Any]]
    chain: NDArray[Any]
    area: NDArray[Any]
    own: NDArray[Any]
    region: NDArray[np.intp]
    weights: NDArray[Any]
    opening: NDArray[Any]
    drift: NDArray[Any]
    volatility: NDArray[Any]
    correlation: NDArray[Any]
    buyer: dict[str, float]

    @property
    def deals(self) -> int:
        """How many deals there are."""
        return self.region.size

    def series(self, *, by_deal: bool) -> list[Series]:
        """What is answered, in order: the totals, and of every deal its shares of them."""
        shares = [(metric, name) for metric in SHARED_METRICS for name in self.names]
        return [*((metric, "") for metric in METRICS), *(shares if by_deal else ())]

    @property
    def regions(self) -> int:
        """How many regions there are."""
        return int(self.region.max()) + 1


def terms_of(study: dict[str, Any], shape: tuple[int, ...] = (-1,), dtype: DTypeLike = np.float64) -> Terms:
    """A study like `common.plain()`; shape (-1,) for arrays that end with deals, (-1, 1) with paths."""
    portfolio, world = study["portfolio"], study["world"]
    deals = list(portfolio["deals"].values())

    def by_deal(values: list[float]) -> NDArray[Any]:
        return np.reshape(np.array(values, dtype), shape)

    full = [deal["ladder"]["full"] for deal in deals]
    loading = [(deal["slip_loading"]["supply_chain"], deal["slip_loading"]["region"]) for deal in deals]
    slips = [_slip(deal["slip"]) for deal in deals]
    regions = sorted({deal["region"] for deal in deals})
    return Terms(
        quarters=portfolio["quarters"],
        names=tuple(portfolio["deals"]),
        start=by_deal([_quarters_between(portfolio["start"], deal["start"]) for deal in deals]),
        ramp=by_deal([rung["after"] for rung in full]),
        term=by_deal([deal["term"] for deal in deals]),
        follow_through=by_deal([rung["follow_through"] for rung in full]),
        slip={name: by_deal([slip[name] for slip in slips]) for name in slips[0]},
        chain=by_deal([chain**0.5 for chain, _ in loading]),
        area=by_deal([area**0.5 for _, area in loading]),
        own=by_deal([(1.0 - chain - area) ** 0.5 for chain, area in loading]),
        region=np.array([regions.index(deal["region"]) for deal in deals]),
        weights=np.array([_weights(deal, world["hardware"]) for deal in deals], dtype).T.copy(),
        **{name: values.astype(dtype) for name, values in _factors(world, portfolio["quarters"]).items()},
        buyer={**portfolio["buyer"], "spot_share": portfolio["buyer"]["spot"]["share"]},
    )


def _slip(written: dict[str, Any]) -> dict[str, float]:
    (low, p10), (_, p50), (high, p90) = ((ndtri(float(p)), v) for p, v in written["quantiles"].items())
    return {
        "median": p50,
        "least": written["min"],
        "below": (p10 - p50) / low,
        "above": (p90 - p50) / high,
    }


def _weights(deal: dict[str, Any], hardware: dict[str, Any]) -> tuple[float, ...]:
    rung, leg = deal["ladder"]["full"], deal["pays"]["cloud"]
    planned = rung["gw"] * (deal["term"] - rung["after"] / 2.0)
    price = leg["total"] * rung["gw"] / planned
    compute = rung["gw"] * hardware[deal["hardware"]]["h100e_per_gw"]
    return rung["gw"], compute, leg["take_or_pay"] * price, (1.0 - leg["take_or_pay"]) * price


def _factors(world: dict[str, Any], quarters: int) -> dict[str, NDArray[np.float64]]:
    factors = [world["factors"][name] for name in FACTORS]
    volatility = np.array([factor["volatility"] for factor in factors])
    growth = np.stack([_growth(factor["growth"], quarters - 1) for factor in factors], axis=1)
    correlation = np.eye(len(FACTORS))
    for one, row in world["correlation"].items():
        for other, value in row.items():
            if one in FACTORS and other in FACTORS:
                i, j = FACTORS.index(one), FACTORS.index(other)
                correlation[i, j] = correlation[j, i] = value
    return {
        "opening": np.log([factor["initial"] for factor in factors]),
        "drift": (growth - 0.5 * volatility**2) * QUARTER,
        "volatility": volatility * QUARTER**0.5,
        "correlation": correlation,
    }


def _growth(growth: float | dict[str, float], steps: int) -> NDArray[Any]:
    """Growth a year by step [steps]; constant, or fading from now to later."""
    if not isinstance(growth, dict):
        return np.full(steps, growth)
    fading = 2.0 ** (-np.arange(steps) * QUARTER / growth["half_life"])
    return growth["later"] + (growth["now"] - growth["later"]) * fading


def _quarters_between(since: str, until: str) -> float:
    one, other = datetime.date.fromisoformat(since), datetime.date.fromisoformat(until)
    assert one.day == other.day == 1
    return (12 * (other.year - one.year) + other.month - one.month) / 3
