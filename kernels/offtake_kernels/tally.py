"""The exact tally: what a block of paths leaves behind, and how blocks add up.

A study never holds paths x quarters. It holds, for every recorded row (one metric of one scope and name at
one quarter, or one number a path), a sparse histogram of float32 bit patterns with exact integer sums. Every
field is an integer sum, a minimum or a maximum, so tallies merge in any order and any grouping to the same
bits, which is what makes a study independent of block size, workers, order and restarts.

With bin and l of a value as in `bins`,
    key  = row * 2^17 + bin
and for every key that occurs
    n    = number of values,  low = sum of l,  low2 = sum of l^2.
With e the exponent field, unit = 2^(max(e, 1) - 150), base = (2^23 if e > 0) + (top 8 mantissa bits) * 2^15,
the values of a bin are +-unit * (base + l), so their exact sum and sum of squares follow from n, low and low2
alone (`offtake.summary` does that). There is no scale to choose; nothing overflows below 2^33 values a bin.
-0.0 counts as 0.0, and every NaN as one NaN.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bins import BIN_BITS, BIN_MASK, LOW_BITS, LOW_MASK, MOST_LANES, quicker

MOST_VALUES_A_BIN = 1 << 33  # low2 < 2^30 n, so int64 holds every sum up to here

# A piece of so many bins is added to the bins that its row has, where they are; only what is new waits, as
# small pieces do: so many pieces at most, with half as many bins as the row has, or with few.
_MANY_BINS = 256
_MOST_PIECES = 16
_FEW_BINS = 512
# Bins that are copied between two calls of `relieve`.
_RELIEVED_BINS = 1 << 19

Sums = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
# Numbers of bins within a row, ascending, and what is in them.
Bins = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class RowSums:
    """What a device has summed of one row.

    bins within the row, ascending, n, low and low2: int64 [bins]; least, greatest and least non-negative
    finite value (+inf, -inf, +inf where there is none); how many values are not finite, and the first path of
    one.
    """

    bins: NDArray[np.int64]
    n: NDArray[np.int64]
    low: NDArray[np.int64]
    low2: NDArray[np.int64]
    minimum: np.float32
    maximum: np.float32
    least_nonnegative: np.float32
    nonfinite: int = 0
    first_nonfinite: int = 0


@dataclass(frozen=True, eq=False)
class Tally:
    """Exact sums of `paths` paths over `rows` rows. Two tallies are equal when their digests are.

    key, n, low, low2         int64 [bins], key ascending and unique
    minimum, maximum          float32 [rows], of the finite values; +inf and -inf where there were none
    least_nonnegative         float32 [rows], the smallest finite value >= 0, +inf where there was none: the
                              minimum of a row in which -1.0 says "none"
    threshold_hits            int64 [thresholds], paths for which each named threshold held
    nonfinite_row             int64 [k], ascending, the rows that met an infinity or a NaN
    nonfinite_count           int64 [k], how many
    nonfinite_first_path      uint64 [k], the smallest path id that did
    """

    rows: int
    paths: int
    key: NDArray[np.int64]
    n: NDArray[np.int64]
    low: NDArray[np.int64]
    low2: NDArray[np.int64]
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    least_nonnegative: NDArray[np.float32]
    threshold_hits: NDArray[np.int64]
    nonfinite_row: NDArray[np.int64]
    nonfinite_count: NDArray[np.int64]
    nonfinite_first_path: NDArray[np.uint64]

    @classmethod
    def empty(cls, rows: int, thresholds: int) -> "Tally":
        """The neutral element of `merge`."""
        return TallyBuilder(rows, thresholds).build(0)

    def arrays(self) -> dict[str, NDArray]:
        """Every array by field name, little-endian, in a fixed order: what is hashed and what is stored."""
        return {
            "key": self.key.astype("<i8", copy=False),
            "n": self.n.astype("<i8", copy=False),
            "low": self.low.astype("<i8", copy=False),
            "low2": self.low2.astype("<i8", copy=False),
            "minimum": self.minimum.astype("<f4", copy=False),
            "maximum": self.maximum.astype("<f4", copy=False),
            "least_nonnegative": self.least_nonnegative.astype("<f4", copy=False),
            "threshold_hits": self.threshold_hits.astype("<i8", copy=False),
            "nonfinite_row": self.nonfinite_row.astype("<i8", copy=False),
            "nonfinite_count": self.nonfinite_count.astype("<i8", copy=False),
            "nonfinite_first_path": self.nonfinite_first_path.astype("<u8", copy=False),
        }

    def narrow(self) -> Iterator[tuple[str, NDArray]]:
        """`arrays` one by one, whole numbers in the narrowest type that fits: what is sent and stored."""
        return ((name, _narrowed(array)) for name, array in self.arrays().items())

    @classmethod
    def widened(cls, rows: int, paths: int, arrays: Mapping[str, NDArray]) -> "Tally":
        """The tally of which `arrays` are the narrow ones. Raises TypeError where the names are others."""
        wide: dict[str, Any] = {
            name: array.astype(np.int64, copy=False) if array.dtype.kind == "i" else array
            for name, array in arrays.items()
        }
        return cls(rows, paths, **wide)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tally.widened, (self.rows, self.paths, dict(self.narrow()))

    def digest(self) -> str:
        """SHA-256 (hex) over sizes and every array's little-endian bytes."""
        sha = hashlib.sha256(f"offtake tally 1 rows {self.rows} paths {self.paths}".encode())
        for name, array in self.arrays().items():
            sha.update(f" {name} {array.size} ".encode())
            sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()


def merge(tallies: Sequence[Tally]) -> Tally:
    """The tally of all their paths together: the same arrays for any order and any grouping.

    Bins need not arrive sorted or unique, so a device may hand over its histogram as it lies.

    Raises ValueError when there is nothing to merge or the rows differ, OverflowError naming the row when a
    bin would hold more than 2^33 values.
    """
    if not tallies:
        raise ValueError("nothing to merge")
    builder = TallyBuilder(tallies[0].rows, tallies[0].threshold_hits.size)
    for tally in tallies:
        builder.absorb(tally)
    return builder.build(sum(tally.paths for tally in tallies))


class TallyBuilder:
    """Adds the values of one row after another; a thread has its own, and `merge` joins them.

    Cost of `add` by sorting, an AVX-512 server of Intel, ns a value at 65,536 (and at 4,096) lanes:
        constant row                           0.2  (2)
        a row over 300 to 800 bins             5    (11)
        a row over 4,500 bins, both signs      10   (28)
    """

    def __init__(self, rows: int, thresholds: int):
        self.rows = rows
        self._minimum = np.full(rows, np.inf, np.float32)
        self._maximum = np.full(rows, -np.inf, np.float32)
        self._least_nonnegative = np.full(rows, np.inf, np.float32)
        self._threshold_hits = np.zeros(thresholds, np.int64)
        self._nonfinite: list[tuple[int, int, int]] = []
        self._pieces: dict[int, list[Bins]] = {}
        # Rows whose first piece, to which others are added, nobody else holds.
        self._own: set[int] = set()
        self._sum_row = quicker()()
        self._values = np.empty(MOST_LANES, np.float32)
        self._flag = np.empty(MOST_LANES, np.bool_)

    @np.errstate(invalid="ignore")  # a NaN is counted, not warned about
    def add(self, row: int, values: NDArray[np.float32], first_path: int, also: Sequence[int] = ()) -> None:
        """Adds one row's values of the paths first_path, first_path + 1, …; rows in `also` have the same.

        values: float32 [lanes], contiguous, lanes <= 65,536; "none" of a nullable row is -1.0 exactly.
        """
        rows = (row, *also)
        lanes = values.size
        assert 0 <= min(rows) <= max(rows) < self.rows, rows
        assert values.dtype == np.float32, values.dtype
        assert values.ndim == 1, values.shape
        assert values.flags.c_contiguous
        assert 0 < lanes <= MOST_LANES, lanes
        same = np.equal(values, values[0], out=self._flag[:lanes])
        if same.all() and np.isfinite(values[0]):
            self._add_constant(rows, values[0] + np.float32(0), lanes)
        else:
            self._add_varied(rows, values, first_path)

    def add_sums(self, rows: Sequence[int], sums: RowSums) -> None:
        """Adds what a device has summed, to each of `rows`."""
        for row in rows:
            self._minimum[row] = min(self._minimum[row], sums.minimum)
            self._maximum[row] = max(self._maximum[row], sums.maximum)
            self._least_nonnegative[row] = min(self._least_nonnegative[row], sums.least_nonnegative)
        if sums.nonfinite:
            self._nonfinite += [(row, sums.nonfinite, sums.first_nonfinite) for row in rows]
        self._keep(rows, sums.bins.astype(np.int32), sums.n, sums.low, sums.low2)

    def add_constant(self, row: int, value: np.float32, first_path: int, paths: int) -> None:
        """Adds a row in which the paths first_path … first_path + paths - 1 all have one value."""
        if np.isfinite(value):
            self._add_constant((row,), value + np.float32(0), paths)
            return
        for offset in range(0, paths, MOST_LANES):
            lanes = min(MOST_LANES, paths - offset)
            self.add(row, np.full(lanes, value, np.float32), first_path + offset)

    def add_runs(
        self, rows: Sequence[int], code: NDArray[np.int32], sums: Sums, extremes: NDArray[np.float32]
    ) -> None:
        """Adds what rows share, summed elsewhere: finite values, at most 65,536 of them and at least one.

        code: bits >> 15 of each bin as a signed number, ascending, so that bins of negative values go first;
        sums: n, low and low2 of each; extremes: least and greatest value, and the least that is not negative,
        NaN where there is none. No zero is negative.
        """
        least, most, least_nonnegative = extremes
        self._widen(rows, least, most)
        if not np.isnan(least_nonnegative):
            self._widen(rows, least_nonnegative, least_nonnegative)
        self._keep_runs(rows, code, *sums)

    def add_threshold(self, index: int, hits: int) -> None:
        """Adds `hits` paths for which threshold `index` held."""
        self._threshold_hits[index] += hits

    def absorb(self, tally: Tally) -> None:
        """Adds all that a tally holds, row by row: memory is that of the sum.

        Raises ValueError for a tally of other rows, OverflowError as `merge` does.
        """
        if tally.rows != self.rows or tally.threshold_hits.size != self._threshold_hits.size:
            raise ValueError("tallies of different studies cannot be merged: their rows or thresholds differ")
        key, *sums = _ascending(tally.key, tally.n, tally.low, tally.low2)
        cuts = np.searchsorted(key, np.arange(self.rows + 1) << BIN_BITS).tolist()
        for row, (begin, end) in enumerate(pairwise(cuts)):
            if begin < end:
                bins = (key[begin:end] & BIN_MASK).astype(np.int32)
                n, low, low2 = (column[begin:end] for column in sums)
                if row in self._pieces:
                    self._wait(row, *self._add_to_first(row, bins, n, low, low2))
                else:
                    # Copies: a part of an array would keep all of it.
                    self._pieces[row] = [(bins, n.copy(), low.copy(), low2.copy())]
                    self._own.add(row)
        for mine, other, joined in (
            (self._minimum, tally.minimum, np.minimum),
            (self._maximum, tally.maximum, np.maximum),
            (self._least_nonnegative, tally.least_nonnegative, np.minimum),
            (self._threshold_hits, tally.threshold_hits, np.add),
        ):
            joined(mine, other, out=mine)
        found = (tally.nonfinite_row, tally.nonfinite_count, tally.nonfinite_first_path)
        self._nonfinite += zip(*(column.tolist() for column in found), strict=True)

    def build(self, paths: int, relieve: Callable[[], None] | None = None) -> Tally:
        """The tally of everything added so far, which were `paths` paths; the builder may go on.

        relieve: called now and then, to give back what has been freed.
        """
        rows = sorted(self._pieces)
        for row in rows:
            if len(self._pieces[row]) > 1:
                self._pieces[row] = [_compact(self._pieces[row])]
            if (most := self._pieces[row][0][1].max()) > MOST_VALUES_A_BIN:
                raise OverflowError(f"row {row}: {int(most)} values in one bin, and exact sums hold 2^33")
        sizes = [self._pieces[row][0][0].size for row in rows]
        key, n, low, low2 = (np.empty(sum(sizes), np.int64) for _ in range(4))
        end = 0
        for row, size in zip(rows, sizes, strict=True):
            begin, end = end, end + size
            bins = self._pieces[row][0]
            for column, values in zip((key, n, low, low2), bins, strict=True):
                column[begin:end] = values
            # The builder goes on with the tally's sums: nothing is held twice.
            self._pieces[row] = [(bins[0], n[begin:end], low[begin:end], low2[begin:end])]
            key[begin:end] += row << BIN_BITS
            if relieve is not None and begin // _RELIEVED_BINS < end // _RELIEVED_BINS:
                relieve()
        self._own.clear()
        found = np.array([(r, c) for r, c, _ in self._nonfinite], np.int64).reshape(-1, 2)
        first_path = np.array([p for _, _, p in self._nonfinite], np.uint64)
        nonfinite = _merge_nonfinite(found[:, 0], found[:, 1], first_path)
        return Tally(
            self.rows,
            paths,
            key,
            n,
            low,
            low2,
            self._minimum.copy(),
            self._maximum.copy(),
            self._least_nonnegative.copy(),
            self._threshold_hits.copy(),
            *nonfinite,
        )

    def _add_constant(self, rows: Sequence[int], value: np.float32, lanes: int) -> None:
        bits = int(value.view(np.uint32))
        low = bits & LOW_MASK
        sums = (np.array([total], np.int64) for total in (lanes, lanes * low, lanes * low * low))
        self._widen(rows, value, value)
        self._keep(rows, np.array([bits >> LOW_BITS], np.int32), *sums)

    def _add_varied(self, rows: Sequence[int], values: NDArray[np.float32], first_path: int) -> None:
        own = self._values[: values.size]
        np.add(values, np.float32(0), out=own)  # -0.0 becomes 0.0
        runs = self._sum_row(own.view(np.int32))
        if np.isfinite(runs.extremes[:2]).all():
            self.add_runs(rows, runs.code, (runs.n, runs.low, runs.low2), runs.extremes)
            return
        self._set_aside_nonfinite(rows, values, first_path)
        own[np.isnan(own)] = np.nan
        runs = self._sum_row(own.view(np.int32))
        self._keep_runs(rows, runs.code, runs.n, runs.low, runs.low2)

    def _keep_runs(self, rows: Sequence[int], code: NDArray[np.int32], *sums: *Sums) -> None:
        """Keeps runs of ascending codes (see `add_runs`) as bins: non-negative ones go first, as keys do."""
        number = (code & BIN_MASK).astype(np.int32, copy=False)
        negative = int(np.searchsorted(code, 0))
        if negative:
            number = np.roll(number, -negative)
            n, low, low2 = sums
            sums = np.roll(n, -negative), np.roll(low, -negative), np.roll(low2, -negative)
        self._keep(rows, number, *sums)

    def _set_aside_nonfinite(self, rows: Sequence[int], values: NDArray[np.float32], first_path: int) -> None:
        """Counts infinities and NaNs, and looks for the extremes of the others."""
        finite = np.isfinite(values)
        where = np.flatnonzero(~finite)
        self._nonfinite += [(row, int(where.size), first_path + int(where[0])) for row in rows]
        for end in (values[finite], values[finite & (values >= 0)]):
            if end.size:
                self._widen(rows, end.min() + np.float32(0), end.max() + np.float32(0))

    def _widen(self, rows: Sequence[int], least: np.float32, most: np.float32) -> None:
        for row in rows:
            if least < self._minimum[row]:
                self._minimum[row] = least
            if 0 <= least < self._least_nonnegative[row]:
                self._least_nonnegative[row] = least
            if most > self._maximum[row]:
                self._maximum[row] = most

    def _keep(self, rows: Sequence[int], *piece: *Bins) -> None:
        """Adds the bins of a piece to each of rows."""
        many = piece[0].size >= _MANY_BINS
        for row in rows:
            if row not in self._pieces:
                self._pieces[row] = [piece]
            else:
                self._wait(row, *(self._add_to_first(row, *piece) if many else piece))

    def _add_to_first(self, row: int, *piece: *Bins) -> Bins:
        """Adds to the sums of bins that the row's first piece has; returns the others."""
        bins, *sums = piece
        known, *totals = self._pieces[row][0]
        if row not in self._own:
            totals = [total.copy() for total in totals]
            self._pieces[row][0] = known, totals[0], totals[1], totals[2]
            self._own.add(row)
        place = known.searchsorted(bins)
        found = known.take(place, mode="clip") == bins
        for total, column in zip(totals, sums, strict=True):
            np.add.at(total, place[found], column[found])
        new = ~found
        n, low, low2 = (column[new] for column in sums)
        return bins[new], n, low, low2

    def _wait(self, row: int, *piece: *Bins) -> None:
        """Keeps a further piece of a row until it is merged into the first."""
        if not piece[0].size:
            return
        pieces = self._pieces[row]
        pieces.append(piece)
        waiting = sum(bins[0].size for bins in pieces[1:])
        if len(pieces) > _MOST_PIECES or waiting > max(_FEW_BINS, pieces[0][0].size // 2):
            self._pieces[row] = [_compact(pieces)]
            self._own.add(row)


def _narrowed(array: NDArray) -> NDArray:
    if array.dtype.kind != "i" or not array.size:
        return array
    least, most = array.min(), array.max()
    for narrow in (np.int8, np.int16, np.int32):
        if np.iinfo(narrow).min <= least and most <= np.iinfo(narrow).max:
            return array.astype(narrow)
    return array


def _compact(pieces: Sequence[Bins]) -> Bins:
    """Bins of one row from several pieces."""
    return _summed(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


def _ascending(*bins: *tuple[NDArray[np.int64], *Sums]) -> tuple[NDArray[np.int64], *Sums]:
    """A device's histogram may arrive as it lies; a tally's own is in order."""
    key = bins[0]
    return bins if (key[1:] > key[:-1]).all() else _summed(*bins)


def _summed(key: NDArray[Any], *sums: *Sums) -> tuple[NDArray[Any], *Sums]:
    """Sorted by key, with equal keys as one."""
    order = np.argsort(key, kind="stable")
    key = key[order]
    start = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    n, low, low2 = (np.add.reduceat(column[order], start) for column in sums)
    return key[start], n, low, low2


def _merge_nonfinite(
    row: NDArray[np.int64], count: NDArray[np.int64], first_path: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    if row.size == 0:
        return row, count, first_path
    order = np.argsort(row, kind="stable")
    row = row[order]
    start = np.flatnonzero(np.concatenate(([True], row[1:] != row[:-1])))
    return row[start], np.add.reduceat(count[order], start), np.minimum.reduceat(first_path[order], start)
