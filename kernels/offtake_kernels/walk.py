"""Blocks of paths through a backend's tiles into a tally: the loop that numpy and JAX share.

The loop nest is visit of a few quarters → tile → quarter: a tile keeps its arrays in cache, and a row of up
to 65,536 values amortises the tally's cost. Memory: states of all tiles, and a visit's float32 rows, one per
recorded series.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .kept import Kept
from .layout import NONE, Plan
from .tally import MOST_LANES, TallyBuilder

# Quarters that a tile runs before the next tile's turn: fewer visits, more rows to hold.
_VISIT = 4
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class Tile(Protocol):
    """Paths on their way through the quarters."""

    def step(self, t: int) -> Sequence[np.ndarray]:
        """Runs quarter t and moves the world on; the recorded arrays are good until any tile's next call."""
        ...

    def finish(self) -> dict:
        """What the path records, lists by (scope, metric); right after the last step."""
        ...


class Recipe(Protocol):
    """A plan made ready for a backend: `places` numbers the recorded array of each series."""

    plan: Plan
    lanes: int

    @property
    def places(self) -> list[int]: ...

    def tile(self, first_path: int, lanes: int) -> Tile:
        """A tile of at most `lanes` paths."""
        ...


def run(recipe: Recipe, first_path: int, paths: int, builder: TallyBuilder, keep: int = 0) -> Kept | None:
    """Runs `paths` (≤ 65,536) paths from `first_path` into `builder`; returns the first `keep` of them
    whole.
    """
    assert 0 < paths <= MOST_LANES, paths
    plan, together = recipe.plan, _together(recipe.places)
    keep = min(keep, paths)
    size = recipe.lanes
    offsets = range(0, paths, size)
    tiles = [recipe.tile(first_path + offset, min(size, paths - offset)) for offset in offsets]
    rows = np.empty((_VISIT, len(together), paths), np.float32)
    finals = np.empty((len(plan.path_series), paths), np.float32)
    totals = [(recipe.places[n], s.metric) for n, s in enumerate(plan.quarter_series) if s.is_kept]
    kept_quarters = {metric: np.empty((keep, plan.quarters), np.float32) for _, metric in totals}
    for visit in range(0, plan.quarters, _VISIT):
        quarters = range(visit, min(visit + _VISIT, plan.quarters))
        for tile, offset in zip(tiles, offsets, strict=True):
            for t in quarters:
                for row, values in zip(rows[t - visit], tile.step(t), strict=True):
                    row[offset : offset + size] = values
            if quarters[-1] + 1 == plan.quarters:
                _collect(plan, tile.finish(), finals[:, offset : offset + size])
        for t in quarters:
            found = rows[t - visit]
            for values, same in zip(found, together, strict=True):
                first, *others = (series * plan.quarters + t for series in same)
                builder.add(first, values, first_path, others)
            for place, metric in totals:
                np.add(found[place, :keep], np.float32(0), out=kept_quarters[metric][:, t])
            _count(plan, found, recipe.places, builder, t, per_path=False)
    base = len(plan.quarter_series) * plan.quarters
    for number, values in enumerate(finals):
        builder.add(base + number, values, first_path)
    _count(plan, finals, range(len(finals)), builder, 0, per_path=True)
    if not keep:
        return None
    path = np.uint64(first_path) + np.arange(keep, dtype=np.uint64)
    scalars = {
        plan.kept_name(s): finals[number, :keep] + np.float32(0) for number, s in enumerate(plan.path_series)
    }
    return Kept(path, kept_quarters, scalars, plan.nullable_names)


def _collect(plan: Plan, recorded: dict, out: np.ndarray) -> None:
    for row, entry in zip(out, plan.path_series, strict=True):
        row[:] = recorded[entry.scope, entry.metric][entry.index]


def _together(places: Sequence[int]) -> list[list[int]]:
    """The series that share each recorded array: what is the same value is tallied once."""
    shared: list[list[int]] = [[] for _ in range(max(places) + 1)]
    for series, place in enumerate(places):
        shared[place].append(series)
    return shared


def _count(
    plan: Plan, rows: np.ndarray, places: Sequence[int], builder: TallyBuilder, t: int, *, per_path: bool
) -> None:
    """Adds the paths that meet each threshold in quarter t (or over the path)."""
    counter = 0
    series = plan.path_series if per_path else plan.quarter_series
    for threshold in plan.thresholds:
        if threshold.per_path == per_path:
            values = rows[places[threshold.series]]
            hits = _COMPARE[threshold.op](values, np.float32(threshold.level))
            if series[threshold.series].nullable:
                hits &= values != np.float32(NONE)
            builder.add_threshold(counter + t, int(np.count_nonzero(hits)))
        counter += 1 if threshold.per_path else plan.quarters
