"""Progress of a run: a bar on stderr with paths/s and time left, a callable, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Told how many paths there are in all, and how many more are done."""

    def total(self, paths: int) -> None: ...

    def advance(self, paths: int) -> None: ...


class _Told:
    """Calls back with (paths done, paths in all)."""

    def __init__(self, call: Callable[[int, int], None]) -> None:
        self._call, self._done, self._total = call, 0, 0

    def total(self, paths: int) -> None:
        self._total = paths

    def advance(self, paths: int) -> None:
        self._done += paths
        self._call(self._done, self._total)


class _Silent:
    def total(self, paths: int) -> None:
        pass

    def advance(self, paths: int) -> None:
        pass


@contextmanager
def tracking(progress: bool | Callable[[int, int], None]) -> Iterator[Progress]:
    """The progress that was asked for; a bar only where stderr is a terminal."""
    if callable(progress):
        yield _Told(progress)
    elif progress and sys.stderr.isatty():
        with _bar() as bar:
            yield bar
    else:
        yield _Silent()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        """Paths per second."""

        def render(self, task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} paths/s" if speed else "")

    columns = (
        TextColumn("{task.completed:,} of {task.total:,} paths"),
        BarColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("paths", total=1)

        class Bar:
            def total(self, paths: int) -> None:
                bar.update(task, total=paths)

            def advance(self, paths: int) -> None:
                bar.advance(task, paths)

        yield Bar()
