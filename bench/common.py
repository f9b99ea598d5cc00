"""Frozen inputs of the benchmarks. Append-only: a number measured last year must mean the same today.

`portfolio(deals, quarters)` is a study as `offtake.load` takes it. Every number follows from the deal's index
by a formula; nothing is drawn while it is built. To try other terms, add a function, never edit one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import offtake
from offtake.study import Study

SUPPLIERS = ("ash", "birch", "cedar", "elm", "fir")
REGIONS = ("us", "eu", "asia")
STOCHASTIC = ("demand", "revenue", "hardware_price", "spot_price", "ai_equity")
START_YEAR, START_MONTH = 2025, 10


def portfolio(deals: int = 12, quarters: int = 41) -> dict[str, Any]:
    """A buyer with take-or-pay cloud contracts, five correlated factors, and boom and bust.

    GW and money of a deal shrink as deals are added, so that the buyer's position is much the same in all.
    """
    scale = 12.0 / deals
    return {
        "portfolio": {
            "name": f"bench{deals}x{quarters}",
            "start": f"{START_YEAR}-{START_MONTH:02d}-01",
            "quarters": quarters,
            "buyer": {
                "cash": 40.0,
                "margin": 0.6,
                "fixed_cost": 6.0,
                "served_elasticity": 0.7,
                "cash_yield": 0.03,
                "interest_rate": 0.09,
                "discount_rate": 0.10,
                "floor": 5.0,
                "target": 20.0,
                "funding_limit": 150.0,
                "spot": {"share": 0.3},
            },
            "deals": {f"deal{number:02d}": _deal(number, scale) for number in range(deals)},
        },
        "world": _world(),
        "study": {"paths": 65_536, "seed": 7, "reach": [1.0, 2.0, 5.0, 10.0], "keep_paths": 0},
        "device": {"name": "numpy"},
    }


def _deal(number: int, scale: float) -> dict[str, Any]:
    first, full = round(scale * (0.2 + 0.02 * (number % 4)), 4), round(scale * (0.9 + 0.1 * (number % 5)), 4)
    months = START_MONTH - 1 + 2 * (number % 12)
    return {
        "supplier": SUPPLIERS[number % len(SUPPLIERS)],
        "region": REGIONS[number % len(REGIONS)],
        "layer": "compute",
        "hardware": "rack",
        "start": f"{START_YEAR + months // 12}-{months % 12 + 1:02d}-01",
        "slip": {"quantiles": {"0.1": 0.0, "0.5": 1.0 + 0.1 * (number % 3), "0.9": 5.0}, "min": 0.0},
        "slip_loading": {"supply_chain": 0.3, "region": 0.2},
        "ladder": {
            "first": {"after": 2, "gw": first},
            "full": {"after": 7 + number % 3, "gw": full, "follow_through": 0.8},
        },
        "shape": "linear",
        "term": 28,
        "cancel": {"hazard": 0.02, "bust_multiplier": 3.0, "notice": 2, "fee": 0.3},
        "default": {"hazard": 0.005 + 0.001 * (number % 4), "bust_multiplier": 6.0},
        "pays": {
            "cloud": {
                "kind": "commitment",
                "total": round(scale * (50.0 + 4.0 * (number % 5)), 4),
                "take_or_pay": 0.9,
                "prepay": 0.1,
                "pass_through": 0.2,
                "index": "hardware_price",
            }
        },
    }


def _world() -> dict[str, Any]:
    return {
        "factors": {
            "demand": {
                "initial": 1.2,
                "growth": {"now": 0.9, "later": 0.15, "half_life": 1.5},
                "volatility": 0.25,
                "bust": {"growth": -0.10, "volatility": 0.40, "jump": -0.30},
            },
            "revenue": {
                "initial": 20.0,
                "growth": {"now": 0.8, "later": 0.12, "half_life": 2.0},
                "volatility": 0.20,
                "bust": {"growth": -0.05, "volatility": 0.35, "jump": -0.20},
            },
            "hardware_price": {"initial": 1.0, "growth": -0.05, "volatility": 0.10},
            "spot_price": {"initial": 2.0, "growth": -0.10, "volatility": 0.25, "bust": {"jump": -0.30}},
            "ai_equity": {
                "initial": 1.0,
                "growth": 0.08,
                "volatility": 0.35,
                "bust": {"growth": -0.30, "volatility": 0.60, "jump": -0.50},
            },
        },
        "correlation": {
            "demand": {"revenue": 0.8, "spot_price": 0.4, "ai_equity": 0.5},
            "revenue": {"spot_price": 0.3, "ai_equity": 0.4},
            "hardware_price": {"spot_price": 0.3},
        },
        "regime": {"bust_rate": 0.12, "recovery_rate": 0.5},
        "hardware": {"rack": {"h100e_per_gw": 1.2}},
    }


def study(deals: int = 12, quarters: int = 41, paths: int = 65_536) -> Study:
    """The frozen portfolio as a validated study."""
    return offtake.load(portfolio(deals, quarters), [f"study.paths={paths}"])


def openai(paths: int) -> Study:
    """The shipped OpenAI portfolio; its terms may change with the project's knowledge, its shape hardly."""
    return offtake.load("openai", [f"study.paths={paths}", "device=numpy"])


def save(found: Any, file: Path | None) -> None:
    """Writes results as JSON where a file is named."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def plain(deals: int = 12, quarters: int = 41) -> dict[str, Any]:
    """Take-or-pay contracts of one rung each in a world of correlated factors: what slips and what is
    delivered varies, but nothing ends a deal early, and there is no bust.
    """
    whole = portfolio(deals, quarters)
    for terms in whole["portfolio"]["deals"].values():
        del terms["cancel"], terms["default"], terms["ladder"]["first"]
        cloud = terms["pays"]["cloud"]
        for clause in ("prepay", "pass_through", "index"):
            del cloud[clause]
    del whole["world"]["regime"]
    for factor in whole["world"]["factors"].values():
        factor.pop("bust", None)
    return whole


def lasting(deals: int = 12, quarters: int = 41) -> dict[str, Any]:
    """`portfolio`, but over more than 41 quarters its contracts last to the end, at the same price a quarter.

    Contracts of 28 quarters would leave nothing to deliver, and rows of zeros to tally, from quarter 46 on.
    """
    whole = portfolio(deals, quarters)
    for terms in whole["portfolio"]["deals"].values():
        longer = max(1.0, (quarters - 13) / terms["term"])
        terms["term"] = round(longer * terms["term"])
        terms["pays"]["cloud"]["total"] *= longer
    return whole
