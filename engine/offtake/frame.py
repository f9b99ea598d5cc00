"""A pyarrow table that also converts to polars and xarray."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars
    import xarray


class Frame:
    """A pyarrow table that also converts to polars and xarray; everything else is the table's own.

    `table` is the table itself. DuckDB, polars, pandas and pyarrow read a Frame through the Arrow C stream.
    """

    def __init__(self, table: pa.Table, keys: Sequence[str], along: str | None = None):
        self.table = table
        self._keys = tuple(keys)
        self._along = along

    def __getattr__(self, name: str) -> Any:
        if name == "table":  # not set yet: unpickling or copying
            raise AttributeError(name)
        return getattr(self.table, name)

    def __getitem__(self, key: Any) -> Any:
        return self.table[key]

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        return repr(self.table)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def to_polars(self) -> "polars.DataFrame":
        """As a polars DataFrame."""
        import polars

        frame = polars.from_arrow(self.table)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def to_xarray(self) -> "xarray.Dataset":
        """As an xarray Dataset over `row`, the keys (metric, scope, …) its coordinates, and any `quarter`."""
        import xarray

        key_columns = [self.table[name].to_pylist() for name in self._keys]
        found: dict[tuple, int] = {}
        row = np.array(
            [found.setdefault(key, len(found)) for key in zip(*key_columns, strict=True)], np.int64
        )
        coordinates: dict[str, Any] = {
            name: ("row", [key[i] for key in found]) for i, name in enumerate(self._keys)
        }
        columns = {n: _plain(self.table[n]) for n in self.table.column_names if n not in self._keys}
        if self._along is None:
            return xarray.Dataset({name: ("row", values) for name, values in columns.items()}, coordinates)
        step = columns.pop(self._along).astype(np.int64)
        steps = int(step.max(initial=-1)) + 1
        coordinates[self._along] = np.arange(steps)
        data = {}
        for name, values in columns.items():
            if values.dtype.kind == "O":  # text along the quarters: their periods
                labels = np.full(steps, "", np.object_)
                labels[step] = values
                coordinates[name] = (self._along, labels)
            else:
                grid = np.full((len(found), steps), np.nan)
                grid[row, step] = values
                data[name] = (("row", self._along), grid)
        return xarray.Dataset(data, coordinates)


def _plain(column: pa.ChunkedArray) -> NDArray:
    """As numpy: text as Python strings, null as NaN."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    return column.to_numpy()
