"""Yardsticks printed as CUDA kernels, and run on one GPU."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np

from .places import Cell, Numbers, Store
from .source import Statements
from .yardstick import Yardstick

THREADS = 256
_BLOCKS_A_PROCESSOR = 8
TURNS = 256
_NAME = "offtake_yardstick"
# A thread keeps what it computes in one number, and writes it when that is this: nearly never.
_NEVER = "0x9e3779b9u"


def print_yardstick(yardstick: Yardstick) -> tuple[str, dict[str, np.ndarray]]:
    """The source of a kernel that does the work `turns` times in every thread, and its constants by name."""
    numbers = Numbers()
    kinds = [value.kind for value in yardstick.inputs]
    names = ["x"] if kinds == ["float"] else ["turn", "lane"]
    inputs = {value.number: Cell(name) for value, name in zip(yardstick.inputs, names, strict=True)}
    kept = "value" if yardstick.result.kind == "word" else "(unsigned)__float_as_int(value)"
    kind = "unsigned" if yardstick.result.kind == "word" else "float"
    lines = Statements(numbers, inputs, [Store(yardstick.result, Cell(f"const {kind} value"))]).lines()
    arrays = {name: numbers.array(name) for name in ("c", "ci", "cw")}
    return "\n".join(_source(lines, arrays, kept)), arrays


def _source(lines: list[str], arrays: dict[str, np.ndarray], kept: str) -> Iterator[str]:
    yield files("offtake_kernels").joinpath("cuda", "prelude.cuh").read_text("utf-8")
    for (name, array), kind in zip(arrays.items(), ("float", "int", "unsigned"), strict=True):
        yield f'extern "C" {{ __constant__ {kind} {name}[{array.size}]; }}'
    yield f'extern "C" __global__ void {_NAME}(unsigned turns, unsigned* out) {{'
    yield "  const unsigned lane = blockIdx.x * blockDim.x + threadIdx.x;"
    yield "  unsigned sum = 0;"
    yield "  for (unsigned turn = 0; turn < turns; ++turn) {"
    yield "    const float x = (float)(lane ^ turn);"
    yield from (f"    {line}" for line in lines)
    yield f"    sum ^= {kept};"
    yield "  }"
    yield f"  if (sum == {_NEVER}) out[0] = sum;"
    yield "}"


class Bench:
    """A yardstick on a GPU. cubin: its kernel, compiled."""

    def __init__(
        self, cupy: Any, yardstick: Yardstick, cubin: bytes, arrays: dict[str, np.ndarray], number: int
    ):
        self._cupy, self._number = cupy, number
        runtime = cupy.cuda.runtime
        with cupy.cuda.Device(number):
            self._module = cupy.cuda.function.Module()
            self._module.load(cubin)
            self._function = self._module.get_function(_NAME)
            for name, array in arrays.items():
                pointer = int(self._module.get_global_var(name))
                runtime.memcpy(pointer, array.ctypes.data, array.nbytes, runtime.memcpyHostToDevice)
            self._out = cupy.zeros(1, np.uint32)
        self._blocks = _BLOCKS_A_PROCESSOR * runtime.getDeviceProperties(number)["multiProcessorCount"]
        self.amount = self._blocks * THREADS * TURNS * yardstick.amount

    def run(self) -> None:
        """Does `amount` of the work; returns when it is done."""
        with self._cupy.cuda.Device(self._number):
            self._function((self._blocks, 1, 1), (THREADS, 1, 1), (np.uint32(TURNS), self._out))
            self._cupy.cuda.Device().synchronize()
