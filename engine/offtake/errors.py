"""What can go wrong, each with a stable exit code.

| exit | class          | meaning                                             |
|------|----------------|-----------------------------------------------------|
| 1    | OfftakeError   | anything else that this program knows how to name   |
| 2    | InputError     | the study as written cannot be run; all mistakes    |
| 3    | DeviceError    | no such device here, and what to do about it        |
| 4    | StoppedError   | stopped on request; `--resume` goes on              |
| 5    | NumericalError | a path gave a number that is not finite             |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One mistake in a study.

    `location` is "FILE:LINE:COLUMN" (both from 1), "command line" for an override, or "study" for a dict.
    `path` is the dotted key ("portfolio.deals.acme.slip"), empty where a whole file is meant.
    `hint` says what to do, where something useful can be said.
    """

    location: str
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        subject = f"{self.location}: {self.path}: " if self.path else f"{self.location}: "
        return subject + self.message + (f"; {self.hint}" if self.hint else "")


class OfftakeError(Exception):
    """Base of every error of this package that a user can act on."""

    exit_code = 1


class InputError(OfftakeError):
    """A study that cannot be run as written; `mistakes` lists every one found, in the order of the text."""

    exit_code = 2

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Mistake, ...]]]:
        # Exception's own pickling would pass the message; workers and sweeps send these between processes.
        return (type(self), (self.mistakes,))


class DeviceError(OfftakeError):
    """The device asked for is not usable here; the message says what is missing."""

    exit_code = 3


class StoppedError(OfftakeError):
    """A run stopped before its end; what was finished is kept and can be resumed."""

    exit_code = 4


class NumericalError(OfftakeError):
    """A non-finite or overflowing value, with the metric, the quarter and the first path."""

    exit_code = 5
