"""A device without arithmetic: every recorded value is 0. For planning, the command line and reports in
tests.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import numpy as np

from offtake.blocks import MOST_UNITS
from offtake.hal.device import Device
from offtake.hal.launches import run_launches
from offtake.hal.limits import Limits
from offtake.study import DeviceChoice
from offtake_kernels.bins import MOST_LANES
from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import TallyBuilder


class NullDevice(Device):
    """Records zeros."""

    name: ClassVar[str] = "null"
    most_units: ClassVar[int] = MOST_UNITS
    can_be_fast: ClassVar[bool] = False
    numpy_cores: ClassVar[float] = 100.0
    process_gib: ClassVar[float] = 0.1
    seconds_a_worker = math.inf

    def __init__(self, choice: DeviceChoice) -> None:
        self._launch = min(choice.launch_paths or MOST_LANES, MOST_LANES)

    @classmethod
    def unusable(cls) -> str | None:
        return None

    @classmethod
    def devices(cls) -> list[dict[str, Any]]:
        return [{"kind": "nothing is computed", "cores": 0, "memory_gib": 0.0, "versions": {}}]

    def describe(self) -> dict[str, Any]:
        return {"backend": self.name, **self.devices()[0]}

    def launch_paths(self, plan: Plan) -> int:
        return self._launch

    @classmethod
    def worker_environment(cls, folder: str) -> dict[str, str]:
        return {}

    def prepare(self, plan: Plan) -> None:
        return

    def add(self, plan: Plan, first_path: int, paths: int, keep: int, builder: TallyBuilder) -> Kept | None:
        launch = partial(_record_zeros, plan)
        return run_launches(plan, first_path, paths, keep, builder, self._launch, launch)

    def limits(self) -> Limits:
        return Limits(np.inf, np.inf, np.inf)

    def joules(self) -> float | None:
        return None


def _record_zeros(plan: Plan, first_path: int, paths: int, builder: TallyBuilder, keep: int) -> Kept | None:
    zeros = np.zeros(paths, np.float32)
    builder.add(0, zeros, first_path, range(1, plan.rows))
    if not keep:
        return None
    path = np.uint64(first_path) + np.arange(keep, dtype=np.uint64)
    quarters = {
        s.metric: np.zeros((keep, plan.quarters), np.float32) for s in plan.quarter_series if s.is_kept
    }
    scalars = {plan.kept_name(s): np.zeros(keep, np.float32) for s in plan.path_series}
    return Kept(path, quarters, scalars, plan.nullable_names)
