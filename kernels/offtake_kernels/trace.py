"""The quarter of a plan as graphs: what every printed or interpreted backend starts from.

A state is a tree of arrays (see `model.quarter`); its leaves, in the order of `trees.leaves`, are inputs, and
their next values are found by following the stages once.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from .graph import LANES, Graph, Value, broadcast
from .layout import Plan
from .model import quarter as stages
from .model import world
from .ops_graph import GraphOps
from .trees import leaves, transform


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


def quarter(
    plan: Plan, make_ops: type[GraphOps], terms: Any, state: Any, lagged: list, history: bool
) -> Traced:
    """A quarter of the study, or of history; arguments are examples whose last axis is 1 or the paths."""
    graph = Graph()
    ops = make_ops(graph)
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


def world_step(plan: Plan, make_ops: type[GraphOps], state: Any) -> Traced:
    """The world's move to the next quarter."""
    graph = Graph()
    state = inputs(graph, state)
    growth = graph.input("float", plan.world.growth.shape[1:])
    words = {"factors": graph.input("word", (len(plan.world.row), LANES))}
    if plan.world.regime:
        words["regime"] = graph.input("word", (LANES,))
    after = world.step(make_ops(graph), plan, state, growth, words)
    return Traced(graph, {"state": state, "scalars": {"growth": growth}, "words": words}, after, {}, [])


def inputs(graph: Graph, tree: Any) -> Any:
    """The tree with an input for each array over paths, and a constant for each other."""

    def leaf(example):
        array = np.asarray(example)
        if array.ndim == 0 or array.shape[-1] == 1:
            return graph.constant(array)
        kinds: dict[str, Any] = {"f": "float", "b": "bool", "i": "int"}
        return graph.input(kinds[array.dtype.kind], (*array.shape[:-1], LANES))

    return transform(leaf, tree)


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
