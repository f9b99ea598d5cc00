"""A graph printed as C: the statements of one stage of a path, for CUDA and for the host alike.

A value of one row is a variable. A value of several rows (deals, factors, streams) is computed in a loop
over its rows, fused with its neighbours; it is an array only where another loop, or a single row, needs it. A
value with one user is written where it is used. Numbers of a portfolio are never text: a statement names a
place in `Numbers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .graph import Value, reachable
from .ops_graph import Functions, record

C_TYPES = {"float": "float", "int": "int", "bool": "bool", "word": "unsigned"}
# Float constants that a statement holds as text; any other is a place in `Numbers`.
_LITERALS = {0.0: "0.0f", 0.5: "0.5f", 1.0: "1.0f", -1.0: "-1.0f"}
_LONGEST_INLINE = 72
# Functions that the prelude has from the GPU's own instructions, for fast arithmetic.
_HARDWARE = ("exp2", "log2", "bits_of_tail")
# Loops of so many rows are unrolled, so that their arrays can be registers.
UNROLLED_ROWS = 16
# A value read within so many stages stays in a register; one read later is handed over in memory.
_STAGES_KEPT = 3
# So many numbers may be on their way from memory while the stage before still computes; a loop reads so many
# before it begins.
_READ_AHEAD = 48
_READ_AT_ONCE = 192
_INFIX = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "and": "&",
    "or": "|",
    "xor": "^",
    "left_shift": "<<",
    "right_shift": ">>",
    "less": "<",
    "less_equal": "<=",
    "equal": "==",
}
_CALLS = {
    "minimum": "least",
    "maximum": "most",
    "multiply_high": "product_high",
    "multiply_low": "product_low",
    "floor": "floorf",
    "sqrt": "sqrtf",
    "bits": "__float_as_int",
    "from_bits": "__int_as_float",
    "to_float": "float",
    "word_to_float": "float",
    "to_int": "int",
    "flag": "int",
    "low_bits": "low_bits",
    "top_bit_clear": "top_bit_clear",
}


# How a maximum with 0 begins.
_NOT_NEGATIVE = f"{_CALLS['maximum']}(0.0f, "


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


class _Literals(Numbers):
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


class _Chunk:
    """Statements that run one after another, once or for each of `rows` rows."""

    def __init__(self, stage: str, rows: int):
        self.stage, self.rows, self.position = stage, rows, 0
        self.values: list[Value] = []
        self.stores: list[Store] = []


class _Block:
    """A chunk as text: what it reads from memory, the statements that follow, the cells that they write.

    reads: (cell, statement); arrays: inputs of which a loop has a row each turn, read whole before it begins
    where they are few: (cell, declaration, statement that fills a row).
    """

    def __init__(self, chunk: _Chunk):
        self.stage, self.rows = chunk.stage, chunk.rows
        self.at_once = chunk.rows <= UNROLLED_ROWS and len(_row_inputs(chunk)) * chunk.rows <= _READ_AT_ONCE
        self.reads: list[tuple[Cell, str]] = []
        self.arrays: list[tuple[Cell, str, str]] = []
        self.body: list[str] = []
        self.written: set[str] = set()

    def fetch(self) -> list[str]:
        """Takes its reads, one after another: all are on their way before the first is needed."""
        lines = [text for _, text in self.reads]
        if self.arrays:
            lines += [declared for _, declared, _ in self.arrays]
            lines += _loop(self.rows, [statement for _, _, statement in self.arrays])
        self.reads, self.arrays = [], []
        return lines

    def fetch_early(self, written: set[str]) -> list[str]:
        """Takes reads of cells that are not among those written: a few, to be on their way a stage before."""
        early = [read for read in self.reads if read[0].text not in written][:_READ_AHEAD]
        self.reads = [read for read in self.reads if read not in early]
        return [text for _, text in early]


class Statements:
    """The statements that compute and store what `stores` ask for.

    inputs: cell of every input; names: identifiers for values that have one; handed: text of the cells, with
    {} for a number, in which stages hand values to much later ones, "" when they do not.
    """

    def __init__(
        self,
        numbers: Numbers,
        inputs: Mapping[int, Cell],
        stores: Sequence[Store],
        names: Mapping[int, str] | None = None,
        handed: str = "",
    ):
        self._numbers, self._inputs, self._names = numbers, inputs, dict(names or {})
        assert not _crossed(stores), "a store would read what another has replaced"
        self._stored = {_resolve(store.value, None)[0].number for store in stores}
        self._order = [v for v in reachable([s.value for s in stores]) if _is_computed(v)]
        self._chunks: list[_Chunk] = []
        self._at: dict[int, int] = {}
        self._users: dict[int, list[Value]] = {v.number: [] for v in self._order}
        self._row_uses: set[int] = set()
        for value in self._order:
            self._place(value)
        self._last_read = self._last_reads()
        self.handed = 0
        self._handed: set[int] = set()
        own = {_resolve(s.value, None)[0].number: s.cell for s in stores if _keeps(s, handed)}
        self._slots = self._hand_over(handed, own) if handed else {}
        for store in stores:
            self._place_store(store)
        self._texts: dict[int, str] = {}
        self._loaded: dict[tuple[int, str], str] = {}
        self._times_read: dict[str, int] = {}

    def lines(self) -> list[str]:
        """C, without indentation of its own beyond that of loops."""
        self._texts.clear()
        self._loaded.clear()
        self._times_read.clear()
        blocks = [self._print(number, chunk) for number, chunk in enumerate(self._chunks)]
        blocks = [block for block in blocks if block.body]
        early = [now.fetch_early(before.written) for before, now in pairwise(blocks)]
        printed, stage = [], ""
        for block, reads in zip(blocks, [*early, []], strict=False):
            if block.stage != stage:
                stage = block.stage
                printed += ["", f"// {stage}"]
            printed += [*block.fetch(), *reads, *block.body]
        return printed

    # Placing: which chunk computes what.

    def _place(self, value: Value) -> None:
        rows = 1 if value.op == "stack" else rows_of(value)
        earliest, read = 0, []
        for argument in _read(value):
            base, row = _resolve(argument, None)
            if _is_computed(base):
                self._users[base.number].append(value)
                at = self._at[base.number]
                together = self._chunks[at].rows == rows and (row is None or rows == 1)
                earliest = max(earliest, at if together else at + 1)
                read.append(base)
        if not self._chunks or self._chunks[-1].stage != value.stage:
            # What needs no row comes first, so that loops which need it can be one.
            self._chunks.append(_Chunk(value.stage, 1))
        chunks = enumerate(self._chunks[earliest:], earliest)
        fitting = (n for n, c in chunks if c.rows == rows and c.stage == value.stage)
        number = next(fitting, len(self._chunks))
        if number == len(self._chunks):
            self._chunks.append(_Chunk(value.stage, rows))
        self._chunks[number].values.append(value)
        self._at[value.number] = number
        for base in read:
            if self._at[base.number] != number:
                self._array(base)

    def _last_reads(self) -> dict[int, int]:
        """The last chunk that reads each input."""
        last: dict[int, int] = {}
        for value in self._order:
            for argument in _read(value):
                base, _ = _resolve(argument, None)
                if base.op == "input":
                    last[base.number] = max(last.get(base.number, 0), self._at[value.number])
        return last

    def _hand_over(self, handed: str, own: Mapping[int, Cell]) -> dict[int, Cell]:
        """A cell for each value that only a much later stage reads: it would hold a register until then. What
        is stored in a cell of its `own` is read from there.
        """
        stage, stages = "", []
        for chunk in self._chunks:
            if chunk.stage != stage:
                stage = chunk.stage
                stages.append(stage)
            chunk.position = len(stages)
        cells: dict[int, Cell] = {}
        free: list[int] = []
        ending: dict[int, list[int]] = {}
        for number, chunk in enumerate(self._chunks):
            free += ending.pop(number, [])
            for value in chunk.values:
                users = self._users[value.number]
                if chunk.rows > 1 or value.op == "stack" or value.kind not in ("float", "bool") or not users:
                    continue
                last = max(self._at[user.number] for user in users)
                if self._chunks[last].position - chunk.position <= _STAGES_KEPT:
                    continue
                if value.number in own:
                    cells[value.number] = own[value.number]
                    continue
                slot = free.pop() if free else self.handed
                self.handed = max(self.handed, slot + 1)
                ending.setdefault(last + 1, []).append(slot)
                cells[value.number] = Cell(handed.format(slot), 1, value.kind == "bool")
                self._handed.add(value.number)
        return cells

    def _place_store(self, store: Store) -> None:
        """Where the value is known, and what it replaces has been read."""
        base, _ = _resolve(store.value, None)
        rows, earliest = store.cell.rows, self._at.get(base.number, 0)
        if store.replaces is not None and rows > 1:
            earliest = max(earliest, self._last_read.get(store.replaces.number, 0))
        later = (n for n in range(earliest, len(self._chunks)) if self._chunks[n].rows == rows)
        number = next(later, len(self._chunks))
        if number == len(self._chunks):
            self._chunks.append(_Chunk(self._chunks[-1].stage if self._chunks else "", rows))
        if self._at.get(base.number, number) != number:
            self._array(base)
        self._chunks[number].stores.append(store)

    def _array(self, value: Value) -> None:
        if rows_of(value) > 1:
            self._row_uses.add(value.number)

    # Printing.

    def _print(self, number: int, chunk: _Chunk) -> _Block:
        block = _Block(chunk)
        pending = list(chunk.stores)
        for value in chunk.values:
            text = self._expression(value, number, block)
            if self._is_inline(value, number, text):
                self._texts[value.number] = text
                continue
            block.body += self._define(value, text, block, chunk)
            ready = [s for s in pending if _resolve(s.value, None)[0] is value and _may_store(s, chunk)]
            for store in ready:
                pending.remove(store)
                self._write(store, number, block)
        for store in pending:
            self._write(store, number, block)
        for key in [k for k in self._loaded if k[1] == "k"]:
            del self._loaded[key]
        if chunk.rows > 1:
            arrays = (value for value in chunk.values if value.number in self._row_uses)
            declared = [f"{C_TYPES[value.kind]} {self._name(value)}[{chunk.rows}];" for value in arrays]
            block.body = [*declared, *_loop(chunk.rows, block.body)]
        return block

    def _write(self, store: Store, number: int, block: _Block) -> None:
        old, row = store.replaces, "k" if store.cell.rows > 1 else None
        if old is not None and old.number in self._last_read and self._chunks[number].rows == 1:
            self._load(old, "0", block)
        statement = store.cell.store(row or "0", self._reference(store.value, row, number, block))
        block.body.append(f"if ({store.condition}) {statement}" if store.condition else statement)
        block.written.add(store.cell.text)

    def _define(self, value: Value, text: str, block: _Block, chunk: _Chunk) -> list[str]:
        name, kind = self._name(value), C_TYPES[value.kind]
        if value.op == "stack":
            return [f"const {kind} {name}[{len(value.args)}] = {text};"]
        if chunk.rows > 1 and value.number in self._row_uses:
            return [f"const {kind} {name}_k = {text};", f"{name}[k] = {name}_k;"]
        statements = [f"const {kind} {name} = {text};"]
        if value.number in self._handed:
            slot = self._slots[value.number]
            statements.append(slot.store("0", name))
            block.written.add(slot.text)
        return statements

    def _is_inline(self, value: Value, number: int, text: str) -> bool:
        users = self._users[value.number]
        return (
            len(users) == 1
            and self._at[users[0].number] == number
            and users[0].op != "stack"
            and value.op != "stack"
            and value.number not in self._stored
            and value.number not in self._row_uses
            and len(text) <= _LONGEST_INLINE
        )

    def _name(self, value: Value) -> str:
        return self._names.get(value.number, f"v{value.number}")

    def _expression(self, value: Value, chunk: int, block: _Block) -> str:
        """The text that computes a value; what it reads from memory goes to the block's reads."""
        row = "k" if self._chunks[chunk].rows > 1 else None
        arguments = value.args[1:] if value.op == "take" else value.args
        texts = [self._reference(a, row if rows_of(a) > 1 else None, chunk, block) for a in arguments]
        return self._combined(value, texts)

    def _combined(self, value: Value, texts: Sequence[str]) -> str:
        op = value.op
        if op in _INFIX:
            return f"{_inner(texts[0])} {_INFIX[op]} {_inner(texts[1])}"
        if op == "where":
            return f"{_inner(texts[0])} ? {_inner(texts[1])} : {_inner(texts[2])}"
        if op == "not":
            return f"{'!' if value.kind == 'bool' else '~'}{_inner(texts[0])}"
        if op == "stack":
            return f"{{{', '.join(texts)}}}"
        if op == "take":
            return self._numbers.table(value.args[0], texts[0])
        if op == "minimum" and _clamps_to_share(value) and texts[1].startswith(_NOT_NEGATIVE):
            return f"share({texts[1].removeprefix(_NOT_NEGATIVE)}"
        if op.startswith("call "):
            _, name, *part = op.split()
            called = f"{name}_of({', '.join(texts)})"
            return f"{called}.word{part[0]}" if part else called
        return f"{_CALLS[op]}({', '.join(texts)})"

    def _reference(self, value: Value, row: str | None, chunk: int, block: _Block) -> str:
        base, row = _resolve(value, row)
        if base.constant is not None:
            return self._numbers.text(base, row)
        if base.op == "input":
            return self._load_row(base, block) if row == "k" else self._load(base, row or "0", block)
        here, there = self._chunks[chunk], self._chunks[self._at[base.number]]
        if row is None:
            if base.number in self._slots and here.position != there.position:
                return self._take_over(base, here.position, block)
            return self._texts.get(base.number, self._name(base))
        if row == "k" and here is there and base.op != "stack":
            kept = f"{self._name(base)}_k" if base.number in self._row_uses else self._name(base)
            return self._texts.get(base.number, kept)
        return f"{self._name(base)}[{row}]"

    def _take_over(self, value: Value, position: int, block: _Block) -> str:
        """The variable of this stage that holds what another handed over."""
        key = value.number, f"stage {position}"
        if key not in self._loaded:
            name = self._loaded[key] = f"{self._name(value)}_s{position}"
            slot = self._slots[value.number]
            block.reads.append((slot, f"const {C_TYPES[value.kind]} {name} = {slot.load('0')};"))
        return self._loaded[key]

    def _load(self, value: Value, row: str, block: _Block) -> str:
        """The variable that holds an input, or one row of it."""
        key = value.number, row
        if key not in self._loaded:
            cell = self._inputs[value.number]
            if cell.text.isidentifier():
                return cell.text
            name = self._names.get(value.number, f"v{value.number}")
            name = self._loaded[key] = name if rows_of(value) == 1 else f"{name}_{row}"
            block.reads.append((cell, f"const {C_TYPES[value.kind]} {name} = {cell.load(row)};"))
        return self._loaded[key]

    def _load_row(self, value: Value, block: _Block) -> str:
        """An input's row of the loop: of an array that is read before the loop begins, or read in it."""
        key = value.number, "k"
        if key not in self._loaded:
            cell, kind = self._inputs[value.number], C_TYPES[value.kind]
            name = self._names.get(value.number, f"v{value.number}")
            if not block.at_once:
                self._loaded[key] = f"{name}_k"
                block.body.append(f"const {kind} {name}_k = {cell.load('k')};")
                return self._loaded[key]
            self._times_read[name] = times = self._times_read.get(name, 0) + 1
            name = f"{name}_{'again' * (times - 1)}" if times > 1 else name
            self._loaded[key] = f"{name}[k]"
            block.arrays.append((cell, f"{kind} {name}[{block.rows}];", f"{name}[k] = {cell.load('k')};"))
        return self._loaded[key]


def print_function(numbers: Numbers, name: str, functions: Functions) -> list[str]:
    """One of these functions of single elements as a device function; several results are the members of a
    struct.
    """
    body, kinds = functions[name]
    arguments, results = record(body, kinds, functions)
    letters = {value.number: Cell(letter) for value, letter in zip(arguments, "abcd", strict=False)}
    stores = [Store(value, Cell(f"result.word{n}")) for n, value in enumerate(results)]
    if len(results) == 1:
        stores = [Store(results[0], Cell("const float result"))]
    lines = Statements(_Literals(numbers), letters, stores).lines()
    given = ", ".join(f"{C_TYPES[kind]} {letter}" for kind, letter in zip(kinds, "abcd", strict=False))
    struct = f"{name.capitalize()}Result"
    head = []
    if len(results) > 1:
        members = ", ".join(f"word{n}" for n in range(len(results)))
        head = [f"struct {struct} {{ {C_TYPES[results[0].kind]} {members}; }};"]
        lines = [f"{struct} result;", *lines]
    returned = struct if len(results) > 1 else C_TYPES[results[0].kind]
    lines = [line for line in [*lines, "return result;"] if line]
    if name in _HARDWARE:
        lines = ["#ifdef OFFTAKE_FAST", f"return fast_{name}(a);", "#else", *lines, "#endif"]
    inside = [line if line.startswith("#") else f"  {line}" for line in lines]
    return [*head, f"__device__ __forceinline__ {returned} {name}_of({given}) {{", *inside, "}", ""]


def rows_of(value: Value) -> int:
    """Deals, factors or streams of a value: the length of its first axis, where it has two."""
    assert len(value.shape) <= 2, value.shape
    return value.shape[0] if len(value.shape) == 2 else 1


def _loop(rows: int, body: Sequence[str]) -> list[str]:
    """Statements for each of so many rows."""
    unroll = "#pragma unroll" if rows <= UNROLLED_ROWS else "#pragma unroll 1"
    return [unroll, f"for (int k = 0; k < {rows}; ++k) {{", *(f"  {line}" for line in body), "}"]


def _row_inputs(chunk: _Chunk) -> set[int]:
    """The inputs of which a loop reads a row each turn."""
    read = (
        _resolve(a, "k") for value in chunk.values for a in _read(value) if chunk.rows > 1 and rows_of(a) > 1
    )
    return {base.number for base, row in read if base.op == "input" and row == "k"}


def _keeps(store: Store, handed: str) -> bool:
    """Whether a store leaves its value, of one row, where a later stage of the same turn finds it."""
    is_memory = bool(handed) and store.cell.text.startswith(handed.partition("{")[0])
    return is_memory and store.cell.rows == 1 and not store.condition


def _may_store(store: Store, chunk: _Chunk) -> bool:
    """Whether nothing of the chunk still reads what the store replaces: rows are read more than once."""
    return store.replaces is None or (chunk.rows == 1 and rows_of(store.replaces) == 1)


def _crossed(stores: Sequence[Store]) -> bool:
    """Whether a store passes on an input that another replaces."""
    replaced = {store.replaces.number for store in stores if store.replaces is not None}
    return any(_resolve(store.value, None)[0].number in replaced for store in stores)


def _is_computed(value: Value) -> bool:
    single = value.op == "stack" and len(value.args) == 1
    return value.constant is None and value.op not in ("input", "row") and not single


def _clamps_to_share(value: Value) -> bool:
    """Whether a minimum is min(1, max(0, x))."""
    one, other = value.args
    return _is_number(one, 1.0) and other.op == "maximum" and _is_number(other.args[0], 0.0)


def _is_number(value: Value, number: float) -> bool:
    return value.constant is not None and value.constant.shape == () and value.constant == number


def _read(value: Value) -> list[Value]:
    """The values that a statement reads and that are not known."""
    return [a for a in value.args if isinstance(a, Value) and a.constant is None]


def _resolve(value: Value, row: str | None) -> tuple[Value, str | None]:
    """The value that a row or a stack of one stands for, and which of its rows; None: its only one, or the
    statement's own.
    """
    while True:
        if value.op == "row":
            value, row = value.args[0], (str(value.args[1]) if rows_of(value.args[0]) > 1 else None)
        elif value.op == "stack" and len(value.args) == 1:
            value, row = value.args[0], None
        else:
            return value, row


def _inner(text: str) -> str:
    """As an operand: in parentheses unless it is a name, a number, an element or a call."""
    depth = 0
    for character in text:
        depth += character in "(["
        depth -= character in ")]"
        if character == " " and depth == 0:
            return f"({text})"
    return f"({text})" if text.startswith("-") else text
