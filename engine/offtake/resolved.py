"""A resolved study as text, and the hash that it is known by."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import yaml

from offtake.distributions import Samples
from offtake.samples import digest
from offtake.source_map import FLOAT
from offtake.study import Study
from offtake_kernels.philox import LAYOUT_VERSION

# The parts of a study that its answer depends on; the others say how and where it is computed.
DETERMINING = "portfolio", "world", "study"
# The C emitter writes the same text ten times as fast, where PyYAML has it.
_FASTEST: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_FASTEST):
    """Quotes texts such as 1e3 too, which are numbers to YAML 1.2 and to our reader, but not to PyYAML."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{FLOAT.pattern})$"), "-+.0123456789")


def config_yaml(study: Study) -> str:
    """The whole resolved study; running it again gives the same summary."""
    return yaml.dump(_plain(study), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def config_hash(study: Study) -> str:
    """SHA-256 of what determines the answer: the portfolio, the world, the study and the samples that they
    read, not the device.
    """
    plain = {key: _with_digests(value) for key, value in _plain(study).items() if key in DETERMINING}
    canonical = yaml.dump(plain, Dumper=_Dumper, sort_keys=True)
    return hashlib.sha256(f"draw layout {LAYOUT_VERSION}\n{canonical}".encode()).hexdigest()


def _with_digests(value: Any) -> Any:
    """With what a file of samples holds instead of its name, which says nothing about its numbers."""
    if isinstance(value, list):
        return [_with_digests(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == Samples.model_fields.keys() and isinstance(value["file"], str):
        return digest(Path(value["file"]), value["column"])
    return {key: _with_digests(item) for key, item in value.items()}


def _plain(study: Study) -> dict[str, Any]:
    return _lists(study.model_dump(mode="python", exclude_none=True))


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
