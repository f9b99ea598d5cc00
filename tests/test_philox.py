"""The generator against published answers, and the draw layout against itself."""

from pathlib import Path

import numpy as np
import pytest

from offtake_kernels import ops_numpy, philox

KNOWN = [
    [int(word, 16) for word in line.split()]
    for line in (Path(__file__).parent / "kat/philox4x32_10.txt").read_text().splitlines()
    if not line.startswith("#")
]


def _words(counter, key):
    lanes = [np.full(3, word, np.uint64) for word in counter]
    return [word.tolist() for word in philox.philox4x32(ops_numpy, lanes, key)]


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: f"{known[0]:08x}")
def test_known_answers(known):
    assert _words(known[:4], tuple(known[4:6])) == [[word] * 3 for word in known[6:]]


def test_the_10000th_value_of_the_standard():
    assert _words((2499, 0, 0, 0), (20111115, 0))[3] == [1955073260] * 3


def test_seed_and_path_reach_all_64_bits():
    def draw(seed, path):
        low, high = np.uint64(path & 0xFFFFFFFF), np.uint64(path >> 32)
        words = philox.draw_words(ops_numpy, seed, np.uint64(7), np.uint64(0), high, low)
        return tuple(int(word) for word in words)

    seeds = {draw(seed, 5) for seed in (0, 1, 2**32, 2**63, 2**64 - 1)}
    paths = {draw(7, path) for path in (0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**40)}
    assert len(seeds) == 5
    assert len(paths) == 6


def test_broadcast_lanes_equal_single_lanes():
    path = np.arange(2**32 - 3, 2**32 + 3, dtype=np.uint64)
    low, high = path & np.uint64(0xFFFFFFFF), path >> np.uint64(32)
    streams = np.array([[3], [4_000_000_000]], np.uint64)
    together = philox.draw_words(ops_numpy, 2**63 + 9, streams, np.uint64(2), high, low)
    for row in range(2):
        for lane in range(6):
            alone = philox.draw_words(ops_numpy, 2**63 + 9, streams[row], np.uint64(2), high[lane], low[lane])
            assert [int(word[0]) for word in alone] == [int(word[row, lane]) for word in together]


def test_words_are_uniform():
    """χ² of 256 cells over 2^20 words; |z| < 5.85 is a false alarm of 5e-9."""
    words = philox.draw_words(
        ops_numpy, 1, np.uint64(99), np.uint64(0), np.uint64(0), np.arange(2**18, dtype=np.uint64)
    )
    for word in words:
        counts = np.bincount((word >> np.uint64(24)).astype(np.int64), minlength=256)
        chi2 = float(((counts - 1024.0) ** 2 / 1024.0).sum())
        assert abs(chi2 - 255) / np.sqrt(2 * 255) < 5.85
