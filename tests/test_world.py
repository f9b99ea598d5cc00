"""Factors and regime against their exact moments, quantiles and transition probabilities."""

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import norm
from simple import FALSE_ALARM, deal, path, quarter_date, series, statistic, study, z_score

import offtake
from offtake.correlation import correlation_matrix, nearest_correlation

MANY = {"paths": 65_536}
LAST = 11


def _run(factors=None, world=None, deals=None, **keywords):
    return offtake.run(study(deals or {"a": deal()}, factors=factors, world=world, settings=MANY, **keywords))


def _z(result, factor, exact, t=LAST):
    return z_score(result, "factor", exact, t, "factor", factor)


def test_growth_is_the_growth_of_the_mean():
    factors = {"demand": {"initial": 2.0, "growth": 0.3, "volatility": 0.4}}
    result = _run(factors)
    assert abs(_z(result, "demand", 2.0 * np.exp(0.3 * LAST / 4))) < FALSE_ALARM
    log_median = np.log(2.0) + (0.3 - 0.08) * LAST / 4
    for name, p in (("p05", 0.05), ("p50", 0.5), ("p95", 0.95)):
        exact = np.exp(log_median + 0.4 * np.sqrt(LAST / 4) * norm.ppf(p))
        found, se = (statistic(result, n, "factor", LAST, "factor", "demand") for n in (name, f"se_{name}"))
        assert abs(found - exact) < FALSE_ALARM * se + 0.002 * exact


def test_fading_growth_adds_up():
    growth = {"now": 1.0, "later": 0.1, "half_life": 1.5}
    result = _run({"demand": {"initial": 1.0, "growth": growth, "volatility": 0.2}})
    total = sum(0.1 + 0.9 * 2 ** (-t / 4 / 1.5) for t in range(LAST)) / 4
    assert abs(_z(result, "demand", np.exp(total))) < FALSE_ALARM


def test_without_volatility_the_random_model_is_the_deterministic_one():
    growth = {"now": 1.0, "later": 0.1, "half_life": 1.5}
    still = {"demand": {"initial": 1.3, "growth": growth}, "revenue": {"initial": 3.0, "growth": -0.2}}
    drawn = {**still, "extra": {"initial": 1.0, "volatility": 0.5}}
    tiny = {name: {**factor, "volatility": 1e-7} for name, factor in still.items()}
    for factors in (drawn, tiny):
        for metric in ("demand", "revenue", "cash"):
            np.testing.assert_allclose(
                series(path({"a": deal()}, factors=still), metric),
                series(path({"a": deal()}, factors=factors), metric),
                rtol=3e-6,
            )


def test_reversion_pulls_to_the_level():
    factors = {"power_price": {"initial": 100.0, "volatility": 0.3, "reversion": 1.2, "level": 50.0}}
    result = _run(factors)
    keep = (1 - 1.2 / 4) ** LAST
    log_mean = np.log(50.0) + keep * np.log(2.0)
    variance = 0.09 / 4 * (1 - (1 - 0.3) ** (2 * LAST)) / (1 - (1 - 0.3) ** 2)
    assert abs(_z(result, "power_price", np.exp(log_mean + variance / 2))) < FALSE_ALARM
    assert statistic(result, "p50", "factor", LAST, "factor", "power_price") == pytest.approx(
        np.exp(log_mean), rel=0.02
    )


def test_a_random_opening_value():
    factors = {"demand": {"initial": {"dist": "uniform", "low": 1.0, "high": 3.0}}}
    result = _run(factors)
    assert abs(_z(result, "demand", 2.0, 0)) < FALSE_ALARM
    assert abs(_z(result, "demand", 2.0)) < FALSE_ALARM


def test_tables_are_linear_between_and_flat_outside():
    table = {quarter_date(2): 1.0, quarter_date(6): 3.0}
    replayed = path({"a": deal()}, factors={"demand": {"table": table}})
    np.testing.assert_allclose(
        series(replayed, "demand"), np.interp(np.arange(12), [2, 6], [1, 3]), rtol=1e-6
    )


@pytest.mark.parametrize("rho", [0.6, -0.3])
def test_correlated_shocks(rho):
    """corr of the logs of two factors over a step, from kept paths."""
    factors = {"demand": {"volatility": 0.3}, "revenue": {"initial": 4.0, "volatility": 0.2}}
    world = {"correlation": {"demand": {"revenue": rho}}}
    made = study(
        {"a": deal()}, factors=factors, world=world, settings={"paths": 65_536, "keep_paths": 65_536}
    )
    kept = offtake.run(made).kept
    assert kept is not None
    demand, revenue = (
        np.log(kept.quarter_values[name][:, 1].astype(float)) for name in ("demand", "revenue")
    )
    served = np.log(kept.quarter_values["served"][:, 1].astype(float))
    found = np.corrcoef(demand, revenue - served)[0, 1]
    assert abs(np.arctanh(found) - np.arctanh(rho)) * np.sqrt(65_536 - 3) < FALSE_ALARM


def test_boom_and_bust():
    world = {"regime": {"bust_rate": 0.4, "recovery_rate": 1.0}}
    result = _run(world=world)
    to_bust, to_boom = 1 - np.exp(-0.1), 1 - np.exp(-0.25)
    share = 0.0
    for t in range(12):
        if t:
            assert abs(z_score(result, "bust", share, t)) < FALSE_ALARM
        else:
            assert statistic(result, "mean", "bust", 0) == 0.0
        share += (1 - share) * to_bust - share * to_boom


def test_a_bust_changes_growth_volatility_and_jumps_once():
    """In bust from quarter 1 on: one boom step with the jump, then bust steps."""
    world = {"regime": {"bust_rate": 1e4, "recovery_rate": 0.0}}
    bust = {"growth": -0.2, "volatility": 0.5, "jump": -0.3}
    result = _run({"demand": {"initial": 1.0, "growth": 0.4, "volatility": 0.1, "bust": bust}}, world)
    exact = np.exp(0.1 - 0.3 - 0.05 * (LAST - 1))
    assert abs(_z(result, "demand", exact)) < FALSE_ALARM
    assert abs(_z(result, "demand", np.exp(0.1 - 0.3), 1)) < FALSE_ALARM
    log_median = np.log(exact) - (0.01 + 0.25 * (LAST - 1)) / 8
    assert statistic(result, "p50", "factor", LAST, "factor", "demand") == pytest.approx(
        np.exp(log_median), rel=0.03
    )


def test_a_key_that_the_bust_leaves_out_keeps_the_booms_value():
    world = {"regime": {"bust_rate": 1e4, "recovery_rate": 0.0}}
    plain = {"demand": {"initial": 1.0, "growth": 0.4, "volatility": 0.3}}
    same = {"demand": {**plain["demand"], "bust": {}}}
    left, right = (series(path({"a": deal()}, factors=f, world=world), "demand") for f in (plain, same))
    np.testing.assert_array_equal(left, right)


def test_a_hurdle_on_one_date_is_reached_with_probability_phi_d2():
    share = {"share": {"initial": 100.0, "growth": 0.1, "volatility": 0.6}}
    warrant = {
        "kind": "warrants", "share": "share", "expiry": quarter_date(1), "monetise": "vest",
        "tranches": {"one": {"gw": 1.0, "hurdle": 130.0, "shares": 1.0, "strike": 0.0}},
    }  # fmt: skip
    result = _run(share, deals={"a": deal(receives={"w": warrant})})
    sigma = 0.6 / 2
    d2 = (np.log(100 / 130) + (0.1 - 0.18) / 4) / sigma
    reached = result.probability("warrant_value_vest", ">", 0.0)
    assert reached is not None
    assert reached.se is not None
    assert abs(reached - ndtr(d2)) < FALSE_ALARM * reached.se
    asset_or_nothing = 100 * np.exp(0.025) * ndtr(d2 + sigma)
    assert abs(z_score(result, "warrant_value_vest", asset_or_nothing)) < FALSE_ALARM


def test_slips_share_the_supply_chain_and_their_region():
    """corr(lateness) of normal slips is a within a region's pair plus b across the region."""
    loading = {"supply_chain": 0.3, "region": 0.25}
    slip = {"dist": "normal", "mean": 0.0, "sd": 0.5}
    deals = {
        name: deal(start=quarter_date(4), slip=slip, slip_loading=loading, region=region, supplier=name)
        for name, region in (("a", "us"), ("b", "us"), ("c", "eu"))
    }
    made = study(deals, settings={"paths": 65_536, "keep_paths": 65_536})
    kept = offtake.run(made).kept
    assert kept is not None
    late = np.array([kept.scalar_values[f"{name}.lateness"] for name in "abc"], float)
    found = np.corrcoef(late)
    for i, j, exact in ((0, 1, 0.55), (0, 2, 0.3), (1, 2, 0.3)):
        assert abs(np.arctanh(found[i, j]) - np.arctanh(exact)) * np.sqrt(65_533) < FALSE_ALARM


def test_a_driver_correlates_terms_of_different_kinds():
    driven = {"driver": "grid", "loading": 0.8}
    slip = {"dist": "normal", "mean": 1.0, "sd": 0.2, **driven}
    size = {"dist": "normal", "mean": 1.0, "sd": 0.1, "driver": "grid", "loading": -0.5}
    made = study({"a": deal(slip=slip, size=size)}, settings={"paths": 65_536, "keep_paths": 65_536})
    kept = offtake.run(made).kept
    assert kept is not None
    late, size_gw = kept.scalar_values["a.lateness"], kept.quarter_values["capacity_gw"][:, 4]
    found = np.corrcoef(late.astype(float), size_gw.astype(float))[0, 1]
    assert abs(np.arctanh(found) - np.arctanh(-0.4)) * np.sqrt(65_533) < FALSE_ALARM


def test_the_nearest_correlation_is_one():
    made = study(
        {"a": deal()},
        factors={"demand": {"volatility": 0.1}, "revenue": {"volatility": 0.1}, "x": {"volatility": 0.1}},
        world={
            "correlation": {"demand": {"revenue": 0.9, "x": 0.9}, "revenue": {"x": -0.9}},
            "repair": "nearest",
        },
    )
    _, matrix = correlation_matrix(made.world)
    repaired = nearest_correlation(matrix)
    assert np.linalg.eigvalsh(repaired)[0] > 0
    np.testing.assert_array_equal(np.diag(repaired), 1.0)
    assert offtake.run(made).manifest["status"] == "complete"
