"""OpenTURNS: its correlated normals and uniforms as one random vector, a function of it, its statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openturns as ot  # pyright: ignore[reportMissingImports]
from numpy.typing import NDArray

from . import Answer, model, sample_arrays
from .terms import METRICS, Terms, terms_of

QUANTILES = (0.05, 0.50, 0.95)


def prepare(study: dict[str, Any], paths: int, *, function: bool = True) -> Callable[[int], Answer]:
    """A function of the seed that simulates `paths` paths and summarises them.

    With `function`, a PythonFunction maps the random vector to the four metrics and OpenTURNS takes the
    statistics; without, OpenTURNS samples and numpy does the rest.
    """
    terms = terms_of(study, (-1, 1))
    return _through_function(terms, paths) if function else _sampled(terms, paths)


def _through_function(terms: Terms, paths: int) -> Callable[[int], Answer]:
    steps, factors = terms.drift.shape
    vector = ot.BlockIndependentDistribution([_shock(terms)] * steps + [_score(terms), _uniform(terms)])

    def metrics(samples: Any) -> NDArray[np.float64]:
        columns = np.array(samples).T.copy()
        shocks, score, uniform = np.split(columns, [steps * factors, steps * factors + terms.deals])
        start = model.start(np, terms, score, uniform)
        found = sample_arrays.values(terms, start, shocks.reshape(steps, factors, -1))
        return found.reshape(-1, found.shape[2]).T

    function = ot.PythonFunction(vector.getDimension(), len(METRICS) * terms.quarters, func_sample=metrics)

    def run(seed: int) -> Answer:
        ot.RandomGenerator.SetSeed(seed)
        return _statistics(terms, function(vector.getSample(paths)))

    return run


def _sampled(terms: Terms, paths: int) -> Callable[[int], Answer]:
    steps, factors = terms.drift.shape
    shock, score, uniform = _shock(terms), _score(terms), _uniform(terms)

    def run(seed: int) -> Answer:
        ot.RandomGenerator.SetSeed(seed)
        scores, uniforms = (np.array(vector.getSample(paths)).T for vector in (score, uniform))
        shocks = np.array(shock.getSample(steps * paths)).reshape(steps, paths, factors).swapaxes(1, 2)
        start = model.start(np, terms, scores, uniforms)
        return sample_arrays.statistics(
            terms.series(by_deal=False), sample_arrays.values(terms, start, shocks)
        )

    return run


def _shock(terms: Terms) -> Any:
    """Standard normal shocks of the factors in a quarter."""
    return _normals(terms.correlation)


def _score(terms: Terms) -> Any:
    """Normal scores of the slips: deals share the supply chain, and those of a region the region."""
    same_region = terms.region[:, None] == terms.region
    shared = terms.chain * terms.chain.T + np.where(same_region, terms.area * terms.area.T, 0.0)
    np.fill_diagonal(shared, 1.0)
    return _normals(shared)


def _uniform(terms: Terms) -> Any:
    return ot.JointDistribution([ot.Uniform(0.0, 1.0)] * terms.deals)


def _normals(correlation: NDArray[np.float64]) -> Any:
    size = len(correlation)
    return ot.Normal([0.0] * size, [1.0] * size, ot.CorrelationMatrix(size, correlation.ravel().tolist()))


def _statistics(terms: Terms, sample: Any) -> Answer:
    series = terms.series(by_deal=False)
    sd = np.array(sample.computeStandardDeviation())
    columns = {
        "mean": np.array(sample.computeMean()),
        "sd": sd,
        "se": sd / np.sqrt(sample.getSize()),
        **{f"p{100 * p:02.0f}": np.array(sample.computeQuantilePerComponent(p)) for p in QUANTILES},
    }
    apart = {name: column.reshape(len(series), -1) for name, column in columns.items()}
    return {one: {name: column[i] for name, column in apart.items()} for i, one in enumerate(series)}
