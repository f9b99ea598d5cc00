"""A device without arithmetic: every recorded value is 0. For planning, the command line and reports in
tests.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from offtake.study import DeviceChoice
from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import MOST_LANES, Tally, TallyBuilder


class NullDevice:
    """Records zeros."""

    name: ClassVar[str] = "null"

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

    def run(self, plan: Plan, first_path: int, paths: int, keep: int) -> tuple[Tally, Kept | None]:
        builder = TallyBuilder(plan.rows, plan.threshold_rows)
        zeros = np.zeros(self._launch, np.float32)
        for offset in range(0, paths, self._launch):
            for row in range(plan.rows):
                builder.add(row, zeros[: min(self._launch, paths - offset)], first_path + offset)
        count = min(keep, paths)
        if not count:
            return builder.build(paths), None
        path = np.uint64(first_path) + np.arange(count, dtype=np.uint64)
        kept = Kept(
            path,
            {
                s.metric: np.zeros((count, plan.quarters), np.float32)
                for s in plan.quarter_series
                if s.is_kept
            },
            {plan.kept_name(s): np.zeros(count, np.float32) for s in plan.path_series},
            plan.nullable_names,
        )
        return builder.build(paths), kept
