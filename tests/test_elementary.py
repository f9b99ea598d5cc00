"""exp2, log2, the normal and the exponential: largest errors over dense lattices, and their symmetries."""

import numpy as np
from scipy.special import ndtri

from offtake_kernels import elementary, ops_numpy

EDGES = np.concatenate(
    [
        np.arange(2**16),
        2**31 - 1 - np.arange(2**16),
        2**31 + np.arange(2**16),
        2**32 - 1 - np.arange(2**16),
    ]
)
LATTICE = np.concatenate([EDGES, np.arange(0, 2**32, 4099)]).astype(np.uint64)


def _normal(words):
    return elementary.normal(ops_numpy, np.asarray(words, np.uint64))


def test_normal_is_within_2e_6_everywhere():
    tail = ((LATTICE & np.uint64(0x7FFFFFFF)).astype(np.float64) + 0.5) * 2.0**-32
    exact = np.where(LATTICE >> np.uint64(31), -ndtri(tail), ndtri(tail))
    assert np.abs(_normal(LATTICE) - exact).max() <= 2e-6


def test_normal_at_the_corners_is_finite_and_antisymmetric():
    low, high = _normal([0, 2**31 - 1, 12345]), _normal([2**31, 2**32 - 1, 12345 + 2**31])
    np.testing.assert_array_equal(low, -high)
    assert np.all(np.isfinite(low))
    assert abs(high[0] - elementary.LARGEST_NORMAL) < 0.01
    assert low[1] == 0.0


def test_moments_of_the_normal():
    """Mean, variance and kurtosis are 0, 1 and 3 on an even lattice of 2^22 words, to its own accuracy."""
    z = _normal(np.arange(512, 2**32, 1024)).astype(np.float64)
    assert abs(z.mean()) < 1e-12
    assert abs(z.var() - 1.0) < 1e-5
    assert abs((z**4).mean() - 3.0) < 2e-4


def test_exp2():
    x = np.linspace(-125.9, 126.9, 1_000_003).astype(np.float32)
    assert np.abs(elementary.exp2(ops_numpy, x) / 2.0 ** x.astype(np.float64) - 1).max() < 2.2e-7
    whole = np.arange(-126, 127, dtype=np.float32)
    np.testing.assert_array_equal(elementary.exp2(ops_numpy, whole), 2.0 ** whole.astype(np.float64))
    assert np.all(np.isfinite(elementary.exp2(ops_numpy, np.array([-1e30, 1e30], np.float32))))


def test_log2():
    x = np.linspace(0.5, 2.0, 1_000_003).astype(np.float32)
    assert np.abs(elementary.log2(ops_numpy, x) - np.log2(x.astype(np.float64))).max() < 2e-7
    whole = 2.0 ** np.arange(-126, 127)
    np.testing.assert_array_equal(elementary.log2(ops_numpy, whole.astype(np.float32)), np.log2(whole))


def test_exponential_keeps_its_tail():
    exact = -np.log((LATTICE.astype(np.float64) + 0.5) * 2.0**-32)
    drawn = elementary.exponential(ops_numpy, LATTICE)
    assert np.abs(drawn - exact).max() < 2e-6  # a float32 spacing at the largest values
    assert np.all(drawn >= 0)
    far = np.arange(1000, dtype=np.uint64)
    np.testing.assert_allclose(
        elementary.exponential(ops_numpy, far), -np.log((far + 0.5) * 2.0**-32), rtol=3e-7
    )


def test_where_chooses_bits():
    flags = np.array([True, False, True])
    left, right = np.array([-0.0, np.nan, 3], np.float32), np.array([1, -2, np.inf], np.float32)
    chosen = ops_numpy.where(flags, left, right)
    assert np.signbit(chosen[0])
    np.testing.assert_array_equal(chosen[1:], [-2, 3])
    masked = ops_numpy.where(flags, np.array([np.inf, np.nan, -5], np.float32), 0.0)
    np.testing.assert_array_equal(masked, [np.inf, 0, -5])
    assert not np.signbit(masked[1])
