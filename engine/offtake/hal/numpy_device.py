"""The fallback and the reference: numpy on one core. More cores: executor.workers."""

from __future__ import annotations

import os
import platform
from typing import Any, ClassVar

import numpy as np

from offtake.study import DeviceChoice
from offtake_kernels import path_numpy, walk
from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import MOST_LANES, Tally, TallyBuilder


class NumpyDevice:
    """numpy in blocks of lanes; strict by nature, so `arithmetic: fast` gives the same bits."""

    name: ClassVar[str] = "numpy"

    def __init__(self, choice: DeviceChoice) -> None:
        self._launch = min(choice.launch_paths or MOST_LANES, MOST_LANES)
        self._recipe: path_numpy.Recipe | None = None

    @classmethod
    def unusable(cls) -> str | None:
        return None

    @classmethod
    def devices(cls) -> list[dict[str, Any]]:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        return [
            {
                "kind": processor_name(),
                "cores": os.cpu_count(),
                "memory_gib": round(memory, 1),
                "versions": {"numpy": np.__version__, "python": platform.python_version()},
            }
        ]

    def describe(self) -> dict[str, Any]:
        return {"backend": self.name, **self.devices()[0]}

    def launch_paths(self, plan: Plan) -> int:
        return self._launch

    def run(self, plan: Plan, first_path: int, paths: int, keep: int) -> tuple[Tally, Kept | None]:
        builder = TallyBuilder(plan.rows, plan.threshold_rows)
        parts = []
        # Inside a path, invalid values are counted with their path, not warned about.
        with np.errstate(all="ignore"):
            if self._recipe is None or self._recipe.plan is not plan:
                self._recipe = path_numpy.Recipe(plan)
            for offset in range(0, paths, self._launch):
                lanes = min(self._launch, paths - offset)
                wanted = max(0, min(keep - offset, lanes))
                parts.append(walk.run(self._recipe, first_path + offset, lanes, builder, wanted))
        whole = [part for part in parts if part is not None]
        return builder.build(paths), Kept.join(whole) if whole else None


def processor_name() -> str:
    """The processor's model as the system names it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
