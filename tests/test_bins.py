"""Sums of a row's bins: both ways against the definition, and one tally whichever a processor takes."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offtake_kernels import bins, tally
from offtake_kernels.bins import LOW_BITS, LOW_MASK, MOST_LANES, Scattering, Sorting

ZERO, NEGATIVE_ZERO, NONE, INFINITY = 0, 0x8000_0000, 0xBF80_0000, 0x7F80_0000
awkward = st.sampled_from(
    [ZERO, 1, 0x8000_0001, 0x7FFF, 0x8000, 0x8000_8000, NONE, INFINITY, 0xFF80_0000, 0x7FC0_0000, 0xFFFF_FFFF]
)
patterns = st.one_of(
    arrays(np.uint32, st.integers(1, 200), elements=st.integers(0, 2**32 - 1)),
    arrays(np.uint32, st.integers(1, 200), elements=st.integers(0x4120_0000, 0x4123_0000)),
    arrays(np.uint32, st.integers(1, 60), elements=awkward),
)
WAYS = {"sorting": Sorting(), "scattering": Scattering()}


@pytest.mark.parametrize("way", WAYS)
@given(patterns)
@example(np.array([ZERO], np.uint32))
@example(np.array([NONE, ZERO, NONE], np.uint32))
@example(np.array([0x8000_0001, 0xFF7F_FFFF], np.uint32))
def test_a_row_is_summed_by_bin(way, drawn):
    bits = np.where(drawn == NEGATIVE_ZERO, np.uint32(0), drawn)
    found = WAYS[way](bits.view(np.int32).copy())
    expected: dict[int, list[int]] = {}
    for pattern in bits.view(np.int32).tolist():
        sums = expected.setdefault(pattern >> LOW_BITS, [0, 0, 0])
        low = pattern & LOW_MASK
        for place, more in enumerate((1, low, low * low)):
            sums[place] += more
    columns = (found.n.tolist(), found.low.tolist(), found.low2.tolist())
    assert dict(zip(found.code.tolist(), map(list, zip(*columns, strict=True)), strict=True)) == expected
    assert found.code.tolist() == sorted(expected)


@pytest.mark.parametrize("way", WAYS)
@given(patterns)
@example(np.array([NONE, 0x8000_0001], np.uint32))
@example(np.array([0x3F80_0000, NONE], np.uint32))
def test_extremes_are_those_of_the_values(way, drawn):
    values = drawn.view(np.float32) + np.float32(0)
    least, most, least_nonnegative = WAYS[way](values.view(np.int32).copy()).extremes
    if np.isfinite(values).all():
        assert (least, most) == (values.min(), values.max())
        nonnegative = values[values >= 0]
        assert least_nonnegative == nonnegative.min() if nonnegative.size else np.isnan(least_nonnegative)
    else:
        assert not (np.isfinite(least) and np.isfinite(most))


@pytest.mark.parametrize("way", WAYS)
def test_a_full_row_of_the_largest_remainders_is_exact(way):
    bits = np.full(MOST_LANES, 0x4BFF_FFFF, np.int32)
    found = WAYS[way](bits)
    sums = [found.n, found.low, found.low2]
    assert [column.tolist() for column in sums] == [[MOST_LANES * LOW_MASK**power] for power in range(3)]


@given(st.integers(0, 2**32 - 1))
def test_both_ways_leave_one_tally(seed):
    rng = np.random.default_rng(seed)
    values = (rng.normal(0, 10.0 ** rng.integers(-3, 6), 3000) * (rng.random(3000) < 0.7)).astype(np.float32)
    values[rng.integers(0, 3000, 3)] = rng.choice(np.array([np.nan, -np.nan, np.inf, -np.inf, -1, -0.0]), 3)
    digests = set()
    for way in (Sorting, Scattering):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tally, "quicker", lambda way=way: way)
            builder = tally.TallyBuilder(1, 0)
        for cut in range(0, 3000, 1000):
            builder.add(0, values[cut : cut + 1000], cut)
        digests.add(builder.build(3000).digest())
    assert len(digests) == 1


def test_the_quicker_way_is_one_of_the_two_and_stays():
    assert bins.quicker() in (Sorting, Scattering)
    assert bins.quicker() is bins.quicker()


@pytest.mark.parametrize("slow", [Sorting, Scattering])
def test_the_way_that_takes_longer_is_not_taken(monkeypatch, slow):
    clock = [0.0]

    def timed(way, seconds):
        def call(self, bits):
            clock[0] += seconds

        monkeypatch.setattr(way, "__call__", call)

    timed(Sorting, 2.0 if slow is Sorting else 1.0)
    timed(Scattering, 2.0 if slow is Scattering else 1.0)
    monkeypatch.setattr(bins.time, "perf_counter", lambda: clock[0])
    assert bins.quicker.__wrapped__() is ({Sorting, Scattering} - {slow}).pop()
