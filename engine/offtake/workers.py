"""Worker processes: units go to them and tallies come back, each worker by a pipe of its own.

A worker that dies is known by the end of its pipe, also in the middle of a tally that it was sending. The
unit it held goes to a new worker; one that kills three fails the run, naming itself.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from offtake.blocks import Unit
from offtake.errors import OfftakeError
from offtake.hal import backend_class, open_device
from offtake.hal.device import Device
from offtake.study import DeviceChoice
from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import Tally

Finished = tuple[Unit, Tally, Kept | None]

_ATTEMPTS = 3
# Tallies that may wait to be merged; further ones stay with the workers that made them.
_WAITING = 2


def run_unit(device: Device, plan: Plan, unit: Unit, keep_paths: int) -> Finished:
    """The unit's tally, and whole those of its paths that are among the study's first `keep_paths`."""
    tally, kept = device.run(plan, unit.first_path, unit.paths, kept_of(unit, keep_paths))
    return unit, tally, kept


def kept_of(unit: Unit, keep_paths: int) -> int:
    """How many of a unit's paths are among the study's first `keep_paths`."""
    return max(0, min(keep_paths - unit.first_path, unit.paths))


class Workers:
    """Workers of one plan and device, each with a thread that hands it units; on leaving, all are killed."""

    def __init__(self, plan: Plan, device: DeviceChoice, keep_paths: int) -> None:
        self._shared = TemporaryDirectory(prefix="offtake-", ignore_cleanup_errors=True)
        self._given = plan, device, keep_paths, self._shared.name
        self._running: set[_Worker] = set()
        self._changing = threading.Lock()
        self._stopped = False
        self._compiling = threading.Lock()
        self._compiled = False
        self._room = threading.Semaphore(_WAITING)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changing:
            self._stopped = True
            for worker in self._running:
                worker.kill()
            for worker in self._running:
                worker.wait()
            self._room.release(len(self._running) + 1)
        self._shared.cleanup()

    def run(self, units: list[Unit], workers: int) -> Iterator[Finished]:
        """Each unit's tally as it is finished.

        Raises what a worker raised, OfftakeError for a unit whose workers die.
        """
        waiting, results = deque(units), SimpleQueue[Finished | Exception]()
        for _ in range(workers):
            threading.Thread(target=self._serve, args=(waiting, results), daemon=True).start()
        for _ in units:
            finished = results.get()
            if isinstance(finished, Exception):
                raise finished
            yield finished
            del finished
            self._room.release()

    def _serve(self, waiting: deque[Unit], results: SimpleQueue[Finished | Exception]) -> None:
        """Keeps one worker at work until nothing is waiting."""
        # Processes started from here inherit it: Ctrl-C is the parent's to handle.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        worker = None
        try:
            for unit in _taken(waiting):
                worker = self._hand_out(unit, worker, results)
        except _StoppedError:
            pass
        except Exception as error:
            results.put(error)

    def _hand_out(
        self, unit: Unit, worker: _Worker | None, results: SimpleQueue[Finished | Exception]
    ) -> _Worker:
        """Has a unit done by this worker, or by a new one when it dies; returns the one that did it."""
        death = None
        for _ in range(_ATTEMPTS):
            try:
                worker = worker or self._start()
                worker.send(unit)
                results.put(self._received(worker))
                return worker
            except _DiedError as error:
                worker, death = None, error
        paths = f"paths {unit.first_path} to {unit.first_path + unit.paths - 1}"
        raise OfftakeError(f"{paths}: the worker died {_ATTEMPTS} times, {death}")

    def _received(self, worker: _Worker) -> Finished:
        """A worker's tally, once there is room for it."""
        worker.wait_for_answer()
        self._room.acquire()
        try:
            return worker.receive()
        except Exception:
            self._room.release()
            raise

    def _start(self) -> _Worker:
        """A worker that has compiled. The first one does so on cores that are idle yet; the others read its
        code.
        """
        with self._changing:
            if self._stopped:
                raise _StoppedError
            worker = _Worker(*self._given)
            self._running.add(worker)
        with self._compiling:
            if not self._compiled:
                worker.send(None)
                worker.receive()
                self._compiled = True
        return worker


def _taken(waiting: deque[Unit]) -> Iterator[Unit]:
    """Units as long as there are any; other threads take from them too."""
    with suppress(IndexError):
        while True:
            yield waiting.popleft()


class _DiedError(Exception):
    """A worker ended before it answered."""


class _StoppedError(Exception):
    """No workers are wanted any more."""


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, plan: Plan, device: DeviceChoice, keep_paths: int, shared: str) -> None:
        # Spawned workers share nothing with a threaded or GPU-holding parent.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        given = theirs, plan, device, keep_paths, shared
        self._process = context.Process(target=_work, args=given, daemon=True)
        self._process.start()
        # The pipe ends with the worker once nobody else holds that end.
        theirs.close()

    def send(self, unit: Unit | None) -> None:
        """Asks for a unit's tally; None is for compiling, without running anything."""
        with self._alive():
            self._pipe.send(unit)

    def wait_for_answer(self) -> None:
        """Until it begins to answer, or has ended."""
        with self._alive():
            self._pipe.poll(None)

    def receive(self) -> Any:
        """Its answer. Raises what it raised."""
        with self._alive():
            answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Raises _DiedError where the pipe has ended."""
        try:
            yield
        except (EOFError, OSError):
            raise _DiedError(f"exit code {self.wait()}") from None

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int | None:
        """Its exit code, once it has ended."""
        self._process.join()
        return self._process.exitcode


def _work(pipe: Connection, plan: Plan, device: DeviceChoice, keep_paths: int, shared: str) -> None:
    """A worker's life: opens its device and answers until its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(shared,), daemon=True).start()
    for name, value in backend_class(device.name).worker_environment(shared).items():
        os.environ.setdefault(name, value)
    opened: Device | None = None
    with suppress(EOFError, OSError):
        while True:
            unit = pipe.recv()
            try:
                opened = opened or open_device(device)
                answer = opened.prepare(plan) if unit is None else run_unit(opened, plan, unit, keep_paths)
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = error
            pipe.send(answer)


def _end_with_parent(shared: str) -> None:
    """A parent that is killed cannot remove the folder that its workers share."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(shared, ignore_errors=True)
    os._exit(1)
