"""Who runs the units: this process, or worker processes behind a concurrent.futures seam.

A worker opens its own device once. A pool that breaks (a killed worker) is rebuilt, and the units that had
not come back are sent again; a unit that breaks it every time fails the run, naming itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event, Lock
from tempfile import TemporaryDirectory

from offtake.blocks import Unit
from offtake.errors import DeviceError, OfftakeError
from offtake.hal import backend_class, open_device
from offtake.hal.device import Device
from offtake.hal.host import cores
from offtake.study import DeviceChoice, ExecutorChoice
from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import Tally

Finished = tuple[Unit, Tally, Kept | None]

_ATTEMPTS = 3
_worker: tuple[Device, Plan] | None = None


def run_units(
    plan: Plan, units: Iterable[Unit], keep_paths: int, device: DeviceChoice, executor: ExecutorChoice
) -> Iterator[Finished]:
    """Each unit's tally as it is finished, in any order.

    Raises DeviceError for an executor that this version lacks, OfftakeError for a unit that keeps failing.
    """
    if executor.name != "local":
        raise DeviceError(
            f"executor={executor.name}: this version of offtake runs on one machine; use executor=local"
        )
    if executor.workers is None or executor.workers == 1:
        opened = open_device(device)
        for unit in units:
            yield _run(opened, plan, unit, keep_paths)
        return
    yield from _run_pooled(plan, list(units), keep_paths, device, executor.workers)


def _run(device: Device, plan: Plan, unit: Unit, keep_paths: int) -> Finished:
    keep = max(0, min(keep_paths - unit.first_path, unit.paths))
    tally, kept = device.run(plan, unit.first_path, unit.paths, keep)
    return unit, tally, kept


def _run_pooled(
    plan: Plan, units: list[Unit], keep_paths: int, device: DeviceChoice, workers: int
) -> Iterator[Finished]:
    # Workers share the cores.
    workers = max(1, min(workers, len(units)))
    threads = device.threads or max(1, cores() // workers)
    device = device.model_copy(update={"threads": threads})
    waiting = {unit.first_path: unit for unit in units}
    attempts = dict.fromkeys(waiting, 0)
    while waiting:
        # Spawned workers share nothing with a threaded or GPU-holding parent.
        context = multiprocessing.get_context("spawn")
        shared = TemporaryDirectory(prefix="offtake-", ignore_cleanup_errors=True)
        given = plan, device, shared.name, context.Lock(), context.Event()
        pool = ProcessPoolExecutor(min(workers, len(waiting)), context, _open_worker, given)
        try:
            pending = {pool.submit(_work, unit, keep_paths): unit for unit in waiting.values()}
            for finished in _as_finished(pending):
                del waiting[finished[0].first_path]
                yield finished
        except BrokenProcessPool:
            for first_path in waiting:
                attempts[first_path] += 1
            lost = [first_path for first_path in waiting if attempts[first_path] >= _ATTEMPTS]
            if lost:
                first = waiting[min(lost)]
                paths = f"paths {first.first_path} to {first.first_path + first.paths - 1}"
                raise OfftakeError(f"{paths}: the worker died {_ATTEMPTS} times") from None
        finally:
            _end(pool)
            shared.cleanup()


def _end(pool: ProcessPoolExecutor) -> None:
    """Stops workers at once. What they have not handed over would be lost anyway, and a pool that waits for
    them can hang when a second Ctrl-C breaks off its waiting.
    """
    # Python 3.14 has kill_workers() for this; shutdown() forgets the processes.
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)


def _as_finished(pending: dict[Future[Finished], Unit]) -> Iterator[Finished]:
    """Results as they come; every result that is there is delivered before a broken pool is reported."""
    waiting, broken = set(pending), None
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                broken = error
            elif error is not None:
                raise error
            else:
                yield future.result()
    if broken is not None:
        raise broken


def _open_worker(plan: Plan, device: DeviceChoice, shared: str, compiling: Lock, compiled: Event) -> None:
    """Opens the device. The first worker compiles, on cores that are idle yet; the others read its code.

    Ctrl-C is the parent's to handle, and a worker does not outlive it.
    """
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name, value in backend_class(device.name).worker_environment(shared).items():
        os.environ.setdefault(name, value)
    opened = open_device(device)
    with compiling:
        if not compiled.is_set():
            opened.prepare(plan)
            compiled.set()
    opened.prepare(plan)
    _worker = opened, plan


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(unit: Unit, keep_paths: int) -> Finished:
    assert _worker is not None
    return _run(*_worker, unit, keep_paths)
