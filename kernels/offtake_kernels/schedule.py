"""Which statements of a stage are computed together: chunks, in the order in which they run.

Values of as many rows that may share a loop are in one chunk. What only a much later stage reads is handed
over in memory, so that it holds no register until then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .graph import Value, reachable
from .places import Cell, Store

# A value read within so many stages stays in a register; one read later is handed over in memory.
_STAGES_KEPT = 3


class Chunk:
    """Statements that run one after another, once or for each of `rows` rows."""

    def __init__(self, stage: str, rows: int):
        self.stage, self.rows, self.position = stage, rows, 0
        self.values: list[Value] = []
        self.stores: list[Store] = []


class Schedule:
    """Chunks that compute and store what `stores` ask for.

    handed: text of the cells, with {} for a number, in which stages hand values to much later ones, "" when
    they do not; `cells` counts them. By a value's number: at, its chunk; users, what reads it; stored: those
    that a store writes; row_uses: those of which another loop, or a single row, needs an array; slots: the
    cell in which it is handed over; passed: those that are written there besides; last_read: the last chunk
    that reads an input.
    """

    def __init__(self, stores: Sequence[Store], handed: str = ""):
        assert not _crossed(stores), "a store would read what another has replaced"
        self.stored = {resolve(store.value, None)[0].number for store in stores}
        self._order = [v for v in reachable([s.value for s in stores]) if _is_computed(v)]
        self.chunks: list[Chunk] = []
        self.at: dict[int, int] = {}
        self.users: dict[int, list[Value]] = {v.number: [] for v in self._order}
        self.row_uses: set[int] = set()
        for value in self._order:
            self._place(value)
        self.last_read = self._last_reads()
        self.cells = 0
        self.passed: set[int] = set()
        own = {resolve(s.value, None)[0].number: s.cell for s in stores if _keeps(s, handed)}
        self.slots = self._hand_over(handed, own) if handed else {}
        for store in stores:
            self._place_store(store)

    def _place(self, value: Value) -> None:
        rows = 1 if value.op == "stack" else rows_of(value)
        earliest, read = 0, []
        for argument in reads_of(value):
            base, row = resolve(argument, None)
            if _is_computed(base):
                self.users[base.number].append(value)
                at = self.at[base.number]
                together = self.chunks[at].rows == rows and (row is None or rows == 1)
                earliest = max(earliest, at if together else at + 1)
                read.append(base)
        if not self.chunks or self.chunks[-1].stage != value.stage:
            # What needs no row comes first, so that loops which need it can be one.
            self.chunks.append(Chunk(value.stage, 1))
        chunks = enumerate(self.chunks[earliest:], earliest)
        fitting = (n for n, c in chunks if c.rows == rows and c.stage == value.stage)
        number = next(fitting, len(self.chunks))
        if number == len(self.chunks):
            self.chunks.append(Chunk(value.stage, rows))
        self.chunks[number].values.append(value)
        self.at[value.number] = number
        for base in read:
            if self.at[base.number] != number:
                self._array(base)

    def _last_reads(self) -> dict[int, int]:
        """The last chunk that reads each input."""
        last: dict[int, int] = {}
        for value in self._order:
            for argument in reads_of(value):
                base, _ = resolve(argument, None)
                if base.op == "input":
                    last[base.number] = max(last.get(base.number, 0), self.at[value.number])
        return last

    def _hand_over(self, handed: str, own: Mapping[int, Cell]) -> dict[int, Cell]:
        """A cell for each value that only a much later stage reads: it would hold a register until then. What
        is stored in a cell of its `own` is read from there.
        """
        stage, stages = "", []
        for chunk in self.chunks:
            if chunk.stage != stage:
                stage = chunk.stage
                stages.append(stage)
            chunk.position = len(stages)
        cells: dict[int, Cell] = {}
        free: list[int] = []
        ending: dict[int, list[int]] = {}
        for number, chunk in enumerate(self.chunks):
            free += ending.pop(number, [])
            for value in chunk.values:
                users = self.users[value.number]
                if chunk.rows > 1 or value.op == "stack" or value.kind not in ("float", "bool") or not users:
                    continue
                last = max(self.at[user.number] for user in users)
                if self.chunks[last].position - chunk.position <= _STAGES_KEPT:
                    continue
                if value.number in own:
                    cells[value.number] = own[value.number]
                    continue
                slot = free.pop() if free else self.cells
                self.cells = max(self.cells, slot + 1)
                ending.setdefault(last + 1, []).append(slot)
                cells[value.number] = Cell(handed.format(slot), 1, value.kind == "bool")
                self.passed.add(value.number)
        return cells

    def _place_store(self, store: Store) -> None:
        """Where the value is known, and what it replaces has been read."""
        base, _ = resolve(store.value, None)
        rows, earliest = store.cell.rows, self.at.get(base.number, 0)
        if store.replaces is not None and rows > 1:
            earliest = max(earliest, self.last_read.get(store.replaces.number, 0))
        later = (n for n in range(earliest, len(self.chunks)) if self.chunks[n].rows == rows)
        number = next(later, len(self.chunks))
        if number == len(self.chunks):
            self.chunks.append(Chunk(self.chunks[-1].stage if self.chunks else "", rows))
        if self.at.get(base.number, number) != number:
            self._array(base)
        self.chunks[number].stores.append(store)

    def _array(self, value: Value) -> None:
        if rows_of(value) > 1:
            self.row_uses.add(value.number)


def rows_of(value: Value) -> int:
    """Deals, factors or streams of a value: the length of its first axis, where it has two."""
    assert len(value.shape) <= 2, value.shape
    return value.shape[0] if len(value.shape) == 2 else 1


def _keeps(store: Store, handed: str) -> bool:
    """Whether a store leaves its value, of one row, where a later stage of the same turn finds it."""
    is_memory = bool(handed) and store.cell.text.startswith(handed.partition("{")[0])
    return is_memory and store.cell.rows == 1 and not store.condition


def _crossed(stores: Sequence[Store]) -> bool:
    """Whether a store passes on an input that another replaces."""
    replaced = {store.replaces.number for store in stores if store.replaces is not None}
    return any(resolve(store.value, None)[0].number in replaced for store in stores)


def _is_computed(value: Value) -> bool:
    single = value.op == "stack" and len(value.args) == 1
    return value.constant is None and value.op not in ("input", "row") and not single


def reads_of(value: Value) -> list[Value]:
    """The values that a statement reads and that are not known."""
    return [a for a in value.args if isinstance(a, Value) and a.constant is None]


def resolve(value: Value, row: str | None) -> tuple[Value, str | None]:
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
