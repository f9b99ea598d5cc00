"""YAML files as data plus the position of every key: what error messages point at.

One loader for every file of a study, with the scalars of YAML 1.2's core schema: 1e6 is a number, 010 is ten,
12:30:00 and 2026-01-01 and no are text. Keys stay text. Everything that PyYAML would accept silently or choke
on (duplicate keys, alias bombs, deep nesting, binary files) is a mistake with a position.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from offtake.errors import Mistake

KeyPath = tuple[str | int, ...]

COMMAND_LINE = "command line"
DEEPEST_NESTING = 64
MOST_NODES = 100_000
LARGEST_FILE_BYTES = 16 * 2**20

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"


def dotted(path: KeyPath) -> str:
    """A key path as an override would write it, shortened and made printable."""
    parts = [part if isinstance(part, int) or part.isprintable() else ascii(part) for part in path]
    return ".".join(f"{str(part)[:60]}…" if len(str(part)) > 64 else str(part) for part in parts)


def keys_of(node: Any) -> Collection[Any]:
    """The keys of a mapping, the positions of a list, nothing of anything else."""
    if isinstance(node, Mapping):
        return node.keys()
    return range(len(node)) if isinstance(node, list) else ()


@dataclass(frozen=True)
class Mark:
    """Where a key and its value stand: two "FILE:LINE:COLUMN", or "command line", or "study"."""

    key: str
    value: str


@dataclass
class Document:
    """One file's content, the marks of its keys, and what is wrong with it as YAML."""

    shown: str
    folder: Path
    data: Any = None  # a dict, or None where the file holds no mapping
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    header: dict[str, str | None] = field(default_factory=lambda: {"package": None})


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with plain scalars left as text and a limit on nesting."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - PyYAML's own class attribute
    nesting = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nesting += 1
        if self.nesting > DEEPEST_NESTING:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {DEEPEST_NESTING} levels", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.nesting -= 1


def _scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema."""
    if text in _NULL:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text):
        return float(text)
    special = _SPECIAL.fullmatch(text)
    if special:
        return float("nan") if special[3] else float(special[1] + "inf")
    return text


class _Builder:
    """Turns composed nodes into data, marks and mistakes."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0

    def location(self, mark: Any) -> str:
        return f"{self.document.shown}:{mark.line + 1}:{mark.column + 1}"

    def mistake(self, mark: Any, path: KeyPath, message: str, hint: str = "") -> None:
        self.document.mistakes.append(Mistake(self.location(mark), dotted(path), message, hint))

    def build(self, node: Any, path: KeyPath, depth: int = 0) -> Any:
        self.nodes += 1
        if self.nodes > MOST_NODES or depth > DEEPEST_NESTING:
            raise yaml.MarkedYAMLError(None, None, "aliases expand to too much", node.start_mark)
        if node.tag not in (_TAG + "str", _TAG + "map", _TAG + "seq"):
            self.mistake(node.start_mark, path, f"tag {node.tag.replace(_TAG, '!!')} is not allowed here")
            return None
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node.value) if node.style is None else node.value
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                here = self.location(item.start_mark)
                self.document.marks[(*path, index)] = Mark(here, here)
                items.append(self.build(item, (*path, index), depth + 1))
            return items
        return self.mapping(node, path, depth)

    def mapping(self, node: Any, path: KeyPath, depth: int) -> dict[str, Any]:
        lines: dict[str, int] = {}
        built: dict[str, Any] = {}
        for key_node, value_node, merged in self.entries(node, path, depth):
            if not isinstance(key_node, yaml.ScalarNode):
                self.mistake(key_node.start_mark, path, "a key must be plain text")
                continue
            key = key_node.value
            if key in built:
                if not merged:
                    first = f"the first is in line {lines[key] + 1}"
                    self.mistake(key_node.start_mark, (*path, key), "duplicate key", first)
                continue
            lines[key] = key_node.start_mark.line
            self.document.marks[(*path, key)] = Mark(
                self.location(key_node.start_mark), self.location(value_node.start_mark)
            )
            built[key] = self.build(value_node, (*path, key), depth + 1)
        return built

    def entries(self, node: Any, path: KeyPath, depth: int) -> Iterator[tuple[Any, Any, bool]]:
        """Own entries first, then those of `<<`, which never replace an own one."""
        merges = []
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value == "<<" and key_node.style is None:
                merges.append(value_node)
            else:
                yield key_node, value_node, False
        for value_node in merges:
            bases = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for base in bases:
                if not isinstance(base, yaml.MappingNode) or depth > DEEPEST_NESTING:
                    self.mistake(value_node.start_mark, path, "<< needs a mapping to merge")
                    return
                for key_node, inner, _ in self.entries(base, path, depth + 1):
                    yield key_node, inner, True


def read_yaml(path: Any, *, may_be_empty: bool = False) -> Document:
    """Read one YAML file; whatever is wrong with it is in `mistakes`, never raised.

    `path` is a Path or another readable resource; messages show it as given.
    """
    document = Document(str(path), Path(str(path)).parent)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return _unreadable(document, "no such file")
    except (IsADirectoryError, PermissionError) as error:
        folder = isinstance(error, IsADirectoryError)
        return _unreadable(document, "is a folder, not a file" if folder else "may not be read")
    except (OSError, ValueError) as error:
        return _unreadable(document, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if len(raw) > LARGEST_FILE_BYTES:
        return _unreadable(document, f"larger than {LARGEST_FILE_BYTES >> 20} MiB")
    if b"\0" in raw:
        return _unreadable(document, "is a binary file, not YAML text")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _unreadable(document, f"is not UTF-8 text (byte {error.start})")
    document.header = _package_header(text)
    _parse(document, text)
    if isinstance(document.data, dict):
        return document
    found, document.data = document.data, None
    if document.mistakes:
        return document
    if found is not None:
        return _unreadable(document, "must be a mapping of keys to values")
    if may_be_empty:
        document.data = {}
        return document
    return _unreadable(document, "is empty")


def _unreadable(document: Document, message: str) -> Document:
    document.mistakes.append(Mistake(document.shown, "", message))
    return document


def _package_header(text: str) -> dict[str, str | None]:
    """Hydra's `# @package NAME` in the comment lines at the top."""
    header: dict[str, str | None] = {"package": None}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            break
        match = re.fullmatch(r"#\s*@(\w+)\s+(\S+)\s*", line)
        if match:
            header[match[1]] = match[2]
    return header


def _parse(document: Document, text: str) -> None:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            document.data = _Builder(document).build(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{document.shown}:{mark.line + 1}:{mark.column + 1}" if mark else document.shown
        problem = error.problem or "not YAML"
        if problem.startswith("but ") and error.context:
            problem = f"{error.context}, {problem}"
        tab = "indent with spaces, not tabs" if "\\t" in problem else ""
        document.mistakes.append(Mistake(where, "", problem, tab))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        where = f"{document.shown}:{before.count(chr(10)) + 1}:{error.position - before.rfind(chr(10))}"
        message = f"character U+{ord(text[error.position]):04X} is not allowed"
        document.mistakes.append(Mistake(where, "", message))
    finally:
        if loader is not None:
            loader.dispose()
