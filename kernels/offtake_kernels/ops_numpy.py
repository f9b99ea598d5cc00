"""The `ops` namespace of the stage functions on numpy arrays: the readable reference.

Stage functions use Python's operators for + - * / and comparisons, and this small vocabulary for the
rest. Floats are float32, counters and bit patterns int32, Philox words uint64 holding 32 bits (numpy has
no 32×32→64 product). numpy rounds every operation on its own, so results are IEEE-strict.
"""

from __future__ import annotations

import numpy as np

_WORD_MASK = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)

minimum = np.minimum
maximum = np.maximum
floor = np.floor
sqrt = np.sqrt
stack = np.stack


def stage(name: str, deals=()) -> None:
    """Says which stage follows; arrays that are computed at once need no heading."""


def _pattern(value) -> np.ndarray:
    return np.asarray(value, dtype=np.float32).view(np.int32)


def where(condition, if_true, if_false):
    """Element-wise choice by bit masks: np.where branches, and costs 2–7 ns a lane on random masks."""
    mask = np.negative(np.asarray(condition).view(np.int8)).astype(np.int32)
    if isinstance(if_false, float) and if_false == 0.0:
        return (_pattern(if_true) & mask).view(np.float32)
    other = _pattern(if_false)
    return (((_pattern(if_true) ^ other) & mask) ^ other).view(np.float32)


def to_float(integers):
    """int32 or bool to float32, rounded to nearest."""
    return integers.astype(np.float32)


def to_int(values):
    """float32 holding whole numbers to int32."""
    return values.astype(np.int32)


def flag(condition):
    """A boolean as an int32 0 or 1, for index arithmetic."""
    return condition.astype(np.int32)


def bits(values):
    """The bit pattern of float32 values as int32."""
    return values.view(np.int32)


def from_bits(patterns):
    """float32 values of int32 bit patterns."""
    return patterns.view(np.float32)


def word(value):
    """A 32-bit unsigned constant or array, in the form that `multiply_words` takes."""
    return np.asarray(value, dtype=np.uint64)


def multiply_words(left, right: int):
    """The high and low 32-bit words of the 64-bit product of a word and a 32-bit constant."""
    product = left * np.uint64(right)
    return product >> _WORD_BITS, product & _WORD_MASK


def low_bits(words):
    """The low 31 bits of words, as int32."""
    return words.astype(np.uint32).view(np.int32) & np.int32(0x7FFFFFFF)


def top_bit_clear(words):
    """0x80000000 where a word's top bit is 0, else 0, as int32 patterns: a sign."""
    return ~words.astype(np.uint32).view(np.int32) & np.int32(-0x80000000)


def word_to_float(words):
    """Words to float32, rounded to nearest."""
    return words.astype(np.float32)


def take(table, index):
    """table[index] for a flat table."""
    return table.take(index)
