"""squigglepy: its distributions sampled with `@`, its `correlate`, arithmetic on the samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import squigglepy as sq  # pyright: ignore[reportMissingImports]
from numpy.typing import NDArray

from . import Answer, model, sample_arrays
from .terms import Terms, terms_of


def prepare(study: dict[str, Any], paths: int, *, correlate: bool = True) -> Callable[[int], Answer]:
    """A function of the seed that simulates `paths` paths and summarises them.

    The factors' shocks are correlated by squigglepy's `correlate`, which reorders samples, or by a product
    with the Cholesky factor in numpy.
    """
    terms = terms_of(study, (-1, 1))
    shocks_of = _reordered if correlate else _multiplied

    def run(seed: int) -> Answer:
        sq.set_seed(seed)
        chain = sq.norm(mean=0, sd=1) @ paths
        region = np.stack([sq.norm(mean=0, sd=1) @ paths for _ in range(terms.regions)])
        own = np.stack([sq.norm(mean=0, sd=1) @ paths for _ in range(terms.deals)])
        uniform = np.stack([sq.uniform(0, 1) @ paths for _ in range(terms.deals)])
        start = model.start(np, terms, sample_arrays.score(terms, chain, region, own), uniform)
        found = sample_arrays.values(terms, start, shocks_of(terms, paths))
        return sample_arrays.statistics(terms.series(by_deal=False), found)

    return run


def _reordered(terms: Terms, paths: int) -> NDArray[np.float64]:
    """Shocks [quarters - 1, factors, paths], correlated in one call over all quarters.

    The matrix goes in as it is: the method imposes it on normal scores, hence on these normals.
    """
    independent = tuple(sq.norm(mean=0, sd=1) for _ in terms.opening)
    correlated = sq.correlate(independent, terms.correlation, tolerance=None)
    samples = [factor @ ((terms.quarters - 1) * paths) for factor in correlated]
    return np.stack(samples).reshape(len(samples), -1, paths).swapaxes(0, 1)


def _multiplied(terms: Terms, paths: int) -> NDArray[np.float64]:
    """Shocks [quarters - 1, factors, paths] from independent samples."""
    samples = [sq.norm(mean=0, sd=1) @ ((terms.quarters - 1) * paths) for _ in terms.opening]
    independent = np.stack(samples).reshape(len(samples), -1, paths).swapaxes(0, 1)
    return np.linalg.cholesky(terms.correlation) @ independent
