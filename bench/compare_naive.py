"""offtake's numpy backend beside plain numpy on the frozen portfolio of 12 deals x 41 quarters.

    python bench/compare_naive.py --json bench/results/numpy.json

prints a table and writes it as Markdown next to the JSON. Both run the same study on one core, in
alternation, in one process. Plain numpy holds its arrays whole (3.5 GiB); its simulation alone is timed in
blocks of fewer paths as well, which suit it better. Seconds are CPU seconds of that core
(`time.process_time`), so that other jobs of a shared machine count little. Memory, import time and the quick
study are measured in fresh processes, and wall time is given.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import common
import naive_numpy
import numpy as np

import offtake
from offtake.compile import compile_study
from offtake.hal.host import processor
from offtake_kernels import path_numpy, walk
from offtake_kernels.tally import TallyBuilder

DEALS, QUARTERS = 12, 41
MEMORY_PATHS = (100_000, 1_000_000, 10_000_000)
LONGEST_SECONDS = 1200.0
HERE = Path(__file__).resolve().parent


class NoTally(TallyBuilder):
    """Takes what is recorded and forgets it: what remains is the simulation."""

    def add(self, row: int, values, first_path: int, also=()) -> None:
        """Does nothing."""

    def add_threshold(self, index: int, hits: int) -> None:
        """Does nothing."""


def works(paths: int, block_paths: int) -> dict[str, tuple[int, Callable[[], Any]]]:
    """What is alternated: name → (paths, work)."""
    study, plain = common.study(DEALS, QUARTERS, paths), common.portfolio(DEALS, QUARTERS)
    plan = compile_study(study).plan

    recipe = path_numpy.Recipe(plan)

    def simulate_only() -> None:
        # As the device does: a value that is not finite is counted with its path, not warned about.
        with np.errstate(all="ignore"):
            walk.run(recipe, 0, paths, NoTally(plan.rows, plan.threshold_rows))

    return {
        "offtake_simulate": (paths, simulate_only),
        "naive_simulate": (paths, lambda: naive_numpy.simulate(plain, paths)),
        "block_simulate": (block_paths, lambda: naive_numpy.simulate(plain, block_paths)),
        "offtake_full": (paths, lambda: offtake.run(study).summary.statistics),
        "naive_full": (paths, lambda: naive_numpy.summarise(naive_numpy.simulate(plain, paths))),
    }


def alternate(paths: int, block_paths: int, rounds: int) -> dict[str, Any]:
    """Paths per CPU second of each work, and the ratios round by round."""
    alternated = works(paths, block_paths)
    rates: dict[str, list[float]] = {name: [] for name in alternated}
    for number in range(rounds + 1):
        for name, (count, work) in alternated.items():
            begun = time.process_time()
            work()
            if number:  # the first round warms up
                rates[name].append(count / (time.process_time() - begun))
    found: dict[str, Any] = {name: spread(values) for name, values in rates.items()}
    for other in ("naive_simulate", "block_simulate", "naive_full"):
        pairs = zip(rates[f"offtake_{other.split('_')[1]}"], rates[other], strict=True)
        found[f"ratio_{other}"] = spread([ours / theirs for ours, theirs in pairs])
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def fresh(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a piece of Python in a new process that sees the benchmark's modules."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, *options, "-c", code]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


# A child's ru_maxrss starts from its parent's at the fork, so the high-water mark of its own memory is read.
_MEMORY = """
import resource, time
begun = time.perf_counter()
{work}
seconds = time.perf_counter() - begun
try:
    lines = open("/proc/self/status").read().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
except (OSError, StopIteration):
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(kib * 1024, seconds)
"""


def memory(work: str) -> tuple[float, float]:
    """Peak MiB and wall seconds of a piece of Python in its own process."""
    peak, seconds = fresh(_MEMORY.format(work=work)).stdout.split()[-2:]
    return int(peak) / 2**20, float(seconds)


def peak_memory(work: str, paths_per_second: float, longest: float) -> list[dict[str, Any]]:
    """Peak memory of a piece of Python by the number of {paths} in it; what would take longer than `longest`
    seconds is not run.
    """
    found: list[dict[str, Any]] = []
    for paths in MEMORY_PATHS:
        if paths / paths_per_second > longest:
            found.append({"paths": paths, "peak_mib": None, "seconds": None})
            continue
        peak, seconds = memory(work.format(paths=paths))
        found.append({"paths": paths, "peak_mib": round(peak, 1), "seconds": round(seconds, 2)})
    return found


def import_seconds(runs: int = 7) -> dict[str, dict[str, float]]:
    """Wall seconds of imports in fresh processes, the interpreter's own start excluded."""
    found = {}
    for what in ("offtake", "offtake.cli", "numpy", "offtake.portfolio, offtake.simulate"):
        code = f"import time; begun = time.perf_counter()\nimport {what}\nprint(time.perf_counter() - begun)"
        found[what] = spread([float(fresh(code).stdout) for _ in range(runs)])
    return found


def quick_study(runs: int = 5, device: str = "numpy") -> dict[str, Any]:
    """Wall and CPU seconds of `offtake run study=quick`, from the shell to its last line."""
    wall, cpu = [], []
    command = ["run", "study=quick", f"device={device}"]
    code = f"import sys; from offtake.cli import main; sys.exit(main({command}))"
    for _ in range(runs):
        before, begun = os.times(), time.perf_counter()
        fresh(code)
        wall.append(time.perf_counter() - begun)
        after = os.times()
        cpu.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    return {"wall": spread(wall), "cpu": spread(cpu)}


def measure(paths: int, block_paths: int, rounds: int) -> dict[str, Any]:
    """Everything, as JSON holds it."""
    threads = {name: os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    found: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "processor": processor()["kind"],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "offtake": offtake.__version__,
        "load_average": os.getloadavg()[0],
        "threads": threads,
        "deals": DEALS,
        "quarters": QUARTERS,
        "paths": paths,
        "block_paths": block_paths,
        "rounds": rounds,
        "import_seconds": import_seconds(),
        "quick_study_seconds": quick_study(),
    }
    plain = (
        "import common, naive_numpy\n"
        f"study = common.portfolio({DEALS}, {QUARTERS})\n"
        f"naive_numpy.summarise(naive_numpy.simulate(study, {paths}))"
    )
    found["naive_peak_mib"] = round(memory(plain)[0], 1)
    found["alternation"] = alternate(paths, block_paths, rounds)
    study = f"common.study({DEALS}, {QUARTERS}, {{paths}})"
    work = f"import common, offtake; offtake.run({study}).summary.statistics"
    found["memory"] = peak_memory(work, found["alternation"]["offtake_full"]["least"], LONGEST_SECONDS)
    return found


def _rate(spread: dict[str, float]) -> str:
    return f"{spread['median']:,.0f} ({spread['least']:,.0f} – {spread['most']:,.0f})"


def _number(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['least']:.2f} – {spread['most']:.2f})"


def markdown(found: dict[str, Any]) -> str:
    """The results as a page."""
    times = found["alternation"]
    lines = [
        "# numpy on one core",
        "",
        f"`{found['command']}`",
        "",
        f"{found['processor']}, {found['cores']} cores, one of them used; load {found['load_average']:.1f} at"
        f" the start. Python {found['python']}, numpy {found['numpy']}, offtake {found['offtake']}.",
        "",
        f"{found['deals']} deals x {found['quarters']} quarters. {found['rounds']} rounds in alternation;"
        f" {found['paths']:,} paths a round. Median (least – most).",
        "",
        "| paths a CPU second | offtake | plain numpy | ratio |",
        "|---|---|---|---|",
    ]
    labels = {
        "naive_simulate": "simulation alone",
        "block_simulate": f"simulation alone, plain numpy {found['block_paths']:,} paths at a time",
        "naive_full": "with every statistic",
    }
    for other, label in labels.items():
        ours = times[f"offtake_{other.split('_')[1]}"]
        row = _rate(ours), _rate(times[other]), _number(times[f"ratio_{other}"])
        lines.append(f"| {label} | {' | '.join(row)} |")
    lines += ["", "| paths | peak memory, MiB | wall seconds |", "|---|---|---|"]
    for row in found["memory"]:
        cells = ("not run", "") if row["peak_mib"] is None else (row["peak_mib"], row["seconds"])
        lines.append(f"| {row['paths']:,} | {cells[0]} | {cells[1]} |")
    naive = f"| {found['paths']:,}, plain numpy | {found['naive_peak_mib']} | |"
    lines += [naive, "", "| seconds | median (least – most) |", "|---|---|"]
    for what, spread in found["import_seconds"].items():
        lines.append(
            f"| import {what} | {spread['median']:.3f} ({spread['least']:.3f} – {spread['most']:.3f}) |"
        )
    for kind, spread in found["quick_study_seconds"].items():
        lines.append(f"| offtake run study=quick, {kind} | {_number(spread)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints, and writes where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the results here, and as .md beside it")
    parser.add_argument("--paths", type=int, default=65_536)
    parser.add_argument("--block-paths", type=int, default=8_192)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with suppress(AttributeError):  # not on every system
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found = measure(options.paths, options.block_paths, options.rounds)
    page = markdown(found)
    print(page, end="")
    common.save(found, options.json)
    if options.json is not None:
        options.json.with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
