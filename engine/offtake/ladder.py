"""A deal's plan in exact numbers: when it starts, and the curve that its ladder promises."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from offtake.deals import Commitment, Deal

_DAYS_PER_QUARTER = 91.3125


def quarters_between(start: datetime.date, date: datetime.date) -> float:
    """4·years + months/3 + days/91.3125 from start to date."""
    years, months, days = date.year - start.year, date.month - start.month, date.day - start.day
    return 4 * years + months / 3 + days / _DAYS_PER_QUARTER


@dataclass(frozen=True)
class Ladder:
    """The planned curve of a deal in float64: the totals that every exact check refers to."""

    segments: tuple[tuple[Literal["jump", "ramp"], float, float, float], ...]  # kind, GW added, begin, length

    def integral(self, until: float) -> float:
        """GW-quarters from own start until a ladder time, before size."""
        total = 0.0
        for kind, gw, begin, length in self.segments:
            if kind == "jump":
                total += gw * max(until - begin, 0.0)
            else:
                part = min(max(until - begin, 0.0), length)
                total += gw * (part * part / (2 * length) + max(until - begin - length, 0.0))
        return total


def planned_ladder(deal: Deal) -> Ladder:
    """The ladder as announced, without stretch and with every rung."""
    rungs = list(deal.ladder.values())
    points = [(0.0, 0.0), *((rung.after, rung.gw) for rung in rungs)]
    segments: list[tuple[Literal["jump", "ramp"], float, float, float]] = []
    for (before, below), (after, gw) in pairwise(points):
        if deal.shape == "step" or after == 0.0:
            segments.append(("jump", gw - below, after, 0.0))
        else:
            segments.append(("ramp", gw - below, before, after - before))
    return Ladder(tuple(segments))


def planned_weight(deal: Deal, leg: Commitment) -> float:
    """What a commitment's total is spread over: GW-quarters of the planned curve, or quarters of the term."""
    assert deal.term is not None
    return deal.term if leg.profile == "flat" else planned_ladder(deal).integral(deal.term)
