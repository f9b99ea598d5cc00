"""The CUDA kernel of a plan: one path a thread, from its terms to what it records.

The stages of `trace`, printed by `source`, in the order of a path: draws and terms, history, quarters with the
world's moves between them, path metrics. A path's terms and state lie in a frame of its thread's local memory;
what a quarter needs of them is read once, and written once when it changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from typing import Any

import numpy as np

from . import philox, trace
from .graph import Graph, Kind, Value
from .layout import Plan
from .ops_graph import CallOps
from .source import Cell, Numbers, Statements, Store, print_function, rows_of
from .trees import leaves, named_leaves

_SIGNATURE = """extern "C" __global__ void __launch_bounds__(OFFTAKE_THREADS) offtake_paths(
    u64 first_path, unsigned lanes, const float* __restrict__ quarter_numbers, float* __restrict__ rows) {"""


@dataclass(frozen=True)
class Kernel:
    """A plan printed. `source` holds no number of the plan; `arrays` are its numbers by name: c, ci, cw
    (constant memory) and quarter_numbers [history + quarters, numbers]. `tables`: what the constant pointers
    table0, table1, … point at.

    The kernel writes rows [places × quarters + finals, lanes] of float32: recorded array p of quarter t in row
    t·places + p, then the path metrics. places: the array of each quarterly series, or its one value; finals:
    the same of each path series.
    """

    plan: Plan
    source: str
    arrays: dict[str, np.ndarray]
    tables: tuple[np.ndarray, ...]
    recorded: int
    places: tuple[int | np.float32, ...]
    finals: tuple[int | np.float32, ...]

    @property
    def rows(self) -> int:
        """Rows that a launch writes."""
        return self.recorded * self.plan.quarters + sum(isinstance(final, int) for final in self.finals)


def print_kernel(plan: Plan) -> Kernel:
    """The kernel of a plan. Plans of one shape have one source."""
    return _Printer(plan).kernel()


class _Frame:
    """Slots of a path's local memory by name."""

    def __init__(self, array: str) -> None:
        self._array = array
        self.slots: dict[str, int] = {}
        self.size = 0

    def cell(self, name: str, value: Value) -> Cell:
        """A new slot for each row of a value."""
        constant = name.upper()
        assert constant not in self.slots, constant
        rows = rows_of(value)
        self.slots[constant] = self.size
        self.size += rows
        text = f"{self._array}[{constant} + {{}}]" if rows > 1 else f"{self._array}[{constant}]"
        return Cell(text, rows, value.kind == "bool")

    def lines(self) -> Iterator[str]:
        """Declarations."""
        yield f"enum {{ {', '.join(f'{name} = {slot}' for name, slot in self.slots.items())} }};"


class _Printer:
    def __init__(self, plan: Plan):
        self._plan, self._numbers = plan, Numbers()
        self._frame, self._past = _Frame("frame"), _Frame("past")
        self._columns: list[np.ndarray] = []
        self._functions: dict[str, tuple[Callable, list[Kind]]] = {}
        self._begun = trace.begin(plan, self._ops)
        # Where each leaf of terms, state and ends lies.
        self._cells: dict[str, Cell] = {}
        self._opening_stores: list[Store] = []
        self._opening_names: dict[int, str] = {}
        for tree in ("terms", "state"):
            for path, value in named_leaves(self._begun.after[tree]):
                if value.constant is None:
                    name = _name(tree, path)
                    self._cells[name] = self._frame.cell(name, value)
                    self._opening_stores.append(Store(value, self._cells[name]))
                    if value.op not in ("input", "row"):
                        self._opening_names.setdefault(value.number, name)

    def _ops(self, graph: Graph) -> CallOps:
        return CallOps(graph, self._functions)

    def kernel(self) -> Kernel:
        """Prints every stage."""
        plan = self._plan
        begin = self._begin()
        history = self._quarter(history=True)[0] if plan.history else []
        quarter, places, recorded, ends = self._quarter(history=False)
        words, world = self._words() if plan.series_crc else ([], [])
        end, finals = self._end(ends)
        since = plan.history + plan.quarters
        body = [
            *self._opening(),
            *begin,
            *_loop("for (int since = 0; since < HISTORY; ++since)", self._scalars(history=True), history),
            *_loop(
                "for (int quarter = 0; quarter < QUARTERS; ++quarter)",
                [
                    *self._scalars(history=False),
                    *_loop(f"if (quarter % {philox.WORDS} == 0)", self._block(), words),
                ],
                quarter,
                _loop("if (quarter + 1 < QUARTERS)", [], world),
            ),
            *_loop("", ["float* const out = rows + (size_t)(PLACES * QUARTERS) * lanes + lane;"], end),
        ]
        functions = [print_function(self._numbers, name, *given) for name, given in self._functions.items()]
        arrays = {name: self._numbers.array(name) for name in ("c", "ci", "cw")}
        arrays["quarter_numbers"] = np.concatenate([np.zeros((since, 0), np.float32), *self._columns], axis=1)
        path = [*self._heading(arrays, functions, recorded), _SIGNATURE, *_indented(body), "}", ""]
        source = "\n".join([*path, _text("tally.cuh")])
        return Kernel(plan, source, arrays, tuple(self._numbers.tables), recorded, places, finals)

    def _heading(
        self, arrays: dict[str, np.ndarray], functions: list[list[str]], recorded: int
    ) -> Iterator[str]:
        plan = self._plan
        yield _text("prelude.cuh")
        yield "// The numbers of a portfolio and its world."
        for name, kind in (("c", "float"), ("ci", "int"), ("cw", "unsigned")):
            yield f'extern "C" {{ __constant__ {kind} {name}[{arrays[name].size}]; }}'
        kinds = {np.dtype(np.float32): "float", np.dtype(np.int32): "int"}
        for number, table in enumerate(self._numbers.tables):
            yield f'extern "C" {{ __constant__ const {kinds[table.dtype]}* table{number}; }}'
        yield ""
        yield from chain(*functions)
        yield f"enum {{ HISTORY = {plan.history}, QUARTERS = {plan.quarters}, PLACES = {recorded} }};"
        yield f"enum {{ NUMBERS = {arrays['quarter_numbers'].shape[1]} }};"
        yield ""
        yield "// A path's frame: its terms, then its state."
        yield from self._frame.lines()
        if self._past.size:
            yield "// What hardware of limited life delivered, a turn of the ring each quarter."
            yield from self._past.lines()
        yield ""

    def _opening(self) -> Iterator[str]:
        yield "const unsigned lane = blockIdx.x * blockDim.x + threadIdx.x;"
        yield "if (lane >= lanes) return;"
        yield "const unsigned path_high = (unsigned)((first_path + lane) >> 32);"
        yield "const unsigned path_low = (unsigned)(first_path + lane);"
        yield "const float zero = 0.0f;"
        yield f"volatile float frame[{self._frame.size}];"
        if self._handed:
            yield f"volatile float handed[{self._handed}];"
        if self._past.size:
            yield f"float past[{self._past.size}] = {{}};"
        if self._plan.series_crc:
            yield f"unsigned words[{philox.WORDS * len(self._plan.series_crc)}];"
        yield ""

    def _begin(self) -> list[str]:
        begun = self._begun
        given = begun.inputs
        inputs = {
            given["words"]["high"].number: Cell("path_high"),
            given["words"]["low"].number: Cell("path_low"),
            given["zero"].number: Cell("zero"),
        }
        return _loop("", Statements(self._numbers, inputs, self._opening_stores, self._opening_names).lines())

    def _quarter(self, history: bool) -> tuple[list[str], tuple, int, Any]:
        plan, begun = self._plan, self._begun.after
        traced = trace.quarter(plan, self._ops, begun["terms"], begun["state"], history)
        found, order = trace.results(plan, traced)
        inputs, names = self._known(terms=traced.inputs["terms"], state=traced.inputs["state"])
        stores = self._moves(traced, inputs, names)
        for number, kept in found["remembered"].items():
            stores += self._remembered(number, traced, kept, inputs)
        inputs |= self._scalar_cells(traced.inputs["scalars"], history)
        for path, value in named_leaves(traced.deliveries):
            if isinstance(value, Value) and value.op not in ("input", "constant"):
                names.setdefault(value.number, f"g{path[0]}_{path[1]}")
        if history:
            return Statements(self._numbers, inputs, stores, names).lines(), (), 0, None
        places, recorded = self._recorded(found["recorded"], order, stores, names)
        ends = []
        for number, end in enumerate(found["ends"]):
            kept = {}
            for name, value in end.items():
                value = None if value is None else traced.graph.constant(value)
                if value is not None and value.constant is None:
                    full = _name("ends", (number, name))
                    self._cells[full] = self._frame.cell(full, value)
                    stores.append(Store(value, self._cells[full], condition="quarter == QUARTERS - 1"))
                kept[name] = value
            ends.append(kept)
        statements = Statements(self._numbers, inputs, stores, names, "handed")
        self._handed = statements.handed
        return statements.lines(), places, recorded, ends

    @staticmethod
    def _moves(traced: trace.Traced, cells: dict[int, Cell], names: dict[int, str]) -> list[Store]:
        """The state's next values, over the old ones."""
        stores = []
        for old, new in trace.updates(traced):
            stores.append(Store(new, cells[old.number], old))
            if new.op not in ("input", "row"):
                names.setdefault(new.number, f"{names[old.number]}_next")
        return stores

    def _recorded(self, once: list[Value], order: list[int], stores: list[Store], names: dict[int, str]):
        """Where each series lies, and how many arrays a quarter records."""
        position: dict[int, int] = {}
        found: list[int | np.float32] = []
        for series, place in zip(self._plan.quarter_series, order, strict=True):
            value = once[place]
            if value.constant is not None:
                found.append(np.float32(value.constant.reshape(-1)[0]))
                continue
            if place not in position:
                position[place] = len(position)
                stores.append(Store(value, Cell(f"out[{position[place]} * lanes]")))
                if value.op not in ("input", "row"):
                    scope = "" if series.scope == "total" else f"_{series.scope}{series.index}"
                    names.setdefault(value.number, f"{series.metric}{scope}")
            found.append(position[place])
        return tuple(found), len(position)

    def _remembered(
        self, number: int, traced: trace.Traced, kept: dict, inputs: dict[int, Cell]
    ) -> list[Store]:
        """The ring of what a group delivered; what cannot retire within the study is not kept."""
        plan = self._plan
        life = plan.groups[number].features.life
        assert life is not None
        stores = []
        for name, old in traced.inputs["lagged"][number].items():
            if life >= plan.history + plan.quarters:
                inputs[old.number] = Cell("zero")
                continue
            rows, key = rows_of(old), f"PAST_G{number}_{name.upper()}"
            if key not in self._past.slots:
                self._past.slots[key] = self._past.size
                self._past.size += rows * life
            turn = (
                f"past[{key} + since % {life} * {rows} + {{}}]"
                if rows > 1
                else f"past[{key} + since % {life}]"
            )
            inputs[old.number] = Cell(turn, rows)
            stores.append(Store(traced.graph.constant(kept[name]), inputs[old.number], old))
        return stores

    def _known(self, **trees: Any) -> tuple[dict[int, Cell], dict[int, str]]:
        """Cells and names of the inputs among terms, state and ends."""
        cells, names = {}, {}
        for tree, branches in trees.items():
            for path, value in named_leaves(branches):
                if value.op == "input":
                    names[value.number] = _name(tree, path)
                    cells[value.number] = self._cells[names[value.number]]
        return cells, names

    def _scalar_cells(self, scalars: dict[str, Any], history: bool) -> dict[int, Cell]:
        """The quarter's numbers: t is a variable, the others a row of `quarter_numbers`."""
        plan = self._plan
        cells = {scalars["t"].number: Cell("t")}
        given: list[tuple[Value, np.ndarray]] = [
            (value, group.vintage[:, :, 0])
            for value, group in zip(scalars["vintages"], plan.groups, strict=True)
            if group.vintage is not None
        ]
        if not history:
            table = np.asarray(plan.world.table, np.float32)
            given.append((scalars["discount"], np.asarray(plan.discount, np.float32)[:, None]))
            given += [(value, table[:, n : n + 1]) for n, value in enumerate(scalars["table"])]
        for value, column in given:
            cells[value.number] = self._column(column, rows_of(value))
        return cells

    def _column(self, column: np.ndarray, rows: int) -> Cell:
        """A place in `quarter_numbers` for numbers of every quarter, or of the study's own."""
        plan = self._plan
        full = np.zeros((plan.history + plan.quarters, column.shape[1]), np.float32)
        full[full.shape[0] - column.shape[0] :] = column
        place = 0
        for known in self._columns:
            if known.shape == full.shape and known.tobytes() == full.tobytes():
                break
            place += known.shape[1]
        else:
            self._columns.append(full)
        return Cell(f"numbers[{place} + {{}}]" if rows > 1 else f"numbers[{place}]", rows)

    def _words(self) -> tuple[list[str], list[str]]:
        """Statements that draw four quarters' words, and those that move the world on."""
        plan = self._plan
        drawn = trace.words(plan, self._ops)
        inputs = {
            drawn.inputs["words"]["high"].number: Cell("path_high"),
            drawn.inputs["words"]["low"].number: Cell("path_low"),
            drawn.inputs["block"].number: Cell("block"),
        }
        series, factors = len(plan.series_crc), len(plan.world.row)
        stores = []
        for turn, words in enumerate(drawn.after):
            for name, first in (("factors", 0), ("regime", factors)):
                if name in words:
                    rows = rows_of(words[name])
                    place = turn * series + first
                    cell = Cell(f"words[{place} + {{}}]" if rows > 1 else f"words[{place}]", rows)
                    stores.append(Store(words[name], cell))
        lines = Statements(self._numbers, inputs, stores).lines()
        state = self._begun.after["state"]["world"]
        traced = trace.world_step(plan, self._ops, state)
        known, names = self._known(state={"world": traced.inputs["state"]})
        for growth, column in zip(traced.inputs["scalars"]["growth"], range(2), strict=True):
            known[growth.number] = self._column(plan.world.growth[:, column, :, 0], rows_of(growth))
        for name, first in (("factors", 0), ("regime", factors)):
            if name in traced.inputs["words"]:
                value = traced.inputs["words"][name]
                rows, turn = rows_of(value), f"quarter % {philox.WORDS} * {series}"
                place = f"{turn} + {first}" if first else turn
                known[value.number] = Cell(f"words[{place} + {{}}]" if rows > 1 else f"words[{place}]", rows)
        stores = self._moves(traced, known, names)
        return lines, Statements(self._numbers, known, stores, names).lines()

    def _end(self, ends: Any) -> tuple[list[str], tuple]:
        plan, begun = self._plan, self._begun.after
        traced = trace.end(plan, self._ops, begun["terms"], begun["state"], ends)
        inputs, names = self._known(**traced.inputs)
        stores: list[Store] = []
        finals: list[int | np.float32] = []
        for series in plan.path_series:
            value = traced.graph.constant(traced.recorded[series.scope, series.metric][series.index])
            if value.constant is not None:
                finals.append(np.float32(value.constant.reshape(-1)[0]))
                continue
            finals.append(len(stores))
            stores.append(Store(value, Cell(f"out[{len(stores)} * lanes]")))
        return Statements(self._numbers, inputs, stores, names).lines(), tuple(finals)

    def _scalars(self, history: bool) -> list[str]:
        lines = (
            ["const int since = HISTORY + quarter;"]
            if not history
            else ["const int quarter = since - HISTORY;"]
        )
        lines += [
            "const float t = (float)quarter;",
            "const float* const numbers = quarter_numbers + since * NUMBERS;",
        ]
        return (
            lines
            if history
            else [*lines, "float* const out = rows + (size_t)quarter * PLACES * lanes + lane;"]
        )

    def _block(self) -> list[str]:
        return [f"const unsigned block = quarter / {philox.WORDS};"]


def _text(name: str) -> str:
    """What is the same in every kernel."""
    return files(__package__).joinpath("cuda", name).read_text("utf-8")


def _loop(head: str, *parts: list[str]) -> list[str]:
    """A block of statements; nothing when it would be empty."""
    body = list(chain(*parts))
    return (
        [f"{head} {{".strip(), *_indented(body), "}"]
        if parts[-1] or head.startswith("for (int quarter")
        else []
    )


def _indented(lines: Any) -> list[str]:
    return [f"  {line}" if line else "" for line in lines]


def _name(tree: str, path: tuple) -> str:
    """g3_start, g3_legs0_highest, end_g3_start, buyer_cash: of a leaf of terms, state or ends."""
    if path[0] == "groups":
        path = path[1:]
    if path[0] == "sums":
        path = "sums", re.sub(r"\W", "_", path[1])
    text = f"{'end_' if tree == 'ends' else ''}{'g' if isinstance(path[0], int) else ''}{path[0]}"
    for part in path[1:]:
        text += str(part) if isinstance(part, int) else f"_{part}"
    return text
