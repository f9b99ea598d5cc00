"""The JAX backend: tiles of paths through XLA executables, quarter by quarter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from . import philox, trace
from .graph import LANES, Value
from .layout import Plan
from .ops_graph import GraphOps
from .placement import Placement
from .program_jax import Executable
from .settings_jax import usual_settings
from .tally_jax import Histograms
from .trees import leaves, transform

_NO_NUMBERS = np.zeros(0, np.float32)


class Recipe:
    """The executables of a plan on devices that share `lanes` paths a tile.

    runs: how many runs of a row `tally_jax` brings back; None for a tally on the host.
    """

    def __init__(
        self, plan: Plan, placement: Placement, *, strict: bool, lanes: int, runs: int | None = None
    ):
        self.plan, self.placement, self.lanes = plan, placement, lanes
        self.life = {n: g.features.life for n, g in enumerate(plan.groups) if g.features.life is not None}
        options = {"placement": placement, "strict": strict, "lanes": lanes}
        begun = trace.begin(plan, GraphOps)
        terms, state = begun.after["terms"], begun.after["state"]
        opening = [v for v in leaves(terms) if v.constant is None], list(leaves(state))
        self.terms = len(opening[0])
        self.begin = Executable(_inputs(begun), [*opening[0], *opening[1]], **options)
        self.world_size = len(list(leaves(state["world"])))
        self.words = self.world = None
        if plan.series_crc:
            drawn = trace.words(plan, GraphOps)
            self.words = Executable(_inputs(drawn), list(leaves(drawn.after)), **options)
            self.world = Move(trace.world_step(plan, GraphOps, state["world"]), {}, options)
        self.history = None
        if plan.history:
            traced = trace.quarter(plan, GraphOps, terms, state, history=True)
            self.history = Move(traced, trace.results(plan, traced)[0], options)
        traced = trace.quarter(plan, GraphOps, terms, state, history=False)
        found, self.places = trace.results(plan, traced)
        # One array of all rows: an array that leaves an executable costs microseconds, whatever its size.
        varying = [v for v in found["recorded"] if v.constant is None]
        row = {v.number: n for n, v in enumerate(varying)}
        self.rows = [row.get(v.number, v.constant) for v in found["recorded"]]
        found["recorded"] = traced.graph.stack(varying)
        self.quarter = Move(traced, found, options)
        self.end = End(trace.end(plan, GraphOps, terms, state, self.quarter.results["ends"]), options)
        self.histograms = None
        if runs is not None:
            self.histograms = Histograms(len(varying), lanes, placement, runs)

    def tile(self, first_path: int, lanes: int) -> Tile:
        """A tile of paths before quarter 0."""
        return Tile(self, first_path, lanes)

    def executables(self) -> list[Executable | Histograms]:
        """Everything that is compiled."""
        moves = [move.executable for move in (self.history, self.quarter, self.world) if move is not None]
        others = [self.begin, self.end.executable, self.words, self.histograms]
        return [*moves, *(executable for executable in others if executable is not None)]

    def compile(self) -> Recipe:
        """Compiles all at once, for XLA compiles without the interpreter lock; returns this recipe."""
        executables = self.executables()
        with ThreadPoolExecutor(len(executables)) as pool:
            list(pool.map(usual_settings()(lambda executable: executable.compiled), executables))
        return self


class Move:
    """A stage that moves the state on: an executable, and which arrays of the state it replaces."""

    def __init__(self, traced: trace.Traced, results: dict[str, Any], options: dict[str, Any]):
        self.results = transform(traced.graph.constant, results)
        changed = trace.updates(traced)
        inputs = _inputs(traced)
        position = {value.number: n for n, value in enumerate(leaves(traced.inputs["state"]))}
        self._replaced = [position[old.number] for old, _ in changed]
        self._found = [v for v in leaves(self.results) if v.constant is None]
        self.executable = Executable(
            inputs,
            [*(new for _, new in changed), *self._found],
            replaced=[old for old, _ in changed],
            **options,
        )

    def __call__(self, state: list[Any], before: list[Any], after: list[Any], uniform: np.ndarray) -> Any:
        """Replaces arrays of `state` and returns the tree of results; `before` and `after` are the other
        inputs over paths, as they lie around the state.
        """
        arrays = self.executable([*before, *state, *after], uniform)
        for place, array in zip(self._replaced, arrays, strict=False):
            state[place] = array
        remaining = iter(arrays[len(self._replaced) :])
        return transform(lambda v: next(remaining) if v.constant is None else v.constant, self.results)


class End:
    """The path metrics of a tile after its last quarter."""

    def __init__(self, traced: trace.Traced, options: dict[str, Any]):
        self._recorded = {
            where: [traced.graph.constant(v) for v in rows] for where, rows in traced.recorded.items()
        }
        computed = {v.number: v for v in leaves(self._recorded) if v.constant is None}
        self._numbers = list(computed)
        self.executable = Executable(_inputs(traced), list(computed.values()), **options)

    def __call__(self, arrays: list[Any]) -> dict:
        """Lists of rows by (scope, metric)."""
        found = dict(zip(self._numbers, self.executable(arrays, _NO_NUMBERS), strict=True))
        return transform(lambda v: found[v.number] if v.constant is None else v.constant, self._recorded)


class Tile:
    """A tile of paths on its way through the quarters; its arrays stay on the device.

    An executable is of one size, so that a tile of fewer paths runs some that nobody asked for.
    """

    def __init__(self, recipe: Recipe, first_path: int, wanted: int):
        plan, lanes = recipe.plan, recipe.lanes
        self._recipe, self._lanes, self._wanted = recipe, lanes, wanted
        halves = np.broadcast_arrays(*philox.split_paths(first_path, lanes))
        self._path = [recipe.placement.put(half.astype(np.uint32), (LANES,)) for half in halves]
        zero = recipe.placement.put(np.zeros(lanes, np.float32), (LANES,))
        begun = recipe.begin([*self._path, zero], _NO_NUMBERS)
        self._terms, self._state = begun[: recipe.terms], begun[recipe.terms :]
        self._nothing = {n: trace.remembered(plan, n, lanes) for n in recipe.life}
        self._past: dict[int, list] = {n: [] for n in recipe.life}
        self._drawn: list[Any] = []
        self._ends: Any = None
        for t in range(-plan.history, 0):
            assert recipe.history is not None
            self._quarter(recipe.history, t)

    def step(self, t: int) -> list[Any]:
        """Runs quarter t and moves the world on; returns the recorded arrays."""
        rows = self._asked_for(self.advance(t))
        return [rows[row] if isinstance(row, int) else row for row in self._recipe.rows]

    def advance(self, t: int) -> Any:
        """As `step`; the recorded arrays that are not constant as one, which stays on the device."""
        recipe, plan = self._recipe, self._recipe.plan
        found = self._quarter(recipe.quarter, t)
        self._ends = found["ends"]
        if t + 1 < plan.quarters and recipe.words is not None and recipe.world is not None:
            block, lane = divmod(t, philox.WORDS)
            if lane == 0:
                drawn = recipe.words(self._path, np.array([block], np.uint32))
                each = len(drawn) // philox.WORDS
                self._drawn = [drawn[k * each : k * each + each] for k in range(philox.WORDS)]
            growth = plan.world.growth[t].astype(np.float32).reshape(-1)
            world = self._state[: recipe.world_size]
            recipe.world(world, [], self._drawn[lane], growth)
            self._state[: recipe.world_size] = world
        return found["recorded"]

    def finish(self) -> dict:
        """What the path records, by (scope, metric)."""
        ends = [end for end in leaves(self._ends) if not isinstance(end, np.ndarray)]
        found = self._recipe.end([*self._terms, *self._state, *ends])
        return transform(self._asked_for, found)

    def _asked_for(self, values: Any) -> np.ndarray:
        """As numpy's, without the paths that fill up the tile; a view where the device is a CPU."""
        array = np.asarray(values)
        return array[..., : self._wanted] if array.shape[-1:] == (self._lanes,) else array

    def _quarter(self, move: Move, t: int) -> Any:
        recipe, plan = self._recipe, self._recipe.plan
        since = t + plan.history
        lagged = []
        for number, life in recipe.life.items():
            remembered = self._past[number][since - life] if since >= life else self._nothing[number]
            lagged += remembered.values()
        scalars: list[Any] = [t, *(g.vintage[since] for g in plan.groups if g.vintage is not None)]
        if t >= 0:
            scalars += [plan.discount[t], plan.world.table[t]]
        uniform = np.concatenate([np.asarray(part, np.float32).reshape(-1) for part in scalars])
        found = move(self._state, self._terms, lagged, uniform)
        for number, kept in found["remembered"].items():
            shape = len(plan.groups[number].deals), self._lanes
            self._past[number].append(
                {
                    name: v if v.shape == shape else np.broadcast_to(np.asarray(v), shape)
                    for name, v in kept.items()
                }
            )
        return found


def _inputs(traced: trace.Traced) -> list[Value]:
    return [v for tree in traced.inputs.values() for v in leaves(tree) if v.op == "input"]
