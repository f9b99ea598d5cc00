"""A traced stage as one XLA executable.

Numbers of a portfolio are arguments, never constants of the program: portfolios of one shape share an
executable, and XLA cannot rearrange arithmetic around them. `strict` keeps products from being contracted
with the sum that follows: the bits of a product are XORed with an argument that is 0; and on GPUs, where XLA
approximates quotients and roots, these are rounded from float64. On CPU the graph is
cut (`partition`), and each segment is the taken branch of a conditional, which is what makes XLA store what
the segment computes; and an executable keeps to one thread, for threads of paths share cores better than
threads of one operation.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .graph import DTYPES, LANES, Value, reachable
from .partition import Segment, cut
from .placement import Placement

# Constants that a stage's text holds; any other number is an argument.
_LITERALS = {0.0, 0.5, 1.0, -1.0}
# For an executable on CPU: one thread each, and loops written out by XLA's older emitters, which make code of
# the same speed in two thirds of the time.
_CPU_OPTIONS = {"xla_cpu_multi_thread_eigen": False, "xla_cpu_use_fusion_emitters": False}
_SUMS = {"add", "subtract"}
_PASSED = {"row", "stack", "where"}


def _bits(value):
    return lax.bitcast_convert_type(value, jnp.int32)


def _floats(value):
    return lax.bitcast_convert_type(value, jnp.float32)


_OPERATIONS = {
    "add": jnp.add,
    "subtract": jnp.subtract,
    "multiply": jnp.multiply,
    "divide": jnp.divide,
    "minimum": jnp.minimum,
    "maximum": jnp.maximum,
    "and": jnp.bitwise_and,
    "or": jnp.bitwise_or,
    "xor": jnp.bitwise_xor,
    "left_shift": jnp.left_shift,
    "right_shift": jnp.right_shift,
    "less": jnp.less,
    "less_equal": jnp.less_equal,
    "equal": jnp.equal,
    "not": jnp.invert,
    "floor": jnp.floor,
    "sqrt": jnp.sqrt,
    "where": jnp.where,
    "take": lambda table, index: table[index],
    "multiply_low": jnp.multiply,
    "to_float": lambda value: value.astype(jnp.float32),
    "word_to_float": lambda value: value.astype(jnp.float32),
    "to_int": lambda value: value.astype(jnp.int32),
    "flag": lambda value: value.astype(jnp.int32),
    "bits": _bits,
    "from_bits": _floats,
    "low_bits": lambda word: _bits(word) & jnp.int32(0x7FFFFFFF),
    "top_bit_clear": lambda word: ~_bits(word) & jnp.int32(-0x80000000),
}


def _exact_root(value, zero):
    """A root rounded from float64's, which is the right one, as `_exact_quotient`'s is (Figueroa, When is
    double rounding innocuous?, 1995), where XLA approximates float32's.
    """
    return _rounded(jnp.sqrt(value.astype(jnp.float64)), zero)


def _exact_quotient(dividend, divisor, zero):
    return _rounded(dividend.astype(jnp.float64) / divisor.astype(jnp.float64), zero)


def _rounded(double, zero):
    """To float32; the bits are XORed with 0, or a compiler would have computed in float32."""
    bits = lax.bitcast_convert_type(double, jnp.int64) ^ zero.astype(jnp.int64)
    return lax.bitcast_convert_type(bits, jnp.float64).astype(jnp.float32)


_EXACT = {"divide": _exact_quotient, "sqrt": _exact_root}


def _doubles() -> AbstractContextManager[Any]:
    """Float64 and int64 while a stage is traced, whatever the user's setting."""
    given: Any = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    return given.enable_x64(True)


def _multiply_high(left, right):
    """The upper word of a product from halves: XLA cannot spread `lax.mulhi` over devices."""
    (left_low, left_high), (right_low, right_high) = ((word & 0xFFFF, word >> 16) for word in (left, right))
    middle = left_high * right_low + (left_low * right_low >> 16)
    carried = left_low * right_high + (middle & 0xFFFF)
    return left_high * right_high + (middle >> 16) + (carried >> 16)


class Executable:
    """Results of a traced stage from its inputs, for one number of lanes.

    inputs: those over paths, arrays in this order; `uniform`: float inputs without paths, one vector;
    lanes: of all devices together.
    """

    def __init__(
        self,
        inputs: Sequence[Value],
        results: Sequence[Value],
        *,
        placement: Placement,
        strict: bool,
        lanes: int,
        replaced: Sequence[Value] = (),
    ):
        self._inputs = [value for value in inputs if LANES in value.shape]
        self._uniform = [value for value in inputs if LANES not in value.shape]
        self._results, self._strict, self._lanes = list(results), strict, lanes
        self._placement = placement
        # The first results are next values of these inputs, and have their shapes.
        self._shapes = [value.shape for value in replaced]
        self._shapes += [value.shape for value in self._results[len(replaced) :]]
        self._order = reachable(results)
        self._segments = self._cut([*self._inputs, *self._uniform])
        self._packed = _Packed(self._order)
        self._constants = [placement.put(vector, vector.shape) for vector in self._packed.vectors]
        high = _multiply_high if len(placement.devices) > 1 else lax.mulhi
        self._doubles = strict and placement.platform == "gpu"
        self._operations = {**_OPERATIONS, "multiply_high": high}
        self._guarded = _summed(self._order) if strict else set()

    def __call__(self, arrays: Sequence[Any], uniform: np.ndarray) -> list[Any]:
        """Arrays of the results. `uniform`: float32 or uint32, as the inputs without paths are."""
        return self.compiled(np.int32(0), np.True_, *self._constants, uniform, *arrays)

    @cached_property
    def compiled(self) -> Any:
        """The executable; compiling takes seconds."""
        return self.lowered().compile(compiler_options=_options(self._placement.platform))

    def lowered(self, platforms: tuple[str, ...] | None = None) -> Any:
        """What XLA compiles, for other platforms than the placement's where some are named."""
        place = self._placement
        word = any(value.kind == "word" for value in self._uniform)
        size = sum(math.prod(value.shape) for value in self._uniform)
        first = [place.shaped((), np.int32, 0), place.shaped((), np.bool_, 0)]
        uniform = place.shaped((size,), np.uint32 if word else np.float32, 0)
        arrays = [place.shaped(value.shape, DTYPES[value.kind], self._lanes) for value in self._inputs]

        def stage(*given):
            return self._evaluate(given)

        function = jax.jit(stage, out_shardings=[place.sharding(shape) for shape in self._shapes])
        with _doubles() if self._doubles else nullcontext():
            traced = function.trace(*first, *self._constants, uniform, *arrays)
            return traced.lower(lowering_platforms=platforms)

    def _lanes_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._lanes if n == LANES else n for n in shape)

    def _cut(self, inputs: Sequence[Value]) -> list[Segment]:
        if self._placement.platform == "cpu":
            return cut(inputs, self._results)
        between = tuple(value for value in self._order if value.op != "input")
        return [Segment(tuple(self._results), tuple(inputs), between)]

    def _evaluate(self, given: Sequence[Any]) -> list[Any]:
        zero, yes, *constants, uniform = given[: 2 + len(self._constants) + 1]
        known = dict(zip((v.number for v in self._inputs), given[3 + len(self._constants) :], strict=True))
        begin = 0
        for value in self._uniform:
            size = math.prod(value.shape)
            known[value.number] = uniform[begin : begin + size].reshape(value.shape)
            begin += size
        for segment in self._segments:
            stored = self._store(segment, known, zero, yes, constants)
            known.update(zip((v.number for v in segment.stored), stored, strict=True))
        found = (
            self._packed.find(value, constants) if value.constant is not None else known[value.number]
            for value in self._results
        )
        return [
            jnp.broadcast_to(array, self._lanes_of(shape))
            for array, shape in zip(found, self._shapes, strict=True)
        ]

    def _store(self, segment: Segment, known, zero, yes, constants) -> Sequence[Any]:
        shapes = [self._lanes_of(value.shape) for value in segment.stored]

        def compute(zero, constants, *needed):
            here = dict(zip((v.number for v in segment.needed), needed, strict=True))
            for value in segment.between:
                here[value.number] = self._apply(value, here, constants, zero)
            return [jnp.broadcast_to(here[v.number], s) for v, s in zip(segment.stored, shapes, strict=True)]

        def nothing(zero, constants, *needed):
            return [jnp.zeros(s, DTYPES[v.kind]) for v, s in zip(segment.stored, shapes, strict=True)]

        arguments = (zero, constants, *(known[v.number] for v in segment.needed))
        return lax.cond(yes, compute, nothing, *arguments) if len(self._segments) > 1 else compute(*arguments)

    def _apply(self, value: Value, known: dict[int, Any], constants: Sequence[Any], zero) -> Any:
        if value.constant is not None:
            return self._packed.find(value, constants)
        if value.op == "row":
            return known[value.args[0].number][value.args[1]]
        arguments = [known[a.number] for a in value.args]
        if value.op == "stack":
            return jnp.stack(
                [jnp.broadcast_to(a, jnp.broadcast_shapes(*map(jnp.shape, arguments))) for a in arguments]
            )
        if self._strict and value.op == "divide" and LANES not in value.args[1].shape:
            # XLA multiplies by the reciprocal of a divisor that all lanes share; this one seems to differ.
            arguments[1] = _floats(_bits(arguments[1]) ^ (_bits(arguments[0]) & zero))
        if self._doubles and value.op in _EXACT:
            return _EXACT[value.op](*arguments, zero)
        result = self._operations[value.op](*arguments)
        if value.number in self._guarded:
            return _floats(_bits(result) ^ zero)
        return result


def _summed(order: Sequence[Value]) -> set[int]:
    """Products that end in a sum, which a compiler may contract with it; a row or a choice lies between at
    most.
    """
    reached = {a.number for v in order if v.op in _SUMS for a in v.args}
    for value in reversed(order):
        if value.op in _PASSED and value.number in reached:
            reached |= {a.number for a in value.args if isinstance(a, Value)}
    return {v.number for v in order if v.op == "multiply" and v.number in reached}


@cache
def _options(platform: str) -> dict[str, Any]:
    """Those of our options that this version of XLA has."""
    if platform != "cpu":
        return {}
    lowered = jax.jit(jnp.negative).lower(np.float32(1))
    return {name: value for name, value in _CPU_OPTIONS.items() if _is_known(lowered, name, value)}


def _is_known(lowered: Any, name: str, value: Any) -> bool:
    try:
        lowered.compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True


class _Packed:
    """Constants end to end, a vector a kind; literals and small integers stay in the program."""

    def __init__(self, order: Sequence[Value]):
        parts: dict[str, list[np.ndarray]] = {"float": [], "word": [], "int": []}
        self._where: dict[int, tuple[int, int]] = {}
        for value in order:
            known = value.constant
            if known is None or value.kind == "bool" or (known.shape == () and self._is_literal(value)):
                continue
            column = parts[value.kind]
            self._where[value.number] = list(parts).index(value.kind), sum(part.size for part in column)
            column.append(known.reshape(-1))
        empty = {kind: np.zeros(1, DTYPES[kind]) for kind in parts}
        self.vectors = [np.concatenate([*parts[kind], empty[kind]]) for kind in parts]

    @staticmethod
    def _is_literal(value: Value) -> bool:
        return value.kind == "int" or (value.kind == "float" and float(value.constant) in _LITERALS)  # type: ignore[arg-type]

    def find(self, value: Value, vectors: Sequence[Any]) -> Any:
        """The constant, from its vector among the arguments."""
        known = value.constant
        assert known is not None
        if value.number not in self._where:
            return known
        vector, begin = self._where[value.number]
        return vectors[vector][begin : begin + known.size].reshape(known.shape)
