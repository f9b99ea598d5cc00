"""The JAX backend: devices, threads, segments, and nothing of JAX's settings changed; `test_parity` has its
bits.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import simple

import offtake
from offtake import hal
from offtake.compile import compile_study
from offtake.errors import DeviceError
from offtake.hal import jax_device
from offtake.portfolio import load
from offtake.study import DeviceChoice
from offtake_kernels import partition, trace
from offtake_kernels.graph import LANES, Graph, Value, reachable
from offtake_kernels.ops_graph import GraphOps

EXAMPLE = Path(__file__).parent / "data" / "example.yaml"
PATHS = 3000

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")


def _device(name: str, **choice):
    return hal.open_device(DeviceChoice.model_validate({"name": name, **choice}))


def _digest(plan, device: str) -> str:
    return _device(device).run(plan, 2**32 - 1000, PATHS, 0)[0].digest()


def _small():
    fee = {"kind": "commitment", "total": 10.0}
    cloud = simple.deal(slip={"quantiles": {0.1: 0.0, 0.9: 2.0}}, pays={"fee": fee})
    revenue = {"initial": 4.0, "volatility": 0.3}
    return simple.study(
        {"cloud": cloud},
        quarters=5,
        factors={"revenue": revenue},
        settings={"paths": PATHS, "keep_paths": 10},
    )


@needs_jax
def test_threads_launches_and_kept_paths_do_not_change_the_answer():
    study = _small()
    plan = compile_study(study).plan
    expected, kept = _device("numpy").run(plan, 0, PATHS, 10)
    for choice in ({"threads": 1}, {"threads": 3, "launch_paths": 700}, {"launch_paths": 3000}):
        tally, found = _device("jax", **choice).run(plan, 0, PATHS, 10)
        assert tally.digest() == expected.digest(), choice
        assert found is not None
        assert kept is not None
        for metric, values in kept.quarter_values.items():
            np.testing.assert_array_equal(found.quarter_values[metric], values)


@needs_jax
@pytest.mark.parametrize("world", [{}, {"regime": {"bust_rate": 0.5, "recovery_rate": 1.0}}])
def test_a_world_without_random_factors(world):
    fee = {"kind": "commitment", "total": 10.0}
    study = simple.study({"cloud": simple.deal(pays={"fee": fee})}, quarters=5, world=world)
    plan = compile_study(study).plan
    assert _digest(plan, "jax") == _digest(plan, "numpy")


@needs_jax
def test_what_no_path_changes_is_remembered_for_every_path():
    """Chips of limited life with nothing random: what they deliver has no axis over paths."""
    study = offtake.load("demo", ["world=demo", "study.paths=100"], announced=True)
    assert offtake.run(study, device="jax").summary_hash == offtake.run(study, device="numpy").summary_hash


@needs_jax
def test_nothing_of_jax_is_changed():
    import jax

    study, flags = _small(), os.environ.get("XLA_FLAGS")
    before = dict(jax.config.values)
    strict = offtake.run(study, device="jax").manifest["summary_hash"]
    assert dict(jax.config.values) == before
    assert os.environ.get("XLA_FLAGS") == flags
    jax.config.update("jax_enable_x64", True)
    try:
        assert offtake.run(study, device="jax").manifest["summary_hash"] == strict
    finally:
        jax.config.update("jax_enable_x64", before["jax_enable_x64"])
    assert offtake.run(study, device="numpy").manifest["summary_hash"] == strict


@needs_jax
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("jax_disable_jit", True),
        ("jax_transfer_guard", "disallow_explicit"),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_debug_nans", True),
    ],
)
def test_the_settings_of_the_program_around_do_no_harm(setting, value):
    import jax

    study, before = _small(), getattr(jax.config, setting)
    strict = offtake.run(study, device="numpy").summary_hash
    jax.config.update(setting, value)
    try:
        assert offtake.run(study, device="jax").summary_hash == strict
        two = DeviceChoice(name="jax", threads=2)
        assert offtake.run(study, device=two).summary_hash == strict
        assert offtake.hal.open_device(two).limits().bytes > 0
        assert getattr(jax.config, setting) == value
    finally:
        jax.config.update(setting, before)


def test_without_jax_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(jax_device.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"pip install 'offtake\[jax\]'"):
        hal.open_device(DeviceChoice(name="jax"))
    assert hal.settle(DeviceChoice(), 1e9).name == "numpy"


@needs_jax
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(DeviceError, match=r"device\.index=99"):
        hal.open_device(DeviceChoice(name="jax", index=(99,)))


@needs_jax
def test_auto_compiles_only_what_is_worth_it():
    assert hal.settle(DeviceChoice(), 1.0).name == "numpy"
    assert hal.settle(DeviceChoice(), 1e6).name == "jax"
    assert hal.settle(DeviceChoice(name="null"), 1e6).name == "null"


def _cut_graph():
    graph = Graph()
    x = graph.input("float", (LANES,))
    dear = x
    for step in range(12):
        dear = (dear * x + float(step + 1)) / 3.0
    return x, dear, [dear + 1.0, dear * 2.0, x + 2.0]


def test_a_costly_value_with_two_users_is_stored_once():
    x, dear, results = _cut_graph()
    segments = partition.cut([x], results)
    assert [value.number for segment in segments for value in segment.stored].count(dear.number) == 1
    assert all(dear.number not in {v.number for v in segment.between} for segment in segments[1:])


def test_segments_need_only_what_came_before_and_store_every_result():
    plan = compile_study(load(str(EXAMPLE))).plan
    traced = trace.begin(plan, GraphOps)
    inputs = [traced.inputs["words"]["high"], traced.inputs["words"]["low"], traced.inputs["zero"]]
    results = [v for v in reachable(traced.graph.values[-40:]) if v.op not in ("input", "constant")][-30:]
    known = {value.number for value in inputs}
    for segment in partition.cut(inputs, results):
        assert {value.number for value in segment.needed} <= known
        inside = known | {v.number for v in segment.between}
        for value in segment.between:
            assert all(a.number in inside for a in value.args if isinstance(a, Value))
        known |= {value.number for value in segment.stored}
    assert {value.number for value in results} <= known
