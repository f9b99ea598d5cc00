"""The traced program against the stages run operation by operation: the same bits, whatever was dropped."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from studies import random_study

import offtake
from offtake.compile import compile_study
from offtake.portfolio import load
from offtake_kernels import path_numpy, tile_numpy
from offtake_kernels.graph import LANES, Graph, reachable
from offtake_kernels.program_numpy import MaskOps, Program, Scratch

EXAMPLE = Path(__file__).parent / "data" / "example.yaml"
LANES_HERE = 37
FLOATS = np.array([-3.0, -0.5, 0.0, 0.25, 7.0], np.float32)


def _same(left, right) -> bool:
    left, right = (np.broadcast_to(np.asarray(a, np.float32), LANES_HERE) for a in (left, right))
    return np.array_equal(left, right, equal_nan=True)


def _differences(plan, first_path: int) -> list[str]:
    """Recorded series and path metrics on which the two skeletons disagree."""
    found = []
    with np.errstate(all="ignore"):
        recipe = path_numpy.Recipe(plan)
        program = path_numpy.Tile(recipe, first_path, LANES_HERE)
        stages = tile_numpy.Tile(plan, first_path, LANES_HERE)
        for t in range(plan.quarters):
            recorded, expected = program.step(t), stages.step(t)
            for series, place in zip(plan.quarter_series, recipe.places, strict=True):
                if not _same(recorded[place], expected[series.scope, series.metric][series.index]):
                    found.append(f"{series} in quarter {t}")
        finals, expected = program.finish(), stages.finish()
    for series in plan.path_series:
        where = series.scope, series.metric
        if not _same(finals[where][series.index], expected[where][series.index]):
            found.append(str(series))
    return found


@pytest.mark.parametrize("name", ["openai", "anthropic", str(EXAMPLE)])
def test_a_shipped_study_has_the_bits_of_its_stages(name: str):
    assert _differences(compile_study(load(name)).plan, 2**32 - 20) == []


@pytest.mark.parametrize("part", range(4))
def test_many_studies_have_the_bits_of_their_stages(part: int):
    for seed in range(50 * part, 50 * part + 50):
        assert _differences(compile_study(offtake.load(random_study(seed))).plan, 5) == [], seed


def _run(inputs, arrays, results, updates=()):
    program = Program(inputs, results, updates)
    calls, found = program.bind(FLOATS.size, arrays, Scratch(FLOATS.size))
    for call in calls:
        call()
    return found


def test_an_expression_is_computed_once():
    graph = Graph()
    x = graph.input("float", (LANES,))
    assert (x + 1.0) * (1.0 + x) is (x + 1.0) * (x + 1.0)
    assert len(reachable([(x + 1.0) * (x + 1.0)])) == 4


def test_what_adds_nothing_is_dropped():
    graph = Graph()
    ops = MaskOps(graph)
    x = graph.input("float", (2, LANES))
    flag = x < 1.0
    assert x + 0.0 is x
    assert x - 0.0 is x
    assert x * np.ones((2, 1), np.float32) is x
    assert x / 1.0 is x
    assert 0.0 - x is not x
    assert 1.0 / x is not x
    assert (x * 0.0).constant is not None
    assert ops.where(flag, x, x) is x
    assert ~~flag is flag
    assert ops.stack([x[0], x[1]]) is x
    assert ops.stack([x[1], x[0]]) is not x
    assert ops.minimum(x, x) is x


def test_a_constant_is_folded_but_one_that_varies_over_deals_still_chooses():
    graph = Graph()
    ops = MaskOps(graph)
    some = graph.constant(np.array([[True], [False]]))
    x = graph.input("float", (LANES,))
    assert (graph.constant(2.0) * 3.0).constant == 6.0
    both = graph.input("float", (2, LANES))
    arrays = [FLOATS.copy(), np.stack([FLOATS * 2, FLOATS + 1])]
    found = _run([x, both], arrays, [ops.where(some, x, 5.0), ops.where(some, x, both)])
    np.testing.assert_array_equal(found[0], [FLOATS, np.full_like(FLOATS, 5)])
    np.testing.assert_array_equal(found[1], [FLOATS, FLOATS + 1])


def test_choices_by_masks_keep_every_bit():
    graph = Graph()
    ops = MaskOps(graph)
    x, y = graph.input("float", (LANES,)), graph.input("float", (LANES,))
    flag = y > 0.0
    odd = np.array([np.nan, np.inf, -np.inf, 1e-42, -0.0], np.float32)
    other = np.array([1, -1, 1, -1, 1], np.float32)
    results = [
        ops.where(flag, x, 0.0),
        ops.where(flag, 0.0, x),
        ops.where(flag, x, y),
        ops.where(flag, 2.0, 3.0),
    ]
    expected = [np.where(other > 0, *pair) for pair in ((odd, 0), (0, odd), (odd, other), (2, 3))]
    for values, wanted in zip(_run([x, y], [odd, other], results), expected, strict=True):
        assert values.tobytes() == wanted.astype(np.float32).tobytes()


def test_inputs_move_on_together():
    """Each next value is of the old inputs, though arrays are written in place."""
    graph = Graph()
    x, y, z = (graph.input("float", (LANES,)) for _ in range(3))
    arrays = [FLOATS.copy(), FLOATS * 2, FLOATS * 4]
    (total,) = _run([x, y, z], arrays, [x + y], [(x, y), (y, x * z), (z, z + x)])
    np.testing.assert_array_equal(total, FLOATS * 3)
    np.testing.assert_array_equal(arrays[0], FLOATS * 2)
    np.testing.assert_array_equal(arrays[1], FLOATS * FLOATS * 4)
    np.testing.assert_array_equal(arrays[2], FLOATS * 5)


def test_a_result_outlives_the_buffers_of_what_it_was_made_from():
    graph = Graph()
    x = graph.input("float", (2, LANES))
    early = x[0] + x[1]
    late = early
    for step in range(8):
        late = (late * x[step % 2] + float(step)) / 3.0
    arrays = [np.stack([FLOATS, FLOATS + 1])]
    first, last = _run([x], arrays, [early, late])
    np.testing.assert_array_equal(first, FLOATS + FLOATS + 1)
    expected = first.copy()
    for step in range(8):
        expected = (expected * arrays[0][step % 2] + np.float32(step)) / np.float32(3)
    np.testing.assert_array_equal(last, expected)


def test_what_is_bound_is_freed_at_once():
    """Not when cycles are collected: a tile holds a hundred megabytes."""
    graph = Graph()
    x = graph.input("float", (LANES,))
    program = Program([x], [x * 2.0 + 1.0])
    gc.collect()
    gc.disable()
    try:
        calls, results = program.bind(FLOATS.size, [FLOATS.copy()], Scratch(FLOATS.size))
        alive = weakref.ref(results[0])
        del calls, results
        assert alive() is None
    finally:
        gc.enable()


def test_a_stage_may_not_branch_on_a_path():
    graph = Graph()
    with pytest.raises(TypeError, match="branched"):
        bool(graph.input("float", (LANES,)) > 1.0)
