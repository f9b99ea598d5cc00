"""Blocks of paths through a backend's tiles into a tally: the loop that numpy and JAX share.

The loop nest is visit of a few quarters → tile → quarter: a tile keeps its arrays in cache, and a row of up
to 65,536 values amortises the tally's cost. Memory: states of all tiles, and a visit's float32 rows, one per
recorded series.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .bins import MOST_LANES
from .kept import Kept
from .layout import NONE, Plan
from .tally import TallyBuilder

# Quarters that a tile runs before the next tile's turn: fewer visits, more rows to hold.
_VISIT = 4
COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


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
    plan, size = recipe.plan, recipe.lanes
    record = Record(plan, recipe.places, first_path, paths, builder, keep)
    offsets = range(0, paths, size)
    tiles = [recipe.tile(first_path + offset, min(size, paths - offset)) for offset in offsets]
    rows = np.empty((_VISIT, len(record.together), paths), np.float32)
    for visit in range(0, plan.quarters, _VISIT):
        quarters = range(visit, min(visit + _VISIT, plan.quarters))
        for tile, offset in zip(tiles, offsets, strict=True):
            for t in quarters:
                for row, values in zip(rows[t - visit], tile.step(t), strict=True):
                    row[offset : offset + size] = values
            if quarters[-1] + 1 == plan.quarters:
                record.collect(tile.finish(), slice(offset, offset + size))
        for t in quarters:
            record.tally(t, rows[t - visit])
            record.keep(t, rows[t - visit])
            record.count(t, rows[t - visit])
    return record.finish()


class Record:
    """What a launch of paths leaves behind: tallies, counts of thresholds, and the first paths whole.

    A row is float32 [paths], one for each recorded array; `together` lists the series that share it.
    """

    def __init__(
        self,
        plan: Plan,
        places: Sequence[int],
        first_path: int,
        paths: int,
        builder: TallyBuilder,
        keep: int,
    ):
        assert 0 < paths <= MOST_LANES, paths
        self.plan, self.first_path, self.paths, self.builder = plan, first_path, paths, builder
        self.together = _together(places)
        self._places, self._keep = places, min(keep, paths)
        self._kept_places = [(places[n], s.metric) for n, s in enumerate(plan.quarter_series) if s.is_kept]
        self._kept = {m: np.empty((self._keep, plan.quarters), np.float32) for _, m in self._kept_places}
        self._finals = np.empty((len(plan.path_series), paths), np.float32)

    def series_rows(self, place: int, t: int) -> list[int]:
        """The tally's rows of a recorded array in quarter t."""
        return [series * self.plan.quarters + t for series in self.together[place]]

    def tally(self, t: int, rows: Sequence[np.ndarray] | np.ndarray) -> None:
        """Adds quarter t, a row for each recorded array."""
        for place, values in enumerate(rows):
            first, *others = self.series_rows(place, t)
            self.builder.add(first, values, self.first_path, others)

    @property
    def kept_places(self) -> list[int]:
        """The recorded arrays that `keep` reads; none when no path is kept."""
        return [place for place, _ in self._kept_places] if self._keep else []

    @property
    def counted_places(self) -> list[int]:
        """The recorded arrays that `count` reads."""
        return [
            self._places[threshold.series] for threshold in self.plan.thresholds if not threshold.per_path
        ]

    def keep(self, t: int, rows: Any) -> None:
        """Keeps quarter t of the first paths; rows by recorded array, which may end with the last of them."""
        for place, metric in self._kept_places if self._keep else ():
            np.add(rows[place][: self._keep], np.float32(0), out=self._kept[metric][:, t])

    def count(self, t: int, rows: Any) -> None:
        """Counts the paths that meet each threshold in quarter t; rows by recorded array."""
        _count(self.plan, rows, self._places, self.builder, t, per_path=False)

    def collect(self, recorded: dict, paths: slice) -> None:
        """Takes what these paths of the launch record at their end; see `Tile.finish`."""
        for row, entry in zip(self._finals, self.plan.path_series, strict=True):
            row[paths] = recorded[entry.scope, entry.metric][entry.index]

    def finish(self) -> Kept | None:
        """Adds what paths record at their end; returns the kept paths."""
        plan, base = self.plan, len(self.plan.quarter_series) * self.plan.quarters
        for number, values in enumerate(self._finals):
            self.builder.add(base + number, values, self.first_path)
        _count(plan, self._finals, range(len(self._finals)), self.builder, 0, per_path=True)
        if not self._keep:
            return None
        path = np.uint64(self.first_path) + np.arange(self._keep, dtype=np.uint64)
        scalars = {
            plan.kept_name(s): self._finals[number, : self._keep] + np.float32(0)
            for number, s in enumerate(plan.path_series)
        }
        return Kept(path, self._kept, scalars, plan.nullable_names)


def _together(places: Sequence[int]) -> list[list[int]]:
    """The series that share each recorded array: what is the same value is tallied once."""
    shared: list[list[int]] = [[] for _ in range(max(places) + 1)]
    for series, place in enumerate(places):
        shared[place].append(series)
    return shared


def _count(
    plan: Plan, rows: Any, places: Sequence[int], builder: TallyBuilder, t: int, *, per_path: bool
) -> None:
    """Adds the paths that meet each threshold in quarter t (or over the path)."""
    counter = 0
    series = plan.path_series if per_path else plan.quarter_series
    for threshold in plan.thresholds:
        if threshold.per_path == per_path:
            values = rows[places[threshold.series]]
            hits = COMPARE[threshold.op](values, np.float32(threshold.level))
            if series[threshold.series].nullable:
                hits &= values != np.float32(NONE)
            builder.add_threshold(counter + t, int(np.count_nonzero(hits)))
        counter += 1 if threshold.per_path else plan.quarters
