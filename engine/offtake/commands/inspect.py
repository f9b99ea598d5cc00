"""Commands that look without simulating: show, validate, devices, schema."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from offtake.errors import InputError, Mistake

if TYPE_CHECKING:
    from offtake.study import Study


def command_parser(command: str, description: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """A parser whose help ends with examples."""
    return argparse.ArgumentParser(
        prog=f"offtake {command}",
        description=description,
        epilog="Examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """What says which study."""
    parser.add_argument(
        "study", nargs="*", metavar="FILE.yaml|KEY=VALUE", help="a file, or overrides, or both"
    )
    parser.add_argument("--config-dir", metavar="DIR", help="a folder with more portfolio/, deal/ … files")


def _files_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """An override holds = or begins with ~; anything else is a file."""
    overrides = [text for text in arguments if "=" in text or text.startswith("~")]
    return [text for text in arguments if text not in overrides], overrides


def one_study(given: argparse.Namespace) -> Study:
    """The study that `add_study_arguments` name. Raises InputError, also for two files."""
    files, overrides = _files_and_overrides(given.study)
    if len(files) > 1:
        raise InputError([Mistake("command line", "", f"one study at a time, not {' and '.join(files)}")])
    from offtake.portfolio import read

    study, _ = read(files[0] if files else None, overrides, config_dir=given.config_dir)
    return study


def show(arguments: Sequence[str]) -> int:
    """`offtake show`: the deals as announced, totals by supplier, terms, sources."""
    parser = command_parser(
        "show",
        "The deals as announced: GW, terms, sources, totals by supplier and in all.",
        ["offtake show portfolio=openai", "offtake show portfolio=anthropic world=anthropic --json"],
    )
    add_study_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_intermixed_args(list(arguments))
    study = one_study(given)
    from offtake.press import reconcile

    if given.json:
        from offtake.announce import announced_totals

        print(json.dumps({**announced_totals(study), "press": reconcile(study)}, allow_nan=False))
        return 0
    from offtake.console import Terminal
    from offtake.terminal import print_announced, print_press

    console = Terminal()
    print_announced(study, console)
    press = reconcile(study)
    if press is not None:
        print_press(press, console)
    return 0


def validate(arguments: Sequence[str]) -> int:
    """`offtake validate`: every mistake of every file; exit code 2 if there is one."""
    parser = command_parser(
        "validate",
        "Every mistake in a study with file, line and column; exit code 2 for any.",
        [
            "offtake validate portfolio=openai",
            "offtake validate portfolio=openai study=quick",
        ],
    )
    add_study_arguments(parser)
    given = parser.parse_intermixed_args(list(arguments))
    files, overrides = _files_and_overrides(given.study)
    if not files and not overrides:
        parser.error("name a file, or a portfolio as in portfolio=openai")
    from offtake.compile import compile_study
    from offtake.portfolio import read

    mistakes: list[Mistake] = []
    for file in files or [None]:
        try:
            study, _ = read(file, overrides, config_dir=given.config_dir)
            compile_study(study)
        except InputError as error:
            mistakes += error.mistakes
            continue
        for warning in study.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        portfolio = study.portfolio
        deals = f"{len(portfolio.deals)} deals, {portfolio.quarters} quarters from {portfolio.start}"
        print(f"{file or portfolio.name}: valid ({deals})")
    if mistakes:
        raise InputError(mistakes)
    return 0


def devices(arguments: Sequence[str]) -> int:
    """`offtake devices`: backends, devices, why each one is or is not usable."""
    parser = command_parser(
        "devices",
        "Backends and devices, and why each one is or is not usable.",
        ["offtake devices", "offtake devices --json"],
    )
    parser.add_argument("--json", action="store_true", help="one JSON array")
    given = parser.parse_args(list(arguments))
    from offtake.hal import describe

    found = describe()
    if given.json:
        print(json.dumps(found, allow_nan=False))
        return 0
    from rich.markup import escape
    from rich.table import Table

    from offtake.console import Terminal

    table = Table("backend", "usable", "device", box=None, pad_edge=False)
    for backend in found:
        usable = "yes" if backend["usable"] else "no"
        said = backend["reason"] or _described(backend["devices"])
        table.add_row(backend["backend"], usable, escape(said))
    Terminal().print(table)
    return 0


def _described(devices: Sequence[dict[str, Any]]) -> str:
    """A line for each device: kind, cores, memory, versions."""
    lines = []
    for device in devices:
        numbers = {key: value for key, value in device.items() if isinstance(value, int | float) and value}
        figures = [f"{key.replace('_', ' ')} {value}" for key, value in numbers.items()]
        versions = [f"{name} {version}" for name, version in device.get("versions", {}).items()]
        lines.append(", ".join([device["kind"], *figures, *versions]))
    return "\n".join(lines)


def schema(arguments: Sequence[str]) -> int:
    """`offtake schema`: JSON Schema of a study in one file."""
    command_parser(
        "schema",
        "JSON Schema (2020-12) of a whole study in one file.",
        ["offtake schema > offtake.schema.json"],
    ).parse_args(list(arguments))
    from offtake.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0
