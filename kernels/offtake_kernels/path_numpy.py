"""The numpy skeleton: paths in tiles, quarter by quarter, each recorded row tallied over all tiles at once.

The loop nest is quarter → tile → stages: a tile of lanes keeps its arrays in cache, and a row of up to 65,536
values amortises the tally's cost. Memory: states of all tiles, one float32 row per recorded series.
"""

from __future__ import annotations

import operator
from types import SimpleNamespace

import numpy as np

from . import elementary, ops_numpy, philox
from .kept import Kept
from .layout import NONE, Plan
from .model import quarter as stages
from .model import world
from .tally import MOST_LANES, TallyBuilder

# Values in an array of the widest group: more fall out of the cache, fewer pay more for calls of numpy.
_VALUES = 131_072
_TILES = 8_192, 32_768
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_PATH_MASK = 0xFFFFFFFF


class Draws:
    """One-time draws of a tile of paths: normal scores and raw words by group and role; see
    `layout.Streams`.
    """

    def __init__(self, plan: Plan, path_high, path_low):
        streams = plan.streams
        self._rows, self._shared = streams.rows, streams.shared
        self.zero = np.zeros(path_low.size, np.float32)
        scores, words = [], []
        for number, stream in enumerate(streams.crc):
            first = philox.draw_words(
                ops_numpy, plan.seed, np.uint64(stream), np.uint64(0), path_high, path_low
            )[0]
            if number < streams.scores:
                scores.append(elementary.normal(ops_numpy, first))
            else:
                words.append(first)
        self._scores = np.array(scores, np.float32).reshape(-1, path_low.size)
        self._words = np.array(words, np.uint64).reshape(-1, path_low.size)

    def score(self, group: int, role: str):
        """Normal scores [deals, lanes] of a group's own draws in a role; group -1 is the world."""
        return self._scores[self._rows[group, role]]

    def word(self, group: int, role: str):
        """Raw words [deals, lanes]."""
        return self._words[self._rows[group, role]]

    def shared(self, rows: tuple[int, ...]):
        """Scores of shared causes, one row per deal."""
        return self._scores[list(rows)]

    def supply_chain(self):
        """The score common to all slips."""
        return self._scores[self._shared["supply_chain"]]


class Tile:
    """A tile of paths on its way through the quarters."""

    def __init__(self, plan: Plan, first_path: int, lanes: int):
        path = np.uint64(first_path) + np.arange(lanes, dtype=np.uint64)
        self.plan = plan
        self._low = path & np.uint64(_PATH_MASK)
        high = path >> np.uint64(32)
        self._high = high[0] if high[0] == high[-1] else high
        self._life = {n: g.features.life for n, g in enumerate(plan.groups) if g.features.life is not None}
        self._past: dict[int, list[dict]] = {number: [] for number in self._life}
        self._words: list = []
        self.terms, self.state = stages.begin(ops_numpy, plan, draws := Draws(plan, self._high, self._low))
        self.zero = draws.zero
        self.deliveries: list[dict] = []
        for t in range(-plan.history, 0):
            self.state, deliveries = stages.history_quarter(
                ops_numpy,
                plan,
                self.terms,
                self.state,
                self.zero,
                np.float32(t),
                self._vintages(t),
                self._lagged(t),
            )
            self._remember(deliveries)

    def _vintages(self, t: int) -> list:
        return [
            g.vintage if g.vintage is None else g.vintage[t + self.plan.history] for g in self.plan.groups
        ]

    def _lagged(self, t: int) -> list:
        lagged: list = [None] * len(self.plan.groups)
        for number, life in self._life.items():
            ago = t + self.plan.history - life
            lagged[number] = self._past[number][ago] if ago >= 0 else None
        return lagged

    def _remember(self, deliveries: list[dict]) -> None:
        for number in self._life:
            kept = {
                key: deliveries[number][key] for key in ("mean", "vintage_mean") if key in deliveries[number]
            }
            self._past[number].append(kept)

    def step(self, t: int) -> dict:
        """Runs quarter t and moves the world on; returns what the quarter records, by (scope, metric)."""
        plan = self.plan
        scalars = SimpleNamespace(
            t=np.float32(t), discount=plan.discount[t], table=plan.world.table[t], vintages=self._vintages(t)
        )
        self.state, recorded, self.deliveries = stages.quarter(
            ops_numpy, plan, self.terms, self.state, self.zero, scalars, self._lagged(t)
        )
        self._remember(self.deliveries)
        if t + 1 < plan.quarters:
            moved = world.step(ops_numpy, plan, self.state["world"], plan.world.growth[t], self._series(t))
            self.state = {**self.state, "world": moved}
        return recorded

    def _series(self, t: int) -> dict:
        """The quarter's words of factors and regime; four quarters are drawn at a time."""
        block, lane = divmod(t, philox.WORDS)
        if lane == 0:
            self._words = [
                philox.draw_words(
                    ops_numpy, self.plan.seed, np.uint64(stream), np.uint64(block), self._high, self._low
                )
                for stream in self.plan.series_crc
            ]
        words = [four[lane] for four in self._words]
        found = {"factors": np.array(words[: len(self.plan.world.row)], np.uint64)}
        if self.plan.world.regime:
            found["regime"] = words[-1]
        return found

    def finish(self) -> dict:
        """What the path records, by (scope, metric)."""
        t = self.plan.quarters - 1
        view = world.levels(
            ops_numpy, self.plan, self.state["world"], self.plan.world.table[t], self.plan.world.table[0]
        )
        return stages.end(ops_numpy, self.plan, self.terms, self.state, self.deliveries, view)


def tile_lanes(plan: Plan) -> int:
    """Lanes of a tile: few where a group is wide. Bits do not depend on it."""
    widest = max(len(group.deals) for group in plan.groups)
    return min(max(_VALUES // widest, _TILES[0]), _TILES[1])


def run(plan: Plan, first_path: int, paths: int, builder: TallyBuilder, keep: int = 0) -> Kept | None:
    """Runs `paths` (≤ 65,536) paths from `first_path` into `builder`; returns the first `keep` of them
    whole.
    """
    assert 0 < paths <= MOST_LANES, paths
    keep = min(keep, paths)
    size = tile_lanes(plan)
    offsets = range(0, paths, size)
    tiles = [Tile(plan, first_path + offset, min(size, paths - offset)) for offset in offsets]
    rows = np.empty((len(plan.quarter_series), paths), np.float32)
    totals = [(number, s.metric) for number, s in enumerate(plan.quarter_series) if s.is_kept]
    kept_quarters = {metric: np.empty((keep, plan.quarters), np.float32) for _, metric in totals}
    for t in range(plan.quarters):
        for tile, offset in zip(tiles, offsets, strict=True):
            _collect(plan.quarter_series, tile.step(t), rows[:, offset : offset + size])
        for number, values in enumerate(rows):
            builder.add(number * plan.quarters + t, values, first_path)
        for number, metric in totals:
            kept_quarters[metric][:, t] = rows[number, :keep]
        _count(plan, rows, builder, t, per_path=False)
    finals = np.empty((len(plan.path_series), paths), np.float32)
    for tile, offset in zip(tiles, offsets, strict=True):
        _collect(plan.path_series, tile.finish(), finals[:, offset : offset + size])
    base = len(plan.quarter_series) * plan.quarters
    for number, values in enumerate(finals):
        builder.add(base + number, values, first_path)
    _count(plan, finals, builder, 0, per_path=True)
    if not keep:
        return None
    path = np.uint64(first_path) + np.arange(keep, dtype=np.uint64)
    scalars = {plan.kept_name(s): finals[number, :keep].copy() for number, s in enumerate(plan.path_series)}
    return Kept(path, kept_quarters, scalars, plan.nullable_names)


def _collect(series, recorded: dict, out: np.ndarray) -> None:
    for row, entry in zip(out, series, strict=True):
        row[:] = recorded[entry.scope, entry.metric][entry.index]


def _count(plan: Plan, rows: np.ndarray, builder: TallyBuilder, t: int, *, per_path: bool) -> None:
    """Adds the paths that meet each threshold in quarter t (or over the path)."""
    counter = 0
    series = plan.path_series if per_path else plan.quarter_series
    for threshold in plan.thresholds:
        if threshold.per_path == per_path:
            values = rows[threshold.series]
            hits = _COMPARE[threshold.op](values, np.float32(threshold.level))
            if series[threshold.series].nullable:
                hits &= values != np.float32(NONE)
            builder.add_threshold(counter + t, int(np.count_nonzero(hits)))
        counter += 1 if threshold.per_path else plan.quarters
