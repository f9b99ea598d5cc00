"""Philox4x32-10, the counter-based generator of every draw.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC11. A draw is a pure function of
(seed, path, block, stream): nothing is consumed in order, so any path is reproducible alone.

Counter layout (LAYOUT_VERSION 1): {block, path high, stream, path low}. Words 0 and 2 enter the multipliers
of the first round; they are common to all lanes, so that round 1 and half of rounds 2 and 3 are computed
once for all paths of a launch.
"""

from __future__ import annotations

import numpy as np

from .elementary import whole

LAYOUT_VERSION = 1
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
WORDS = 4
ROUNDS = 10


def split_seed(seed: int) -> tuple[int, int]:
    """The two 32-bit key words of a 64-bit seed, low word first."""
    return seed & _MASK, seed >> 32


def split_paths(first_path: int, lanes: int) -> tuple[np.ndarray | np.uint64, np.ndarray]:
    """The 32-bit words (high, low) of the path ids first_path, first_path + 1, …, as uint64.

    low: [lanes]; high: [lanes], or one number where all of them share it.
    """
    path = np.uint64(first_path) + np.arange(lanes, dtype=np.uint64)
    high = path >> np.uint64(32)
    return high[0] if high[0] == high[-1] else high, path & np.uint64(_MASK)


def philox4x32(ops, counter, key: tuple[int, int]):
    """Four 32-bit words of a 4-word counter (each broadcastable) under a key of two Python integers."""
    first, second, third, fourth = counter
    key_low, key_high = key
    for _ in range(ROUNDS):
        high_first, low_first = ops.multiply_words(first, _MULTIPLIERS[0])
        high_third, low_third = ops.multiply_words(third, _MULTIPLIERS[1])
        first = high_third ^ second ^ ops.word(key_low)
        third = high_first ^ fourth ^ ops.word(key_high)
        second, fourth = low_third, low_first
        key_low = (key_low + _WEYL[0]) & _MASK
        key_high = (key_high + _WEYL[1]) & _MASK
    return first, second, third, fourth


def draw_words(ops, seed: int, streams, block, path_high, path_low):
    """The four words of `block` for streams and paths (broadcast against each other)."""

    def philox(ops, *counter):
        return philox4x32(ops, counter, split_seed(seed))

    return whole(ops, "philox", philox, block, path_high, streams, path_low)
