"""The `ops` namespace of the stage functions on recorded values; see `graph`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .graph import Graph, Kind, Value

Functions = dict[str, tuple[Callable, list[Kind]]]


class GraphOps:
    """Stage functions called with this and with values of `graph` record themselves."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self.where = graph.where
        self.stack = graph.stack
        self.take = graph.take

    def stage(self, name: str, deals: Sequence[int] = ()) -> None:
        """Names what is recorded from here on."""
        self._graph.stage = f"{name}: deal {', '.join(map(str, deals))}" if deals else name

    def minimum(self, left, right):
        return self._two("minimum", left, right)

    def maximum(self, left, right):
        return self._two("maximum", left, right)

    def _two(self, op: str, left, right):
        if isinstance(right, list):
            right = self._graph.stack(right)
        if not isinstance(left, Value) and not isinstance(right, Value):
            left = self._graph.constant(left)
        return self._graph.binary(op, left, right)

    def floor(self, value):
        return self._graph.unary("floor", value)

    def sqrt(self, value):
        return self._graph.unary("sqrt", value)

    def to_float(self, value):
        return self._graph.unary("to_float", value, "float")

    def to_int(self, value):
        return self._graph.unary("to_int", value, "int")

    def flag(self, condition):
        return self._graph.unary("flag", condition, "int")

    def bits(self, value):
        return self._graph.unary("bits", value, "int")

    def from_bits(self, pattern):
        return self._graph.unary("from_bits", pattern, "float")

    def word(self, value):
        return value if isinstance(value, Value) else self._graph.constant(value, "word")

    def multiply_words(self, left, right: int):
        factor = self._graph.constant(right, "word")
        return tuple(
            self._graph.binary(op, self.word(left), factor) for op in ("multiply_high", "multiply_low")
        )

    def low_bits(self, words):
        return self._graph.unary("low_bits", words, "int")

    def top_bit_clear(self, words):
        return self._graph.unary("top_bit_clear", words, "int")

    def word_to_float(self, words):
        return self._graph.unary("word_to_float", words, "float")


class CallOps(GraphOps):
    """The same, keeping some functions whole; `functions` are the bodies of those called, by name, each with
    the kinds of its arguments.
    """

    def __init__(self, graph: Graph, functions: Functions):
        super().__init__(graph)
        self.functions = functions

    def call(self, name: str, body: Callable, *arguments):
        """The value that a function returns, or the tuple; recorded as its body where every argument is
        known.
        """
        graph = self._graph
        known = [
            argument if isinstance(argument, Value) else graph.constant(argument) for argument in arguments
        ]
        if all(value.constant is not None for value in known):
            return body(GraphOps(graph), *known)
        kinds: list[Kind] = [value.kind for value in known]
        results = record(body, kinds, self.functions)[1]
        # After those that it calls.
        self.functions.setdefault(name, (body, kinds))
        if len(results) == 1:
            return graph.call(name, known, results[0].kind)
        return tuple(graph.call(f"{name} {part}", known, value.kind) for part, value in enumerate(results))


def record(body: Callable, kinds: Sequence[Kind], functions: Functions) -> tuple[list[Value], list[Value]]:
    """Arguments and results of a function of single elements, on a graph of its own; the functions that it
    calls join `functions`.
    """
    graph = Graph()
    arguments = [graph.input(kind, ()) for kind in kinds]
    results = body(CallOps(graph, functions), *arguments)
    return arguments, list(results) if isinstance(results, tuple) else [results]
