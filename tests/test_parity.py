"""Strict JAX against numpy: the same tally, bit by bit, on JAX's default device.

`make test` runs a shipped portfolio of each buyer, the example and a few random studies; `make parity`, or
`pytest -m ""` on this file, all of them.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from studies import random_study

import offtake
from offtake import hal
from offtake.compile import compile_study
from offtake.portfolio import load
from offtake.study import DeviceChoice

ROOT = Path(__file__).parent.parent
SHIPPED = sorted(path.stem for path in (ROOT / "conf" / "portfolio").glob("*.yaml"))
EXAMPLE = str(ROOT / "tests" / "data" / "example.yaml")
PATHS = 3000
# Its lanes lie on both sides of the path id at which the high word changes.
FIRST_PATH = 2**32 - 1000
STUDIES = int(os.environ.get("OFFTAKE_PARITY_STUDIES", "200"))
STUDIES_OF_MAKE_TEST = 6
SHIPPED_OF_MAKE_TEST = ("anthropic", "openai")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed"),
]


def _digest(plan, device: str) -> str:
    opened = hal.open_device(DeviceChoice.model_validate({"name": device}))
    return opened.run(plan, FIRST_PATH, PATHS, 0)[0].digest()


@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(name, marks=() if name in SHIPPED_OF_MAKE_TEST else pytest.mark.parity)
            for name in SHIPPED
        ),
        EXAMPLE,
    ],
    ids=lambda name: Path(name).stem,
)
def test_a_shipped_study_has_numpys_bits(name: str):
    plan = compile_study(load(name)).plan
    assert _digest(plan, "jax") == _digest(plan, "numpy")


@pytest.mark.parametrize(
    "seed",
    [
        *range(1000, 1000 + STUDIES_OF_MAKE_TEST),
        *(
            pytest.param(1000 + number, marks=pytest.mark.parity)
            for number in range(STUDIES_OF_MAKE_TEST, STUDIES)
        ),
    ],
)
def test_a_random_study_has_numpys_bits(seed: int):
    plan = compile_study(offtake.load(random_study(seed))).plan
    assert _digest(plan, "jax") == _digest(plan, "numpy")
