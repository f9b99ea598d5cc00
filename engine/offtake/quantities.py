"""Numbers, dates and names as a study writes them: the checked types that contract terms are built from.

Strict about kind: text is never a number, true is never 1. Tolerant about notation: 1.0e+6 is a whole
number, 3 is a float, a date may be text in ISO form.
"""

from __future__ import annotations

import datetime
import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

NAME_PATTERN = r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
NAME_HELP = "1 to 64 letters, digits, '_', '-' or '.', beginning with a letter or digit, without '..'"

LARGEST_AMOUNT = 1e6
"""US$ bn: a thousand times the largest programme ever announced; beyond it the unit is wrong."""

LARGEST_GW = 1e4

LONGEST_QUARTERS = 10_000
"""A time of a contract; no study is longer than 400 quarters."""


class Terms(BaseModel):
    """Base of every type of the language: frozen, strict, no unknown keys, finite numbers only."""

    model_config = ConfigDict(
        defer_build=True,
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def _whole(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def _date(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, str):
        try:
            return datetime.date.fromisoformat(value) if len(value) == 10 else value
        except ValueError as error:
            raise PydanticCustomError(
                "date_value", "no such date: {reason}", {"reason": str(error)}
            ) from error
    return value


def _name(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(NAME_PATTERN, value):
        raise PydanticCustomError("name", "not a name: use " + NAME_HELP)
    return value


def number_key(value: Any) -> Any:
    """A mapping key that is a number; YAML keys arrive as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def listed(value: Any) -> Any:
    """A list as written, as the tuple that a frozen type keeps."""
    return tuple(value) if isinstance(value, list) else value


Whole = Annotated[int, BeforeValidator(_whole)]
NonNegativeWhole = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
PositiveWhole = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
Quarters = Annotated[float, Field(ge=0, le=LONGEST_QUARTERS)]
WholeQuarters = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=LONGEST_QUARTERS)]
Date = Annotated[datetime.date, BeforeValidator(_date)]
Name = Annotated[str, BeforeValidator(_name), Field(json_schema_extra={"pattern": NAME_PATTERN})]
NumberKey = Annotated[float, BeforeValidator(number_key)]

Share = Annotated[float, Field(ge=0, le=1)]
"""A fraction or a probability, from 0 to 1."""

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0, le=LARGEST_AMOUNT)]
"""US$ bn, never negative."""

Balance = Annotated[float, Field(ge=-LARGEST_AMOUNT, le=LARGEST_AMOUNT)]
"""US$ bn, of either sign."""

Gigawatts = Annotated[float, Field(gt=0, le=LARGEST_GW)]
"""GW of IT load."""
