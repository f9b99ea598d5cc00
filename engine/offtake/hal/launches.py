"""A unit of paths as launches that a device can hold: the bookkeeping that backends share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import Tally, TallyBuilder

# Runs (first path, paths, builder, paths to keep whole).
Launch = Callable[[int, int, TallyBuilder, int], Kept | None]


def run_launches(
    plan: Plan, first_path: int, paths: int, keep: int, size: int, launch: Launch, threads: int = 1
) -> tuple[Tally, Kept | None]:
    """The tally of launches of at most `size` paths on `threads` threads, and the first `keep` whole."""
    todo = []
    for offset in range(0, paths, size):
        lanes = min(size, paths - offset)
        todo.append((first_path + offset, lanes, max(0, min(keep - offset, lanes))))

    def work(share: list[tuple[int, int, int]]) -> tuple[TallyBuilder, list[Kept | None]]:
        builder = TallyBuilder(plan.rows, plan.threshold_rows)
        # Inside a path, invalid values are counted with their path, not warned about.
        with np.errstate(all="ignore"):
            return builder, [launch(first, lanes, builder, wanted) for first, lanes, wanted in share]

    shares = [todo[k::threads] for k in range(min(threads, len(todo)))]
    if len(shares) == 1:
        done = [work(shares[0])]
    else:
        with ThreadPoolExecutor(len(shares)) as pool:
            done = list(pool.map(work, shares))
    builder = done[0][0]
    for other, _ in done[1:]:
        builder.absorb(other.build(0))
    whole = [kept for _, parts in done for kept in parts if kept is not None]
    return builder.build(paths), Kept.join(whole) if whole else None
