"""Paths kept whole: what a study shows beside its distributions, and what a replay must equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Kept:
    """The paths kept whole, k of them; -1.0 says "none" in the names of `nullable`.

    path             uint64 [k]
    quarter_values   total metric -> float32 [k, quarters]
    scalar_values    per-path metric, a deal's as deal.metric -> float32 [k]
    """

    path: NDArray[np.uint64]
    quarter_values: Mapping[str, NDArray[np.float32]]
    scalar_values: Mapping[str, NDArray[np.float32]]
    nullable: frozenset[str] = frozenset()

    @classmethod
    def join(cls, parts: Sequence[Kept]) -> Kept:
        """All their paths, by path id; the parts, at least one, keep the same metrics."""
        path = np.concatenate([part.path for part in parts])
        order = np.argsort(path, kind="stable")
        first = parts[0]
        return cls(
            path[order],
            {m: np.concatenate([p.quarter_values[m] for p in parts])[order] for m in first.quarter_values},
            {m: np.concatenate([p.scalar_values[m] for p in parts])[order] for m in first.scalar_values},
            first.nullable,
        )
