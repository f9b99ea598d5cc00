"""Statistics of a tally against their definitions, and their errors against simulation."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offtake.histogram import wilson
from offtake.straddle import Remainders
from offtake.summary import QUANTILES, Row, Summary, ThresholdRow
from offtake_kernels.bins import BIN_BITS
from offtake_kernels.kept import Kept
from offtake_kernels.tally import Tally, TallyBuilder, merge

finite_bits = st.integers(0, 2**32 - 1).filter(lambda b: (b >> 23) & 0xFF != 0xFF)
awkward = st.sampled_from(
    [0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0xBF800000, 0x3F800000]
)
anything = arrays(np.uint32, st.integers(1, 150), elements=st.one_of(finite_bits, awkward))
close = arrays(np.uint32, st.integers(1, 150), elements=st.integers(0x41200000, 0x41230000))
patterns = st.one_of(anything, close)


def summary_of(*columns: np.ndarray, nullable: bool = False, thresholds=(), hits=()) -> Summary:
    builder = TallyBuilder(len(columns), len(thresholds))
    for row, values in enumerate(columns):
        for start in range(0, values.size, 65_536):
            builder.add(row, np.ascontiguousarray(values[start : start + 65_536], np.float32), start)
    for index, count in enumerate(hits):
        builder.add_threshold(index, count)
    rows = [Row("cash", "total", "", quarter, nullable, quarter) for quarter in range(len(columns))]
    return Summary(builder.build(columns[0].size), rows, thresholds)


def order_statistic(values: np.ndarray, p: Fraction) -> float:
    return float(np.sort(values)[max(1, math.ceil(p * values.size)) - 1])


@given(patterns)
def test_moments_are_the_exact_rationals_rounded_once(bits):
    values = bits.view(np.float32)
    statistics = summary_of(values).statistics
    exact = [Fraction(float(v)) for v in values]
    mean = sum(exact) / len(exact)
    assert statistics["mean"][0] == float(mean)
    assert statistics["min"][0] == values.min()
    assert statistics["max"][0] == values.max()
    if len(exact) > 1:
        variance = sum((v - mean) ** 2 for v in exact) / (len(exact) - 1)
        assert statistics["sd"][0] == pytest.approx(math.sqrt(variance), rel=1e-15, abs=0)
        assert statistics["se"][0] == pytest.approx(math.sqrt(variance / len(exact)), rel=1e-15, abs=0)


@given(patterns, st.one_of(st.sampled_from([0.0, 0.07, 0.5, 1.0]), st.floats(0, 1)))
def test_quantiles_are_order_statistics_within_the_bin(bits, p):
    values = bits.view(np.float32)
    summary = summary_of(values)
    for name, exact in QUANTILES.items():
        truth = order_statistic(values, exact)
        assert summary.statistics[name][0] == pytest.approx(truth, rel=2**-9, abs=2**-134)
        assert values.min() <= summary.statistics[name][0] <= values.max()
    truth = order_statistic(values, Fraction(repr(p)))
    assert summary.quantile(0, p)[0] == pytest.approx(truth, rel=2**-9, abs=2**-134)


def test_a_probability_is_the_decimal_it_prints_as():
    assert 0.07 * 100 > 7  # in binary; the 7th of 100 all the same
    assert summary_of(np.arange(1.0, 101.0)).quantile(0, 0.07)[0] == 7.0


def test_kept_paths_join_in_the_order_of_their_ids():
    def part(*ids: int) -> Kept:
        path = np.array(ids, np.uint64)
        return Kept(
            path, {"cash": path[:, None] + np.zeros((1, 3), np.float32)}, {"min_cash": path + np.float32(1)}
        )

    joined = Kept.join([part(4, 5), part(2**40), part(0, 1)])
    assert joined.path.tolist() == [0, 1, 4, 5, 2**40]
    assert joined.quarter_values["cash"][:, 2].tolist() == joined.path.tolist()
    assert joined.scalar_values["min_cash"].tolist() == [1, 2, 5, 6, 2**40 + 1]


@given(st.lists(st.sampled_from([-7.3, -1.0, 0.0, 3.14159, 3.2, 1e30]), min_size=1, max_size=80))
def test_atoms_are_exact(picked):
    values = np.array(picked, np.float32)
    summary = summary_of(values)
    for name, p in QUANTILES.items():
        assert summary.statistics[name][0] == order_statistic(values, p)
    for level in (-7.3, -1.0, 0.0, 3.14159, 3.15, 1e30):
        level = float(np.float32(level))
        for op, holds in {
            "<": values < level,
            "<=": values <= level,
            ">": values > level,
            ">=": values >= level,
        }.items():
            assert summary.probability(0, op, level)[0] == holds.mean(), (op, level)


def brute_tail(values: np.ndarray, low: bool) -> float:
    ordered = np.sort(values.astype(np.float64))
    ordered = ordered if low else ordered[::-1]
    size = values.size / 20
    whole = math.floor(size)
    part = (size - whole) * ordered[whole] if whole < ordered.size else 0.0
    return (ordered[:whole].sum() + part) / size


@given(arrays(np.float32, st.integers(20, 300), elements=st.floats(-1000, 1000, width=32)))
def test_tail_means_follow_brute_force_within_the_bin(values):
    statistics = summary_of(values).statistics
    for name, low in (("es_low", True), ("es_high", False)):
        width = max(float(np.abs(values).max()) * 2**-8, 2**-134)  # of the widest bin
        assert statistics[name][0] == pytest.approx(brute_tail(values, low), abs=width)


@pytest.mark.parametrize("n", [20, 21, 39, 40, 101, 1000])
def test_tail_means_of_atoms_are_exact(n):
    values = np.arange(n, dtype=np.float32) - n // 2  # small integers: every bin is one value
    statistics = summary_of(values).statistics
    assert statistics["es_low"][0] == pytest.approx(brute_tail(values, True), rel=1e-14)
    assert statistics["es_high"][0] == pytest.approx(brute_tail(values, False), rel=1e-14)


def test_error_of_a_tail_mean_is_its_formula():
    values = np.arange(400, dtype=np.float32)  # tail: 0..19, quantile 19
    statistics = summary_of(values).statistics
    expected = math.sqrt((np.var(np.arange(20)) + 0.95 * (9.5 - 19) ** 2) / 20)
    assert statistics["se_es_low"][0] == pytest.approx(expected, rel=1e-12)
    assert statistics["se_es_high"][0] == pytest.approx(expected, rel=1e-12)


def test_too_few_values_give_null_not_zero():
    one = {name: column[0] for name, column in summary_of(np.array([4.5])).statistics.items()}
    assert (one["mean"], one["min"], one["max"], one["p50"], one["paths"]) == (4.5, 4.5, 4.5, 4.5, 1)
    for name in ("sd", "se", "se_p05", "se_p50", "se_p95", "es_low", "es_high", "se_es_low", "se_es_high"):
        assert np.isnan(one[name]), name
    nineteen = summary_of(np.arange(19.0)).statistics
    twenty = summary_of(np.arange(20.0)).statistics
    assert np.isnan(nineteen["es_low"][0])
    assert (twenty["es_low"][0], twenty["es_high"][0]) == (0.0, 19.0)
    assert np.isnan(twenty["se_es_low"][0])


def test_none_is_counted_and_left_out():
    values = np.array([-1.0] * 30 + [0.0] * 10 + [12.7] * 60)
    summary = summary_of(values, nullable=True)
    statistics = {name: column[0] for name, column in summary.statistics.items()}
    real = values[30:].astype(np.float32)
    assert statistics["share_none"] == 0.3
    assert statistics["paths"] == 100
    assert statistics["mean"] == pytest.approx(real.astype(float).mean(), rel=1e-15)
    assert (statistics["min"], statistics["p10"], statistics["p50"]) == (0.0, 0.0, real[-1])
    assert summary.probability(0, "<", 5.0)[0] == 0.1
    assert summary.probability(0, ">=", 0.0)[0] == 0.7
    assert summary_of(values).statistics["min"][0] == -1.0  # the same values where -1 is a number
    assert summary_of(values).statistics["share_none"][0] == 0.0


def test_least_of_a_nullable_row_is_exact_between_atoms():
    values = np.array([-1.0, 3.14159, 3.1416, 3.1417], np.float32)
    assert summary_of(values, nullable=True).statistics["min"][0] == values[1]


def test_a_row_of_none_only_and_an_empty_row_are_null():
    nothing = summary_of(np.full(50, -1.0), nullable=True).statistics
    empty = Summary(Tally.empty(1, 0), [Row("cash", "total", "", 0, False, 0)]).statistics
    assert nothing["share_none"][0] == 1.0
    assert nothing["paths"][0] == 50
    assert empty["paths"][0] == 0
    assert np.isnan(empty["share_none"][0])
    for name in set(nothing) - {"share_none", "paths"}:
        assert np.isnan(nothing[name][0]), name
        assert np.isnan(empty[name][0]), name


def test_nonfinite_values_are_named_and_left_out():
    values = np.array([1, 2, np.inf, 3, np.nan, -np.inf], np.float32)
    summary = summary_of(values, values[:2])
    [(row, count, path)] = summary.nonfinite
    assert (row.metric, row.quarter, count, path) == ("cash", 0, 3, 2)
    assert summary.statistics["mean"][0] == 2.0
    assert summary.statistics["max"][0] == 3.0
    assert summary.statistics["paths"].tolist() == [6, 2]


def test_output_rows_may_share_a_tally_row():
    tally = summary_of(np.arange(10.0), np.arange(10.0) + 5).tally
    rows = [Row("spend", "deal", "aws", 0, False, 1), Row("spend", "supplier", "amazon", 0, False, 1)]
    summary = Summary(tally, rows)
    assert summary.statistics["mean"].tolist() == [9.5, 9.5]
    assert summary.find("spend", "supplier", "amazon", 0) == 1
    assert summary.quantile(1, 0.5) == summary.quantile(0, 0.5)


def test_catalogues_that_do_not_fit_are_refused():
    tally = summary_of(np.arange(10.0)).tally
    row = Row("cash", "total", "", 0, False, 0)
    with pytest.raises(ValueError, match="outside"):
        Summary(tally, [dataclasses.replace(row, tally=1)])
    with pytest.raises(ValueError, match="outside"):
        Summary(tally, [dataclasses.replace(row, tally=-1)])
    with pytest.raises(ValueError, match="two rows"):
        Summary(tally, [row, row])
    with pytest.raises(ValueError, match="thresholds"):
        Summary(tally, [row], [ThresholdRow("cash", "total", "", 0, "<", 0.0)])
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            Summary(tally, [row]).quantile(0, p)
    with pytest.raises(ValueError, match="<="):
        Summary(tally, [row]).probability(0, "=", 1.0)


def test_the_hash_covers_tally_and_catalogues():
    summary = summary_of(
        np.arange(9.0), thresholds=[ThresholdRow("cash", "total", "", 0, "<", 4.0)], hits=[4]
    )
    other_value = summary_of(np.arange(9.0) + 1, thresholds=summary.thresholds, hits=[4])
    other_row = Summary(
        summary.tally, [dataclasses.replace(summary.rows[0], metric="spend")], summary.thresholds
    )
    level = dataclasses.replace(summary.thresholds[0], level=4.0000001)
    other_level = Summary(summary.tally, summary.rows, [level])
    again = Summary(merge([summary.tally, Tally.empty(1, 1)]), summary.rows, summary.thresholds)
    hashes = [s.summary_hash for s in (summary, other_value, other_row, other_level)]
    assert len(set(hashes)) == 4
    assert again.summary_hash == summary.summary_hash
    assert summary.threshold_statistics["probability"].tolist() == [4 / 9]


def test_more_values_than_the_sums_hold_name_the_row():
    tally = summary_of(np.array([1.0, 2.0]), np.array([1.0, 2.0])).tally
    n = np.where(tally.key >> BIN_BITS == 1, 1 << 33, 1)
    with pytest.raises(OverflowError, match="row 1"):
        _ = Summary(dataclasses.replace(tally, n=n), [Row("cash", "total", "", 0, False, 1)]).statistics


def test_the_largest_study_is_exact():
    """2^33 values, the most a row may have, at the largest remainder of the largest bin."""
    most = float(np.finfo(np.float32).max)
    low = 0x7FFF
    tally = summary_of(np.array([most])).tally
    big = 1 << 33
    fields = {"n": big, "low": big * low, "low2": big * low * low}
    tally = dataclasses.replace(tally, **{k: np.array([v], np.int64) for k, v in fields.items()})
    statistics = Summary(tally, [Row("cash", "total", "", 0, False, 0)]).statistics
    assert statistics["mean"][0] == most
    assert statistics["sd"][0] == 0.0
    assert statistics["es_high"][0] == most
    assert statistics["p99"][0] == most


def test_no_rows_have_empty_columns():
    summary = summary_of(np.ones(3, np.float32))
    empty = summary.statistics_of([])
    assert empty.keys() == summary.statistics.keys()
    assert {column.shape for column in (*empty.values(), *summary.statistics_of([]).values())} == {(0,)}
    assert Summary(summary.tally, []).statistics["mean"].shape == (0,)


def test_rows_may_be_more_than_fit_beside_a_bin_in_32_bits():
    rows, paths = (1 << 32 - BIN_BITS) + 3, 8
    builder = TallyBuilder(rows, 0)
    for row in range(rows):
        builder.add(row, np.arange(row, row + paths, dtype=np.float32), 0)
    catalogue = [Row("cash", "total", "", row, False, row) for row in range(rows)]
    summary = Summary(builder.build(paths), catalogue)
    first = np.arange(rows, dtype=np.float64)
    assert (summary.statistics["mean"] == first + (paths - 1) / 2).all()
    assert summary.statistics["p50"] == pytest.approx(first + paths / 2 - 1, rel=0.002)
    assert summary.probability(rows - 1, "<", float(rows - 1))[0] == 0
    assert summary.probability(rows - 1, "<", float(rows - 1 + paths))[0] == 1


def test_wilson_against_published_values():
    """Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20."""
    for hits, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
    ):
        share, se = wilson(hits, count)
        half = 1.96 * se
        centre = (share + 1.96**2 / (2 * count)) / (1 + 1.96**2 / count)
        assert centre - half == pytest.approx(low, abs=1e-4)
        assert centre + half == pytest.approx(high, abs=1e-4)
    assert all(math.isnan(x) for x in wilson(0, 0))


def test_errors_cover_the_truth():
    """Exponential(1), 4,000 studies of 2,000 paths. The share within 1.96 errors is 0.95 but for the
    estimator's own bias; binomial noise is 0.0034, so the band is 0.93 to 0.97 (skewed tail means: 0.915).
    """
    rng = np.random.default_rng(20240611)
    studies, paths = 4000, 2000
    values = rng.exponential(size=(studies, paths)).astype(np.float32)
    builder = TallyBuilder(studies, 0)
    for row in range(studies):
        builder.add(row, values[row], 0)
    rows = [Row("x", "total", "", row, False, row) for row in range(studies)]
    found = Summary(builder.build(paths), rows).statistics
    p05, p50, p95 = (-math.log1p(-p) for p in (0.05, 0.5, 0.95))
    es_high = p95 + 1.0
    es_low = (1 - math.exp(-p05) * (1 + p05)) / 0.05
    for name, error, truth, lowest in (
        ("mean", "se", 1.0, 0.93),
        ("p05", "se_p05", p05, 0.93),
        ("p50", "se_p50", p50, 0.93),
        ("p95", "se_p95", p95, 0.93),
        ("es_low", "se_es_low", es_low, 0.93),
        ("es_high", "se_es_high", es_high, 0.915),
    ):
        covered = (np.abs(found[name] - truth) < 1.96 * found[error]).mean()
        assert lowest < covered < 0.97, (name, covered)
        assert found[error].mean() == pytest.approx(found[name].std(), rel=0.06), name


def shares(values: np.ndarray, exact: float) -> dict[str, float]:
    level = np.float32(exact)
    return {
        "<": (values < level).mean(),
        "<=": (values <= level).mean(),
        ">": (values > level).mean(),
        ">=": (values >= level).mean(),
    }


def test_a_probability_inside_a_bin_of_even_values_divides_it_evenly():
    values = np.linspace(1.0, 2.0, 65_536, dtype=np.float32)
    summary = summary_of(values)
    for level in (1.0, 1.001, 1.5, 1.7003, 1.99999):
        assert summary.probability(0, "<", level)[0] == pytest.approx(level - 1, abs=2e-5)
        assert summary.probability(0, ">=", level)[0] == pytest.approx(2 - level, abs=2e-5)
    assert summary.probability(0, "<", 0.5)[0] == 0.0
    assert summary.probability(0, "<", 2.5)[0] == 1.0
    assert summary.probability(0, ">", math.inf)[0] == 0.0
    assert summary.probability(0, "<", 1e300)[0] == 1.0
    assert summary_of(-values).probability(0, "<", -1.7003)[0] == pytest.approx(0.2997, abs=2e-5)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(-2, 42))
def test_what_is_possible_inside_a_bin_holds_the_truth(remainders, u):
    found = Remainders(
        len(remainders), sum(remainders), sum(x * x for x in remainders), min(remainders), max(remainders)
    )
    least, likely, most = found.up_to(u, u)
    assert least <= sum(x <= u for x in remainders) <= most
    assert least <= likely <= most


@given(patterns, st.data())
def test_an_error_of_a_probability_reaches_the_truth(bits, data):
    """The proven bounds are 1.96 errors away at most, whatever the values are."""
    values = bits.view(np.float32)
    summary = summary_of(values)
    known = data.draw(st.sampled_from(values.tolist()))
    beside = max(min(known * (1 + 2e-5), 3.4e38), -3.4e38)
    for level in (known, beside):
        for op, truth in shares(values, level).items():
            share, se = summary.probability(0, op, level)
            assert abs(share - truth) <= 1.96 * se, (op, level)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_atom_at_a_level_is_on_its_side_of_it(sign):
    """Two thirds of the values are the least of a bin in which others lie too."""
    rng = np.random.default_rng(3)
    values = sign * np.where(rng.random(30_000) < 0.68, 10.0, rng.uniform(10, 40, 30_000)).astype(np.float32)
    summary = summary_of(values)
    for level in (sign * 10.0, sign * 10.0002, sign * 9.9998, sign * 10.02):
        for op, truth in shares(values, level).items():
            share, _ = summary.probability(0, op, level)
            assert share == pytest.approx(truth, abs=2e-4), (op, level)
    blind = summary.probability(0, "<=", 10.0)[1] if sign > 0 else summary.probability(0, ">=", -10.0)[1]
    assert blind > 0.3  # from the moments alone nobody could know that they are not just beyond 10
    seen = summary.probability(0, "<=" if sign > 0 else ">=", sign * 10.0, values[:1000])
    assert seen[0] == pytest.approx(0.68, abs=0.01)
    assert 0.0027 < seen[1] < 0.006  # the binomial alone is 0.0027


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 5, 8, 20, 100, 1000])
def test_few_kept_paths_do_not_make_an_answer_sure(kept):
    """Two atoms within a bin, beside which others lie: the truth is in the interval as often as it says."""
    rng = np.random.default_rng(11)
    atoms = rng.choice([10.004, 10.008, 0.0], 4000, p=[0.45, 0.45, 0.1])
    values = np.where(atoms > 0, atoms, rng.uniform(9, 40, 4000)).astype(np.float32)
    summary, truth = summary_of(values), shares(values, 10.006)["<="]
    missed = 0
    for _ in range(100):
        share, se = summary.probability(0, "<=", 10.006, rng.permutation(values)[:kept])
        missed += abs(share - truth) > 1.96 * se
    assert missed <= 10


def test_kept_paths_do_not_blur_what_the_moments_tell():
    rng = np.random.default_rng(12)
    values = rng.lognormal(0, 0.3, 200_000).astype(np.float32)
    summary = summary_of(values)
    for level in (0.7003, 1.0007, 1.3011):
        truth = shares(values, level)["<"]
        for sample in (values[:0], values[:1000]):
            assert summary.probability(0, "<", level, sample)[0] == pytest.approx(truth, abs=1e-4)


def test_where_every_path_is_kept_a_probability_is_exact():
    values = np.random.default_rng(13).uniform(1.0, 1.01, 1000).astype(np.float32)
    for op, truth in shares(values, 1.005).items():
        found = summary_of(values).probability(0, op, 1.005, values)
        assert found == (pytest.approx(truth, abs=1e-15), wilson(truth * 1000, 1000)[1])


def test_a_kept_zero_is_none_of_the_smallest_negative_values():
    values = np.repeat(np.array([-1e-42, -2e-42, -3e-42, 0.0], np.float32), [400, 200, 100, 300])
    share, se = summary_of(values).probability(0, "<=", -2e-42, values[::3])
    assert abs(share - 0.3) <= 1.96 * se < 0.15


@given(patterns, st.integers(0, 30))
def test_a_probability_grows_with_the_operator(bits, kept):
    values = bits.view(np.float32)
    summary = summary_of(values)
    for level in values[:5].tolist():
        below, up_to = (summary.probability(0, op, level, values[:kept])[0] for op in ("<", "<="))
        assert below <= up_to


def test_two_atoms_in_a_bin_are_not_told_apart_with_certainty():
    values = np.repeat(np.array([10.0, 10.01], np.float32), [600, 400])
    share, se = summary_of(values).probability(0, "<=", 10.0)
    assert abs(share - 0.6) < 1.96 * se
    assert summary_of(values).probability(0, "<=", 10.005)[0] == pytest.approx(0.6, abs=0.3)


def test_a_level_is_rounded_as_values_are():
    values = np.full(10, 0.4, np.float32)  # above 0.4
    assert float(values[0]) > 0.4
    assert summary_of(values).probability(0, "<=", 0.4)[0] == 1.0
    assert summary_of(values).probability(0, "<", 0.4)[0] == 0.0


def test_what_was_counted_as_a_threshold_is_exact():
    values = np.repeat(np.array([10.0, 10.001, 10.02], np.float32), [500, 300, 200])
    threshold = ThresholdRow("cash", "total", "", 0, "<=", 10.001)
    summary = summary_of(values, thresholds=[threshold], hits=[800])
    binomial = wilson(800, 1000)[1]
    assert summary.probability(0, "<=", 10.001) == (0.8, binomial)
    assert summary.probability(0, ">", 10.001) == (0.2, pytest.approx(binomial))
    assert summary.probability(0, "<", 10.001)[1] > binomial  # 300 are at the level
