"""The bins of one row on the host: where a float32 belongs, and what a row's values add to each bin.

Notation, for a value with bit pattern `bits`:
    bin  = bits >> 15         17 bits: sign, 8 of exponent, the top 8 of the mantissa; 2^-8 relative width
    l    = bits & 0x7fff      the 15 bits left over
    code = bin as a signed number, so that bins of negative values go first

There are two ways to sum a row, to the same integers. `Sorting` makes a bin a run of sorted patterns;
`Scattering` adds each value to a table of bins. numpy sorts with the processor's vector instructions: 3 ns a
value on Intel's with AVX-512, but 22 on AMD's Zen 4, where the one that packs a vector is microcode. There
`np.add.at` takes 2.5, where Intel's take 9 to 12 on rows whose values fall into few bins, again and again.
`quicker` asks the processor.
"""

from __future__ import annotations

import time
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

LOW_BITS = 15
LOW_MASK = (1 << LOW_BITS) - 1
BIN_BITS = 32 - LOW_BITS
BIN_MASK = (1 << BIN_BITS) - 1
# Values of a row that are summed at once: sums of l stay below 2^31, as `Scattering` needs.
MOST_LANES = 65_536

_COUNT_BIT = 31
_SPECIMEN_LANES = 16_384


class Runs(NamedTuple):
    """Sums of a row by bin.

    code: int32 [bins], ascending; n, low and low2: int64 [bins], number of values, sum of l and sum of l^2;
    extremes: float32 [3], least and greatest value and the least that is not negative, NaN where there is
    none. A value that is not finite makes one of the first two not finite.
    """

    code: NDArray[np.int32]
    n: NDArray[np.int64]
    low: NDArray[np.int64]
    low2: NDArray[np.int64]
    extremes: NDArray[np.float32]


class Way(Protocol):
    """A way to sum a row. It keeps buffers, so a thread has its own."""

    def __call__(self, bits: NDArray[np.int32]) -> Runs:
        """Sums 1 to 65,536 patterns, none of them -0.0; the array may come back in another order."""
        ...


class Sorting:
    """Sums of runs of the sorted patterns, by `reduceat`.

    A quarter of a study's values are one at an end of their row (nothing yet, all there is): one of them
    goes through the sums, the others are added by their number.
    """

    def __init__(self):
        self._code, self._low = np.empty((2, MOST_LANES), np.int32)
        self._sum = np.empty(MOST_LANES, np.int64)
        self._flag = np.empty(MOST_LANES, np.bool_)

    def __call__(self, bits: NDArray[np.int32]) -> Runs:
        bits.sort()
        extremes = _ends(bits)
        first = int(bits.searchsorted(bits[0], "right")) - 1
        last = max(first, int(bits.searchsorted(bits[-1], "left")))
        above = bits.size - 1 - last
        bits = bits[first : last + 1]
        code, low, total = self._code[: bits.size], self._low[: bits.size], self._sum[: bits.size]
        np.right_shift(bits, LOW_BITS, out=code)
        begins = self._flag[: bits.size]
        begins[0] = True
        np.not_equal(code[1:], code[:-1], out=begins[1:])
        start = np.flatnonzero(begins)
        n = np.empty_like(start)
        np.subtract(start[1:], start[:-1], out=n[:-1])
        n[-1] = bits.size - start[-1]
        np.bitwise_and(bits, LOW_MASK, out=low)
        np.copyto(total, low)
        sums = np.add.reduceat(total, start)
        np.multiply(total, total, out=total)
        squares = np.add.reduceat(total, start)
        for end, more in ((0, first), (-1, above)):
            remainder = int(low[end])
            n[end] += more
            sums[end] += more * remainder
            squares[end] += more * remainder * remainder
        return Runs(code[start], n, sums, squares, extremes)


class Scattering:
    """Sums in a table of bins: n 2^31 + l and l^2 of each value as one complex number, by `add.at`.

    Doubles hold both exactly, for no more than 65,536 values are in a table that begins empty.
    """

    def __init__(self):
        # Place = code: negative ones count from the end. Only what rows touch becomes memory.
        self._table = np.zeros(1 << BIN_BITS, np.complex128)
        self._work = np.empty(MOST_LANES, np.int32)
        self._place = np.empty(MOST_LANES, np.intp)
        self._addend = np.empty(MOST_LANES, np.complex128)

    def __call__(self, bits: NDArray[np.int32]) -> Runs:
        work, place, addend = self._work[: bits.size], self._place[: bits.size], self._addend[: bits.size]
        np.right_shift(bits, LOW_BITS, out=work)
        np.copyto(place, work)
        np.bitwise_and(bits, LOW_MASK, out=work)
        np.copyto(addend.real, work)
        np.multiply(addend.real, addend.real, out=addend.imag)
        np.add(addend.real, float(1 << _COUNT_BIT), out=addend.real)
        np.add.at(self._table, place, addend)
        least, most = int(bits.min()), int(bits.max())
        # As unsigned numbers negative patterns come last: the least is that of the least non-negative value.
        unsigned = bits.view(np.uint32)
        lowest, highest = (int(unsigned.min()), int(unsigned.max())) if least < 0 else (least, most)
        spans = [(lowest, most)] if most >= 0 else []
        if lowest == 0:
            # Zeros are many and far from the others: what lies between need not be looked at.
            np.subtract(bits, 1, out=work)
            spans = [(0, 0), (int(work.view(np.uint32).min()) + 1, most)]
        if least < 0:
            spans.insert(0, (least, highest - (1 << 32)))
        parts = [self._taken(first >> LOW_BITS, last >> LOW_BITS) for first, last in spans if first <= last]
        code, packed, squares = (np.concatenate(part) for part in zip(*parts, strict=True))
        n = packed >> _COUNT_BIT
        packed &= (1 << _COUNT_BIT) - 1
        return Runs(code, n, packed, squares, _extremes(least, most, lowest, highest))

    def _taken(self, first: int, last: int) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Codes and sums of the bins from one code to another of the same sign, which are empty then."""
        begin = first & BIN_MASK
        sums = self._table[begin : begin + last - first + 1]
        there = sums.real.nonzero()[0]
        found = sums[there]
        sums[:] = 0
        return (there + first).astype(np.int32), found.real.astype(np.int64), found.imag.astype(np.int64)


@cache
def quicker() -> type[Sorting] | type[Scattering]:
    """The way that this processor sums a row like a study's sooner."""
    return min(Sorting, Scattering, key=lambda way: _seconds(way()))


def _seconds(way: Way) -> float:
    """The shortest of three tries; the first of all meets memory that is new."""
    found = []
    for _ in range(4):
        bits = _specimen()
        begun = time.perf_counter()
        way(bits)
        found.append(time.perf_counter() - begun)
    return min(found[1:])


def _specimen() -> NDArray[np.int32]:
    """Patterns in no order: three of ten zero, the others in 512 bins."""
    mixed = np.arange(_SPECIMEN_LANES, dtype=np.uint32) * np.uint32(2654435761)
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(2246822519)
    bits = (mixed >> np.uint32(8)).astype(np.int32) + 0x3F80_0000
    return np.where(mixed % 10 < 3, np.int32(0), bits)


def _ends(bits: NDArray[np.int32]) -> NDArray[np.float32]:
    """The extremes of sorted patterns; of negative ones the last is the least value."""
    negatives = int(np.searchsorted(bits, 0)) if bits[0] < 0 else 0
    lowest = bits[negatives] if negatives < bits.size else bits[0]
    return _extremes(int(bits[0]), int(bits[-1]), int(lowest), int(bits[max(negatives - 1, 0)]))


def _extremes(least: int, most: int, lowest: int, highest: int) -> NDArray[np.float32]:
    """The extremes of a row, of which these are the least and greatest pattern, signed and unsigned."""
    patterns = [highest if least < 0 else least, most if most >= 0 else least, lowest]
    values = np.array(patterns, np.int64).astype(np.uint32).view(np.float32)
    if most < 0:
        values[2] = np.nan
    return values
