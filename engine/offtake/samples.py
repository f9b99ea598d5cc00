"""Samples from a file: a column of numbers, and the digest by which a study knows them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offtake.errors import OfftakeError


def read_column(file: Path, column: str) -> NDArray[np.float64]:
    """The numbers of a column of a CSV or Parquet file.

    Raises OSError, and ValueError saying what is wrong with the content.
    """
    import pyarrow.types as types

    if file.suffix == ".parquet":
        import pyarrow.parquet as parquet

        table = parquet.read_table(file, columns=[column])
    else:
        import pyarrow.csv as csv

        table = csv.read_csv(file)
    if column not in table.column_names:
        raise ValueError(f"has no column '{column}'")
    if table.column_names.count(column) > 1:
        raise ValueError(f"has several columns '{column}'")
    if not table.num_rows:
        raise ValueError("has no rows")
    kind = table.schema.field(column).type
    if types.is_temporal(kind) or types.is_boolean(kind):
        raise ValueError(f"column '{column}' holds {kind}, not numbers")
    try:
        values = table.column(column).to_numpy().astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column '{column}' holds something that is not a number: {error}") from None
    odd = np.flatnonzero(~np.isfinite(values))
    if odd.size:
        raise ValueError(
            f"column '{column}' has {values[odd[0]]} in row {odd[0] + 1}; numbers must be finite"
        )
    return values


def read_again(file: Path, column: str) -> NDArray[np.float64]:
    """As `read_column`, for a loaded study, whose files were good. Raises OfftakeError."""
    try:
        return read_column(file, column)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise OfftakeError(f"{file}: cannot be read: {reason} (it could when the study was loaded)") from None


def digest(file: Path, column: str) -> str:
    """SHA-256 (hex) of the column's numbers in their order. Raises OfftakeError."""
    return hashlib.sha256(read_again(file, column).astype("<f8").tobytes()).hexdigest()
