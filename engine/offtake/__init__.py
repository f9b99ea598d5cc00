"""Monte Carlo for AI-compute deals: which capacity arrives when, what is due when, who cannot pay.

study = offtake.load("openai", overrides=["study.paths=100000"])
result = offtake.run(study, device="numpy")
result.quantile("cash", 0.9, quarter="2028Q1")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from offtake._version import __version__

if TYPE_CHECKING:
    from offtake.errors import DeviceError, InputError, NumericalError, OfftakeError, StoppedError
    from offtake.path_replay import replay
    from offtake.portfolio import load
    from offtake.results import Result
    from offtake.results import open_result as open
    from offtake.simulate import run
    from offtake.study import Study

# Imported on first use, so that `import offtake` costs nothing.
_HOMES = {
    "load": ("offtake.portfolio", "load"),
    "run": ("offtake.simulate", "run"),
    "open": ("offtake.results", "open_result"),
    "replay": ("offtake.path_replay", "replay"),
    "Study": ("offtake.study", "Study"),
    "Result": ("offtake.results", "Result"),
    "OfftakeError": ("offtake.errors", "OfftakeError"),
    "InputError": ("offtake.errors", "InputError"),
    "DeviceError": ("offtake.errors", "DeviceError"),
    "StoppedError": ("offtake.errors", "StoppedError"),
    "NumericalError": ("offtake.errors", "NumericalError"),
}

__all__ = [
    "DeviceError",
    "InputError",
    "NumericalError",
    "OfftakeError",
    "Result",
    "StoppedError",
    "Study",
    "__version__",
    "load",
    "open",
    "replay",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'offtake' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value
