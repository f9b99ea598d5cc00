"""What Ctrl-C and SIGTERM do to a command. Signals are the main thread's; elsewhere nothing is changed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def counted_interrupts() -> Iterator[list[int]]:
    """A list that has an entry for each Ctrl-C, which raises KeyboardInterrupt as ever."""
    pressed: list[int] = []

    def press(number: int, _: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not _in_main_thread():
        yield pressed
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM stops a run as Ctrl-C does: what is finished is kept, and --resume goes on."""
    if not _in_main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
