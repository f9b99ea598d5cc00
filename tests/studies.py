"""Random valid studies that reach into every clause of the language, for tests that compare two engines.

`random_study(seed)` is deterministic and gives a mapping that `offtake.load` takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LAYERS = ("compute", "chips", "site")
SUPPLIERS = ("acme", "bolt", "core")
REGIONS = ("us", "eu", "global")
DATES = tuple(f"{year}-{month:02d}-{day:02d}" for year in range(2024, 2028) for month in (1, 4, 7, 10, 12)
              for day in (1, 15))  # fmt: skip

GRID = tuple(day for day in DATES if day[5:] in ("01-01", "04-01", "07-01", "10-01"))


class Dice:
    """Draws of a generator, rounded so that a study reads well.

    On the grid every date, slip, stretch, rung and term is a whole number of quarters, so that whatever can
    fall on the boundary of a quarter does.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self.grid = self.chance(0.3)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self._generator.random() < probability)

    def real(self, low: float, high: float, digits: int = 2) -> float:
        """Uniform, rounded."""
        return round(float(self._generator.uniform(low, high)), digits)

    def whole(self, low: int, high: int) -> int:
        """Uniform on low … high."""
        return int(self._generator.integers(low, high + 1))

    def one(self, options) -> Any:
        """One of several."""
        return options[self.whole(0, len(options) - 1)]


def random_study(seed: int) -> dict[str, Any]:
    """A whole study as a mapping."""
    dice = Dice(seed)
    quarters = dice.whole(8, 24)
    names = [f"deal{number}" for number in range(dice.whole(1, 6))]
    layers = {name: dice.one(LAYERS) for name in names}
    if len(names) > 1 and dice.chance(0.5):
        layers |= {names[0]: "site", names[1]: "chips"}
    deals = {name: _deal(dice, layers[name], quarters) for name in names}
    _tie_together(dice, deals)
    return {
        "portfolio": {
            "name": f"random{seed}",
            "start": "2025-10-01",
            "quarters": quarters,
            "buyer": _buyer(dice),
            "deals": deals,
        },
        "world": _world(dice),
        "study": {
            "paths": 1,
            "seed": dice.whole(0, 2**31),
            "reach": [0.5, 1.0, 2.0],
            "keep_paths": 16,
            "thresholds": [{"metric": "funding", "op": ">", "level": 5.0}],
        },
        "device": {"name": "numpy"},
    }


def _distribution(dice: Dice, low: float, high: float) -> Any:
    """A distribution with all its values between low and high."""
    middle = round((low + high) / 2, 3)
    form = dice.whole(0, 6)
    if form == 0:
        return middle
    if form == 1:
        return {"dist": "uniform", "low": low, "high": high}
    if form == 2:
        return {"dist": "triangular", "low": low, "mode": middle, "high": high}
    if form == 3:
        points = {"0.1": low, "0.5": middle, "0.9": high}
        return {"quantiles": points, "min": low, "max": high}
    if form == 4:
        return {"dist": "discrete", "values": {str(low): 1.0, str(middle): 2.0, str(high): 1.0}}
    if form == 5:
        loading = dice.real(-0.9, 0.9)
        shared = {"driver": dice.one(("strain", "luck")), "loading": loading}
        return {"dist": "pert", "low": low, "mode": middle, "high": high, **shared}
    uniform = {"dist": "uniform", "low": low, "high": high}
    return {"dist": "mixture", "parts": [{"weight": 1.0, "of": middle}, {"weight": 2.0, "of": uniform}]}


def _ladder(dice: Dice) -> dict[str, Any]:
    ladder, gw = {}, 0.0
    after = 0.0 if dice.chance(0.5) else dice.real(0.5, 3.0, 0 if dice.grid else 2)
    for number in range(dice.whole(1, 4)):
        gw = round(gw + dice.real(0.1, 1.0), 2)
        ladder[f"rung{number}"] = {"after": round(after, 2), "gw": gw}
        if dice.chance(0.3):
            ladder[f"rung{number}"]["follow_through"] = dice.real(0.5, 1.0)
        after += float(dice.whole(1, 4)) if dice.grid or dice.chance(0.5) else dice.real(0.5, 4.0)
    return ladder


def _deal(dice: Dice, layer: str, quarters: int) -> dict[str, Any]:
    deal: dict[str, Any] = {
        "supplier": dice.one(SUPPLIERS),
        "region": dice.one(REGIONS),
        "layer": layer,
        "start": dice.one(GRID if dice.grid else DATES),
        "ladder": _ladder(dice),
    }
    if layer != "site":
        deal["hardware"] = dice.one(("old", "new"))
    if dice.chance(0.5 if dice.grid else 0.3):
        deal["shape"] = "step"
    if layer != "chips" or dice.chance(0.5):
        first = next(iter(deal["ladder"].values()))["after"]
        whole = dice.grid or dice.chance(0.5)
        deal["term"] = float(dice.whole(4, 16)) if whole else dice.real(first + 1.5, 16.0)
    elif dice.chance(0.5):
        deal["life"] = dice.whole(2, 10)
    _timing(dice, deal)
    _hazards(dice, deal)
    _pays(dice, deal)
    _receives(dice, deal, quarters)
    return deal


def _timing(dice: Dice, deal: dict[str, Any]) -> None:
    if dice.grid:
        deal["slip"] = {"dist": "discrete", "values": {"-1": 1.0, "0": 3.0, "1": 2.0, "3": 1.0}}
        deal["stretch"] = dice.one((1.0, {"dist": "discrete", "values": {"1": 2.0, "2": 1.0}}))
    elif dice.chance(0.6):
        deal["slip"] = _distribution(dice, dice.one((0.0, -1.0)), dice.real(1.0, 6.0))
    if dice.chance(0.4):
        deal["size"] = _distribution(dice, dice.one((0.0, 0.5)), dice.real(1.0, 1.5))
    if not dice.grid and dice.chance(0.4):
        deal["stretch"] = _distribution(dice, 0.8, dice.real(1.0, 2.0))
    if dice.chance(0.3):
        deal["slip_loading"] = {"supply_chain": dice.real(0.0, 0.5), "region": dice.real(0.0, 0.5)}
    if dice.chance(0.3):
        deal["long_stop"] = dice.real(2.0, 5.0)
    if dice.chance(0.4):
        deal["late_credit"] = {
            "grace": dice.real(0.0, 2.0), "per_quarter": dice.real(0.01, 0.1), "max": dice.real(0.05, 0.3)
        }  # fmt: skip
    deal["deferrable"] = dice.chance(0.8)
    if deal["layer"] == "chips":
        deal["follows_sites"] = dice.chance(0.5)


def _hazards(dice: Dice, deal: dict[str, Any]) -> None:
    if dice.chance(0.35):
        deal["cancel"] = {
            "hazard": dice.real(0.02, 0.6), "bust_multiplier": dice.real(0.5, 4.0),
            "notice": dice.whole(0, 4), "fee": dice.real(0.0, 0.6),
        }  # fmt: skip
    if dice.chance(0.3):
        deal["default"] = {"hazard": dice.real(0.02, 0.4), "bust_multiplier": dice.real(0.5, 6.0)}
    if "term" in deal and dice.chance(0.4):
        deal["extension"] = {
            "when": dice.one(("always", "never", "shortage")), "threshold": dice.real(0.5, 1.5),
            "quarters": dice.whole(1, 8), "price": dice.real(0.5, 1.2),
        }  # fmt: skip


def _indexed(dice: Dice) -> dict[str, Any]:
    """The clauses of a price that follows something."""
    terms: dict[str, Any] = {"index": dice.one(("hardware_price", "steel", "ai_equity"))}
    if dice.chance(0.5):
        terms["escalator"] = dice.real(-0.05, 0.1)
    if dice.chance(0.5):
        terms["pass_through"] = dice.real(0.0, 1.0)
    if dice.chance(0.4):
        terms["index_cap"] = dice.real(0.9, 1.2)
    if dice.chance(0.5):
        terms["leverage"] = dice.real(0.0, 0.4)
    return terms


def _pays(dice: Dice, deal: dict[str, Any]) -> None:
    pays: dict[str, Any] = {}
    if "term" in deal and dice.chance(0.7):
        for number in range(dice.whole(1, 2)):
            pays[f"contract{number}"] = {
                "kind": "commitment", "total": dice.real(1.0, 40.0),
                "take_or_pay": dice.one((1.0, dice.real(0.0, 1.0))),
                "prepay": dice.one((0.0, dice.real(0.0, 0.4))), "profile": dice.one(("capacity", "flat")),
                "price": _distribution(dice, 0.8, 1.2), **_indexed(dice),
            }  # fmt: skip
    if dice.chance(0.5):
        pays["racks"] = {
            "kind": "purchase", "per_gw": dice.real(5.0, 30.0),
            "deposit": dice.one((0.0, dice.real(0.0, 1.0))),
            "lead": dice.whole(0, 5), **_indexed(dice),
        }  # fmt: skip
    if dice.chance(0.4):
        pays["space"] = {"kind": "hosting", "per_gw_year": dice.real(0.5, 3.0)}
    if dice.chance(0.5):
        pays["electricity"] = {"kind": "power", "pue": _distribution(dice, 1.05, 1.5)}
    deal["pays"] = pays


def _receives(dice: Dice, deal: dict[str, Any], quarters: int) -> None:
    receives: dict[str, Any] = {}
    if dice.chance(0.3):
        receives["stake"] = {"kind": "equity", "amount": dice.real(0.1, 5.0)}
        if dice.chance(0.5):
            receives["stake"]["conditional"] = {"gw": dice.real(0.1, 1.0), "amount": dice.real(0.1, 5.0)}
    if dice.chance(0.3):
        tranches = {f"t{n}": {"gw": dice.real(0.1, 2.0), "amount": dice.real(0.1, 5.0)} for n in range(3)}
        receives["financing"] = {"kind": "vendor_investment", "milestone_from": [], "tranches": tranches}
    if dice.chance(0.4):
        tranches = {
            f"w{n}": {
                "gw": dice.real(0.1, 1.5), "hurdle": dice.real(60.0, 200.0),
                "shares": dice.real(0.001, 0.05, 4), "strike": dice.real(0.01, 120.0),
            }
            for n in range(2)
        }  # fmt: skip
        month = dice.one(("01", "04", "08"))
        receives["warrant"] = {
            "kind": "warrants", "share": "acme_share", "expiry": f"{2026 + dice.whole(0, 6)}-{month}-01",
            "monetise": dice.one(("vest", "never")), "tranches": tranches,
        }  # fmt: skip
    deal["receives"] = receives


def _tie_together(dice: Dice, deals: dict[str, Any]) -> None:
    """Exclusive deals that block others, and milestones that count others' gigawatts."""
    names = list(deals)
    for position, name in enumerate(names[1:], start=1):
        before = [other for other in names[:position] if "term" in deals[other]]
        if before and dice.chance(0.3):
            blocker = dice.one(before)
            deals[blocker]["exclusive"] = True
            deals[name]["blocked_while"] = blocker
    for name, deal in deals.items():
        others = [other for other in names if other != name]
        if "financing" in deal["receives"] and others and dice.chance(0.6):
            deal["receives"]["financing"]["milestone_from"] = [dice.one(others)]


def _buyer(dice: Dice) -> dict[str, Any]:
    buyer: dict[str, Any] = {
        "cash": dice.real(-2.0, 20.0), "margin": dice.real(0.2, 1.0), "fixed_cost": dice.real(0.0, 4.0),
        "served_elasticity": dice.real(0.0, 1.5), "cash_yield": dice.real(0.0, 0.05),
        "interest_rate": dice.real(0.0, 0.12), "discount_rate": dice.real(0.0, 0.15),
        "training_share": dice.one((0.0, 1.0, dice.real(0.0, 1.0), dice.real(0.0, 1.0))),
        "priority": dice.one(("pro_rata", "inference")),
    }  # fmt: skip
    if dice.chance(0.7):
        buyer["floor"] = dice.real(-1.0, 4.0)
        buyer["funding_limit"] = dice.real(0.0, 10.0)
        buyer["on_distress"] = dice.one(("defer", "defer", "record"))
        if dice.chance(0.6):
            buyer["target"] = round(buyer["floor"] + dice.real(0.0, 5.0), 2)
    if dice.chance(0.5):
        buyer["spot"] = {"share": dice.real(0.0, 1.0)}
        if dice.chance(0.6):
            buyer["spot"]["cap"] = dice.real(0.0, 1.0)
    return buyer


def _growth(dice: Dice) -> Any:
    if dice.chance(0.5):
        return dice.real(-0.1, 0.6)
    return {"now": dice.real(0.0, 1.2), "later": dice.real(-0.1, 0.2), "half_life": dice.real(0.5, 3.0)}


def _factor(dice: Dice, initial: Any) -> dict[str, Any]:
    factor: dict[str, Any] = {"initial": initial, "growth": _growth(dice)}
    if dice.chance(0.8):
        factor["volatility"] = dice.real(0.05, 0.6)
    if dice.chance(0.5):
        factor["bust"] = {"growth": dice.real(-0.4, 0.1), "volatility": dice.real(0.0, 0.8)}
        if dice.chance(0.7):
            factor["bust"]["jump"] = dice.real(-0.5, 0.1)
        if dice.chance(0.3):
            del factor["bust"][dice.one(("growth", "volatility"))]
    return factor


def _world(dice: Dice) -> dict[str, Any]:
    factors: dict[str, Any] = {
        "demand": _factor(dice, _distribution(dice, 0.3, 3.0)),
        "revenue": _factor(dice, dice.real(5.0, 30.0)),
        "hardware_price": _factor(dice, 1.0),
        "acme_share": _factor(dice, _distribution(dice, 80.0, 120.0)),
        "steel": {"table": {"2024-06-15": 0.8, "2026-02-10": 1.0, "2027-05-01": dice.real(0.8, 1.4)}},
    }
    for name, initial in (("ai_equity", 1.0), ("spot_price", 2.0), ("market_supply", 1.0)):
        if dice.chance(0.6):
            factors[name] = _factor(dice, initial)
    if dice.chance(0.6):
        factors["power_price"] = {
            "initial": dice.real(40.0, 90.0), "volatility": dice.real(0.0, 0.4),
            "reversion": dice.real(0.0, 1.5),
            "level": dice.real(40.0, 90.0), "bust": {"jump": dice.real(-0.3, 0.3)},
        }  # fmt: skip
    if dice.chance(0.2):
        factors["demand"] = {"table": {"2025-10-01": dice.real(0.2, 1.0), "2029-01-01": dice.real(1.0, 4.0)}}
    world: dict[str, Any] = {
        "factors": factors,
        "slip_loading": {"supply_chain": dice.real(0.0, 0.5), "region": dice.real(0.0, 0.5)},
        "hardware": {
            "old": {"h100e_per_gw": dice.real(0.5, 1.0), "improvement": 0.0},
            "new": {"h100e_per_gw": dice.real(1.0, 2.0), "improvement": dice.real(-0.1, 0.5)},
        },
    }
    if dice.chance(0.5):
        world["hardware"]["new"]["reference"] = dice.one(DATES)
    if "table" not in factors["demand"] and dice.chance(0.7):
        world["correlation"] = {
            "demand": {"revenue": dice.real(-0.5, 0.8), "acme_share": dice.real(0.0, 0.4)},
            "acme_share": {"hardware_price": dice.real(-0.4, 0.4)},
        }
        if dice.chance(0.2):
            world["correlation"]["revenue"] = {"acme_share": -0.9}
            world["repair"] = "nearest"
    if dice.chance(0.6):
        world["regime"] = {"bust_rate": dice.real(0.0, 0.8), "recovery_rate": dice.real(0.2, 2.0)}
    return world
