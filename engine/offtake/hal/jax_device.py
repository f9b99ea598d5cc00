"""JAX: CPUs, TPUs and GPUs through XLA. Its library is imported when the device is opened or described."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from functools import partial
from typing import Any, ClassVar

import numpy as np

from offtake.errors import DeviceError
from offtake.hal.host import cores, processor
from offtake.hal.launches import run_launches
from offtake.study import DeviceChoice
from offtake_kernels import walk
from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import MOST_LANES, Tally


class JaxDevice:
    """One device of JAX's; on a CPU, a thread for each core. Nothing of JAX's configuration is changed."""

    name: ClassVar[str] = "jax"

    def __init__(self, choice: DeviceChoice) -> None:
        import jax

        devices = jax.devices()
        index = choice.index or 0
        if index >= len(devices):
            raise DeviceError(f"device.index={index}: JAX has {len(devices)} here, from 0")
        self._device = devices[index]
        self._strict = choice.arithmetic == "strict"
        self._threads = choice.threads or (cores() if self._device.platform == "cpu" else 1)
        share = -(-MOST_LANES // self._threads)
        self._launch = min(choice.launch_paths or share, MOST_LANES)
        self._recipe: Any = None

    @classmethod
    def unusable(cls) -> str | None:
        if importlib.util.find_spec("jax") is None:
            return "jax is not installed; python -m pip install 'offtake[jax]'"
        import jax

        try:
            jax.devices()
        except RuntimeError as error:
            return f"jax finds no device: {error}"
        return None

    @classmethod
    def devices(cls) -> list[dict[str, Any]]:
        import jax

        return [_described(device) for device in jax.devices()]

    def describe(self) -> dict[str, Any]:
        return {"backend": self.name, **_described(self._device)}

    def launch_paths(self, plan: Plan) -> int:
        return self._launch

    def run(self, plan: Plan, first_path: int, paths: int, keep: int) -> tuple[Tally, Kept | None]:
        from offtake_kernels import path_jax

        if self._recipe is None or self._recipe.plan is not plan:
            self._recipe = path_jax.Recipe(plan, self._device, strict=self._strict)
        launch = partial(walk.run, self._recipe)
        return run_launches(plan, first_path, paths, keep, self._launch, launch, self._threads)


def _described(device: Any) -> dict[str, Any]:
    import jax

    versions = {
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    if device.platform == "cpu":
        return {**processor(), "versions": versions}
    memory = (device.memory_stats() or {}).get("bytes_limit", 0) / 2**30
    return {"kind": device.device_kind, "cores": 0, "memory_gib": round(memory, 1), "versions": versions}
