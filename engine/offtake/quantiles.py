"""Distributions → quantile tables over the normal score: piecewise-linear, exact at atoms and kinks.

A table is (z, value), float64 and sorted, from z = -6.5 to 6.5: value = Q(Φ(z)) at the nodes, linear
between. Two nodes at one z are a jump. scipy.special supplies the inverse distribution functions, at compile
time only (scipy.stats would give the same, and takes ten times as long to import).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from offtake.distributions import (
    Beta,
    Discrete,
    Distribution,
    Exponential,
    Gamma,
    Lognormal,
    Mixture,
    Normal,
    Pert,
    Quantiles,
    Sampled,
    Triangular,
    TruncatedNormal,
    Uniform,
    Weibull,
)
from offtake.samples import read_again
from offtake_kernels.quantile_table import REACH

NODES = 513
GRID = np.linspace(-REACH, REACH, NODES)
_SMALLEST = 1e-30
_P10 = float(special.ndtri(0.1))

Table = tuple[NDArray[np.float64], NDArray[np.float64]]


def quantile_table(distribution: Distribution) -> Table:
    """Nodes z and values of a distribution's quantile function; one with a single value has two equal
    nodes. Values beyond float64 are infinite, and those within 1e-30 of 0 are 0: not every device computes
    with numbers as small as theirs would become.
    """
    with np.errstate(over="ignore"):
        z, value = _table(distribution)
    return z, np.where(np.abs(value) < _SMALLEST, 0.0, value)


def _table(distribution: Distribution) -> Table:
    if isinstance(distribution, float | int):
        return np.array([-REACH, REACH]), np.full(2, float(distribution))
    if isinstance(distribution, Quantiles):
        return _quantiles(distribution)
    if isinstance(distribution, Discrete):
        return _steps(list(distribution.values), list(distribution.values.values()))
    if isinstance(distribution, Sampled):
        draws = read_again(Path(distribution.samples.file), distribution.samples.column)
        return _steps(draws.tolist(), [1.0] * draws.size)
    if isinstance(distribution, Mixture):
        return _mixture(distribution)
    return GRID, _family(distribution)


def median(distribution: Distribution) -> float:
    """The value at normal score 0 (the upper one at a jump)."""
    z, value = quantile_table(distribution)
    return float(_at(z, value, np.zeros(1))[0])


def lowest(distribution: Distribution) -> float:
    """The lowest value that can be drawn, at a normal score of -6.5."""
    return float(quantile_table(distribution)[1][0])


def is_degenerate(table: Table) -> bool:
    """Whether the table holds a single value, so that nothing need be drawn."""
    return bool(np.all(table[1] == table[1][0]))


def _at(z: NDArray, value: NDArray, score: NDArray) -> NDArray:
    node = np.clip(np.searchsorted(z, score, side="right") - 1, 0, z.size - 2)
    gap = z[node + 1] - z[node]
    share = np.divide(score - z[node], gap, out=np.zeros_like(score), where=gap > 0)
    return value[node] + share * (value[node + 1] - value[node])


def _family(distribution) -> NDArray[np.float64]:
    """Q(Φ(z)) on the grid; the upper half uses the survival function, so both tails are accurate."""
    if isinstance(distribution, Normal):
        return distribution.mean + distribution.sd * GRID
    if isinstance(distribution, Lognormal):
        if distribution.median is not None and distribution.sigma is not None:
            return distribution.median * np.exp(distribution.sigma * GRID)
        low, high = np.log(distribution.p10 or 1.0), np.log(distribution.p90 or 1.0)
        return np.exp((low + high) / 2 - (high - low) / (2 * _P10) * GRID)
    return _from_tails(distribution)(special.ndtr(GRID), special.ndtr(-GRID))


def _from_tails(distribution):
    """The quantile as a function of the two tail probabilities (below, above), each accurate where small."""
    if isinstance(distribution, Uniform):
        low, high = distribution.low, distribution.high
        return lambda below, above: np.where(
            below < 0.5, low + below * (high - low), high - above * (high - low)
        )
    if isinstance(distribution, TruncatedNormal):
        return _truncated_normal(distribution)
    if isinstance(distribution, Triangular):
        return _triangular(distribution)
    if isinstance(distribution, Pert | Beta):
        low, width = distribution.low, distribution.high - distribution.low
        if isinstance(distribution, Pert):
            mode = (distribution.mode - low) / width
            a, b = 1 + 4 * mode, 5 - 4 * mode
        else:
            a, b = distribution.a, distribution.b
        return lambda below, above: (
            low
            + width * np.where(below < 0.5, special.betaincinv(a, b, below), special.betainccinv(a, b, above))
        )
    if isinstance(distribution, Gamma):
        shape, scale = distribution.shape, distribution.scale
        return lambda below, above: (
            scale
            * np.where(below < 0.5, special.gammaincinv(shape, below), special.gammainccinv(shape, above))
        )
    shape = distribution.shape if isinstance(distribution, Weibull) else 1.0
    scale = distribution.scale if isinstance(distribution, Weibull) else distribution.mean
    assert isinstance(distribution, Weibull | Exponential), distribution
    return lambda below, above: (
        scale * np.where(below < 0.5, -np.log1p(-below), -np.log(above)) ** (1.0 / shape)
    )


def _truncated_normal(distribution: TruncatedNormal):
    """Inverse of the normal between its bounds, of logarithms: both may be far out in one tail."""
    low, high = (
        (bound - distribution.mean) / distribution.sd for bound in (distribution.low, distribution.high)
    )

    def quantile(below, above):
        below, above = np.log(below), np.log(above)
        lower = np.logaddexp(above + special.log_ndtr(low), below + special.log_ndtr(high))
        upper = np.logaddexp(above + special.log_ndtr(-low), below + special.log_ndtr(-high))
        # From the smaller tail, which is the accurate one.
        score = np.where(lower < upper, special.ndtri_exp(lower), -special.ndtri_exp(upper))
        return np.clip(distribution.mean + distribution.sd * score, distribution.low, distribution.high)

    return quantile


def _triangular(distribution: Triangular):
    low, mode, high = distribution.low, distribution.mode, distribution.high
    at_mode = (mode - low) / (high - low)

    def quantile(below, above):
        rising = low + np.sqrt(below * (high - low) * (mode - low))
        falling = high - np.sqrt(above * (high - low) * (high - mode))
        return np.where(below < at_mode, rising, falling)

    return quantile


def _quantiles(distribution: Quantiles) -> Table:
    """Linear in z through the points, end slopes continued, cut at min and max; every kink is a node."""
    z = special.ndtri(np.array(list(distribution.quantiles)))
    value = np.array(list(distribution.quantiles.values()), dtype=np.float64)
    if z.size == 1:
        z, value = np.array([-REACH, REACH]), np.repeat(value, 2)
    ends = [-REACH], [REACH]
    first = value[0] + (-REACH - z[0]) * (value[1] - value[0]) / (z[1] - z[0])
    last = value[-1] + (REACH - z[-1]) * (value[-1] - value[-2]) / (z[-1] - z[-2])
    line_z, line = np.concatenate([ends[0], z, ends[1]]), np.concatenate([[first], value, [last]])
    kinks = [
        _crossing(line_z, line, bound) for bound in (distribution.min, distribution.max) if bound is not None
    ]
    nodes = np.unique(np.concatenate([GRID, z, *kinks]))
    nodes = nodes[np.abs(nodes) <= REACH]
    return nodes, np.clip(np.interp(nodes, line_z, line), distribution.min, distribution.max)


def _crossing(z: NDArray, value: NDArray, bound: float) -> NDArray:
    """Scores at which a non-decreasing broken line passes a bound; none when it does not."""
    inside = np.flatnonzero((value[:-1] < bound) & (value[1:] > bound))
    return z[inside] + (bound - value[inside]) * (z[inside + 1] - z[inside]) / (
        value[inside + 1] - value[inside]
    )


def _steps(values: list[float], weights: list[float]) -> Table:
    """A step quantile function: each value with its weight, two nodes at every jump."""
    order = np.argsort(values, kind="stable")
    value, weight = np.asarray(values, np.float64)[order], np.asarray(weights, np.float64)[order]
    value, weight = value[weight > 0], weight[weight > 0]
    value, inverse = np.unique(value, return_inverse=True)
    below = np.cumsum(np.bincount(inverse, weights=weight))
    score = np.clip(special.ndtri(below[:-1] / below[-1]), -REACH, REACH)
    z = np.concatenate([[-REACH], np.repeat(score, 2), [REACH]])
    return z, np.repeat(value, 2)


def _mixture(distribution: Mixture) -> Table:
    """The inverse of the weighted sum of the parts' distribution functions, taken at the values of all
    nodes.
    """
    weights = np.array([part.weight for part in distribution.parts])
    tables = [quantile_table(part.of) for part, w in zip(distribution.parts, weights, strict=True) if w > 0]
    weights = weights[weights > 0] / weights.sum()
    value = np.unique(np.concatenate([table[1] for table in tables]))
    below = sum(
        w * special.ndtr(_score(table, value, "left")) for w, table in zip(weights, tables, strict=True)
    )
    upto = sum(
        w * special.ndtr(_score(table, value, "right")) for w, table in zip(weights, tables, strict=True)
    )
    over = sum(
        w * special.ndtr(-_score(table, value, "right")) for w, table in zip(weights, tables, strict=True)
    )
    reach = sum(
        w * special.ndtr(-_score(table, value, "left")) for w, table in zip(weights, tables, strict=True)
    )
    # Each side of the median from its own tail: 1 - p loses the upper one.
    lower = np.where(below < 0.5, special.ndtri(below), -special.ndtri(reach))
    upper = np.where(upto < 0.5, special.ndtri(upto), -special.ndtri(over))
    z = np.clip(np.column_stack([lower, upper]).ravel(), -REACH, REACH)
    z = np.maximum.accumulate(z)
    values = np.repeat(value, 2)
    z, values = np.append(z, REACH), np.append(values, values[-1])
    z, values = np.insert(z, 0, -REACH), np.insert(values, 0, values[0])
    keep = np.append(True, (np.diff(z) > 0) | (np.diff(values) > 0))
    return _without_middles(z[keep], values[keep])


def _score(table: Table, value: NDArray, side: str) -> NDArray:
    """Score at which a table's quantile function passes a value; ±inf outside its range. At an atom, its
    left or right end.
    """
    z, node = table
    index = np.searchsorted(node, value, side="left" if side == "left" else "right")
    before, after = np.clip(index - 1, 0, z.size - 1), np.clip(index, 0, z.size - 1)
    rise = node[after] - node[before]
    share = np.divide(value - node[before], rise, out=np.zeros_like(value), where=rise > 0)
    score = z[before] + share * (z[after] - z[before])
    score = np.where(index == 0, -np.inf, np.where(index == z.size, np.inf, score))
    if side == "left":
        return np.where(
            (index < z.size) & (node[after] == value), np.where(index == 0, -np.inf, z[after]), score
        )
    return np.where(
        (index > 0) & (node[before] == value), np.where(index == z.size, np.inf, z[before]), score
    )


def _without_middles(z: NDArray, value: NDArray) -> Table:
    """Of several nodes at one z only the outer two count."""
    first = np.append(True, np.diff(z) > 0)
    last = np.append(np.diff(z) > 0, True)
    return z[first | last], value[first | last]
