"""What `gpu_check.sh` runs: parity with numpy, throughput, and how far from what the GPU could do.

python bench/gpu_check.py --json gpu_check.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import common
import kernel_counts
import numpy as np

import offtake
from offtake import hal
from offtake.compile import compile_study
from offtake.errors import DeviceError
from offtake.hal import nvrtc
from offtake.study import DeviceChoice, Study
from offtake_kernels.kernel import Kernel, print_kernel
from offtake_kernels.layout import Plan
from offtake_kernels.path_cuda import Gpu
from offtake_kernels.tally import TallyBuilder

FIRST_PATH = 2**32 - 1000  # so that both halves of a path's number change
KEPT = 200
# Mean distance of fast from strict, in standard deviations, that no rounding explains.
FAR = 0.05
LAUNCHES = (65_536, 131_072, 262_144)
THREADS = (64, 128, 256)
# Warp instructions that a multiprocessor starts in a cycle, and threads of a warp.
_ISSUED, _WARP = 4, 32
_CLOCK_RATE = 13  # cudaDevAttrClockRate


def studies(names: list[str]) -> dict[str, Study]:
    """The studies to be checked, by name; without names, the shipped portfolios and the frozen ones."""
    frozen = {"frozen 12 x 41": common.portfolio(), "plain 12 x 41": common.plain()}
    chosen = names or [*kernel_counts.PORTFOLIOS, *frozen]
    return {name: offtake.load(frozen.get(name, name)) for name in chosen}


def run(plan: Plan, device: str, paths: int, **choice: Any) -> tuple[str, dict[str, np.ndarray]]:
    """Digest of the tally of a plan's paths, and those kept whole."""
    opened = hal.open_device(DeviceChoice.model_validate({"name": device, **choice}))
    tally, kept = opened.run(plan, FIRST_PATH, paths, KEPT)
    assert kept is not None
    return tally.digest(), {**kept.quarter_values, **kept.scalar_values}


def parity(name: str, plan: Plan, paths: int) -> dict[str, Any]:
    """Whether strict gives numpy's bits at several launch sizes, the default among them, and how far the kept
    paths of fast stray: the largest difference in standard deviations of its metric.
    """
    digest, kept = run(plan, "numpy", paths)
    same = True
    for size in (None, 700, 65_536, 100_000):
        found, whole = run(plan, "cuda", paths, launch_paths=size)
        same &= found == digest and all(np.array_equal(whole[m], v, equal_nan=True) for m, v in kept.items())
    _, fast = run(plan, "cuda", paths, arithmetic="fast")
    stray = max(float(np.abs(fast[m] - v).mean() / (v.std() + 1e-6)) for m, v in kept.items())
    found = {
        "portfolio": name,
        "paths": paths,
        "strict_is_numpys": same,
        "fast_strays": float(f"{stray:.3g}"),
    }
    print(found, flush=True)
    return found


def throughput(kernel: Kernel, arithmetic: str, threads: int, launch: int, rounds: int) -> dict[str, Any]:
    """Paths a second on the first GPU, the table of bins included; the median of `rounds` after a warm-up."""
    cupy = importlib.import_module("cupy")
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    architecture = 10 * properties["major"] + properties["minor"]
    strict = arithmetic == "strict"
    begun = time.perf_counter()
    code = nvrtc.cubin(cupy.cuda.nvrtc, kernel.source, architecture, strict=strict, threads=threads)
    compiling = time.perf_counter() - begun
    gpu = Gpu(cupy, kernel, code, 0, launch, threads)
    paths, seconds = 4 * launch, []
    for _ in range(rounds + 1):
        builder = TallyBuilder(kernel.plan.rows, kernel.plan.threshold_rows)
        begun = time.perf_counter()
        gpu.run(0, paths, 0, builder)
        seconds.append(time.perf_counter() - begun)
    launches = sorted(_launch_seconds(gpu, cupy) for _ in range(rounds))
    return {
        "arithmetic": arithmetic,
        "threads": threads,
        "launch_paths": gpu.launch_paths,
        "compile_seconds": round(compiling, 3),
        "paths_per_second": paths / sorted(seconds[1:])[rounds // 2],
        "kernel_paths_per_second": gpu.launch_paths / launches[rounds // 2],
    }


def _launch_seconds(gpu: Gpu, cupy: Any) -> float:
    """One launch of paths and its tally, without moving the sums to the host."""
    slot = gpu._slots[0]
    cupy.cuda.Device(0).synchronize()
    begun = time.perf_counter()
    gpu._start(slot, 0, gpu.launch_paths)
    slot.stream.synchronize()
    seconds = time.perf_counter() - begun
    gpu._table.clear()
    cupy.cuda.Device(0).synchronize()
    return seconds


def bound(name: str, arithmetic: str) -> float | None:
    """Paths a second if the GPU started an instruction in every slot, by the count in kernel.md."""
    cupy = importlib.import_module("cupy")
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    results = Path(__file__).parent / "results" / "kernel.json"
    for row in json.loads(results.read_text())["kernels"]:
        if (row["portfolio"], row["arithmetic"]) == (name, arithmetic) and "instructions" in row:
            kilohertz = cupy.cuda.runtime.deviceGetAttribute(_CLOCK_RATE, 0)
            issued = properties["multiProcessorCount"] * kilohertz * 1e3 * _ISSUED * _WARP
            return issued / row["instructions"]
    return None


def measure(names: list[str], paths: int, parity_paths: int, rounds: int) -> Iterator[dict[str, Any]]:
    """The report, as it grows."""
    device = hal.open_device(DeviceChoice(name="cuda"))
    known = studies(names)
    report: dict[str, Any] = {"device": device.describe(), "offtake": offtake.__version__}
    compiled = {name: compile_study(study).plan for name, study in known.items()}
    report["parity"] = [parity(name, plan, parity_paths) for name, plan in compiled.items()]
    yield report
    report["throughput"] = []
    for name, plan in compiled.items():
        kernel = print_kernel(plan)
        for arithmetic, threads, launch in product(("strict", "fast"), THREADS, LAUNCHES):
            row = {"portfolio": name, **throughput(kernel, arithmetic, threads, launch, rounds)}
            most = bound(name, arithmetic)
            row["share_of_issue_bound"] = most and float(f"{row['kernel_paths_per_second'] / most:.3g}")
            report["throughput"].append(row)
            print(row, flush=True)
        yield report
    report["long_run"] = long_run(*next(iter(known.items())), paths)
    yield report


def long_run(name: str, study: Study, paths: int) -> dict[str, Any]:
    """One study of many paths, statistics and all."""
    settings = study.study.model_copy(update={"paths": paths, "keep_paths": 0})
    begun = time.perf_counter()
    result = offtake.run(study.model_copy(update={"study": settings}), device="cuda")
    seconds = time.perf_counter() - begun
    found = {
        "portfolio": name,
        "paths": paths,
        "seconds": round(seconds, 1),
        "summary_hash": result.summary_hash,
    }
    print(found, flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Parity and throughput of the CUDA backend on this machine.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the report")
    parser.add_argument("--paths", type=float, default=1e9, help="of the long run")
    parser.add_argument("--paths-of-parity", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--portfolio", action="append", default=[], help="only this; may be repeated")
    parser.add_argument("--only-parity", metavar="PORTFOLIO", help="exit 1 unless this one has numpy's bits")
    parser.add_argument("--note", nargs=2, metavar=("KEY", "VALUE"), help="add a line to the report")
    parser.add_argument("--verdict", action="store_true", help="exit 1 unless the report is good")
    given = parser.parse_args(arguments)
    if given.only_parity:
        (study,) = studies([given.only_parity]).values()
        found = parity(given.only_parity, compile_study(study).plan, given.paths_of_parity)
        return 0 if found["strict_is_numpys"] else 1
    if given.verdict:
        return _verdict(json.loads(given.json.read_text()))
    if given.note:
        common.save({**json.loads(given.json.read_text()), given.note[0]: given.note[1]}, given.json)
        return 0
    for report in measure(given.portfolio, int(given.paths), given.paths_of_parity, given.rounds):
        common.save(report, given.json)
    return 0


def _verdict(report: dict[str, Any]) -> int:
    """Says what is wrong with a report; 1 when anything is."""
    wrong = [
        f"{row['portfolio']}: strict is not numpy's"
        for row in report["parity"]
        if not row["strict_is_numpys"]
    ]
    wrong += [
        f"{key}: {value}"
        for key, value in report.items()
        if key.startswith("sanitizer") and value == "failed"
    ]
    print("\n".join(wrong) if wrong else "all as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DeviceError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
