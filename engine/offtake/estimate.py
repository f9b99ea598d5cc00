"""What a study needs before it is run: time, memory, worker processes."""

from __future__ import annotations

from typing import Any

from offtake.blocks import BLOCK_PATHS, cut
from offtake.compile import Compiled, compile_study
from offtake.errors import InputError, Mistake
from offtake.hal import backend_class, open_device, settle
from offtake.hal.host import cores, memory_gib
from offtake.study import DeviceChoice, Study
from offtake_kernels.layout import Plan

# Measured on one core of a server: cost of recording a value, of a group of deals and of a factor, in
# seconds.
_SECONDS_PER_RECORDED = 8.0e-9
_SECONDS_PER_GROUP = 150.0e-9
_SECONDS_PER_DRAW = 30.0e-9
# Of memory: bins of a row in a unit and in all of them; bytes of one in a unit's tally and its builder, and
# in the merged tally; numbers of a path for a deal and for a factor; quarters that are tallied at a time.
_UNIT_BINS, _MERGED_BINS = 1_200, 1_900
_UNIT_BIN_BYTES, _MERGED_BIN_BYTES = 64, 35
_DEAL_ARRAYS, _FACTOR_ARRAYS, _RECORDED_QUARTERS = 20, 4, 4
# Bytes of a number of a path that is kept whole: in its units, joined, and on the way to its file.
_KEPT_BYTES = 14
_LONGEST_SECONDS = 24 * 3600.0


def estimate(study: Study, workers: int = 1) -> dict[str, Any]:
    """Blocks, rows, memory of all processes (GiB) and time (seconds) of a study, from what was measured, on
    as many as `workers` processes where it names no number.
    """
    compiled = compile_study(study)
    plan = compiled.plan
    study = settled(study, study.device, compiled, workers)
    paths = _most_paths(study)
    launch = min(open_device(study.device).launch_paths(plan), paths)
    values = len(plan.quarter_series) * plan.quarters + len(plan.path_series)
    return {
        "paths": paths,
        "blocks": -(-paths // BLOCK_PATHS),
        "block_paths": min(BLOCK_PATHS, paths),
        "units": _units(study),
        "workers": _processes(study),
        "launch_paths": launch,
        "recorded_values": values,
        "memory_gib": round(_memory_gib(study, plan, launch), 2),
        "seconds": round(_seconds(study, compiled, paths), 1),
    }


def _most_paths(study: Study) -> int:
    return study.study.until.max_paths if study.study.until else study.study.paths


def _units(study: Study) -> int:
    return len(list(cut(0, _most_paths(study), backend_class(study.device.name).most_units)))


def _processes(study: Study) -> int:
    """Workers that have something to do."""
    return min(study.executor.workers or 1, _units(study))


def settled(study: Study, choice: DeviceChoice, compiled: Compiled, workers: int) -> Study:
    """The study with a device that is no longer `auto`, and a number of workers: its own, or as many of
    `workers` as it is worth.
    """
    seconds = _numpy_seconds(compiled, study.study.paths)
    choice = settle(choice, seconds / (study.executor.workers or workers))
    executor = study.executor
    if executor.workers is None:
        worth = seconds / open_device(choice).seconds_a_worker
        executor = executor.model_copy(update={"workers": max(1, min(workers, int(worth)))})
    return study.model_copy(update={"device": choice, "executor": executor})


def _numpy_seconds(compiled: Compiled, paths: int) -> float:
    """What numpy would need on one core."""
    plan = compiled.plan
    recorded = len(plan.quarter_series) * _SECONDS_PER_RECORDED
    stages = len(plan.groups) * _SECONDS_PER_GROUP + len(plan.series_crc) * _SECONDS_PER_DRAW
    return paths * plan.quarters * (recorded + stages)


def _memory_gib(study: Study, plan: Plan, launch: int) -> float:
    """Memory of the host at the peak: of a process that runs units, or of workers and the one they report to.

    On a GPU, a launch's arrays are in its own memory besides.
    """
    arrays = _DEAL_ARRAYS * len(plan.deal_names) + _FACTOR_ARRAYS * len(plan.world.names)
    arrays += _RECORDED_QUARTERS * len(plan.quarter_series)
    unit = plan.rows * min(launch, _UNIT_BINS) * _UNIT_BIN_BYTES
    merged = plan.rows * min(launch, _MERGED_BINS) * _MERGED_BIN_BYTES
    whole = sum(series.is_kept for series in plan.quarter_series) * plan.quarters + len(plan.path_series)
    kept = min(study.study.keep_paths, _most_paths(study)) * whole * _KEPT_BYTES
    backend, processes = backend_class(study.device.name), _processes(study)
    a_worker = backend.process_gib + (4 * launch * arrays + unit) / 2**30
    parent = backend_class("numpy").process_gib + unit / 2**30 if processes > 1 else 0.0
    return parent + processes * a_worker + (merged + kept) / 2**30


def _seconds(study: Study, compiled: Compiled, paths: int) -> float:
    """What a settled study's device needs with its workers, of which cores run at a time."""
    at_a_time = min(_processes(study), cores())
    return _numpy_seconds(compiled, paths) / (backend_class(study.device.name).numpy_cores * at_a_time)


def refuse_unreasonable(study: Study, compiled: Compiled) -> None:
    """Raises InputError for a study of more than a day, or of more memory than there is."""
    mistakes, hint = [], "force=true runs it all the same"
    seconds = _seconds(study, compiled, study.study.paths)
    if seconds > _LONGEST_SECONDS:
        message = f"about {seconds / 3600:,.0f} hours for {study.study.paths:,} paths"
        mistakes.append(Mistake("study", "study.paths", message, hint))
    # The device's own launch is not asked for: on a GPU that takes a kernel.
    launch = min(BLOCK_PATHS, _most_paths(study))
    needed, there = _memory_gib(study, compiled.plan, launch), memory_gib()
    if needed > there:
        key = "study.keep_paths" if study.study.keep_paths > BLOCK_PATHS else "executor.workers"
        message = f"about {needed:,.0f} GiB of memory, and this machine has {there:,.0f}"
        mistakes.append(Mistake("study", key, message, hint))
    if mistakes:
        raise InputError(mistakes)
