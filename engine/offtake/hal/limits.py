"""What a device can do at most, measured on it: the roofline that throughput is held against."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_SECONDS = 0.25
# Arrays of this size are in no cache.
COPIED_BYTES = 1 << 28


@dataclass(frozen=True)
class Limits:
    """Per second: float32 multiply-adds, words of Philox consumed where they are drawn, and bytes moved (read
    or written). Each is measured with nothing else to do, with the backend's own means.
    """

    multiply_adds: float
    words: float
    bytes: float

    def paths_per_second(self, operations: float, words: float, moved: float) -> float:
        """The most paths a second: of a path's operations and words, which share the device's units, and of
        what it must move, whichever takes longer. An operation is counted as a multiply-add.
        """
        return 1 / max(operations / self.multiply_adds + words / self.words, moved / self.bytes)


def rate(work: Callable[[], object], amount: float) -> float:
    """Amount a second of work that is repeated for a while, after a first time that is not counted."""
    work()
    begun, times, seconds = time.perf_counter(), 0, 0.0
    while seconds < _SECONDS:
        work()
        times += 1
        seconds = time.perf_counter() - begun
    return amount * times / seconds
