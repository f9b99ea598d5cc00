"""The numpy backend: tiles of paths through traced programs, quarter by quarter.

A tile of lanes keeps its arrays in cache. Memory: states of all tiles, and buffers of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import ops_numpy, philox, trace
from .layout import Plan
from .model import quarter as stages
from .model import world
from .program_numpy import Call, MaskOps, Program, Scratch
from .tile_numpy import Draws
from .trees import leaves, transform

# Values in an array of the widest group: more fall out of the cache, fewer pay more for calls of numpy.
_VALUES = 131_072
_TILES = 8_192, 32_768


class Recipe:
    """The programs of a plan, made once and bound to every tile."""

    def __init__(self, plan: Plan):
        self.plan = plan
        # What a quarter recorded is read after the world has moved on, so each has its own buffers.
        self.lanes = tile_lanes(plan)
        scratch, world_scratch = Scratch(self.lanes), Scratch(self.lanes)
        self.life = {n: g.features.life for n, g in enumerate(plan.groups) if g.features.life is not None}
        # Two paths are enough to tell which arrays have an axis over paths.
        two = np.arange(2, dtype=np.uint64)
        self._terms, self._state = stages.begin(ops_numpy, plan, Draws(plan, np.uint64(0), two))
        self.world = Stage(trace.world_step(plan, MaskOps, self._state["world"]), {}, [], world_scratch)
        self._scratch = scratch
        self._quarters: dict[bool, Stage] = {}

    def quarter(self, t: int) -> Stage:
        """Quarter t: of the study, or of history."""
        history = t < 0
        if history not in self._quarters:
            self._quarters[history] = self._stage(history)
        return self._quarters[history]

    @property
    def places(self) -> list[int]:
        """Which recorded array holds each series of the plan."""
        return self.quarter(0).places

    def tile(self, first_path: int, lanes: int) -> Tile:
        """A tile of paths before quarter 0."""
        return Tile(self, first_path, lanes)

    def _stage(self, history: bool) -> Stage:
        traced = trace.quarter(self.plan, MaskOps, self._terms, self._state, history)
        return Stage(traced, *trace.results(self.plan, traced), self._scratch)


class Stage:
    """A traced stage with its program and arrays for its scalars; `results` is a tree of values and
    numbers.
    """

    def __init__(self, traced: trace.Traced, results: dict[str, Any], places: list[int], scratch: Scratch):
        self.traced, self.places, self._scratch = traced, places, scratch
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
        self._recipe, self._lanes = recipe, lanes
        self._high, self._low = philox.split_paths(first_path, lanes)
        terms, state = stages.begin(ops_numpy, plan, Draws(plan, self._high, self._low))
        self._terms = transform(np.ascontiguousarray, terms)
        # Arrays of the state are written in place, so that none may be shared.
        self._state = transform(np.array, state)
        # What retires: nothing, until a quarter is as old as its hardware lives.
        self._lagged = {number: trace.remembered(plan, number, lanes) for number in recipe.life}
        self._past: dict[int, list] = {number: [] for number in recipe.life}
        self._drawn: list[dict[str, np.ndarray]] = []
        self._words: dict[str, np.ndarray] = {}
        if plan.world.row:
            self._words["factors"] = np.empty((len(plan.world.row), lanes), np.uint32)
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
            stage.set_scalars({"growth": list(plan.world.growth[t])})
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
