"""The exact tally: integers that commute, and from which the sums follow without error."""

import dataclasses
import pickle
import weakref
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offtake_kernels import tally as tally_module
from offtake_kernels.bins import BIN_BITS, BIN_MASK, LOW_BITS, LOW_MASK, MOST_LANES
from offtake_kernels.tally import MOST_VALUES_A_BIN, Tally, TallyBuilder, merge

any_bits = arrays(np.uint32, st.integers(1, 200), elements=st.integers(0, 2**32 - 1))
few_bins = arrays(np.uint32, st.integers(1, 200), elements=st.integers(0x41200000, 0x41230000))
awkward = st.sampled_from(
    [0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0xBF800000]
)
nonfinite = st.sampled_from([0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001])
edges = arrays(np.uint32, st.integers(1, 60), elements=awkward)
ill = arrays(np.uint32, st.integers(1, 60), elements=st.one_of(awkward, nonfinite))
all_ill = arrays(np.uint32, st.integers(1, 10), elements=nonfinite)
patterns = st.one_of(any_bits, few_bins, edges, ill, all_ill)


def tally_of(values: np.ndarray, first_path: int = 0, cuts: tuple[int, ...] = ()) -> Tally:
    builder = TallyBuilder(1, 0)
    for part, start in zip(np.split(values, cuts), (0, *cuts), strict=True):
        if part.size:
            builder.add(0, np.ascontiguousarray(part), first_path + start)
    return builder.build(values.size)


def plain_bins(values: np.ndarray) -> dict[int, tuple[int, int, int]]:
    """The definition, one value at a time."""
    bins: dict[int, tuple[int, int, int]] = {}
    for value in values:
        bits = 0x7FC00000 if np.isnan(value) else int(value.view(np.uint32))
        bits = 0 if bits == 0x80000000 else bits
        low = bits & LOW_MASK
        n, sum_low, sum_low2 = bins.get(bits >> LOW_BITS, (0, 0, 0))
        bins[bits >> LOW_BITS] = (n + 1, sum_low + low, sum_low2 + low * low)
    return bins


def exact_moments(tally: Tally) -> tuple[Fraction, Fraction]:
    """Sum and sum of squares of row 0 from the integers, as the module docstring derives them."""
    total, squares = Fraction(0), Fraction(0)
    for key, n, low, low2 in zip(tally.key, tally.n, tally.low, tally.low2, strict=True):
        bits = int(key) & BIN_MASK
        sign, exponent, top = (-1 if bits >> 16 else 1), (bits >> 8) & 0xFF, bits & 0xFF
        base = ((1 << 23) if exponent else 0) + (top << LOW_BITS)
        unit = Fraction(2) ** (max(exponent, 1) - 150)
        total += sign * unit * (int(n) * base + int(low))
        squares += unit**2 * (int(n) * base**2 + 2 * base * int(low) + int(low2))
    return total, squares


@given(patterns)
def test_bins_follow_the_definition(bits):
    values = bits.view(np.float32)
    tally = tally_of(values)
    found = {
        int(k): v
        for k, *v in zip(tally.key, tally.n.tolist(), tally.low.tolist(), tally.low2.tolist(), strict=True)
    }
    assert found == {k: list(v) for k, v in plain_bins(values).items()}
    assert (np.diff(tally.key) > 0).all()


@given(patterns)
def test_sums_are_exact_and_extremes_are_those_of_the_finite_values(bits):
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    if values.size:
        tally = tally_of(values)
        assert exact_moments(tally) == (
            sum(Fraction(float(v)) for v in values),
            sum(Fraction(float(v)) ** 2 for v in values),
        )
        assert tally.minimum[0] == values.min()
        assert tally.maximum[0] == values.max()
        assert tally.least_nonnegative[0] == values[values >= 0].min(initial=np.inf)
        assert not np.signbit(tally.minimum[tally.minimum == 0]).any()
        assert tally.nonfinite_row.size == 0


@given(patterns, st.integers(0, 2**64 - 1000), st.data())
def test_any_partition_in_any_order_is_the_same_tally(bits, first_path, data):
    values = bits.view(np.float32)
    whole = tally_of(values, first_path)
    cuts = tuple(sorted(data.draw(st.lists(st.integers(0, values.size), max_size=6))))
    assert tally_of(values, first_path, cuts).digest() == whole.digest()
    starts, parts = (0, *cuts), np.split(values, cuts)
    blocks = [tally_of(p.copy(), first_path + s) for s, p in zip(starts, parts, strict=True)]
    blocks = data.draw(st.permutations(blocks))
    middle = data.draw(st.integers(0, len(blocks)))
    grouped = [merge(group) for group in (blocks[:middle], blocks[middle:]) if group]
    assert merge(blocks).digest() == whole.digest()
    assert merge(grouped).digest() == whole.digest()
    assert merge([whole, Tally.empty(1, 0)]).digest() == whole.digest()


@given(patterns, st.integers(0, 2**64 - 1000))
def test_nonfinite_values_are_counted_with_their_first_path(bits, first_path):
    values = bits.view(np.float32)
    tally = tally_of(values, first_path)
    bad = np.flatnonzero(~np.isfinite(values))
    assert tally.nonfinite_count.sum() == bad.size
    if bad.size:
        assert tally.nonfinite_row.tolist() == [0]
        assert int(tally.nonfinite_first_path[0]) == first_path + int(bad[0])
        finite = values[np.isfinite(values)]
        if finite.size:
            assert (tally.minimum[0], tally.maximum[0]) == (finite.min(), finite.max())
            assert tally.least_nonnegative[0] == finite[finite >= 0].min(initial=np.inf)


def test_every_field_changes_the_digest():
    def build(value=2.5, row=1, hits=3, paths=2, lanes=2) -> str:
        builder = TallyBuilder(3, 2)
        builder.add(row, np.full(lanes, value, np.float32), 10)
        builder.add(2, np.array([1, np.inf], np.float32), 10)
        builder.add_threshold(1, hits)
        return builder.build(paths).digest()

    digests = {build(), build(value=2.5000002), build(row=0), build(hits=4), build(paths=3), build(lanes=3)}
    assert len(digests) == 6
    assert build() == build()
    builder = TallyBuilder(1, 1)
    builder.add(0, np.array([1, -2, np.nan], np.float32), 7)
    tally = builder.build(3)
    changed = {
        name: dataclasses.replace(tally, **{name: array + 1}) for name, array in tally.arrays().items()
    }
    for name, other in changed.items():
        assert other.digest() != tally.digest(), name


def test_rows_and_thresholds_stay_apart():
    rng = np.random.default_rng(5)
    values = rng.normal(0, 3, (40, 500)).astype(np.float32)
    builder = TallyBuilder(40, 3)
    for row in rng.permutation(40):
        builder.add(int(row), values[row], 0)
    builder.add_threshold(0, 4)
    builder.add_threshold(2, 1)
    builder.add_threshold(2, 1)
    tally = builder.build(500)
    assert tally.threshold_hits.tolist() == [4, 0, 2]
    assert merge([tally, tally]).threshold_hits.tolist() == [8, 0, 4]
    for row in range(40):
        mine = (tally.key >> BIN_BITS) == row
        alone = tally_of(values[row])
        assert (tally.key[mine] - (row << BIN_BITS)).tolist() == alone.key.tolist()
        assert tally.low2[mine].tolist() == alone.low2.tolist()
        assert tally.minimum[row] == values[row].min()
        assert tally.maximum[row] == values[row].max()


def test_a_full_block_with_the_largest_remainders_is_exact():
    values = np.full(MOST_LANES, 0x4BFFFFFF, np.uint32)
    values[0] -= 1  # not constant: the general path
    tally = tally_of(values.view(np.float32))
    assert tally.n.tolist() == [MOST_LANES]
    assert int(tally.low[0]) == MOST_LANES * LOW_MASK - 1
    assert int(tally.low2[0]) == (MOST_LANES - 1) * LOW_MASK**2 + (LOW_MASK - 1) ** 2


def test_memory_stays_bounded_for_any_number_of_adds():
    rng = np.random.default_rng(2)
    values = rng.normal(100, 10, (64, 4096)).astype(np.float32)
    values[0] = 5  # one bin
    builder = TallyBuilder(64, 0)
    longest = 0
    for repeat in range(120):
        for row in range(64):
            builder.add(row, values[row], repeat * 4096)
        longest = max(longest, max(len(pieces) for pieces in builder._pieces.values()))
    assert longest <= 16
    alone = TallyBuilder(64, 0)
    for row in range(64):
        alone.add(row, values[row], 0)
    assert builder.build(1).digest() == merge([alone.build(0)] * 119 + [alone.build(1)]).digest()


def heavy_tailed(seed: int, lanes: int = 20_000) -> np.ndarray:
    """Values in some 3,000 bins, half of which are another seed's, too."""
    rng = np.random.default_rng(seed)
    return (rng.choice([-1.0, 1.0], lanes) * np.exp(rng.normal(0, 3, lanes))).astype(np.float32)


def columns_of(values: np.ndarray, row: int) -> list[np.ndarray]:
    """key, n, low and low2 by the definition."""
    bits = values.view(np.uint32).astype(np.int64)
    key, place = np.unique((row << BIN_BITS) + (bits >> LOW_BITS), return_inverse=True)
    columns = [key, *(np.zeros(key.size, np.int64) for _ in range(3))]
    for column, added in zip(columns[1:], (1, bits & LOW_MASK, (bits & LOW_MASK) ** 2), strict=True):
        np.add.at(column, place, added)
    return columns


def test_rows_of_many_bins_grow_where_they_are_and_share_nothing():
    builder, seen = TallyBuilder(3, 0), [[], [], []]
    for seed in range(12):
        values = heavy_tailed(seed)
        rows = [(0, 1, 2), (1,), (2, 0)][seed % 3]
        builder.add(rows[0], values, 0, rows[1:])
        for row in rows:
            seen[row].append(values)
        if seed == 5:
            # What was handed out stays as it is when the builder goes on.
            halfway = builder.build(1)
            digest = halfway.digest()
        for pieces in builder._pieces.values():
            assert sum(bins.size for bins, *_ in pieces[1:]) <= max(1024, pieces[0][0].size)
    tally = builder.build(2)
    expected = [columns_of(np.concatenate(values), row) for row, values in enumerate(seen)]
    found = (tally.key, tally.n, tally.low, tally.low2)
    for column, parts in zip(found, zip(*expected, strict=True), strict=True):
        assert column.tolist() == np.concatenate(parts).tolist()
    assert halfway.digest() == digest
    assert merge([tally_of(v) for v in seen[1]]).n.tolist() == expected[1][1].tolist()


def test_memory_can_be_given_back_while_a_tally_is_made(monkeypatch):
    monkeypatch.setattr(tally_module, "_RELIEVED_BINS", 100)
    builder, alike = TallyBuilder(30, 0), TallyBuilder(30, 0)
    for row in range(30):
        values = np.linspace(1.0, 2.0 + row, 500, dtype=np.float32)
        builder.add(row, values, 0)
        alike.add(row, values, 0)
    called: list[int] = []
    made = builder.build(500, lambda: called.append(1))
    assert 20 < len(called) <= 30
    assert made.digest() == alike.build(500).digest()


def test_a_tally_that_was_absorbed_is_not_held_on_to():
    builder = TallyBuilder(2, 0)
    for seed in range(3):
        alone = TallyBuilder(2, 0)
        alone.add(0, heavy_tailed(seed), 0)
        alone.add(1, np.full(8, seed, np.float32), 0)  # a row of one bin
        tally = alone.build(1)
        held = [weakref.ref(column) for column in (tally.key, tally.n, tally.low, tally.low2)]
        builder.absorb(tally)
        del alone, tally
        assert [column() for column in held] == [None] * 4


def test_absorbing_changes_neither_what_was_absorbed_nor_what_was_handed_out():
    rng = np.random.default_rng(4)
    tallies = [tally_of(rng.normal(0, 1, 3000).astype(np.float32)) for _ in range(4)]
    before = [tally.digest() for tally in tallies]
    builder = TallyBuilder(1, 0)
    handed_out = []
    for number, tally in enumerate(tallies, 1):
        builder.absorb(tally)
        handed_out.append((builder.build(3000 * number), merge(tallies[:number]).digest()))
    assert [tally.digest() for tally in tallies] == before
    assert [tally.digest() for tally, _ in handed_out] == [digest for _, digest in handed_out]


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2**7, 2**15, 2**31, 2**33]))
@settings(max_examples=20)
def test_a_tally_that_is_sent_comes_back_as_it_was_in_fewer_bytes(seed, times):
    values = np.random.default_rng(seed).normal(0, 1, 2000).astype(np.float32)
    values[7] = np.nan
    one = tally_of(values)
    n = np.minimum(one.n * times, MOST_VALUES_A_BIN)
    tally = dataclasses.replace(one, n=n, nonfinite_first_path=one.nonfinite_first_path + np.uint64(2**63))
    sent = pickle.dumps(tally)
    back = pickle.loads(sent)
    assert back.digest() == tally.digest()
    assert {name: array.dtype for name, array in back.arrays().items()} == {
        name: array.dtype for name, array in tally.arrays().items()
    }
    assert len(sent) < sum(array.nbytes for array in tally.arrays().values()) + 1000


def test_a_bin_that_could_overflow_names_its_row():
    def single(n: int) -> Tally:
        one = np.array([n], np.int64)
        empty = Tally.empty(8, 0)
        fields = {
            **vars(empty),
            "key": np.array([(5 << BIN_BITS) + 9], np.int64),
            "n": one,
            "low": one,
            "low2": one,
        }
        return Tally(**fields)

    assert merge([single(MOST_VALUES_A_BIN - 1), single(1)]).n[0] == MOST_VALUES_A_BIN
    with pytest.raises(OverflowError, match="row 5"):
        merge([single(MOST_VALUES_A_BIN), single(1)])


def test_tallies_of_different_studies_are_refused():
    with pytest.raises(ValueError, match="differ"):
        merge([Tally.empty(2, 0), Tally.empty(3, 0)])
    with pytest.raises(ValueError, match="differ"):
        merge([Tally.empty(2, 0), Tally.empty(2, 1)])
    with pytest.raises(ValueError, match="nothing"):
        merge([])


def test_more_lanes_than_a_block_are_refused():
    builder = TallyBuilder(1, 0)
    with pytest.raises(AssertionError):
        builder.add(0, np.zeros(MOST_LANES + 1, np.float32), 0)
    with pytest.raises(AssertionError):
        builder.add(1, np.zeros(4, np.float32), 0)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_bins_handed_over_unsorted_merge_like_sorted_ones(seed):
    rng = np.random.default_rng(seed)
    tally = tally_of(rng.normal(0, 1, 300).astype(np.float32))
    order = rng.permutation(tally.key.size)
    shuffled = Tally(**{**vars(tally), **{f: getattr(tally, f)[order] for f in ("key", "n", "low", "low2")}})
    assert merge([shuffled]).digest() == tally.digest()
