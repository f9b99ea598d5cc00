"""What stands in a run's folder already: a finished run, one to go on with, or one to leave alone."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from offtake.checkpoints import MANIFEST, read_manifest, write_atomically
from offtake.errors import InputError, Mistake
from offtake.resolved import DETERMINING
from offtake.results import CONFIG, Result, open_result


def finished_before(folder: Path, wanted: Mapping[str, Any], config_yaml: str, resume: bool) -> Result | None:
    """The finished run of the same study, or None when there is something to compute. wanted: the manifest
    of the run that is asked for.

    Raises InputError when the folder holds another study (showing the difference) or one that was computed
    otherwise, or an unfinished run that nobody asked to resume. Writes config.yaml, so that a stopped run can
    be compared.
    """
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        if manifest["config_hash"] != wanted["config_hash"]:
            message = f"{folder} holds another study:\n{_difference(folder, config_yaml)}"
            raise InputError([Mistake("study", "", message, "choose another out=")])
        if computed(manifest) != computed(wanted):
            message = f"{folder} holds this study computed by {computed(manifest)}, not by {computed(wanted)}"
            raise InputError([Mistake("study", "", message, "choose another out=")])
        if manifest["status"] == "complete":
            return open_result(folder)
        if not resume:
            message = f"{folder} holds an unfinished run ({manifest['status']})"
            raise InputError(
                [
                    Mistake(
                        "command line", "", message, "add --resume to go on with it, or choose another out="
                    )
                ]
            )
    write_atomically(folder / CONFIG, config_yaml.encode())
    return None


def computed(manifest: Mapping[str, Any]) -> str:
    """What the bits of a study's answer depend on beside the study."""
    if manifest["backend"] == "null":
        return "the null device, which computes nothing"
    return f"offtake {manifest['version']} in {manifest['arithmetic']} arithmetic"


def _difference(folder: Path, config_yaml: str) -> str:
    try:
        before = _asked((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return "(its config.yaml cannot be read)"
    lines = difflib.unified_diff(before, _asked(config_yaml), "the folder's", "this one", lineterm="", n=2)
    return "\n".join(list(lines)[:60]) or "(the same configuration; a file of samples has changed)"


def _asked(config_yaml: str) -> list[str]:
    """Lines of what determines the answer: device and executor may be others."""
    study = yaml.safe_load(config_yaml)
    asked = {key: study[key] for key in DETERMINING if key in study} if isinstance(study, dict) else {}
    return yaml.safe_dump(asked, sort_keys=False, allow_unicode=True).splitlines()
