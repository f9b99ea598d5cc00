"""The stage functions as data: values that record what is done to them.

A `Value` stands for an array; operators and `offtake_kernels.ops_graph` make new ones. A graph keeps one
value for each distinct expression, computes what is known, and drops what adds, multiplies or chooses
nothing. What a program never reads is never emitted, because programs are walked from their results.

The sign of zero is not part of the model: x + 0 is x, and x·0 is 0 (no stage divides by, or looks at the bits
of, a number that may be 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

# The length of an axis over paths.
LANES = -1
Kind = Literal["float", "int", "bool", "word"]
DTYPES: dict[str, type] = {"float": np.float32, "int": np.int32, "bool": np.bool_, "word": np.uint32}


class Value:
    """An array of a kind and a shape, in which LANES stands for the number of paths.

    `constant` holds its numbers where they are known; an input has no arguments. `stage`: what the graph was
    recording when it was made.
    """

    __array_ufunc__ = None  # numpy arrays on the left of an operator leave it to us
    __slots__ = ("args", "constant", "graph", "kind", "number", "op", "shape", "stage")

    kind: Kind

    def __init__(self, graph: Graph, number: int, op: str, args: tuple, kind: Kind, shape: tuple[int, ...]):
        self.graph, self.number = graph, number
        self.op, self.args, self.kind, self.shape = op, args, kind, shape
        self.stage = graph.stage
        self.constant: np.ndarray | None = None

    def __add__(self, other):
        return self.graph.binary("add", self, other)

    def __radd__(self, other):
        return self.graph.binary("add", other, self)

    def __sub__(self, other):
        return self.graph.binary("subtract", self, other)

    def __rsub__(self, other):
        return self.graph.binary("subtract", other, self)

    def __mul__(self, other):
        return self.graph.binary("multiply", self, other)

    def __rmul__(self, other):
        return self.graph.binary("multiply", other, self)

    def __truediv__(self, other):
        return self.graph.binary("divide", self, other)

    def __rtruediv__(self, other):
        return self.graph.binary("divide", other, self)

    def __and__(self, other):
        return self.graph.binary("and", self, other)

    __rand__ = __and__

    def __or__(self, other):
        return self.graph.binary("or", self, other)

    __ror__ = __or__

    def __xor__(self, other):
        return self.graph.binary("xor", self, other)

    __rxor__ = __xor__

    def __lshift__(self, other):
        return self.graph.binary("left_shift", self, other)

    def __rshift__(self, other):
        return self.graph.binary("right_shift", self, other)

    def __invert__(self):
        return self.graph.unary("not", self)

    def __lt__(self, other):
        return self.graph.binary("less", self, other)

    def __le__(self, other):
        return self.graph.binary("less_equal", self, other)

    def __gt__(self, other):
        return self.graph.binary("less", other, self)

    def __ge__(self, other):
        return self.graph.binary("less_equal", other, self)

    def __eq__(self, other):  # type: ignore[override]
        return self.graph.binary("equal", self, other)

    __hash__ = object.__hash__

    def __bool__(self):
        raise TypeError("a stage branched on a value that only a path knows")

    def __getitem__(self, row: int):
        return self.graph.row(self, row)

    def __len__(self):
        return self.shape[0]


_COMPARISONS = {"less", "less_equal", "equal"}
_COMMUTATIVE = {"add", "multiply", "and", "or", "xor", "minimum", "maximum", "equal"}
UFUNCS = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "left_shift": np.left_shift,
    "right_shift": np.right_shift,
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "not": np.invert,
    "floor": np.floor,
    "sqrt": np.sqrt,
}
_FOLDED = {
    **UFUNCS,
    "multiply_high": lambda a, b: (a.astype(np.uint64) * b.astype(np.uint64) >> np.uint64(32)).astype(
        np.uint32
    ),
    "multiply_low": np.multiply,
    "bits": lambda value: value.view(np.int32),
    "from_bits": lambda value: value.view(np.float32),
    "to_float": lambda value: value.astype(np.float32),
    "to_int": lambda value: value.astype(np.int32),
    "flag": lambda value: value.astype(np.int32),
    "mask": lambda value: -value.astype(np.int32),
    "mask_not": lambda value: value.astype(np.int32) - 1,
}


class Graph:
    """Values, each once, in the order in which they were made: arguments come before what uses them."""

    def __init__(self) -> None:
        self.stage = ""
        self.values: list[Value] = []
        self._known: dict[tuple, Value] = {}

    def input(self, kind: Kind, shape: tuple[int, ...]) -> Value:
        """A value that the caller provides."""
        return self._append("input", (), kind, shape)

    def constant(self, value: Any, kind: Kind | None = None) -> Value:
        """Known numbers: a Python number, or an array of any shape without lanes."""
        if isinstance(value, Value):
            return value
        kind = kind or _kind_of(value)
        array = np.asarray(value, dtype=DTYPES[kind])
        key = ("constant", kind, array.shape, array.tobytes())
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._append("constant", (), kind, array.shape)
            found.constant = array
        return found

    def unary(self, op: str, value: Any, kind: Kind | None = None) -> Value:
        """An operation on one value; `kind` is that of the result where it differs."""
        value = self.constant(value)
        result: Kind = kind or value.kind
        if value.constant is not None and op in _FOLDED:
            return self.constant(_FOLDED[op](value.constant), result)
        if op == "not" and value.op == "not":
            return value.args[0]
        return self._intern(op, (value,), result, value.shape)

    def binary(self, op: str, left: Any, right: Any) -> Value:
        """An operation on two values, broadcast; a Python number takes the other's kind."""
        kind: Kind = (left if isinstance(left, Value) else right).kind
        left, right = self.constant(left, kind), self.constant(right, kind)
        assert left.kind == right.kind, (op, left.kind, right.kind)
        result: Kind = "bool" if op in _COMPARISONS else left.kind
        shape = broadcast(left.shape, right.shape)
        if left.constant is not None and right.constant is not None:
            with np.errstate(all="ignore"):
                return self.constant(_FOLDED[op](left.constant, right.constant), result)
        simple = self._simplified(op, left, right, shape)
        if simple is not None:
            return simple
        if op in _COMMUTATIVE and left.number > right.number:
            left, right = right, left
        return self._intern(op, (left, right), result, shape)

    def where(self, condition: Value, if_true: Any, if_false: Any) -> Value:
        """Element-wise choice between floats."""
        condition = self.constant(condition, "bool")
        if_true, if_false = self.constant(if_true, "float"), self.constant(if_false, "float")
        shape = broadcast(condition.shape, broadcast(if_true.shape, if_false.shape))
        if condition.op == "not":
            condition, if_true, if_false = condition.args[0], if_false, if_true
        known = condition.constant
        if known is not None:
            if if_true.constant is not None and if_false.constant is not None:
                return self.constant(np.where(known, if_true.constant, if_false.constant))
            chosen = if_true if known.all() else if_false
            if (known.all() or not known.any()) and chosen.shape == shape:
                return chosen
        if if_true is if_false and if_true.shape == shape:
            return if_true
        return self._intern("where", (condition, if_true, if_false), "float", shape)

    def take(self, table: np.ndarray, index: Value) -> Value:
        """table[index], for a flat table of known numbers."""
        known = self.constant(table)
        if index.constant is not None:
            return self.constant(table.take(index.constant), known.kind)
        return self._intern("take", (known, index), known.kind, index.shape)

    def call(self, function: str, arguments: Sequence[Value], kind: Kind) -> Value:
        """A named function of each element, kept whole."""
        shape: tuple[int, ...] = ()
        for argument in arguments:
            shape = broadcast(shape, argument.shape)
        return self._intern(f"call {function}", tuple(arguments), kind, shape)

    def row(self, value: Value, row: int) -> Value:
        """One row of a value: its first axis goes."""
        row = int(row)
        if not 0 <= row < value.shape[0]:
            raise IndexError(f"row {row} of {value.shape}")
        if value.constant is not None:
            return self.constant(value.constant[row], value.kind)
        if value.op == "stack":
            return value.args[row]
        return self._intern("row", (value, row), value.kind, value.shape[1:])

    def stack(self, rows: Sequence[Any]) -> Value:
        """Rows joined along a new first axis."""
        found: list[Kind] = [row.kind for row in rows if isinstance(row, Value)]
        kind: Kind = found[0] if found else "float"
        values = [self.constant(row, kind) for row in rows]
        shape: tuple[int, ...] = ()
        for value in values:
            shape = broadcast(shape, value.shape)
        known = [np.broadcast_to(v.constant, shape) for v in values if v.constant is not None]
        if len(known) == len(values):
            return self.constant(np.stack(known), kind)
        whole = values[0].args[0] if values[0].op == "row" else None
        if whole is not None and whole.shape[0] == len(values):
            rows_of_whole = (
                v.op == "row" and v.args[0] is whole and v.args[1] == n for n, v in enumerate(values)
            )
            if all(rows_of_whole):
                return whole
        return self._intern("stack", tuple(values), kind, (len(values), *shape))

    def _simplified(self, op: str, left: Value, right: Value, shape: tuple[int, ...]) -> Value | None:
        for value, other in ((left, right), (right, left)):
            known = value.constant
            if known is None or other.shape != shape:
                continue
            if op in ("add", "or", "xor") and not known.any():
                return other
            if op in ("subtract", "left_shift", "right_shift") and value is right and not known.any():
                return other
            if op == "multiply" and (known == 1.0).all():
                return other
            if op == "divide" and value is right and (known == 1.0).all():
                return other
            if op == "multiply" and not known.any():
                return self._zeros(shape, other.kind)
            if op == "and" and value.kind == "bool":
                if known.all():
                    return other
                if not known.any():
                    return self._zeros(shape, "bool")
        if left is right and left.shape == shape and op in ("minimum", "maximum", "and", "or"):
            return left
        return None

    def _zeros(self, shape: tuple[int, ...], kind: Kind) -> Value:
        """Zeros; without lanes, for they broadcast."""
        return self.constant(np.zeros(tuple(1 if n == LANES else n for n in shape), DTYPES[kind]), kind)

    def _intern(self, op: str, args: tuple, kind: Kind, shape: tuple[int, ...]) -> Value:
        key = (op, kind, *(a.number if isinstance(a, Value) else ("row", a) for a in args))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._append(op, args, kind, shape)
        return found

    def _append(self, op: str, args: tuple, kind: Kind, shape: tuple[int, ...]) -> Value:
        value = Value(self, len(self.values), op, args, kind, shape)
        self.values.append(value)
        return value


@lru_cache(maxsize=4096)
def broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an operation on two shapes."""
    if len(left) < len(right):
        left, right = right, left
    right = (1,) * (len(left) - len(right)) + right
    return tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))


def _kind_of(value: Any) -> Kind:
    array = np.asarray(value)
    kinds: dict[str, Kind] = {"f": "float", "i": "int", "b": "bool", "u": "word"}
    return kinds[array.dtype.kind]


def reachable(results: Sequence[Value]) -> list[Value]:
    """The values that results need, arguments first."""
    wanted: set[int] = set()
    pending = list(results)
    while pending:
        value = pending.pop()
        if value.number not in wanted:
            wanted.add(value.number)
            pending.extend(a for a in value.args if isinstance(a, Value))
    return [value for value in results[0].graph.values if value.number in wanted] if results else []
