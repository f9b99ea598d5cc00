"""`offtake run`: one study here and now, or Hydra's own machinery around it (sweeps, --cfg, completion)."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException

from offtake._version import __version__
from offtake.composing import for_hydra
from offtake.errors import InputError, Mistake, OfftakeError, StoppedError
from offtake.interrupts import terminated_like_interrupted
from offtake.portfolio import RunOptions, compose, read
from offtake.source_map import COMMAND_LINE, read_yaml
from offtake.study import Study

USAGE = "offtake run [FILE.yaml] [KEY=VALUE…] [--dry-run] [--resume] [--json] [-m]"
HELP = f"""usage: {USAGE}

Run a study: a summary in the terminal and, with out=DIR, a folder of results.

  FILE.yaml          a whole study in one file; without it,
                     portfolio=NAME world=NAME study=NAME device=NAME …
  KEY=VALUE          an override as Hydra reads it: study.paths=1e5;
                     +KEY=VALUE adds, ~KEY deletes
  out=DIR            write manifest, config.yaml, tables and checkpoints to DIR
  force=true         run even if the estimate of time or memory is unreasonable
  announced=true     every distribution at its headline, volatility zero
  --dry-run          print the plan with estimates of time and memory, and stop
  --resume           go on where a stopped run with the same out=DIR was
  --json             headline numbers as one JSON object, alone on stdout
  --config-dir DIR   a folder with more portfolio/, deal/, world/ … files
  -m                 sweep: every combination of comma-separated values;
                     results in DIR/0, DIR/1, …
  --cfg job          print the composed configuration
  --hydra-help       what Hydra itself can do
                     (tab completion: eval "$(offtake run -sc install=bash)")

Examples:
  offtake run portfolio=openai study=quick
  offtake run study=quick out=runs/late_aws portfolio.deals.aws.slip=3
  offtake run portfolio=openai study=quick stress=nvidia_delay --json
  offtake run portfolio=openai study=quick -m study.seed=1,2
  offtake run portfolio=openai --cfg job"""


def run(arguments: Sequence[str]) -> int:
    """Handle `offtake run`; returns the exit code, or raises what stopped it."""
    if "--version" in arguments:
        # Hydra's parser would give Hydra's.
        print(f"offtake {__version__}")
        return 0
    parser = get_args_parser()
    parser.prog, parser.usage, parser.allow_abbrev = "offtake run", USAGE, False
    for flag in ("--dry-run", "--resume", "--json"):
        parser.add_argument(flag, action="store_true")
    given = parser.parse_intermixed_args(list(arguments))
    if given.help:
        print(HELP)
        return 0
    # The first would unpickle a file, the others would compose something else than what is run.
    for option in ("experimental_rerun", "config_path", "config_name"):
        if getattr(given, option) is not None:
            flag = "--" + option.replace("_", "-")
            raise InputError(
                [Mistake(COMMAND_LINE, flag, "is not offered here", "use FILE.yaml or --config-dir")]
            )
    files = [text for text in given.overrides if "=" not in text and text.endswith((".yaml", ".yml"))]
    overrides = [text for text in given.overrides if text not in files]
    if len(files) > 1:
        raise InputError([Mistake(COMMAND_LINE, "", f"one study at a time, not {' and '.join(files)}")])
    source = files[0] if files else None
    folders = "out=", "hydra.sweep.dir="
    if given.multirun and given.resume and not any(o.lstrip("+").startswith(folders) for o in overrides):
        raise InputError([Mistake(COMMAND_LINE, "--resume", "needs out=DIR")])
    if given.multirun and (given.cfg or given.info):
        raise InputError([Mistake(COMMAND_LINE, "-m", "is not for --cfg or --info", "give one point")])
    if _is_hydras(given, overrides):
        return _through_hydra(given, source, overrides)
    study, options = read(source, overrides, config_dir=given.config_dir)
    return _run_one(study, options, given)


def _is_hydras(given: argparse.Namespace, overrides: Sequence[str]) -> bool:
    asked = given.multirun or given.cfg or given.info or given.hydra_help or given.shell_completion
    return bool(asked) or any(text.lstrip("+~").startswith(("hydra.", "hydra/")) for text in overrides)


def _run_one(study: Study, options: RunOptions, given: argparse.Namespace) -> int:
    for warning in study.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if given.dry_run:
        _print_plan(study, as_json=given.json)
        return 0
    if given.resume and options.out is None:
        raise InputError([Mistake(COMMAND_LINE, "--resume", "needs out=DIR")])
    if options.report:
        mistake = Mistake(COMMAND_LINE, "report", "this version writes no report yet", "leave it out")
        raise InputError([mistake])
    from offtake.hal.host import workers
    from offtake.simulate import run as simulate

    resume, force = given.resume, options.force
    try:
        with terminated_like_interrupted():
            result = simulate(
                study, out=options.out, progress=True, resume=resume, force=force, workers=workers()
            )
    except KeyboardInterrupt:
        kept = (
            f"`--resume` with out={options.out} goes on" if options.out else "without out=DIR nothing is kept"
        )
        raise StoppedError(f"stopped; {kept}") from None
    for damaged in result.manifest.get("damaged", []):
        print(f"warning: {damaged}", file=sys.stderr)
    _warn_of_precision(result.manifest)
    if given.json:
        from offtake.headline import Headline

        print(json.dumps(Headline(result, study).plain(), allow_nan=False))
    else:
        from offtake.console import Terminal
        from offtake.terminal import print_summary

        print_summary(result, study, Terminal())
    return 0


def _warn_of_precision(manifest: Mapping[str, Any]) -> None:
    """Says so where `study.until` was not reached."""
    precision = manifest.get("precision", {"rel_se": 0.0, "reached": 0.0})
    if precision["reached"] is not None and precision["reached"] <= precision["rel_se"]:
        return
    reached = "is not known" if precision["reached"] is None else f"is {precision['reached']:.2g}"
    print(
        f"warning: study.until: after {manifest['paths']:,} paths the relative standard error of "
        f"{precision['metric']}, {precision['statistic']}, {reached}; {precision['rel_se']:g} was asked for",
        file=sys.stderr,
    )


def _print_plan(study: Study, *, as_json: bool) -> None:
    from offtake.estimate import estimate
    from offtake.hal.host import workers

    plan = estimate(study, workers())
    if as_json:
        print(json.dumps(plan, allow_nan=False))
        return
    from rich.table import Table

    from offtake.console import Terminal

    table = Table(show_header=False)
    for key, value in plan.items():
        table.add_row(key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    Terminal().print(table)


def _through_hydra(given: argparse.Namespace, source: str | None, overrides: Sequence[str]) -> int:
    """Let Hydra do what is Hydra's; each point of a sweep comes back to `_point`."""
    import hydra

    if given.cfg and not given.multirun:
        composed = compose(source, overrides, given.config_dir)
        if composed.mistakes:
            raise InputError(composed.mistakes)
    # With --shell-completion the arguments say what to do (install=bash), not what to run.
    rewritten = list(overrides) if given.shell_completion else for_hydra(overrides, given.config_dir)
    if given.multirun:
        # Hydra numbers the points of a sweep; a fixed `out` is the folder above them.
        rewritten = [
            f"hydra.sweep.dir={text.removeprefix('++out=')}"
            if text.startswith("++out=") and "," not in text
            else text
            for text in rewritten
        ]
    points = _Points()
    with _primary_config(source) as (config_path, config_name), _process_for_hydra(given, rewritten):
        task = hydra.main(version_base="1.3", config_path=config_path, config_name=config_name)(
            lambda _: _point(given, source, points)
        )
        code = _done(task, points)
    if given.multirun and not points.begun:
        raise InputError([Mistake(COMMAND_LINE, "-m", "the sweep has no points")])
    return code


@dataclass
class _Points:
    """How many points of a sweep have begun, and what has been said to be wrong with them."""

    begun: int = 0
    said: list[OfftakeError] = field(default_factory=list)


def _done(task: Callable[[], Any], points: _Points) -> int:
    """Hydra's task, its errors as ours."""
    try:
        task()
    except _SweepStopped as stopped:
        raise stopped.error from None
    except OfftakeError as error:
        if error not in points.said:
            raise
        return error.exit_code
    except HydraException as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError([Mistake(COMMAND_LINE, "", reason)]) from None
    except PermissionError as error:
        raise OfftakeError(f"cannot write {error.filename}: {error.strerror}") from None
    return 0


class _SweepStopped(BaseException):
    """A point was stopped, and so is the sweep: after an Exception Hydra would go on to the next."""

    def __init__(self, error: StoppedError):
        super().__init__()
        self.error = error


def _point(given: argparse.Namespace, source: str | None, points: _Points) -> int:
    """One point of a sweep. A failure is said now; Hydra raises it again after the other points."""
    from hydra.core.hydra_config import HydraConfig

    settings = HydraConfig.get()
    chosen = list(settings.overrides.task)
    sweep = given.multirun or str(settings.mode) == "RunMode.MULTIRUN"
    points.begun += 1
    if sweep:
        print(f"point {settings.job.num}: {' '.join(chosen)}", file=sys.stderr)
    try:
        study, options = read(source, chosen, config_dir=given.config_dir)
        if sweep and options.out is None:
            options = options.model_copy(update={"out": settings.runtime.output_dir})
        return _run_one(study, options, given)
    except OfftakeError as error:
        if sweep and isinstance(error, StoppedError):
            # Hydra names a folder by the time where none is given.
            named = any(text.startswith("hydra.sweep.dir=") for text in settings.overrides.hydra)
            resume = "--resume" if named else f"out={settings.sweep.dir} --resume"
            message = f"point {settings.job.num} {str(error).replace('--resume', resume)}"
            raise _SweepStopped(StoppedError(message)) from None
        if sweep:
            print(f"point {settings.job.num} failed: {error}", file=sys.stderr)
            points.said.append(error)
        raise


@contextmanager
def _primary_config(source: str | None) -> Iterator[tuple[str, str]]:
    """Where Hydra finds the primary configuration: the shipped one, or a temporary one around a file."""
    if source is None:
        yield "pkg://offtake.conf", "config"
        return
    document = read_yaml(Path(source))
    if document.mistakes:
        raise InputError(document.mistakes)
    shipped = yaml.safe_load(Path(str(_shipped("config.yaml"))).read_text(encoding="utf-8"))
    quiet = [item for item in shipped["defaults"] if "override hydra/" in "".join(item)]
    content: dict[str, Any] = {
        "defaults": ["whole_file", "_self_", *quiet],
        "hydra": {"searchpath": ["pkg://offtake.conf"], **shipped["hydra"]},
        **document.data,
    }
    with tempfile.TemporaryDirectory(prefix="offtake-") as folder:
        Path(folder, "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        yield folder, "study"


def _shipped(name: str) -> Any:
    import importlib.resources

    return importlib.resources.files("offtake.conf").joinpath(name)


@contextmanager
def _process_for_hydra(given: argparse.Namespace, overrides: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv and the environment; both are put back."""
    argv, environment = sys.argv, dict(os.environ)
    flags = [("--multirun", given.multirun), ("--hydra-help", given.hydra_help), ("--resolve", given.resolve)]
    flags += [("--shell-completion", given.shell_completion)]
    options = [flag for flag, on in flags if on]
    for flag in ("cfg", "package", "info", "config_dir"):
        if getattr(given, flag):
            options += ["--" + flag.replace("_", "-"), getattr(given, flag)]
    sys.argv = [argv[0], *overrides, *options]
    # Otherwise Hydra prints errors its own way and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if given.shell_completion:
        os.environ["COMP_LINE"] = _line_for_hydra(os.environ.get("COMP_LINE", ""))
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)


def _line_for_hydra(line: str) -> str:
    """The typed line as Hydra expects it: one word for the program, no FILE.yaml."""
    words = line.split(" ")
    return " ".join(
        word for index, word in enumerate(words) if index != 1 and not word.endswith((".yaml", ".yml"))
    )
