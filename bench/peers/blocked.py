"""numpy in float32 blocks that stay in the cache; what every path has is kept for statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import Answer, model, sample_arrays
from .terms import terms_of

BLOCK = 8_192


def prepare(study: dict[str, Any], paths: int, *, by_deal: bool = False) -> Callable[[int], Answer]:
    """A function of the seed that simulates `paths` paths and summarises them."""
    terms = terms_of(study, (-1, 1), np.float32)
    cholesky, series = np.linalg.cholesky(terms.correlation), terms.series(by_deal=by_deal)

    def run(seed: int) -> Answer:
        rng = np.random.default_rng(seed)

        def normals(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape, np.float32)

        found = np.empty((len(series), terms.quarters, paths), np.float32)
        for first in range(0, paths, BLOCK):
            count = min(BLOCK, paths - first)
            score = sample_arrays.score(
                terms, normals(count), normals(terms.regions, count), normals(terms.deals, count)
            )
            start = model.start(np, terms, score, rng.random((terms.deals, count), np.float32))
            shocks = cholesky @ normals(terms.quarters - 1, terms.opening.size, count)
            found[:, :, first : first + count] = sample_arrays.values(terms, start, shocks, by_deal=by_deal)
        return sample_arrays.statistics(series, found)

    return run
