"""Where a printed statement finds its numbers: constants laid end to end, and cells of a path's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .graph import Value

# Float constants that a statement holds as text; any other is a place in `Numbers`.
_LITERALS = {0.0: "0.0f", 0.5: "0.5f", 1.0: "1.0f", -1.0: "-1.0f"}


class Numbers:
    """The constants of a kernel, laid end to end by kind; equal arrays share their place.

    `tables` are looked up by computed index and may be long; each has a name of its own.
    """

    NAMES: Mapping[str, str] = {"float": "c", "int": "ci", "word": "cw"}
    _DTYPES: Mapping[str, type] = {"c": np.float32, "ci": np.int32, "cw": np.uint32}

    def __init__(self) -> None:
        self.tables: list[np.ndarray] = []
        self._parts: dict[str, list[np.ndarray]] = {}
        self._places: dict[tuple, int] = {}

    def text(self, value: Value, row: str | None) -> str:
        """One of a constant's numbers: its only one, or that of a row."""
        known = value.constant
        assert known is not None
        number = known.reshape(-1)[0]
        if known.size == 1 or (known == number).all():
            if value.kind == "bool":
                return "true" if number else "false"
            if value.kind == "float" and float(number) in _LITERALS:
                return _LITERALS[float(number)]
            if value.kind == "int" and known.shape == ():
                return str(int(number))
            if value.kind == "word" and number == 0:
                return "0u"
            return self._at(
                self.NAMES[value.kind], self._place(self.NAMES[value.kind], known.reshape(-1)[:1])
            )
        assert row is not None, "a row of several numbers must be named"
        if value.kind == "bool":
            return f"({self._rows('ci', known.astype(np.int32), row)} != 0)"
        return self._rows(self.NAMES[value.kind], known, row)

    def table(self, value: Value, index: str) -> str:
        """An entry of a table."""
        assert value.constant is not None
        for number, known in enumerate(self.tables):
            if known.dtype == value.constant.dtype and np.array_equal(known, value.constant, equal_nan=True):
                return f"table{number}[{index}]"
        self.tables.append(value.constant)
        return f"table{len(self.tables) - 1}[{index}]"

    def array(self, name: str) -> np.ndarray:
        """Every number of a name, at least one."""
        return np.concatenate(self._parts.get(name, [np.zeros(1, self._DTYPES[name])]))

    def _rows(self, name: str, known: np.ndarray, row: str) -> str:
        return self._at(name, self._place(name, known.reshape(-1)), row)

    def _place(self, name: str, numbers: np.ndarray) -> int:
        key = name, numbers.tobytes()
        if key not in self._places:
            column = self._parts.setdefault(name, [])
            self._places[key] = sum(part.size for part in column)
            column.append(numbers)
        return self._places[key]

    @staticmethod
    def _at(name: str, place: int, row: str = "0") -> str:
        if row.isdigit():
            return f"{name}[{place + int(row)}]"
        return f"{name}[{row}]" if place == 0 else f"{name}[{place} + {row}]"


class Literals(Numbers):
    """The same numbers, but a float is text: those of a function are of no portfolio."""

    def __init__(self, numbers: Numbers):
        self.tables, self._parts, self._places = numbers.tables, numbers._parts, numbers._places

    def text(self, value: Value, row: str | None) -> str:
        if value.kind == "float" and value.constant is not None:
            return f"{value.constant.reshape(-1)[0]!s}f"
        return super().text(value, row)


@dataclass(frozen=True)
class Cell:
    """Where a value lies before or after a stage: an lvalue with {} in place of its row's number."""

    text: str
    rows: int = 1
    flag: bool = False
    streamed: bool = False

    def load(self, row: str) -> str:
        """The value read; flags are kept as 0 and 1."""
        text = self.text.format(row)
        return f"{text} != 0.0f" if self.flag else text

    def store(self, row: str, value: str) -> str:
        """The statement that writes it; what is streamed leaves the caches alone."""
        if self.streamed:
            return f"__stcs(&{self.text.format(row)}, {value});"
        return f"{self.text.format(row)} = {f'{value} ? 1.0f : 0.0f' if self.flag else value};"


@dataclass(frozen=True, eq=False)
class Store:
    """A value to be written to a cell; `replaces` is the input that the cell held until then."""

    value: Value
    cell: Cell
    replaces: Value | None = None
    condition: str = ""
