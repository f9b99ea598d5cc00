"""JSON Schema of a whole study in one file, for editors and for checks outside this program."""

from __future__ import annotations

from typing import Any

from offtake.study import Study


def json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12), with descriptions and units from the types' own documentation."""
    schema = Study.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "offtake study",
        "description": "A portfolio of compute deals in a world, how many paths, and where to run them. "
        "Money in US$ bn, power in GW of IT load, durations in quarters, rates a year.",
    } | {key: value for key, value in schema.items() if key not in ("title", "description")}
