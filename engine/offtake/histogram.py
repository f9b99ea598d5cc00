"""A tally's histogram in order of value: exact sums of any part of it, values by rank, counts below a level.

Notation as in `offtake_kernels.tally`; N is the number of values of a row, x_(k) the k-th smallest.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from offtake_kernels.tally import BIN_BITS, BIN_MASK, LOW_BITS, Tally

Z = 1.96  # the 95 % interval from which errors of quantiles and shares are read
UNIT_BITS = 149  # every finite float32 is a whole number of 2^-149

_SIGN_BIN = 1 << (BIN_BITS - 1)
_NONE_BIN = int(np.float32(-1.0).view(np.uint32)) >> LOW_BITS
_MOST_VALUES = 1 << 33

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OrderedBins:
    """The bins of every row in order of value, without "none" and without non-finite values.

    row, n, low, low2   int64 [bins], as in the tally
    top                 int64 [bins], the leading 9 bits of the significand, implicit one included
    shift               int64 [bins], a value is +-(top * 2^15 + l) * 2^(shift - 149)
    sign                int64 [bins], 1 or -1
    before              int64 [bins + 1], values of all rows before a bin
    start               int64 [rows + 1], where a row's bins begin
    none, nonfinite     int64 [rows], values left out
    least, most         float64 [rows], smallest and largest value; NaN where there is none
    """

    row: Integers
    n: Integers
    low: Integers
    low2: Integers
    top: Integers
    shift: Integers
    sign: Integers
    before: Integers
    start: Integers
    none: Integers
    nonfinite: Integers
    least: Floats
    most: Floats

    @classmethod
    def of(cls, tally: Tally, nullable: NDArray[np.bool_]) -> "OrderedBins":
        """nullable: [rows]. Raises OverflowError naming the row of more than 2^33 values."""
        row, pattern = tally.key >> BIN_BITS, tally.key & BIN_MASK
        finite = ((pattern >> 8) & 0xFF) != 0xFF
        is_none = nullable[row] & (pattern == _NONE_BIN)
        assert not tally.low[is_none].any(), "a nullable row holds a negative value"
        none = np.zeros(tally.rows, np.int64)
        none[row[is_none]] = tally.n[is_none]
        nonfinite = np.zeros(tally.rows, np.int64)
        nonfinite[tally.nonfinite_row] = tally.nonfinite_count
        chosen = np.flatnonzero(finite & ~is_none)
        pattern = pattern[chosen]
        negative = pattern >= _SIGN_BIN
        if negative.any():
            rank = np.where(negative, BIN_MASK - pattern, pattern + _SIGN_BIN)
            order = np.argsort((row[chosen] << BIN_BITS) + rank, kind="stable")
            chosen, pattern, negative = chosen[order], pattern[order], negative[order]
        row, n = row[chosen], tally.n[chosen]
        start = np.searchsorted(row, np.arange(tally.rows + 1))
        bins = cls(
            row=row,
            n=n,
            low=tally.low[chosen],
            low2=tally.low2[chosen],
            top=(pattern & 0xFF) + ((((pattern >> 8) & 0xFF) > 0) << 8),
            shift=np.maximum((pattern >> 8) & 0xFF, 1) - 1,
            sign=1 - 2 * negative.astype(np.int64),
            before=np.concatenate(([0], np.cumsum(n))),
            start=start,
            none=none,
            nonfinite=nonfinite,
            least=np.where(nullable, tally.least_nonnegative, tally.minimum).astype(np.float64),
            most=tally.maximum.astype(np.float64),
        )
        empty = bins.count == 0
        bins.least[empty] = np.nan
        bins.most[empty] = np.nan
        if (bins.count > _MOST_VALUES).any():
            worst = int(bins.count.argmax())
            raise OverflowError(f"row {worst}: {bins.count[worst]} values, and exact sums hold 2^33")
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

    def edges(self, bin: Integers) -> tuple[Floats, Floats]:
        """Lower and upper edge in value; the upper one, away from 0, belongs to the next bin."""
        near = np.ldexp(self.top[bin].astype(np.float64), self.shift[bin] + LOW_BITS - UNIT_BITS)
        far = np.ldexp(self.top[bin] + 1.0, self.shift[bin] + LOW_BITS - UNIT_BITS)
        positive = self.sign[bin] > 0
        return np.where(positive, near, -far), np.where(positive, far, -near)

    def atom(self, bin: Integers) -> Floats:
        """The one value all entries of a bin have, NaN if they differ: equality in nΣl² >= (Σl)²."""
        remainder = self.low[bin] // self.n[bin]
        same = remainder * self.low[bin] == self.low2[bin]  # remainder Σl <= (Σl)²/n <= Σl²
        size = np.ldexp(
            (self.top[bin] << LOW_BITS) + remainder.astype(np.float64), self.shift[bin] - UNIT_BITS
        )
        return np.where(same, self.sign[bin] * size, np.nan)

    def exact_sums(self, chosen: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
        """Sum (in 2^-149) and sum of squares (in 2^-298) over the chosen bins, by row.

        In a run of one row, sign and exponent, int64 holds Σnt, Σl, Σnt², Σtl and Σl² (t = top; N <= 2^33);
        runs join as Python integers.
        """
        first, second = [0] * self.none.size, [0] * self.none.size
        where = np.flatnonzero(chosen)
        if where.size == 0:
            return first, second
        row, n, low, low2, top = (a[where] for a in (self.row, self.n, self.low, self.low2, self.top))
        group = (row << 9) + (self.shift[where] << 1) + (self.sign[where] < 0)
        start = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
        columns = (n * top, low, n * top * top, top * low, low2)
        sums = (np.add.reduceat(column, start).tolist() for column in columns)
        heads = where[start]
        runs = (self.row[heads].tolist(), self.shift[heads].tolist(), self.sign[heads].tolist())
        for r, shift, sign, nt, lo, ntt, tl, ll in zip(*runs, *sums, strict=True):
            first[r] += sign * ((nt << LOW_BITS) + lo) << shift
            second[r] += ((ntt << 2 * LOW_BITS) + (tl << LOW_BITS + 1) + ll) << 2 * shift
        return first, second

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
        remainder = self.low[bin] / self.n[bin]
        spread = np.maximum(self.low2[bin] / self.n[bin] - remainder * remainder, 0.0)
        mean = self.sign[bin] * ((self.top[bin] << LOW_BITS) + remainder) * unit
        return mean, np.sqrt(spread) * unit

    def rank(self, rows: Integers, p: Fraction) -> Integers:
        """k = ceil(pN), at least 1, without rounding."""
        counts = self.count[rows].tolist()
        return np.array([max(1, -(-p.numerator * n // p.denominator)) for n in counts], np.int64)

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

    def below(self, row: int, level: float, or_equal: bool) -> float:
        """Values of a row under a level: whole bins, and a linear part of the bin it falls into."""
        bins = np.arange(self.start[row], self.start[row + 1])
        if bins.size == 0:
            return 0.0
        lower, upper = self.edges(bins)
        lower, upper = np.maximum(lower, self.least[row]), np.minimum(upper, self.most[row])
        atom = self.atom(bins)
        part = np.clip((level - lower) / np.where(upper > lower, upper - lower, 1.0), 0.0, 1.0)
        part[lower >= level] = 0.0
        part[level >= upper] = 1.0
        alone = ~np.isnan(atom)
        part[alone] = atom[alone] <= level if or_equal else atom[alone] < level
        return float((self.n[bins] * part).sum())
