"""Where a person reads what a command answers."""

from __future__ import annotations

from typing import Any

from rich.console import Console

WIDTH = 80
"""Columns that an answer is laid out for."""


class Terminal(Console):
    """rich's, but a reader who has gone (`offtake show | head`) is the command's to handle, not its end, and
    a terminal of fewer columns breaks the lines, where rich would cut numbers off.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.width = max(self.width, WIDTH)

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError."""
        raise BrokenPipeError
