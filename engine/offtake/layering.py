"""Files laid over one another: the composed mapping, and where every key of it came from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offtake.errors import Mistake
from offtake.source_map import Document, KeyPath, Mark, dotted

NAMED = frozenset({"deals", "pays", "receives", "ladder", "tranches", "factors", "hardware"})
"""Mappings whose keys are names: an override does not invent one, only `+` adds one."""

_DISTRIBUTION_FORMS = frozenset({"dist", "quantiles", "samples", "table"})


_REFERENCE = re.compile(r"|\$\{[^}]*\}")
"""Nothing, or a whole value that is another's."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"did you mean '{close[0]}'?" if close else ""


@dataclass
class Composition:
    """The composed mapping, where each key came from, and what was wrong on the way.

    `origin` is what a message names when a key has no position of its own.
    """

    origin: str
    data: dict[str, Any] = field(default_factory=dict)
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    wrong: set[KeyPath] = field(default_factory=set)
    """The keys that `mistakes` are about, as far as they were reported with `mistake`."""

    def location(self, path: KeyPath, *, of_key: bool = False) -> str:
        """Where a value (or its key) was set; for a key that nobody set, where its parent was."""
        mark = self.marks.get(path)
        if mark is not None:
            return mark.key if of_key else mark.value
        while path:
            path = path[:-1]
            if path in self.marks:
                return self.marks[path].key
        return self.origin

    def mistake(self, path: KeyPath, message: str, hint: str = "", *, of_key: bool = False) -> None:
        self.wrong.add(path)
        self.mistakes.append(Mistake(self.location(path, of_key=of_key), dotted(path), message, hint))

    def is_mistaken(self, path: KeyPath) -> bool:
        """Whether a value is known to be wrong, as a key or as a file's text."""
        here = self.location(path), dotted(path)
        return path in self.wrong or any((known.location, known.path) == here for known in self.mistakes)

    def add_document(self, document: Document, package: KeyPath = ()) -> None:
        """Lay a file's content over what is there, below the key path `package`."""
        top = f"{document.shown}:1:1"
        node = self.data
        for depth, part in enumerate(package, start=1):
            self.marks.setdefault(package[:depth], Mark(top, top))
            if not isinstance(node.get(str(part)), dict):
                node[str(part)] = {}
            node = node[str(part)]
        marks = document.marks
        self.lay(node, document.data or {}, package, lambda at: marks[at[len(package) :]], document.folder)

    def lay(
        self,
        base: dict[str, Any],
        over: Mapping[str, Any],
        path: KeyPath,
        mark_of: Callable[[KeyPath], Mark],
        folder: Path,
    ) -> None:
        """Merge `over` into `base` (the node at `path`) and record marks; `folder` is where its files are."""
        for key, value in over.items():
            here = (*path, key)
            old = base.get(key)
            if not isinstance(value, dict):
                self.forget(here, old)
                base[key] = with_files(value, here, folder)
                self.mark_items(value, here, mark_of)
                continue
            if not isinstance(old, dict) or _replaces(here, old, value):
                self.forget(here, old)
                base[key] = old = {}
            self.marks[here] = mark_of(here)
            self.lay(old, value, here, mark_of, folder)

    def mark_items(self, value: Any, here: KeyPath, mark_of: Callable[[KeyPath], Mark]) -> None:
        """Record the mark of a value that replaces what was there, and of everything in it."""
        self.marks[here] = mark_of(here)
        if isinstance(value, Mapping | list):
            for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
                self.mark_items(item, (*here, key), mark_of)

    def forget(self, path: KeyPath, old: Any) -> None:
        """Drop the marks below a mapping or list that is replaced or deleted."""
        if isinstance(old, dict | list):
            for stale in [at for at in self.marks if at[: len(path)] == path]:
                del self.marks[stale]


def with_files(value: Any, path: KeyPath, folder: Path) -> Any:
    """The value at a path, files of samples in it as absolute paths: they are relative to `folder`."""
    if isinstance(value, dict):
        return {key: with_files(item, (*path, key), folder) for key, item in value.items()}
    if isinstance(value, list):
        return [with_files(item, (*path, index), folder) for index, item in enumerate(value)]
    if path[-2:] == ("samples", "file") and isinstance(value, str) and not _REFERENCE.fullmatch(value):
        return str((folder / value).absolute())
    return value


def _replaces(path: KeyPath, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a mapping is another form of the same value, which replaces instead of merging."""
    if path[-1] in NAMED:
        return False
    other_kind = "kind" in new and "kind" in old and new["kind"] != old["kind"]
    return other_kind or bool(new.keys() & _DISTRIBUTION_FORMS) or ("initial" in new and "table" in old)
