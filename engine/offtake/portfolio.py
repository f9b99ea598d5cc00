"""YAML, mappings and Hydra overrides → a validated Study. Every input error of the program is raised here.

All mistakes are reported together, each with the file, line and column it came from.
"""

from __future__ import annotations

import copy
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from offtake.checks import check
from offtake.composing import RUN_OPTIONS, compose_named, compose_whole, portfolio_names
from offtake.errors import InputError, Mistake
from offtake.layering import Composition, did_you_mean
from offtake.mistakes import report, stand_in
from offtake.quantities import Terms
from offtake.source_map import Document, KeyPath, Mark, keys_of, read_yaml
from offtake.study import Study

Source = str | Path | Mapping[str, Any]

# What is wrong is replaced or removed at most so often, each time with what that leaves incomplete.
_MOST_ATTEMPTS = 8


class RunOptions(Terms):
    """What a run is asked for beside the study."""

    announced: bool = False
    """Every distribution at its headline, volatility zero."""
    out: Annotated[str, Field(min_length=1)] | None = None
    """Folder for the results; None writes no files."""
    report: bool = False
    """Also write the report."""
    force: bool = False
    """Run even if the estimate of time or memory is unreasonable."""


def load(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    announced: bool = False,
    config_dir: str | Path | None = None,
) -> Study:
    """A validated study from a portfolio's name, a YAML file or a mapping.

    source: "openai" (shipped, or in `config_dir`), a path to a whole study in YAML, or the same as a mapping.
    overrides: in Hydra's grammar, as on the command line: "study.paths=1e5", "device=numpy".
    announced: every distribution at its headline and volatility zero; so does the override "announced=true".
    Raises InputError with every mistake. Thread-safe; changes nothing global.
    """
    return read(source, overrides, announced=announced, config_dir=config_dir)[0]


def read(
    source: Source | None,
    overrides: Sequence[str] = (),
    *,
    announced: bool = False,
    config_dir: str | Path | None = None,
) -> tuple[Study, RunOptions]:
    """As `load`, with the run's options; a source of None is the shipped default portfolio."""
    if isinstance(overrides, str):
        raise InputError([Mistake("study", "overrides", "must be a list of texts", f"[{overrides!r}]")])
    composition = compose(source, overrides, config_dir)
    study, options = _validated(composition)
    if announced or options.announced:
        from offtake.announce import announced as as_announced

        study = as_announced(study)
    return study, options


def compose(
    source: Source | None, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> Composition:
    """The composed mapping of a source, not yet validated; its mistakes are recorded in it."""
    if isinstance(source, Mapping):
        return compose_whole(_document_of(source), overrides, config_dir)
    if isinstance(source, Path) or (isinstance(source, str) and _is_file_like(source)):
        return compose_whole(read_yaml(Path(source)), overrides, config_dir)
    if not isinstance(source, str | None):
        message = f"a study is a portfolio's name, a path or a mapping, not {type(source).__name__}"
        raise InputError([Mistake("study", "", message)])
    if source is not None and source not in (names := portfolio_names(config_dir)):
        hint = did_you_mean(source, names) or f"there are: {', '.join(names)}; or give a path to a .yaml file"
        message = f"no portfolio is named {source[:64]!a}"
        raise InputError([Mistake("study", "", message, hint)])
    return compose_named(source, overrides, config_dir)


def _is_file_like(source: str) -> bool:
    try:
        return source.endswith((".yaml", ".yml")) or "/" in source or Path(source).exists()
    except (OSError, ValueError):
        return False


def _document_of(source: Mapping[str, Any]) -> Document:
    """A mapping given in Python, in the shape of a file: keys are text, every position is "study"."""
    document = Document("study", Path())
    document.data = _with_text_keys(source, (), document)
    return document


def _with_text_keys(node: Any, path: KeyPath, document: Document) -> Any:
    document.marks[path] = Mark("study", "study")
    if isinstance(node, Mapping):
        return {str(key): _with_text_keys(item, (*path, str(key)), document) for key, item in node.items()}
    if isinstance(node, list | tuple):
        return [_with_text_keys(item, (*path, index), document) for index, item in enumerate(node)]
    if isinstance(node, numbers.Number) and not isinstance(node, bool | int | float):
        # numpy's scalars: whole or real, as they say.
        return int(node) if isinstance(node, numbers.Integral) else float(node)  # type: ignore[arg-type]
    return node


def _validated(composition: Composition) -> tuple[Study, RunOptions]:
    data = composition.data
    given = {key: data.pop(key) for key in RUN_OPTIONS & data.keys()}
    options, study = RunOptions(), None
    try:
        options = RunOptions.model_validate(given)
    except ValidationError as error:
        run = Composition(composition.origin, given, composition.marks, composition.mistakes)
        report(run, error.errors())
    wrong: list[KeyPath] = []
    if data:
        study = _study_without_mistakes(composition, wrong)
    if study is not None:
        study = check(study, composition, wrong)
    if composition.mistakes or study is None:
        raise InputError(sorted(set(composition.mistakes), key=_reading_order))
    return study, options


def _study_without_mistakes(composition: Composition, wrong: list[KeyPath]) -> Study | None:
    """Validate; report what is wrong, and validate again without it, so that the rest can be checked too."""
    data = composition.data
    for attempt in range(_MOST_ATTEMPTS):
        try:
            return Study.model_validate(data)
        except ValidationError as error:
            errors = error.errors()
        if attempt == 0:
            paths = report(composition, errors)
            data = copy.deepcopy(data)
        else:
            paths = report(Composition(composition.origin, data), errors)
        for path in dict.fromkeys(paths):
            _replace(data, path)
        wrong += paths
    return None


def _replace(data: Any, path: KeyPath) -> None:
    """Put something that is valid in the place of what is wrong, or remove it, or what it is in."""
    value = stand_in(data, path)
    if value is None:
        _prune(data, path if _holds(data, path) else path[:-1])
        return
    for part in path[:-1]:
        data = data[part]
    data[path[-1]] = value


def _holds(data: Any, path: KeyPath) -> bool:
    for part in path:
        if part not in keys_of(data):
            return False
        data = data[part]
    return True


def _prune(data: Any, path: KeyPath) -> None:
    """Remove what is at `path`; an item of a list takes the list with it, so that no index moves."""
    lists = [position for position, part in enumerate(path) if isinstance(part, int)]
    path = path[: lists[0]] if lists else path
    for part in path[:-1]:
        if not isinstance(data, dict) or part not in data:
            return
        data = data[part]
    if path and isinstance(data, dict):
        data.pop(path[-1], None)


def _reading_order(mistake: Mistake) -> tuple[bool, str, int, int, str]:
    """By file and position; what has no position comes last."""
    head, _, column = mistake.location.rpartition(":")
    file, _, line = head.rpartition(":")
    if line.isdigit() and column.isdigit():
        return False, file, int(line), int(column), mistake.path
    return True, mistake.location, 0, 0, mistake.path
