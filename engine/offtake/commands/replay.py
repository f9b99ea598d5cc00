"""`offtake replay`: one path of a run again, with its events."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from offtake.errors import InputError, Mistake


def replay(arguments: Sequence[str]) -> int:
    """Handle `offtake replay RUN --path N`; the study is read from the run's config.yaml."""
    parser = argparse.ArgumentParser(
        prog="offtake replay",
        description="One path again, with its events, equal to what the run saw.",
        epilog="Examples:\n  offtake run portfolio=openai study=quick out=runs/openai\n"
        "  offtake replay runs/openai --path 17\n  offtake replay runs/openai --path 17 --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("--path", type=int, required=True, metavar="N", help="number of the path, from 0")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_args(list(arguments))
    config = Path(given.run, "config.yaml")
    if not config.is_file():
        raise InputError([Mistake(given.run, "", "is not a run's folder", "it has no config.yaml")])
    from offtake.study import MOST_PATHS

    if not 0 <= given.path < MOST_PATHS:
        message = f"must be from 0 to {MOST_PATHS - 1}, not {given.path}"
        raise InputError([Mistake("command line", "--path", message)])
    from offtake.checkpoints import read_manifest
    from offtake.path_replay import replay as replay_path
    from offtake.portfolio import load
    from offtake.resolved import config_hash

    study = load(config)
    manifest = read_manifest(Path(given.run))
    if config_hash(study) != manifest["config_hash"]:
        message = "has another study than the one that was run"
        hint = "the file has been edited since, or a file of samples, or offtake is another version"
        raise InputError([Mistake(str(config), "", message, hint)])
    # One that did not end may have gone on for its precision.
    paths = max(manifest["paths"], manifest.get("paths_done", 0))
    if given.path >= paths:
        message = f"the run has paths 0 to {paths - 1}, not {given.path}"
        raise InputError([Mistake("command line", "--path", message)])
    replayed = replay_path(study, path=given.path)
    if given.json:
        print(json.dumps(replayed.to_dict(), allow_nan=False))
        return 0
    from offtake.console import Terminal
    from offtake.terminal import print_replay

    print_replay(replayed, Terminal())
    return 0
