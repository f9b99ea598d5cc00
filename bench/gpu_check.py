"""What `gpu_check.sh` runs: parity with numpy, throughput, and how far from what the GPU could do.

python bench/gpu_check.py --json gpu_check.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from offtake.hal.host import cores
from offtake.study import DeviceChoice, Study
from offtake_kernels.kernel import Kernel, print_kernel
from offtake_kernels.layout import Plan
from offtake_kernels.path_cuda import Gpu, threads_of

FIRST_PATH = 2**32 - 1000  # so that both halves of a path's number change
KEPT = 200
# Mean distance of fast from strict, in standard deviations, that no rounding explains.
FAR = 0.05
ARITHMETIC = ("strict", "fast")
LAUNCHES = (65_536, 131_072, 262_144)
THREADS = (64, 96, 128, 160, 192, 224, 256)
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


def kernel_speed(kernel: Kernel, arithmetic: str, rounds: int, **block: int) -> dict[str, Any]:
    """Of one launch on the first GPU: seconds of its paths and of all, median of `rounds` after a warm-up;
    into an empty table, which is harder on the tally than a long run.
    """
    cupy = importlib.import_module("cupy")
    gpu, architecture = loaded(cupy, kernel, arithmetic, **block)
    slot, lanes = gpu._slots[0], gpu.launch_paths
    given = np.uint64(0), np.uint32(lanes), gpu._numbers[0], slot.rows
    threads = gpu._threads["offtake_paths"]
    grid = (-(-lanes // threads), 1, 1)
    paths = median_seconds(cupy, lambda: gpu._call("offtake_paths", grid, given), gpu._table.clear, rounds)
    whole = median_seconds(cupy, lambda: gpu._start(slot, 0, lanes), gpu._table.clear, rounds)
    return {
        "arithmetic": arithmetic,
        "architecture": architecture,
        "threads": threads,
        "launch_paths": lanes,
        "frame_bytes": 4 * kernel.frame,
        "shared_bytes": gpu._shared["offtake_paths"],
        "paths_ms": round(1e3 * paths, 3),
        "launch_ms": round(1e3 * whole, 3),
        "paths_per_second": lanes / whole,
    }


def loaded(
    cupy: Any, kernel: Kernel, arithmetic: str, *, threads: int | None = None, launch: int | None = None
) -> tuple[Gpu, int]:
    """A kernel on the first GPU, and the architecture; block and launch are the device's, or as given."""
    code, architecture, threads = machine_code(cupy, kernel, arithmetic, threads)
    shared = nvrtc.shared_bytes(nvrtc.supported(cupy.cuda.nvrtc, architecture))
    return Gpu(cupy, kernel, code, 0, launch, threads=threads, shared=shared), architecture


def machine_code(cupy: Any, kernel: Kernel, arithmetic: str, threads: int | None) -> tuple[bytes, int, int]:
    """A kernel compiled for the first GPU, its architecture, and the threads of a block."""
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    architecture, strict = 10 * properties["major"] + properties["minor"], arithmetic == "strict"
    threads = threads or threads_of(kernel, strict=strict)
    code = nvrtc.cubin(cupy.cuda.nvrtc, kernel.source, architecture, strict=strict, threads=threads)
    return code, architecture, threads


def median_seconds(cupy: Any, work: Callable[[], Any], prepare: Callable[[], Any], rounds: int) -> float:
    """Seconds of work on the device, from idle to idle."""
    seconds = []
    for _ in range(rounds + 1):
        prepare()
        cupy.cuda.Device(0).synchronize()
        begun = time.perf_counter()
        work()
        cupy.cuda.Device(0).synchronize()
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds[1:])[rounds // 2]


def whole_speed(plan: Plan, arithmetic: str, paths: int) -> dict[str, Any]:
    """Seconds that the device takes for so many paths, sums on the host included."""
    opened = hal.open_device(DeviceChoice.model_validate({"name": "cuda", "arithmetic": arithmetic}))
    opened.run(plan, 0, 1, 0)
    begun = time.perf_counter()
    opened.run(plan, 0, paths, 0)
    seconds = time.perf_counter() - begun
    return {"paths": paths, "seconds": round(seconds, 3), "paths_per_second": paths / seconds}


def compile_all(kernels: list[Kernel]) -> float:
    """Fills the cache of machine code, on every core; returns the seconds."""
    cupy = importlib.import_module("cupy")
    blocks = [(kernel, a, None) for kernel in kernels for a in ARITHMETIC]
    blocks += [(kernels[0], a, threads) for a in ARITHMETIC for threads in THREADS]

    begun = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda block: machine_code(cupy, *block), blocks))
    return round(time.perf_counter() - begun, 1)


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


def measure(
    names: list[str], paths: int, parity_paths: int, speed_paths: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """The report, as it grows."""
    device = hal.open_device(DeviceChoice(name="cuda"))
    known = studies(names)
    report: dict[str, Any] = {"device": device.describe(), "offtake": offtake.__version__}
    compiled = {name: compile_study(study).plan for name, study in known.items()}
    kernels = {name: print_kernel(plan) for name, plan in compiled.items()}
    report["compile_seconds"] = compile_all(list(kernels.values()))
    report["parity"] = [parity(name, plan, parity_paths) for name, plan in compiled.items()]
    yield report
    report["throughput"] = []
    for name, kernel in kernels.items():
        for arithmetic in ARITHMETIC:
            row = {"portfolio": name, **kernel_speed(kernel, arithmetic, rounds)}
            most = bound(name, arithmetic)
            share = most and 1e3 * row["launch_paths"] / row["paths_ms"] / most
            row["share_of_issue_bound"] = share and float(f"{share:.3g}")
            row["whole"] = whole_speed(kernel.plan, arithmetic, speed_paths)
            report["throughput"].append(row)
            print(row, flush=True)
        yield report
    first = next(iter(kernels))
    report["by_block"] = [
        {"portfolio": first, **kernel_speed(kernels[first], arithmetic, rounds, **{key: size})}
        for arithmetic in ARITHMETIC
        for key, sizes in (("threads", THREADS), ("launch", LAUNCHES))
        for size in sizes
    ]
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
    parser.add_argument("--paths-of-speed", type=int, default=1 << 24)
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
    sizes = int(given.paths), given.paths_of_parity, given.paths_of_speed
    for report in measure(given.portfolio, *sizes, given.rounds):
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
