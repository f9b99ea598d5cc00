"""The frozen portfolio of `common`, as an analyst would write it in plain numpy: what offtake is compared to.

float64 arrays [paths, quarters] and [paths, quarters, deals] held whole, numpy's Generator, loops over
quarters only where a quarter needs the one before, np.mean, np.std and np.quantile for everything recorded.
It covers the clauses that `common.portfolio` uses and no others, so it may skip what a general engine has to
ask. Arrays that are equal are summarised once, as in offtake (`served` and `served_inference`).
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

QUANTILES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
QUARTER = 0.25
HOURS = 2191.5
# Factors that exist in every world and do not move in this one.
CONSTANT = {"power_price": 57.0, "market_supply": 1.0}

Array = NDArray[np.float64]
Key = tuple[str, str]


def simulate(study: dict[str, Any], paths: int, seed: int = 1) -> dict[Key, Array]:
    """Everything recorded, by (scope, metric); NaN where a path has no value.

    [paths, quarters] or, for one number a path, [paths]; but for totals a last axis counts deals, suppliers
    or factors in the order of `names`.
    """
    rng = np.random.default_rng(seed)
    portfolio, world = study["portfolio"], study["world"]
    factors, bust = simulate_world(rng, world, portfolio["quarters"], paths)
    deals = simulate_deals(rng, study, bust, paths)
    return simulate_buyer(study, factors, bust, deals)


def names(study: dict[str, Any]) -> dict[str, list[str]]:
    """Names along the last axis, by scope."""
    deals = study["portfolio"]["deals"]
    return {
        "total": [""],
        "deal": list(deals),
        "supplier": sorted({deal["supplier"] for deal in deals.values()}),
        "factor": [*study["world"]["factors"], *CONSTANT],
    }


def simulate_world(
    rng: np.random.Generator, world: dict[str, Any], quarters: int, paths: int
) -> tuple[dict[str, Array], NDArray[np.bool_]]:
    """Factors [paths, quarters] by name, and the bust flag [paths, quarters]."""
    factor_names = list(world["factors"])
    matrix = np.eye(len(factor_names))
    for one, row in world["correlation"].items():
        for other, value in row.items():
            i, j = factor_names.index(one), factor_names.index(other)
            matrix[i, j] = matrix[j, i] = value
    normals = rng.standard_normal((paths, quarters - 1, len(factor_names))) @ np.linalg.cholesky(matrix).T
    uniform = rng.random((paths, quarters - 1))
    falls = 1.0 - np.exp(-world["regime"]["bust_rate"] * QUARTER)
    recovers = 1.0 - np.exp(-world["regime"]["recovery_rate"] * QUARTER)
    bust = np.zeros((paths, quarters), bool)
    for t in range(quarters - 1):
        bust[:, t + 1] = np.where(bust[:, t], uniform[:, t] >= recovers, uniform[:, t] < falls)
    begins = bust[:, 1:] & ~bust[:, :-1]
    years = np.arange(quarters - 1) * QUARTER
    factors = {}
    for number, name in enumerate(factor_names):
        terms = world["factors"][name]
        in_bust = terms.get("bust", {})
        growth = terms["growth"]
        if isinstance(growth, dict):
            growth = growth["later"] + (growth["now"] - growth["later"]) * 2.0 ** (
                -years / growth["half_life"]
            )
        drift = np.where(bust[:, :-1], in_bust.get("growth", growth), growth)
        volatility = np.where(
            bust[:, :-1], in_bust.get("volatility", terms["volatility"]), terms["volatility"]
        )
        steps = (drift - 0.5 * volatility**2) * QUARTER
        steps += volatility * np.sqrt(QUARTER) * normals[:, :, number]
        steps += in_bust.get("jump", 0.0) * begins
        level = np.full((paths, quarters), np.log(terms["initial"]))
        level[:, 1:] += np.cumsum(steps, axis=1)
        factors[name] = np.exp(level)
    return factors, bust


def simulate_deals(
    rng: np.random.Generator, study: dict[str, Any], bust: NDArray[np.bool_], paths: int
) -> dict[str, Any]:
    """Capacity, weights, what is owed and events of all deals, [paths, quarters, deals] or [paths, deals]."""
    portfolio = study["portfolio"]
    deals = list(portfolio["deals"].values())
    quarters, count = portfolio["quarters"], len(deals)
    t = np.arange(quarters, dtype=float)[None, :, None]

    planned_start = np.array(
        [_quarters_between(portfolio["start"], deal["start"]) for deal in deals], dtype=float
    )
    slip = _slips(rng, deals, paths)
    start = planned_start + slip
    term = np.array([deal["term"] for deal in deals], dtype=float)
    scheduled = start + term

    rungs = [list(deal["ladder"].values()) for deal in deals]
    first_gw = np.array([r[0]["gw"] for r in rungs])
    second_gw = np.array([r[1]["gw"] - r[0]["gw"] for r in rungs])
    first_length = np.array([r[0]["after"] for r in rungs], dtype=float)
    second_length = np.array([r[1]["after"] - r[0]["after"] for r in rungs], dtype=float)
    follow = np.array([r[1]["follow_through"] for r in rungs])
    happens = rng.random((paths, count)) < follow

    def curve(gw: Array) -> Any:
        """∫ of the ladder from 0 to a ladder time, with this much GW on the second rung."""

        def integral(time: Array) -> Array:
            one = np.clip(time, 0.0, first_length)
            two = np.clip(time - first_length, 0.0, second_length)
            full = np.maximum(time - first_length - second_length, 0.0)
            total = first_gw * (one**2 / (2 * first_length) + np.maximum(time - first_length, 0.0))
            return total + gw * (two**2 / (2 * second_length) + full)

        return integral

    integral = curve((second_gw * happens)[:, None, :])
    planned = curve(second_gw)

    cancelled, cancel_at, default_at = _events(rng, deals, bust, scheduled)
    start_q, scheduled_q, cancel_q = start[:, None, :], scheduled[:, None, :], cancel_at[:, None, :]
    # End of service as known in each quarter: a cancellation from its notice, a default when it comes.
    notice = np.array([deal["cancel"]["notice"] for deal in deals], dtype=float)
    end_q = np.minimum(scheduled_q, np.where(cancel_q - notice <= t, cancel_q, np.inf))
    end_q = np.minimum(end_q, np.where(default_at[:, None, :] <= t, default_at[:, None, :], np.inf))

    position = t - start_q
    service = np.clip(end_q - t, 0.0, 1.0)
    mean = integral(position + service) - integral(position)
    mean[mean < 1e-5] = 0.0
    reached = position + service
    remaining = integral(reached + np.maximum(end_q - (t + 1.0), 0.0)) - integral(reached)
    unpaid = (start_q >= t + 1.0) & (start_q < end_q)
    starts = (start_q >= t) & (start_q < t + 1.0) & (start_q < end_q)
    fee_due = cancelled[:, None, :] & (cancel_q == t) & (end_q == t) & (scheduled_q > t)
    fee_weight = np.where(
        fee_due, integral(position + np.maximum(scheduled_q - t, 0.0)) - integral(position), 0.0
    )

    inside = np.minimum(planned_start + term, quarters)
    in_horizon = planned(inside - planned_start)
    horizon = float(quarters)
    by_default = default_at <= horizon
    by_cancel = cancelled & (cancel_at <= horizon) & (cancel_at < scheduled) & ~by_default
    return {
        "mean": mean,
        "weight": planned(term),
        "remaining": remaining,
        "unpaid": unpaid,
        "starts": starts,
        "fee_weight": fee_weight,
        "share": mean.sum(axis=1) / in_horizon,
        "lateness": slip,
        "rungs": 1.0 + happens,
        "ended_default": by_default.astype(float),
        "ended_cancelled": by_cancel.astype(float),
        "ended_term": ((scheduled <= horizon) & ~by_default & ~by_cancel).astype(float),
    }


def _slips(rng: np.random.Generator, deals: list[dict[str, Any]], paths: int) -> Array:
    """Quarters late [paths, deals]: linear in a normal score that supply chain and region share."""
    regions = sorted({deal["region"] for deal in deals})
    chain = rng.standard_normal((paths, 1))
    region = rng.standard_normal((paths, len(regions)))
    own = rng.standard_normal((paths, len(deals)))
    a = np.array([deal["slip_loading"]["supply_chain"] for deal in deals])
    b = np.array([deal["slip_loading"]["region"] for deal in deals])
    region_of = [regions.index(deal["region"]) for deal in deals]
    score = np.sqrt(a) * chain + np.sqrt(b) * region[:, region_of] + np.sqrt(1.0 - a - b) * own
    slip = np.empty_like(score)
    for number, deal in enumerate(deals):
        (low, p10), (mid, p50), (high, p90) = (
            (ndtri(float(p)), value) for p, value in deal["slip"]["quantiles"].items()
        )
        z = score[:, number]
        below = p50 + (z - mid) * (p50 - p10) / (mid - low)
        above = p50 + (z - mid) * (p90 - p50) / (high - mid)
        slip[:, number] = np.maximum(np.where(z < mid, below, above), deal["slip"]["min"])
    return slip


def _events(
    rng: np.random.Generator, deals: list[dict[str, Any]], bust: NDArray[np.bool_], scheduled: Array
) -> tuple[NDArray[np.bool_], Array, Array]:
    """Whether a deal is cancelled, when that takes effect, and when the supplier defaults [paths, deals]."""
    hits = {}
    for event in ("cancel", "default"):
        hazard = np.array([deal[event]["hazard"] for deal in deals]) * QUARTER
        multiplier = np.array([deal[event]["bust_multiplier"] for deal in deals])
        total = np.cumsum(hazard * np.where(bust[:, :, None], multiplier, 1.0), axis=1)
        hit = total > rng.exponential(size=scheduled.shape)[:, None, :]
        hits[event] = np.where(hit.any(axis=1), hit.argmax(axis=1), np.inf)
    notice = np.array([deal["cancel"]["notice"] for deal in deals], dtype=float)
    cancelled = (hits["cancel"] < scheduled) & (hits["cancel"] < hits["default"])
    cancel_at = np.where(cancelled, hits["cancel"] + notice, np.inf)
    defaulted = hits["default"] < np.minimum(scheduled, cancel_at)
    return cancelled, cancel_at, np.where(defaulted, hits["default"], np.inf)


def simulate_buyer(
    study: dict[str, Any], factors: dict[str, Array], bust: NDArray[np.bool_], deals: dict[str, Any]
) -> dict[Key, Array]:
    """Market, money and everything recorded."""
    portfolio = study["portfolio"]
    terms = list(portfolio["deals"].values())
    buyer = portfolio["buyer"]
    paths, quarters = bust.shape
    hardware = study["world"]["hardware"]
    capacity = deals["mean"]
    compute = capacity * np.array([hardware[deal["hardware"]]["h100e_per_gw"] for deal in terms])
    online = compute.sum(axis=2)

    demand = factors["demand"]
    gap = np.maximum(demand - online, 0.0)
    spot = buyer["spot"]["share"] * gap
    served = np.minimum((online + spot) / demand, 1.0)
    with np.errstate(divide="ignore"):
        use = np.minimum(demand / online, 1.0)
    spot_cost = spot * factors["spot_price"] * HOURS * 1e-3
    revenue = factors["revenue"] * QUARTER * served ** buyer["served_elasticity"]

    spend, owed = _pay(terms, deals, use, factors["hardware_price"])
    spent = spend.sum(axis=2)
    cash, funding = _settle(buyer, revenue, spent, spot_cost)

    capacity_gw = capacity.sum(axis=2)
    suppliers = sorted({deal["supplier"] for deal in terms})
    member = np.array([[deal["supplier"] == supplier for supplier in suppliers] for deal in terms], float)
    by_supplier = {"capacity_gw": capacity @ member, "compute": compute @ member, "spend": spend @ member}
    some = online > 0.0
    divisor = np.where(some, online, np.nan)
    zeros, none = np.zeros((paths, quarters)), np.zeros((paths, quarters, len(terms)))
    constant = [np.full((paths, quarters), level) for level in CONSTANT.values()]
    found: dict[Key, Array] = {
        ("total", "capacity_gw"): capacity_gw,
        ("total", "delivered_gw"): capacity_gw,
        ("total", "compute"): online,
        ("total", "demand"): demand,
        ("total", "shortfall"): gap - spot,
        ("total", "served"): served,
        ("total", "served_inference"): served,
        ("total", "served_training"): served,
        ("total", "utilisation"): use,
        ("total", "revenue"): revenue,
        ("total", "spend"): spent,
        ("total", "inflows"): zeros,
        ("total", "power_cost"): zeros,
        ("total", "spot_cost"): spot_cost,
        ("total", "cash"): cash,
        ("total", "funding"): funding,
        ("total", "commitments"): owed,
        ("total", "unit_cost"): spent / divisor * 1e3 / HOURS,
        ("total", "spend_compute"): spent * online,
        ("total", "concentration"): ((by_supplier["compute"] / divisor[:, :, None]) ** 2).sum(axis=2),
        ("total", "bust"): bust.astype(float),
        ("factor", "factor"): np.stack([*factors.values(), *constant], axis=2),
        ("deal", "capacity_gw"): capacity,
        ("deal", "delivered_gw"): capacity,
        ("deal", "compute"): compute,
        ("deal", "spend"): spend,
        ("deal", "inflows"): none,
        ("supplier", "capacity_gw"): by_supplier["capacity_gw"],
        ("supplier", "delivered_gw"): by_supplier["capacity_gw"],
        ("supplier", "compute"): by_supplier["compute"],
        ("supplier", "spend"): by_supplier["spend"],
        ("supplier", "inflows"): none[:, :, : len(suppliers)],
    }
    found.update(_per_path(study, found, deals))
    return found


def _pay(
    terms: list[dict[str, Any]], deals: dict[str, Any], use: Array, hardware_price: Array
) -> tuple[Array, Array]:
    """What every contract is paid [paths, quarters, deals], and what is still owed [paths, quarters]."""
    cloud = [deal["pays"]["cloud"] for deal in terms]
    total, prepay = np.array([leg["total"] for leg in cloud]), np.array([leg["prepay"] for leg in cloud])
    take = np.array([leg["take_or_pay"] for leg in cloud])
    passed = np.array([leg["pass_through"] for leg in cloud])
    fee = np.array([deal["cancel"]["fee"] for deal in terms])
    price = hardware_price / hardware_price[:, :1]
    index = (1.0 - passed) + passed * price[:, :, None]
    rate = (1.0 - prepay) * total / deals["weight"]
    spend = rate * deals["mean"] * index * (take + (1.0 - take) * use[:, :, None])
    spend += np.where(deals["starts"], prepay * total, 0.0)
    spend += fee * take * rate * deals["fee_weight"]
    owed = (take * rate * deals["remaining"] + np.where(deals["unpaid"], prepay * total, 0.0)).sum(axis=2)
    return spend, owed


def _settle(buyer: dict[str, Any], revenue: Array, spent: Array, spot_cost: Array) -> tuple[Array, Array]:
    """Cash and funding at the end of every quarter [paths, quarters]."""
    paths, quarters = revenue.shape
    cash, funding = np.empty((paths, quarters)), np.empty((paths, quarters))
    held, debt = np.full(paths, buyer["cash"]), np.zeros(paths)
    for t in range(quarters):
        held = held * (1.0 + buyer["cash_yield"] * QUARTER) + revenue[:, t] * buyer["margin"]
        held = held - buyer["fixed_cost"] * QUARTER - spent[:, t] - spot_cost[:, t]
        held = held - debt * buyer["interest_rate"] * QUARTER
        debt = debt + np.maximum(buyer["floor"] - held, 0.0)
        held = np.maximum(held, buyer["floor"])
        repaid = np.minimum(debt, np.maximum(held - buyer["target"], 0.0))
        held, debt = held - repaid, debt - repaid
        cash[:, t], funding[:, t] = held, debt
    return cash, funding


def _per_path(study: dict[str, Any], found: dict[Key, Array], deals: dict[str, Any]) -> dict[Key, Array]:
    """The numbers that a path has once."""
    buyer = study["portfolio"]["buyer"]
    spend, revenue, spot_cost = (found["total", m] for m in ("spend", "revenue", "spot_cost"))
    paths, quarters = spend.shape
    discount = (1.0 + buyer["discount_rate"]) ** (-np.arange(quarters) * QUARTER)
    net = revenue * buyer["margin"] - buyer["fixed_cost"] * QUARTER - spend - spot_cost
    zeros = np.zeros(paths)
    values = {
        "total_spend": spend.sum(axis=1),
        "npv_spend": spend @ discount,
        "total_inflows": zeros,
        "npv_net": net @ discount,
        "peak_funding": found["total", "funding"].max(axis=1),
        "min_cash": found["total", "cash"].min(axis=1),
        "first_shortage": _first(found["total", "shortfall"] > 1e-4 * found["total", "demand"]),
        "first_distress": _first(found["total", "funding"] > buyer["funding_limit"]),
        "warrant_value_vest": zeros,
        "warrant_value_horizon": zeros,
    }
    for level in study["study"]["reach"]:
        reached = found["total", "capacity_gw"] >= level * (1.0 - 2.0**-16)
        values[f"reach_{level:g}"] = _first(reached)
    by_path: dict[Key, Array] = {("total", metric): value for metric, value in values.items()}
    columns = {
        "delivered_share": deals["share"],
        "lateness": deals["lateness"],
        "realised_rungs": deals["rungs"],
        "ended_term": deals["ended_term"],
        "ended_cancelled": deals["ended_cancelled"],
        "ended_default": deals["ended_default"],
        "ended_long_stop": np.zeros_like(deals["share"]),
    }
    by_path.update({("deal", metric): value for metric, value in columns.items()})
    return by_path


def _first(happens: NDArray[np.bool_]) -> Array:
    """First quarter in which something happens, NaN if it never does."""
    return np.where(happens.any(axis=1), happens.argmax(axis=1), np.nan)


def summarise(found: dict[Key, Array]) -> dict[Key, dict[str, Array]]:
    """Statistics of everything recorded; an array that is recorded under several metrics is done once."""
    done: dict[int, dict[str, Array]] = {}
    for values in found.values():
        if id(values) not in done:
            done[id(values)] = _statistics(values)
    return {key: done[id(values)] for key, values in found.items()}


def _statistics(values: Array) -> dict[str, Array]:
    if np.isnan(values).any():
        columns = values.reshape(values.shape[0], -1).T
        present = [_statistics(column[~np.isnan(column)]) for column in columns]
        shape = values.shape[1:]
        return {name: np.reshape([column[name] for column in present], shape) for name in present[0]}
    if values.shape[0] < 2:
        return dict.fromkeys(("mean", "sd", "se", "min", "max", *_LABELS, "es_low", "es_high"), _NOTHING)
    sd = np.std(values, axis=0, ddof=1)
    quantiles = np.quantile(values, QUANTILES, axis=0)
    low, high = values <= quantiles[1], values >= quantiles[7]
    return {
        "mean": np.mean(values, axis=0),
        "sd": sd,
        "se": sd / np.sqrt(values.shape[0]),
        "min": np.min(values, axis=0),
        "max": np.max(values, axis=0),
        **dict(zip(_LABELS, quantiles, strict=True)),
        "es_low": np.where(low, values, 0.0).sum(axis=0) / low.sum(axis=0),
        "es_high": np.where(high, values, 0.0).sum(axis=0) / high.sum(axis=0),
    }


_LABELS = tuple(f"p{round(100 * p):02d}" for p in QUANTILES)
_NOTHING = np.array(np.nan)


def _quarters_between(since: str, until: str) -> float:
    """Quarters from one date to another: whole years and months, and days by their mean number."""
    one, other = datetime.date.fromisoformat(since), datetime.date.fromisoformat(until)
    months = 12 * (other.year - one.year) + other.month - one.month
    return months / 3 + (other.day - one.day) / 91.3125
