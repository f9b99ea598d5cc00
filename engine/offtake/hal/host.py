"""The machine that this process runs on."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from pathlib import Path
from typing import Any

# Memory of a worker process that runs a study, with the worst to be expected of its histograms.
_WORKER_GIB = 2.0
_LIMITS = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may use: those that it may run on, or what its container is allowed."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed, *period = _limit("cpu.max")
    return min(present, math.ceil(float(allowed) / float(period[0]))) if period else present


def processor() -> dict[str, Any]:
    """This machine's processor: kind, cores and memory_gib."""
    return {"kind": _processor_name(), "cores": cores(), "memory_gib": round(memory_gib(), 1)}


def workers() -> int:
    """Worker processes that this machine has cores and memory for."""
    return max(1, min(cores(), int(memory_gib() / _WORKER_GIB)))


def release_memory() -> None:
    """Gives back what is freed already: the C library of Linux keeps it between arrays that are in use."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def memory_gib() -> float:
    """Memory of this machine, or what its container is allowed."""
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed = _limit("memory.max")[0]
    return min(present, int(allowed)) / 2**30 if allowed else present / 2**30


def _limit(name: str) -> list[str]:
    """Words of a limit of the control group that a container sees as its own; [""] where there is none."""
    try:
        words = (_LIMITS / name).read_text(encoding="utf-8").split()
    except OSError:
        words = []
    return words if words and words[0] != "max" else [""]


def _processor_name() -> str:
    """The processor's model as the system names it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
