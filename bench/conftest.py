"""What a file of benchmarks says about the machine, and the settings that backends are measured with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import offtake
from offtake.hal.host import processor

# pytest-benchmark asks for it at the end, when it would tell of the benchmarks themselves.
LOAD_AT_START = os.getloadavg()


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Adds what the figures depend on; a file that is shown to others need not name the machine."""
    machine_info.pop("node", None)
    machine_info["processor"] = processor()
    machine_info["load_average"] = LOAD_AT_START
    machine_info["offtake"] = offtake.__version__
    machine_info["numpy"] = np.__version__
    installed = importlib.util.find_spec("jax") is not None
    machine_info["jax"] = importlib.metadata.version("jax") if installed else None


@pytest.fixture(scope="session", autouse=True)
def _settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is compiled yet, and JAX leaves to CuPy the memory of a GPU that it does not need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFTAKE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        patch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        yield
