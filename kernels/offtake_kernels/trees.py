"""Nested dicts, lists and tuples of arrays as flat lists, and back: states and terms of the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def leaves(tree: Any) -> Iterator[Any]:
    """Everything that is not a dict, a list or a tuple, in a fixed order; None and texts are left out."""
    if isinstance(tree, dict):
        for branch in tree.values():
            yield from leaves(branch)
    elif isinstance(tree, list | tuple):
        for branch in tree:
            yield from leaves(branch)
    elif tree is not None and not isinstance(tree, str):
        yield tree


def named_leaves(tree: Any, name: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Each leaf with the keys and positions that lead to it, in the order of `leaves`."""
    if isinstance(tree, dict | list | tuple):
        branches = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, branch in branches:
            yield from named_leaves(branch, (*name, key))
    elif tree is not None and not isinstance(tree, str):
        yield name, tree


def transform(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same tree with every leaf replaced."""
    if isinstance(tree, dict):
        return {key: transform(function, branch) for key, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(transform(function, branch) for branch in tree)
    return tree if tree is None or isinstance(tree, str) else function(tree)
