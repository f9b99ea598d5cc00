"""A tally's histogram in order of value: exact sums of any part of it, values by rank, counts below a level.

Notation as in `offtake_kernels.tally`; N is the number of values of a row, x_(k) the k-th smallest.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from offtake.straddle import Remainders
from offtake_kernels.bins import BIN_BITS, BIN_MASK, LOW_BITS
from offtake_kernels.tally import Tally

Z = 1.96  # the 95 % interval from which errors of quantiles and shares are read
UNIT_BITS = 149  # every finite float32 is a whole number of 2^-149

# Bins that are put in order at a time, or those of one row: bounds the memory beside the tally.
_AT_A_TIME = 1 << 17
_REMAINDERS = float(1 << LOW_BITS)
_EXPONENT = 0xFF << 8
_SIGN_BIN = 1 << (BIN_BITS - 1)
_NONE_BIN = int(np.float32(-1.0).view(np.uint32)) >> LOW_BITS
_MOST_VALUES = 1 << 33

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OrderedBins:
    """The bins of some rows, numbered from 0, in order of value, without "none" and non-finite values.

    tally               whose `low` and `low2` are read through `place`, int32 [bins]
    row                 int32 [bins]
    n                   int64 [bins], as in the tally
    top                 int16 [bins], the leading 9 bits of the significand, implicit one included
    shift               int16 [bins], a value is +-(top * 2^15 + l) * 2^(shift - 149)
    sign                int8 [bins], 1 or -1
    before              int64 [bins + 1], values of all rows before a bin
    start               int64 [rows + 1], where a row's bins begin
    none, nonfinite     int64 [rows], values left out
    least, most         float64 [rows], smallest and largest value; NaN where there is none
    """

    tally: Tally
    place: NDArray[np.int32]
    row: NDArray[np.int32]
    n: Integers
    top: NDArray[np.int16]
    shift: NDArray[np.int16]
    sign: NDArray[np.int8]
    before: Integers
    start: Integers
    none: Integers
    nonfinite: Integers
    least: Floats
    most: Floats

    @classmethod
    def of(cls, tally: Tally, nullable: NDArray[np.bool_], rows: range) -> "OrderedBins":
        """Those of consecutive rows of a tally; nullable: by row of the tally.

        Raises OverflowError naming the row of more than 2^33 values.
        """
        span = slice(rows.start, rows.stop)
        begin, end = np.searchsorted(tally.key, np.array([rows.start, rows.stop], np.int64) << BIN_BITS)
        key, nullable = tally.key[begin:end], nullable[span]
        row = ((key >> BIN_BITS) - rows.start).astype(np.int32)
        pattern = (key & BIN_MASK).astype(np.int32)
        finite = (pattern & _EXPONENT) != _EXPONENT
        is_none = pattern == _NONE_BIN
        is_none &= nullable[row]
        assert not tally.low[begin:end][is_none].any(), "a nullable row holds a negative value"
        none = np.zeros(len(rows), np.int64)
        none[row[is_none]] = tally.n[begin:end][is_none]
        nonfinite = np.zeros(len(rows), np.int64)
        here = (rows.start <= tally.nonfinite_row) & (tally.nonfinite_row < rows.stop)
        nonfinite[tally.nonfinite_row[here] - rows.start] = tally.nonfinite_count[here]
        kept = np.flatnonzero(finite & ~is_none)
        place, row, pattern = (begin + kept).astype(np.int32), row[kept], pattern[kept]
        negative = pattern >= _SIGN_BIN
        if negative.any():
            rank = np.where(negative, BIN_MASK - pattern, pattern + _SIGN_BIN)
            order = np.argsort((row.astype(np.int64) << BIN_BITS) + rank, kind="stable")
            place, pattern, negative = place[order], pattern[order], negative[order]
        exponent = ((pattern >> 8) & 0xFF).astype(np.int16)
        n = tally.n[place]
        bins = cls(
            tally=tally,
            place=place,
            row=row,
            n=n,
            top=(pattern & 0xFF).astype(np.int16) + ((exponent > 0).astype(np.int16) << 8),
            shift=np.maximum(exponent, 1) - 1,
            sign=1 - 2 * negative.astype(np.int8),
            before=np.concatenate(([0], np.cumsum(n))),
            start=np.searchsorted(row, np.arange(len(rows) + 1, dtype=np.int32)),
            none=none,
            nonfinite=nonfinite,
            least=np.where(nullable, tally.least_nonnegative[span], tally.minimum[span]).astype(np.float64),
            most=tally.maximum[span].astype(np.float64),
        )
        empty = bins.count == 0
        bins.least[empty] = np.nan
        bins.most[empty] = np.nan
        if (bins.count > _MOST_VALUES).any():
            worst = int(bins.count.argmax())
            raise OverflowError(f"row {rows[worst]}: {bins.count[worst]} values, and exact sums hold 2^33")
        return bins

    @cached_property
    def count(self) -> Integers:
        """N: values behind each row, int64 [rows]."""
        return np.diff(self.before[self.start])

    def locate(self, rows: Integers, rank: Integers | Floats) -> tuple[Integers, Integers]:
        """Bin that holds the value of this rank (1..N) in a row, and the row's values before that bin."""
        before_row = self.before[self.start[rows]]
        found = np.searchsorted(self.before, before_row + rank, side="left") - 1
        return found, self.before[found] - before_row

    def _remainders(self, bins: Integers | slice) -> tuple[Integers, Integers]:
        """Σl and Σl² of bins."""
        place = self.place[bins]
        return self.tally.low[place], self.tally.low2[place]

    def edges(self, bin: Integers) -> tuple[Floats, Floats]:
        """Lower and upper edge in value; the upper one, away from 0, belongs to the next bin."""
        near = np.ldexp(self.top[bin].astype(np.float64), self.shift[bin] + LOW_BITS - UNIT_BITS)
        far = np.ldexp(self.top[bin] + 1.0, self.shift[bin] + LOW_BITS - UNIT_BITS)
        positive = self.sign[bin] > 0
        return np.where(positive, near, -far), np.where(positive, far, -near)

    def atom(self, bin: Integers) -> Floats:
        """The one value all entries of a bin have, NaN if they differ: equality in nΣl² >= (Σl)²."""
        low, low2 = self._remainders(bin)
        remainder = low // self.n[bin]
        same = remainder * low == low2  # remainder Σl <= (Σl)²/n <= Σl²
        size = np.ldexp(
            self.top[bin] * _REMAINDERS + remainder.astype(np.float64), self.shift[bin] - UNIT_BITS
        )
        return np.where(same, self.sign[bin] * size, np.nan)

    def exact_sums(self, bins: Integers | slice) -> tuple[list[int], list[int]]:
        """Sum (in 2^-149) and sum of squares (in 2^-298) over bins, which ascend, by row.

        In a run of one row, sign and exponent, int64 holds Σnt, Σl, Σnt², Σtl and Σl² (t = top; N <= 2^33);
        runs join as Python integers.
        """
        first, second = [0] * self.none.size, [0] * self.none.size
        for r, move, one, nt, lo, ntt, tl, ll in self._runs(bins):
            first[r] += one * ((nt << LOW_BITS) + lo) << move
            second[r] += ((ntt << 2 * LOW_BITS) + (tl << LOW_BITS + 1) + ll) << 2 * move
        return first, second

    def _runs(self, bins: Integers | slice) -> Iterator[tuple[int, ...]]:
        """Row, shift, sign and the five sums of each run among bins."""
        row, n, shift, sign = self.row[bins], self.n[bins], self.shift[bins], self.sign[bins]
        if not row.size:
            return iter(())
        top = self.top[bins].astype(np.int64)
        low, low2 = self._remainders(bins)
        starts = np.empty(row.size, np.bool_)
        starts[0] = True
        np.not_equal(row[1:], row[:-1], out=starts[1:])
        for column in (shift, sign):
            starts[1:] |= column[1:] != column[:-1]
        start = np.flatnonzero(starts)
        weighted = n * top
        columns = (weighted, low, weighted * top, top * low, low2)
        sums = (np.add.reduceat(column, start).tolist() for column in columns)
        return zip(row[start].tolist(), shift[start].tolist(), sign[start].tolist(), *sums, strict=True)

    def value(self, rows: Integers, rank: Integers) -> Floats:
        """The value of this rank (1..N) of each row, float64 [len(rows)]; NaN where N = 0.

        It lies in its bin, between the row's extremes, and within the bounds that mean m and deviation s of a
        bin's n values put on their k-th smallest: m - s·√((n-k)/k) <= x <= m + s·√((k-1)/(n-k+1))
        (Wolkowicz and Styan, The American Statistician 33, 1979). The middle of what is left is within half
        a bin, 0.2 %, and all but exact where most of a bin is one atom.
        """
        result = np.full(rows.size, np.nan)
        some = self.count[rows] > 0
        rows = rows[some]
        found, before = self.locate(rows, rank[some])
        lower, upper = self.edges(found)
        mean, deviation = self._moments(found)
        n, k = self.n[found], rank[some] - before
        lower = np.maximum(np.maximum(lower, self.least[rows]), mean - deviation * np.sqrt((n - k) / k))
        upper = np.minimum(
            np.minimum(upper, self.most[rows]), mean + deviation * np.sqrt((k - 1) / (n - k + 1))
        )
        atom = self.atom(found)
        result[some] = np.where(np.isnan(atom), 0.5 * (lower + upper), atom)
        return result

    def _moments(self, bin: Integers) -> tuple[Floats, Floats]:
        """Mean and population deviation of a bin's values."""
        unit = np.ldexp(1.0, self.shift[bin] - UNIT_BITS)
        low, low2 = self._remainders(bin)
        remainder = low / self.n[bin]
        spread = np.maximum(low2 / self.n[bin] - remainder * remainder, 0.0)
        mean = self.sign[bin] * (self.top[bin] * _REMAINDERS + remainder) * unit
        return mean, np.sqrt(spread) * unit

    def rank(self, rows: Integers, p: Fraction) -> Integers:
        """k = ceil(pN), at least 1, without rounding."""
        top, bottom = p.numerator, p.denominator
        return np.array([max(1, -(-top * n // bottom)) for n in self.count[rows].tolist()], np.int64)

    def error(self, rows: Integers, p: Fraction) -> Floats:
        """Standard error of the p-quantile by order statistics; NaN where the ranks leave 1..N."""
        count = self.count[rows]
        half = Z * np.sqrt(count * float(p * (1 - p)))
        rank = self.rank(rows, p)
        inside = (rank - half >= 1) & (rank + half <= count)
        result = np.full(rows.size, np.nan)
        rows, rank, half = rows[inside], rank[inside], half[inside]
        width = self.interpolated(rows, rank + half) - self.interpolated(rows, rank - half)
        result[inside] = np.maximum(width, 0) / (2 * Z)
        return result

    def interpolated(self, rows: Integers, rank: Floats) -> Floats:
        """Value at a rank that need not be whole, the values of a bin spread evenly over it."""
        found, before = self.locate(rows, np.ceil(rank).astype(np.int64))
        lower, upper = self.edges(found)
        value = lower + (upper - lower) * (rank - 0.5 - before) / self.n[found]
        value = np.clip(value, self.least[rows], self.most[rows])
        atom = self.atom(found)
        return np.where(np.isnan(atom), value, atom)

    def below(
        self, row: int, level: np.float32, or_equal: bool, sample: NDArray[np.float32]
    ) -> tuple[float, float]:
        """Values of a row under a level, and the error of that number: 0 where no bin has some on both sides.

        sample: values of some of the row's paths, which limit how a bin with values on both sides can be
        divided, as its moments do.
        """
        bins = np.arange(self.start[row], self.start[row + 1])
        lowest, highest = self._range(bins)
        under = highest <= level if or_equal else highest < level
        straddles = ~under & (lowest <= level if or_equal else lowest < level)
        whole = int(self.n[bins[under]].sum())
        for bin in bins[straddles].tolist():  # one at most
            inside, error = self._divided(bin, row, level, or_equal, sample)
            return whole + inside, error
        return float(whole), 0.0

    def _range(self, bins: Integers) -> tuple[Floats, Floats]:
        """The least and greatest value that would be in a bin."""
        positive = self.sign[bins] > 0
        # No zero is negative.
        nearest = np.where(positive | (self.top[bins] > 0), 0.0, 1.0)
        near, far = (
            np.ldexp(self.top[bins] * _REMAINDERS + last, self.shift[bins] - UNIT_BITS)
            for last in (nearest, _REMAINDERS - 1)
        )
        return np.where(positive, near, -far), np.where(positive, far, -near)

    def _divided(
        self, bin: int, row: int, level: np.float32, or_equal: bool, sample: NDArray[np.float32]
    ) -> tuple[float, float]:
        """Values of a bin under a level within it, and the error of that number."""
        here = np.array([bin])
        n = int(self.n[bin])
        atom = float(self.atom(here)[0])
        if not math.isnan(atom):
            return float(n * (atom <= level if or_equal else atom < level)), 0.0
        (lowest,), (highest,) = self._range(here)
        sample = sample[(lowest <= sample) & (sample <= highest)]
        sign = int(self.sign[bin])
        ends = max(lowest, self.least[row]), min(highest, self.most[row])
        a, b = sorted(self._remainder(bin, sign * end) for end in ends)
        at = self._remainder(bin, sign * float(level))
        (total,), (squares,) = self._remainders(here)
        remainders = Remainders(n, int(total), int(squares), a, b)
        if sign > 0:
            fewest, likely, most = remainders.up_to(at if or_equal else at - 1, at)
        else:
            others = remainders.up_to(at - 1 if or_equal else at, at)
            most, likely, fewest = (n - number for number in others)
        found = int(np.count_nonzero(sample <= level if or_equal else sample < level))
        if sample.size == n:
            return float(found), 0.0
        # What both allow; the likely number, or the end that is closest to it.
        low, high = wilson_interval(found, sample.size)
        fewest, most = sorted((min(max(fewest, n * low), most), max(min(most, n * high), fewest)))
        number = min(max(likely, fewest), most)
        return number, max(number - fewest, most - number) / Z

    def _remainder(self, bin: int, size: float) -> int:
        """l of a value in a bin, of which the size is given."""
        return int(math.ldexp(size, UNIT_BITS - int(self.shift[bin]))) - (int(self.top[bin]) << LOW_BITS)


def wilson(hits: float, count: float) -> tuple[float, float]:
    """Share of hits, and its standard error: half of Wilson's 95 % interval over z; NaN for 0 of 0."""
    if count == 0:
        return math.nan, math.nan
    share = hits / count
    spread = math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count)) / (1 + Z * Z / count)
    return share, spread


def wilson_interval(hits: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; everything for 0 of 0."""
    if count == 0:
        return 0.0, 1.0
    share, spread = wilson(hits, count)
    centre = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    return centre - Z * spread, centre + Z * spread


def spans(tally: Tally) -> Iterator[range]:
    """All rows of a tally, in parts of so few bins that little memory is needed beside it."""
    start = np.searchsorted(tally.key, np.arange(tally.rows + 1) << BIN_BITS)
    first = 0
    while first < tally.rows:
        fit = int(np.searchsorted(start, start[first] + _AT_A_TIME, side="right")) - 1
        yield (span := range(first, max(fit, first + 1)))
        first = span.stop
