"""The quarter of a plan as graphs: what every printed or interpreted backend starts from.

A state is a tree of arrays (see `model.quarter`); its leaves, in the order of `trees.leaves`, are inputs, and
their next values are found by following the stages once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import elementary, philox
from .graph import LANES, Graph, Value, broadcast
from .layout import Plan
from .model import quarter as stages
from .model import world
from .ops_graph import GraphOps
from .trees import leaves, transform

# The vocabulary that records on a graph.
MakeOps = Callable[[Graph], GraphOps]


@dataclass(frozen=True)
class Traced:
    """A stage traced.

    inputs: trees by name: terms, state, lagged and words are arrays over paths (or constants that all paths
    share), scalars are the quarter's numbers. after: the state's next values. recorded, deliveries: as
    `model.quarter` returns them; a Python number among them is a constant.
    """

    graph: Graph
    inputs: dict[str, Any]
    after: Any
    recorded: dict
    deliveries: list


class Draws:
    """One-time draws of a path as recorded values; see `layout.Streams`."""

    def __init__(self, ops: GraphOps, plan: Plan, high: Value, low: Value, zero: Value):
        streams = plan.streams
        self._ops, self._rows, self._shared_rows, self.zero = ops, streams.rows, streams.shared, zero
        self._scores, self._words = [], []
        ops.stage("draws")
        if streams.scores:
            scores = elementary.normal(ops, self._first(plan, streams.crc[: streams.scores], high, low))
            self._scores = [scores[row] for row in range(streams.scores)]
        if len(streams.crc) > streams.scores:
            words = self._first(plan, streams.crc[streams.scores :], high, low)
            self._words = [words[row] for row in range(words.shape[0])]

    def _first(self, plan: Plan, crc: np.ndarray, high: Value, low: Value) -> Value:
        """The first word of each stream [streams, lanes]."""
        streams = self._ops.word(crc[:, None])
        return philox.draw_words(self._ops, plan.seed, streams, self._ops.word(0), high, low)[0]

    def score(self, group: int, role: str):
        """Normal scores [deals, lanes] of a group's own draws in a role; group -1 is the world."""
        return self._ops.stack(self._scores[self._rows[group, role]])

    def word(self, group: int, role: str):
        """Raw words [deals, lanes]."""
        return self._ops.stack(self._words[self._rows[group, role]])

    def shared(self, rows: tuple[int, ...]):
        """Scores of shared causes, one row per deal."""
        return self._ops.stack([self._scores[row] for row in rows])

    def supply_chain(self):
        """The score common to all slips."""
        return self._scores[self._shared_rows["supply_chain"]]


def begin(plan: Plan, make_ops: MakeOps) -> Traced:
    """Terms and opening state of a path. `after` is {"terms", "state"}."""
    graph = Graph()
    ops = make_ops(graph)
    high, low, zero = (
        graph.input("word", (LANES,)),
        graph.input("word", (LANES,)),
        graph.input("float", (LANES,)),
    )
    terms, state = stages.begin(ops, plan, Draws(ops, plan, high, low, zero))
    trees = {"words": {"high": high, "low": low}, "zero": zero}
    return Traced(
        graph,
        trees,
        {"terms": transform(graph.constant, terms), "state": transform(graph.constant, state)},
        {},
        [],
    )


def words(plan: Plan, make_ops: MakeOps) -> Traced:
    """The words of four quarters, for a plan that draws any. `after` is a list of four, each as `world_step`
    takes them.
    """
    graph = Graph()
    ops = make_ops(graph)
    high, low, block = graph.input("word", (LANES,)), graph.input("word", (LANES,)), graph.input("word", ())
    crc = ops.word(np.array(plan.series_crc, np.uint32)[:, None])
    factors, quarters = len(plan.world.row), []
    ops.stage("words of four quarters")
    for drawn in philox.draw_words(ops, plan.seed, crc, block, high, low):
        rows = [drawn[row] for row in range(len(plan.series_crc))]
        named = {"factors": graph.stack(rows[:factors])} if factors else {}
        quarters.append({**named, "regime": rows[-1]} if plan.world.regime else named)
    return Traced(graph, {"words": {"high": high, "low": low}, "block": block}, quarters, {}, [])


def end(plan: Plan, make_ops: MakeOps, terms: Any, state: Any, ends: list) -> Traced:
    """What a path records after the last quarter: `recorded`."""
    graph = Graph()
    trees = {name: inputs(graph, tree) for name, tree in (("terms", terms), ("state", state), ("ends", ends))}
    ops, table = make_ops(graph), plan.world.table
    ops.stage("world")
    view = world.levels(ops, plan, trees["state"]["world"], table[-1], table[0])
    recorded = stages.end(ops, plan, trees["terms"], trees["state"], trees["ends"], view)
    return Traced(graph, trees, None, recorded, [])


def quarter(plan: Plan, make_ops: MakeOps, terms: Any, state: Any, history: bool) -> Traced:
    """A quarter of the study, or of history; arguments are examples whose last axis is 1 or the paths."""
    graph = Graph()
    ops = make_ops(graph)
    limited = [group.features.life is not None for group in plan.groups]
    lagged = [remembered(plan, n, 2) if lives else None for n, lives in enumerate(limited)]
    trees = {
        name: inputs(graph, tree) for name, tree in (("terms", terms), ("state", state), ("lagged", lagged))
    }
    vintages = [None if g.vintage is None else graph.input("float", (len(g.deals), 1)) for g in plan.groups]
    scalars: dict[str, Any] = {"t": graph.input("float", ()), "vintages": vintages}
    zero = graph.constant(0.0)
    recorded: dict = {}
    if history:
        after, deliveries = stages.history_quarter(
            ops, plan, trees["terms"], trees["state"], zero, scalars["t"], vintages, trees["lagged"]
        )
    else:
        scalars["discount"] = graph.input("float", ())
        scalars["table"] = [graph.input("float", ()) for _ in plan.world.names]
        after, recorded, deliveries = stages.quarter(
            ops, plan, trees["terms"], trees["state"], zero, SimpleNamespace(**scalars), trees["lagged"]
        )
    return Traced(graph, {**trees, "scalars": scalars}, after, recorded, deliveries)


def world_step(plan: Plan, make_ops: MakeOps, state: Any) -> Traced:
    """The world's move to the next quarter."""
    graph = Graph()
    state = inputs(graph, state)
    growth = [graph.input("float", plan.world.growth.shape[2:]) for _ in range(2)]
    words = {"factors": graph.input("word", (len(plan.world.row), LANES))} if plan.world.row else {}
    if plan.world.regime:
        words["regime"] = graph.input("word", (LANES,))
    ops = make_ops(graph)
    ops.stage("world, to the next quarter")
    after = world.step(ops, plan, state, growth, words)
    return Traced(graph, {"state": state, "scalars": {"growth": growth}, "words": words}, after, {}, [])


def inputs(graph: Graph, tree: Any) -> Any:
    """The tree with an input for each array over paths, and a constant for each other: of example arrays, or
    of another graph's values.
    """

    def leaf(example):
        if isinstance(example, Value):
            known = example.constant
            return graph.input(example.kind, example.shape) if known is None else graph.constant(known)
        array = np.asarray(example)
        if array.ndim == 0 or array.shape[-1] == 1:
            return graph.constant(array)
        kinds: dict[str, Any] = {"f": "float", "b": "bool", "i": "int"}
        return graph.input(kinds[array.dtype.kind], (*array.shape[:-1], LANES))

    return transform(leaf, tree)


def remembered(plan: Plan, number: int, lanes: int) -> dict[str, np.ndarray]:
    """Zeros for what a group of limited life delivered in a quarter, by name: [deals, lanes]."""
    group = plan.groups[number]
    ages = group.features.improves and group.features.layer != "site"
    shape = len(group.deals), lanes
    return {name: np.zeros(shape, np.float32) for name in (("mean", "vintage_mean") if ages else ("mean",))}


def results(plan: Plan, traced: Traced) -> tuple[dict[str, Any], list[int]]:
    """What a quarter leaves behind, and which of its recorded values each series of the plan is.

    remembered: deliveries of groups of limited life. Of the study's own quarters also: recorded, values each
    once; ends: start and scheduled end of each group.
    """
    kept = {
        n: {name: delivery[name] for name in remembered(plan, n, 0)}
        for n, delivery in enumerate(traced.deliveries)
        if plan.groups[n].features.life is not None
    }
    if not traced.recorded:
        return {"remembered": kept}, []
    found = (traced.recorded[s.scope, s.metric][s.index] for s in plan.quarter_series)
    values = [traced.graph.constant(value) for value in found]
    once = list(dict.fromkeys(values))
    place = {value.number: n for n, value in enumerate(once)}
    ends = [{"start": d["start"], "scheduled_end": d["scheduled_end"]} for d in traced.deliveries]
    return {"remembered": kept, "recorded": once, "ends": ends}, [place[value.number] for value in values]


def updates(traced: Traced) -> list[tuple[Value, Value]]:
    """Each leaf of the state that changes, and its next value."""
    pairs = []
    for old, new in zip(leaves(traced.inputs["state"]), leaves(traced.after), strict=True):
        value = traced.graph.constant(new, old.kind)
        assert broadcast(old.shape, value.shape) == old.shape, "a state must have room for every path"
        if value is not old:
            assert old.op == "input", "a state changes that all paths share"
            pairs.append((old, value))
    return pairs
