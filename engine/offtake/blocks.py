"""How a study is cut: canonical blocks of paths, gathered into units that are checkpointed, retried and
distributed.

Neither depends on the device or the workers; the answer depends on neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

BLOCK_PATHS = 65_536
_MOST_UNITS = 64


@dataclass(frozen=True)
class Unit:
    """Consecutive paths that are run, stored and retried together; known by the first of them."""

    first_path: int
    paths: int


def cut(first_path: int, last_path: int) -> Iterator[Unit]:
    """Units of the paths first_path … last_path - 1: whole blocks, at most 64 units."""
    blocks = -(-(last_path - first_path) // BLOCK_PATHS)
    size = max(1, -(-blocks // _MOST_UNITS)) * BLOCK_PATHS
    for begin in range(first_path, last_path, size):
        yield Unit(begin, min(size, last_path - begin))
