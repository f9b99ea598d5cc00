"""One path again: its numbers, equal to what the run saw, and a log of what happened on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np

from offtake.compile import Compiled, compile_study
from offtake.compile_deals import legs_of
from offtake.errors import InputError, Mistake
from offtake.results import period
from offtake.study import MOST_PATHS, Study
from offtake_kernels.layout import NEVER, NONE, Plan
from offtake_kernels.tile_numpy import Tile


@dataclass(frozen=True)
class Replay:
    """A path: total metrics by quarter, per-path metrics, and events in order.

    events: {"quarter", "period", "deal" ("" for the buyer and the world), "event"}. None stands for "no
    value".
    """

    path: int
    periods: list[str] = field(repr=False)
    quarters: dict[str, list[float | None]] = field(repr=False)
    scalars: dict[str, float | None] = field(repr=False)
    events: list[dict[str, Any]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: what is not finite is None."""
        return {
            "path": self.path,
            "periods": self.periods,
            "quarters": {name: [_finite(value) for value in row] for name, row in self.quarters.items()},
            "scalars": {name: _finite(value) for name, value in self.scalars.items()},
            "events": self.events,
        }


def replay(study: Study, path: int) -> Replay:
    """Path `path` of a study, by the reference backend: every strict backend gives the same.

    Raises InputError for what is not a whole number from 0 to 2**33 - 1.
    """
    if not isinstance(path, Integral) or not 0 <= path < MOST_PATHS:
        raise InputError(
            [Mistake("command line", "path", f"{path} is not a path", f"paths are 0 to {MOST_PATHS - 1}")]
        )
    compiled = compile_study(study)
    plan = compiled.plan
    with np.errstate(all="ignore"):
        tile = Tile(plan, path, 1)
        log = _Log(study, compiled, tile)
        recorded = []
        for t in range(plan.quarters):
            recorded.append(tile.step(t))
            log.look(t)
        finals = tile.finish()
    quarters = {
        series.metric: [
            _value(r[series.scope, series.metric][series.index], series.nullable) for r in recorded
        ]
        for series in plan.quarter_series
        if series.is_kept
    }
    scalars = {
        plan.kept_name(series): _value(finals[series.scope, series.metric][series.index], series.nullable)
        for series in plan.path_series
    }
    periods = [period(study.portfolio.start, t) for t in range(plan.quarters)]
    return Replay(path, periods, quarters, scalars, log.events)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _value(row, nullable: bool) -> float | None:
    value = float(np.broadcast_to(np.asarray(row, np.float32), (1,))[0])
    return None if nullable and value == NONE else value + 0.0  # -0.0 is 0


class _Log:
    """Turns changes of a tile's state from quarter to quarter into events."""

    def __init__(self, study: Study, compiled: Compiled, tile: Tile) -> None:
        self.study, self.plan, self.tile = study, compiled.plan, tile
        self.events: list[dict[str, Any]] = []
        self._before: dict[tuple[str, str], Any] = {}
        for name, row, number in _members(self.plan):
            terms = tile.terms[number]
            if "ends" in terms and _at(terms["ends"], row) < 0:
                late = "ended_long_stop" in terms and bool(_at(terms["ended_long_stop"], row))
                self._note(0, name, "is later than its long stop and ends" if late else "does not happen")
            self._before |= dict.fromkeys(((name, key) for key, _ in self._happened(name, row, number)), True)

    def look(self, t: int) -> None:
        """Notes what changed in quarter t."""
        for name, row, number in _members(self.plan):
            self._deal(t, name, row, number)
        state = self.tile.state
        self._flag(t, "", "distress begins", "distress ends", state["buyer"].get("distress"))
        first = state["sums"]["first_shortage"]
        if float(first[0]) == t:
            self._note(t, "", "first shortage of compute")
        bust = state["world"].get("bust")
        if bust is not None and t + 1 < self.plan.quarters:
            self._flag(t + 1, "", "a bust begins", "the bust ends", bust)

    def _deal(self, t: int, name: str, row: int, number: int) -> None:
        delivery, state = self.tile.deliveries[number], self.tile.state["groups"][number]
        start = _at(delivery["start"], row)
        end = NEVER if delivery["end"] is None else _at(delivery["end"], row)
        if t <= start < t + 1 and start < end:
            self._note(t, name, _started(start - self._planned(number, row)))
        waits = _at(state["wait"], row) + _at(state["own_start"], row) if "wait" in state else 0.0
        if waits > self._before.get((name, "waits"), waits):
            self._note(t, name, "waits this quarter")
        self._before[name, "waits"] = waits
        for event, words in (("default_at", "the supplier defaults"), ("cancel_at", "is cancelled")):
            at = _at(state[event], row) if event in state else NEVER
            # A notice that ends after the service does is none.
            if at < NEVER and at <= end and (name, event) not in self._before:
                self._before[name, event] = True
                last = period(self.study.portfolio.start, int(at) - 1)
                self._note(t, name, words if at == t else f"{words}, to end with {last}")
        extended = bool(_at(state["extended"], row)) if "extended" in state else False
        if extended and (name, "extended") not in self._before:
            self._before[name, "extended"] = True
            self._note(t, name, "is extended")
        if t < end <= t + 1 and start < end:
            self._note(t, name, "service ends")
        for key, words in self._happened(name, row, number):
            if (name, key) not in self._before:
                self._before[name, key] = True
                self._note(t, name, words)

    def _happened(self, name: str, row: int, number: int) -> Iterator[tuple[str, str]]:
        """Tranches whose milestone or vesting has been reached: a key, and words for it."""
        held_by_leg = self.tile.state["groups"][number]["legs"]
        legs = legs_of(self.study.portfolio.deals[name])
        for (_, leg_name, leg), held in zip(legs, held_by_leg, strict=True):
            # A conditional amount of equity has no tranches to name.
            tranches = [f", tranche {tranche}" for tranche in getattr(leg, "tranches", ())] or [""]
            for kind, words in (("reached", "milestone of"), ("vested", "vesting of")):
                for tranche, flags in zip(tranches, held.get(kind, ()), strict=False):
                    if bool(_at(flags, row)):
                        what = f"its {leg.kind.replace('_', ' ')} {leg_name}{tranche}"
                        yield f"{leg_name} {kind}{tranche}", f"{words} {what}"

    def _planned(self, number: int, row: int) -> float:
        return float(self.plan.groups[number].parameters["start"][row, 0])

    def _flag(self, t: int, deal: str, begins: str, ends: str, flags) -> None:
        now = bool(flags[0]) if flags is not None else False
        if now != self._before.get((deal, begins), False):
            self._note(t, deal, begins if now else ends)
        self._before[deal, begins] = now

    def _note(self, t: int, deal: str, event: str) -> None:
        self.events.append(
            {"quarter": t, "period": period(self.study.portfolio.start, t), "deal": deal, "event": event}
        )


def _started(late: float) -> str:
    if abs(late) < 0.05:
        return "starts as announced"
    return f"starts, {abs(late):.1f} quarters {'after' if late > 0 else 'before'} its announced start"


def _members(plan: Plan):
    """Every deal: its name, its row in its group, its group's number."""
    for number, group in enumerate(plan.groups):
        for row, deal in enumerate(group.deals):
            yield plan.deal_names[deal], row, number


def _at(column, row: int) -> float:
    return float(np.asarray(column)[row, 0])
