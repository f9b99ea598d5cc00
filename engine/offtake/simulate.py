"""A study, run: compile → units of blocks → device → exact merge → Result.

result = run(study, device="numpy", out="runs/openai")
"""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pydantic

from offtake._version import __version__
from offtake.blocks import Unit, cut
from offtake.checkpoints import BlockStore, write_manifest
from offtake.compile import Compiled, compile_study
from offtake.errors import InputError, Mistake, NumericalError, OfftakeError, StoppedError
from offtake.estimate import refuse_unreasonable, settled
from offtake.executors import Added, run_units
from offtake.hal import backend_class, open_device
from offtake.hal.host import release_memory
from offtake.precision import precision_of, relative_error, targets
from offtake.previous import computed, finished_before
from offtake.progress import Progress, tracking
from offtake.resolved import config_hash, config_yaml
from offtake.results import Result, refuse_foreign_files
from offtake.study import DeviceChoice, Study
from offtake.summary import Summary
from offtake_kernels.kept import Kept
from offtake_kernels.philox import LAYOUT_VERSION
from offtake_kernels.tally import Tally, TallyBuilder


def run(
    study: Study,
    *,
    device: str | DeviceChoice | None = None,
    out: str | Path | None = None,
    progress: bool | Callable[[int, int], None] = False,
    resume: bool = False,
    force: bool = False,
    workers: int = 1,
) -> Result:
    """Runs a study; with `out`, checkpoints as it goes and leaves the run's folder behind.

    device: a name or a DeviceChoice instead of the study's. progress: True for a bar on stderr, or a
    callable of (paths done, paths in all). resume: go on with a stopped run in `out`. force: run what is
    estimated to take more than a day or more memory than there is, and report non-finite values without
    failing. workers: processes to use at most where `executor.workers` is null and the study is worth them;
    spawning them imports the caller's main module, which needs its `if __name__ == "__main__"`. Raises
    InputError, DeviceError, StoppedError (Ctrl-C with `out`), NumericalError, OfftakeError.
    """
    if not isinstance(study, Study):
        message = f"must be what offtake.load returns, not {type(study).__name__}"
        raise InputError([Mistake("study", "", message)])
    if resume and out is None:
        raise InputError([Mistake("study", "resume", "needs out=")])
    if workers < 1:
        raise InputError([Mistake("study", "workers", f"must be at least 1, not {workers}")])
    compiled = compile_study(study)
    text = config_yaml(study)
    study = settled(study, _choice(study, device), compiled, workers)
    if not force:
        refuse_unreasonable(study, compiled)
    manifest = _manifest(study)
    with ExitStack() as stack:
        store = None
        if out is not None:
            refuse_foreign_files(Path(out), text)
            store = stack.enter_context(BlockStore(out, manifest["config_hash"], computed(manifest)))
            previous = finished_before(Path(out), manifest, text, resume)
            if previous is not None:
                store.clear()
                return previous
            write_manifest(Path(out), {**manifest, "status": "running"})
        return _run(study, compiled, manifest, text, store, stack.enter_context(tracking(progress)), force)


def _choice(study: Study, device: str | DeviceChoice | None) -> DeviceChoice:
    if device is None:
        return study.device
    if isinstance(device, DeviceChoice):
        return device
    try:
        return DeviceChoice.model_validate({**study.device.model_dump(), "name": device})
    except pydantic.ValidationError:
        names = "auto, cuda, jax, numpy, null"
        raise InputError(
            [Mistake("study", "device.name", f"no device is named {device!r}", f"there are: {names}")]
        ) from None


def _run(
    study: Study,
    compiled: Compiled,
    manifest: dict[str, Any],
    text: str,
    store: BlockStore | None,
    progress: Progress,
    force: bool,
) -> Result:
    begun = time.perf_counter()
    collected = _Collected(compiled)
    folder = store.folder if store else None
    try:
        summary = _summed(study, compiled, collected, store, progress)
        seconds = time.perf_counter() - begun
        finished = {
            **manifest,
            "paths": collected.paths,
            "summary_hash": summary.summary_hash,
            **({"damaged": store.damaged} if store and store.damaged else {}),
            **({"paths_resumed": collected.resumed} if collected.resumed else {}),
            **({"precision": precision_of(study.study.until, summary)} if study.study.until else {}),
            "seconds": round(seconds, 3),
            "paths_per_second": round((collected.paths - collected.resumed) / seconds, 1),
            "status": "complete",
        }
        units = compiled.catalogue.units
        result = Result(summary, collected.kept(), study.portfolio.start, finished, text, units)
        if not force:
            _refuse_nonfinite(summary)
        if folder is not None:
            result.save(folder)
    except KeyboardInterrupt:
        if folder is None:
            raise
        write_manifest(folder, {**manifest, "status": "stopped", "paths_done": collected.paths})
        message = f"stopped after {collected.paths:,} paths; the same command with --resume goes on"
        raise StoppedError(message) from None
    except Exception:
        _failed(folder, {**manifest, "paths_done": collected.paths})
        raise
    if store is not None:
        store.clear()
    return result


def _summed(
    study: Study, compiled: Compiled, collected: _Collected, store: BlockStore | None, progress: Progress
) -> Summary:
    """Runs what is not in the store, until the study's paths are there or its precision is reached."""
    begun = 0
    for target in targets(study.study):
        units = list(cut(begun, target, backend_class(study.device.name).most_units))
        begun = target
        progress.total(target)
        for finished in _finish(study, compiled, units, store, collected):
            # What simulating it took, before it is joined to the others.
            release_memory()
            collected.add(*finished)
            progress.advance(finished[0].paths)
            # Not held on to while the next one is simulated.
            del finished
        summary = collected.summary()
        release_memory()
        until = study.study.until
        if until is not None and relative_error(until, summary) <= until.rel_se:
            break
    return summary


def _failed(folder: Path | None, manifest: dict[str, Any]) -> None:
    """Says in the folder that the run failed, if it can still be written to: what failed is being raised."""
    if folder is not None:
        with suppress(OfftakeError):
            write_manifest(folder, {**manifest, "status": "failed"})


class _Collected:
    """The merged tally of finished units, each taken once by its first path, as they come.

    paths: of these units; resumed: those of them that an earlier process had computed.
    """

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self.builder = TallyBuilder(compiled.plan.rows, compiled.plan.threshold_rows)
        self._kept: dict[int, Kept] = {}
        self._seen: set[int] = set()
        self.paths = self.resumed = 0

    def add(self, unit: Unit, tally: Tally | None, kept: Kept | None) -> None:
        """tally: None for a unit that is in the builder."""
        if unit.first_path in self._seen:
            return
        self._seen.add(unit.first_path)
        if tally is not None:
            self.builder.absorb(tally)
        self.paths += unit.paths
        if kept is not None:
            self._kept[unit.first_path] = kept

    def summary(self) -> Summary:
        catalogue = self._compiled.catalogue
        # What one unit has left behind is little, and its pages are needed again at once.
        tally = self.builder.build(self.paths, release_memory if len(self._seen) > 1 else None)
        return Summary(tally, catalogue.rows, catalogue.threshold_rows)

    def kept(self) -> Kept | None:
        return Kept.join(list(self._kept.values())) if self._kept else None


def _finish(
    study: Study, compiled: Compiled, units: list[Unit], store: BlockStore | None, collected: _Collected
) -> Iterator[Added]:
    """Units from the store first, then those still to run, each stored as it is finished.

    What only the study's results can follow is not stored before them; what is not stored need not be apart.
    """
    wanted = {unit.first_path: unit for unit in units}
    if store is not None:
        for saved in store.load_all():
            unit = wanted.get(saved.first_path)
            if unit is not None and unit.paths == saved.paths:
                del wanted[saved.first_path]
                collected.resumed += unit.paths
                yield unit, saved.tally, saved.kept
    todo = list(wanted.values())
    stored = 0 if store is None else len(todo) - (study.study.until is None)
    finished = run_units(
        compiled.plan,
        todo,
        study.study.keep_paths,
        study.device,
        study.executor,
        into=collected.builder,
        apart=stored,
    )
    for number, (unit, tally, kept) in enumerate(finished):
        if store is not None and tally is not None and number < stored:
            store.save(unit.first_path, unit.paths, tally, kept)
        yield unit, tally, kept
        del tally, kept


def _refuse_nonfinite(summary: Summary) -> None:
    """Raises NumericalError naming the metric, the quarter and the first path of each non-finite row."""
    lines = []
    for row, count, path in summary.nonfinite[:10]:
        where = f" of {row.name}" if row.name else ""
        when = "" if row.quarter is None else f" in quarter {row.quarter}"
        lines.append(
            f"{row.metric}{where}{when} is not finite on {count:,} paths, the first of them path {path}"
        )
    if lines:
        raise NumericalError("\n".join(lines))


def _manifest(study: Study) -> dict[str, Any]:
    described = open_device(study.device).describe()
    return {
        "version": __version__,
        "seed": study.study.seed,
        "paths": study.study.paths,
        "config_hash": config_hash(study),
        "draw_layout": LAYOUT_VERSION,
        "backend": described["backend"],
        "device": described["kind"],
        "arithmetic": study.device.arithmetic if backend_class(study.device.name).can_be_fast else "strict",
        "versions": {"offtake": __version__, "python": platform.python_version(), **described["versions"]},
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
