"""The exact tally: what a block of paths leaves behind, and how blocks add up.

A study never holds paths x quarters. It holds, for every recorded row (one metric of one scope and name at
one quarter, or one number a path), a sparse histogram of float32 bit patterns with exact integer sums. Every
field is an integer sum, a minimum or a maximum, so tallies merge in any order and any grouping to the same
bits, which is what makes a study independent of block size, workers, order and restarts.

Notation, for a float32 value with bit pattern `bits`:
    bin  = bits >> 15         17 bits: sign, 8 of exponent, the top 8 of the mantissa; 2^-8 relative width
    l    = bits & 0x7fff      the 15 bits left over
    key  = row * 2^17 + bin
and for every key that occurs
    n    = number of values,  low = sum of l,  low2 = sum of l^2.
With e the exponent field, unit = 2^(max(e, 1) - 150), base = (2^23 if e > 0) + (top 8 mantissa bits) * 2^15,
the values of a bin are +-unit * (base + l), so their exact sum and sum of squares follow from n, low and low2
alone (`offtake.summary` does that). There is no scale to choose; nothing overflows below 2^33 values a bin.
-0.0 counts as 0.0, and every NaN as one NaN.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOW_BITS = 15
LOW_MASK = (1 << LOW_BITS) - 1
BIN_BITS = 32 - LOW_BITS
BIN_MASK = (1 << BIN_BITS) - 1
MOST_LANES = 65_536
MOST_VALUES_A_BIN = 1 << 33  # low2 < 2^30 n, so int64 holds every sum up to here

_INFINITY_BITS = 0x7F80_0000
_NEGATIVE_INFINITY_BITS = _INFINITY_BITS - (1 << 31)
_LEAST_PENDING_BINS = 1 << 20
_ROWS_AT_A_TIME = 256

Bins = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


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
    first = tallies[0]
    for other in tallies:
        if other.rows != first.rows or other.threshold_hits.size != first.threshold_hits.size:
            raise ValueError("tallies of different studies cannot be merged: their rows or thresholds differ")
    key, n, low, low2 = _compact_by_rows([(t.key, t.n, t.low, t.low2) for t in tallies], first.rows)
    nonfinite = _merge_nonfinite(
        np.concatenate([t.nonfinite_row for t in tallies]),
        np.concatenate([t.nonfinite_count for t in tallies]),
        np.concatenate([t.nonfinite_first_path for t in tallies]),
    )
    return Tally(
        first.rows,
        sum(t.paths for t in tallies),
        key,
        n,
        low,
        low2,
        np.minimum.reduce([t.minimum for t in tallies]),
        np.maximum.reduce([t.maximum for t in tallies]),
        np.minimum.reduce([t.least_nonnegative for t in tallies]),
        np.add.reduce([t.threshold_hits for t in tallies]),
        *nonfinite,
    )


class TallyBuilder:
    """Adds the values of one row after another; a thread has its own, and `merge` joins them.

    Cost of `add`, one core of an AVX-512 server with numpy 2.4, ns a value at 65,536 (and at 4,096) lanes:
        constant row                           0.2  (2)
        a row over 300 to 800 bins             5    (11)
        a row over 4,500 bins, both signs      10   (28)
    More than half is numpy's vectorised int32 sort; then runs of equal bins are summed with `reduceat`. Tried
    against it on the same data: two weighted `bincount`s over a window of bins (5.5 for one narrow window, 9
    to 12 when a row mixes 0 or signs with large values, 40 to 140 at 4,096 lanes; and they hold the
    interpreter lock, which sort and reduceat release), `add.at` (11 to 24), and running sums (10 to 13).
    """

    def __init__(self, rows: int, thresholds: int):
        self.rows = rows
        self._minimum = np.full(rows, np.inf, np.float32)
        self._maximum = np.full(rows, -np.inf, np.float32)
        self._least_nonnegative = np.full(rows, np.inf, np.float32)
        self._threshold_hits = np.zeros(thresholds, np.int64)
        self._nonfinite: list[tuple[int, int, int]] = []
        self._pieces: list[Bins] = []
        self._pending_bins = 0
        self._compacted_bins = 0
        self._sorted = np.empty(MOST_LANES, np.float32)
        self._bin = np.empty(MOST_LANES, np.int32)
        self._low = np.empty(MOST_LANES, np.int32)
        self._sum = np.empty(MOST_LANES, np.int64)
        self._flag = np.empty(MOST_LANES, np.bool_)

    @np.errstate(invalid="ignore")  # a NaN is counted, not warned about
    def add(self, row: int, values: NDArray[np.float32], first_path: int) -> None:
        """Adds one row's values of the paths first_path, first_path + 1, …

        values: float32 [lanes], contiguous, lanes <= 65,536; "none" of a nullable row is -1.0 exactly.
        """
        lanes = values.size
        assert 0 <= row < self.rows, row
        assert values.dtype == np.float32, values.dtype
        assert values.ndim == 1, values.shape
        assert values.flags.c_contiguous
        assert 0 < lanes <= MOST_LANES, lanes
        first = float(values[0])
        same = np.equal(values, values[0], out=self._flag[:lanes])
        if same.all() and np.isfinite(first):
            self._add_constant(row, first, lanes)
            return
        ordered = self._sorted[:lanes]
        np.add(values, np.float32(0), out=ordered)  # -0.0 becomes 0.0
        bits = ordered.view(np.int32)
        bits.sort()
        negatives = int(np.searchsorted(bits, 0)) if bits[0] < 0 else 0
        if bits[-1] >= _INFINITY_BITS or (negatives and bits[negatives - 1] >= _NEGATIVE_INFINITY_BITS):
            negatives = self._set_aside_nonfinite(row, values, first_path, ordered)
        else:
            # Negative patterns sort by magnitude, so the least value is the last negative one.
            self._widen(row, ordered[max(negatives - 1, 0)], ordered[-1] if negatives < lanes else ordered[0])
            if negatives < lanes:
                self._widen(row, ordered[negatives], ordered[negatives])
        self._add_sorted(row, bits, negatives)

    def add_threshold(self, index: int, hits: int) -> None:
        """Adds `hits` paths for which threshold `index` held."""
        self._threshold_hits[index] += hits

    def build(self, paths: int) -> Tally:
        """The tally of everything added so far, which were `paths` paths; the builder may go on."""
        self._compact_pending()
        key, n, low, low2 = self._pieces[0] if self._pieces else _compact([])
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

    def _add_constant(self, row: int, value: float, lanes: int) -> None:
        number = np.float32(value) + np.float32(0)
        bits = int(number.view(np.uint32))
        low = bits & LOW_MASK
        self._widen(row, number, number)
        self._keep(
            np.array([(row << BIN_BITS) + (bits >> LOW_BITS)], np.int64),
            np.array([lanes], np.int64),
            np.array([lanes * low], np.int64),
            np.array([lanes * low * low], np.int64),
        )

    def _add_sorted(self, row: int, bits: NDArray[np.int32], negatives: int) -> None:
        """Sums runs of equal bins of the sorted patterns; non-negative bins go first, as keys do."""
        lanes = bits.size
        code, low, total = self._bin[:lanes], self._low[:lanes], self._sum[:lanes]
        np.right_shift(bits, LOW_BITS, out=code)
        differs = np.not_equal(code[1:], code[:-1], out=self._flag[: lanes - 1])
        ends = np.flatnonzero(differs)
        start = np.zeros(ends.size + 1, np.int64)
        np.add(ends, 1, out=start[1:])
        n = np.empty_like(start)
        np.subtract(start[1:], start[:-1], out=n[:-1])
        n[-1] = lanes - start[-1]
        np.bitwise_and(bits, LOW_MASK, out=low)
        total[:] = low
        sums = np.add.reduceat(total, start)
        np.multiply(total, total, out=total)
        squares = np.add.reduceat(total, start)
        key = (code[start] & BIN_MASK).astype(np.int64)
        key += row << BIN_BITS
        if negatives:
            turn = -int(np.searchsorted(start, negatives))
            key, n, sums, squares = (np.roll(a, turn) for a in (key, n, sums, squares))
        self._keep(key, n, sums, squares)

    def _set_aside_nonfinite(
        self, row: int, values: NDArray[np.float32], first_path: int, ordered: NDArray[np.float32]
    ) -> int:
        """Counts infinities and NaNs and refills `ordered` with one kind of NaN; returns the negatives."""
        finite = np.isfinite(values)
        where = np.flatnonzero(~finite)
        self._nonfinite.append((row, int(where.size), first_path + int(where[0])))
        for end in (values[finite], values[finite & (values >= 0)]):
            if end.size:
                self._widen(row, end.min() + np.float32(0), end.max() + np.float32(0))
        bits = ordered.view(np.int32)
        bits[:] = np.where(np.isnan(values), np.float32(np.nan), values + np.float32(0)).view(np.int32)
        bits.sort()
        return int(np.searchsorted(bits, 0))

    def _widen(self, row: int, least: np.float32, most: np.float32) -> None:
        if least < self._minimum[row]:
            self._minimum[row] = least
        if 0 <= least < self._least_nonnegative[row]:
            self._least_nonnegative[row] = least
        if most > self._maximum[row]:
            self._maximum[row] = most

    def _keep(self, *piece: *Bins) -> None:
        self._pieces.append(piece)
        self._pending_bins += piece[0].size
        if self._pending_bins > max(2 * self._compacted_bins, _LEAST_PENDING_BINS):
            self._compact_pending()

    def _compact_pending(self) -> None:
        if len(self._pieces) > 1:
            self._pieces = [_compact(self._pieces)]
            self._compacted_bins = self._pieces[0][0].size
        self._pending_bins = 0


def _compact(pieces: Sequence[Bins]) -> Bins:
    """Sorts by key and sums equal keys.

    Pieces, each ascending, go in order of their first key: those of one block are then in order as they lie,
    and Timsort merges what several blocks share.
    """
    pieces = sorted((piece for piece in pieces if piece[0].size), key=lambda piece: int(piece[0][0]))
    if not pieces:
        none = np.empty(0, np.int64)
        return none, none, none, none
    keys, *columns = zip(*pieces, strict=True)
    key = np.concatenate(keys)
    if (key[1:] > key[:-1]).all():
        n, low, low2 = (np.concatenate(column) for column in columns)
    else:
        order = np.argsort(key, kind="stable")
        key = key[order]
        start = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
        key = key[start]
        n, low, low2 = (np.add.reduceat(np.concatenate(column)[order], start) for column in columns)
    most = int(n.argmax())
    if n[most] > MOST_VALUES_A_BIN:
        row = int(key[most]) >> BIN_BITS
        raise OverflowError(f"row {row}: {int(n[most])} values in one bin, and exact sums hold 2^33")
    return key, n, low, low2


def _compact_by_rows(pieces: Sequence[Bins], rows: int) -> Bins:
    """As `_compact`, a range of rows after another, so that sorting needs little memory beside its result."""
    ascending = [_ascending(piece) for piece in pieces]
    bounds = np.arange(0, rows + _ROWS_AT_A_TIME, _ROWS_AT_A_TIME, dtype=np.int64) << BIN_BITS
    cuts = [np.searchsorted(piece[0], bounds) for piece in ascending]
    parts = []
    for i in range(bounds.size - 1):
        chosen = [slice(cut[i], cut[i + 1]) for cut in cuts]
        parts.append(_compact([_slice(piece, part) for piece, part in zip(ascending, chosen, strict=True)]))
    key, n, low, low2 = (np.concatenate(column) for column in zip(*parts, strict=True))
    return key, n, low, low2


def _ascending(piece: Bins) -> Bins:
    """A device's histogram may arrive as it lies; a tally's own is in order."""
    key = piece[0]
    return piece if (key[1:] > key[:-1]).all() else _compact([_slice(piece, np.argsort(key, kind="stable"))])


def _slice(piece: Bins, part: slice | NDArray[np.int64]) -> Bins:
    key, n, low, low2 = piece
    return key[part], n[part], low[part], low2[part]


def _merge_nonfinite(
    row: NDArray[np.int64], count: NDArray[np.int64], first_path: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    if row.size == 0:
        return row, count, first_path
    order = np.argsort(row, kind="stable")
    row = row[order]
    start = np.flatnonzero(np.concatenate(([True], row[1:] != row[:-1])))
    return row[start], np.add.reduceat(count[order], start), np.minimum.reduceat(first_path[order], start)
