"""Where a person reads what a command answers."""

from __future__ import annotations

from rich.console import Console


class Terminal(Console):
    """rich's, but a reader who has gone (`offtake show | head`) is the command's to handle, not its end."""

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError."""
        raise BrokenPipeError
