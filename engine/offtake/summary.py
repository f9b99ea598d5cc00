"""Statistics of an exact tally: moments, quantiles, tail means and probabilities, with Monte Carlo errors.

Everything is computed from integers in a fixed order, so a tally gives the same statistics however it was
merged. Moments and tail sums are rational numbers rounded once; ranks are found in the histogram.

Notation: N values of a row ("none" and non-finite values left out); x_(k) the k-th smallest; alpha = 1/20.
    mean, sd          exact sums, divided and rounded once; sd with N - 1
    quantile p        x_(k), k = ceil(p N), at least 1: exact where all values of its bin are equal, else the
                      middle of what the bin's moments allow: within 2^-9 (0.2 %) relative for normal numbers
    es_low, es_high   mean of the lowest and highest alpha N values; the bin on the boundary counts in part,
                      at its own mean
    probability       counts of whole bins; a bin with values on both sides of the level is divided as its
                      moments make likely, within what they and kept paths allow (`OrderedBins.below`)
Errors:
    se                sd / sqrt(N) (central limit theorem)
    quantile          half of Q(k + z s) - Q(k - z s) over z, s = sqrt(N p (1 - p)), z = 1.96, Q linear inside
                      a bin: the binomial interval of ranks (David and Nagaraja, Order Statistics, 2003, 7.1).
                      None where the ranks leave 1..N. The bin's 0.2 % is not part of it.
    tail mean         sqrt((V + (1 - alpha)(ES - q)^2) / (alpha N)), V the variance inside the tail and q its
                      quantile (Manistre and Hancock, Variance of the CTE Estimator, NAAJ 9(2), 2005). The
                      mean is None below alpha N = 1 and its error below 2.
    probability       half of Wilson's interval over z (Wilson, JASA 22, 1927): positive at 0 and 1 too;
                      with it, the error of the part of a divided bin
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from offtake.histogram import UNIT_BITS, Floats, Integers, OrderedBins, spans, wilson
from offtake_kernels.tally import Tally

QUANTILES = {
    "p01": Fraction(1, 100),
    "p05": Fraction(5, 100),
    "p10": Fraction(10, 100),
    "p25": Fraction(25, 100),
    "p50": Fraction(50, 100),
    "p75": Fraction(75, 100),
    "p90": Fraction(90, 100),
    "p95": Fraction(95, 100),
    "p99": Fraction(99, 100),
}
OPERATORS = ("<", "<=", ">", ">=")
TAIL = Fraction(1, 20)
# Operators that divide values alike.
_SAME_SPLIT = {"<": ("<", ">="), ">=": ("<", ">="), "<=": ("<=", ">"), ">": ("<=", ">")}
_NOBODY = np.empty(0, np.float32)


@dataclass(frozen=True)
class Row:
    """One output row. Several may read one tally row (a supplier with a single deal is that deal).

    metric, scope, name   as in quarters.parquet; scope is total, deal, supplier or factor
    quarter               None for one number a path
    nullable              its values are >= 0, and -1.0 says "none"
    tally                 index of the tally row
    """

    metric: str
    scope: str
    name: str
    quarter: int | None
    nullable: bool
    tally: int


@dataclass(frozen=True)
class ThresholdRow:
    """One named threshold, `metric op level`; the order is that of Tally.threshold_hits."""

    metric: str
    scope: str
    name: str
    quarter: int | None
    op: str
    level: float


class Summary:
    """What a study reports: an exact tally and what its rows mean.

    Raises ValueError when the catalogues and the tally do not belong together.
    """

    def __init__(self, tally: Tally, rows: Sequence[Row], thresholds: Sequence[ThresholdRow] = ()):
        self.tally = tally
        self.rows = tuple(rows)
        self.thresholds = tuple(thresholds)
        if len(self.thresholds) != tally.threshold_hits.size:
            raise ValueError(f"{len(self.thresholds)} thresholds named, {tally.threshold_hits.size} counted")
        self._index = np.array([row.tally for row in self.rows], np.int64)
        if any(not 0 <= row.tally < tally.rows for row in self.rows):
            raise ValueError(f"a row of the catalogue points outside the tally's {tally.rows} rows")
        self._position = {(r.metric, r.scope, r.name, r.quarter): i for i, r in enumerate(self.rows)}
        if len(self._position) != len(self.rows):
            raise ValueError("two rows of the catalogue have one metric, scope, name and quarter")

    @cached_property
    def summary_hash(self) -> str:
        """SHA-256 over the tally and the canonical JSON of both catalogues."""
        catalogues = [[[*vars(row).values()] for row in part] for part in (self.rows, self.thresholds)]
        text = json.dumps(catalogues, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(f"{self.tally.digest()} {text}".encode()).hexdigest()

    @cached_property
    def _nullable(self) -> NDArray[np.bool_]:
        """By row of the tally."""
        nullable = np.zeros(self.tally.rows, np.bool_)
        nullable[self._index[[row.nullable for row in self.rows]]] = True
        return nullable

    def _bins(self, rows: range) -> OrderedBins:
        """The histogram of rows of the tally in order of value."""
        return OrderedBins.of(self.tally, self._nullable, rows)

    def _bins_at(self, position: int) -> OrderedBins:
        """The histogram of the row at a position, as row 0."""
        row = int(self._index[position])
        return self._bins(range(row, row + 1))

    @cached_property
    def nonfinite(self) -> list[tuple[Row, int, int]]:
        """Rows that met an infinity or a NaN: (row, how many, first path)."""
        first_row = {row.tally: row for row in reversed(self.rows)}
        found = zip(
            self.tally.nonfinite_row.tolist(),
            self.tally.nonfinite_count.tolist(),
            self.tally.nonfinite_first_path.tolist(),
            strict=True,
        )
        return [(first_row[row], count, path) for row, count, path in found if row in first_row]

    @cached_property
    def statistics(self) -> dict[str, Floats | Integers]:
        """Columns of quarters.parquet by name, [output rows], NaN for null; `paths` counts "none" too."""
        return self._columns(self._index)

    def statistics_of(self, positions: Sequence[int]) -> dict[str, Floats | Integers]:
        """As `statistics`, for some output rows only: what a glance needs costs less than everything."""
        if "statistics" in vars(self):
            return {name: column[list(positions)] for name, column in self.statistics.items()}
        return self._columns(self._index[list(positions)])

    def _columns(self, rows: Integers) -> dict[str, Floats | Integers]:
        """Statistics of tally rows, in any order and as often as they come."""
        used, back = np.unique(rows, return_inverse=True)
        parts = []
        for span in spans(self.tally):
            here = used[np.searchsorted(used, span.start) : np.searchsorted(used, span.stop)]
            # The first part says what the columns are, even of no rows.
            if here.size or not parts:
                parts.append(_statistics(self._bins(span), here - span.start))
        return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}

    @cached_property
    def threshold_statistics(self) -> dict[str, Floats]:
        """probability and se of the named thresholds, from counts over all paths; "none" never holds."""
        found = [wilson(hits, self.tally.paths) for hits in self.tally.threshold_hits.tolist()]
        return {
            "probability": np.array([share for share, _ in found], np.float64),
            "se": np.array([spread for _, spread in found], np.float64),
        }

    def find(self, metric: str, scope: str, name: str, quarter: int | None) -> int:
        """Position in `rows`. Raises KeyError."""
        return self._position[metric, scope, name, quarter]

    def quantile(self, position: int, p: float) -> tuple[float, float]:
        """Value and standard error of the p-quantile, 0 <= p <= 1, of the row at a position; NaN for none.

        p is taken as the decimal it prints as, so that 0.07 of 100 values is the 7th. Raises ValueError.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"a quantile is between 0 and 1, not {p}")
        exact, bins, only = Fraction(repr(float(p))), self._bins_at(position), np.array([0])
        value = bins.value(only, bins.rank(only, exact))
        return float(value[0]), float(bins.error(only, exact)[0])

    def probability(
        self, position: int, op: str, level: float, sample: NDArray[np.float32] = _NOBODY
    ) -> tuple[float, float]:
        """P(value op level) over all paths, and its standard error; the level is rounded to float32.

        op is one of < <= > >=; a path with "none" satisfies none of them. Exact where the study counted it as
        a threshold, or no bin has different values on both sides of the level. sample: values of some of the
        row's paths, float32 [any]. Raises ValueError.
        """
        if op not in OPERATORS or math.isnan(level):
            raise ValueError(f"a probability is of {', '.join(OPERATORS)} and a number, not {op} {level}")
        bins = self._bins_at(position)
        count, paths = int(bins.count[0]), int(bins.count[0] + bins.none[0])
        rounded = _float32(level)
        under = self._counted_under(position, op, rounded, count)
        error = 0.0
        if under is None or bins.nonfinite[0]:
            under, error = bins.below(0, rounded, op in ("<=", ">"), sample)
        share, se = wilson(under if op in ("<", "<=") else count - under, paths)
        return share, math.hypot(se, error / paths) if paths else se

    def _counted_under(self, position: int, op: str, level: np.float32, count: int) -> int | None:
        """Of `count` values, those under a level (or up to it, as op has it), where the study counted them
        or the others.
        """
        row = self.rows[position]
        series = row.metric, row.scope, row.name, row.quarter
        for threshold, hits in zip(self.thresholds, self.tally.threshold_hits.tolist(), strict=True):
            counted = threshold.metric, threshold.scope, threshold.name, threshold.quarter
            if counted == series and _float32(threshold.level) == level and threshold.op in _SAME_SPLIT[op]:
                return hits if threshold.op in ("<", "<=") else count - hits
        return None


def _float32(level: float) -> np.float32:
    """As recorded values are; beyond their range, infinite."""
    with np.errstate(over="ignore"):
        return np.float32(level)


def _statistics(bins: OrderedBins, rows: Integers) -> dict[str, Floats | Integers]:
    """The columns of `Summary.statistics` for rows of `bins`, which ascend."""
    mean, sd, se = _moments(bins, rows)
    low, low_error = _tail_mean(bins, rows, low=True)
    high, high_error = _tail_mean(bins, rows, low=False)
    paths = bins.count[rows] + bins.none[rows] + bins.nonfinite[rows]
    return {
        "mean": mean,
        "sd": sd,
        "se": se,
        "min": bins.least[rows],
        "max": bins.most[rows],
        **{name: bins.value(rows, bins.rank(rows, p)) for name, p in QUANTILES.items()},
        "es_low": low,
        "es_high": high,
        "share_none": np.where(paths > 0, bins.none[rows] / np.maximum(paths, 1), np.nan),
        "paths": paths,
        "se_p05": bins.error(rows, QUANTILES["p05"]),
        "se_p50": bins.error(rows, QUANTILES["p50"]),
        "se_p95": bins.error(rows, QUANTILES["p95"]),
        "se_es_low": low_error,
        "se_es_high": high_error,
    }


def _moments(bins: OrderedBins, rows: Integers) -> tuple[Floats, Floats, Floats]:
    """mean, sd and se of the mean; each quotient of Python integers is rounded once."""
    mean, sd, se = (np.full(rows.size, np.nan) for _ in range(3))
    first, second = bins.exact_sums(_of_rows(bins, rows))
    for i, (row, count) in enumerate(zip(rows.tolist(), bins.count[rows].tolist(), strict=True)):
        total = first[row]
        if count >= 1:
            mean[i] = total / (count << UNIT_BITS)
        if count >= 2:
            variance = (count * second[row] - total * total) / (count * (count - 1) << 2 * UNIT_BITS)
            sd[i] = math.sqrt(variance)
            se[i] = math.sqrt(variance / count)
    return mean, sd, se


def _of_rows(bins: OrderedBins, rows: Integers) -> Integers | slice:
    """The bins of rows, which ascend."""
    everything = rows.size == bins.none.size
    return slice(None) if everything else _ranges(bins.start[rows], bins.start[rows + 1])


def _ranges(first: Integers, end: Integers) -> Integers:
    """first[0] … end[0] - 1, first[1] … end[1] - 1, and so on."""
    length = end - first
    skipped = np.cumsum(length) - length
    return np.arange(length.sum()) + np.repeat(first - skipped, length)


def _tail_mean(bins: OrderedBins, rows: Integers, low: bool) -> tuple[Floats, Floats]:
    """Mean of the lowest or highest alpha N values, and its standard error."""
    mean, error = np.full(rows.size, np.nan), np.full(rows.size, np.nan)
    enough = np.flatnonzero(bins.count[rows] * TAIL.numerator >= TAIL.denominator)
    rows = rows[enough]
    count = bins.count[rows]
    rank = bins.rank(rows, TAIL) if low else count + 1 - bins.rank(rows, TAIL)
    edge, before = bins.locate(rows, rank)
    tail = _ranges(bins.start[rows], edge) if low else _ranges(edge + 1, bins.start[rows + 1])
    whole_first, whole_second = bins.exact_sums(tail)
    edge_first, edge_second = bins.exact_sums(edge)
    quantile = bins.value(rows, rank)
    inside = before if low else count - before - bins.n[edge]
    columns = (rows.tolist(), count.tolist(), inside.tolist(), bins.n[edge].tolist(), quantile.tolist())
    share, of, tail_share = TAIL.numerator, TAIL.denominator, float(TAIL)
    for i, row, total, whole, at_edge, q in zip(enough.tolist(), *columns, strict=True):
        part = share * total - of * whole  # of the edge bin, in values / 20
        scale = total * share * at_edge
        first = of * whole_first[row] * at_edge + part * edge_first[row]
        second = of * whole_second[row] * at_edge + part * edge_second[row]
        mean[i] = first / (scale << UNIT_BITS)
        values = total * tail_share
        if values >= 2:
            variance = (scale * second - first * first) / (scale * scale << 2 * UNIT_BITS)
            error[i] = math.sqrt((variance + (1.0 - tail_share) * (mean[i] - q) ** 2) / values)
    return mean, error
