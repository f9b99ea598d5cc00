"""The printed kernels through the real CUDA compiler, for every architecture; no GPU is needed."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import kernel_counts
import pytest

from offtake.errors import DeviceError
from offtake.hal import nvrtc
from offtake_kernels.kernel import Kernel, print_kernel

RESULTS = Path(__file__).parent.parent / "bench" / "results"
RECORDED = json.loads((RESULTS / "kernel.json").read_text())
MOST_REGISTERS = 255
# A strict kernel holds no approximations, no flushed denormals, and nothing contracted or contractible.
FORBIDDEN = {
    "approximation": r"\.approx",
    "flush to zero": r"\.ftz",
    "contraction": r"\bfma\.",
    "contractible": r"\b(?:add|sub|mul)\.f32",
    "division": r"\bdiv\.full",
}


def _compiler() -> Any:
    try:
        return nvrtc.load()
    except DeviceError:
        return None


COMPILER = _compiler()
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no NVRTC here")


@cache
def _kernels() -> dict[str, Kernel]:
    return {name: print_kernel(plan) for name, plan in kernel_counts.plans()}


def _recorded(**wanted: Any) -> dict[str, Any]:
    """The row of the table, when this compiler made it; otherwise only the limits hold."""
    (row,) = (row for row in RECORDED["kernels"] if wanted.items() <= row.items())
    version = "{}.{}".format(*COMPILER.getVersion())
    return row if version == RECORDED["nvrtc"] else {}


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["strict", "fast"])
@pytest.mark.parametrize("architecture", kernel_counts.ARCHITECTURES)
@pytest.mark.parametrize("portfolio", kernel_counts.PORTFOLIOS)
def test_the_kernel_compiles(portfolio: str, architecture: int, arithmetic: str):
    found = kernel_counts.compiled(_kernels()[portfolio], architecture, strict=arithmetic == "strict")
    assert found["registers"] <= MOST_REGISTERS
    assert found["spill_stores"] == found["spill_loads"] == 0
    if arithmetic == "strict":
        text = found["ptx"]
        assert "div.rn.f32" in text
        for what, pattern in FORBIDDEN.items():
            assert not re.search(pattern, text), what
    recorded = _recorded(portfolio=portfolio, architecture=architecture, arithmetic=arithmetic)
    for name in ("registers", "spill_stores", "spill_loads", "stack"):
        assert recorded.get(name, found[name]) == found[name], "bench/kernel_counts.py writes the table anew"


def test_fast_allows_what_strict_forbids():
    """The patterns find what they look for."""
    text = kernel_counts.compiled(_kernels()["anthropic"], 90, strict=False)["ptx"]
    for what in ("approximation", "flush to zero", "contraction"):
        assert re.search(FORBIDDEN[what], text), what


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["strict", "fast"])
def test_instructions_are_as_recorded(arithmetic: str):
    """Within a tenth of the table, whichever compiler is here: a change that costs more shows."""
    name = "plain 12 x 41, four metrics"
    kernel = _kernels()[name]
    found = kernel_counts.compiled(kernel, kernel_counts.COUNTED, strict=arithmetic == "strict")
    count = sum(kernel_counts.instructions(kernel, found["cubin"]).values())
    rows = (row for row in RECORDED["kernels"] if (row["portfolio"], row["arithmetic"]) == (name, arithmetic))
    recorded = next(row for row in rows if row["architecture"] == kernel_counts.COUNTED)
    assert count == pytest.approx(recorded["instructions"], rel=0.1)


def test_strict_costs_at_most_half_as_much_again_as_fast():
    name = "plain 12 x 41, four metrics"
    rows = [r for r in RECORDED["kernels"] if r["portfolio"] == name and "instructions" in r]
    counts = {row["arithmetic"]: row["instructions"] for row in rows}
    assert counts["strict"] <= 1.5 * counts["fast"]


def test_the_table_says_what_the_file_does():
    assert (RESULTS / "kernel.md").read_text() == kernel_counts.table(RECORDED)


def test_turns_of_lines():
    """Lines count as often as a path runs them."""
    kernel = _kernels()["plain 12 x 41"]
    lines = kernel.source.splitlines()
    turns = kernel_counts.turns(kernel)

    def at(text: str) -> int:
        return turns[next(n for n, line in enumerate(lines) if text in line)][1]

    plan = kernel.plan
    assert at("FRAME(G0_START + k) = ") == 1  # twelve deals, unrolled
    assert at("const float spend = ") == plan.quarters
    assert at("philox_of(block, ") == -(-plan.quarters // 4)
