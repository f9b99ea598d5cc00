"""Devices by name. A backend exists because its small file exists; its library is imported only when
chosen.
"""

from __future__ import annotations

import importlib
from typing import Any

from offtake.errors import DeviceError
from offtake.hal.device import Device
from offtake.study import DeviceChoice

BACKENDS: dict[str, str] = {
    "cuda": "offtake.hal.cuda_device:CudaDevice",
    "jax": "offtake.hal.jax_device:JaxDevice",
    "numpy": "offtake.hal.numpy_device:NumpyDevice",
    "null": "offtake.hal.null_device:NullDevice",
}
# `auto` takes the first that is usable.
PREFERENCE = ("cuda", "jax", "numpy")
# Seconds of numpy on one core that are worth the time a compiler takes first. Bits are the same either way.
_WORTH_COMPILING = 60.0


def backend_class(name: str) -> type[Device]:
    """The class of a backend. Raises DeviceError for one that this version lacks."""
    if name not in BACKENDS:
        raise DeviceError(f"device={name}: no backend is named so; there are {', '.join(BACKENDS)}, auto")
    module, _, attribute = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def settle(choice: DeviceChoice, seconds: float) -> DeviceChoice:
    """The choice with `auto` replaced by the best usable backend for a study that takes numpy `seconds`."""
    if choice.name != "auto":
        return choice
    for name in PREFERENCE:
        worth = name == "numpy" or seconds >= _WORTH_COMPILING
        if worth and name in BACKENDS and backend_class(name).unusable() is None:
            return choice.model_copy(update={"name": name})
    return choice.model_copy(update={"name": "numpy"})


def open_device(choice: DeviceChoice) -> Device:
    """The device of a choice that names one, ready to run.

    Raises DeviceError (exit 3) saying what is missing and what to do about it.
    """
    backend = backend_class(choice.name)
    reason = backend.unusable()
    if reason is not None:
        raise DeviceError(f"device={choice.name}: {reason}")
    return backend(choice)


def describe() -> list[dict[str, Any]]:
    """Every backend of the language: name, usable, why not, and its devices (kind, cores, memory,
    versions).
    """
    listed = []
    for name in BACKENDS:
        backend = backend_class(name)
        reason = backend.unusable()
        devices = backend.devices() if reason is None else []
        listed.append({"backend": name, "usable": reason is None, "reason": reason or "", "devices": devices})
    return listed
