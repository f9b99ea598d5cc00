"""The numpy backend: paths in tiles, quarter by quarter, each recorded row tallied over all tiles at once.

The loop nest is visit of a few quarters → tile → quarter → calls of a traced program: a tile of lanes keeps
its arrays in cache, and a row of up to 65,536 values amortises the tally's cost. Memory: states of all
tiles, buffers of one, and a visit's float32 rows, one per recorded series.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from . import ops_numpy, philox, trace
from .graph import Value
from .kept import Kept
from .layout import NONE, Plan
from .model import quarter as stages
from .model import world
from .program_numpy import Call, MaskOps, Program, Scratch
from .tally import MOST_LANES, TallyBuilder
from .tile_numpy import Draws
from .trees import leaves, transform

# Values in an array of the widest group: more fall out of the cache, fewer pay more for calls of numpy.
_VALUES = 131_072
# Quarters that a tile runs before the next tile's turn: fewer visits, more rows to hold.
_VISIT = 4
_TILES = 8_192, 32_768
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_PATH_MASK = 0xFFFFFFFF
_PROBE_LANES = 2


class Recipe:
    """The programs of a plan, made once and bound to every tile."""

    def __init__(self, plan: Plan):
        self.plan = plan
        # What a quarter recorded is read after the world has moved on, so each has its own buffers.
        scratch, world_scratch = Scratch(tile_lanes(plan)), Scratch(tile_lanes(plan))
        self.life = {n: g.features.life for n, g in enumerate(plan.groups) if g.features.life is not None}
        # Two paths are enough to tell which arrays have an axis over paths.
        two = np.arange(2, dtype=np.uint64)
        self._terms, self._state = stages.begin(ops_numpy, plan, Draws(plan, np.uint64(0), two))
        self.world = Stage(trace.world_step(plan, MaskOps, self._state["world"]), {}, world_scratch)
        self._scratch = scratch
        self._quarters: dict[bool, Stage] = {}

    def quarter(self, t: int) -> Stage:
        """Quarter t: of the study, or of history."""
        history = t < 0
        if history not in self._quarters:
            lagged = [self.remembered(n, 2) if n in self.life else None for n in range(len(self.plan.groups))]
            traced = trace.quarter(self.plan, MaskOps, self._terms, self._state, lagged, history)
            self._quarters[history] = Stage(traced, self._results(traced), self._scratch)
        return self._quarters[history]

    @cached_property
    def places(self) -> list[int]:
        """Which recorded array holds each series: what is the same value is recorded once."""
        place = {value.number: n for n, value in enumerate(self.quarter(0).results["recorded"])}
        return [place[value.number] for value in self._recorded(self.quarter(0).traced)]

    @cached_property
    def together(self) -> list[list[int]]:
        """The series that share each recorded array."""
        shared: list[list[int]] = [[] for _ in range(max(self.places) + 1)]
        for series, place in enumerate(self.places):
            shared[place].append(series)
        return shared

    def remembered(self, number: int, lanes: int) -> dict[str, np.ndarray]:
        """Room for what a group of limited life delivered in a quarter."""
        group = self.plan.groups[number]
        ages = group.features.improves and group.features.layer != "site"
        shape = len(group.deals), lanes
        return {
            name: np.zeros(shape, np.float32) for name in (("mean", "vintage_mean") if ages else ("mean",))
        }

    def _results(self, traced: trace.Traced) -> dict[str, Any]:
        deliveries = traced.deliveries
        return {
            "recorded": list(dict.fromkeys(self._recorded(traced))),
            "remembered": {n: {k: deliveries[n][k] for k in self.remembered(n, 0)} for n in self.life},
            "ends": [{"start": d["start"], "scheduled_end": d["scheduled_end"]} for d in deliveries]
            if traced.recorded
            else [],
        }

    def _recorded(self, traced: trace.Traced) -> list[Value]:
        if not traced.recorded:
            return []
        found = (traced.recorded[s.scope, s.metric][s.index] for s in self.plan.quarter_series)
        return [traced.graph.constant(value) for value in found]


class Stage:
    """A traced stage with its program and arrays for its scalars; `results` is a tree of values and
    numbers.
    """

    def __init__(self, traced: trace.Traced, results: dict[str, Any], scratch: Scratch):
        self.traced, self._scratch = traced, scratch
        self.results = transform(traced.graph.constant, results)
        self.program = Program(
            [v for tree in traced.inputs.values() for v in leaves(tree) if v.op == "input"],
            list(leaves(self.results)),
            trace.updates(traced),
        )
        self.scalars = transform(lambda value: np.empty(value.shape, np.float32), traced.inputs["scalars"])

    def set_scalars(self, scalars: Any) -> None:
        """The quarter's numbers, for all tiles."""
        for array, number in zip(leaves(self.scalars), leaves(scalars), strict=True):
            array[...] = number

    def bind(self, trees: dict[str, Any], lanes: int) -> tuple[list[Call], Any]:
        """(calls, tree of result arrays) on a tile's arrays, given as trees like those of the inputs."""
        given = {**trees, "scalars": self.scalars}
        arrays = [
            array
            for name, tree in self.traced.inputs.items()
            for value, array in zip(leaves(tree), leaves(given[name]), strict=True)
            if value.op == "input"
        ]
        calls, found = self.program.bind(lanes, arrays, self._scratch)
        remaining = iter(found)
        return calls, transform(lambda _: next(remaining), self.results)


class Tile:
    """A tile of paths on its way through the quarters."""

    def __init__(self, recipe: Recipe, first_path: int, lanes: int):
        plan = recipe.plan
        path = np.uint64(first_path) + np.arange(lanes, dtype=np.uint64)
        self._recipe, self._lanes = recipe, lanes
        self._low = path & np.uint64(_PATH_MASK)
        high = path >> np.uint64(32)
        self._high = high[0] if high[0] == high[-1] else high
        terms, state = stages.begin(ops_numpy, plan, Draws(plan, self._high, self._low))
        self._terms = transform(np.ascontiguousarray, terms)
        # Arrays of the state are written in place, so that none may be shared.
        self._state = transform(np.array, state)
        # What retires: nothing, until a quarter is as old as its hardware lives.
        self._lagged = {number: recipe.remembered(number, lanes) for number in recipe.life}
        self._past: dict[int, list] = {number: [] for number in recipe.life}
        self._drawn: list[dict[str, np.ndarray]] = []
        self._words: dict[str, np.ndarray] = {"factors": np.empty((len(plan.world.row), lanes), np.uint32)}
        if plan.world.regime:
            self._words["regime"] = np.empty(lanes, np.uint32)
        self._bound: dict[int, tuple[list[Call], Any]] = {}
        self._ends: list = []
        for t in range(-plan.history, 0):
            self._quarter(t)

    def step(self, t: int) -> list[np.ndarray]:
        """Runs quarter t and moves the world on; returns the recorded arrays, in the order of
        `Recipe.together`, good until the next call of any tile.
        """
        plan = self._recipe.plan
        found = self._quarter(t)
        self._ends = found["ends"]
        if t + 1 < plan.quarters:
            block, lane = divmod(t, philox.WORDS)
            if lane == 0:
                self._drawn = self._draw(block)
            for name, words in self._words.items():
                np.copyto(words, self._drawn[lane][name])
            stage = self._recipe.world
            stage.set_scalars({"growth": plan.world.growth[t]})
            self._run(stage, {"state": self._state["world"], "words": self._words})
        return found["recorded"]

    def finish(self) -> dict:
        """What the path records, by (scope, metric); right after the last step."""
        plan = self._recipe.plan
        table = plan.world.table
        view = world.levels(ops_numpy, plan, self._state["world"], table[-1], table[0])
        return stages.end(ops_numpy, plan, self._terms, self._state, self._ends, view)

    def _quarter(self, t: int) -> dict[str, Any]:
        recipe, plan = self._recipe, self._recipe.plan
        since = t + plan.history
        for number, life in recipe.life.items():
            if since >= life:
                for name, array in self._lagged[number].items():
                    np.copyto(array, self._past[number][since - life][name])
        vintages = [None if g.vintage is None else g.vintage[since] for g in plan.groups]
        scalars: dict[str, Any] = {"t": t, "vintages": vintages}
        if t >= 0:
            scalars |= {"discount": plan.discount[t], "table": list(plan.world.table[t])}
        stage = recipe.quarter(t)
        stage.set_scalars(scalars)
        lagged = [self._lagged.get(number) for number in range(len(plan.groups))]
        found = self._run(stage, {"terms": self._terms, "state": self._state, "lagged": lagged})
        for number, kept in found["remembered"].items():
            self._past[number].append(transform(np.array, kept))
        return found

    def _run(self, stage: Stage, trees: dict[str, Any]) -> Any:
        if id(stage) not in self._bound:
            self._bound[id(stage)] = stage.bind(trees, self._lanes)
        calls, found = self._bound[id(stage)]
        for call in calls:
            call()
        return found

    def _draw(self, block: int) -> list[dict[str, np.ndarray]]:
        """The words of four quarters, for factors and regime."""
        plan = self._recipe.plan
        streams = [
            philox.draw_words(
                ops_numpy, plan.seed, np.uint64(stream), np.uint64(block), self._high, self._low
            )
            for stream in plan.series_crc
        ]
        drawn = []
        for lane in range(philox.WORDS):
            words = [np.asarray(four[lane], np.uint32) for four in streams]
            factors = np.array(words[: len(plan.world.row)], np.uint32).reshape(-1, self._lanes)
            drawn.append({"factors": factors, "regime": words[-1] if plan.world.regime else None})
        return drawn


def tile_lanes(plan: Plan) -> int:
    """Lanes of a tile: few where a group is wide. Bits do not depend on it."""
    widest = max(len(group.deals) for group in plan.groups)
    return min(max(_VALUES // widest, _TILES[0]), _TILES[1])


def run(recipe: Recipe, first_path: int, paths: int, builder: TallyBuilder, keep: int = 0) -> Kept | None:
    """Runs `paths` (≤ 65,536) paths from `first_path` into `builder`; returns the first `keep` of them
    whole.
    """
    assert 0 < paths <= MOST_LANES, paths
    plan = recipe.plan
    keep = min(keep, paths)
    size = tile_lanes(plan)
    offsets = range(0, paths, size)
    tiles = [Tile(recipe, first_path + offset, min(size, paths - offset)) for offset in offsets]
    rows = np.empty((_VISIT, len(recipe.together), paths), np.float32)
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
            for values, same in zip(found, recipe.together, strict=True):
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
