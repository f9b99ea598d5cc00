"""Histograms made on a device: the same tally as numpy's, whatever the values."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import simple

from offtake import hal
from offtake.compile import compile_study
from offtake.hal import jax_device
from offtake.portfolio import load
from offtake.study import DeviceChoice
from offtake_kernels.tally import TallyBuilder

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")

EXAMPLE = Path(__file__).parent / "data" / "example.yaml"
LANES, FIRST_PATH = 4096, 2**32 - 1000


def _on_host(values: np.ndarray) -> str:
    builder = TallyBuilder(len(values), 0)
    for row, ours in enumerate(values):
        builder.add(row, np.ascontiguousarray(ours), FIRST_PATH)
    return builder.build(values.shape[1]).digest()


def _on_device(values: np.ndarray, paths: int, runs: int, fetched: bool = True) -> tuple[str, np.ndarray]:
    """(digest, heads of each row: runs, not finite, extremes); without `fetched` no values are to be had."""
    import jax

    from offtake_kernels import tally_jax
    from offtake_kernels.placement import Placement

    histograms = tally_jax.Histograms(len(values), values.shape[1], Placement(jax.devices()[:1]), runs)
    heads, found = (np.asarray(part) for part in histograms(values, paths))
    builder = TallyBuilder(len(values), 0)
    for row in range(len(values)):
        source = values if fetched else None
        tally_jax.add_row(builder, [row], source, row, (heads, found), FIRST_PATH, paths)
    return builder.build(paths).digest(), heads[:, 0]


def _awkward(rng: np.random.Generator) -> np.ndarray:
    """Rows of finite values [rows, LANES]: both signs, zeros of both, denormals, the largest, "none"."""
    normal = rng.normal(0, 3, LANES)
    rows = [
        normal,
        np.abs(normal),
        -np.abs(normal),
        np.where(rng.random(LANES) < 0.5, -1.0, np.abs(normal)),
        rng.choice([0.0, -0.0], LANES),
        rng.choice([0.0, -0.0, 1e-42, -1e-42, 3.4e38, -3.4e38, 1.0], LANES),
        np.full(LANES, 7.25),
        np.full(LANES, -0.0),
        rng.lognormal(3, 0.1, LANES),
    ]
    return np.array(rows, np.float32)


@pytest.mark.parametrize("paths", [LANES, 1000, 1])
def test_finite_values_of_every_kind(paths: int):
    values = _awkward(np.random.default_rng(paths))
    digest, heads = _on_device(values, paths, LANES, fetched=False)
    assert (heads[:, 1] == 0).all()
    assert digest == _on_host(values[:, :paths])


def test_the_largest_remainders_do_not_overflow():
    from offtake_kernels.bins import MOST_LANES

    values = np.full((1, MOST_LANES), 0x4BFFFFFF, np.uint32)
    values[0, 0] -= 1
    values = values.view(np.float32)
    assert _on_device(values, MOST_LANES, 16)[0] == _on_host(values)


@pytest.mark.parametrize("odd", [np.nan, -np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_come_back(odd: float):
    values = _awkward(np.random.default_rng(3))
    values[::2, 17] = odd
    digest, heads = _on_device(values, LANES, LANES)
    assert heads[:, 1].tolist() == [1 - row % 2 for row in range(len(values))]
    assert digest == _on_host(values)
    # Beyond the paths that were asked for it does not count.
    digest, heads = _on_device(values, 17, LANES)
    assert not heads[:, 1].any()
    assert digest == _on_host(values[:, :17])


def test_rows_of_many_runs_come_back():
    values = _awkward(np.random.default_rng(4))
    digest, heads = _on_device(values, LANES, 64)
    assert (heads[:, 0] > 64).any()
    assert (heads[:, 0] <= 64).any()
    assert digest == _on_host(values)


def _digests(monkeypatch, plan, paths: int, keep: int, **choice):
    """Tally and kept paths of numpy, and of JAX with its histograms on the device."""
    monkeypatch.setattr(jax_device, "tallied_on_host", lambda platform: False)
    found = []
    for name in ("numpy", "jax"):
        device = hal.open_device(DeviceChoice.model_validate({"name": name, **choice}))
        tally, kept = device.run(plan, FIRST_PATH, paths, keep)
        found.append((tally.digest(), kept))
    return found


def test_a_study_with_thresholds_and_kept_paths(monkeypatch):
    fee = {"kind": "commitment", "total": 10.0}
    cloud = simple.deal(slip={"quantiles": {0.1: 0.0, 0.9: 2.0}}, pays={"fee": fee})
    thresholds = [{"metric": "revenue", "op": ">", "level": 4.0}]
    study = simple.study(
        {"cloud": cloud},
        quarters=5,
        factors={"revenue": {"initial": 4.0, "volatility": 0.3}},
        settings={"paths": 1, "thresholds": thresholds},
    )
    numpys, ours = _digests(monkeypatch, compile_study(study).plan, 3000, 10, launch_paths=1024)
    assert ours[0] == numpys[0]
    for metric, values in numpys[1].quarter_values.items():
        np.testing.assert_array_equal(ours[1].quarter_values[metric], values)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param("openai", marks=pytest.mark.parity), str(EXAMPLE)], ids=["openai", "example"]
)
def test_shipped_studies(monkeypatch, name: str):
    numpys, ours = _digests(monkeypatch, compile_study(load(name)).plan, 3000, 0)
    assert ours[0] == numpys[0]
