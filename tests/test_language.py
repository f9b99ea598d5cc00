"""The language: what a study may say, what it means when it says nothing, how its parts are laid together."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from offtake import deals, distributions, study, world
from offtake.composing import compose_named
from offtake.correlation import correlation_matrix, nearest_correlation, weakest_direction
from offtake.errors import InputError
from offtake.metrics import METRICS, reach_name, total_metric_names
from offtake.portfolio import load
from offtake.resolved import config_yaml
from offtake.schema import json_schema
from offtake.source_map import read_yaml

EXAMPLE = Path(__file__).parent / "data" / "example.yaml"
DEMO = ("world=demo",)


def least(**deal: Any) -> dict[str, Any]:
    """The least that a study must say, with one deal."""
    return {
        "portfolio": {
            "name": "least",
            "start": "2026-01-01",
            "quarters": 8,
            "deals": {
                "only": {
                    "supplier": "s",
                    "layer": "compute",
                    "hardware": "h",
                    "start": datetime.date(2026, 1, 1),
                    "ladder": {"r": {"after": 0, "gw": 1}},
                }
                | deal
            },
        },
        "world": {
            "factors": {"demand": {"initial": 1}, "revenue": {}},
            "hardware": {"h": {"h100e_per_gw": 1.0}},
        },
    }


# ---- the example -----------------------------------------------------------------------------------------


def test_the_example_says_every_key_of_the_language():
    """The example shows each key once, so a key of the types that it lacks is missing from one of the two."""
    text = EXAMPLE.read_text(encoding="utf-8")
    models = {
        value
        for module in (deals, world, study)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    }
    keys = {key for model in models for key in model.model_fields}
    missing = {key for key in keys if f"{key}:" not in text}
    # Memory and threads are the machine's business; the example keeps them at their defaults.
    assert missing == {"launch_paths", "threads"}


def test_the_example_loads_with_its_values():
    example = load(EXAMPLE)
    acme = example.portfolio.deals["acme"]
    assert example.study.paths == 10**6
    assert acme.start == datetime.date(2026, 1, 1)
    assert isinstance(acme.slip, distributions.Quantiles)
    assert acme.slip.quantiles == {0.1: 0.0, 0.5: 1.0, 0.9: 5.0}
    assert isinstance(acme.stretch, distributions.Triangular)
    assert isinstance(acme.pays["cloud"], deals.Commitment)
    assert acme.pays["cloud"].index_cap == 1.0
    assert isinstance(acme.receives["warrant"], deals.Warrants)
    assert acme.default == deals.SupplierDefault(hazard=0.005, bust_multiplier=6.0)
    assert example.world.factors["steel"].table == {
        datetime.date(2025, 10, 1): 1.0,
        datetime.date(2030, 1, 1): 1.2,
    }
    assert example.world.factors["demand"].growth == world.Growth(now=1.0, later=0.15, half_life=1.5)
    assert example.warnings == []


def test_a_study_survives_being_written_and_read_again(tmp_path):
    example = load(EXAMPLE, ["device=null", "portfolio.deals.acme.size={dist:uniform,low:1,high:2}"])
    (tmp_path / "config.yaml").write_text(config_yaml(example), encoding="utf-8")
    assert load(tmp_path / "config.yaml") == example


def test_a_mapping_and_a_file_say_the_same():
    assert load(read_yaml(EXAMPLE).data) == load(EXAMPLE)


def test_a_mapping_may_hold_dates_numeric_keys_and_numpy_scalars():
    data = least(slip={"quantiles": {0.1: np.float32(0.5), 0.9: np.int64(2)}})
    data["portfolio"]["quarters"] = np.int32(12)
    loaded = load(data)
    assert loaded.portfolio.quarters == 12
    assert loaded.portfolio.deals["only"].slip == distributions.Quantiles(quantiles={0.1: 0.5, 0.9: 2.0})


# ---- defaults --------------------------------------------------------------------------------------------


def test_defaults_of_a_deal():
    deal = load(least()).portfolio.deals["only"]
    expected = {
        "size": 1.0, "stretch": 1.0, "slip": 0.0, "shape": "linear", "long_stop": None, "life": None,
        "term": None, "late_credit": None, "cancel": None, "default": None, "extension": None,
        "blocked_while": None, "exclusive": False, "follows_sites": False, "deferrable": True,
        "slip_loading": None, "pays": {}, "receives": {},
    }  # fmt: skip
    assert {key: getattr(deal, key) for key in expected} == expected
    assert deal.ladder["r"].follow_through == 1.0


def test_defaults_of_legs():
    pays = {
        "c": {"kind": "commitment", "total": 1},
        "p": {"kind": "purchase", "per_gw": 1},
        "e": {"kind": "power"},
    }
    legs = load(least(term=4, pays=pays)).portfolio.deals["only"].pays
    assert legs["c"].model_dump() == {
        "kind": "commitment", "total": 1.0, "take_or_pay": 1.0, "prepay": 0.0, "profile": "capacity",
        "price": 1.0, "escalator": 0.0, "pass_through": 0.0, "index": "hardware_price", "index_cap": None,
        "leverage": 0.0,
    }  # fmt: skip
    assert legs["p"].model_dump() == {
        "kind": "purchase", "per_gw": 1.0, "deposit": 0.0, "lead": 0, "escalator": 0.0, "pass_through": 1.0,
        "index": "hardware_price", "index_cap": None, "leverage": 0.0,
    }  # fmt: skip
    assert legs["e"].model_dump() == {"kind": "power", "pue": 1.2}


def test_defaults_of_the_buyer():
    assert load(least()).portfolio.buyer.model_dump() == {
        "cash": 0.0, "margin": 1.0, "fixed_cost": 0.0, "served_elasticity": 1.0, "cash_yield": 0.0,
        "interest_rate": 0.0, "discount_rate": 0.1, "floor": None, "target": None, "funding_limit": None,
        "on_distress": "record", "spot": {"share": 0.0, "cap": None}, "training_share": 0.0,
        "priority": "pro_rata",
    }  # fmt: skip


def test_factors_that_nobody_gives_exist():
    factors = load(least()).world.factors
    opening = {name: factor.initial for name, factor in factors.items()}
    assert opening == {
        "demand": 1.0, "revenue": 1.0, "hardware_price": 1.0, "power_price": 57.0, "spot_price": 2.0,
        "ai_equity": 1.0, "market_supply": 1.0,
    }  # fmt: skip
    assert all(factor.volatility == 0 and factor.growth == 0 for factor in factors.values())


def test_an_implicit_factor_keeps_its_opening_value_when_only_its_volatility_is_given():
    factors = load(least(), ["world.factors.power_price.volatility=0.2"]).world.factors
    assert (factors["power_price"].initial, factors["power_price"].volatility) == (57.0, 0.2)


def test_a_table_replaces_an_implicit_factor():
    data = least()
    data["world"]["factors"]["spot_price"] = {"table": {"2026-01-01": 2.0, "2027-01-01": 1.5}}
    assert load(data).world.factors["spot_price"].table is not None
    data["world"]["factors"]["spot_price"]["initial"] = 2.0
    with pytest.raises(InputError, match="a factor is a table or a process, not both"):
        load(data)


def test_a_table_has_increasing_dates():
    data = least()
    data["world"]["factors"]["steel"] = {"table": {"2027-01-01": 2.0, "2026-01-01": 1.5}}
    with pytest.raises(InputError, match=r"steel\.table: dates must be increasing"):
        load(data)


def test_reversion_needs_a_level():
    data = least()
    data["world"]["factors"]["steel"] = {"reversion": 0.5}
    with pytest.raises(InputError, match=r"steel\.level: is required with reversion"):
        load(data)


def test_a_deal_may_start_before_the_portfolio():
    assert load(least(start="2024-01-01")).portfolio.deals["only"].start.year == 2024


def test_types_are_frozen():
    loaded = load(least())
    with pytest.raises(ValidationError, match="frozen"):
        loaded.portfolio.quarters = 9  # type: ignore[misc]


# ---- distributions ---------------------------------------------------------------------------------------

ACCEPTED = [
    3,
    -0.5,
    {"quantiles": {0.1: 0, 0.5: 1, 0.9: 5}},
    {"quantiles": {"0.5": 1}, "min": 0, "max": 4},
    {"dist": "uniform", "low": 0, "high": 1},
    {"dist": "normal", "mean": 0, "sd": 1},
    {"dist": "truncnorm", "mean": 0, "sd": 1, "low": -1, "high": 1},
    {"dist": "lognormal", "median": 1, "sigma": 0.5},
    {"dist": "lognormal", "p10": 1, "p90": 2},
    {"dist": "triangular", "low": 1, "mode": 1, "high": 2},
    {"dist": "pert", "low": 1, "mode": 1.5, "high": 2},
    {"dist": "beta", "a": 2, "b": 3, "low": 0, "high": 4},
    {"dist": "gamma", "shape": 2, "scale": 3},
    {"dist": "weibull", "shape": 2, "scale": 3},
    {"dist": "expon", "mean": 3},
    {"dist": "discrete", "values": {"0": 0.5, "-2.5": 0, "1e1": 3}},
    {"dist": "mixture", "parts": [{"weight": 1, "of": 0}, {"weight": 2, "of": {"dist": "expon", "mean": 3}}]},
    {"dist": "uniform", "low": 0, "high": 1, "driver": "grid", "loading": -0.5},
    {"quantiles": {"0.5": 1}, "driver": "grid", "loading": 1},
    {"samples": {"file": "x.csv", "column": "slip"}, "driver": "grid", "loading": 0},
]

REFUSED = [
    (True, "valid number"),
    ("3", "valid number"),
    (None, "valid number"),
    (float("nan"), "finite"),
    ({}, "neither a number"),
    ({"dist": "cauchy"}, "neither a number"),
    ({"dist": "uniform", "low": 1, "high": 1}, "low must be below high"),
    ({"dist": "uniform", "low": 1, "high": 2, "mean": 3}, "Extra inputs"),
    ({"dist": "uniform", "low": 1, "high": 2, "quantiles": {"0.5": 1}}, "Extra inputs"),
    ({"dist": "normal", "mean": 0, "sd": 0}, "greater than 0"),
    ({"dist": "truncnorm", "mean": 0, "sd": 1, "low": 1, "high": -1}, "low must be below high"),
    ({"dist": "lognormal", "median": 1}, "give median and sigma, or p10 and p90"),
    ({"dist": "lognormal", "median": 1, "sigma": 1, "p10": 1, "p90": 2}, "give median and sigma, or"),
    ({"dist": "lognormal", "p10": 2, "p90": 1}, "p10 must be below p90"),
    ({"dist": "triangular", "low": 1, "mode": 3, "high": 2}, "mode must lie between"),
    ({"dist": "beta", "a": 0, "b": 1}, "greater than 0"),
    ({"dist": "expon", "mean": -1}, "greater than 0"),
    ({"dist": "discrete", "values": {}}, "at least 1 item"),
    ({"dist": "discrete", "values": {"1": 0}}, "at least one weight"),
    ({"dist": "discrete", "values": {"1": -1}}, "greater than or equal to 0"),
    ({"dist": "discrete", "values": {"one": 1}}, "valid number"),
    ({"dist": "mixture", "parts": []}, "at least 1 item"),
    ({"dist": "mixture", "parts": [{"weight": 0, "of": 1}]}, "at least one weight"),
    (
        {
            "dist": "mixture",
            "parts": [{"weight": 1, "of": {"dist": "expon", "mean": 1, "driver": "d", "loading": 1}}],
        },
        "no driver of its own",
    ),
    ({"quantiles": {}}, "at least 1 item"),
    ({"quantiles": {"0": 1}}, "strictly between 0 and 1"),
    ({"quantiles": {"0.5": 1, "1": 2}}, "strictly between 0 and 1"),
    ({"quantiles": {"0.5": 1, "0.4": 2}}, "probabilities must be increasing"),
    ({"quantiles": {"0.4": 2, "0.5": 1}}, "values must not decrease"),
    ({"quantiles": {"0.5": 1}, "min": 3, "max": 2}, "min must not exceed max"),
    ({"dist": "expon", "mean": 1, "loading": 0.5}, "a loading needs a driver"),
    ({"dist": "expon", "mean": 1, "driver": "d"}, "a driver needs a loading"),
    ({"dist": "expon", "mean": 1, "driver": "d", "loading": 1.5}, "less than or equal to 1"),
    ({"samples": {"file": "x.csv"}}, "Field required"),
]

ADAPTER = TypeAdapter(distributions.Distribution)


@pytest.mark.parametrize("written", ACCEPTED, ids=str)
def test_forms_that_are_distributions(written):
    value = ADAPTER.validate_python(written, strict=True)
    assert distributions.is_constant(value) == isinstance(written, int | float)
    assert ADAPTER.validate_python(value, strict=True) == value


@pytest.mark.parametrize(("written", "reason"), REFUSED, ids=str)
def test_what_is_not_a_distribution(written, reason):
    class Holder(deals.Terms):
        value: distributions.Distribution

    with pytest.raises(ValidationError, match=reason):
        Holder.model_validate({"value": written})


# ---- composing -------------------------------------------------------------------------------------------


def test_a_named_portfolio_is_composed_from_its_deal_files():
    demo = load("demo", DEMO)
    assert list(demo.portfolio.deals) == ["cloud", "chips", "campus"]
    assert demo.portfolio.deals["campus"].layer == "site"


def test_deals_are_added_deleted_and_exchanged():
    demo = load("demo", [*DEMO, "+deal@portfolio.deals.mine=demo_cloud", "~portfolio.deals.chips"])
    assert list(demo.portfolio.deals) == ["cloud", "campus", "mine"]
    assert demo.portfolio.deals["mine"] == demo.portfolio.deals["cloud"]
    demo = load("demo", [*DEMO, "~deal@portfolio.deals.chips", "deal@portfolio.deals.campus=demo_cloud"])
    assert list(demo.portfolio.deals) == ["cloud", "campus"]
    assert demo.portfolio.deals["campus"].layer == "compute"


def test_an_override_of_one_key_of_a_deal():
    demo = load(
        "demo", [*DEMO, "portfolio.deals.cloud.slip=3", "portfolio.deals.cloud.pays.service.total=40"]
    )
    assert demo.portfolio.deals["cloud"].slip == 3
    assert demo.portfolio.deals["cloud"].pays["service"].total == 40  # type: ignore[union-attr]


def test_a_key_left_to_its_default_needs_no_plus():
    assert load("demo", [*DEMO, "portfolio.deals.cloud.long_stop=8"]).portfolio.deals["cloud"].long_stop == 8


def test_another_form_of_distribution_replaces_and_does_not_mix():
    demo = load("demo", [*DEMO, "portfolio.deals.cloud.slip={dist:uniform,low:0,high:2}"])
    assert demo.portfolio.deals["cloud"].slip == distributions.Uniform(dist="uniform", low=0, high=2)
    demo = load("demo", [*DEMO, "portfolio.deals.campus.slip={quantiles:{0.5:1}}"])
    assert demo.portfolio.deals["campus"].slip == distributions.Quantiles(quantiles={0.5: 1})


def test_one_parameter_of_a_distribution_can_be_overridden():
    slip = load("demo", [*DEMO, "portfolio.deals.campus.slip.high=9"]).portfolio.deals["campus"].slip
    assert slip == distributions.Triangular(dist="triangular", low=0, mode=1, high=9)


@pytest.mark.parametrize("device", ["auto", "cuda", "jax", "numpy", "null"])
def test_devices_are_chosen_by_name(device):
    assert load("demo", [*DEMO, f"device={device}"]).device.name == device
    assert load(EXAMPLE, [f"device={device}"]).device.name == device


def test_null_in_a_file_is_the_null_device():
    assert load(least() | {"device": {"name": None}}).device.name == "null"


def test_groups_chosen_on_the_command_line_beat_the_file():
    assert load(EXAMPLE).study.keep_paths == 1024
    quick = load(EXAMPLE, ["study=quick", "executor=ray", "study.seed=8"])
    assert (quick.study.paths, quick.study.seed, quick.executor.name) == (10**4, 8, "ray")
    # Only what the group says: the example's world stays its own.
    assert "acme_share" in quick.world.factors


def test_a_file_is_laid_over_the_shipped_study_but_not_over_a_shipped_world():
    loaded = load(least())
    assert loaded.study == load("demo", DEMO).study
    assert loaded.device == study.DeviceChoice()
    assert set(loaded.world.hardware) == {"h"}


def test_references_between_keys_are_resolved():
    data = least(long_stop="${...quarters}")
    assert load(data).portfolio.deals["only"].long_stop == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: \xff\xfe", "own.yaml: is not UTF-8 text (byte 6)"),
        (b"name: [x,\n", "own.yaml:2:1: expected the node content, but found '<stream end>'"),
        (b"- name\n", "own.yaml: must be a mapping of keys to values"),
        (b"- !mine name\n", "own.yaml:1:3: 0: tag !mine is not allowed here"),
    ],
)
def test_a_file_that_cannot_be_read_is_the_only_mistake(tmp_path, content, message):
    """What else the portfolio lacks is not known."""
    (tmp_path / "portfolio").mkdir()
    (tmp_path / "portfolio" / "own.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load("own", DEMO, config_dir=tmp_path)
    assert [str(mistake) for mistake in caught.value.mistakes] == [f"{tmp_path}/portfolio/{message}"]


def test_a_folder_of_own_configuration(tmp_path):
    (tmp_path / "portfolio").mkdir()
    (tmp_path / "deal").mkdir()
    (tmp_path / "portfolio" / "own.yaml").write_text(
        "defaults:\n  - /deal@deals.a: mine\n  - _self_\nname: own\nstart: 2026-01-01\nquarters: 4\n"
    )
    (tmp_path / "deal" / "mine.yaml").write_text(
        "supplier: s\nlayer: chips\nhardware: gb300\nstart: 2026-01-01\nladder: {r: {after: 0, gw: x}}\n"
    )
    with pytest.raises(InputError) as caught:
        load("own", DEMO, config_dir=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/deal/mine.yaml:5:28: portfolio.deals.a.ladder.r.gw: must be a number, not the text 'x'"
    )
    assert (
        load("own", [*DEMO, "portfolio.deals.a.ladder.r.gw=2"], config_dir=tmp_path).portfolio.name == "own"
    )


def test_the_last_file_that_sets_a_key_gives_its_position(tmp_path):
    (tmp_path / "stress").mkdir()
    (tmp_path / "stress" / "late.yaml").write_text(
        "# @package _global_\n"
        "portfolio:\n  deals:\n    cloud:\n      slip: {dist: uniform, low: 4, high: 2}\n"
    )
    with pytest.raises(InputError) as caught:
        load("demo", [*DEMO, "stress=late"], config_dir=tmp_path)
    assert (
        str(caught.value)
        == f"{tmp_path}/stress/late.yaml:5:13: portfolio.deals.cloud.slip: low must be below high"
    )


def test_group_names_cannot_leave_the_configuration_folder(tmp_path):
    (tmp_path / "secret.yaml").write_text("name: secret\n")
    (tmp_path / "conf").mkdir()
    for name in ("../secret", "../../secret"):
        with pytest.raises(InputError):
            load("demo", [*DEMO, f"+deal@portfolio.deals.x={name}"], config_dir=tmp_path / "conf")


@pytest.mark.parametrize("name", ["quick", "standard", "large"])
def test_shipped_studies(name):
    paths = {"quick": 10**4, "standard": 10**6, "large": 10**8}
    settings_of = load("demo", [*DEMO, f"study={name}"]).study
    assert (settings_of.paths, settings_of.seed, settings_of.keep_paths) == (paths[name], 7, 1024)


def test_composing_knows_where_a_default_came_from():
    composition = compose_named("demo", DEMO)
    assert composition.location(("portfolio", "buyer", "cash")).endswith("portfolio/demo.yaml:12:9")
    assert composition.location(("portfolio", "deals", "cloud", "term")).endswith("deal/demo_cloud.yaml:10:7")


# ---- correlation -----------------------------------------------------------------------------------------


def test_factors_come_in_a_standard_order_then_by_name():
    names, matrix = correlation_matrix(load(EXAMPLE).world)
    assert names == (
        "demand", "revenue", "hardware_price", "power_price", "spot_price", "ai_equity", "market_supply",
        "acme_share",
    )  # fmt: skip
    assert matrix[0, 1] == matrix[1, 0] == 0.8
    assert matrix[7, 5] == 0.7
    assert np.array_equal(np.diag(matrix), np.ones(8))
    assert np.all(np.linalg.eigvalsh(matrix) > 0)


def test_the_weakest_direction_of_a_contradiction():
    matrix = np.array([[1, 0.9, 0.9, 0], [0.9, 1, -0.9, 0], [0.9, -0.9, 1, 0], [0, 0, 0, 1.0]])
    smallest, pairs = weakest_direction(("a", "b", "c", "d"), matrix)
    assert smallest == pytest.approx(-0.8)
    assert sorted(pairs) == ["a–b 0.9", "a–c 0.9", "b–c -0.9"]


def test_nearest_correlation_known_answer():
    """Higham (2002), section 4, for [[1,1,0],[1,1,1],[0,1,1]]: 0.76069 beside the diagonal, 0.15730 apart."""
    nearest = nearest_correlation(np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]]))
    assert nearest[0, 1] == pytest.approx(0.760690, abs=2e-6)
    assert nearest[0, 2] == pytest.approx(0.157298, abs=2e-6)


@settings(max_examples=40)
@given(st.lists(st.floats(-1, 1), min_size=10, max_size=10))
def test_nearest_correlation_is_a_correlation_matrix(entries):
    matrix = np.eye(5)
    matrix[np.triu_indices(5, 1)] = entries
    matrix = np.triu(matrix) + np.triu(matrix, 1).T
    nearest = nearest_correlation(matrix)
    np.linalg.cholesky(nearest)
    assert np.array_equal(np.diag(nearest), np.ones(5))
    assert np.array_equal(nearest, nearest.T)
    if np.linalg.eigvalsh(matrix)[0] > 1e-3:
        assert np.allclose(nearest, matrix, atol=1e-9)


# ---- metrics and schema ----------------------------------------------------------------------------------


def test_metric_names_are_unique_and_reach_levels_are_named():
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    assert (reach_name(5.0), reach_name(2.5)) == ("reach_5", "reach_2.5")
    assert "reach_2.5" in total_metric_names((2.5,))
    assert "delivered_share" not in total_metric_names(())


def test_the_schema_describes_every_key_with_its_unit():
    schema = json_schema()
    commitment = schema["$defs"]["Commitment"]["properties"]
    assert commitment["total"]["description"] == "Headline value over the whole term, US$ bn."
    assert schema["$defs"]["Deal"]["additionalProperties"] is False
    json.dumps(schema, allow_nan=False)


def test_the_example_satisfies_the_schema():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    validator = jsonschema.Draft202012Validator(json_schema())
    data = read_yaml(EXAMPLE).data
    assert [error.message for error in validator.iter_errors(data)] == []
    data["portfolio"]["deals"]["acme"]["slipp"] = 1
    assert len(list(validator.iter_errors(data))) == 1


@pytest.mark.parametrize("index", [0, [0, 1], "all", "0,1", None])
def test_the_schema_takes_every_way_to_name_devices(index):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    data = read_yaml(EXAMPLE).data
    data["device"]["index"] = index
    load(data)
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("portfolio.quarters", 0),
        ("portfolio.quarters", 401),
        ("portfolio.deals.acme.term", 10_001),
        ("portfolio.deals.acme.size", {"dist": "mixture", "parts": []}),
        ("portfolio.name", "has a space"),
        ("portfolio.name", "a..b"),
        ("portfolio.deals.has a space", {}),
        ("portfolio.deals.acme.term", 0),
        ("study.seed", -1),
        ("study.paths", 2**33 + 1),
        ("study.keep_paths", -1),
        ("device.threads", 0),
        ("device.index", -1.5),
    ],
)
def test_what_the_language_refuses_the_schema_refuses(path, value):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    validator = jsonschema.Draft202012Validator(json_schema())
    data = read_yaml(EXAMPLE).data
    *above, last = path.split(".")
    node = data
    for key in above:
        node = node[key]
    node[last] = value
    with pytest.raises(InputError):
        load(data)
    assert not validator.is_valid(data)
