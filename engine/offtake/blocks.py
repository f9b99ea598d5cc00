"""How a study is cut: canonical blocks of paths, gathered into units that are checkpointed, retried and
distributed.

How many paths a unit holds depends on their number and on the kind of device; the answer does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

BLOCK_PATHS = 65_536
MOST_UNITS = 64


@dataclass(frozen=True)
class Unit:
    """Consecutive paths that are run, stored and retried together; known by the first of them."""

    first_path: int
    paths: int


def cut(first_path: int, last_path: int, most: int = MOST_UNITS) -> Iterator[Unit]:
    """Units of the paths first_path … last_path - 1: whole blocks, at most `most` units."""
    blocks = -(-(last_path - first_path) // BLOCK_PATHS)
    size = max(1, -(-blocks // most)) * BLOCK_PATHS
    for begin in range(first_path, last_path, size):
        yield Unit(begin, min(size, last_path - begin))
