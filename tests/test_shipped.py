"""The shipped deals, portfolios, worlds and stresses: they reproduce what was announced, and make sense."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import yaml

import offtake
from offtake.announce import announced, announced_totals
from offtake.compile import compile_study

CONF = Path(__file__).parent.parent / "conf"
PORTFOLIOS = ("openai", "openai_signed", "openai_amazon", "anthropic")
WORLDS = ("base", "boom", "bust_2027", "flat_demand", "no_volatility", "anthropic")
STRESSES = (
    "nvidia_delay",
    "grid_delay",
    "antitrust",
    "supplier_default",
    "amazon_walks",
    "price_rebound",
    "export_controls",
)
HEADLINES_BN = {"aws": 38.0, "microsoft": 250.0, "oracle": 300.0, "coreweave": 22.4}
DEALS = sorted(file.stem for file in (CONF / "deal").glob("*.yaml") if not file.stem.startswith("demo"))


@cache
def study(portfolio: str, *overrides: str):
    return offtake.load(portfolio, overrides=["study=quick", "study.keep_paths=0", *overrides])


def touched(stress: str) -> set[str]:
    """The deals that a stress changes."""
    overlay = yaml.safe_load((CONF / "stress" / f"{stress}.yaml").read_text())
    return set(overlay.get("portfolio", {}).get("deals", {}))


@cache
def frames(portfolio: str, *overrides: str, paths: int = 4096):
    """(quarters, scalars) of a run as data frames."""
    result = offtake.run(study(portfolio, f"study.paths={paths}", *overrides), device="numpy", progress=False)
    return result.quarters.to_pandas(), result.scalars.to_pandas()


def total(metric: str, period: str, column: str, *given: str, paths: int = 4096) -> float:
    quarters, _ = frames(*given, paths=paths)
    chosen = quarters.query("scope == 'total' and metric == @metric and period == @period")
    return float(chosen[column].iloc[0])


def over_path(metric: str, column: str, *given: str, paths: int = 4096) -> float:
    _, scalars = frames(*given, paths=paths)
    return float(scalars.query("scope == 'total' and metric == @metric")[column].iloc[0])


# What composes


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("portfolio", PORTFOLIOS)
def test_every_portfolio_compiles_in_every_world(portfolio, world):
    loaded = study(portfolio, f"world={world}")
    assert not loaded.warnings
    compile_study(loaded)


REACH = {
    "openai": set(STRESSES),
    "openai_amazon": set(STRESSES),
    "openai_signed": {"grid_delay", "supplier_default", "price_rebound", "export_controls"},
    "anthropic": {"price_rebound"},
}
"""The stresses whose deals a portfolio has."""


def test_stresses_reach_the_portfolios_that_have_their_deals():
    for portfolio, reach in REACH.items():
        deals = set(study(portfolio).portfolio.deals)
        assert {stress for stress in STRESSES if touched(stress) <= deals} == reach
    with pytest.raises(offtake.InputError, match=r"nvidia_delay\.yaml"):
        study("openai_signed", "stress=nvidia_delay")


@pytest.mark.parametrize(
    ("portfolio", "stress", "world"),
    [  # every portfolio with every stress that it has the deals for, worlds in turn
        (portfolio, stress, WORLDS[(n + STRESSES.index(stress)) % len(WORLDS)])
        for n, portfolio in enumerate(PORTFOLIOS)
        for stress in sorted(REACH[portfolio])
    ],
)
def test_every_stress_compiles_where_its_deals_are(portfolio, stress, world):
    stressed = study(portfolio, f"world={world}", f"stress={stress}")
    assert set(stressed.portfolio.deals) == set(study(portfolio).portfolio.deals)
    assert not stressed.warnings
    compile_study(stressed)


def test_lists_here_are_the_files_shipped():
    def names(group: str) -> set[str]:
        return {file.stem for file in (CONF / group).glob("*.yaml")} - {"demo"}

    assert names("portfolio") == set(PORTFOLIOS)
    assert names("world") == set(WORLDS)
    assert names("stress") == set(STRESSES)


def test_a_deal_file_is_a_deal_for_any_portfolio():
    """But for milestones in other deals, nothing in a deal's file needs its portfolio."""
    every = [f"+deal@portfolio.deals.{name}={name}" for name in DEALS if not name.startswith("anthropic")]
    assert set(DEALS) <= set(compile_study(study("anthropic", *every)).plan.deal_names)


# What was announced


@pytest.mark.parametrize("portfolio", ["openai", "openai_signed", "openai_amazon"])
def test_announced_totals_to_the_dollar(portfolio):
    found = announced_totals(study(portfolio))
    for name, headline in HEADLINES_BN.items():
        deal = next(deal for deal in found["deals"] if deal["deal"] == name)
        assert deal["commitment_bn"] == headline
        assert found["suppliers_bn"][deal["supplier"]] == headline
    assert found["announced_bn"] == pytest.approx(sum(found["suppliers_bn"].values()))


@cache
def announced_run():
    return offtake.run(announced(study("openai", "study.paths=4")), device="numpy", progress=False)


def announced_spend() -> dict[str, float]:
    quarters = announced_run().quarters.to_pandas().query("scope == 'deal' and metric == 'spend'")
    return quarters.groupby("name", observed=True)["mean"].sum().to_dict()


def test_a_run_of_the_announced_study_pays_the_headlines():
    spend = announced_spend()
    for name, headline in HEADLINES_BN.items():
        assert spend[name] == pytest.approx(headline, rel=1e-5)


def test_announced_gigawatts_dates_and_money_of_the_deals():
    deals = study("openai").model_dump(mode="json")["portfolio"]["deals"]
    last = {name: list(deal["ladder"].values())[-1]["gw"] for name, deal in deals.items()}
    assert [last[name] for name in ("nvidia", "amd", "broadcom", "oracle")] == [10.0, 6.0, 10.0, 4.5]
    assert last["oracle"] + last["stargate"] + last["stargate_uae"] == 10.0  # Stargate's goal
    assert [leg["total"] for leg in deals["coreweave"]["pays"].values()] == [11.9, 4.0, 6.5]
    assert (deals["aws"]["start"], deals["aws"]["term"]) == ("2025-11-03", 28)
    assert deals["oracle"]["start"] == "2027-01-01"
    tranches = deals["nvidia"]["receives"]["investment"]["tranches"].values()
    assert [(tranche["gw"], tranche["amount"]) for tranche in tranches] == [(n + 1, 10) for n in range(10)]
    warrants = deals["amd"]["receives"]["warrant"]["tranches"].values()
    assert sum(tranche["shares"] for tranche in warrants) == pytest.approx(0.16)
    assert {tranche["strike"] for tranche in warrants} == {0.01}
    assert max(tranche["hurdle"] for tranche in warrants) == 600.0
    assert deals["amazon"]["receives"]["stake"]["amount"] >= 10.0


def test_contracts_are_certain_and_letters_and_talks_are_not():
    deals = study("openai").portfolio.deals
    for name in HEADLINES_BN:
        assert all(rung.follow_through == 1.0 for rung in deals[name].ladder.values())
    for name in ("nvidia", "amazon"):
        assert next(iter(deals[name].ladder.values())).follow_through < 1.0
    amd = [rung.follow_through for rung in deals["amd"].ladder.values()]
    assert amd[0] == 1.0
    assert max(amd[1:]) < 1.0
    assert not {"nvidia", "amazon"} & set(study("openai_signed").portfolio.deals)


def test_press_figures_add_up_and_the_model_explains_them():
    press = yaml.safe_load((CONF / "press.yaml").read_text())
    spend = announced_spend()
    counted = press["counted"]
    assert sum(item["press_bn"] for item in counted) == pytest.approx(press["total_bn"])
    mapped = [deal for key in ("counted", "not_counted") for item in press[key] for deal in item["deals"]]
    assert sorted(mapped) == sorted(spend)  # every deal once
    for item in counted:
        assert sum(spend[deal] for deal in item["deals"]) == pytest.approx(item["press_bn"], rel=0.03)
    model = sum(spend[deal] for item in counted for deal in item["deals"])
    assert model == pytest.approx(press["total_bn"], rel=0.02)


@pytest.mark.parametrize("name", DEALS)
def test_every_deal_says_where_its_figures_come_from(name):
    facts = yaml.safe_load((CONF / "deal" / f"{name}.yaml").read_text())["facts"]
    assert facts["as_of"].year == 2025
    assert len(facts["source"]) > 10
    assert facts["confidence"] in ("high", "medium", "low")
    assert "ssum" in facts["note"]  # what is assumed is said


def test_openai_amazon_differs_in_the_amazon_deal_only():
    ours = study("openai").model_dump()
    theirs = study("openai_amazon").model_dump()
    assert theirs["portfolio"].pop("name") != ours["portfolio"].pop("name")
    first = ours["portfolio"]["deals"]["amazon"]["ladder"]["closed"]
    assert first["follow_through"] < 1.0
    first["follow_through"] = 1.0
    assert ours == theirs


# No gigawatt twice


def in_layers(quarters):
    """Mean delivered GW by quarter of the compute, chips and site deals of portfolio openai."""
    deals = study("openai").portfolio.deals
    delivered = quarters.query("scope == 'deal' and metric == 'delivered_gw'")
    layer = delivered["name"].astype(str).map(lambda name: deals[name].layer)
    by_layer = delivered.assign(layer=layer).groupby(["layer", "quarter"], observed=True)["mean"]
    return by_layer.sum().unstack("layer")


def test_no_gigawatt_is_counted_twice():
    for quarters in (announced_run().quarters.to_pandas(), frames("openai")[0]):
        layers = in_layers(quarters)
        capacity = quarters.query("scope == 'total' and metric == 'capacity_gw'").set_index("quarter")["mean"]
        at_most = layers["compute"] + layers[["chips", "site"]].min(axis=1)  # E min ≤ min E
        assert (capacity <= at_most * (1 + 1e-5)).all()
    layers = in_layers(announced_run().quarters.to_pandas())
    assert layers.loc[20, "chips"] > 20.0
    assert layers.loc[20, "site"] < layers.loc[20, "chips"]  # sites, not chips, are what is short


# What comes out


@pytest.mark.parametrize(
    ("metric", "period", "low", "high"),
    [
        ("capacity_gw", "2025Q4", 1.5, 2.0),  # 1.9 GW reported for the end of 2025
        ("capacity_gw", "2026Q4", 2.5, 5.0),
        ("capacity_gw", "2030Q4", 11.0, 17.0),
        ("revenue", "2025Q4", 4.9, 5.1),  # a run rate of 20bn
        ("revenue", "2026Q4", 8.0, 13.0),
        ("revenue", "2030Q4", 35.0, 60.0),  # the plan, more than 70 a quarter, lies above the median
        ("spend", "2026Q4", 7.0, 16.0),
        ("spend", "2030Q4", 25.0, 45.0),
        ("utilisation", "2030Q4", 0.6, 1.0),
        ("unit_cost", "2026Q4", 0.7, 2.0),  # H100 contracts cost 1.7 to 2.35 an hour
        ("unit_cost", "2030Q4", 0.3, 1.2),
        ("funding", "2030Q4", 60.0, 250.0),
    ],
)
def test_medians_are_sane(metric, period, low, high):
    assert low <= total(metric, period, "p50", "openai") <= high


def test_the_plans_of_the_company_lie_inside_the_range():
    in_2030 = {level: 4 * total("revenue", "2030Q4", level, "openai") for level in ("p75", "p95")}
    assert in_2030["p75"] < 280 < in_2030["p95"]
    to_2030 = ("openai", "portfolio.quarters=21")
    assert over_path("total_spend", "p50", *to_2030, paths=1024) < 600
    assert over_path("total_spend", "p95", *to_2030, paths=1024) > 600


def test_compute_covers_demand_at_the_start():
    assert total("served", "2025Q4", "p50", "openai") > 0.97
    assert total("utilisation", "2025Q4", "p50", "openai") > 0.85


def test_distress_is_possible_and_not_certain():
    assert 0.2 < 1.0 - over_path("first_distress", "share_none", "openai") < 0.6


def test_anthropic_at_its_own_scale():
    given = ("anthropic", "world=anthropic")
    assert 0.6 < total("capacity_gw", "2025Q4", "p50", *given, paths=1024) < 1.1
    assert 1.2 < total("capacity_gw", "2026Q4", "p50", *given, paths=1024) < 2.6
    assert 18.0 < 4 * total("revenue", "2026Q4", "p50", *given, paths=1024) < 28.0


# Stresses and worlds move their headline, on the same paths

MOVES = {
    "nvidia_delay": ("capacity_gw", "2028Q4", -1.0),
    "grid_delay": ("capacity_gw", "2028Q4", -1.0),
    "antitrust": ("total_inflows", None, -5.0),
    "supplier_default": ("capacity_gw", "2030Q4", -1.0),
    "amazon_walks": ("total_inflows", None, -2.0),
    "price_rebound": ("peak_funding", None, 20.0),
    "export_controls": ("capacity_gw", "2030Q4", -0.2),
    "boom": ("revenue", "2030Q4", 5.0),
    "bust_2027": ("revenue", "2028Q4", -10.0),
    "flat_demand": ("peak_funding", None, 100.0),
    "no_volatility": ("peak_funding", None, -50.0),
}


def headline(metric: str, period: str | None, *given: str) -> float:
    given = (*given, "portfolio.quarters=21")  # to the end of 2030: a shorter horizon changes no quarter
    if period is None:
        return over_path(metric, "mean", *given, paths=1024)
    return total(metric, period, "mean", *given, paths=1024)


@pytest.mark.parametrize("name", MOVES)
def test_stresses_and_worlds_move_their_headline(name):
    metric, period, least = MOVES[name]
    group = "stress" if name in STRESSES else "world"
    moved = headline(metric, period, "openai", f"{group}={name}") - headline(metric, period, "openai")
    assert moved / least >= 1.0, moved


def test_closing_the_talks_brings_the_equity():
    """10bn on the half of the paths on which the talks do not close in portfolio openai."""
    more = headline("total_inflows", None, "openai_amazon") - headline("total_inflows", None, "openai")
    assert more == pytest.approx(5.0, abs=0.7)


def test_show_explains_the_announced_total_line_by_line():
    from offtake.press import reconcile

    lines = reconcile(offtake.load("openai"))
    assert lines is not None
    for line in lines["counted"][:4]:
        assert line["difference_bn"] == pytest.approx(0.0, abs=1e-3)
    bridge = sum(step["bn"] for step in lines["bridge"])
    assert lines["model_bn"] + bridge == pytest.approx(lines["announced_bn"])
    assert sum(line["press_bn"] for line in lines["counted"]) == pytest.approx(1400.0)
    assert reconcile(offtake.load("anthropic", ["world=anthropic"])) is None


def _terms_by_deal(plan):
    """Slip, size and rungs of 64 paths, by deal."""
    from offtake_kernels.tile_numpy import Tile

    tile = Tile(plan, 0, 64)
    found = {}
    for group, terms in zip(plan.groups, tile.terms, strict=True):
        for row, number in enumerate(group.deals):
            drawn = (terms["slip"], terms["size"], terms["realised_rungs"] + tile.zero)
            found[plan.deal_names[number]] = [value[min(row, len(value) - 1)].tolist() for value in drawn]
    return found


def test_adding_google_leaves_every_other_deals_terms_unchanged():
    without = _terms_by_deal(compile_study(study("openai", "~portfolio.deals.google")).plan)
    all_deals = _terms_by_deal(compile_study(study("openai")).plan)
    assert set(all_deals) - set(without) == {"google"}
    for name, terms in without.items():
        assert terms == all_deals[name], name
