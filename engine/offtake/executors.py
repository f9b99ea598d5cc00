"""Who runs the units: this process, or worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence

from offtake.blocks import Unit
from offtake.errors import DeviceError, OfftakeError
from offtake.hal import open_device
from offtake.study import DeviceChoice, ExecutorChoice
from offtake.workers import Finished, Workers, kept_of, run_unit
from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import Tally, TallyBuilder

# A finished unit, its tally where it has one of its own, and its paths kept whole.
Added = tuple[Unit, Tally | None, Kept | None]


def run_units(
    plan: Plan,
    units: Sequence[Unit],
    keep_paths: int,
    device: DeviceChoice,
    executor: ExecutorChoice,
    *,
    into: TallyBuilder | None = None,
    apart: int = 0,
) -> Iterator[Added]:
    """Each unit as it is finished, in any order, with its tally. Where this process runs them and `into` is
    given, all but the first `apart` units have none: they are in `into`.

    Raises DeviceError for an executor that this version lacks, OfftakeError for a unit that keeps failing.
    """
    if executor.name != "local":
        raise DeviceError(
            f"executor={executor.name}: this version of offtake runs on one machine; use executor=local"
        )
    if executor.workers is None or executor.workers == 1:
        opened = open_device(device)
        for number, unit in enumerate(units):
            if into is None or number < apart:
                yield run_unit(opened, plan, unit, keep_paths)
            else:
                keep = kept_of(unit, keep_paths)
                yield unit, None, opened.add(plan, unit.first_path, unit.paths, keep, into)
        return
    yield from _run_pooled(plan, list(units), keep_paths, device, executor.workers)


def _run_pooled(
    plan: Plan, units: list[Unit], keep_paths: int, device: DeviceChoice, workers: int
) -> Iterator[Finished]:
    if multiprocessing.current_process().daemon:
        message = "a daemonic process, such as one of a multiprocessing.Pool, cannot start worker processes"
        raise OfftakeError(f"{message}; executor.workers=1 computes in this one")
    with Workers(plan, device, keep_paths) as crew:
        yield from crew.run(units, max(1, min(workers, len(units))))
