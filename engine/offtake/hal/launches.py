"""Paths as launches that a device can hold: the bookkeeping that backends share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import TallyBuilder

# Runs (first path, paths, builder, paths to keep whole).
Launch = Callable[[int, int, TallyBuilder, int], Kept | None]
# Adds a share of the paths to a builder; returns the kept ones of each launch.
Work = Callable[[TallyBuilder], Sequence[Kept | None]]


def run_launches(
    plan: Plan,
    first_path: int,
    paths: int,
    keep: int,
    builder: TallyBuilder,
    size: int,
    launch: Launch,
    threads: int = 1,
) -> Kept | None:
    """Adds launches of at most `size` paths on `threads` threads; returns the first `keep` paths whole."""
    todo = []
    for offset in range(0, paths, size):
        lanes = min(size, paths - offset)
        todo.append((first_path + offset, lanes, max(0, min(keep - offset, lanes))))

    def work(share: list[tuple[int, int, int]], into: TallyBuilder) -> list[Kept | None]:
        # Inside a path, invalid values are counted with their path, not warned about.
        with np.errstate(all="ignore"):
            return [launch(first, lanes, into, wanted) for first, lanes, wanted in share]

    shares = [partial(work, todo[k::threads]) for k in range(min(threads, len(todo)))]
    return side_by_side(plan, shares, builder)


def side_by_side(plan: Plan, works: Sequence[Work], builder: TallyBuilder) -> Kept | None:
    """Runs each work on a thread of its own, and adds what they leave behind; returns the kept paths."""
    others = [TallyBuilder(plan.rows, plan.threshold_rows) for _ in works[1:]]
    if others:
        with ThreadPoolExecutor(len(works)) as pool:
            done = list(pool.map(lambda work, into: work(into), works, [builder, *others]))
    else:
        done = [works[0](builder)]
    for other in others:
        builder.absorb(other.build(0))
    whole = [kept for parts in done for kept in parts if kept is not None]
    return Kept.join(whole) if whole else None
