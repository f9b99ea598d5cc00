"""What a path costs, counted in the traced graphs: the same for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import philox, trace
from .graph import LANES, Graph, Value, reachable
from .layout import Plan
from .ops_graph import CallOps, Functions, record
from .trees import leaves

# What names an array or looks at its bits, and computes nothing.
_FREE = {"constant", "input", "row", "stack", "bits", "from_bits"}
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """Of one path. operations: of float32, integers and flags, those of Philox apart; words: drawn by Philox,
    32 bits each; values: recorded, float32 each.
    """

    operations: int
    words: int
    values: int

    @property
    def bytes(self) -> int:
        """What must be moved: each recorded value is written once, and read once by the tally."""
        return 2 * _FLOAT_BYTES * self.values


def cost_of(plan: Plan) -> Cost:
    """The cost of a path of a plan: every stage as often as a path goes through it."""
    counter = _Counter()
    begun = trace.begin(plan, counter.ops)
    terms, state = begun.after["terms"], begun.after["state"]
    counter.add([*leaves(terms), *leaves(state)], begun.graph, 1)
    if plan.history:
        before = trace.quarter(plan, counter.ops, terms, state, history=True)
        counter.add(_left_behind(plan, before), before.graph, plan.history)
    quarter = trace.quarter(plan, counter.ops, terms, state, history=False)
    found = trace.results(plan, quarter)[0]
    counter.add(_left_behind(plan, quarter), quarter.graph, plan.quarters)
    if plan.series_crc:
        drawn = trace.words(plan, counter.ops)
        counter.add(list(leaves(drawn.after)), drawn.graph, -(-plan.quarters // philox.WORDS))
        moved = trace.world_step(plan, counter.ops, state["world"])
        counter.add([new for _, new in trace.updates(moved)], moved.graph, plan.quarters - 1)
    ended = trace.end(plan, counter.ops, terms, state, found["ends"])
    finals = [row for rows in ended.recorded.values() for row in rows]
    counter.add(finals, ended.graph, 1)
    recorded = sum(value.constant is None for value in found["recorded"])
    varying = sum(ended.graph.constant(value).constant is None for value in finals)
    return Cost(counter.operations, counter.words, recorded * plan.quarters + varying)


def _left_behind(plan: Plan, traced: trace.Traced) -> list[Value]:
    """What a quarter stores or records."""
    return [*(new for _, new in trace.updates(traced)), *leaves(trace.results(plan, traced)[0])]


class _Counter:
    """Operations and words of stages. Functions are counted once and called often."""

    def __init__(self) -> None:
        self.operations = self.words = 0
        self._functions: Functions = {}
        self._sizes: dict[str, int] = {}

    def ops(self, graph: Graph) -> CallOps:
        """The vocabulary in which a stage is to be traced."""
        return CallOps(graph, self._functions)

    def add(self, results: Sequence[object], graph: Graph, times: int) -> None:
        """Counts what results need, so many times."""
        for value in reachable([graph.constant(result) for result in results]):
            if value.op in _FREE or value.constant is not None or LANES not in value.shape:
                continue
            elements = times * (value.shape[0] if len(value.shape) > 1 else 1)
            name = value.op.partition("call ")[2].split()
            if name[:1] == ["philox"]:
                self.words += elements
            else:
                self.operations += elements * (self._size(name[0]) if name else 1)

    def _size(self, name: str) -> int:
        if name not in self._sizes:
            results = record(*self._functions[name], self._functions)[1]
            computed = [v.op for v in reachable(results) if v.op not in _FREE and v.constant is None]
            self._sizes[name] = sum(
                self._size(op.split()[1]) if op.startswith("call ") else 1 for op in computed
            )
        return self._sizes[name]
