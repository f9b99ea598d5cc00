"""What concerns several keys of a study at once."""

from __future__ import annotations

from offtake.composing import Composition
from offtake.source_map import KeyPath
from offtake.study import Study


def check(study: Study, composition: Composition, wrong: list[KeyPath]) -> Study:
    """Add every mistake between keys to `composition`; `wrong` are keys already reported."""
    return study
