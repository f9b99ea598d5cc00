"""The readable skeleton: a tile of paths walked quarter by quarter, each operation as it is written.

Replays run it, for it shows everything on the way; `path_numpy` runs the same stages as a traced program,
and tests hold the two to the same bits.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from . import elementary, ops_numpy, philox
from .layout import Plan
from .model import quarter as stages
from .model import world


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
        self.plan = plan
        self._high, self._low = philox.split_paths(first_path, lanes)
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
