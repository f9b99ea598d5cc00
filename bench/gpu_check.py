"""What `gpu_check.sh` runs: parity with numpy, throughput, and how far from what the GPU could do.

python bench/gpu_check.py --json gpu_check.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import common
import kernel_counts

import offtake
from offtake import hal
from offtake.compile import compile_study
from offtake.errors import DeviceError
from offtake.hal import nvrtc
from offtake.hal.cuda_device import CudaDevice
from offtake.study import DeviceChoice
from offtake_kernels.kernel import Kernel, print_kernel
from offtake_kernels.layout import Plan
from offtake_kernels.path_cuda import Gpu
from offtake_kernels.tally import Tally, TallyBuilder

FIRST_PATH = 2**32 - 1000  # so that both halves of a path's number change
LAUNCHES = (65_536, 131_072, 262_144)
THREADS = (64, 128, 256)
# Warp instructions that a multiprocessor starts in a cycle, and threads of a warp.
_ISSUED, _WARP = 4, 32
_CLOCK_RATE = 13  # cudaDevAttrClockRate


def plans(names: list[str]) -> dict[str, Plan]:
    """The plans to be checked, by name; without names, the shipped portfolios and the frozen ones."""
    frozen = {"frozen 12 x 41": common.portfolio(), "plain 12 x 41": common.plain()}
    chosen = names or [*kernel_counts.PORTFOLIOS, *frozen]
    return {name: compile_study(offtake.load(frozen.get(name, name))).plan for name in chosen}


def tally(plan: Plan, device: str, paths: int, **choice: Any) -> Tally:
    """Paths of a plan on a device."""
    opened = hal.open_device(DeviceChoice.model_validate({"name": device, **choice}))
    return opened.run(plan, FIRST_PATH, paths, 0)[0]


def parity(name: str, plan: Plan, paths: int) -> dict[str, Any]:
    """Whether strict gives numpy's bits, by launch size, and whether fast differs at all."""
    expected = tally(plan, "numpy", paths).digest()
    launches = {size: tally(plan, "cuda", paths, launch_paths=size).digest() for size in (700, 4096, 65_536)}
    fast = tally(plan, "cuda", paths, arithmetic="fast").digest()
    same = all(digest == expected for digest in launches.values())
    found = {"portfolio": name, "paths": paths, "strict_is_numpys": same, "fast_differs": fast != expected}
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


def measure(names: list[str], paths: int, parity_paths: int, rounds: int) -> dict[str, Any]:
    """The whole report."""
    device = hal.open_device(DeviceChoice(name="cuda"))
    assert isinstance(device, CudaDevice)
    known = plans(names)
    report: dict[str, Any] = {"device": device.describe(), "offtake": offtake.__version__}
    report["parity"] = [parity(name, plan, parity_paths) for name, plan in known.items()]
    report["throughput"] = []
    for name, plan in known.items():
        kernel = print_kernel(plan)
        for arithmetic in ("strict", "fast"):
            for threads in THREADS:
                for launch in LAUNCHES:
                    row = {"portfolio": name, **throughput(kernel, arithmetic, threads, launch, rounds)}
                    most = bound(name, arithmetic)
                    row["share_of_issue_bound"] = most and float(
                        f"{row['kernel_paths_per_second'] / most:.3g}"
                    )
                    report["throughput"].append(row)
                    print(row, flush=True)
    report["long_run"] = long_run(next(iter(known)), paths)
    return report


def long_run(name: str, paths: int) -> dict[str, Any]:
    """One study of many paths, statistics and all."""
    study = offtake.load(name, [f"study.paths={paths}", "study.keep_paths=0"])
    begun = time.perf_counter()
    result = offtake.run(study, device="cuda")
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
        (plan,) = plans([given.only_parity]).values()
        return 0 if parity(given.only_parity, plan, given.paths_of_parity)["strict_is_numpys"] else 1
    if given.note or given.verdict:
        report = json.loads(given.json.read_text())
        if given.verdict:
            return _verdict(report)
        report[given.note[0]] = given.note[1]
    else:
        report = measure(given.portfolio, int(given.paths), given.paths_of_parity, given.rounds)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")
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
