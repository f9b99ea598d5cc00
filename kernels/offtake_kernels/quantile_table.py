"""One-time random terms: piecewise-linear quantile functions of a normal score.

A table is nodes (z, value) sorted by z, linear between; two nodes at one z are a jump, so atoms are exact.
Tables of a portfolio are laid end to end in flat arrays. A uniform grid of cells over z finds the interval:
`first` holds, for each cell, the last node that lies at or below everything in the cell, and a few halving
steps find the rest. The kernels know no distribution family.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from .elementary import whole

REACH = 6.5
CELLS = 512
# A score this close below a cell's edge may be rounded into the cell.
_EDGE = 2.0e-6


@dataclass(frozen=True)
class TableSet:
    """Quantile tables end to end. float32 z, value, slope [nodes]; int32 first [tables × CELLS]; `steps`
    halvings.
    """

    z: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    first: np.ndarray
    steps: int


def build(tables) -> TableSet:
    """Flatten [(z, value), …] (float64, sorted, z[0] ≤ -REACH, z[-1] ≥ REACH) into a TableSet."""
    edges = -REACH + 2 * REACH * np.arange(CELLS + 1) / CELLS
    nodes = [np.asarray(z, dtype=np.float32) for z, _ in tables]
    firsts = [np.maximum(np.searchsorted(z, edges[:-1] - _EDGE, side="right") - 1, 0) for z in nodes]
    lasts = [np.searchsorted(z, edges[1:] + _EDGE, side="right") - 1 for z in nodes]
    spread = max((int((last - first).max()) for first, last in zip(firsts, lasts, strict=True)), default=0)
    steps = spread.bit_length()
    # Halving looks up to 2**steps nodes ahead: infinite nodes keep it inside its own table.
    pad = np.full(1 << steps, np.inf, np.float32)
    columns: list[list[np.ndarray]] = [[], [], []]
    offset = 0
    for (_, value), z, first in zip(tables, nodes, firsts, strict=True):
        gaps = np.diff(z.astype(np.float64))
        rise = np.diff(np.asarray(value, dtype=np.float64))
        slope = np.divide(rise, gaps, out=np.zeros_like(rise), where=gaps > 0)
        first += offset
        offset += z.size + pad.size
        columns[0].append(np.append(z, pad))
        columns[1].append(np.asarray(value, dtype=np.float32))
        columns[2].append(slope.astype(np.float32))
        for column in columns[1:]:
            column[-1] = np.append(column[-1], np.zeros(columns[0][-1].size - column[-1].size, np.float32))
    z, value, slope = (np.concatenate(column or [np.zeros(0, np.float32)]) for column in columns)
    return TableSet(z, value, slope, np.concatenate(firsts or [np.zeros(0)]).astype(np.int32), steps)


def interpolate(ops, tables: TableSet, table, score):
    """Value of each score in its table (`table` int32 numbers, broadcastable to the scores)."""
    return whole(ops, "interpolate", partial(_interpolate, tables), table, score)


def _interpolate(tables: TableSet, ops, table, score):
    score = ops.minimum(ops.maximum(score, -REACH), REACH)
    cell = ops.to_int(ops.minimum(ops.floor((score + REACH) * (CELLS / (2 * REACH))), float(CELLS - 1)))
    node = ops.take(tables.first, cell + table * CELLS)
    for step in reversed(range(tables.steps)):
        node = node + (ops.flag(score >= ops.take(tables.z, node + (1 << step))) << step)
    return ops.take(tables.value, node) + (score - ops.take(tables.z, node)) * ops.take(tables.slope, node)
