"""numpy in float32 blocks that stay in the cache; the four metrics of every path are kept for statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import Answer, model, sample_arrays
from .terms import METRICS, terms_of

BLOCK = 8_192


def prepare(study: dict[str, Any], paths: int) -> Callable[[int], Answer]:
    """A function of the seed that simulates `paths` paths and summarises them."""
    terms = terms_of(study, (-1, 1), np.float32)
    cholesky = np.linalg.cholesky(terms.correlation)

    def run(seed: int) -> Answer:
        rng = np.random.default_rng(seed)

        def normals(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape, np.float32)

        found = np.empty((len(METRICS), terms.quarters, paths), np.float32)
        for first in range(0, paths, BLOCK):
            count = min(BLOCK, paths - first)
            score = sample_arrays.score(
                terms, normals(count), normals(terms.regions, count), normals(terms.deals, count)
            )
            start = model.start(np, terms, score, rng.random((terms.deals, count), np.float32))
            shocks = cholesky @ normals(terms.quarters - 1, terms.opening.size, count)
            found[:, :, first : first + count] = sample_arrays.totals(terms, start, shocks)
        return sample_arrays.statistics(found)

    return run
