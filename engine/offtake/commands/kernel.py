"""`offtake kernel`: the CUDA kernel of a study, and what the compiler makes of it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from offtake.commands.inspect import add_study_arguments, command_parser, one_study

if TYPE_CHECKING:
    from offtake_kernels.kernel import Kernel


def kernel(arguments: Sequence[str]) -> int:
    """Prints the kernel on stdout; with --compile, registers, memory and spills on stderr."""
    parser = command_parser(
        "kernel",
        "Print the CUDA kernel of a study: its shape is printed, its numbers are not.",
        ["offtake kernel portfolio=anthropic", "offtake kernel portfolio=openai device.arithmetic=fast"],
    )
    add_study_arguments(parser)
    parser.add_argument(
        "--compile",
        type=_architecture,
        metavar="ARCHITECTURE",
        help="compile for a compute capability (90 is 9.0) and say what that took; needs no GPU",
    )
    given = parser.parse_intermixed_args(list(arguments))
    study = one_study(given)
    from offtake.compile import compile_study
    from offtake_kernels.kernel import print_kernel

    printed = print_kernel(compile_study(study).plan)
    sys.stdout.write(printed.source)
    if given.compile is not None:
        sys.stdout.flush()
        log = _compile_log(printed, given.compile, strict=study.device.arithmetic == "strict")
        print("\n".join(_resources(log)), file=sys.stderr)
    return 0


def _architecture(text: str) -> int:
    if not re.fullmatch(r"\d{2,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a compute capability like 90")
    return int(text)


def _compile_log(kernel: Kernel, architecture: int, *, strict: bool) -> str:
    from offtake.hal import nvrtc
    from offtake_kernels.path_cuda import threads_of

    compiler = nvrtc.load()
    threads = threads_of(kernel, strict=strict)
    options = nvrtc.options(nvrtc.supported(compiler, architecture), strict=strict, threads=threads)
    return nvrtc.compile_source(compiler, kernel.source, options).log


def _resources(log: str) -> list[str]:
    """One line for each kernel, from ptxas' log."""
    lines = []
    for part in re.split(r"Compiling entry function ", log)[1:]:
        name = re.match(r"'(\w+)'", part)
        numbers: list[Any] = [
            re.search(pattern, part)
            for pattern in (r"Used (\d+) registers", r"(\d+) bytes stack frame", r"(\d+) bytes spill stores")
        ]
        if name and all(numbers):
            registers, stack, spilled = (number[1] for number in numbers)
            lines.append(f"{name[1]}: {registers} registers, {stack} bytes of stack, {spilled} bytes spilled")
    return lines
