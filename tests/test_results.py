"""A result's tables, questions and folder, read back by the tools that analysts use."""

import copy
import dataclasses
import datetime
import io
import json
import math
import pickle
import re

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simple
import xarray as xr
from rich.console import Console

import offtake
from offtake import terminal
from offtake.errors import InputError, OfftakeError
from offtake.headline import Headline
from offtake.portfolio import load
from offtake.results import COLUMNS, TABLES, Result, open_result, period, quarter_number
from offtake.summary import Row, Summary, ThresholdRow
from offtake_kernels.kept import Kept
from offtake_kernels.tally import TallyBuilder

START = datetime.date(2025, 11, 30)
QUARTERS, PATHS = 6, 400
STATISTICS = [name for name in COLUMNS if name not in ("metric", "scope", "name", "quarter", "period")]
STATISTICS = STATISTICS[: STATISTICS.index("se_es_high") + 1]


def ask(query: str, **tables) -> list[tuple]:
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.execute(query).fetchall()


def make_result(seed: int = 1) -> Result:
    rng = np.random.default_rng(seed)
    cash = rng.normal(5, 20, (QUARTERS, PATHS)).astype(np.float32)
    unit_cost = np.where(rng.random((QUARTERS, PATHS)) < 0.3, -1.0, rng.lognormal(1, 1, (QUARTERS, PATHS)))
    first = np.where(rng.random(PATHS) < 0.5, -1.0, 3.0)
    rows = [
        *(Row("cash", "total", "", t, False, t) for t in range(QUARTERS)),
        *(Row("unit_cost", "total", "", t, True, QUARTERS + t) for t in range(QUARTERS)),
        *(Row("cash", "deal", "aws", t, False, t) for t in range(QUARTERS)),
        *(Row("cash", "deal", "oracle", t, False, t) for t in range(QUARTERS)),
        Row("first_shortage", "total", "", None, True, 2 * QUARTERS),
        Row("lateness", "deal", "aws", None, False, 0),
    ]
    thresholds = [
        ThresholdRow("cash", "total", "", 2, "<", 0.0),
        ThresholdRow("first_shortage", "total", "", None, ">=", 0.0),
    ]
    builder = TallyBuilder(2 * QUARTERS + 1, 2)
    for row, values in enumerate([*cash, *unit_cost, first]):
        builder.add(row, values.astype(np.float32), 0)
    builder.add_threshold(0, int((cash[2] < 0).sum()))
    builder.add_threshold(1, int((first >= 0).sum()))
    kept = Kept(
        np.arange(3, dtype=np.uint64) + np.uint64(2**63),
        {"cash": cash[:, :3].T.copy(), "unit_cost": unit_cost[:, :3].T.astype(np.float32)},
        {
            "first_shortage": first[:3].astype(np.float32),
            "aws.lateness": np.array([1, np.nan, -1], np.float32),
        },
        frozenset({"unit_cost", "first_shortage"}),
    )
    manifest = {"version": "0.1", "seed": 7, "config_hash": "c0ffee", "status": "complete"}
    units = {
        "cash": "US$ bn",
        "unit_cost": "US$ per H100e-hour",
        "first_shortage": "quarters",
        "lateness": "quarters",
    }
    return Result(Summary(builder.build(PATHS), rows, thresholds), kept, START, manifest, "seed: 7\n", units)


def test_tables_have_the_columns_of_the_interface():
    result = make_result()
    assert result.quarters.column_names == ["metric", "scope", "name", "quarter", "period", *STATISTICS]
    assert result.scalars.column_names == ["metric", "scope", "name", *STATISTICS]
    assert result.thresholds.column_names == [
        "metric", "scope", "name", "quarter", "op", "level", "probability", "se",
    ]  # fmt: skip
    assert result.paths.column_names == ["path", "quarter", "cash", "unit_cost"]
    assert result.path_scalars.column_names == ["path", "first_shortage", "aws.lateness"]
    assert STATISTICS[-6:] == ["paths", "se_p05", "se_p50", "se_p95", "se_es_low", "se_es_high"]
    assert len(result.quarters) == 4 * QUARTERS
    assert result.quarters["period"].to_pylist()[:3] == ["2025Q4", "2026Q1", "2026Q2"]
    assert result.thresholds["quarter"].to_pylist() == [2, None]
    probability = result.thresholds["probability"].to_pylist()
    assert probability[0] == result.probability("cash", "<", 0.0, quarter=2)
    assert probability[1] == result.probability("first_shortage", ">=", 0.0)


def test_none_and_nan_are_null():
    result = make_result()
    shortage = result.path_scalars["first_shortage"].to_pylist()
    assert set(shortage) <= {3.0, None}
    assert result.path_scalars["aws.lateness"].to_pylist() == [1.0, None, -1.0]
    unit_cost = result.paths["unit_cost"].to_pylist()
    assert all(v is None or v >= 0 for v in unit_cost)
    lone = TallyBuilder(1, 0)
    lone.add(0, np.array([4.0], np.float32), 0)
    summary = Summary(lone.build(1), [Row("cash", "total", "", 0, False, 0)])
    [row] = Result(summary, None, START, {}, "", {}).quarters.to_pylist()
    assert (row["mean"], row["sd"], row["se"], row["es_low"], row["se_p50"]) == (4.0, None, None, None, None)
    assert Result(summary, None, START, {}, "", {}).paths.column_names == ["path", "quarter"]
    assert not any(isinstance(v, float) and math.isnan(v) for v in row.values())


@pytest.mark.parametrize(
    ("start", "quarter", "expected"),
    [
        ((2025, 11, 30), 0, "2025Q4"),
        ((2025, 12, 1), 1, "2026Q1"),
        ((2025, 1, 1), 7, "2026Q4"),
        ((2026, 3, 31), 40, "2036Q1"),
    ],
)
def test_periods_are_calendar_quarters_of_the_first_day(start, quarter, expected):
    assert period(datetime.date(*start), quarter) == expected
    assert quarter_number(expected, datetime.date(*start)) == quarter


def test_questions_find_their_row():
    result = make_result()
    by_number = result.quantile("cash", 0.9, quarter=3)
    assert by_number is not None
    assert result.quantile("cash", 0.9, quarter="2026Q3") == by_number
    assert result.quantile("cash", 0.9, quarter="2026Q3", scope="deal", name="aws") == by_number
    assert result.quarters["p90"].to_pylist()[3] == by_number
    assert by_number.se
    assert by_number.se > 0
    assert json.dumps(by_number) == json.dumps(float(by_number))
    assert pickle.loads(pickle.dumps(by_number)).se == by_number.se
    assert result.quantile("lateness", 0.5, scope="deal") is not None  # the only deal that has it
    chance = result.probability("cash", "<", 0, quarter="2025Q4")
    assert chance is not None
    assert 0 < chance < 1
    assert chance.se == pytest.approx(math.sqrt(chance * (1 - chance) / PATHS), rel=0.01)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (lambda r: r.quantile("cahs", 0.5, quarter=0), "did you mean cash"),
        (lambda r: r.quantile("cash", 0.5, quarter=0, scope="deal"), "which name.*aws, oracle"),
        (lambda r: r.quantile("cash", 0.5, quarter=0, scope="deal", name="orcale"), "did you mean oracle"),
        (lambda r: r.quantile("cash", 0.5, quarter=0, scope="factor"), "no scope 'factor'"),
        (lambda r: r.quantile("cash", 0.5, quarter="2035Q1"), "no quarter 2035Q1; quarters are 0 to 5"),
        (lambda r: r.quantile("cash", 0.5), "which quarter of cash"),
        (lambda r: r.quantile("first_shortage", 0.5, quarter=1), "one number a path"),
        (lambda r: r.quantile("cash", 0.5, quarter="2028-Q1"), "write it as 2028Q1"),
        (lambda r: r.quantile("cash", 1.5, quarter=0), "between 0 and 1"),
        (lambda r: r.probability("cash", "<", "x", quarter=0), "real number"),
        (lambda r: r.probability("cash", "<", 10**400, quarter=0), "too large"),
        (lambda r: r.quantile("cash", "x", quarter=0), "not supported"),
        (lambda r: r.probability("cash", "==", 0, quarter=0), "<="),
    ],
)
def test_questions_that_have_no_answer_say_why(question, words):
    with pytest.raises(InputError, match=words):
        question(make_result())


def test_a_folder_is_read_by_duckdb_polars_and_pandas(tmp_path):
    result = make_result()
    result.save(tmp_path / "run")
    for name in TABLES:
        file, table = str(tmp_path / "run" / f"{name}.parquet"), getattr(result, name).table
        assert pq.read_table(file, page_checksum_verification=True).equals(table)
        assert pl.read_parquet(file).height == table.num_rows
        assert len(pd.read_parquet(file)) == table.num_rows
        assert ask(f"select count(*) from '{file}'") == [(table.num_rows,)]
    quarters = str(tmp_path / "run" / "quarters.parquet")
    query = f"select mean from '{quarters}' where metric = 'cash' and scope = 'total' and period = '2026Q3'"
    expected = result.quarters["mean"].to_pylist()[3]
    assert ask(query) == [(expected,)]
    chosen = (pl.col("metric") == "cash") & (pl.col("scope") == "total") & (pl.col("quarter") == 3)
    assert pl.read_parquet(quarters).filter(chosen)["mean"].to_list() == [expected]


def test_a_flipped_bit_in_a_page_is_seen_by_any_reader_that_checks(tmp_path):
    result = make_result()
    result.save(tmp_path)
    file = tmp_path / "quarters.parquet"
    whole, column = file.read_bytes(), pq.ParquetFile(file).metadata.row_group(0).column(5)
    rng = np.random.default_rng(4)
    start = column.dictionary_page_offset or column.data_page_offset
    for place in rng.integers(start, start + column.total_compressed_size, 100):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        try:
            read = pq.read_table(io.BytesIO(flipped), page_checksum_verification=True)
        except OSError:
            continue
        assert read.equals(result.quarters.table), place


def test_metadata_documents_every_column_and_the_run(tmp_path):
    result = make_result()
    result.save(tmp_path)
    for name in TABLES:
        schema = pq.read_schema(tmp_path / f"{name}.parquet")
        assert all(field.metadata[b"description"] for field in schema)
        assert json.loads(schema.metadata[b"units"])["cash"] == "US$ bn"
        assert schema.metadata[b"summary_hash"].decode() == result.summary_hash
        assert (schema.metadata[b"seed"], schema.metadata[b"config_hash"]) == (b"7", b"c0ffee")
    assert (
        pq.read_schema(tmp_path / "paths.parquet").field("unit_cost").metadata[b"unit"]
        == b"US$ per H100e-hour"
    )
    assert (
        pq.read_schema(tmp_path / "path_scalars.parquet").field("aws.lateness").metadata[b"unit"]
        == b"quarters"
    )
    schema = pq.read_schema(tmp_path / "quarters.parquet")
    assert all(pa.types.is_dictionary(schema.field(name).type) for name in ("metric", "scope", "name"))


def test_a_frame_converts_and_streams():
    result = make_result()
    quarters = result.quarters
    assert quarters.to_pandas()["mean"].tolist() == quarters["mean"].to_pylist()
    assert quarters.to_polars()["mean"].to_list() == quarters["mean"].to_pylist()
    assert pa.table(quarters).equals(quarters.table)
    assert pl.DataFrame(quarters).height == len(quarters)
    assert ask("select max(quarter) from quarters", quarters=quarters) == [(QUARTERS - 1,)]
    assert copy.copy(quarters).table is quarters.table
    assert "metric" in repr(quarters)
    data = quarters.to_xarray()
    assert isinstance(data, xr.Dataset)
    assert data["mean"].dims == ("row", "quarter")
    assert data["mean"].shape == (4, QUARTERS)
    cash = data.sel(row=(data.metric == "cash") & (data.scope == "total"))
    assert cash["p50"].values[0].tolist() == quarters["p50"].to_pylist()[:QUARTERS]
    assert data.period.values.tolist() == [period(START, t) for t in range(QUARTERS)]
    paths = result.paths.to_xarray()
    assert paths["cash"].values.ravel().tolist() == result.paths["cash"].to_pylist()
    assert paths["path"].values.tolist() == [2**63, 2**63 + 1, 2**63 + 2]
    assert np.isnan(paths["unit_cost"].values).sum() == result.paths["unit_cost"].null_count
    assert result.scalars.to_xarray()["mean"].dims == ("row",)
    assert result.thresholds.to_xarray()["probability"].shape == (2,)
    assert result.path_scalars.to_xarray()["first_shortage"].shape == (3,)


def test_a_reopened_run_is_the_run(tmp_path):
    result = make_result()
    result.save(tmp_path)
    again = open_result(str(tmp_path))
    assert again.summary_hash == result.summary_hash == again.manifest["summary_hash"]
    assert again.manifest == result.manifest
    assert again.config_yaml == "seed: 7\n"
    for name in TABLES:
        assert getattr(again, name).equals(getattr(result, name).table)
    assert again.quantile("unit_cost", 0.37, quarter=4) == result.quantile("unit_cost", 0.37, quarter=4)
    again.save(tmp_path)
    assert open_result(tmp_path).summary_hash == result.summary_hash


def test_a_flipped_bit_in_any_file_is_detected(tmp_path):
    make_result().save(tmp_path)
    files = sorted(path for path in tmp_path.iterdir())
    assert len(files) == len(TABLES) + 3
    rng = np.random.default_rng(3)
    for file in files:
        whole = file.read_bytes()
        for _ in range(20):
            flipped = bytearray(whole)
            flipped[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
            file.write_bytes(flipped)
            with pytest.raises(OfftakeError, match=r"damaged|not complete|not the folder"):
                open_result(tmp_path)
        file.unlink()
        with pytest.raises(OfftakeError):
            open_result(tmp_path)
        file.write_bytes(whole)
    open_result(tmp_path)


def test_an_unfinished_run_is_not_opened(tmp_path):
    result = make_result()
    result.manifest["status"] = "stopped"
    result.save(tmp_path)
    with pytest.raises(OfftakeError, match="stopped"):
        open_result(tmp_path)


def test_the_tally_is_stored_without_pickle(tmp_path):
    make_result().save(tmp_path)
    with np.load(io.BytesIO((tmp_path / "summary.npz").read_bytes()), allow_pickle=False) as file:
        assert "key" in file.files
        assert all(file[name].dtype != object for name in file.files)


def test_a_summary_of_very_many_paths_keeps_its_last_digits(monkeypatch, capsys):
    """Errors below the last digit are the widest: "3.26 ±<0.01"."""
    study = load("openai", ["study.paths=200", "study.keep_paths=0"])
    found = offtake.run(study, device="numpy")
    show = terminal.show
    monkeypatch.setattr(terminal, "show", lambda number: show(dataclasses.replace(number, se=1e-9)))
    terminal.print_summary(found, study, Console(width=80))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    errors = re.findall(r"±<\S*", "\n".join(lines))
    assert len(errors) > 90
    assert {error.rstrip(",.)") for error in errors} == {"±<0.01", "±<0.1", "±<1"}


def test_a_deal_ends_early_in_one_way_at_most_and_the_chance_is_that_of_any():
    ends = {"cancel": {"hazard": 0.3}, "default": {"hazard": 0.4}, "long_stop": 2.0}
    slips = {"slip": {"dist": "uniform", "low": 0.0, "high": 3.0}}
    study = simple.study({"a": simple.deal(**ends, **slips)}, settings={"paths": 4096, "keep_paths": 4096})
    result = offtake.run(study)
    scalars = result.path_scalars.to_pandas()
    early = scalars[[f"a.ended_{how}" for how in ("cancelled", "default", "long_stop")]].to_numpy()
    assert (early.mean(axis=0) > 0.05).all()
    assert early.sum(axis=1).max() == 1
    chance = Headline(result, study).ends_early("a")
    share = early.any(axis=1).mean()
    assert chance.value == pytest.approx(share, rel=1e-12)
    assert chance.se == pytest.approx(math.sqrt(share * (1 - share) / 4096), rel=1e-3)


@pytest.mark.parametrize("kept", [512, 10])
def test_a_year_s_flow_has_the_error_of_its_sum_where_enough_paths_are_kept_and_else_a_bound(kept):
    volatile = {"growth": 0.3, "volatility": 0.4}
    factors = {"revenue": {"initial": 4.0, **volatile}, "demand": {"initial": 1.0, **volatile}}
    deals = {"a": simple.deal(pays={"rent": {"kind": "commitment", "total": 8.0, "take_or_pay": 0.5}})}

    def keeping(paths: int) -> offtake.Study:
        settings = {"paths": 512, "keep_paths": paths}
        return simple.study(deals, quarters=8, factors=factors, settings=settings)

    study, whole = keeping(kept), offtake.run(keeping(512))
    result = offtake.run(study)
    paths = whole.paths.to_pandas()
    for year, row in zip((0, 1), Headline(result, study).years(), strict=True):
        for metric in ("revenue", "spend"):
            flows = paths.pivot(index="path", columns="quarter", values=metric).to_numpy(float)
            flows = flows[:, 4 * year : 4 * year + 4]
            exact = flows.sum(axis=1).std(ddof=1) / math.sqrt(512)
            added = flows.std(axis=0, ddof=1).sum() / math.sqrt(512)
            assert row[metric].value == pytest.approx(flows.sum(axis=1).mean(), rel=1e-6)
            assert row[metric].se == pytest.approx(exact if kept == 512 else added, rel=1e-4)
            assert exact < 0.999 * added


def test_what_is_no_study_is_said_to_be_none():
    with pytest.raises(offtake.InputError, match=r"must be what offtake\.load returns, not str"):
        offtake.run("lender.yaml")  # type: ignore[arg-type]


def test_a_result_and_a_path_are_shown_in_a_line():
    study = offtake.load("demo", ["world=demo", "study.paths=100", "device=numpy"])
    result = offtake.run(study)
    assert repr(result) == f"<Result of 100 paths by numpy, {result.summary_hash[:12]}…>"
    assert repr(offtake.replay(study, path=3)) == "Replay(path=3)"
