"""What must not change an answer, and what must change it exactly: blocks, workers, order, scale, horizon."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simple import deal, path, quarter_date, series, statistic, study

import offtake
from offtake.blocks import BLOCK_PATHS, cut
from offtake.errors import InputError, NumericalError
from offtake.study import DeviceChoice, ExecutorChoice

SLIP = {"quantiles": {0.1: 0.0, 0.5: 1.0, 0.9: 4.0}, "min": 0.0}
CLAUSES = {
    "slip": SLIP,
    "cancel": {"hazard": 0.05, "bust_multiplier": 3.0, "notice": 1, "fee": 0.3},
    "default": {"hazard": 0.02},
    "size": {"dist": "pert", "low": 0.5, "mode": 1.0, "high": 2.0},
}
WORLD = {"regime": {"bust_rate": 0.2, "recovery_rate": 0.6}}
FACTORS = {
    "demand": {"initial": 2.0, "growth": 0.3, "volatility": 0.3, "bust": {"growth": -0.2, "jump": -0.2}},
    "revenue": {"initial": 20.0, "growth": 0.3, "volatility": 0.2},
}
PRICE = {"dist": "lognormal", "median": 1.0, "sigma": 0.2}


def _pays(total=40.0):
    return {"rent": {"kind": "commitment", "total": total, "take_or_pay": 0.8, "prepay": 0.1, "price": PRICE}}


def _deals(names="abc", total=40.0):
    ladders = ({"all": {"after": 3, "gw": 1.0}}, {"all": {"after": 0, "gw": 1.0, "follow_through": 0.7}})
    return {
        name: deal(supplier=name, ladder=ladders[n % 2], start=quarter_date(n), pays=_pays(total), **CLAUSES)
        for n, name in enumerate(names)
    }


def _study(deals=None, paths=3000, **keywords):
    keywords.setdefault("buyer", {"cash": 5.0, "floor": 1.0, "target": 3.0, "margin": 0.3})
    keywords.setdefault("settings", {"paths": paths, "keep_paths": 200, "reach": [1.0, 2.0]})
    return study(deals or _deals(), factors=FACTORS, world=WORLD, **keywords)


def _with(made, **changes):
    return made.model_copy(update=changes)


def _device(launch):
    return DeviceChoice(name="numpy", launch_paths=launch)


@pytest.mark.parametrize("launch", [1, 7, 256, 4096, 1_000_000])
def test_the_launch_size_is_memory_only(launch):
    made = _study(paths=60 if launch < 100 else 9000)
    assert offtake.run(made, device=_device(launch)).summary_hash == offtake.run(made).summary_hash


def test_workers_do_not_matter():
    made = _study(paths=3 * BLOCK_PATHS // 2)
    two = _with(made, executor=ExecutorChoice(workers=2))
    assert offtake.run(two).summary_hash == offtake.run(made).summary_hash


def test_units_cover_every_path_once():
    for first, last in ((0, 1), (0, BLOCK_PATHS), (0, 10**7 + 3), (BLOCK_PATHS, 5 * 10**6)):
        units = list(cut(first, last))
        assert len(units) <= 64
        assert [u.first_path for u in units] == [first, *np.cumsum([u.paths for u in units])[:-1] + first]
        assert sum(u.paths for u in units) == last - first
        assert len({u.first_path for u in units}) == len(units)


def test_a_longer_study_begins_with_the_shorter():
    short, long = (offtake.run(_study(paths=n)).kept for n in (300, 3000))
    assert short is not None
    assert long is not None
    for metric, values in short.quarter_values.items():
        np.testing.assert_array_equal(values, long.quarter_values[metric])


def test_an_added_deal_leaves_every_other_deals_terms_alone():
    before, after = (offtake.run(_study(_deals(names))).kept for names in ("abd", "abcd"))
    assert before is not None
    assert after is not None
    for name, values in before.scalar_values.items():
        if name.split(".")[-1] in ("lateness", "realised_rungs") and not name.startswith("d."):
            np.testing.assert_array_equal(values, after.scalar_values[name], err_msg=name)


def test_the_order_of_deals_does_not_matter():
    deals = _deals("abcde")
    turned = dict(reversed(deals.items()))
    assert offtake.run(_study(deals)).summary_hash == offtake.run(_study(turned)).summary_hash


def test_money_times_two_is_exactly_double():
    buyer = {"cash": 5.0, "floor": 1.0, "target": 3.0, "margin": 0.3, "fixed_cost": 1.0}
    twice = {**buyer, "cash": 10.0, "floor": 2.0, "target": 6.0, "fixed_cost": 2.0}
    revenue = {**FACTORS["revenue"], "initial": 40.0}
    single = offtake.run(_study(buyer=buyer)).kept
    double = offtake.run(
        study(
            _deals(total=80.0),
            factors={**FACTORS, "revenue": revenue},
            world=WORLD,
            buyer=twice,
            settings={"paths": 3000, "keep_paths": 200},
        )
    ).kept
    assert single is not None
    assert double is not None
    for metric in ("spend", "revenue", "cash", "funding", "commitments"):
        np.testing.assert_allclose(
            2 * single.quarter_values[metric], double.quarter_values[metric], rtol=4e-6, atol=4e-6
        )
    np.testing.assert_array_equal(2 * single.quarter_values["spend"], double.quarter_values["spend"])


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(quarters=st.integers(3, 30), number=st.integers(0, 2**33 - 1))
def test_a_longer_horizon_never_changes_earlier_quarters(quarters, number):
    short, long = (offtake.replay(_study(quarters=n), number) for n in (quarters, quarters + 5))
    for metric, values in short.quarters.items():
        assert values == long.quarters[metric][:quarters], metric


@settings(max_examples=25)
@given(st.integers(0, 2999))
def test_a_replayed_path_equals_the_run(number):
    made = _study()
    result = _run_once(made)
    replayed = offtake.replay(made, number)
    assert result.kept is not None
    if number < 200:
        for metric, values in replayed.quarters.items():
            seen = [
                None if v == -1.0 and metric in result.kept.nullable else float(v)
                for v in result.kept.quarter_values[metric][number]
            ]
            assert values == seen, metric
        for metric, value in replayed.scalars.items():
            seen = float(result.kept.scalar_values[metric][number])
            assert value == (None if seen == -1.0 and metric in result.kept.nullable else seen), metric


@pytest.mark.parametrize("path", [-1, 2**33, 1.5, "7", None])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InputError, match=f"{path} is not a path"):
        offtake.replay(_study(), path)


_cache: dict = {}


def _run_once(made):
    if "result" not in _cache:
        _cache["result"] = offtake.run(made)
    return _cache["result"]


def test_paths_on_both_sides_of_two_to_the_32():
    made = _study()
    seen = [
        offtake.replay(made, number).quarters["demand"][-1] for number in (0, 2**32 - 1, 2**32, 2**32 + 1)
    ]
    assert len(set(seen)) == 4


def test_no_hazard_is_a_hazard_of_zero():
    plain = deal(pays=_pays(), slip=SLIP)
    zero = deal(pays=_pays(), slip=SLIP, cancel={"hazard": 0.0, "fee": 0.5}, default={"hazard": 0.0})
    left, right = (offtake.run(_study({"a": terms})).summary_hash for terms in (plain, zero))
    assert left == right


def test_a_seed_is_a_seed():
    hashes = set()
    for seed in (0, 7, 8, 2**64 - 1):
        made = _study(settings={"paths": 100, "seed": seed})
        hashes.add(offtake.run(made).summary_hash)
    assert len(hashes) == 4
    for seed in (-1, 2**64, 1.5):
        with pytest.raises(InputError, match="seed"):
            _study(settings={"paths": 100, "seed": seed})


def test_an_impossible_amount_is_refused_naming_the_deal():
    with pytest.raises(InputError, match=r"portfolio\.deals\.a\.pays\.rent\.total"):
        _study({"a": deal(pays=_pays(1e30))})


def test_a_value_that_is_not_finite_fails_the_run_and_names_its_first_path():
    factors = {"revenue": {"initial": 1.0, "growth": {"now": 2000.0, "later": 2000.0, "half_life": 1.0}}}
    made = study({"a": deal(term=100)}, factors=factors, settings={"paths": 50})
    message = "revenue in quarter 1 is not finite on 50 paths, the first of them path 0"
    with pytest.raises(NumericalError, match=message):
        offtake.run(made)
    forced = offtake.run(made, force=True)
    assert forced.summary.nonfinite


def test_one_path_has_no_standard_error():
    result = offtake.run(_study(paths=1))
    assert np.isnan(statistic(result, "se", "total_spend"))
    assert result.scalars.to_pandas()["se"].isna().all()


def test_a_collision_of_two_names_is_refused_with_both():
    """`plumless` and `buckeroo` are the textbook collision of CRC-32."""
    from offtake.compile import _refuse_collisions, stream_of

    assert stream_of("plumless") == stream_of("buckeroo")
    with pytest.raises(InputError, match=r"'plumless' and 'buckeroo'"):
        _refuse_collisions(["plumless", "other", "buckeroo"])


def test_precision_can_stop_a_study():
    until = {"metric": "total_spend", "statistic": "mean", "rel_se": 0.004, "max_paths": 400_000}
    made = _study(settings={"paths": 1000, "until": until})
    result = offtake.run(made)
    paths = result.manifest["paths"]
    assert 1000 < paths < 400_000
    assert statistic(result, "se", "total_spend") <= 0.004 * statistic(result, "mean", "total_spend")
    whole = offtake.run(_study(settings={"paths": paths}))
    assert whole.summary.tally.digest() == result.summary.tally.digest()


@pytest.mark.parametrize(("wanted", "reached"), [(0.5, True), (1e-6, False)])
def test_a_run_says_how_precise_it_became(wanted, reached):
    until = {"metric": "total_spend", "statistic": "mean", "rel_se": wanted, "max_paths": 2000}
    result = offtake.run(_study(settings={"paths": 1000, "until": until}))
    precision = result.manifest["precision"]
    error = statistic(result, "se", "total_spend") / statistic(result, "mean", "total_spend")
    assert precision["reached"] == pytest.approx(error, rel=1e-12)
    assert (precision["reached"] <= precision["rel_se"] == wanted) == reached


def test_an_unknown_error_is_not_precision():
    """With 2 paths no quantile has an error yet: the study goes on until it has."""
    until = {"metric": "total_spend", "statistic": "p90", "rel_se": 0.9, "max_paths": 4096}
    paths = offtake.run(_study(settings={"paths": 2, "until": until})).manifest["paths"]
    assert 2 < paths < 4096


def test_standard_errors_shrink_with_the_root_of_the_paths():
    errors = [statistic(offtake.run(_study(paths=n)), "se", "total_spend") for n in (1000, 16_000)]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_scenarios_are_paired_on_common_random_numbers():
    base = path(_deals(), factors=FACTORS, world=WORLD)
    dearer = path(_deals(total=44.0), factors=FACTORS, world=WORLD)
    np.testing.assert_allclose(series(dearer, "spend"), 1.1 * series(base, "spend"), rtol=1e-5)
    np.testing.assert_array_equal(series(dearer, "demand"), series(base, "demand"))
