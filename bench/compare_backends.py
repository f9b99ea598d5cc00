"""numpy, JAX strict and JAX fast beside one another.

    python bench/compare_backends.py --json bench/results/backends.json

Rates are of paths a CPU second, in alternation, in one process that is pinned to one core before JAX starts;
compiling is apart. Two cores against one, memory, compile time and the quick study are measured in fresh
processes, by wall time. `python docs/tables.py --write` puts the results into docs/devices.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import common
import numpy as np
from compare_naive import NoTally, fresh, peak_memory, quick_study, spread

import offtake
from offtake.compile import compile_study
from offtake.hal.host import cores, processor
from offtake.portfolio import load
from offtake_kernels import walk
from offtake_kernels.bins import MOST_LANES
from offtake_kernels.layout import Plan
from offtake_kernels.tally import TallyBuilder

LONGEST_SECONDS = 600.0
UNITS_OF_A_WORKER = 8
ROUNDS_OF_CORES = 3


def plans() -> dict[str, Plan]:
    """The studies that are compared."""
    return {
        "OpenAI": compile_study(load("openai")).plan,
        "12 x 41": compile_study(common.study(12, 41)).plan,
    }


def recipes(plan: Plan) -> dict[str, Any]:
    """What each backend makes of a plan, compiled."""
    import jax

    from offtake_kernels import path_jax, path_numpy
    from offtake_kernels.placement import Placement

    found: dict[str, Any] = {"numpy": path_numpy.Recipe(plan)}
    for name, strict in (("jax strict", True), ("jax fast", False)):
        found[name] = path_jax.Recipe(
            plan, Placement(jax.devices()[:1]), strict=strict, lanes=16_384
        ).compile()
    return found


def alternate(plan: Plan, rounds: int) -> dict[str, Any]:
    """Paths a CPU second of each backend, alone and with the tally, and its ratio to numpy by round."""
    made = recipes(plan)
    found: dict[str, Any] = {}
    for kind, build in (("simulate", NoTally), ("tally", TallyBuilder)):
        rates: dict[str, list[float]] = {name: [] for name in made}
        for number in range(rounds + 1):
            for name, recipe in made.items():
                rate = _paths_a_second(recipe, build)
                if number:  # the first round warms up
                    rates[name].append(rate)
        for name, values in rates.items():
            ratios = [ours / numpys for ours, numpys in zip(values, rates["numpy"], strict=True)]
            found[f"{name}, {kind}"] = {"rate": spread(values), "ratio": spread(ratios)}
    return found


def _paths_a_second(recipe: Any, build: Callable[[int, int], TallyBuilder]) -> float:
    builder = build(recipe.plan.rows, recipe.plan.threshold_rows)
    begun = time.process_time()
    # As the device does: a value that is not finite is counted with its path, not warned about.
    with np.errstate(all="ignore"):
        walk.run(recipe, 0, MOST_LANES, builder)
    return MOST_LANES / (time.process_time() - begun)


_COMPILING = """
import os, time
os.sched_setaffinity(0, {cores})
from offtake import hal
from offtake.compile import compile_study
from offtake.portfolio import load
from offtake.study import DeviceChoice
plan = compile_study(load("openai")).plan
begun = time.perf_counter()
hal.open_device(DeviceChoice(name="jax")).run(plan, 0, 1, 0)
print(time.perf_counter() - begun)
"""

# Paths a second once every worker has finished a unit: without starting and compiling.
_WORKING = """
import os, time
os.sched_setaffinity(0, {cores})
from offtake.blocks import BLOCK_PATHS, Unit
from offtake.compile import compile_study
from offtake.executors import run_units
from offtake.portfolio import load
from offtake.study import DeviceChoice, ExecutorChoice
plan = compile_study(load("openai")).plan
units = [Unit(number * BLOCK_PATHS, BLOCK_PATHS) for number in range({units})]
device, executor = DeviceChoice(name="jax", threads=1), ExecutorChoice(workers={workers})
ends = [time.perf_counter() for _ in run_units(plan, units, 0, device, executor)]
print((len(ends) - {workers}) * BLOCK_PATHS / (ends[-1] - ends[{workers} - 1]))
"""


def scaling(every: set[int]) -> dict[str, Any]:
    """JAX strict by a worker on one core and by two on two: wall rates and their ratio, in alternation; the
    seconds before the first path of one process on as many cores.
    """
    used = {number: set(sorted(every)[:number]) for number in (1, 2)}
    compiling = {n: float(fresh(_COMPILING.format(cores=these)).stdout) for n, these in used.items()}
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS_OF_CORES):
        for number, these in used.items():
            code = _WORKING.format(cores=these, workers=number, units=UNITS_OF_A_WORKER * number)
            rates[number].append(float(fresh(code).stdout))
    ratios = [both / one for both, one in zip(rates[2], rates[1], strict=True)]
    return {
        "one": spread(rates[1]),
        "two": spread(rates[2]),
        "ratio": spread(ratios),
        "compile_seconds_one_core": compiling[1],
        "compile_seconds_two_cores": compiling[2],
    }


def measure(rounds: int) -> dict[str, Any]:
    """Everything, as JSON holds it."""
    every = set(range(cores()))
    with suppress(AttributeError):  # not on every system
        every = os.sched_getaffinity(0)
    found: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "processor": processor()["kind"],
        "cores": len(every),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "offtake": offtake.__version__,
        "load_average": os.getloadavg()[0],
        "paths": MOST_LANES,
        "rounds": rounds,
        "scaling": scaling(every),
    }
    work = (
        "import offtake; study = offtake.load('openai', ['study.paths={paths}'])\n"
        "offtake.run(study, device='jax').summary.statistics"
    )
    found["memory"] = peak_memory(work, found["scaling"]["two"]["least"], LONGEST_SECONDS)
    found["quick_study_seconds"] = {name: quick_study(3, name) for name in ("numpy", "jax")}
    with suppress(AttributeError):
        os.sched_setaffinity(0, {max(every)})
    import jax

    found["jax"] = jax.__version__
    found["alternation"] = {name: alternate(plan, rounds) for name, plan in plans().items()}
    return found


def main() -> None:
    """Measures, prints, and writes where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = measure(options.rounds)
    print(json.dumps(found, indent=1))
    common.save(found, options.json)


if __name__ == "__main__":
    main()
