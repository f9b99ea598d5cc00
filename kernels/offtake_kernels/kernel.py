"""The CUDA kernel of a plan: one path a thread, from its terms to what it records.

The stages of `trace`, printed by `source`, in the order of a path: draws and terms, history, quarters with
the world's moves between them, path metrics. A path's terms and state lie in a frame of its thread's memory;
what a quarter needs of them is read once, and written once when it changes. What nothing recorded depends on
is left out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain
from typing import Any

import numpy as np

from . import philox, trace
from .graph import Graph, Value, reachable
from .layout import Plan
from .ops_graph import CallOps, Functions
from .places import Cell, Numbers, Store
from .schedule import rows_of
from .source import Statements, print_function
from .trees import named_leaves, transform

_WIDTH = 110
_COMMENT: dict[str, Any] = {"initial_indent": "// ", "subsequent_indent": "// "}
# A frame of so many floats may live in registers.
_REGISTER_FRAME = 144
# Of a frame in memory the state comes first, which each quarter reads and writes; what is read least is last.
_RANKS = {"state": 0, "terms": 1, "ends": 2}
_ABOUT_REGISTERS = "A path's frame: what stages hand to later ones, its state, its terms."
_ABOUT_MEMORY = (
    f"{_ABOUT_REGISTERS} As many cells as fit lie in the block's shared memory, "
    "a cell of its threads side by side. A stage reads what it needs before it computes, and where it can "
    "before the stage ahead of it does."
)
_IN_MEMORY = (
    "enum { FITTING = OFFTAKE_SHARED / (4 * OFFTAKE_THREADS), NEAR = CELLS < FITTING ? CELLS : FITTING };",
    "#define FRAME(cell) (*((cell) < NEAR ? near + (cell) * OFFTAKE_THREADS : far + (cell) - NEAR))",
)
_TIME = ("const float t = (float)quarter;", "const float* const numbers = quarter_numbers + since * NUMBERS;")
_SIGNATURE = """extern "C" __global__ void __launch_bounds__(OFFTAKE_THREADS, 1) offtake_paths(
    u64 first_path, unsigned lanes, const float* __restrict__ quarter_numbers, float* __restrict__ rows) {"""


@dataclass(frozen=True)
class Kernel:
    """A plan printed. `source` holds no number of the plan; `arrays` are its numbers by name: c, ci, cw
    (constant memory) and quarter_numbers [history + quarters, numbers]. `tables`: what the constant pointers
    table0, table1, … point at.

    The kernel writes rows [recorded × quarters + finals, lanes] of float32: array p of quarter t in row
    t·recorded + p, then the path metrics. places: the array of each quarterly series, or its one value;
    finals: the same of each path series. frame: cells of a path's frame in memory, 0 when it is registers.
    """

    plan: Plan
    source: str
    arrays: dict[str, np.ndarray]
    tables: tuple[np.ndarray, ...]
    recorded: int
    places: tuple[int | np.float32, ...]
    finals: tuple[int | np.float32, ...]
    frame: int

    def near(self, shared: int, threads: int) -> int:
        """Bytes of shared memory for the frames of a block of threads, where it may have `shared` bytes."""
        return 4 * threads * min(self.frame, shared // (4 * threads))

    @property
    def constant_bytes(self) -> int:
        """Bytes of constant memory that the plan's numbers take, and the pointers to its tables."""
        numbers = sum(self.arrays[name].nbytes for name in ("c", "ci", "cw"))
        return numbers + np.dtype(np.uint64).itemsize * len(self.tables)

    @property
    def rows(self) -> int:
        """Rows that a launch writes."""
        return self.recorded * self.plan.quarters + sum(isinstance(final, int) for final in self.finals)


def print_kernel(plan: Plan) -> Kernel:
    """The kernel of a plan. Its source holds shapes, not numbers: most portfolios of one shape share it."""
    return _Printer(plan).kernel()


class _Frame:
    """Places of a path's memory by name; numbered when it is known which of them anybody reads.

    text: what a statement writes for a place, with {} for its number.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._sizes: dict[str, tuple[int, Cell, int]] = {}

    def cell(self, name: str, value: Value, *, rank: int = 0, index: str = "", times: int = 1) -> Cell:
        """The place of a value, a slot a row; with `times` turns of a ring, `index` says which. Places of a
        low rank are numbered first.
        """
        constant, rows = name.upper(), rows_of(value)
        offset = " + ".join(part for part in (constant, index, "{}" if rows > 1 else "") if part)
        if constant not in self._sizes:
            cell = Cell(self._text.replace("{}", offset), rows, value.kind == "bool")
            self._sizes[constant] = rank, cell, rows * times
        return self._sizes[constant][1]

    def number(self, live: set[str], first: int = 0) -> tuple[str, int]:
        """Declaration of the places that are read, numbered from `first`, and where they end."""
        slots, size = [], first
        for name, (_, cell, rows) in sorted(self._sizes.items(), key=lambda item: item[1][0]):
            if cell.text in live:
                slots.append(f"{name} = {size}")
                size += rows
        declared = textwrap.fill(f"enum {{ {', '.join(slots)} }};", _WIDTH, subsequent_indent="       ")
        return declared if slots else "", size


@dataclass
class _Section:
    """A stage to be printed: where its inputs lie, what it stores, and what its values are called."""

    inputs: dict[int, Cell]
    stores: list[Store]
    names: dict[int, str] = field(default_factory=dict)
    handed: int = 0

    def lines(self, numbers: Numbers, live: set[str], hand_over: str = "") -> list[str]:
        """Its statements, without what nobody reads."""
        stores = [store for store in self.stores if _is_live(store, live)]
        statements = Statements(numbers, self.inputs, stores, self.names, hand_over)
        self.handed = statements.handed
        return statements.lines()


class _Printer:
    def __init__(self, plan: Plan):
        self._plan, self._numbers = plan, Numbers()
        self._frame, self._past = _Frame("FRAME({})"), _Frame("past[{}]")
        self._columns: list[np.ndarray] = []
        self._functions: Functions = {}
        self._begun = trace.begin(plan, self._ops)
        self._cells: dict[str, Cell] = {}

    def _ops(self, graph: Graph) -> CallOps:
        return CallOps(graph, self._functions)

    def kernel(self) -> Kernel:
        """Prints every stage."""
        plan, numbers = self._plan, self._numbers
        nothing = _Section({}, [])
        begin = self._begin()
        history = self._quarter(history=True)[0] if plan.history else nothing
        quarter, traced, found = self._quarter(history=False)
        places, recorded = self._recorded(quarter, *found)
        end, finals = self._end(self._ends(quarter, traced, found[0]))
        words, world = (self._words(), self._world()) if plan.series_crc else (nothing, nothing)
        sections = {"begin": begin, "history": history, "words": words, "quarter": quarter, "world": world}
        sections["end"] = end
        live = _read_cells(list(sections.values()))
        text = {
            name: section.lines(numbers, live, "FRAME({})" if section is quarter else "")
            for name, section in sections.items()
        }
        functions = [print_function(numbers, name, self._functions) for name in self._functions]
        arrays = {name: numbers.array(name) for name in ("c", "ci", "cw")}
        since = np.zeros((plan.history + plan.quarters, 0), np.float32)
        arrays["quarter_numbers"] = np.concatenate([since, *self._columns], axis=1)
        frame, past = self._frame.number(live, quarter.handed), self._past.number(live)
        # A small frame may live in registers; of a large one, what a stage needs and no more.
        in_memory = frame[1] - quarter.handed > _REGISTER_FRAME
        body = [*self._opening(frame[1], past[1], in_memory), *self._body(text)]
        heading = self._heading(arrays, functions, recorded)
        frames = self._frames(frame, past[0], in_memory)
        source = "\n".join([*heading, *frames, _SIGNATURE, *_indented(body), "}", "", _text("tally.cuh")])
        cells = frame[1] if in_memory else 0
        return Kernel(plan, source, arrays, tuple(numbers.tables), recorded, places, finals, cells)

    def _body(self, text: dict[str, list[str]]) -> Iterator[str]:
        yield from _block("", text["begin"])
        past = ["const int quarter = since - HISTORY;", *_TIME, *text["history"]]
        if self._plan.history:
            yield "#pragma unroll 1"
            yield from _block("for (int since = 0; since < HISTORY; ++since)", past)
        words = [f"const unsigned block = quarter / {philox.WORDS};", *text["words"]]
        quarter = [
            "const int since = HISTORY + quarter;",
            *_TIME,
            "float* const out = rows + (size_t)quarter * PLACES * lanes + lane;",
            *(_block(f"if (quarter % {philox.WORDS} == 0)", words) if text["words"] else ()),
            *text["quarter"],
            *(_block("if (quarter + 1 < QUARTERS)", text["world"]) if text["world"] else ()),
        ]
        yield from _block("for (int quarter = 0; quarter < QUARTERS; ++quarter)", quarter)
        finals = "float* const out = rows + (size_t)(PLACES * QUARTERS) * lanes + lane;"
        yield from _block("", [finals, *text["end"]])

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
        groups = (f"g{n} deal {', '.join(map(str, g.deals))}" for n, g in enumerate(plan.groups))
        yield from textwrap.wrap(f"Deals of one shape: {'; '.join(groups)}.", _WIDTH, **_COMMENT)

    @staticmethod
    def _frames(frame: tuple[str, int], past: str, in_memory: bool) -> Iterator[str]:
        """Where a path's memory lies."""
        declared, cells = frame
        if cells:
            yield from textwrap.wrap(_ABOUT_MEMORY if in_memory else _ABOUT_REGISTERS, _WIDTH, **_COMMENT)
            yield declared
            yield f"enum {{ CELLS = {cells} }};"
            yield from _IN_MEMORY if in_memory else ("#define FRAME(cell) frame[cell]",)
        if past:
            yield from ("// What hardware of limited life delivered, a turn of the ring each quarter.", past)
        yield ""

    def _opening(self, frame: int, past: int, in_memory: bool) -> Iterator[str]:
        yield "const unsigned lane = blockIdx.x * blockDim.x + threadIdx.x;"
        yield "if (lane >= lanes) return;"
        yield "const unsigned path_high = (unsigned)((first_path + lane) >> 32);"
        yield "const unsigned path_low = (unsigned)(first_path + lane);"
        yield "const float zero = 0.0f;"
        if in_memory:
            yield "volatile float* const near = (volatile float*)block_memory + threadIdx.x;"
            yield "volatile float far[CELLS - NEAR + 1];"
        elif frame:
            yield "float frame[CELLS];"
        if past:
            yield f"float past[{past}] = {{}};"
        if self._plan.series_crc:
            yield f"unsigned words[{philox.WORDS * len(self._plan.series_crc)}];"
        yield ""

    def _begin(self) -> _Section:
        begun = self._begun
        given = begun.inputs
        section = _Section(
            {
                given["words"]["high"].number: Cell("path_high"),
                given["words"]["low"].number: Cell("path_low"),
                given["zero"].number: Cell("zero"),
            },
            [],
        )
        for tree in ("terms", "state"):
            for path, value in named_leaves(begun.after[tree]):
                if value.constant is None:
                    name = self._name(tree, path)
                    self._cells[name] = self._frame.cell(name, value, rank=_RANKS[tree])
                    section.stores.append(Store(value, self._cells[name]))
                    _claim(section.names, value, name)
        return section

    def _quarter(self, history: bool) -> tuple[_Section, trace.Traced, tuple[dict, list[int]]]:
        """A quarter of the study, or of history, but for what it records."""
        begun = self._begun.after
        traced = trace.quarter(self._plan, self._ops, begun["terms"], begun["state"], history)
        found = trace.results(self._plan, traced)
        section = self._known(terms=traced.inputs["terms"], state=traced.inputs["state"])
        self._move(section, traced)
        for number, kept in found[0]["remembered"].items():
            self._remember(section, number, traced, kept)
        section.inputs |= self._scalar_cells(traced.inputs["scalars"], history)
        for path, value in named_leaves(traced.deliveries):
            if isinstance(value, Value):
                _claim(section.names, value, f"g{path[0]}_{path[1]}")
        return section, traced, found

    def _ends(self, section: _Section, traced: trace.Traced, found: dict) -> list[dict]:
        """Stores start and scheduled end of each group after the last quarter, but for what its state holds;
        returns their values.
        """
        ends = transform(traced.graph.constant, found["ends"])
        held = {store.value.number: store.cell for store in section.stores}
        for path, value in named_leaves(ends):
            name = self._name("ends", path)
            if value.number in held:
                self._cells[name] = held[value.number]
            elif value.constant is None:
                self._cells[name] = self._frame.cell(name, value, rank=_RANKS["ends"])
                section.stores.append(Store(value, self._cells[name], condition="quarter == QUARTERS - 1"))
        return ends

    @staticmethod
    def _move(section: _Section, traced: trace.Traced) -> None:
        """Stores the state's next values over the old ones."""
        for old, new in trace.updates(traced):
            section.stores.append(Store(new, section.inputs[old.number], old))
            _claim(section.names, new, f"{section.names[old.number]}_next")

    def _recorded(self, section: _Section, found: dict, order: list[int]) -> tuple[tuple, int]:
        """Stores what a quarter records; returns where each series lies, and how many arrays there are."""
        position: dict[int, int] = {}
        places: list[int | np.float32] = []
        for series, place in zip(self._plan.quarter_series, order, strict=True):
            value = found["recorded"][place]
            if value.constant is not None:
                places.append(np.float32(value.constant.reshape(-1)[0]))
                continue
            if place not in position:
                position[place] = len(position)
                section.stores.append(Store(value, _out(position[place])))
                scope = "" if series.scope == "total" else f"_{series.scope}{series.index}"
                _claim(section.names, value, f"{series.metric}{scope}")
            places.append(position[place])
        return tuple(places), len(position)

    def _remember(self, section: _Section, number: int, traced: trace.Traced, kept: dict) -> None:
        """The ring of what a group delivered; what cannot retire within the study is not kept."""
        plan = self._plan
        life = plan.groups[number].features.life
        assert life is not None
        for name, old in traced.inputs["lagged"][number].items():
            if life >= plan.history + plan.quarters:
                section.inputs[old.number] = Cell("zero")
                continue
            rows = rows_of(old)
            turn = f"since % {life} * {rows}" if rows > 1 else f"since % {life}"
            cell = self._past.cell(f"past_g{number}_{name}", old, index=turn, times=life)
            section.inputs[old.number] = cell
            section.stores.append(Store(traced.graph.constant(kept[name]), cell, old))

    def _known(self, **trees: Any) -> _Section:
        """A section with the cells and names of its inputs among terms, state and ends."""
        section = _Section({}, [])
        for tree, branches in trees.items():
            for path, value in named_leaves(branches):
                if value.op == "input":
                    name = section.names[value.number] = self._name(tree, path)
                    section.inputs[value.number] = self._cells[name]
        return section

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

    def _word_cells(self, words: dict[str, Value], turn: str) -> Iterator[tuple[Value, Cell]]:
        """Where the words of one of four quarters lie: those of the factors, then the regime's."""
        for name, first in (("factors", 0), ("regime", len(self._plan.world.row))):
            if name in words:
                rows = rows_of(words[name])
                place = f"{turn} + {first}" if first else turn
                yield words[name], Cell(f"words[{place} + {{}}]" if rows > 1 else f"words[{place}]", rows)

    def _words(self) -> _Section:
        """Draws the words of four quarters."""
        drawn = trace.words(self._plan, self._ops)
        inputs = {
            drawn.inputs["words"]["high"].number: Cell("path_high"),
            drawn.inputs["words"]["low"].number: Cell("path_low"),
            drawn.inputs["block"].number: Cell("block"),
        }
        series = len(self._plan.series_crc)
        stores = []
        for turn, words in enumerate(drawn.after):
            stores += [Store(*pair) for pair in self._word_cells(words, str(turn * series))]
        return _Section(inputs, stores)

    def _world(self) -> _Section:
        """Moves the world to the next quarter."""
        plan = self._plan
        traced = trace.world_step(plan, self._ops, self._begun.after["state"]["world"])
        section = self._known(state={"world": traced.inputs["state"]})
        for number, growth in enumerate(traced.inputs["scalars"]["growth"]):
            section.inputs[growth.number] = self._column(plan.world.growth[:, number, :, 0], rows_of(growth))
        turn = f"quarter % {philox.WORDS} * {len(plan.series_crc)}"
        for word, cell in self._word_cells(traced.inputs["words"], turn):
            section.inputs[word.number] = cell
        self._move(section, traced)
        return section

    def _end(self, ends: list[dict]) -> tuple[_Section, tuple]:
        """What a path records after the last quarter, and where each series lies."""
        plan, begun = self._plan, self._begun.after
        traced = trace.end(plan, self._ops, begun["terms"], begun["state"], ends)
        section = self._known(**traced.inputs)
        finals: list[int | np.float32] = []
        for series in plan.path_series:
            value = traced.graph.constant(traced.recorded[series.scope, series.metric][series.index])
            if value.constant is not None:
                finals.append(np.float32(value.constant.reshape(-1)[0]))
                continue
            finals.append(len(section.stores))
            section.stores.append(Store(value, _out(len(section.stores))))
        return section, tuple(finals)

    def _name(self, tree: str, path: tuple) -> str:
        """g3_start, g3_legs0_highest, end_g3_start, buyer_cash: of a leaf of terms, state or ends.

        A level to be reached is numbered: nothing that a configuration says is text of a kernel.
        """
        reach = {name: f"reach{number}" for number, (name, _) in enumerate(self._plan.reach)}
        if path[0] == "groups":
            path = path[1:]
        text = f"{'end_' if tree == 'ends' else ''}{'g' if isinstance(path[0], int) else ''}{path[0]}"
        for part in path[1:]:
            text += str(part) if isinstance(part, int) else f"_{reach.get(part, part)}"
        return text


def _out(place: int) -> Cell:
    """Where a path records a value: beside those of the paths around it."""
    return Cell(f"out[{place} * lanes]", streamed=True)


def _is_live(store: Store, live: set[str]) -> bool:
    return store.cell.text in live or store.cell.text.startswith(("out[", "words["))


def _read_cells(sections: Sequence[_Section]) -> set[str]:
    """The cells that anything recorded depends on, at once or quarters later."""
    live: set[str] = set()
    size = -1
    while len(live) > size:
        size = len(live)
        for section in sections:
            for value in reachable([store.value for store in section.stores if _is_live(store, live)]):
                if value.op == "input":
                    live.add(section.inputs[value.number].text)
    return live


def _claim(names: dict[int, str], value: Value, name: str) -> None:
    """Names a computed value that has no name yet; a name that is taken gets a suffix."""
    if value.constant is not None or value.op in ("input", "row") or value.number in names:
        return
    taken = set(names.values())
    while name in taken:
        name += "_now"
    names[value.number] = name


def _text(name: str) -> str:
    """What is the same in every kernel."""
    return files("offtake_kernels").joinpath("cuda", name).read_text("utf-8")


def _block(head: str, body: Sequence[str]) -> list[str]:
    return [f"{head} {{".strip(), *_indented(body), "}"]


def _indented(lines: Any) -> list[str]:
    return [f"  {line}" if line else "" for line in lines]
