"""A traced stage as a list of numpy calls on arrays that were allocated beforehand.

`Program` decides once which buffer each value lives in: a buffer is free again after its value's last use,
and an operation may write over an argument that dies with it. `bind` ties the calls to a tile's arrays, and
running is a loop over them. numpy's `where` branches and costs 2 to 7 ns a lane on random masks, so choices
are lowered to bit masks while they are traced (`MaskOps`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from .graph import DTYPES, LANES, UFUNCS, Graph, Value, reachable
from .ops_graph import GraphOps

_ITEM_BYTES = {kind: np.dtype(dtype).itemsize for kind, dtype in DTYPES.items()}
_VIEWS = {"row", "bits", "from_bits"}
_LOW_BITS = np.int32(0x7FFFFFFF)
# Number of the buffer in which a condition is widened to a mask.
_PATTERN = -1
_TOP_BIT = np.int32(-0x80000000)
Call = Callable[[], object]
# Where each value lives: a slot of the scratch, the input that it replaces, or None for an own array.
Slots = dict[int, tuple[int, int] | Value | None]


class MaskOps(GraphOps):
    """The recording vocabulary with choices as bit masks: an all-ones pattern where a condition holds."""

    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.where = self._where

    def _where(self, condition, if_true, if_false):
        chosen = self._graph.where(condition, if_true, if_false)
        if chosen.op != "where":
            return chosen
        condition, if_true, if_false = chosen.args
        kept, other = self.bits(if_true), self.bits(if_false)
        if other.constant is not None and not other.constant.any():
            return self.from_bits(kept & self._graph.unary("mask", condition, "int"))
        if kept.constant is not None and not kept.constant.any():
            return self.from_bits(other & self._graph.unary("mask_not", condition, "int"))
        return self.from_bits(((kept ^ other) & self._graph.unary("mask", condition, "int")) ^ other)


class Program:
    """Calls that compute `results` from `inputs`, and move inputs on: `updates` are (input, its next value).

    Everything is in the kinds of `graph.DTYPES`. Inputs that are not updated are only read.
    """

    def __init__(
        self,
        inputs: Sequence[Value],
        results: Sequence[Value],
        updates: Sequence[tuple[Value, Value]] = (),
    ):
        self.inputs, self.results = list(inputs), list(results)
        self._updates = [(old, new) for old, new in updates if old is not new]
        wanted = [*results, *(new for _, new in self._updates)]
        computed = [v for v in reachable(wanted) if v.op not in ("constant", "input", *_VIEWS)]
        self._computed = computed
        self._slots = _allocate(computed, wanted, self._updates)

    def bind(
        self, lanes: int, arrays: Sequence[np.ndarray], scratch: Scratch
    ) -> tuple[list[Call], list[np.ndarray]]:
        """(calls, arrays of the results) for `lanes` paths; `arrays` are those of the inputs, in their
        shapes.
        """
        located = {value.number: array for value, array in zip(self.inputs, arrays, strict=True)}
        array = _Arrays(self._slots, located, scratch, lanes).of
        calls = [call for value in self._computed for call in _calls(value, array, scratch, lanes)]
        moved = [
            (array(old), array(new)) for old, new in self._updates if self._slots.get(new.number) is not old
        ]
        # An input that moves to another input's place is read before that one is overwritten.
        moved.sort(key=lambda pair: not any(pair[1] is each for each in arrays))
        calls += [partial(np.copyto, target, source) for target, source in moved]
        return calls, [array(value) for value in self.results]


class Scratch:
    """Buffers by (bytes a lane, number), shared by programs that do not run at the same time."""

    def __init__(self, most_lanes: int):
        self._most_lanes = most_lanes
        self._buffers: dict[tuple[int, int], np.ndarray] = {}
        self._full: dict[bytes, np.ndarray] = {}

    def array(self, slot: tuple[int, int], shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """A buffer, seen in this shape."""
        if slot not in self._buffers:
            self._buffers[slot] = np.empty(slot[0] * self._most_lanes, np.uint8)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return self._buffers[slot][:size].view(dtype).reshape(shape)

    def full(self, constant: np.ndarray, lanes: int) -> np.ndarray:
        """A row of one number: numpy's minimum and maximum take twice as long with a scalar."""
        key = constant.tobytes()
        if key not in self._full:
            self._full[key] = np.full(self._most_lanes, constant, constant.dtype)
        return self._full[key][:lanes]


class _Arrays:
    """Where the values of a program lie, found once each: `located` begins with those of its inputs.

    Not functions that call one another: those would keep a tile's memory until cycles are collected.
    """

    def __init__(self, slots: Slots, located: dict[int, np.ndarray], scratch: Scratch, lanes: int):
        self._slots, self._located, self._scratch, self._lanes = slots, located, scratch, lanes

    def of(self, value: Value) -> np.ndarray:
        """The array of a value."""
        found = self._located.get(value.number)
        if found is None:
            found = self._located[value.number] = self._locate(value)
        return found

    def _locate(self, value: Value) -> np.ndarray:
        if value.constant is not None:
            return value.constant
        if value.op == "row":
            return self.of(value.args[0])[value.args[1]]
        if value.op in _VIEWS:
            return self.of(value.args[0]).view(DTYPES[value.kind])
        slot, dtype = self._slots[value.number], DTYPES[value.kind]
        if isinstance(slot, Value):
            return self.of(slot)
        shape = tuple(self._lanes if n == LANES else n for n in value.shape)
        return np.empty(shape, dtype) if slot is None else self._scratch.array(slot, shape, dtype)


def _root(value: Value) -> Value:
    """The value whose memory a view shows."""
    while value.op in _VIEWS:
        value = value.args[0]
    return value


def _allocate(
    computed: Sequence[Value], wanted: Sequence[Value], updates: Sequence[tuple[Value, Value]]
) -> Slots:
    last: dict[int, int] = {}
    for position, value in enumerate(computed):
        last.update((_root(a).number, position) for a in value.args if isinstance(a, Value))
    last.update((_root(value).number, len(computed)) for value in wanted)
    replaces = {new.number: old for old, new in reversed(updates) if old.shape == new.shape}
    slots: Slots = {}
    free: dict[int, list[tuple[int, int]]] = {}
    made: dict[int, int] = {}

    def release(value: Value, position: int) -> None:
        slot = slots.get(value.number)
        if isinstance(slot, tuple) and last[value.number] == position:
            free[slot[0]].append(slot)
            last[value.number] = -1

    for position, value in enumerate(computed):
        roots = [_root(a) for a in value.args if isinstance(a, Value)]
        size = _bytes_a_lane(value)
        old = replaces.get(value.number)
        if size is None:
            slots[value.number] = None
            continue
        if value.op != "stack":
            for root in roots:
                if _bytes_a_lane(root) == size:
                    release(root, position)
        if old is not None and last.get(old.number, -1) <= position and value.op != "stack":
            slots[value.number] = old
        else:
            if not free.setdefault(size, []):
                made[size] = made.get(size, -1) + 1
                free[size].append((size, made[size]))
            slots[value.number] = free[size].pop()
        for root in roots:
            release(root, position)
    return slots


def _bytes_a_lane(value: Value) -> int | None:
    """Bytes that a path takes in an array; None for an array without paths. LANES is -1."""
    if LANES not in value.shape:
        return None
    return -math.prod(value.shape) * _ITEM_BYTES[value.kind]


def _calls(value: Value, array: Callable[[Value], np.ndarray], scratch: Scratch, lanes: int) -> list[Call]:
    """The numpy calls of one operation."""
    out = array(value)
    if value.op == "stack":
        return [partial(np.copyto, out[row], array(part)) for row, part in enumerate(value.args)]
    operands = [array(a) for a in value.args]
    first = operands[0]
    if value.op in ("minimum", "maximum") and out.shape[-1:] == (lanes,):
        operands = [
            scratch.full(a.constant, lanes) if a.constant is not None and a.shape == () else array(a)
            for a in value.args
        ]
    if value.op in UFUNCS:
        return [partial(UFUNCS[value.op], *operands, out=out)]
    if value.op in ("mask", "mask_not"):
        size = _bytes_a_lane(value)
        pattern = (
            np.empty(first.shape, np.int8)
            if size is None
            else scratch.array((size, _PATTERN), first.shape, np.int8)
        )
        flags = first.view(np.int8)
        if value.op == "mask":
            return [partial(np.negative, flags, pattern), partial(np.copyto, out, pattern)]
        return [partial(np.subtract, flags, np.int8(1), pattern), partial(np.copyto, out, pattern)]
    if value.op == "low_bits":
        return [partial(np.bitwise_and, first.view(np.int32), _LOW_BITS, out)]
    if value.op == "top_bit_clear":
        return [partial(np.invert, first.view(np.int32), out), partial(np.bitwise_and, out, _TOP_BIT, out)]
    assert value.op in ("to_float", "to_int", "flag", "word_to_float"), value.op
    return [partial(np.copyto, out, first, "unsafe")]
