"""A graph printed as C: the statements of one stage of a path, for CUDA and for the host alike.

A value of one row is a variable. A value of several rows (deals, factors, streams) is computed in a loop
over its rows, fused with its neighbours; it is an array only where another loop, or a single row, needs it. A
value with one user is written where it is used. Numbers of a portfolio are never text: a statement names a
place in `Numbers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from .graph import Value
from .ops_graph import Functions, record
from .places import Cell, Literals, Numbers, Store
from .schedule import Chunk, Schedule, reads_of, resolve, rows_of

C_TYPES = {"float": "float", "int": "int", "bool": "bool", "word": "unsigned"}
_LONGEST_INLINE = 72
# Functions that the prelude has from the GPU's own instructions, for fast arithmetic.
_HARDWARE = ("exp2", "log2", "bits_of_tail")
# Loops of so many rows are unrolled, so that their arrays can be registers.
UNROLLED_ROWS = 16
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


class _Block:
    """A chunk as text: what it reads from memory, the statements that follow, the cells that they write.

    reads: (cell, statement); arrays: inputs of which a loop has a row each turn, read whole before it begins
    where they are few: (cell, declaration, statement that fills a row).
    """

    def __init__(self, chunk: Chunk):
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
        self._schedule = Schedule(stores, handed)
        self._texts: dict[int, str] = {}
        self._loaded: dict[tuple[int, str], str] = {}
        self._times_read: dict[str, int] = {}

    @property
    def handed(self) -> int:
        """Cells in which stages hand values over."""
        return self._schedule.cells

    def lines(self) -> list[str]:
        """C, without indentation of its own beyond that of loops."""
        self._texts.clear()
        self._loaded.clear()
        self._times_read.clear()
        blocks = [self._print(number, chunk) for number, chunk in enumerate(self._schedule.chunks)]
        blocks = [block for block in blocks if block.body]
        early = [now.fetch_early(before.written) for before, now in pairwise(blocks)]
        printed, stage = [], ""
        for block, reads in zip(blocks, [*early, []], strict=False):
            if block.stage != stage:
                stage = block.stage
                printed += ["", f"// {stage}"]
            printed += [*block.fetch(), *reads, *block.body]
        return printed

    def _print(self, number: int, chunk: Chunk) -> _Block:
        block = _Block(chunk)
        pending = list(chunk.stores)
        for value in chunk.values:
            text = self._expression(value, number, block)
            if self._is_inline(value, number, text):
                self._texts[value.number] = text
                continue
            block.body += self._define(value, text, block, chunk)
            ready = [s for s in pending if resolve(s.value, None)[0] is value and _may_store(s, chunk)]
            for store in ready:
                pending.remove(store)
                self._write(store, number, block)
        for store in pending:
            self._write(store, number, block)
        for key in [k for k in self._loaded if k[1] == "k"]:
            del self._loaded[key]
        if chunk.rows > 1:
            arrays = (value for value in chunk.values if value.number in self._schedule.row_uses)
            declared = [f"{C_TYPES[value.kind]} {self._name(value)}[{chunk.rows}];" for value in arrays]
            block.body = [*declared, *_loop(chunk.rows, block.body)]
        return block

    def _write(self, store: Store, number: int, block: _Block) -> None:
        old, row = store.replaces, "k" if store.cell.rows > 1 else None
        if (
            old is not None
            and old.number in self._schedule.last_read
            and self._schedule.chunks[number].rows == 1
        ):
            self._load(old, "0", block)
        statement = store.cell.store(row or "0", self._reference(store.value, row, number, block))
        block.body.append(f"if ({store.condition}) {statement}" if store.condition else statement)
        block.written.add(store.cell.text)

    def _define(self, value: Value, text: str, block: _Block, chunk: Chunk) -> list[str]:
        name, kind = self._name(value), C_TYPES[value.kind]
        if value.op == "stack":
            return [f"const {kind} {name}[{len(value.args)}] = {text};"]
        if chunk.rows > 1 and value.number in self._schedule.row_uses:
            return [f"const {kind} {name}_k = {text};", f"{name}[k] = {name}_k;"]
        statements = [f"const {kind} {name} = {text};"]
        if value.number in self._schedule.passed:
            slot = self._schedule.slots[value.number]
            statements.append(slot.store("0", name))
            block.written.add(slot.text)
        return statements

    def _is_inline(self, value: Value, number: int, text: str) -> bool:
        users = self._schedule.users[value.number]
        return (
            len(users) == 1
            and self._schedule.at[users[0].number] == number
            and users[0].op != "stack"
            and value.op != "stack"
            and value.number not in self._schedule.stored
            and value.number not in self._schedule.row_uses
            and len(text) <= _LONGEST_INLINE
        )

    def _name(self, value: Value) -> str:
        return self._names.get(value.number, f"v{value.number}")

    def _expression(self, value: Value, chunk: int, block: _Block) -> str:
        """The text that computes a value; what it reads from memory goes to the block's reads."""
        row = "k" if self._schedule.chunks[chunk].rows > 1 else None
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
        if op == "minimum" and (held := _held_below(value, texts)):
            return f"share({held})"
        if op.startswith("call "):
            _, name, *part = op.split()
            called = f"{name}_of({', '.join(texts)})"
            return f"{called}.word{part[0]}" if part else called
        return f"{_CALLS[op]}({', '.join(texts)})"

    def _reference(self, value: Value, row: str | None, chunk: int, block: _Block) -> str:
        base, row = resolve(value, row)
        if base.constant is not None:
            return self._numbers.text(base, row)
        if base.op == "input":
            return self._load_row(base, block) if row == "k" else self._load(base, row or "0", block)
        here, there = self._schedule.chunks[chunk], self._schedule.chunks[self._schedule.at[base.number]]
        if row is None:
            if base.number in self._schedule.slots and here.position != there.position:
                return self._take_over(base, here.position, block)
            return self._texts.get(base.number, self._name(base))
        if row == "k" and here is there and base.op != "stack":
            kept = f"{self._name(base)}_k" if base.number in self._schedule.row_uses else self._name(base)
            return self._texts.get(base.number, kept)
        return f"{self._name(base)}[{row}]"

    def _take_over(self, value: Value, position: int, block: _Block) -> str:
        """The variable of this stage that holds what another handed over."""
        key = value.number, f"stage {position}"
        if key not in self._loaded:
            name = self._loaded[key] = f"{self._name(value)}_s{position}"
            slot = self._schedule.slots[value.number]
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
    lines = Statements(Literals(numbers), letters, stores).lines()
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


def _loop(rows: int, body: Sequence[str]) -> list[str]:
    """Statements for each of so many rows."""
    unroll = "#pragma unroll" if rows <= UNROLLED_ROWS else "#pragma unroll 1"
    return [unroll, f"for (int k = 0; k < {rows}; ++k) {{", *(f"  {line}" for line in body), "}"]


def _row_inputs(chunk: Chunk) -> set[int]:
    """The inputs of which a loop reads a row each turn."""
    read = (
        resolve(a, "k")
        for value in chunk.values
        for a in reads_of(value)
        if chunk.rows > 1 and rows_of(a) > 1
    )
    return {base.number for base, row in read if base.op == "input" and row == "k"}


def _may_store(store: Store, chunk: Chunk) -> bool:
    """Whether nothing of the chunk still reads what the store replaces: rows are read more than once."""
    return store.replaces is None or (chunk.rows == 1 and rows_of(store.replaces) == 1)


def _held_below(value: Value, texts: Sequence[str]) -> str:
    """The text of x where a minimum is min(1, max(0, x)), and the maximum is written inside it; else ""."""
    for one, most, text in zip(value.args, value.args[::-1], texts[::-1], strict=True):
        if _is_number(one, 1.0) and most.op == "maximum" and text.startswith(f"{_CALLS['maximum']}("):
            inside = text.removeprefix(f"{_CALLS['maximum']}(").removesuffix(")")
            if _is_number(most.args[0], 0.0):
                return inside.removeprefix("0.0f, ")
            if _is_number(most.args[1], 0.0):
                return inside.removesuffix(", 0.0f")
    return ""


def _is_number(value: Value, number: float) -> bool:
    return value.constant is not None and value.constant.shape == () and value.constant == number


def _inner(text: str) -> str:
    """As an operand: in parentheses unless it is a name, a number, an element or a call."""
    depth = 0
    for character in text:
        depth += character in "(["
        depth -= character in ")]"
        if character == " " and depth == 0:
            return f"({text})"
    return f"({text})" if text.startswith("-") else text
