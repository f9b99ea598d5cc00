"""The buyer's cash, funding, spot purchases and priorities against recursions by hand."""

from typing import Any

import numpy as np
import pytest
from simple import deal, path, series, study

EXACT: Any = {"rtol": 3e-6, "atol": 3e-6}
RENT = {"leg": {"kind": "commitment", "total": 40.0}}
REVENUE = {"revenue": {"initial": 12.0, "growth": 0.8}}


def _by_hand(buyer, quarters=12):
    """Cash and funding of a buyer who pays 5 a quarter for 8 quarters out of 3·e^(0.2t) revenue."""
    cash, funding, rows = buyer.get("cash", 0.0), 0.0, []
    for t in range(quarters):
        revenue = 3.0 * np.exp(0.2 * t)
        interest = buyer.get("interest_rate", 0.0) / 4 * funding
        cash = cash * (1 + buyer.get("cash_yield", 0.0) / 4) + revenue * buyer.get("margin", 1.0)
        cash += -buyer.get("fixed_cost", 0.0) / 4 - (5.0 if t < 8 else 0.0) - interest
        floor, target = buyer.get("floor"), buyer.get("target")
        if floor is not None:
            drawn = max(0.0, floor - cash)
            funding, cash = funding + drawn, cash + drawn
            if target is not None:
                repaid = min(funding, max(0.0, cash - target))
                funding, cash = funding - repaid, cash - repaid
        rows.append((cash, funding))
    return np.array(rows).T


@pytest.mark.parametrize(
    "buyer",
    [
        {"cash": 3.0},
        {"cash": 3.0, "margin": 0.4, "fixed_cost": 2.0, "cash_yield": 0.04},
        {"cash": 3.0, "margin": 0.4, "floor": 1.0, "interest_rate": 0.2},
        {"cash": 3.0, "margin": 0.9, "floor": 1.0, "target": 4.0, "interest_rate": 0.2, "cash_yield": 0.03},
        {"cash": 0.0, "margin": 0.1, "floor": 0.0, "target": 0.0},
    ],
)
def test_cash_and_funding(buyer):
    # Revenue does not depend on what is served, so that the recursion needs no compute.
    replayed = path({"a": deal(pays=RENT)}, buyer={**buyer, "served_elasticity": 0.0}, factors=REVENUE)
    cash, funding = _by_hand(buyer)
    np.testing.assert_allclose(series(replayed, "cash"), cash, **EXACT)
    np.testing.assert_allclose(series(replayed, "funding"), funding, **EXACT)
    assert replayed.scalars["peak_funding"] == pytest.approx(funding.max(), rel=3e-6, abs=1e-6)
    assert replayed.scalars["min_cash"] == pytest.approx(cash.min(), rel=3e-6, abs=1e-6)


def test_distress_is_funding_above_the_limit():
    buyer = {"margin": 0.0, "floor": 0.0, "funding_limit": 14.9}
    replayed = path({"a": deal(pays=RENT)}, buyer=buyer, factors=REVENUE)
    assert replayed.scalars["first_distress"] == 2.0
    assert path({"a": deal()}, buyer=buyer).scalars["first_distress"] is None


def _market(demand, buyer=None, factors=None):
    return path(
        {"a": deal(term=100)}, buyer=buyer, factors={"demand": {"initial": demand}, **(factors or {})}
    )


def test_spot_buys_a_share_of_the_shortfall_up_to_its_cap():
    supply = {
        "market_supply": {"table": {"2026-01-01": 2.0, "2027-01-01": 4.0}},
        "spot_price": {"initial": 3.0},
    }
    for demand, bought in ((0.5, 0.0), (2.0, 0.6), (5.0, 2.4)):
        replayed = _market(demand, {"spot": {"share": 0.6}}, supply)
        np.testing.assert_allclose(series(replayed, "spot_cost"), bought * 3.0 * 2.1915, **EXACT)
        shortfall = max(demand - 1.0, 0.0) - bought
        np.testing.assert_allclose(series(replayed, "shortfall"), shortfall, rtol=1e-5, atol=1e-6)
    capped = series(_market(5.0, {"spot": {"share": 0.6, "cap": 0.7}}, supply), "spot_cost") / (3.0 * 2.1915)
    np.testing.assert_allclose(capped[:5], 0.7 * np.array([1, 1.25, 1.5, 1.75, 2.0]), **EXACT)


@pytest.mark.parametrize(
    ("priority", "training", "demand", "inference_served", "training_served"),
    [
        ("pro_rata", 0.4, 2.0, 0.5, 0.5),
        ("inference", 0.4, 2.0, 1 / 1.2, 0.0),
        ("inference", 0.4, 1.25, 1.0, 0.5),
        ("inference", 0.4, 0.8, 1.0, 1.0),
        ("inference", 0.0, 2.0, 0.5, 1.0),
        ("inference", 1.0, 2.0, 1.0, 0.5),
    ],
)
def test_who_is_served_first(priority, training, demand, inference_served, training_served):
    replayed = _market(demand, {"priority": priority, "training_share": training})
    np.testing.assert_allclose(series(replayed, "served_inference"), inference_served, **EXACT)
    np.testing.assert_allclose(series(replayed, "served_training"), training_served, **EXACT)
    np.testing.assert_allclose(series(replayed, "served"), min(1.0, 1 / demand), **EXACT)


@pytest.mark.parametrize("elasticity", [0.0, 0.5, 0.7, 1.0, 2.0])
def test_revenue_falls_with_what_is_not_served(elasticity):
    revenue = series(_market(4.0, {"served_elasticity": elasticity}), "revenue")
    np.testing.assert_allclose(revenue, 0.25**elasticity, **EXACT)


def test_no_compute_no_inference_no_revenue():
    replayed = path({"a": deal(start="2027-01-01")}, buyer={"served_elasticity": 0.7})
    assert replayed.quarters["revenue"][0] == 0.0
    assert replayed.quarters["unit_cost"][0] is None
    assert replayed.quarters["concentration"][0] is None
    assert replayed.quarters["utilisation"][0] == 1.0


def test_unit_cost_and_concentration():
    deals = {"a": deal(pays=RENT), "b": deal(supplier="other", ladder={"all": {"after": 0, "gw": 3.0}})}
    replayed = path(deals)
    assert replayed.quarters["unit_cost"][0] == pytest.approx(5.0 / 4.0 * 1e3 / 2191.5, rel=1e-6)
    assert replayed.quarters["concentration"][0] == pytest.approx((1 + 9) / 16, rel=1e-6)


def test_present_values_and_totals():
    buyer = {"discount_rate": 0.1, "margin": 0.5, "fixed_cost": 1.0, "spot": {"share": 0.5}}
    stake = {"stake": {"kind": "equity", "amount": 7.0}}
    replayed = path(
        {"a": deal(pays=RENT, receives=stake)},
        buyer=buyer,
        factors={"demand": {"initial": 2.0}, "spot_price": {"initial": 1.0}},
    )
    discount = 1.1 ** (-np.arange(12) / 4)
    spend = series(replayed, "spend")
    net = (
        0.5 * series(replayed, "revenue")
        - 0.25
        - spend
        - series(replayed, "spot_cost")
        + series(replayed, "inflows")
    )
    for metric, exact in (
        ("total_spend", spend.sum()),
        ("npv_spend", (spend * discount).sum()),
        ("total_inflows", 7.0),
        ("npv_net", (net * discount).sum()),
    ):
        assert replayed.scalars[metric] == pytest.approx(exact, rel=3e-6)


def test_reach_and_first_shortage():
    ladder = {"full": {"after": 4, "gw": 2.0}}
    replayed = path({"a": deal(ladder=ladder)}, settings={"reach": [0.25, 1.0, 2.0, 2.5]})
    firsts = {name: replayed.scalars[f"reach_{name}"] for name in ("0.25", "1", "2", "2.5")}
    assert firsts == {"0.25": 0.0, "1": 2.0, "2": 4.0, "2.5": None}
    assert replayed.scalars["first_shortage"] == 0.0
    assert path({"a": deal(term=100)}).scalars["first_shortage"] is None


def test_the_unit_cost_of_the_means_and_its_error():
    """Against the kept paths themselves: the ratio, and its jackknife standard error."""
    import offtake

    sizes = {"dist": "uniform", "low": 0.5, "high": 2.0}
    prices = {"dist": "lognormal", "median": 1.0, "sigma": 0.4}
    rent = {"leg": {"kind": "commitment", "total": 40.0, "price": prices}}
    settings = {"paths": 4000, "keep_paths": 4000}
    result = offtake.run(study({"a": deal(size=sizes, pays=rent)}, settings=settings))
    assert result.kept is not None
    spend, compute = (result.kept.quarter_values[name][:, 2].astype(float) for name in ("spend", "compute"))
    left_out = (spend.sum() - spend) / (compute.sum() - compute)
    jackknife = np.sqrt(3999 / 4000 * ((left_out - left_out.mean()) ** 2).sum())
    row = result.quarters.to_pandas().query("metric == 'unit_cost_of_means' and quarter == 2").iloc[0]
    per_hour = 1e3 / 2191.5
    assert row["mean"] == pytest.approx(per_hour * spend.sum() / compute.sum(), rel=1e-6)
    assert row["se"] == pytest.approx(per_hour * jackknife, rel=1e-2)
