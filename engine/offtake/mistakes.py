"""What pydantic found wrong, said in the words of the language and placed in the file."""

from __future__ import annotations

import re
import types
import typing
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from offtake.deals import Deal
from offtake.distributions import FAMILIES, Quantiles, Sampled
from offtake.layering import Composition, did_you_mean
from offtake.quantities import LARGEST_AMOUNT, LARGEST_GW
from offtake.source_map import KeyPath, keys_of
from offtake.study import Study

_EXPECTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "date_type": "a date, as in 2026-01-31",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}

# What a comma leaves of 14,000.0 inside { }.
_THOUSANDS = re.compile(r"\d{3}(\.\d*)?")
_FEW_KEYS = 12
_REQUIRED_OF_A_DEAL = [name for name, field in Deal.model_fields.items() if field.is_required()]
_DEALS = "portfolio", "deals"
# Groups whose files say where in a study they belong.
_WHOLE_GROUPS = "stress", "deal"


def report(composition: Composition, errors: list[ErrorDetails]) -> list[KeyPath]:
    """Add a mistake for each error, and one for a deal that is none; returns the key path of each error, in
    the same order.
    """
    missing = Counter(error["loc"][:-1] for error in errors if error["type"] == "missing")
    none = [path for path, keys in missing.items() if path[:2] == _DEALS and keys == len(_REQUIRED_OF_A_DEAL)]
    for path in none:
        deals = [name for name in composition.data["portfolio"]["deals"] if (*_DEALS, name) not in none]
        hint = did_you_mean(str(path[2]), deals) or (f"there are: {', '.join(deals)}" if deals else "")
        composition.mistake(path, f"no deal: it has no {', '.join(_REQUIRED_OF_A_DEAL)}", hint, of_key=True)
    return [_report_one(composition, error) for error in errors]


def stand_in(data: Any, path: KeyPath) -> Any:
    """A value that a required key takes, for what is wrong there; None where the key can be left out, or
    where nothing simple fits.
    """
    field = _fields(data, path[:-1]).get(str(path[-1])) if path else None
    if field is None or not field.is_required():
        return None
    kind = TypeAdapter(field.rebuild_annotation())
    for value in (1.0, "2026-01-01", "a"):
        with suppress(ValidationError):
            kind.validate_python(value, strict=True)
            return value
    return None


def _report_one(composition: Composition, error: ErrorDetails) -> KeyPath:
    path = _data_path(composition.data, error)
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    message, hint, of_key = error["msg"], "", False
    if kind == "extra_forbidden":
        message, of_key = "unknown key", True
        hint = _key_hint(str(path[-1]), list(_fields(composition.data, path[:-1])))
    elif kind == "missing":
        message = "is required"
    elif kind == "union_tag_not_found":
        path, message = (*path, "kind"), "is required"
    elif kind == "union_tag_invalid":
        allowed = context["expected_tags"].replace("'", "")
        path, message = (*path, "kind"), f"must be one of {allowed}"
        hint = did_you_mean(str(context["tag"]), allowed.split(", "))
    elif kind == "literal_error":
        allowed = context["expected"].replace("'", "")
        message = f"must be one of {allowed}, not {_said(value)}"
        hint = did_you_mean(str(value), allowed.replace(" or ", ", ").split(", "))
    elif kind == "distribution_form":
        message, hint = "is neither a number nor a known distribution", _form_hint(value)
    elif kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        message = f"must be {words} {_said(context[bound])}, not {_said(value)}"
        hint = "is the unit right?" if context[bound] in (LARGEST_AMOUNT, LARGEST_GW) else ""
    elif kind == "finite_number":
        message = f"must be a finite number, not {_said(value)}"
    elif kind in ("too_short", "string_too_short"):
        message = "must not be empty"
    elif kind in _EXPECTED:
        message, hint = f"must be {_EXPECTED[kind]}, not {_said(value)}", _type_hint(kind, value)
    elif kind == "name":
        of_key = error["loc"][-1] == "[key]"
    if not (composition.is_mistaken(path) or (kind == "missing" and path[:-1] in composition.wrong)):
        composition.mistake(path, message, hint, of_key=of_key)
    return path


def _data_path(data: Any, error: ErrorDetails) -> KeyPath:
    """pydantic's location without the tags of unions: only keys that are in the data, or the missing one."""
    path: list[str | int] = []
    node: Any = data
    last = len(error["loc"]) - 1
    for position, part in enumerate(error["loc"]):
        if part in keys_of(node):
            node = node[part]
        elif not (error["type"] == "missing" and position == last):
            continue
        path.append(part)
    return tuple(path)


def _said(value: Any) -> str:
    """A value as its writer would recognise it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value[:40]!r}" + ("…" if len(value) > 40 else "")
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f"{value:.15g}" if isinstance(value, float) else str(value)[:40]


def _type_hint(kind: str, value: Any) -> str:
    if not isinstance(value, str):
        return ""
    if kind == "bool_type" and value.lower() in {"yes", "on", "no", "off", "y", "n"}:
        return f"write {'true' if value.lower() in {'yes', 'on', 'y'} else 'false'}"
    try:
        float(value)
    except ValueError:
        return ""
    return "write it without quotes or underscores" if kind in {"float_type", "int_type"} else ""


def _form_hint(value: Any) -> str:
    family = value.get("dist") if isinstance(value, Mapping) else None
    if family is None:
        return "give quantiles, dist or samples"
    return did_you_mean(str(family), FAMILIES) or f"dist is one of {', '.join(FAMILIES)}"


def _key_hint(key: str, known: list[str]) -> str:
    if key in _WHOLE_GROUPS and "portfolio" in known:
        return f"a file of {key}/ begins with the line '# @package _global_'"
    if _THOUSANDS.fullmatch(key):
        return "a comma begins another key; write 1,000 as 1000"
    few = len(known) <= _FEW_KEYS
    return did_you_mean(key, known) or (f"there are: {', '.join(known)}" if known and few else "")


def _fields(data: Any, path: KeyPath) -> Mapping[str, FieldInfo]:
    """The keys that the type at `path` has; none where it is no mapping of fixed keys, or not known."""
    annotation: Any = Study
    node = data
    for part in path:
        if part not in keys_of(node):
            return {}
        annotation = _below(_alternative(annotation, node), part)
        node = node[part]
    model = _alternative(annotation, node)
    return model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}


def _below(annotation: Any, part: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_fields[str(part)].annotation if part in annotation.model_fields else Any
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        return arguments[1]
    return arguments[0] if typing.get_origin(annotation) is tuple else Any


def _alternative(annotation: Any, node: Any) -> Any:
    """Of an annotation with alternatives, the one that a mapping is written in."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    options = [_alternative(option, node) for option in typing.get_args(annotation)]
    keys = node if isinstance(node, Mapping) else {}
    for option in options:
        if (option is Quantiles and "quantiles" in keys) or (option is Sampled and "samples" in keys):
            return option
        fields = option.model_fields if isinstance(option, type) and issubclass(option, BaseModel) else {}
        for tag in ("kind", "dist"):
            if tag in fields and tag in keys and keys[tag] in typing.get_args(fields[tag].annotation):
                return option
    plain = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
    return plain[0] if len(plain) == 1 else next((o for o in options if typing.get_origin(o)), Any)
