"""The fallback and the reference: numpy on one core. More cores: executor.workers."""

from __future__ import annotations

import platform
from functools import partial
from typing import Any, ClassVar

import numpy as np

from offtake.blocks import MOST_UNITS
from offtake.hal.device import Device
from offtake.hal.host import processor
from offtake.hal.launches import run_launches
from offtake.hal.limits import COPIED_BYTES, Limits, rate
from offtake.study import DeviceChoice
from offtake_kernels import ops_numpy, path_numpy, philox, walk, yardstick
from offtake_kernels.bins import MOST_LANES
from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.program_numpy import Program, Scratch
from offtake_kernels.tally import TallyBuilder

# As many numbers as a core's cache holds many arrays of.
_CACHED_LANES = 16_384


class NumpyDevice(Device):
    """numpy in blocks of lanes; strict by nature, so `arithmetic: fast` gives the same bits."""

    name: ClassVar[str] = "numpy"
    most_units: ClassVar[int] = MOST_UNITS
    can_be_fast: ClassVar[bool] = False
    numpy_cores: ClassVar[float] = 1.0
    process_gib: ClassVar[float] = 0.1
    seconds_a_worker = 5.0

    def __init__(self, choice: DeviceChoice) -> None:
        self._launch = min(choice.launch_paths or MOST_LANES, MOST_LANES)
        self._recipe: path_numpy.Recipe | None = None

    @classmethod
    def unusable(cls) -> str | None:
        return None

    @classmethod
    def devices(cls) -> list[dict[str, Any]]:
        return [
            {
                **processor(),
                "versions": {"numpy": np.__version__, "python": platform.python_version()},
            }
        ]

    def describe(self) -> dict[str, Any]:
        return {"backend": self.name, **self.devices()[0]}

    def launch_paths(self, plan: Plan) -> int:
        return self._launch

    @classmethod
    def worker_environment(cls, folder: str) -> dict[str, str]:
        return {}

    def prepare(self, plan: Plan) -> None:
        self._traced(plan)

    def add(self, plan: Plan, first_path: int, paths: int, keep: int, builder: TallyBuilder) -> Kept | None:
        launch = partial(walk.run, self._traced(plan))
        return run_launches(plan, first_path, paths, keep, builder, self._launch, launch)

    def limits(self) -> Limits:
        adds, here = yardstick.multiply_adds(), np.ones(_CACHED_LANES, np.float32)
        calls, _ = Program(adds.inputs, [adds.result]).bind(_CACHED_LANES, [here], Scratch(_CACHED_LANES))
        halves = philox.split_paths(0, _CACHED_LANES)
        streams = np.arange(yardstick.STREAMS, dtype=np.uint64)[:, None]
        source, target = np.ones(COPIED_BYTES, np.uint8), np.ones(COPIED_BYTES, np.uint8)

        def draw() -> object:
            return philox.draw_words(ops_numpy, 0, streams, np.uint64(0), *halves)

        return Limits(
            multiply_adds=rate(lambda: [call() for call in calls], adds.amount * _CACHED_LANES),
            words=rate(draw, philox.WORDS * streams.size * _CACHED_LANES),
            bytes=rate(lambda: np.copyto(target, source), 2 * COPIED_BYTES),
        )

    def _traced(self, plan: Plan) -> path_numpy.Recipe:
        if self._recipe is None or self._recipe.plan is not plan:
            self._recipe = path_numpy.Recipe(plan)
        return self._recipe

    def joules(self) -> float | None:
        return None
