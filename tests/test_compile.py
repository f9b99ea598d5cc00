"""Plans: every parameter is in the layout's table, shapes group deals, names key the draws."""

import numpy as np
import pytest
from simple import deal, quarter_date, study
from studies import random_study

import offtake
from offtake.compile import compile_study, stream_of
from offtake.errors import InputError
from offtake_kernels import layout


def assert_documented(group: layout.Group) -> None:
    assert set(group.parameters) <= set(layout.DEAL_PARAMETERS)
    for segment in group.segments:
        assert set(segment) <= set(layout.SEGMENT_PARAMETERS)
    for leg, numbers in zip(group.features.legs, group.legs, strict=True):
        allowed = set(layout.LEG_PARAMETERS[leg.kind])
        if leg.kind in ("commitment", "purchase"):
            allowed |= set(layout.LEG_PARAMETERS["index"])
        assert set(numbers) <= allowed, leg.kind


@pytest.mark.parametrize("seed", range(40))
def test_every_parameter_is_in_the_table_and_float32(seed):
    plan = compile_study(offtake.load(random_study(seed))).plan
    for group in plan.groups:
        assert_documented(group)
        for name, column in group.parameters.items():
            assert column.dtype == np.float32, name
            assert column.shape == (len(group.deals), 1), name
    assert sorted(number for group in plan.groups for number in group.deals) == list(
        range(len(plan.deal_names))
    )


def test_the_shipped_portfolio_too():
    plan = compile_study(offtake.load("openai")).plan
    assert sum(len(group.deals) for group in plan.groups) == len(plan.deal_names)
    for group in plan.groups:
        assert_documented(group)


def test_deals_of_one_shape_share_a_group_and_others_do_not():
    pays = {"rent": {"kind": "commitment", "total": 8.0}}
    deals = {
        "a": deal(pays=pays),
        "b": deal(pays=pays, term=9, slip=2.0, start=quarter_date(2)),
        "c": deal(pays={"rent": {**pays["rent"], "prepay": 0.1}}),
        "d": deal(pays=pays, cancel={"hazard": 0.1}),
    }
    groups = compile_study(study(deals)).plan.groups
    assert sorted(group.deals for group in groups) == [(0, 1), (2,), (3,)]


def test_what_a_portfolio_does_not_use_is_not_drawn():
    plan = compile_study(study({"a": deal()})).plan
    assert plan.streams.names == ()
    assert plan.series_crc == ()
    assert plan.history == 0


def test_streams_are_keyed_by_what_is_drawn():
    slip = {"dist": "expon", "mean": 1.0}
    loading = {"supply_chain": 0.2, "region": 0.2}
    deals = {"x": deal(slip=slip, region="us", slip_loading=loading, default={"hazard": 0.1})}
    plan = compile_study(study(deals, factors={"revenue": {"volatility": 0.1}})).plan
    assert set(plan.streams.names) == {"deal/x/slip", "supply_chain", "region/us", "deal/x/default"}
    assert plan.series_crc == (stream_of("factor/revenue"),)
    assert stream_of("123456789") == 0xCBF43926  # the check value of CRC-32


def test_a_commitment_without_service_to_charge_for_is_refused():
    pays = {"rent": {"kind": "commitment", "total": 8.0}}
    late = {"all": {"after": 9, "gw": 1.0}}
    message = r"portfolio\.deals\.a\.pays\.rent: the term of 8 quarters ends before"
    with pytest.raises(offtake.InputError, match=message):
        study({"a": deal(pays=pays, ladder=late, shape="step")})


@pytest.mark.parametrize("slip", [-1e30, {"quantiles": {0.1: -2000.0, 0.9: 2.0}}])
def test_a_start_too_long_ago_is_refused(slip):
    with pytest.raises(InputError, match=r"early\.start: may begin more than 400 quarters before") as raised:
        study({"late": deal(), "early": deal(slip=slip)}, quarters=4)
    assert len(raised.value.mistakes) == 1
