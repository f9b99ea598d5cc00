"""`offtake bench`: the devices of this machine beside one another, and machines beside one another."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from offtake.checkpoints import prepare_folder, write_atomically
from offtake.commands.inspect import add_study_arguments, command_parser, one_study
from offtake.errors import InputError, Mistake


def bench(arguments: Sequence[str]) -> int:
    """Measures, or compares two files."""
    if arguments[:1] == ["compare"]:
        return _compare(arguments[1:])
    parser = command_parser(
        "bench",
        "Every usable device on one study (OpenAI, unless told otherwise), in\n"
        "alternation: paths a second, share of what it could do, energy, price.\n"
        "`offtake bench compare A.json B.json` sets machines side by side.",
        [
            "offtake bench portfolio=anthropic device=numpy --seconds 0.5 --json here.json",
            "offtake bench compare here.json here.json",
        ],
    )
    add_study_arguments(parser)
    parser.add_argument(
        "--seconds", type=_positive, default=10.0, help="to measure each device for, about (default 10)"
    )
    parser.add_argument("--dollars", type=_positive, metavar="PRICE", help="US$ an hour of this machine")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures here, for `bench compare`"
    )
    given = parser.parse_intermixed_args(list(arguments))
    if given.json is not None:
        _refuse_unwritable(given.json)
    study = one_study(given)
    if study.device.name == "null":
        message = "null computes nothing that could be timed"
        raise InputError([Mistake("command line", "device.name", message, "leave it out")])
    from offtake.benchmark import measure
    from offtake.console import Terminal
    from offtake.terminal_bench import print_bench

    with Terminal(stderr=True).status("", spinner="line") as status:
        found = measure(study, given.seconds, status.update)
    if given.json is not None:
        write_atomically(given.json, (json.dumps(found, indent=1) + "\n").encode())
        print(f"{given.json} written", file=sys.stderr)
    print_bench(found, given.dollars, Terminal())
    return 0


def _compare(arguments: Sequence[str]) -> int:
    parser = command_parser(
        "bench compare",
        "Two files of `offtake bench --json` of one study: the rates of each device, and their ratio.",
        ["offtake bench compare here.json there.json"],
    )
    parser.add_argument("first", type=Path, metavar="A.json")
    parser.add_argument("second", type=Path, metavar="B.json")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_args(list(arguments))
    from offtake.benchmark import compare, read

    first, second = read(given.first), read(given.second)
    rows = compare(first, second)
    if given.json:
        print(json.dumps({"devices": rows}, allow_nan=False))
        return 0
    from offtake.console import Terminal
    from offtake.terminal_bench import print_comparison

    print_comparison(rows, first, second, Terminal())
    return 0


def _refuse_unwritable(file: Path) -> None:
    """Raises InputError or OfftakeError before anything is measured in vain."""
    if not file.absolute().parent.is_dir():
        raise InputError([Mistake("--json", "", f"{file.parent} is no folder")])
    if file.is_dir():
        raise InputError([Mistake("--json", "", f"{file} is a folder, not a file")])
    prepare_folder(file.absolute().parent)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
