"""A study: a portfolio in a world, how many paths, what to report, and where to run it.

Get one from `offtake.load`, which checks what concerns several keys at once; these types check one key at a
time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr

from offtake.deals import Portfolio
from offtake.quantities import NonNegativeWhole, Positive, PositiveWhole, Terms, Whole, listed
from offtake.world import World

MOST_PATHS = 2**33

Statistic = Literal[
    "mean", "p01", "p05", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "es_low", "es_high"
]


class Until(Terms):
    """Stop when a statistic is known well enough."""

    metric: str
    """A recorded metric, total scope; of a quarterly metric, every quarter counts."""
    statistic: Statistic
    rel_se: Positive
    """Standard error relative to the statistic."""
    max_paths: Annotated[PositiveWhole, Field(le=MOST_PATHS)] = 10**8
    """Stop here in any case."""


class Threshold(Terms):
    """Report the probability that a metric passes a level."""

    metric: str
    op: Literal["<", "<=", ">", ">="]
    level: float
    """In the metric's unit."""


class StudySettings(Terms):
    """How many paths, and what is reported besides the standard tables."""

    paths: Annotated[PositiveWhole, Field(le=MOST_PATHS)] = 10**6
    seed: Annotated[Whole, Field(ge=0, le=2**64 - 1)] = 7
    """Key of the counter-based generator."""
    until: Until | None = None
    thresholds: Annotated[tuple[Threshold, ...], BeforeValidator(listed)] = ()
    reach: Annotated[tuple[Positive, ...], BeforeValidator(listed)] = ()
    """GW levels for the metrics reach_<level>."""
    keep_paths: NonNegativeWhole = 1024
    """How many paths are kept whole."""


DeviceName = Literal["auto", "cuda", "jax", "numpy", "null"]


def _null_is_a_name(value: Any) -> Any:
    # `name: null` in YAML is the null device, not a missing name.
    return "null" if value is None else value


def _numbers_of_devices(value: Any) -> Any:
    """0, [0, 1] and "0,1" as numbers; "all" as null."""
    if value == "all":
        return None
    if isinstance(value, str):
        value = [int(part) if part.strip().isdigit() else part for part in value.split(",")]
    return (value,) if isinstance(value, int) else listed(value)


class DeviceChoice(Terms):
    """Which backend runs the paths."""

    name: Annotated[Literal["auto", "cuda", "jax", "numpy", "null"], BeforeValidator(_null_is_a_name)] = (
        "auto"
    )
    arithmetic: Literal["strict", "fast"] = "strict"
    """strict gives the same bits on every backend; fast allows fused multiply-add."""
    index: Annotated[
        Annotated[tuple[NonNegativeWhole, ...], Field(min_length=1)] | None,
        BeforeValidator(
            _numbers_of_devices, json_schema_input_type=tuple[NonNegativeWhole, ...] | int | str | None
        ),
    ] = None
    """Which devices of their kind, from 0: one, a list, or all of them (also null)."""
    launch_paths: PositiveWhole | None = None
    """Paths held at once: memory only, never the answer. null chooses."""
    threads: PositiveWhole | None = None
    """CPU threads of a process; null is 1."""


class ExecutorChoice(Terms):
    """Who shares the blocks of paths."""

    name: Literal["local", "ray"] = "local"
    workers: PositiveWhole | None = None
    """Processes. null: `offtake run` takes as many as the machine has and the study is worth, Python one."""


class Study(Terms):
    """Everything that determines the answer, and the device and executor, which do not."""

    portfolio: Portfolio
    world: World
    study: StudySettings = StudySettings()
    device: DeviceChoice = DeviceChoice()
    executor: ExecutorChoice = ExecutorChoice()
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @property
    def warnings(self) -> list[str]:
        """What looks wrong but could be meant, one sentence each."""
        return list(self._warnings)
