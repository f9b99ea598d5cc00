"""The CUDA backend on one GPU: launches of a printed kernel, and the exact tally of what they record.

A launch writes its rows to device memory; a second kernel sums them by bin into a table that stays on the
device, with integers only. Two launches fly at a time, each on a stream of its own: one computes while the
other's sums are taken and its kept paths copied. The table leaves the device when it is half full, and at the
end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from .bins import BIN_BITS
from .kept import Kept
from .kernel import Kernel
from .layout import NONE, Plan
from .tally import RowSums, TallyBuilder
from .walk import COMPARE

# Threads of a block of paths: as many as may have every register of a multiprocessor; where a path's frame is
# large, few enough that most of it lies in shared memory (measured: bench/NOTES.md).
_THREADS = 256
_THREADS_OF_FRAMES = {"strict": 192, "fast": 128}
# The tally's blocks; see cuda/tally.cuh.
_TALLY_THREADS, _TALLY_BYTES, CHUNK = 1024, 4 * 4 * 4096, (1 << 17) - 256
_OTHER_THREADS = 256
SMALLEST_LAUNCH = 256
_FLYING = 2
# Slots of the table of bins: for each row at least so many, in no more than a part of the memory.
_SLOTS_A_ROW = 8_192
_WORDS_A_SLOT = 4
_WORDS_OF_MARKS = 1 << (BIN_BITS - 5)
_TABLE_SHARE = 8
# At least so many, whatever the memory: the bins of the smallest launch always find a slot.
_SMALLEST_TABLE = 4 * SMALLEST_LAUNCH
# Share of the free memory that the rows of all flying launches may take.
_ROWS_SHARE = 0.6
_MOST_PATHS = 1 << 18
# A kernel numbers what a quarter records in 32 bits.
_LARGEST_LAUNCH = 1 << 22
_COUNTING_BLOCKS = 64
_COLLECTING_BLOCKS = 1024
_NO_PATH = np.uint64(0xFFFFFFFFFFFFFFFF)
_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_KERNELS = (
    "offtake_paths",
    "offtake_tally",
    "offtake_count",
    "offtake_mark",
    "offtake_rank",
    "offtake_collect",
)
# In the order in which cuda/tally.cuh numbers them: < <= > >=.
_OPERATORS, _COMPARISONS = tuple(COMPARE), tuple(COMPARE.values())


def threads_of(kernel: Kernel, *, strict: bool) -> int:
    """Threads of a block of paths."""
    return _THREADS_OF_FRAMES["strict" if strict else "fast"] if kernel.frame else _THREADS


class Gpu:
    """A kernel loaded on a GPU, with the memory of its launches.

    cupy: the library, imported; cubin: the kernel compiled for blocks of `threads` that may have `shared`
    bytes of shared memory. Raises MemoryError when not even the smallest launch fits; errors of the device
    are CuPy's.
    """

    def __init__(
        self,
        cupy: Any,
        kernel: Kernel,
        cubin: bytes,
        number: int,
        launch_paths: int | None,
        *,
        shared: int,
        threads: int,
    ):
        self._cupy, self._kernel, self._number = cupy, kernel, number
        self._threads = {"offtake_paths": threads, "offtake_tally": _TALLY_THREADS}
        with self._device():
            self._module = cupy.cuda.function.Module()
            self._module.load(cubin)
            self._functions = {name: self._module.get_function(name) for name in _KERNELS}
            self._shared = {
                "offtake_paths": kernel.near(shared, threads),
                "offtake_tally": _TALLY_BYTES,
                "offtake_rank": 4 * _OTHER_THREADS,
            }
            for name, size in self._shared.items():
                cupy.cuda.driver.funcSetAttribute(self._functions[name].ptr, _DYNAMIC_SHARED, size)
            self._numbers = self._set_numbers()
            self._load_kernel()
            self._table = _Table(cupy, kernel.rows, self._free() // _TABLE_SHARE)
            self._set_constant("tally", self._table.constant())
            self._rules, self._levels, self._hits = self._thresholds()
            self._slots = self._allocate(launch_paths)
            self._settle()

    @property
    def launch_paths(self) -> int:
        """Paths of a launch."""
        return self._slots[0].paths

    def run(self, first_path: int, paths: int, keep: int, builder: TallyBuilder) -> list[Kept]:
        """Tallies paths first_path … first_path + paths - 1; returns the first `keep` of them whole.

        When memory is short, launches become smaller; when bins overflow the table, it is collected after
        each launch, and a launch that fills it alone is halved. What was summed since the last collection is
        then done again.

        Raises MemoryError when the smallest launch is too large.
        """
        todo = deque(_cut(first_path, paths, self.launch_paths))
        flying: deque[_Slot] = deque()
        summed: list[tuple[int, int]] = []
        kept: dict[int, Kept] = {}
        cautious = False

        def land(slots: int) -> None:
            for slot in [flying.popleft() for _ in range(slots)]:
                slot.stream.synchronize()
                summed.append((slot.first_path, slot.lanes))
                kept.update(self._keep(slot, first_path, keep))

        with self._device():
            self._forget()
            while todo or flying:
                short = False
                if todo and len(flying) < (1 if cautious else len(self._slots)):
                    flying.append(next(slot for slot in self._slots if slot not in flying))
                    short = not self._start(flying[-1], *todo.popleft())
                    if not short:
                        continue
                else:
                    land(1)
                used, lost = self._table.counters.get().tolist()
                if not (short or lost or cautious or 2 * used >= self._table.slots):
                    continue
                land(len(flying))
                if short or self._table.counters.get()[1]:
                    size = self._smaller() if short else _size_of_another_try(summed)
                    again = [*summed, *todo]
                    todo = deque(part for launch in again for part in _cut(*launch, size))
                    self._forget()
                    cautious = True
                else:
                    self._collect(builder)
                summed.clear()
            self._collect(builder)
            self._add_known(builder, first_path, paths)
        return list(kept.values())

    def _forget(self) -> None:
        """Empties table and counters."""
        self._settle()
        self._table.clear()
        _fill(self._hits, 0)
        self._settle()

    def _smaller(self) -> int:
        """Slots of half the size; returns the paths of a launch. Raises MemoryError when there are none."""
        paths = self.launch_paths // 2
        if paths < SMALLEST_LAUNCH:
            raise MemoryError(f"not even a launch of {self.launch_paths} paths finds memory")
        self._slots = []
        self._slots = self._allocate(paths)
        return self.launch_paths

    # Setting up.

    @contextmanager
    def _device(self) -> Iterator[None]:
        with self._cupy.cuda.Device(self._number):
            yield

    def _settle(self) -> None:
        """Waits for the device: launches have streams of their own, which wait for no other."""
        self._cupy.cuda.Device().synchronize()

    def _load_kernel(self) -> None:
        """Runs no path, so that the kernel's local memory is reserved before the rest is shared out."""
        nothing = self._numbers[0]
        given = np.uint64(0), np.uint32(0), nothing, nothing
        self._call("offtake_paths", (1, 1, 1), given)
        self._settle()

    def _free(self) -> int:
        self._cupy.get_default_memory_pool().free_all_blocks()
        return int(self._cupy.cuda.runtime.memGetInfo()[0])

    def _set_constant(self, name: str, array: np.ndarray) -> None:
        runtime = self._cupy.cuda.runtime
        array = np.ascontiguousarray(array)
        pointer = int(self._module.get_global_var(name))
        runtime.memcpy(pointer, array.ctypes.data, array.nbytes, runtime.memcpyHostToDevice)

    def _set_numbers(self) -> list[Any]:
        """Fills constant memory; returns the arrays that must live as long as the module."""
        for name in ("c", "ci", "cw"):
            self._set_constant(name, self._kernel.arrays[name])
        arrays = [self._cupy.asarray(table) for table in self._kernel.tables]
        for number, array in enumerate(arrays):
            self._set_constant(f"table{number}", np.array([array.data.ptr], np.uint64))
        return [self._cupy.asarray(self._kernel.arrays["quarter_numbers"]), *arrays]

    def _thresholds(self) -> tuple[Any, Any, Any]:
        """Rules of those rows that paths differ in, for `offtake_count`, and their counters."""
        rules = [(row, *rule) for _, row, *rule in _rules(self._kernel) if isinstance(row, int)]
        numbers = np.array([(row, op, nullable) for row, op, _, nullable in rules], np.int32).reshape(-1, 3)
        levels = np.array([level for _, _, level, _ in rules], np.float32)
        return (
            self._cupy.asarray(numbers),
            self._cupy.asarray(levels),
            self._cupy.zeros(len(rules), np.uint64),
        )

    def _allocate(self, wanted: int | None) -> list[_Slot]:
        """As many paths a launch as asked for, or as suit the memory; halved while memory is short."""
        rows = self._kernel.rows
        fits = min(int(self._free() * _ROWS_SHARE) // (4 * rows * _FLYING), _MOST_PATHS)
        paths = min(wanted or 0, _LARGEST_LAUNCH) or max(
            SMALLEST_LAUNCH, fits // self._resident() * self._resident()
        )
        while True:
            try:
                return [_Slot(self._cupy, rows, paths) for _ in range(_FLYING)]
            except self._cupy.cuda.memory.OutOfMemoryError:
                if paths <= SMALLEST_LAUNCH:
                    message = f"{SMALLEST_LAUNCH} paths need {4 * rows * SMALLEST_LAUNCH * _FLYING:,} bytes"
                    raise MemoryError(f"{message}, and the GPU has fewer") from None
                paths = max(SMALLEST_LAUNCH, paths // 2)

    def _resident(self) -> int:
        """Paths that the whole GPU runs at once: a launch of a multiple leaves no processor idle."""
        driver, runtime = self._cupy.cuda.driver, self._cupy.cuda.runtime
        function = self._functions["offtake_paths"]
        threads, shared = self._threads["offtake_paths"], self._shared["offtake_paths"]
        blocks = driver.occupancyMaxActiveBlocksPerMultiprocessor(function.ptr, threads, shared)
        processors = runtime.getDeviceProperties(self._number)["multiProcessorCount"]
        return max(1, blocks) * processors * threads

    # Launching.

    def _start(self, slot: _Slot, first_path: int, lanes: int) -> bool:
        """Launches paths and their tally; False when the device has no memory for that."""
        assert lanes <= slot.paths, (lanes, slot.paths)
        slot.first_path, slot.lanes = first_path, lanes
        try:
            with slot.stream, self._range("offtake launch"):
                self._launch(slot)
        except self._cupy.cuda.memory.OutOfMemoryError:
            return False
        except self._cupy.cuda.driver.CUDADriverError as error:
            if "OUT_OF_MEMORY" not in str(error):
                raise
            return False
        return True

    def _launch(self, slot: _Slot) -> None:
        first, lanes, rules = np.uint64(slot.first_path), np.uint32(slot.lanes), self._hits.size
        blocks = -(-slot.lanes // self._threads["offtake_paths"])
        work = [
            ("offtake_paths", (blocks, 1, 1), (first, lanes, self._numbers[0], slot.rows)),
            (
                "offtake_tally",
                (self._kernel.rows, -(-slot.lanes // CHUNK), 1),
                (slot.rows, lanes, first),
            ),
        ]
        if rules:
            given = slot.rows, lanes, self._rules, self._levels, self._hits
            work.append(("offtake_count", (rules, min(blocks, _COUNTING_BLOCKS), 1), given))
        for name, grid, arguments in work:
            self._call(name, grid, arguments, slot.stream)

    def _call(self, name: str, grid: tuple[int, int, int], arguments: tuple, stream: Any = None) -> None:
        threads, shared = self._threads.get(name, _OTHER_THREADS), self._shared.get(name, 0)
        self._functions[name](grid, (threads, 1, 1), arguments, shared, stream)

    @contextmanager
    def _range(self, name: str) -> Iterator[None]:
        """A named range for profilers."""
        nvtx = self._cupy.cuda.nvtx
        if not nvtx.available:
            yield
            return
        nvtx.RangePush(name)
        try:
            yield
        finally:
            nvtx.RangePop()

    def _keep(self, slot: _Slot, first_path: int, keep: int) -> dict[int, Kept]:
        """The paths of a launch that are kept whole, by its first path."""
        wanted = min(first_path + keep - slot.first_path, slot.lanes)
        if wanted <= 0:
            return {}
        kernel, plan = self._kernel, self._kernel.plan

        def column(row: int | np.float32) -> np.ndarray:
            if not isinstance(row, int):
                return np.full(wanted, row + np.float32(0))
            begin = row * slot.lanes
            return slot.rows[begin : begin + wanted].get() + np.float32(0)

        quarters = {
            s.metric: np.stack([column(_row(kernel, n, t)) for t in range(plan.quarters)], axis=1)
            for n, s in enumerate(plan.quarter_series)
            if s.is_kept
        }
        finals = {plan.kept_name(s): column(_final(kernel, n)) for n, s in enumerate(plan.path_series)}
        path = np.uint64(slot.first_path) + np.arange(wanted, dtype=np.uint64)
        return {slot.first_path: Kept(path, quarters, finals, plan.nullable_names)}

    # Tallying.

    def _collect(self, builder: TallyBuilder) -> None:
        """Moves what the device has summed into the builder."""
        with self._range("offtake collect"):
            self._settle()
            found = self._table.collect(self._call)
        rows = _tally_rows(self._kernel)
        for row, sums in found:
            builder.add_sums(rows[row], sums)
        hits = iter(self._hits.get().tolist())
        for counter, row, *_ in _rules(self._kernel):
            if isinstance(row, int):
                builder.add_threshold(counter, next(hits))
        _fill(self._hits, 0)
        self._settle()

    def _add_known(self, builder: TallyBuilder, first_path: int, paths: int) -> None:
        """Rows in which all paths have one value, known before any of them ran."""
        for row, known in _known_rows(self._kernel):
            builder.add_constant(row, known, first_path, paths)
        for counter, known, op, level, nullable in _rules(self._kernel):
            if not isinstance(known, int):
                held = bool(_COMPARISONS[op](known, np.float32(level))) and not (
                    nullable and known == np.float32(NONE)
                )
                builder.add_threshold(counter, paths * held)


class _Slot:
    """A launch in flight: its stream, and its rows end to end, `lanes` values each."""

    def __init__(self, cupy: Any, rows: int, paths: int):
        self.paths = paths
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.rows = cupy.empty(rows * paths, np.float32)
        self.first_path = self.lanes = 0


class _Table:
    """The device's table of bins, and what each row has besides; see cuda/tally.cuh."""

    def __init__(self, cupy: Any, rows: int, most_bytes: int):
        # As much again is where the table is put in order.
        wanted = min(rows * _SLOTS_A_ROW, most_bytes // (2 * 8 * _WORDS_A_SLOT))
        self.slots = 1 << max(wanted, _SMALLEST_TABLE * rows, 1024).bit_length()
        self._rows = rows
        self._table = cupy.empty(_WORDS_A_SLOT * self.slots, np.uint64)
        self._sums = cupy.empty(_WORDS_A_SLOT * self.slots, np.uint64)
        self.counters = cupy.zeros(2, np.uint32)
        self._extremes = cupy.empty(3 * rows, np.uint32)
        self._nonfinite = cupy.empty(2 * rows, np.uint64)
        self._marks = cupy.empty(_WORDS_OF_MARKS * rows, np.uint32)
        self._before = cupy.empty(_WORDS_OF_MARKS * rows, np.uint32)
        self._sizes, self._begins = cupy.empty(rows, np.uint32), cupy.empty(rows, np.uint32)
        self.clear()

    def constant(self) -> np.ndarray:
        """The `tally` of the kernels: pointers, and the mask of a slot's number."""
        arrays = (self._table, self.counters, self._extremes, self._nonfinite)
        return np.array([*(array.data.ptr for array in arrays), self.slots - 1], np.uint64)

    def clear(self) -> None:
        """Empty, ready for sums once the device has settled."""
        _fill(self._table, 0)
        self._reset()

    def _reset(self) -> None:
        _fill(self.counters, 0)
        self._extremes.set(np.tile(np.array([0xFFFFFFFF, 0, 0xFFFFFFFF], np.uint32), self._rows))
        self._nonfinite.set(np.tile(np.array([0, _NO_PATH], np.uint64), self._rows))

    def collect(self, call: Callable[..., None]) -> list[tuple[int, RowSums]]:
        """Sums by row of the device's rows, and the table empty again; nothing may be in flight. call:
        launches the kernel of a name with a grid and arguments.
        """
        used, every = int(self.counters.get()[0]), (_COLLECTING_BLOCKS, 1, 1)
        _fill(self._marks, 0)
        call("offtake_mark", every, (self._marks,))
        call("offtake_rank", (self._rows, 1, 1), (self._marks, self._before, self._sizes))
        cuts = np.concatenate([[0], np.cumsum(self._sizes.get(), dtype=np.int64)])
        assert cuts[-1] == used, (cuts[-1], used)
        self._begins.set(cuts[:-1].astype(np.uint32))
        given = self._marks, self._before, self._begins, np.uint32(used), self._sums
        call("offtake_collect", every, given)
        columns = self._sums[: _WORDS_A_SLOT * used].get().view(np.int64).reshape(_WORDS_A_SLOT, used)
        extremes = _floats(self._extremes.get()).reshape(-1, 3)
        nonfinite = self._nonfinite.get().reshape(-1, 2).tolist()
        self._reset()
        return [
            (row, RowSums(*columns[:, begin:end], *extremes[row], *nonfinite[row]))
            for row, (begin, end) in enumerate(pairwise(cuts.tolist()))
            if end > begin
        ]


def _fill(array: Any, byte: int) -> None:
    """Sets every byte of a device's array; CuPy's own fill would compile a kernel."""
    array.data.memset(byte, array.nbytes)


def _cut(first_path: int, paths: int, size: int) -> list[tuple[int, int]]:
    return [(first_path + at, min(size, paths - at)) for at in range(0, paths, size)]


def _size_of_another_try(launches: list[tuple[int, int]]) -> int:
    """Paths of a launch after bins overflowed: one launch alone is halved.

    Raises MemoryError when that is the smallest, whose bins should fit.
    """
    largest = max(lanes for _, lanes in launches)
    if len(launches) > 1:
        return largest
    if largest <= SMALLEST_LAUNCH:
        raise MemoryError("the bins of the smallest launch overflow the GPU's table")
    return max(SMALLEST_LAUNCH, largest // 2)


def _floats(patterns: np.ndarray) -> np.ndarray:
    """float32 of `ordered` patterns; those of no value become +inf and -inf."""
    bits = np.where(patterns >> 31, patterns & np.uint32(0x7FFFFFFF), ~patterns).astype(np.uint32)
    values = bits.view(np.float32).copy()
    values[patterns == 0xFFFFFFFF] = np.inf
    values[patterns == 0] = -np.inf
    return values


def _row(kernel: Kernel, series: int, t: int) -> int | np.float32:
    """The device's row of a quarterly series, or its one value."""
    place = kernel.places[series]
    return t * kernel.recorded + place if isinstance(place, int) else place


def _final(kernel: Kernel, series: int) -> int | np.float32:
    place = kernel.finals[series]
    return kernel.recorded * kernel.plan.quarters + place if isinstance(place, int) else place


def _every_row(kernel: Kernel) -> Iterator[tuple[int, int | np.float32]]:
    """Each row of the tally, and the device's row or the value that it is."""
    plan = kernel.plan
    for series in range(len(plan.quarter_series)):
        for t in range(plan.quarters):
            yield series * plan.quarters + t, _row(kernel, series, t)
    base = len(plan.quarter_series) * plan.quarters
    for series in range(len(plan.path_series)):
        yield base + series, _final(kernel, series)


def _tally_rows(kernel: Kernel) -> list[list[int]]:
    """The rows of the tally that each of the device's rows is."""
    rows: list[list[int]] = [[] for _ in range(kernel.rows)]
    for row, found in _every_row(kernel):
        if isinstance(found, int):
            rows[found].append(row)
    return rows


def _known_rows(kernel: Kernel) -> Iterator[tuple[int, np.float32]]:
    for row, found in _every_row(kernel):
        if not isinstance(found, int):
            yield row, found


def _rules(kernel: Kernel) -> Iterator[tuple[int, int | np.float32, int, float, bool]]:
    """(counter, the device's row or one value, operator, level, whether -1 is no value) of each threshold."""
    plan: Plan = kernel.plan
    counter = 0
    for threshold in plan.thresholds:
        series = (plan.path_series if threshold.per_path else plan.quarter_series)[threshold.series]
        for t in range(1 if threshold.per_path else plan.quarters):
            number = threshold.series
            row = _final(kernel, number) if threshold.per_path else _row(kernel, number, t)
            yield counter, row, _OPERATORS.index(threshold.op), threshold.level, series.nullable
            counter += 1
