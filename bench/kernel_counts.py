"""What the CUDA compiler makes of the printed kernels: registers, spills, and instructions a path by stage.

    python bench/kernel_counts.py --json bench/results/kernel.json

Needs CuPy and NVRTC, but no GPU; instructions need nvdisasm (pip install nvidia-cuda-nvdisasm). An
instruction counts as often as the loop around its source line turns, whether or not a branch leads past it:
the count is an upper bound. Only the slow paths of strict divisions and roots are left out, which are for
numbers near the ends of a float's range.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import common

import offtake
from offtake.compile import compile_study
from offtake.hal import nvrtc
from offtake_kernels.kernel import Kernel, print_kernel
from offtake_kernels.layout import Plan
from offtake_kernels.path_cuda import threads_of

ARCHITECTURES = (75, 80, 90, 100, 120)
PORTFOLIOS = ("openai", "openai_signed", "openai_amazon", "anthropic")
COUNTED = 90
# Where the source goes on with the tally, which is the same in every kernel.
_TALLY = "// The exact tally"
_FOUR = ("cash", "spend", "compute", "capacity_gw")


def plans() -> Iterator[tuple[str, Plan]]:
    """The shipped portfolios, and the plain one: whole, and with four metrics."""
    for name in PORTFOLIOS:
        yield name, compile_study(offtake.load(name)).plan
    plain = compile_study(offtake.load(common.plain())).plan
    yield "plain 12 x 41", plain
    yield "plain 12 x 41, four metrics", four_metrics(plain)


def four_metrics(plan: Plan) -> Plan:
    """The plan recording four totals a quarter, and nothing of the path."""
    wanted = [s for s in plan.quarter_series if s.scope == "total" and s.metric in _FOUR]
    assert len(wanted) == len(_FOUR)
    return dataclasses.replace(plan, quarter_series=tuple(wanted), path_series=(), thresholds=())


def compiled(kernel: Kernel, architecture: int, *, strict: bool) -> dict[str, Any]:
    """Registers, stack and spills of `offtake_paths`, and seconds of compiling."""
    compiler = nvrtc.load()

    begun = time.perf_counter()
    threads = threads_of(kernel, strict=strict)
    options = (*nvrtc.options(architecture, strict=strict, threads=threads), "-lineinfo")
    found = nvrtc.compile_source(compiler, kernel.source, options)
    seconds = time.perf_counter() - begun
    return {**resources(found.log), "seconds": round(seconds, 1), "cubin": found.cubin, "ptx": found.ptx}


def resources(log: str) -> dict[str, int]:
    """Registers and bytes of the path kernel from ptxas' log."""
    part = log[log.index("'offtake_paths'") :]
    numbers = {
        "registers": r"Used (\d+) registers",
        "stack": r"(\d+) bytes stack frame",
        "spill_stores": r"(\d+) bytes spill stores",
        "spill_loads": r"(\d+) bytes spill loads",
    }
    return {name: int(re.search(pattern, part).group(1)) for name, pattern in numbers.items()}  # type: ignore[union-attr]


def turns(kernel: Kernel) -> list[tuple[str, int]]:
    """(stage, how often a path runs it) of every line of the source."""
    plan = kernel.plan
    sizes = {"HISTORY": plan.history, "QUARTERS": plan.quarters}
    lines, stage, unrolled = [], "", False
    open_blocks = [1]
    for line in kernel.source[: kernel.source.index(_TALLY)].splitlines():
        text = line.strip()
        if text.startswith("// "):
            stage = re.sub(r":.*", "", text[3:])
        if text.startswith("extern"):
            stage = "opening"
        times = open_blocks[-1]
        loop = re.match(r"for \(int \w+ = 0; \w+ < (\w+);", text)
        if loop and not unrolled:
            times *= sizes.get(loop[1]) or int(loop[1])
        elif "% 4 == 0" in text:
            times = -(-plan.quarters // 4)
        unrolled = text == "#pragma unroll"
        lines.append((stage, times))
        open_blocks += [times] * (text.count("{") - text.count("}"))
        for _ in range(text.count("}") - text.count("{")):
            open_blocks.pop()
    return lines


def instructions(kernel: Kernel, cubin: bytes) -> dict[str, int]:
    """Instructions a path by stage."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        listing = subprocess.run(
            [disassembler(), "-c", "-gi", file.name], capture_output=True, text=True, check=True
        ).stdout
    where, counts = turns(kernel), {}
    for block in basic_blocks(listing, "offtake_paths"):
        if any("CALL" in text for _, text in block):
            continue
        for line, _ in block:
            stage, times = where[line - 1]
            counts[stage] = counts.get(stage, 0) + times
    return counts


def basic_blocks(listing: str, kernel: str) -> Iterator[list[tuple[int, str]]]:
    """(source line, instruction) of a kernel, cut at labels and branches, without subroutines."""
    line, inside, block = 0, False, []
    for text in listing.splitlines():
        if text.startswith((".text.", "$")):
            inside = text.startswith(f".text.{kernel}:")
        elif found := re.search(r'//## File "[^"]*", line (\d+)', text):
            line = int(found[1])
        elif inside and re.match(r"\s+/\*[0-9a-f]{4,}\*/", text) and "NOP" not in text:
            block.append((line, text))
        if text.startswith(".L_") or re.search(r"\b(BRA|EXIT|RET)\b", text):
            yield block
            block = []
    yield block


@cache
def disassembler() -> str:
    """nvdisasm, from the CUDA toolkit or from its wheel."""
    found = shutil.which("nvdisasm")
    if found is None:
        found = next((str(f) for p in sys.path for f in Path(p).glob("nvidia/cu*/bin/nvdisasm")), None)
    if found is None:
        raise SystemExit("nvdisasm is not here: python -m pip install nvidia-cuda-nvdisasm")
    return found


def measure() -> list[dict[str, Any]]:
    """A row for each portfolio, arithmetic and architecture."""
    rows = []
    for name, plan in plans():
        kernel = print_kernel(plan)
        for architecture in ARCHITECTURES:
            for arithmetic in ("strict", "fast"):
                found = compiled(kernel, architecture, strict=arithmetic == "strict")
                row = {"portfolio": name, "architecture": architecture, "arithmetic": arithmetic}
                cubin, _ = found.pop("cubin"), found.pop("ptx")
                row |= found
                if architecture == COUNTED:
                    row["stages"] = instructions(kernel, cubin)
                    row["instructions"] = sum(row["stages"].values())
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
    return rows


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# The printed kernels, compiled",
        "",
        f"`python bench/kernel_counts.py --json bench/results/kernel.json`, NVRTC {found['nvrtc']}; no GPU",
        "was used. Registers a thread, and bytes spilled beyond them. One thread is one path.",
        "",
        "| portfolio | arithmetic | " + " | ".join(f"sm_{n}" for n in ARCHITECTURES) + " |",
        "|---|---|" + "---|" * len(ARCHITECTURES),
    ]
    rows = found["kernels"]
    for name in dict.fromkeys(row["portfolio"] for row in rows):
        for arithmetic in ("strict", "fast"):
            part = [r for r in rows if (r["portfolio"], r["arithmetic"]) == (name, arithmetic)]
            cells = (f"{r['registers']}, {r['spill_stores'] + r['spill_loads']}" for r in part)
            lines.append(f"| {name} | {arithmetic} | {' | '.join(cells)} |")
    lines += ["", f"## Instructions a path on sm_{COUNTED}", ""]
    counted = [row for row in rows if "stages" in row]
    stages = list(dict.fromkeys(stage for row in counted for stage in row["stages"]))
    lines += [
        "| stage | " + " | ".join(f"{r['portfolio']}, {r['arithmetic']}" for r in counted) + " |",
        "|---|" + "---|" * len(counted),
    ]
    for stage in [*stages, "all"]:
        cells = (r["instructions"] if stage == "all" else r["stages"].get(stage, 0) for r in counted)
        lines.append(f"| {stage} | " + " | ".join(f"{n:,}" for n in cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="What the CUDA compiler makes of the printed kernels.")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the results, and a table beside them"
    )
    given = parser.parse_args()
    compiler = nvrtc.load()

    found = {"nvrtc": "{}.{}".format(*compiler.getVersion()), "kernels": measure()}
    print(table(found))
    common.save(found, given.json)
    if given.json:
        given.json.with_suffix(".md").write_text(table(found))


if __name__ == "__main__":
    main()
