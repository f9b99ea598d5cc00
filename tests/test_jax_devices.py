"""JAX beyond one CPU device: several devices, a compilation cache, and what a TPU would be given."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import simple

from offtake import hal
from offtake.compile import compile_study
from offtake.hal import jax_device
from offtake.portfolio import load
from offtake.study import DeviceChoice

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")

TESTS = Path(__file__).parent
EXAMPLE = TESTS / "data" / "example.yaml"


def _fresh(code: str, cwd: Path, **environment: str) -> list[str]:
    """Words that a piece of Python prints in a new process on the CPU, without settings for JAX of ours."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(TESTS), "JAX_PLATFORMS": "cpu", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


_SEVERAL = """
from offtake import hal
from offtake.compile import compile_study
from offtake.hal import jax_device
from offtake.portfolio import load
from offtake.study import DeviceChoice

plan = compile_study(load({study!r})).plan
for name, choice, on_host in (
    ("numpy", {{}}, True),
    ("jax", {{}}, True),
    ("jax", {{"index": 1}}, True),
    ("jax", {{"launch_paths": 1000}}, False),
):
    jax_device.tallied_on_host = lambda platform: on_host
    device = hal.open_device(DeviceChoice.model_validate({{"name": name, **choice}}))
    print(device.run(plan, 2**32 - 1000, 3000, 0)[0].digest())
    if name == "jax":
        texts = [executable.compiled.as_text() for executable in device._recipe.executables()]
        print(len(device._devices), any("all-" in text or "collective" in text for text in texts))
"""


@pytest.mark.slow
def test_devices_of_a_host_share_the_paths(tmp_path):
    """Two devices, then one of them by its index, then both with their histograms: no device waits for the
    other.
    """
    code = _SEVERAL.format(study=str(EXAMPLE))
    found = _fresh(code, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    numpys, *rest = found
    assert rest == [numpys, "2", "False", numpys, "1", "False", numpys, "2", "False"]


def test_the_product_of_words_from_halves():
    import jax.numpy as jnp
    import numpy as np

    from offtake_kernels.program_jax import _multiply_high

    edges = [0, 1, 0xFFFF, 0x10000, 0x10001, 0x7FFFFFFF, 0x80000000, 0xFFFF0000, 0xFFFFFFFF]
    words = np.array([*edges, *np.random.default_rng(1).integers(0, 2**32, 200)], np.uint32)
    left, right = words[:, None], words
    expected = (left.astype(np.uint64) * right.astype(np.uint64)) >> np.uint64(32)
    found = _multiply_high(jnp.asarray(left), jnp.asarray(right))
    np.testing.assert_array_equal(np.asarray(found), expected)


def _study_code(total: float) -> str:
    fee = {"kind": "commitment", "total": total}
    return (
        "import offtake, simple\n"
        f"cloud = simple.deal(slip={{'quantiles': {{0.1: 0.0, 0.9: {total / 5}}}}}, pays={{'fee': {fee}}})\n"
        f"settings = {{'paths': 100, 'seed': {int(total)}}}\n"
        "study = simple.study({'cloud': cloud}, quarters=5, settings=settings)\n"
        "print(offtake.run(study, device='jax').manifest['summary_hash'])\n"
    )


def test_portfolios_of_one_shape_share_what_a_compilation_cache_holds(tmp_path):
    cache = tmp_path / "cache"
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    first = _fresh(_study_code(10.0), tmp_path, **settings)
    entries = {path.name for path in cache.glob("*-cache")}
    assert any("stage" in name for name in entries)
    assert _fresh(_study_code(12.0), tmp_path, **settings) != first
    assert {path.name for path in cache.glob("*-cache")} == entries


def test_without_a_compilation_cache_nothing_is_written(tmp_path):
    folders = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    _fresh(_study_code(10.0), tmp_path, **folders)
    assert list(tmp_path.iterdir()) == []


def _programs(monkeypatch, platform: str, name: str) -> list[str]:
    """Of every executable, with its histograms, as it is given to that platform's compiler."""
    import jax

    from offtake_kernels.path_jax import Recipe
    from offtake_kernels.placement import Placement

    monkeypatch.setattr(Placement, "platform", platform)
    placement = Placement(jax.devices()[:1])
    recipe = Recipe(compile_study(load(str(EXAMPLE))).plan, placement, strict=True, lanes=1024, runs=256)
    texts = [executable.lowered((name,)).as_text() for executable in recipe.executables()]
    assert any("stablehlo.sort" in text for text in texts)
    # Attributes of an operation, such as a window's padding, are 64-bit numbers of the text alone.
    return [re.sub(r"<\{.*?\}>", "", text) for text in texts]


def test_programs_for_tpus_are_of_32_bits_and_without_scatter(monkeypatch):
    for text in _programs(monkeypatch, "tpu", "tpu"):
        assert re.findall(r"f64|i64|scatter", text) == []


def test_programs_for_gpus_leave_no_quotient_or_root_to_be_approximated(monkeypatch):
    texts = _programs(monkeypatch, "gpu", "cuda")
    found = [re.findall(r"stablehlo\.(divide|sqrt) .*f(\d\d)>", text) for text in texts]
    assert {("divide", "64"), ("sqrt", "64")} <= set().union(*found)
    assert all(bits == "64" for text in found for _, bits in text)
    assert all("scatter" not in text for text in texts)


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_a_stage_that_is_not_cut_has_numpys_bits(monkeypatch, platform: str):
    """As an accelerator is given it: each stage one piece, histograms on the device."""
    from offtake_kernels.placement import Placement

    monkeypatch.setattr(Placement, "platform", platform)
    monkeypatch.setattr(jax_device, "tallied_on_host", lambda platform: False)
    fee = {"kind": "commitment", "total": 10.0}
    cloud = simple.deal(slip={"quantiles": {0.1: 0.0, 0.9: 2.0}}, pays={"fee": fee})
    revenue = {"initial": 4.0, "volatility": 0.3}
    study = simple.study({"cloud": cloud}, quarters=5, factors={"revenue": revenue})
    plan, digests = compile_study(study).plan, []
    for name in ("numpy", "jax"):
        device = hal.open_device(DeviceChoice.model_validate({"name": name}))
        digests.append(device.run(plan, 2**32 - 1000, 3000, 0)[0].digest())
    assert digests[0] == digests[1]
