"""Keys changed by overrides, and references from one key to another: the last layers of a composition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from offtake.errors import Mistake
from offtake.layering import NAMED, Composition, did_you_mean, with_files
from offtake.source_map import COMMAND_LINE, KeyPath, Mark, dotted, keys_of
from offtake.world import OPENING_VALUES


def apply_override(composition: Composition, override: Override) -> None:
    """Set, add or delete one key as an override says."""
    parts = override.key_or_group.split(".")
    node: Any = composition.data
    path: KeyPath = ()
    while True:
        key = _next_key(node, parts)
        parts = parts[len(str(key).split(".")) :]
        there = key in keys_of(node)
        refusal = None if there else _refusal(node, path, key, override, last=not parts)
        if refusal:
            message, hint = refusal
            composition.mistakes.append(Mistake(COMMAND_LINE, dotted((*path, key)), message, hint))
            return
        path = (*path, key)
        if not parts:
            break
        if not there or not isinstance(node[key], dict | list):
            node[key] = {}
            composition.marks[path] = Mark(COMMAND_LINE, COMMAND_LINE)
        node = node[key]
    _set(composition, node, path, override)


def _refusal(
    node: Any, path: KeyPath, key: str | int, override: Override, *, last: bool
) -> tuple[str, str] | None:
    """Why an override may not reach for a key that is not there: (message, hint), or None if it may."""
    if isinstance(node, list):
        return "no such item", f"items are 0 to {len(node) - 1}" if node else ""
    if override.is_delete():
        return "no such key to delete", did_you_mean(str(key), node)
    implicit = path == ("world", "factors") and key in OPENING_VALUES
    invents = override.type == OverrideType.CHANGE or (override.is_force_add() and not last)
    if path and path[-1] in NAMED and invents and not implicit:
        return f"no such entry in {path[-1]}", did_you_mean(str(key), node) or "a + in front adds a new one"
    return None


def _next_key(node: Any, parts: Sequence[str]) -> str | int:
    """The next key of a dotted path: a position in a list, or a name, which may itself hold dots."""
    if isinstance(node, list):
        return int(parts[0]) if parts[0].isdecimal() else -1
    for length in range(1, len(parts) + 1):
        candidate = ".".join(parts[:length])
        if candidate in node:
            return candidate
    return parts[0]


def _set(composition: Composition, node: Any, path: KeyPath, override: Override) -> None:
    key = path[-1]
    there = key in keys_of(node)
    if override.is_delete():
        composition.forget(path, node[key])
        del node[key]
        return
    value = _plain(override.value())
    occupied = (
        there and node[key] is not None and not (isinstance(node[key], dict) and isinstance(value, dict))
    )
    if override.is_add() and occupied:
        message = "is there already"
        composition.mistakes.append(Mistake(COMMAND_LINE, dotted(path), message, "leave out the +"))
        return
    mark = Mark(COMMAND_LINE, COMMAND_LINE)
    if isinstance(node, dict):
        composition.lay(node, {str(key): value}, path[:-1], lambda _: mark, Path())
    else:
        node[key] = with_files(value, path, Path())
        composition.mark_items(value, path, lambda _: mark)


def _plain(value: Any) -> Any:
    """A parsed override with text keys, as files have them."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def resolve_references(composition: Composition) -> None:
    """Replace ${key} references; a resolver (anything with a colon) is refused before OmegaConf sees it."""
    found = list(_strings(composition.data, ()))
    if not found:
        return
    for path, text in found:
        if ":" in text:
            hint = "only references to other keys, as in ${..start}"
            composition.mistake(path, f"{text!r} is not allowed", hint)
            continue
        try:
            OmegaConf.create([text])
        except OmegaConfBaseException:
            composition.mistake(
                path, f"{text!r} is not a reference", "write ${key}, ${.sibling} or ${..cousin}"
            )
    if composition.wrong:
        return
    resolved = OmegaConf.create(composition.data, flags={"allow_objects": True})
    for path, text in found:
        parent: Any = resolved
        for part in path[:-1]:
            parent = parent._get_node(part)
        try:
            value = parent[path[-1]]
        except (OmegaConfBaseException, RecursionError) as error:
            composition.mistake(path, f"{text!r} refers to nothing: {str(error).splitlines()[0]}")
            continue
        target: Any = composition.data
        for part in path[:-1]:
            target = target[part]
        plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        target[path[-1]] = with_files(plain, path, Path())


def _strings(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every text that holds a ${reference}."""
    if isinstance(node, str):
        if "${" in node:
            yield path, node
    elif isinstance(node, dict | list):
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _strings(item, (*path, key))
