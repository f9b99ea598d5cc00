"""Every payment and receipt against its closed form, on deals that nothing disturbs."""

from typing import Any

import numpy as np
import pytest
from simple import deal, path, quarter_date, series

EXACT: Any = {"rtol": 2e-6, "atol": 1e-6}


def _spend(leg, quarters=12, **keywords):
    terms = keywords.pop("terms", {})
    return series(path({"a": deal(pays={"leg": leg}, **terms)}, quarters=quarters, **keywords), "spend")


def test_flat_capacity_spreads_a_commitment_evenly():
    spend = _spend({"kind": "commitment", "total": 40.0})
    np.testing.assert_allclose(spend, [5.0] * 8 + [0.0] * 4, **EXACT)


def test_a_ramp_weighs_the_commitment_by_its_area():
    ladder = {"full": {"after": 4, "gw": 2.0}}
    spend = _spend({"kind": "commitment", "total": 24.0}, terms={"ladder": ladder})
    # ∫₀⁸ of the ramp to 2 GW over 4 quarters is 4 + 8 = 12 GW-quarters, so 2 bn per GW-quarter.
    np.testing.assert_allclose(spend[:9], [0.5, 1.5, 2.5, 3.5, 4, 4, 4, 4, 0], **EXACT)


def test_the_flat_profile_ignores_the_ramp_and_pro_rates_part_quarters():
    terms = {"ladder": {"full": {"after": 4, "gw": 2.0}}, "slip": 0.5}
    spend = _spend({"kind": "commitment", "total": 40.0, "profile": "flat"}, terms=terms)
    np.testing.assert_allclose(spend[:10], [2.5, *[5.0] * 7, 2.5, 0.0], **EXACT)


def test_prepayment_is_due_in_the_start_quarter():
    spend = _spend({"kind": "commitment", "total": 40.0, "prepay": 0.25}, terms={"start": quarter_date(1)})
    np.testing.assert_allclose(spend[:10], [0, 13.75, *[3.75] * 7, 0], **EXACT)


def test_money_due_before_quarter_0_is_history():
    spend = _spend({"kind": "commitment", "total": 40.0, "prepay": 0.5}, terms={"start": "2025-07-01"})
    np.testing.assert_allclose(spend, [2.5] * 6 + [0.0] * 6, **EXACT)


@pytest.mark.parametrize(("demand", "use"), [(0.5, 0.5), (1.0, 1.0), (3.0, 1.0), (1e-6, 1e-6)])
def test_take_or_pay(demand, use):
    leg = {"kind": "commitment", "total": 40.0, "take_or_pay": 0.6}
    spend = _spend(leg, factors={"demand": {"initial": demand}})
    np.testing.assert_allclose(spend[:8], 5.0 * (0.6 + 0.4 * use), **EXACT)


def test_escalator_counts_years_from_own_start():
    spend = _spend({"kind": "commitment", "total": 40.0, "escalator": 0.08}, terms={"start": quarter_date(2)})
    np.testing.assert_allclose(spend[2:10], 5.0 * 1.08 ** (np.arange(8) / 4), **EXACT)


STEEL = {"steel": {"table": {"2026-01-01": 2.0, "2027-01-01": 4.0, "2028-01-01": 1.0}}}
RATIO = np.interp(np.arange(12), [0, 4, 8], [1.0, 2.0, 0.5])


def test_pass_through_follows_its_factor():
    leg = {"kind": "commitment", "total": 40.0, "pass_through": 0.25, "index": "steel"}
    np.testing.assert_allclose(_spend(leg, factors=STEEL)[:8], 5.0 * (0.75 + 0.25 * RATIO[:8]), **EXACT)


def test_an_index_cap_lets_prices_follow_down_only():
    leg = {"kind": "commitment", "total": 40.0, "pass_through": 1.0, "index": "steel", "index_cap": 1.0}
    np.testing.assert_allclose(_spend(leg, factors=STEEL)[:8], 5.0 * np.minimum(RATIO[:8], 1.0), **EXACT)


def test_price_multiplies_charges_and_prepayment():
    leg = {"kind": "commitment", "total": 40.0, "price": 1.5, "prepay": 0.2}
    assert _spend(leg).sum() == pytest.approx(60.0, rel=1e-6)


def test_late_credit_after_the_grace():
    credit = {"grace": 1, "per_quarter": 0.05, "max": 0.12}
    leg = {"kind": "commitment", "total": 40.0}
    for slip, price in ((1.0, 1.0), (2.0, 0.95), (3.0, 0.90), (4.0, 0.88)):
        spend = _spend(leg, quarters=16, terms={"slip": slip, "late_credit": credit})
        assert spend.sum() == pytest.approx(40.0 * price, rel=1e-6)


OWNED = {
    "layer": "chips",
    "term": None,
    "ladder": {"first": {"after": 2, "gw": 1.0}, "all": {"after": 4, "gw": 2.0}},
}


def _chips(leg, quarters=8, **keywords):
    site = deal(layer="site", hardware=None, term=100, ladder={"all": {"after": 0, "gw": 5.0}})
    chips = deal(**{**OWNED, **keywords.pop("terms", {})}, pays={"leg": leg})
    return series(path({"chips": chips, "halls": site}, quarters=quarters, **keywords), "spend")


def test_a_purchase_is_paid_on_delivery():
    np.testing.assert_allclose(
        _chips({"kind": "purchase", "per_gw": 10.0}), [5, 5, 5, 5, 0, 0, 0, 0], **EXACT
    )


def test_a_purchase_steps_with_a_step_ladder():
    spend = _chips({"kind": "purchase", "per_gw": 10.0}, terms={"shape": "step"})
    np.testing.assert_allclose(spend, [0, 0, 10, 0, 10, 0, 0, 0], **EXACT)


def test_a_purchase_follows_its_index_by_default():
    leg = {"kind": "purchase", "per_gw": 10.0, "index": "steel"}
    np.testing.assert_allclose(_chips(leg, factors=STEEL)[:4], 5.0 * RATIO[:4], **EXACT)


def test_deposits_are_due_ahead_and_not_before_quarter_0():
    leg = {"kind": "purchase", "per_gw": 10.0, "deposit": 0.4, "lead": 2}
    # Deliveries of 0.5 GW in quarters 0–3: the deposits of the first three fall in quarter 0, then one more.
    np.testing.assert_allclose(_chips(leg), [9, 5, 3, 3, 0, 0, 0, 0], **EXACT)
    later = _chips(leg, terms={"start": quarter_date(3)})
    np.testing.assert_allclose(later, [0, 2, 2, 5, 5, 3, 3, 0], **EXACT)


def test_a_deposit_pays_that_dates_index():
    leg = {"kind": "purchase", "per_gw": 10.0, "deposit": 1.0, "lead": 2, "index": "steel"}
    spend = _chips(leg, terms={"start": quarter_date(2)}, factors=STEEL)
    np.testing.assert_allclose(spend, [*(5.0 * RATIO[:4]), 0, 0, 0, 0], **EXACT)


def test_size_scales_purchases_but_never_commitments():
    spend = _chips({"kind": "purchase", "per_gw": 10.0}, terms={"size": 1.5})
    np.testing.assert_allclose(spend[:4], 7.5, **EXACT)
    spend = _spend({"kind": "commitment", "total": 40.0}, terms={"size": 1.5})
    np.testing.assert_allclose(spend[:8], 5.0, **EXACT)


def test_hosting_is_paid_on_delivered_gw():
    hall = deal(
        layer="site",
        hardware=None,
        ladder={"all": {"after": 2, "gw": 1.0}},
        pays={"rent": {"kind": "hosting", "per_gw_year": 4.0}},
    )
    np.testing.assert_allclose(
        series(path({"hall": hall}), "spend")[:9], [0.25, 0.75, *[1.0] * 6, 0], **EXACT
    )


def test_power_of_a_service_and_of_chips_in_their_halls():
    per_gw = 8766 / 4 * 1e-6 * 50.0 * 1.3
    factors = {"power_price": {"initial": 50.0}}
    leg = {"kind": "power", "pue": 1.3}
    spend = series(path({"a": deal(pays={"power": leg})}, factors=factors), "power_cost")
    np.testing.assert_allclose(spend[:9], [*[per_gw] * 8, 0], **EXACT)
    chips = deal(**{**OWNED, "ladder": {"all": {"after": 0, "gw": 3.0}}}, pays={"power": leg})
    hall = deal(layer="site", hardware=None, ladder={"all": {"after": 0, "gw": 2.0}})
    spend = series(path({"chips": chips, "hall": hall}, factors=factors), "power_cost")
    np.testing.assert_allclose(spend[:9], [*[2 * per_gw] * 8, 0], **EXACT)
    hall = {**hall, "pays": {"power": leg}}
    chips = {**chips, "pays": {}, "ladder": {"all": {"after": 0, "gw": 1.0}}}
    spend = series(path({"chips": chips, "hall": hall}, factors=factors), "power_cost")
    np.testing.assert_allclose(spend[:9], [*[per_gw] * 8, 0], **EXACT)


def test_leverage_discounts_by_the_concentration_of_the_quarter_before():
    leg = {"kind": "commitment", "total": 40.0, "leverage": 0.2}
    deals = {"a": deal(pays={"leg": leg}), "b": deal(supplier="other", start=quarter_date(3))}
    spend = series(path(deals), "spend")
    # HHI is 1 while one supplier is online, then ½; quarter 3 still sees quarter 2.
    np.testing.assert_allclose(spend[:8], [*[5.0] * 4, *[4.5] * 4], **EXACT)


def test_vendor_investment_pays_each_tranche_once_at_its_milestone():
    tranches = {"one": {"gw": 1.0, "amount": 10.0}, "two": {"gw": 2.0, "amount": 7.0}}
    ladder = {"full": {"after": 4, "gw": 2.0}}
    received = {"money": {"kind": "vendor_investment", "tranches": tranches}}
    inflows = series(path({"a": deal(ladder=ladder, receives=received)}), "inflows")
    # Quarter means 0.25, 0.75, 1.25, 1.75, 2: one GW is passed in quarter 2, two are reached in quarter 4.
    np.testing.assert_allclose(inflows[:6], [0, 0, 10, 0, 7, 0], **EXACT)


def test_milestones_count_the_deals_they_name():
    tranches = {"one": {"gw": 2.5, "amount": 10.0}}
    received = {"money": {"kind": "vendor_investment", "tranches": tranches, "milestone_from": ["b", "hall"]}}
    deals = {
        "a": deal(receives=received),
        "b": deal(ladder={"all": {"after": 0, "gw": 1.5}}, start=quarter_date(3)),
        "hall": deal(layer="site", hardware=None, ladder={"all": {"after": 0, "gw": 9.0}}),
    }
    inflows = series(path(deals), "inflows")
    np.testing.assert_allclose(inflows[:5], [0, 0, 0, 10, 0], **EXACT)


def test_a_milestone_passed_before_quarter_0_is_history():
    tranches = {"one": {"gw": 1.0, "amount": 10.0}, "two": {"gw": 2.0, "amount": 5.0}}
    ladder = {"one": {"after": 0, "gw": 1.0}, "two": {"after": 4, "gw": 2.0}}
    received = {"money": {"kind": "vendor_investment", "tranches": tranches}}
    inflows = series(path({"a": deal(start="2025-07-01", ladder=ladder, receives=received)}), "inflows")
    np.testing.assert_allclose(inflows[:4], [0, 0, 5, 0], **EXACT)


def test_equity_at_the_start_and_on_a_milestone():
    stake = {"kind": "equity", "amount": 10.0, "conditional": {"gw": 1.0, "amount": 4.0}}
    terms = {
        "start": quarter_date(1),
        "ladder": {"full": {"after": 2, "gw": 1.0}},
        "receives": {"stake": stake},
    }
    np.testing.assert_allclose(series(path({"a": deal(**terms)}), "inflows")[:5], [0, 10, 0, 4, 0], **EXACT)


SHARE = {"share": {"table": {"2026-01-01": 100.0, "2027-01-01": 300.0, "2028-01-01": 200.0}}}


LAST = quarter_date(11)


def _warrant(expiry=LAST, monetise="never", **tranche):
    tranches = {"one": {"gw": 1.0, "hurdle": 200.0, "shares": 0.5, "strike": 50.0, **tranche}}
    return {
        "kind": "warrants",
        "share": "share",
        "expiry": expiry,
        "monetise": monetise,
        "tranches": tranches,
    }


@pytest.mark.parametrize(
    ("warrant", "vest", "horizon"),
    [
        (_warrant(), 75.0, 0.5 * 150.0),  # hurdle 200 at quarter 2; at the end the share stands at 200
        (_warrant(hurdle=50.0), 25.0, 0.5 * 150.0),
        (_warrant(gw=1.5), 0.0, 0.0),
        (_warrant(hurdle=301.0), 0.0, 0.0),
        (_warrant(expiry=quarter_date(1)), 0.0, 0.0),
        (_warrant(expiry=quarter_date(2)), 75.0, 75.0),
        (_warrant(strike=250.0), 0.0, 0.0),
    ],
)
def test_warrants(warrant, vest, horizon):
    replayed = path({"a": deal(receives={"w": warrant})}, factors=SHARE)
    assert replayed.scalars["warrant_value_vest"] == pytest.approx(vest, rel=1e-5)
    assert replayed.scalars["warrant_value_horizon"] == pytest.approx(horizon, rel=1e-5)
    assert series(replayed, "inflows").sum() == 0.0


def test_monetised_warrants_are_cash_when_they_vest():
    replayed = path({"a": deal(receives={"w": _warrant(monetise="vest")})}, factors=SHARE)
    np.testing.assert_allclose(series(replayed, "inflows")[:4], [0, 0, 75, 0], rtol=1e-5)


def test_a_hurdle_once_reached_stays_reached():
    ladder = {"all": {"after": 7, "gw": 1.0}}
    warrant = _warrant(hurdle=290.0, gw=1.0)
    replayed = path({"a": deal(ladder=ladder, term=12, receives={"w": warrant})}, factors=SHARE)
    assert replayed.scalars["warrant_value_vest"] == pytest.approx(0.5 * (225.0 - 50.0), rel=1e-5)
