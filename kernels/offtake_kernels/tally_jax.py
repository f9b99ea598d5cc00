"""Histograms made where the paths are: `tally.TallyBuilder.add` for a recorded quarter on a device.

The bit patterns of a row are sorted, so that a bin is a run; sums of a run are differences of running sums at
the ends of runs, and ends are brought together by a second sort: no scatter, no float64, no int64. A fixed
number of runs a row comes back to the host. The values of a row come back instead where it has more runs, or
a value that is not finite; the host tallies those. Zeros have no sign. Notation as in `tally`.

Running sums are modulo 2^32, and so are their differences: of l below 2^31, of the lower 16 bits of l^2 below
2^32, and of its upper 14 below 2^30, for no shard has more than 65,536 paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .bins import LOW_BITS, LOW_MASK, MOST_LANES
from .graph import LANES
from .kept import Kept
from .placement import Placement
from .tally import TallyBuilder
from .walk import Record

_HALF_BITS = 16
_INFINITY_BITS = 0x7F80_0000
_MAGNITUDE = 0x7FFF_FFFF
_NEGATIVE_ZERO = -(1 << 31)


class Histograms:
    """Runs of the rows of a recorded quarter, shard by shard.

    rows, lanes: the shape of what is recorded; runs: how many of a row and shard come back.
    """

    def __init__(self, rows: int, lanes: int, placement: Placement, runs: int):
        self.shards = len(placement.devices)
        self.shard_lanes = lanes // self.shards
        assert lanes % self.shards == 0, lanes
        assert self.shard_lanes <= MOST_LANES, lanes
        self._rows, self._lanes, self._placement = rows, lanes, placement
        self._runs = min(runs, self.shard_lanes)

    def __call__(self, values: Any, paths: int) -> tuple[Any, Any]:
        """(heads, runs) of the first `paths` lanes of values [rows, lanes], on the device.

        heads: int32 [rows, shards, 5], of each row how many runs it has, whether a value is not finite, and
        the patterns of the least and greatest value and of the least that is not negative (of infinity where
        there is none). runs: uint32 [rows, shards, 5, runs], of each run bits >> 15, its last place, and
        running sums of l and of the lower and upper part of l^2.
        """
        filled = np.clip(paths - self.shard_lanes * np.arange(self.shards), 0, self.shard_lanes)
        return self.compiled(values, filled.astype(np.int32))

    @cached_property
    def compiled(self) -> Any:
        """The executable."""
        return self.lowered().compile()

    def lowered(self, platforms: tuple[str, ...] | None = None) -> Any:
        """What XLA compiles, for other platforms than the device's where some are named."""
        place = self._placement
        values = place.shaped((self._rows, LANES), np.float32, self._lanes)
        filled = place.shaped((LANES,), np.int32, self.shards)
        shapes = (self._rows, LANES, 5), (self._rows, LANES, 5, self._runs)
        function = jax.jit(self._summed, out_shardings=tuple(place.sharding(shape) for shape in shapes))
        return function.trace(values, filled).lower(lowering_platforms=platforms)

    def _summed(self, values: Any, filled: Any) -> tuple[Any, Any]:
        bits = lax.bitcast_convert_type(values, jnp.int32)
        bits = bits.reshape(self._rows, self.shards, self.shard_lanes)
        bits = jnp.where(bits == _NEGATIVE_ZERO, 0, bits)
        lane = lax.broadcasted_iota(jnp.int32, bits.shape, 2)
        there = lane < filled[None, :, None]
        ends, code, low = _sorted_runs(jnp.where(there, bits, _MAGNITUDE), there)
        square = low * low
        sums = [lax.cumsum(part, axis=2) for part in (low, square & 0xFFFF, square >> _HALF_BITS)]
        places = lax.sort(jnp.where(ends, lane, self.shard_lanes), dimension=2)[..., : self._runs]
        taken = jnp.minimum(places, self.shard_lanes - 1)
        columns = [code, lane, *sums]
        runs = [
            jnp.take_along_axis(lax.bitcast_convert_type(column, jnp.uint32), taken, 2) for column in columns
        ]
        count = jnp.sum(ends, axis=2, dtype=jnp.int32)
        return jnp.stack([count, *_extremes(bits, there)], 2), jnp.stack(runs, 2)


def _sorted_runs(bits: Any, there: Any) -> tuple[Any, Any, Any]:
    """Where runs end, bits >> 15 and l of the sorted patterns; what is not there sorts last."""
    ordered = lax.sort(bits, dimension=2)
    code = ordered >> LOW_BITS
    differs = code[..., 1:] != code[..., :-1]
    ends = jnp.concatenate([differs, jnp.ones_like(differs[..., :1])], 2) & there
    return ends, code, lax.bitcast_convert_type(ordered & LOW_MASK, jnp.uint32)


def _extremes(bits: Any, there: Any) -> tuple[Any, Any, Any, Any]:
    """Whether a value is not finite, and the patterns of the extremes; see `Histograms.__call__`."""
    nonfinite = jnp.any(there & ((bits & _MAGNITUDE) >= _INFINITY_BITS), axis=2)
    # Integers in the order of the values; the same function leads back.
    order = _as_ordered(bits)
    least = jnp.min(jnp.where(there, order, _MAGNITUDE), axis=2)
    most = jnp.max(jnp.where(there, order, ~_MAGNITUDE), axis=2)
    least_nonnegative = jnp.min(jnp.where(there & (bits >= 0), bits, _INFINITY_BITS), axis=2)
    return nonfinite.astype(jnp.int32), _as_ordered(least), _as_ordered(most), least_nonnegative


def _as_ordered(bits: Any) -> Any:
    return bits ^ ((bits >> 31) & _MAGNITUDE)


def run(recipe: Any, first_path: int, paths: int, builder: TallyBuilder, keep: int = 0) -> Kept | None:
    """As `walk.run`, of a `path_jax.Recipe` that has histograms; one quarter is collected while the next
    is under way.
    """
    record = Record(recipe.plan, recipe.places, first_path, paths, builder, keep)
    tile = recipe.tile(first_path, paths)
    before: tuple[int, Any, tuple[Any, Any]] | None = None
    for t in range(recipe.plan.quarters):
        values = tile.advance(t)
        begun = t, values, recipe.histograms(values, paths)
        if before is not None:
            _collect(recipe, record, *before)
        before = begun
    assert before is not None
    _collect(recipe, record, *before)
    record.collect(tile.finish(), slice(0, paths))
    return record.finish()


def _collect(recipe: Any, record: Record, t: int, values: Any, made: tuple[Any, Any]) -> None:
    """Takes quarter t from the device: runs, and the values that the host needs."""
    paths = record.paths
    heads, runs = (np.asarray(part) for part in made)
    for place, row in enumerate(recipe.rows):
        rows = record.series_rows(place, t)
        if isinstance(row, int):
            add_row(record.builder, rows, values, row, (heads, runs), record.first_path, paths)
        else:
            record.builder.add(rows[0], _constant(row, paths), record.first_path, rows[1:])
    found = {}
    for place in {*record.counted_places, *record.kept_places}:
        row = recipe.rows[place]
        found[place] = _host(values[row], paths) if isinstance(row, int) else _constant(row, paths)
    record.keep(t, found)
    record.count(t, found)


def add_row(
    builder: TallyBuilder,
    rows: Sequence[int],
    values: Any,
    row: int,
    made: tuple[np.ndarray, np.ndarray],
    first_path: int,
    paths: int,
) -> None:
    """Adds the first `paths` of a row of values [rows, lanes] to rows of the tally, from what `Histograms`
    made of them; the values themselves are fetched only where that does not suffice.
    """
    heads, runs = (part[row] for part in made)
    if (heads[:, 0] > runs.shape[-1]).any() or heads[:, 1].any():
        builder.add(rows[0], _host(values[row], paths), first_path, rows[1:])
        return
    for head, columns in zip(heads, runs, strict=True):
        _add_runs(builder, rows, head, columns)


def _constant(value: np.ndarray, paths: int) -> np.ndarray:
    return np.full(paths, value, np.float32)


def _host(values: Any, paths: int) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(values)[:paths])


def _add_runs(builder: TallyBuilder, rows: Sequence[int], head: np.ndarray, columns: np.ndarray) -> None:
    """Adds the runs of a shard, which may have none."""
    count = head[0]
    if count:
        code, last, *sums = columns[:, :count]
        n = np.diff(last.astype(np.int64), prepend=-1)
        extremes = head[2:].view(np.float32).copy()
        extremes[2] = np.nan if head[4] == _INFINITY_BITS else extremes[2]
        builder.add_runs(rows, code.view(np.int32), (n, *_of_runs(*sums)), extremes)


def _of_runs(*running: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """low and low2 of each run from running sums of l and of the parts of l^2."""
    low, lower, upper = (np.diff(sums, prepend=np.uint32(0)).astype(np.int64) for sums in running)
    return low, lower + (upper << _HALF_BITS)
