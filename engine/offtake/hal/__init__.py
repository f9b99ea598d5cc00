"""Devices by name. A backend exists because its small file exists; its library is imported only when
chosen.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
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
# `auto` takes the first that is usable, or numpy.
PREFERENCE = ("cuda", "jax")
# Who has the library may wonder why its device is not taken.
_LIBRARIES = {"cuda": "cupy", "jax": "jax"}
_LOG = logging.getLogger(__name__)
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
    for name in PREFERENCE if seconds >= _WORTH_COMPILING else ():
        reason = backend_class(name).unusable()
        if reason is None:
            return choice.model_copy(update={"name": name})
        if importlib.util.find_spec(_LIBRARIES[name]) is not None:
            _LOG.warning("device=auto passes over %s: %s", name, reason)
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
