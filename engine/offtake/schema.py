"""JSON Schema of a whole study in one file, for editors and for checks outside this program."""

from __future__ import annotations

from typing import Any

from offtake.study import Study


def json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12), with descriptions and units from the types' own documentation."""
    schema = _standard(Study.model_json_schema(mode="validation"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "offtake study",
        "description": "A portfolio of compute deals in a world, how many paths, and where to run them. "
        "Money in US$ bn, power in GW of IT load, durations in quarters, rates a year.",
    } | {key: value for key, value in schema.items() if key not in ("title", "description")}


# pydantic's own words for bounds of a type that is read in its own way.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _standard(node: Any) -> Any:
    """With the words of JSON Schema for bounds, and without other keys where keys are names."""
    if isinstance(node, list):
        return [_standard(item) for item in node]
    if not isinstance(node, dict):
        return node
    number = node.get("type") in ("integer", "number")
    standard = {_BOUNDS.get(key, key) if number else key: _standard(value) for key, value in node.items()}
    return standard | ({"additionalProperties": False} if "patternProperties" in node else {})
