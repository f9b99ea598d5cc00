"""JAX: CPUs, TPUs and GPUs through XLA. Its library is imported when the device is opened or described."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import numpy as np

from offtake.blocks import MOST_UNITS
from offtake.errors import DeviceError
from offtake.hal.device import Device
from offtake.hal.host import processor
from offtake.hal.launches import run_launches
from offtake.hal.limits import COPIED_BYTES, Limits, rate
from offtake.study import DeviceChoice
from offtake_kernels import walk
from offtake_kernels.bins import MOST_LANES
from offtake_kernels.graph import DTYPES
from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import TallyBuilder

# Paths that a CPU device takes at a time: its arrays lie in the cache.
_CPU_LANES = 16_384
# Runs of a row that an accelerator hands over, of those that it has in a quarter.
_RUNS = 2_048


class JaxDevice(Device):
    """JAX's devices of the default platform, or the one that the choice names. Nothing of JAX's configuration
    is changed.

    On CPU one thread a process unless more are asked for: the tally and the dispatching of an executable hold
    the interpreter's lock for most of a path's time, so that two threads do no more than one. Processes do.
    """

    name: ClassVar[str] = "jax"
    most_units: ClassVar[int] = MOST_UNITS
    can_be_fast: ClassVar[bool] = True
    numpy_cores: ClassVar[float] = 1.5
    process_gib: ClassVar[float] = 0.6

    def __init__(self, choice: DeviceChoice) -> None:
        import jax

        devices = jax.devices()
        if choice.index is not None:
            missing = [number for number in choice.index if number >= len(devices)]
            if missing:
                raise DeviceError(f"device.index={missing[0]}: JAX has {len(devices)} here, from 0")
            devices = [devices[number] for number in choice.index]
        self._devices = devices
        self._strict = choice.arithmetic == "strict"
        on_cpu = devices[0].platform == "cpu"
        self._threads = choice.threads or 1
        share = -(-MOST_LANES // self._threads)
        self._launch = min(choice.launch_paths or share, MOST_LANES)
        self._on_host = tallied_on_host(devices[0].platform)
        # A process of its own takes some seconds to read what another has compiled.
        self.seconds_a_worker = 20.0 if on_cpu else math.inf
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
        described = _described(self._devices[0])
        if len(self._devices) > 1:
            described["kind"] = f"{len(self._devices)} x {described['kind']}"
        if self._on_host:
            described["cores"] = self._threads * len(self._devices)
        return {"backend": self.name, **described}

    def launch_paths(self, plan: Plan) -> int:
        return self._launch

    @classmethod
    def worker_environment(cls, folder: str) -> dict[str, str]:
        return {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def prepare(self, plan: Plan) -> None:
        if self._recipe is None or self._recipe.plan is not plan:
            self._recipe = self._compiled(plan)

    def add(self, plan: Plan, first_path: int, paths: int, keep: int, builder: TallyBuilder) -> Kept | None:
        from offtake_kernels import tally_jax
        from offtake_kernels.settings_jax import usual_settings

        self.prepare(plan)
        launch = usual_settings()(partial(walk.run if self._on_host else tally_jax.run, self._recipe))
        # Whole tiles, and few paths are shared out too.
        tiles = -(-paths // (_CPU_LANES * self._threads))
        size = min(self._launch, tiles * _CPU_LANES) if self._on_host else self._launch
        return run_launches(plan, first_path, paths, keep, builder, size, launch, self._threads)

    def limits(self) -> Limits:
        from offtake_kernels.settings_jax import usual_settings

        with usual_settings():
            return self._limits()

    def _limits(self) -> Limits:
        import jax
        import jax.numpy as jnp

        from offtake_kernels import yardstick
        from offtake_kernels.graph import LANES
        from offtake_kernels.placement import Placement
        from offtake_kernels.program_jax import Executable

        place = Placement(self._devices)
        lanes = (_CPU_LANES if self._on_host else MOST_LANES) * len(self._devices)
        found = {}
        for name, rod in (("multiply_adds", yardstick.multiply_adds()), ("words", yardstick.words())):
            stage = Executable(rod.inputs, [rod.result], placement=place, strict=False, lanes=lanes)
            arrays = [place.put(np.ones(lanes, DTYPES[v.kind]), v.shape) for v in rod.inputs]
            nothing = np.zeros(0, np.float32)
            run = partial(_finished, stage, arrays, nothing)
            found[name] = self._together([run] * self._threads, rod.amount * lanes)
        negate = jax.jit(jnp.negative, donate_argnums=0)

        def moving() -> Callable[[], object]:
            arrays = [place.put(np.ones(COPIED_BYTES // 4, np.float32), (LANES,))]

            def move() -> None:
                arrays[0] = negate(arrays[0]).block_until_ready()

            return move

        movers = [moving() for _ in range(self._threads)]
        return Limits(**found, bytes=self._together(movers, 2 * COPIED_BYTES))

    def joules(self) -> float | None:
        return None

    def _together(self, works: Sequence[Callable[[], object]], amount: float) -> float:
        """The rate of works that run at the same time, each on a thread of its own."""
        from offtake_kernels.settings_jax import usual_settings

        with ThreadPoolExecutor(len(works)) as pool:
            return sum(pool.map(usual_settings()(lambda work: rate(work, amount)), works))

    def _compiled(self, plan: Plan) -> Any:
        from offtake_kernels import path_jax
        from offtake_kernels.placement import Placement
        from offtake_kernels.settings_jax import usual_settings

        # Each device has the same share of a tile.
        share = _CPU_LANES if self._on_host else -(-self._launch // len(self._devices))
        lanes = share * len(self._devices)
        runs = None if self._on_host else _RUNS
        place = Placement(self._devices)
        with usual_settings():
            return path_jax.Recipe(plan, place, strict=self._strict, lanes=lanes, runs=runs).compile()


def tallied_on_host(platform: str) -> bool:
    """Whether recorded rows are tallied by numpy: on a CPU that is faster than sorting with XLA."""
    return platform == "cpu"


def _finished(stage: Callable[..., list[Any]], *given: Any) -> None:
    for array in stage(*given):
        array.block_until_ready()


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
