"""A finished study: tables, questions to its distribution, and the folder it is kept in.

    result.quarters, .scalars, .thresholds      statistics, one row per metric, scope, name (and quarter)
    result.paths, .path_scalars                 the paths kept whole
    result.quantile("cash", 0.9, quarter="2028Q1")
    result.save(folder); open_result(folder)

Null stands for "there is none": no path had a value, or too few did for the statistic. A folder holds the
tally too (summary.npz), so that a reopened run answers any question that the run itself could.
"""

import datetime
import difflib
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from offtake.checkpoints import (
    MANIFEST,
    prepare_folder,
    read_manifest,
    unpack,
    write_atomically,
    write_manifest,
    write_tally,
)
from offtake.columns import categories, finite, numbers, texts
from offtake.errors import InputError, Mistake, OfftakeError
from offtake.frame import Frame
from offtake.metrics import METRICS
from offtake.ratio import METRIC, unit_cost_of_means
from offtake.summary import Row, Summary, ThresholdRow
from offtake_kernels.kept import Kept

CONFIG = "config.yaml"
SUMMARY = "summary.npz"
TABLES = {
    "quarters": "statistics of every metric, scope, name and quarter over all paths",
    "scalars": "statistics of every number a path has once, over all paths",
    "thresholds": "probabilities of the named thresholds, from exact counts",
    "paths": "the paths kept whole, one row a path and quarter",
    "path_scalars": "the paths kept whole, one row a path",
}
PROVENANCE = ("version", "seed", "config_hash", "backend", "device", "arithmetic")
COLUMNS = {
    "metric": "what is recorded; its unit is in the table's metadata under `units`",
    "scope": "total, deal, supplier or factor",
    "name": "of the deal, supplier or factor; empty for a total",
    "quarter": "quarters since the start of the study, from 0",
    "period": "calendar quarter that holds the quarter's first day",
    "mean": "mean",
    "sd": "standard deviation (N - 1)",
    "se": "standard error of the mean",
    "min": "smallest value",
    "max": "largest value",
    **{f"p{p:02d}": f"{p} % quantile, within 0.2 % relative" for p in (1, 5, 10, 25, 50, 75, 90, 95, 99)},
    "es_low": "mean of the lowest 5 % (expected shortfall)",
    "es_high": "mean of the highest 5 %",
    "share_none": "share of paths without a value; the other statistics leave them out",
    "paths": "paths recorded, those without a value included",
    "se_p05": "standard error of p05",
    "se_p50": "standard error of p50",
    "se_p95": "standard error of p95",
    "se_es_low": "standard error of es_low",
    "se_es_high": "standard error of es_high",
    "op": "the threshold is: metric op level",
    "level": "in the unit of the metric",
    "probability": "share of paths for which it holds; a path without a value never does",
    "path": "number of the path; `offtake replay` shows it again",
}
_SERIES = ("metric", "scope", "name")


class Estimate(float):
    """A number with its Monte Carlo standard error, `se`; None where there are too few paths to say."""

    se: float | None = None

    @classmethod
    def of(cls, value: float, se: float) -> "Estimate | None":
        """None where there is no value (NaN)."""
        if math.isnan(value):
            return None
        estimate = cls(value)
        estimate.se = None if math.isnan(se) else se
        return estimate


class Result:
    """What a study found. Tables are made when first asked for.

    start: the study's first day; manifest: as in manifest.json; config_yaml: the resolved study;
    units: metric -> unit, for the schema metadata.
    """

    def __init__(
        self,
        summary: Summary,
        kept: Kept | None,
        start: datetime.date,
        manifest: Mapping[str, Any],
        config_yaml: str,
        units: Mapping[str, str],
    ):
        self.summary = summary
        self.kept = kept
        self.start = start
        self.manifest = dict(manifest)
        self.config_yaml = config_yaml
        self.units = dict(units)

    def __repr__(self) -> str:
        paths = self.summary.tally.paths
        return f"<Result of {paths:,} paths by {self.manifest['backend']}, {self.summary_hash[:12]}…>"

    @property
    def summary_hash(self) -> str:
        """SHA-256 of everything that was counted; equal for equal studies, however they were run."""
        return self.summary.summary_hash

    @cached_property
    def quarters(self) -> Frame:
        """Rows with a quarter: metric, scope, name, quarter, period and the statistics."""
        rows = [i for i, row in enumerate(self.summary.rows) if row.quarter is not None]
        table = self._table("quarters", self._statistics(rows, quarterly=True))
        return Frame(self._with_unit_cost_of_means(table), _SERIES, "quarter")

    @cached_property
    def scalars(self) -> Frame:
        """Rows without a quarter: metric, scope, name and the statistics."""
        rows = [i for i, row in enumerate(self.summary.rows) if row.quarter is None]
        return Frame(self._table("scalars", self._statistics(rows, quarterly=False)), _SERIES)

    @cached_property
    def thresholds(self) -> Frame:
        """metric, scope, name, quarter (null for one number a path), op, level, probability, se."""
        rows = self.summary.thresholds
        columns = {
            **_catalogue(rows),
            "quarter": _quarters(rows),
            "op": categories([row.op for row in rows]),
            "level": numbers(np.array([row.level for row in rows], np.float64)),
            **{name: finite(column) for name, column in self.summary.threshold_statistics.items()},
        }
        return Frame(self._table("thresholds", columns), (*_SERIES, "quarter", "op", "level"))

    @cached_property
    def paths(self) -> Frame:
        """path, quarter and one column per total metric, for the paths kept whole."""
        kept = self.kept or _nothing_kept()
        steps = next((values.shape[1] for values in kept.quarter_values.values()), 0)
        columns = {
            "path": numbers(np.repeat(kept.path, steps)),
            "quarter": numbers(np.tile(np.arange(steps, dtype=np.int32), kept.path.size)),
            **{name: _kept_column(kept, name, values) for name, values in kept.quarter_values.items()},
        }
        return Frame(self._table("paths", columns), ("path",), "quarter")

    @cached_property
    def path_scalars(self) -> Frame:
        """path and one column per metric (a deal's as deal.metric), for the paths kept whole."""
        kept = self.kept or _nothing_kept()
        columns = {"path": numbers(kept.path)}
        columns.update(
            {name: _kept_column(kept, name, values) for name, values in kept.scalar_values.items()}
        )
        return Frame(self._table("path_scalars", columns), ("path",))

    def quantile(
        self,
        metric: str,
        p: float,
        quarter: str | int | None = None,
        scope: str = "total",
        name: str | None = None,
    ) -> Estimate | None:
        """The p-quantile of a metric, of a quarter ("2028Q1" or its number) if it has them.

        `name` may be left out where the scope has one. None where no path has a value. Raises InputError.
        """
        position = self._position(metric, quarter, scope, name)
        try:
            return Estimate.of(*self.summary.quantile(position, p))
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError([Mistake("query", metric, str(error))]) from error

    def probability(
        self,
        metric: str,
        op: str,
        level: float,
        quarter: str | int | None = None,
        scope: str = "total",
        name: str | None = None,
    ) -> Estimate | None:
        """Share of all paths with `metric op level`, op one of < <= > >=; rows are named as in `quantile`.

        Exact for the study's thresholds. Where many paths have exactly this level, or one within 0.4 % of it,
        the standard error says how well the tally tells them apart.
        """
        position = self._position(metric, quarter, scope, name)
        try:
            kept = self._kept_values(self.summary.rows[position])
            return Estimate.of(*self.summary.probability(position, op, level, kept))
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError([Mistake("query", metric, str(error))]) from error

    def save(self, folder: str | Path) -> Path:
        """Writes the run's folder, the manifest last; returns it.

        A run found there before is replaced file by file. Raises OfftakeError naming the folder, also where
        it holds files of these names that are no run's.
        """
        folder = Path(folder)
        refuse_foreign_files(folder, self.config_yaml)
        prepare_folder(folder)
        if not (folder / MANIFEST).exists():
            write_manifest(folder, {**self.manifest, "status": "running"})
        about = {
            "rows": [vars(row) for row in self.summary.rows],
            "thresholds": [vars(row) for row in self.summary.thresholds],
            "start": self.start.isoformat(),
            "units": self.units,
        }
        content = {f"{name}.parquet": _parquet(getattr(self, name).table) for name in TABLES}
        content[CONFIG] = self.config_yaml.encode()
        for file, data in content.items():
            write_atomically(folder / file, data)
        files = {file: hashlib.sha256(data).hexdigest() for file, data in content.items()}
        files[SUMMARY] = write_tally(folder / SUMMARY, self.summary.tally, self.kept, about)
        self.manifest = {
            "status": "complete",
            **self.manifest,
            "summary_hash": self.summary_hash,
            "files": files,
        }
        write_manifest(folder, self.manifest)
        return folder

    def _position(self, metric: str, quarter: str | int | None, scope: str, name: str | None) -> int:
        step = quarter_number(quarter, self.start) if isinstance(quarter, str) else quarter
        rows = list(enumerate(self.summary.rows))
        for subject, asked, read in (
            ("metric", metric, lambda row: row.metric),
            ("scope", scope, lambda row: row.scope),
            ("name", name, lambda row: row.name),
            ("quarter", step, lambda row: row.quarter),
        ):
            known = list(dict.fromkeys(read(row) for _, row in rows))
            if subject == "name" and asked is None and len(known) == 1:
                continue
            rows = [(i, row) for i, row in rows if read(row) == asked]
            if not rows:
                shown = quarter if subject == "quarter" else asked
                raise _unknown(metric, subject, shown, known)
        return rows[0][0]

    def _kept_values(self, row: Row) -> NDArray[np.float32]:
        """A row's values on the paths kept whole; none for the rows that are not kept."""
        kept = self.kept or _nothing_kept()
        if row.quarter is None:
            values = kept.scalar_values.get(f"{row.name}.{row.metric}" if row.name else row.metric)
            return np.empty(0, np.float32) if values is None else values
        values = kept.quarter_values.get(row.metric) if row.scope == "total" else None
        return np.empty(0, np.float32) if values is None else values[:, row.quarter]

    def _statistics(self, chosen: list[int], quarterly: bool) -> dict[str, pa.Array]:
        rows = [self.summary.rows[i] for i in chosen]
        columns = _catalogue(rows)
        if quarterly:
            columns["quarter"] = _quarters(rows)
            columns["period"] = texts([period(self.start, row.quarter or 0) for row in rows])
        index = np.array(chosen, np.int64)
        for name, column in self.summary.statistics.items():
            columns[name] = numbers(column[index]) if name == "paths" else finite(column[index])
        return columns

    def _with_unit_cost_of_means(self, table: pa.Table) -> pa.Table:
        """The table and a row a quarter with mean spend over mean compute: mean and se, no distribution."""
        found = np.array(unit_cost_of_means(self.summary), np.float64).reshape(-1, 3)
        quarter, mean, se = found[:, 0].astype(np.int32), found[:, 1], found[:, 2]
        columns = {
            "metric": categories([METRIC] * quarter.size),
            "scope": categories(["total"] * quarter.size),
            "name": categories([""] * quarter.size),
            "quarter": numbers(quarter),
            "period": texts([period(self.start, t) for t in quarter.tolist()]),
            "mean": finite(mean),
            "se": finite(se),
            "paths": numbers(np.full(quarter.size, self.summary.tally.paths)),
        }
        others = {field.name: pa.nulls(quarter.size, field.type) for field in table.schema}
        added = pa.Table.from_arrays(list({**others, **columns}.values()), schema=table.schema)
        return pa.concat_tables([table, added]).unify_dictionaries().combine_chunks()

    def _table(self, name: str, columns: Mapping[str, pa.Array]) -> pa.Table:
        """With a description of every column and, for the table, units and provenance in the metadata."""
        fields = []
        for column, values in columns.items():
            documented = {"description": COLUMNS.get(column) or _described(column)}
            if name == "thresholds" and column == "se":
                documented = {"description": "standard error of the probability"}
            unit = self.units.get(column, self.units.get(column.rpartition(".")[2]))
            if column not in COLUMNS and unit is not None:
                documented["unit"] = unit
            fields.append(pa.field(column, values.type, metadata=documented))
        metadata = {
            "description": TABLES[name],
            "units": json.dumps(self.units, ensure_ascii=False, sort_keys=True),
            "start": self.start.isoformat(),
            "summary_hash": self.summary_hash,
            **{key: str(self.manifest[key]) for key in PROVENANCE if key in self.manifest},
        }
        return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, metadata))


def refuse_foreign_files(folder: Path, config_yaml: str) -> None:
    """Raises InputError where a folder that is not a run's has a file that a run would write over, and
    OfftakeError where its manifest is no run's.
    """
    if (folder / MANIFEST).exists():
        read_manifest(folder)
        return
    names = CONFIG, SUMMARY, *(f"{table}.parquet" for table in TABLES)
    there = [name for name in names if (folder / name).exists()]
    # A run that was killed before its manifest was there has left its configuration.
    ours = CONFIG in there and _is(folder / CONFIG, config_yaml)
    if ours and len(there) > 1:
        message = f"{folder} has this study's {CONFIG} and a {there[1]}, but no {MANIFEST}"
        raise InputError([Mistake("study", "out", message, "choose another out=")])
    if there and not ours:
        message = f"{folder} has a {there[0]} that is no run's"
        raise InputError([Mistake("study", "out", message, "choose another out=")])


def _is(file: Path, text: str) -> bool:
    try:
        return file.read_bytes() == text.encode()
    except OSError:
        return False


def open_result(folder: str | Path) -> Result:
    """A run as `Result.save` left it, every file checked against its SHA-256.

    Raises OfftakeError where the folder is not that of a complete run, or a file is missing or altered.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest["status"] != "complete":
        raise OfftakeError(
            f"the run in {folder} is {manifest['status']}, not complete; --resume goes on with it"
        )
    content = {}
    for file, expected in manifest["files"].items():
        try:
            content[file] = (folder / file).read_bytes()
        except OSError as error:
            raise OfftakeError(f"cannot read {file} in {folder}: {error.strerror}") from error
        if hashlib.sha256(content[file]).hexdigest() != expected:
            message = f"{folder / file} is damaged: it is not what the run wrote"
            raise OfftakeError(f"{message}; run the study again, with another out=")
    tally, kept, about = unpack(content[SUMMARY])
    summary = Summary(
        tally, [Row(**row) for row in about["rows"]], [ThresholdRow(**row) for row in about["thresholds"]]
    )
    start = datetime.date.fromisoformat(about["start"])
    return Result(summary, kept, start, manifest, content[CONFIG].decode(), about["units"])


def period(start: datetime.date, quarter: int) -> str:
    """Calendar quarter ("2025Q4") that holds the first day of this quarter of the study."""
    month = start.year * 12 + start.month - 1 + 3 * quarter
    return f"{month // 12}Q{month % 12 // 3 + 1}"


def quarter_number(text: str, start: datetime.date) -> int:
    """The quarter of the study that begins in a calendar quarter such as "2028Q1". Raises InputError."""
    found = re.fullmatch(r"(\d{4})Q([1-4])", text)
    if not found:
        raise InputError([Mistake("query", "quarter", f"{text!r} is not a quarter", "write it as 2028Q1")])
    year, part = int(found[1]), int(found[2])
    return 4 * year + part - 1 - (4 * start.year + (start.month - 1) // 3)


def _unknown(metric: str, subject: str, asked: object, known: Sequence[object]) -> InputError:
    if subject == "quarter":
        several = known != [None]
        message = f"{metric} has no quarter {asked}" if several else f"{metric} is one number a path"
        if several and asked is None:
            message = f"which quarter of {metric}?"
        hint = f"quarters are 0 to {len(known) - 1}" if several else "leave the quarter out"
        return InputError([Mistake("query", "quarter", message, hint)])
    near = difflib.get_close_matches(str(asked), [str(k) for k in known], n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(str(k) for k in known[:20])}"
    message = f"which {subject} of {metric}?" if asked is None else f"no {subject} {asked!r}"
    return InputError([Mistake("query", subject, message, hint)])


def _described(column: str) -> str:
    """What a kept metric is; a deal's is named deal.metric."""
    deal, _, name = column.rpartition(".")
    found = next((metric.description for metric in METRICS if metric.name == name), column)
    return f"{found}, of {deal}" if deal else found


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def _catalogue(rows: Sequence[Row] | Sequence[ThresholdRow]) -> dict[str, pa.Array]:
    return {name: categories([getattr(row, name) for row in rows]) for name in _SERIES}


def _quarters(rows: Sequence[Row] | Sequence[ThresholdRow]) -> pa.Array:
    """Null for one number a path."""
    quarter = np.array([-1 if row.quarter is None else row.quarter for row in rows], np.int32)
    return numbers(quarter, quarter < 0)


def _kept_column(kept: Kept, name: str, values: NDArray[np.float32]) -> pa.Array:
    flat = np.ascontiguousarray(values).reshape(-1)
    missing = ~np.isfinite(flat)
    if name in kept.nullable:
        missing |= flat == -1.0
    return numbers(flat, missing)


def _nothing_kept() -> Kept:
    return Kept(np.empty(0, np.uint64), {}, {})
