"""How cost grows with paths, deals, quarters, metrics and workers; memory with paths; start-up.

    python bench/scaling.py --json bench/results/scaling.json      six minutes on a quiet machine
    python bench/scaling.py --plot bench/results/scaling.json      a picture beside it; needs the extra report

The numpy backend on the frozen portfolio, CPU seconds of one core, sizes in turn; an exponent is the slope of
log cost over log size, by least squares. `python docs/tables.py --write` puts the results into docs/bench.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
from compare_naive import fresh, import_seconds, memory, quick_study, spread

import offtake
from offtake import hal
from offtake.compile import compile_study
from offtake.hal.host import processor
from offtake.study import DeviceChoice
from offtake_kernels.layout import Plan

PATHS = 16_384
ROUNDS = 3
SIZES = {
    "paths": (16_384, 65_536, 262_144),
    "deals": (3, 6, 12, 24, 48),
    "quarters": (20, 41, 81, 120),
    "recorded series": (0.25, 0.5, 1.0),
}
MEMORY_PATHS = (65_536, 262_144, 1_048_576)
WORKERS, WORKED_PATHS = (1, 2), 262_144
_MEMORY = "import common, offtake\nofftake.run(common.study(paths={paths})).summary.statistics"
_WORKERS = """
import common, offtake, time
study = offtake.load(common.portfolio(), ["study.paths={paths}", "executor.workers={workers}"])
begun = time.perf_counter()
offtake.run(study).summary.statistics
print(time.perf_counter() - begun)
"""


def plans(dimension: str) -> list[tuple[float, Plan, int]]:
    """(size, plan, paths) of each point of a dimension."""
    whole = compile_study(common.study()).plan
    if dimension == "paths":
        return [(size, whole, size) for size in SIZES["paths"]]
    if dimension == "deals":
        return [(n, compile_study(common.study(n, 41)).plan, PATHS) for n in SIZES["deals"]]
    if dimension == "quarters":
        return [(n, compile_study(common.study(12, n)).plan, PATHS) for n in SIZES["quarters"]]
    found = []
    for share in SIZES["recorded series"]:
        count = round(share * len(whole.quarter_series))
        fewer = dataclasses.replace(whole, quarter_series=whole.quarter_series[:count], thresholds=())
        found.append((count, fewer, PATHS))
    return found


def growth(dimension: str, rounds: int) -> dict[str, Any]:
    """CPU seconds at each size, sizes in turn, and the exponent of their medians."""
    points = [(size, _work(plan, paths)) for size, plan, paths in plans(dimension)]
    seconds: dict[float, list[float]] = {size: [] for size, _ in points}
    for number in range(rounds + 1):
        for size, work in points:
            begun = time.process_time()
            work()
            if number:  # the first round warms up
                seconds[size].append(time.process_time() - begun)
    spreads = [spread(values) for values in seconds.values()]
    return {
        "sizes": list(seconds),
        "seconds": spreads,
        "exponent": exponent(list(seconds), [one["median"] for one in spreads]),
    }


def _work(plan: Plan, paths: int) -> Callable[[], Any]:
    device = hal.open_device(DeviceChoice(name="numpy"))
    return lambda: device.run(plan, 0, paths, 0)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost over log size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def workers() -> list[dict[str, Any]]:
    """Wall seconds of a study by its number of worker processes."""
    found = []
    for number in WORKERS:
        printed = fresh(_WORKERS.format(paths=WORKED_PATHS, workers=number)).stdout
        found.append({"workers": number, "paths": WORKED_PATHS, "seconds": float(printed)})
    return found


def measure(rounds: int) -> dict[str, Any]:
    """Everything, as JSON holds it."""
    found: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "processor": processor()["kind"],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "offtake": offtake.__version__,
        "load_average": os.getloadavg()[0],
        "growth": {dimension: growth(dimension, rounds) for dimension in SIZES},
        "workers": workers(),
        "memory": [],
        "import_seconds": import_seconds(),
        "quick_study_seconds": quick_study(3, "numpy"),
    }
    for paths in MEMORY_PATHS:
        peak, seconds = memory(_MEMORY.format(paths=paths))
        found["memory"].append({"paths": paths, "peak_mib": round(peak, 1), "seconds": round(seconds, 1)})
    return found


def plot(file: Path) -> None:
    """A panel a dimension, both axes logarithmic, with the line of its exponent; saved beside the file."""
    alt: Any = importlib.import_module("altair")
    pd: Any = importlib.import_module("pandas")

    panels = []
    for dimension, one in json.loads(file.read_text())["growth"].items():
        sizes, medians = one["sizes"], [seconds["median"] for seconds in one["seconds"]]
        level = np.exp(np.mean(np.log(medians)) - one["exponent"] * np.mean(np.log(sizes)))
        frame = pd.DataFrame(
            {"size": sizes, "seconds": medians, "fit": level * np.power(sizes, one["exponent"])}
        )
        title = f"{dimension}: exponent {one['exponent']:.2f}"
        x = alt.X("size:Q", title=None, scale=alt.Scale(type="log", nice=False))
        base = alt.Chart(frame, title=title, width=260, height=180).encode(x=x)
        y = alt.Y("seconds:Q", title="CPU s", scale=alt.Scale(type="log", nice=False))
        line = base.mark_line(color="#b3452c", strokeDash=[5, 3]).encode(y="fit:Q")
        panels.append(line + base.mark_point(color="#12365e", filled=True, size=60).encode(y=y))
    rows = alt.vconcat(alt.hconcat(*panels[:2]), alt.hconcat(*panels[2:]))
    rows.save(str(file.with_suffix(".png")), scale_factor=1.5)


def main() -> None:
    """Measures and writes, or plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what such a file holds")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if options.plot:
        plot(options.plot)
        return
    found = measure(options.rounds)
    print(json.dumps(found, indent=1))
    common.save(found, options.json)


if __name__ == "__main__":
    main()
