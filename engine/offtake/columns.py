"""Arrow arrays from numpy's and from text, made of their buffers.

`pyarrow.array` would import pandas, where that is installed, to ask whether it was given some of it: a third
of a second in a command that takes two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def numbers(values: NDArray, missing: NDArray[np.bool_] | None = None) -> pa.Array:
    """Of the type of `values` [n]; null where `missing`."""
    valid = None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))
    content = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), values.size, [valid, content])


def finite(values: NDArray) -> pa.Array:
    """As `numbers`, null where a value is not finite."""
    return numbers(values, ~np.isfinite(values))


def texts(values: Sequence[str]) -> pa.Array:
    """Strings, none of them null."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def categories(values: Sequence[str]) -> pa.Array:
    """Strings as a dictionary, in the order in which they are met."""
    number = {value: index for index, value in enumerate(dict.fromkeys(values))}
    index = numbers(np.array([number[value] for value in values], np.int32))
    return pa.DictionaryArray.from_arrays(index, texts(list(number)))
