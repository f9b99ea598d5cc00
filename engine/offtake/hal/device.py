"""What a backend offers: availability and why not, a launch size, a synchronised run, and who it is."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from offtake.blocks import MOST_UNITS
from offtake.hal.limits import Limits
from offtake.study import DeviceChoice
from offtake_kernels.kept import Kept
from offtake_kernels.layout import Plan
from offtake_kernels.tally import Tally, TallyBuilder


class Device(Protocol):
    """A device that runs paths of a plan. `add` and `run` return when the work is done: timings need no
    further care.
    """

    name: ClassVar[str]
    # Units that a study is worth: a unit's tally is merged on the host, whatever the device's speed.
    most_units: ClassVar[int] = MOST_UNITS
    # Cores of numpy that it is worth, roughly: for estimates.
    numpy_cores: ClassVar[float] = 1.0
    # Memory of a process that has compiled for it, in GiB, roughly: for estimates.
    process_gib: ClassVar[float]
    # Whether device.arithmetic=fast changes anything.
    can_be_fast: ClassVar[bool] = False
    # Work that one more process must have to be worth its start, in seconds of numpy on a core.
    seconds_a_worker: float

    def __init__(self, choice: DeviceChoice) -> None: ...

    @classmethod
    def unusable(cls) -> str | None:
        """Why this backend cannot run here, and how to change that; None when it can."""
        ...

    @classmethod
    def devices(cls) -> list[dict[str, Any]]:
        """Its devices here: kind, memory_gib, cores, versions."""
        ...

    def describe(self) -> dict[str, Any]:
        """Of the device in use, for provenance."""
        ...

    def launch_paths(self, plan: Plan) -> int:
        """Paths held at once: the choice's, or what suits the device."""
        ...

    @classmethod
    def worker_environment(cls, folder: str) -> dict[str, str]:
        """Variables with which worker processes share through a folder what one of them has compiled."""
        ...

    def prepare(self, plan: Plan) -> None:
        """Does what a plan's first run would do beforehand: compiling."""
        ...

    def add(self, plan: Plan, first_path: int, paths: int, keep: int, builder: TallyBuilder) -> Kept | None:
        """Adds paths first_path … first_path + paths - 1 to a tally; the first `keep` of them whole."""
        ...

    def run(self, plan: Plan, first_path: int, paths: int, keep: int) -> tuple[Tally, Kept | None]:
        """The tally of these paths alone, and the first `keep` of them whole."""
        builder = TallyBuilder(plan.rows, plan.threshold_rows)
        kept = self.add(plan, first_path, paths, keep, builder)
        return builder.build(paths), kept

    def limits(self) -> Limits:
        """What it can do at most, measured now."""
        ...

    def joules(self) -> float | None:
        """Energy that it has taken so far, where it counts that."""
        ...
