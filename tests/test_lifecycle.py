"""When capacity arrives, stays and ends: ladders, waiting, events, sites, vintages, what is owed."""

from typing import Any

import numpy as np
import pytest
from simple import FALSE_ALARM, deal, path, quarter_date, series, statistic, study, z_score

import offtake

EXACT: Any = {"rtol": 2e-6, "atol": 1e-6}
RENT = {"leg": {"kind": "commitment", "total": 40.0}}
LADDER = {"first": {"after": 2, "gw": 1.0}, "full": {"after": 4, "gw": 3.0}}


def _capacity(terms, quarters=12, **keywords):
    return series(path({"a": deal(**terms)}, quarters=quarters, **keywords), "capacity_gw")


def test_a_linear_ladder_is_averaged_over_each_quarter():
    np.testing.assert_allclose(
        _capacity({"ladder": LADDER})[:9], [0.25, 0.75, 1.5, 2.5, 3, 3, 3, 3, 0], **EXACT
    )


def test_a_slip_moves_start_and_end_and_counts_part_quarters():
    terms = {"ladder": {"all": {"after": 0, "gw": 2.0}}, "slip": 1.25, "term": 4}
    np.testing.assert_allclose(_capacity(terms)[:7], [0, 1.5, 2, 2, 2, 0.5, 0], **EXACT)


def test_a_step_ladder_and_stretch():
    terms = {"ladder": LADDER, "shape": "step", "stretch": 1.5}
    np.testing.assert_allclose(_capacity(terms)[:9], [0, 0, 0, 1, 1, 1, 3, 3, 0], **EXACT)


def test_plateaus_are_exact():
    capacity = _capacity(
        {"ladder": {"a": {"after": 1, "gw": 0.1}, "b": {"after": 3, "gw": 0.7}}, "slip": 0.3, "term": 40}
    )
    assert len(set(capacity[4:].tolist())) == 1


def test_less_than_10_kw_counts_as_nothing_but_is_charged():
    tiny = {"all": {"after": 0, "gw": 9e-6}}
    replayed = path({"a": deal(ladder=tiny, pays=RENT)})
    assert series(replayed, "capacity_gw").sum() == 0.0
    assert series(replayed, "spend").sum() == pytest.approx(40.0, rel=1e-5)


def test_rungs_happen_with_the_product_of_their_probabilities():
    ladder = {
        "one": {"after": 0, "gw": 1.0, "follow_through": 0.8},
        "two": {"after": 1, "gw": 2.0, "follow_through": 0.5},
        "three": {"after": 2, "gw": 3.0, "follow_through": 0.25},
    }
    result = offtake.run(
        study({"a": deal(ladder=ladder, shape="step", pays=RENT)}, settings={"paths": 65_536})
    )
    assert abs(z_score(result, "realised_rungs", 0.8 + 0.4 + 0.1, scope="deal", item="a")) < FALSE_ALARM
    assert abs(z_score(result, "capacity_gw", 1.3, 5)) < FALSE_ALARM
    # What is not delivered is not charged: 8, 7 and 6 quarters of a GW out of 21 planned.
    assert abs(z_score(result, "total_spend", 40.0 / 21 * (0.8 * 8 + 0.4 * 7 + 0.1 * 6))) < FALSE_ALARM


def test_a_uniform_slip_through_a_ramp():
    """Slip U(0, 2) through a 2-quarter ramp to 1 GW: E[capacity] is a convolution of clamped ramps."""
    slip = {"dist": "uniform", "low": 0.0, "high": 2.0}
    ladder = {"all": {"after": 2, "gw": 1.0}}
    result = offtake.run(study({"a": deal(slip=slip, ladder=ladder)}, settings={"paths": 65_536}))
    grid = (np.arange(4000) + 0.5) / 4000
    for t in range(6):
        time, start = t + grid[:, None], 2 * grid[None, ::10]
        exact = np.clip((time - start) / 2, 0, 1).mean()
        mean, se = (statistic(result, name, "capacity_gw", t) for name in ("mean", "se"))
        assert abs(mean - exact) < FALSE_ALARM * se + 1e-4


@pytest.mark.parametrize(("event", "ended"), [("default", "ended_default"), ("cancel", "ended_cancelled")])
def test_survival(event, ended):
    clause = {event: {"hazard": 0.2}}
    result = offtake.run(study({"a": deal(term=100, **clause)}, settings={"paths": 65_536}))
    assert abs(z_score(result, ended, 1 - np.exp(-0.2 * 12 / 4), scope="deal", item="a")) < FALSE_ALARM
    for t in (0, 5, 11):
        assert abs(z_score(result, "capacity_gw", np.exp(-0.2 * (t + 1) / 4), t)) < FALSE_ALARM


def test_the_hazard_is_multiplied_in_a_bust():
    """A regime that is in bust from quarter 1 on: hazard h in quarter 0, 3h after."""
    world = {"regime": {"bust_rate": 1e4, "recovery_rate": 0.0}}
    clause = {"default": {"hazard": 0.2, "bust_multiplier": 3.0}}
    result = offtake.run(study({"a": deal(term=100, **clause)}, world=world, settings={"paths": 65_536}))
    for t in (0, 4, 11):
        exact = np.exp(-0.05 * (1 + 3 * t))
        assert abs(z_score(result, "capacity_gw", exact, t)) < FALSE_ALARM


def test_a_fee_is_a_share_of_what_is_still_owed():
    """Hazard so high that everything is cancelled in quarter 0, to end after 3 quarters of 8."""
    cancel = {"hazard": 1e6, "notice": 3, "fee": 0.5}
    leg = {"kind": "commitment", "total": 40.0, "take_or_pay": 0.8, "prepay": 0.25, "escalator": 0.5}
    spend = series(path({"a": deal(cancel=cancel, pays={"leg": leg})}), "spend")
    charge = 0.75 * 5.0 * 1.5 ** (np.arange(3) / 4)
    fee = 0.5 * 0.8 * 0.75 * 40.0 * 5 / 8
    np.testing.assert_allclose(spend[:5], [10 + charge[0], charge[1], charge[2], fee, 0], **EXACT)


def test_default_wins_over_cancellation_and_pays_no_fee():
    clauses = {"cancel": {"hazard": 1e6, "fee": 0.5}, "default": {"hazard": 1e6}}
    replayed = path({"a": deal(pays=RENT, **clauses)})
    assert series(replayed, "spend").sum() == 0.0
    assert replayed.scalars["a.ended_default"] == 1.0
    assert replayed.scalars["a.ended_cancelled"] == 0.0


def test_owned_hardware_stays_when_its_deal_ends():
    hall = deal(layer="site", hardware=None, term=100, ladder={"all": {"after": 0, "gw": 9.0}})
    chips = deal(
        layer="chips", term=None, ladder={"all": {"after": 8, "gw": 4.0}}, cancel={"hazard": 1e6, "notice": 3}
    )
    capacity = series(path({"chips": chips, "hall": hall}), "capacity_gw")
    np.testing.assert_allclose(capacity[:6], [0.25, 0.75, 1.25, 1.5, 1.5, 1.5], **EXACT)


def test_long_stop_ends_a_deal_at_once():
    for slip, ended in ((2.0, 0.0), (2.001, 1.0)):
        replayed = path({"a": deal(slip=slip, long_stop=2, pays=RENT)})
        assert replayed.scalars["a.ended_long_stop"] == ended
        assert (series(replayed, "spend").sum() == 0.0) == bool(ended)


def test_a_term_inside_the_horizon_ends():
    assert path({"a": deal(term=8)}).scalars["a.ended_term"] == 1.0
    assert path({"a": deal(term=13)}).scalars["a.ended_term"] == 0.0


EXTENSION = {"when": "always", "quarters": 2, "price": 0.5, "threshold": 1.0}


def test_an_extension_runs_on_at_its_price_with_nothing_prepaid():
    leg = {"kind": "commitment", "total": 40.0, "prepay": 0.2}
    spend = series(path({"a": deal(extension=EXTENSION, pays={"leg": leg})}), "spend")
    np.testing.assert_allclose(spend[:11], [12, *[4.0] * 7, 2.5, 2.5, 0], **EXACT)


@pytest.mark.parametrize(
    ("demand", "threshold", "extended"), [(1.0, 1.0, False), (1.01, 1.0, True), (1.01, 0.9, False)]
)
def test_an_extension_on_shortage_looks_at_compute_without_the_deal(demand, threshold, extended):
    extension = {**EXTENSION, "when": "shortage", "threshold": threshold}
    deals = {"a": deal(extension=extension), "b": deal(term=100)}
    capacity = series(path(deals, factors={"demand": {"initial": demand}}), "capacity_gw")
    np.testing.assert_allclose(capacity[8:11], [1 + extended, 1 + extended, 1], **EXACT)


def test_an_extension_with_a_part_quarter():
    extension = {**EXTENSION, "when": "shortage"}
    spend = series(
        path({"a": deal(extension=extension, slip=0.25, pays=RENT)}, factors={"demand": {"initial": 9.0}}),
        "spend",
    )
    np.testing.assert_allclose(spend[7:12], [5, 1.25 + 0.75 * 2.5, 2.5, 0.25 * 2.5, 0], **EXACT)


def test_an_exclusive_deal_blocks_until_its_service_ends():
    deals = {"a": deal(exclusive=True, term=3.5), "b": deal(blocked_while="a", term=4)}
    replayed = path(deals)
    np.testing.assert_allclose(series(replayed, "capacity_gw")[:9], [1, 1, 1, 1, 1, 1, 1, 0.5, 0], **EXACT)
    assert replayed.scalars["b.lateness"] == pytest.approx(3.5)


def test_a_chain_of_exclusive_deals():
    deals = {
        "c": deal(exclusive=True, term=2),
        "b": deal(blocked_while="c", exclusive=True, term=2, start=quarter_date(1)),
        "a": deal(blocked_while="b", term=2),
    }
    np.testing.assert_allclose(series(path(deals), "capacity_gw")[:8], [1, 1, 1, 1, 1, 1, 0, 0], **EXACT)


def test_a_blocker_that_ends_early_frees_the_other():
    deals = {
        "a": deal(exclusive=True, cancel={"hazard": 1e6, "notice": 2}),
        "b": deal(blocked_while="a", term=4),
    }
    np.testing.assert_allclose(series(path(deals), "capacity_gw")[:8], [1, 1, 1, 1, 1, 1, 0, 0], **EXACT)


def _site(gw, **terms):
    return deal(layer="site", hardware=None, term=100, ladder={"all": {"after": 0, "gw": gw}}, **terms)


def test_capacity_is_the_lesser_of_chips_and_sites():
    deals = {
        "x": deal(layer="chips", term=None, ladder={"all": {"after": 4, "gw": 4.0}}),
        "y": deal(layer="chips", term=None, ladder={"all": {"after": 0, "gw": 1.0}}),
        "hall": _site(2.0),
        "cloud": deal(term=100),
    }
    replayed = path(deals)
    chips = np.clip([0.5, 1.5, 2.5, 3.5, 4, 4], 0, None) + 1
    np.testing.assert_allclose(series(replayed, "capacity_gw")[:6], np.minimum(chips, 2.0) + 1, **EXACT)
    np.testing.assert_allclose(series(replayed, "delivered_gw")[:6], chips + 2 + 1, **EXACT)


def test_chips_wait_for_sites_and_their_start_moves_while_unstarted():
    chips = deal(layer="chips", term=None, follows_sites=True, ladder={"all": {"after": 2, "gw": 2.0}})
    later = deal(layer="chips", term=None, follows_sites=True, start=quarter_date(2))
    deals = {"chips": chips, "later": later, "hall": _site(1.0), "more": _site(9.0, start=quarter_date(4))}
    replayed = path(deals)
    # Means 0.5, 1.5: after quarter 1 chips exceed the GW of sites until the end of quarter 4.
    np.testing.assert_allclose(
        series(replayed, "delivered_gw")[:7] - [1, 1, 1, 1, 10, 10, 10], [0.5, 1.5, 2, 2, 2, 3, 3], **EXACT
    )
    assert replayed.scalars["later.lateness"] == 3.0
    assert replayed.scalars["chips.lateness"] == 0.0


def test_a_buyer_in_distress_defers_what_can_be_deferred():
    buyer = {"cash": 0.0, "floor": 0.0, "funding_limit": 6.0, "on_distress": "defer", "margin": 0.0}
    factors = {"revenue": {"initial": 1e-6}}
    ramp = {"all": {"after": 4, "gw": 4.0}}
    deals = {
        "a": deal(pays=RENT, deferrable=False),
        "b": deal(ladder=ramp, term=6),
        "c": deal(start=quarter_date(6), slip=0.5, term=2),
    }
    replayed = path(deals, buyer=buyer, factors=factors)
    np.testing.assert_allclose(series(replayed, "funding")[:3], [5, 10, 15], **EXACT)
    assert replayed.scalars["first_distress"] == 1.0
    # From quarter 2 on the ramp stands still at 2 GW and c never starts; b's term runs on.
    np.testing.assert_allclose(series(replayed, "capacity_gw")[:8], [1.5, 2.5, 3, 3, 3, 3, 1, 1], **EXACT)
    assert replayed.scalars["c.lateness"] == pytest.approx(0.5 + 10)


def test_retirement_takes_away_what_was_delivered_life_quarters_ago():
    chips = deal(layer="chips", term=None, life=3, ladder={"all": {"after": 2, "gw": 2.0}})
    capacity = series(path({"chips": chips, "hall": _site(9.0)}), "capacity_gw")
    np.testing.assert_allclose(capacity[:7], [0.5, 1.5, 2, 1.5, 0.5, 0, 0], **EXACT)


IMPROVING = {"hardware": {"chip": {"h100e_per_gw": 1.0, "improvement": 0.4, "reference": quarter_date(0)}}}


def test_each_quarters_deliveries_carry_their_vintage():
    compute = series(path({"a": deal(ladder={"all": {"after": 2, "gw": 2.0}})}, world=IMPROVING), "compute")
    second = np.exp(0.1)
    np.testing.assert_allclose(compute[:9], [0.5, 1 + 0.5 * second, *[1 + second] * 6, 0], **EXACT)


def test_vintages_from_before_quarter_0():
    fleet = deal(layer="chips", term=None, start="2025-07-01", ladder={"all": {"after": 4, "gw": 4.0}})
    compute = series(path({"fleet": fleet, "hall": _site(9.0)}, world=IMPROVING), "compute")
    vintage = np.exp(0.1 * np.arange(-2, 2))
    np.testing.assert_allclose(
        compute[:3],
        [vintage[:2].sum() + 0.5 * vintage[2], vintage[:3].sum() + 0.5 * vintage[3], vintage.sum()],
        **EXACT,
    )


def test_retired_compute_is_what_was_installed_then():
    fleet = deal(
        layer="chips",
        term=None,
        life=4,
        start="2025-07-01",
        shape="step",
        ladder={
            "one": {"after": 0, "gw": 1.0},
            "two": {"after": 3, "gw": 3.0},
        },
    )
    compute = series(path({"fleet": fleet, "hall": _site(9.0)}, world=IMPROVING), "compute")
    old, new = np.exp(-0.2), 2 * np.exp(0.1)
    np.testing.assert_allclose(compute[:6], [old, old + new, new, new, new, 0], **EXACT)


def test_what_is_still_owed():
    leg = {"kind": "commitment", "total": 40.0, "take_or_pay": 0.5, "prepay": 0.25}
    owed = series(path({"a": deal(start=quarter_date(1), pays={"leg": leg})}), "commitments")
    np.testing.assert_allclose(owed[:10], [15 + 10, *(15 * np.arange(7, -1, -1) / 8), 0], **EXACT)


def test_what_is_still_owed_on_a_ramp_with_a_slip():
    leg = {"kind": "commitment", "total": 24.0}
    terms = {"ladder": {"full": {"after": 4, "gw": 2.0}}, "slip": 0.5}
    replayed = path({"a": deal(pays={"leg": leg}, **terms)})
    paid = np.cumsum(series(replayed, "spend"))
    np.testing.assert_allclose(series(replayed, "commitments"), 24.0 - paid, rtol=1e-5, atol=1e-4)


def test_delivered_share_is_of_what_was_planned_in_the_horizon():
    assert path({"a": deal(slip=2.0)}).scalars["a.delivered_share"] == pytest.approx(1.0)
    assert path({"a": deal(slip=6.0)}).scalars["a.delivered_share"] == pytest.approx(6 / 8)
    assert path({"a": deal(slip=6.0, size=3.0)}).scalars["a.delivered_share"] == pytest.approx(6 / 8)
    assert path({"a": deal(start="2040-01-01")}).scalars["a.delivered_share"] is None


def test_a_deal_that_does_not_happen_reaches_no_milestone_of_others():
    tranches = {"one": {"gw": 1.0, "amount": 10.0}}
    received = {"money": {"kind": "vendor_investment", "tranches": tranches, "milestone_from": ["b"]}}
    for slip, amount in ((1.0, 10.0), (3.0, 0.0)):
        deals = {"a": deal(slip=slip, long_stop=2, receives=received), "b": deal(supplier="other")}
        assert series(path(deals), "inflows").sum() == pytest.approx(amount)
