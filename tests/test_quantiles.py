"""Quantile tables against scipy.stats, closed forms and the medians they promise."""

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import special, stats

from offtake.distributions import Distribution
from offtake.quantiles import GRID, is_degenerate, lowest, median, quantile_table
from offtake_kernels import ops_numpy
from offtake_kernels.quantile_table import REACH, build, interpolate

D = TypeAdapter(Distribution)

FAMILIES = [
    ({"dist": "uniform", "low": 1.0, "high": 3.0}, stats.uniform(1, 2)),
    ({"dist": "normal", "mean": 2.0, "sd": 0.5}, stats.norm(2, 0.5)),
    ({"dist": "truncnorm", "mean": 0.0, "sd": 1.0, "low": -1.0, "high": 2.0}, stats.truncnorm(-1, 2)),
    ({"dist": "truncnorm", "mean": 0.0, "sd": 1.0, "low": 4.0, "high": 6.0}, stats.truncnorm(4, 6)),
    ({"dist": "truncnorm", "mean": 1.0, "sd": 2.0, "low": -9.0, "high": -7.0}, stats.truncnorm(-5, -4, 1, 2)),
    ({"dist": "lognormal", "median": 2.0, "sigma": 0.7}, stats.lognorm(0.7, scale=2)),
    ({"dist": "triangular", "low": 0.0, "mode": 1.0, "high": 4.0}, stats.triang(0.25, 0, 4)),
    ({"dist": "triangular", "low": 1.0, "mode": 1.0, "high": 1.6}, stats.triang(0.0, 1, 0.6)),
    ({"dist": "pert", "low": 0.0, "mode": 1.0, "high": 4.0}, stats.beta(2, 4, 0, 4)),
    ({"dist": "beta", "a": 1.2, "b": 3.0, "low": -1.0, "high": 1.0}, stats.beta(1.2, 3, -1, 2)),
    ({"dist": "gamma", "shape": 2.5, "scale": 3.0}, stats.gamma(2.5, scale=3)),
    ({"dist": "weibull", "shape": 1.5, "scale": 2.0}, stats.weibull_min(1.5, scale=2)),
    ({"dist": "expon", "mean": 2.0}, stats.expon(scale=2)),
]


@pytest.mark.parametrize(("written", "exact"), FAMILIES, ids=lambda case: str(case)[:40])
def test_families_agree_with_scipy_stats_in_both_tails(written, exact):
    z, value = quantile_table(D.validate_python(written))
    lower = exact.ppf(special.ndtr(z[z <= 0]))
    upper = exact.isf(special.ndtr(-z[z > 0]))
    np.testing.assert_allclose(value, np.concatenate([lower, upper]), rtol=1e-9, atol=1e-12)
    assert z[0] == -REACH
    assert z[-1] == REACH


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("far", [37.5, 38.0, 45.0, 400.0])
def test_a_normal_truncated_far_out_is_an_exponential_from_the_nearer_end(far, side):
    """Mills: beyond x the density falls by e in 1/x, nearly."""
    low, high = sorted((side * far, side * (far + 5.0)))
    written = {"dist": "truncnorm", "mean": 0.0, "sd": 1.0, "low": low, "high": high}
    z, value = quantile_table(D.validate_python(written))
    excess = np.abs(value[::side] - side * far)
    np.testing.assert_allclose(excess, -np.log(special.ndtr(-z)) / far, rtol=0.03, atol=1e-9)
    assert low <= value[0]
    assert value[-1] <= high


def test_what_is_too_small_for_every_device_is_zero():
    _, value = quantile_table(D.validate_python({"dist": "gamma", "shape": 0.1, "scale": 2.0}))
    assert value[0] == 0.0
    assert value[value > 0].min() >= 1e-30
    _, value = quantile_table(D.validate_python({"dist": "uniform", "low": -1e-31, "high": 1.0}))
    assert value[0] >= 0.0


def test_lognormal_by_its_quantiles():
    z, value = quantile_table(D.validate_python({"dist": "lognormal", "p10": 1.0, "p90": 9.0}))
    np.testing.assert_allclose(np.interp(special.ndtri([0.1, 0.9]), z, value), [1.0, 9.0], rtol=1e-4)


def test_quantile_points_are_linear_in_the_score_with_kinks_as_nodes():
    table = quantile_table(D.validate_python({"quantiles": {0.1: 0.0, 0.5: 1.0, 0.9: 5.0}, "min": 0.0}))
    z10 = special.ndtri(0.1)
    assert {z10, 0.0, -z10} <= set(table[0])
    np.testing.assert_allclose(
        np.interp([-6.5, z10, z10 / 2, 0, -z10, -2 * z10], *table), [0, 0, 0.5, 1, 5, 9]
    )
    assert median(D.validate_python({"quantiles": {0.1: 0.0, 0.5: 1.0, 0.9: 5.0}})) == 1.0


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (2, 2.0),
        ({"dist": "normal", "mean": 0.3, "sd": 2.0}, -12.7),
        ({"dist": "lognormal", "median": 2.0, "sigma": 0.5}, 2.0 * np.exp(-3.25)),
        ({"quantiles": {0.5: 3.0}}, 3.0),
        ({"quantiles": {0.5: 3.0}, "max": 0.5}, 0.5),
        ({"quantiles": {0.1: 3.0, 0.5: 4.0}}, 4.0 + 6.5 / special.ndtri(0.1)),
        ({"quantiles": {0.1: 3.0, 0.5: 4.0, 0.7: 40.0}, "min": 1.0}, 1.0),
        ({"dist": "discrete", "values": {-5: 0, 2: 1}}, 2.0),
        ({"dist": "mixture", "parts": [{"weight": 1, "of": 7.0}, {"weight": 0, "of": -7.0}]}, 7.0),
    ],
    ids=str,
)
def test_the_lowest_value_is_at_a_score_of_minus_six_and_a_half(written, value):
    assert lowest(D.validate_python(written)) == pytest.approx(value, rel=1e-12)


def _sample(written, score):
    tables = build([quantile_table(D.validate_python(written))])
    return interpolate(ops_numpy, tables, np.int32(0), np.asarray(score, np.float32))


def test_atoms_are_exact_in_the_kernel():
    score = np.linspace(-6.4, 6.4, 100_001)
    drawn = _sample({"dist": "discrete", "values": {0: 1, 3: 2, 7: 1}}, score)
    low, high = special.ndtri(0.25), special.ndtri(0.75)
    np.testing.assert_array_equal(drawn, np.where(score < low, 0, np.where(score < high, 3, 7)))


def test_a_mixture_of_an_atom_and_a_density():
    written = {
        "dist": "mixture",
        "parts": [
            {"weight": 0.3, "of": 0.0},
            {"weight": 0.7, "of": {"dist": "uniform", "low": 1.0, "high": 2.0}},
        ],
    }
    score = special.ndtri((np.arange(20_000) + 0.5) / 20_000)
    drawn = _sample(written, score).astype(np.float64)
    assert np.mean(drawn == 0.0) == 0.3
    np.testing.assert_allclose(drawn[6000:], 1 + (np.arange(14_000) + 0.5) / 14_000, atol=3e-4)


def test_an_atom_inside_a_density():
    written = {
        "dist": "mixture",
        "parts": [
            {"weight": 1, "of": 1.5},
            {"weight": 3, "of": {"dist": "uniform", "low": 1.0, "high": 2.0}},
        ],
    }
    drawn = _sample(written, special.ndtri((np.arange(20_000) + 0.5) / 20_000))
    assert abs(np.mean(drawn == 1.5) - 0.25) <= 2e-4
    assert median(D.validate_python(written)) == 1.5


def test_samples_are_a_step_function(tmp_path):
    (tmp_path / "draws.csv").write_text("slip,other\n3,0\n1,0\n1,0\n2,0\n")
    written = {"samples": {"file": str(tmp_path / "draws.csv"), "column": "slip"}}
    drawn = _sample(written, special.ndtri([0.1, 0.4, 0.6, 0.74, 0.76, 0.99]))
    np.testing.assert_array_equal(drawn, [1, 1, 2, 2, 3, 3])


def test_constants_collapse():
    assert is_degenerate(quantile_table(2.5))
    assert is_degenerate(quantile_table(D.validate_python({"dist": "discrete", "values": {4: 1}})))
    assert not is_degenerate(quantile_table(D.validate_python({"dist": "discrete", "values": {4: 1, 5: 1}})))


def test_several_tables_do_not_leak_into_each_other():
    tables = build([(np.array([-REACH, REACH]), np.array([v, v])) for v in (1.0, 2.0, 3.0)])
    score = np.linspace(-7, 7, 1001, dtype=np.float32)
    for number, value in enumerate((1.0, 2.0, 3.0)):
        assert np.all(interpolate(ops_numpy, tables, np.int32(number), score) == value)


def test_interpolation_is_exact_at_and_between_nodes():
    z, value = GRID, GRID**3
    score = np.random.default_rng(5).normal(size=100_000).astype(np.float32)
    drawn = interpolate(ops_numpy, build([(z, value)]), np.int32(0), score)
    np.testing.assert_allclose(drawn, np.interp(score, z, value), rtol=1e-5, atol=2e-6)
