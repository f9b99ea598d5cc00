"""A graph cut into segments, for a compiler that computes a shared value again for each of its users.

XLA on CPU has no fusion with several outputs: it repeats a value in every loop that needs it, unless the
value is stored. So values that are costly and used more than once are stored, level by level: what a segment
stores depends on earlier segments only, and no segment repeats another's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .graph import Value, reachable

# Operations that may be repeated before storing the value is cheaper.
_MOST_REPEATED = 8
_FREE = {"row", "bits", "from_bits", "constant", "input"}


@dataclass(frozen=True)
class Segment:
    """Values to store, the values from earlier segments (or inputs) that they need, and what lies between."""

    stored: tuple[Value, ...]
    needed: tuple[Value, ...]
    between: tuple[Value, ...]


def cut(inputs: Sequence[Value], results: Sequence[Value]) -> list[Segment]:
    """Segments in the order in which they can run; every result that is computed is stored by one of them."""
    order = reachable(results)
    stored = _to_store(order, results)
    known = {value.number for value in inputs}
    level: dict[int, int] = {}
    levels: list[list[Value]] = []
    for value in order:
        below = max((level[a.number] for a in value.args if isinstance(a, Value)), default=0)
        level[value.number] = below + (value.number in stored)
        if value.number in stored:
            if below == len(levels):
                levels.append([])
            levels[below].append(value)
    segments = []
    for roots in levels:
        segments.append(_segment(roots, known, order))
        known |= {root.number for root in roots}
    return segments


def _to_store(order: Sequence[Value], results: Sequence[Value]) -> set[int]:
    users: dict[int, int] = {}
    for value in order:
        for number in {a.number for a in value.args if isinstance(a, Value)}:
            users[number] = users.get(number, 0) + 1
    wanted = {value.number for value in results}
    stored: set[int] = set()
    # Operations that lie between a value and what is stored.
    cost: dict[int, int] = {}
    for value in order:
        free = value.op in _FREE
        total = (not free) + sum(cost[a.number] for a in value.args if isinstance(a, Value))
        repeated = total * (users.get(value.number, 0) - 1)
        if value.op in ("constant", "input"):
            total = 0
        elif value.number in wanted or value.op == "stack" or (not free and repeated > _MOST_REPEATED):
            stored.add(value.number)
            total = 0
        cost[value.number] = total
    return stored


def _segment(roots: Sequence[Value], known: set[int], order: Sequence[Value]) -> Segment:
    inside: set[int] = set()
    needed: dict[int, Value] = {}
    pending = list(roots)
    while pending:
        value = pending.pop()
        if value.number in known:
            needed[value.number] = value
        elif value.number not in inside:
            inside.add(value.number)
            pending.extend(a for a in value.args if isinstance(a, Value))
    return Segment(tuple(roots), tuple(needed.values()), tuple(v for v in order if v.number in inside))
