"""Plain numpy: float64 arrays [paths, quarters, deals] held whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import Answer, model
from .terms import terms_of

QUANTILES = (0.05, 0.50, 0.95)


def prepare(study: dict[str, Any], paths: int, *, by_deal: bool = False) -> Callable[[int], Answer]:
    """A function of the seed that simulates `paths` paths and summarises them."""
    terms = terms_of(study)
    cholesky = np.linalg.cholesky(terms.correlation)

    def run(seed: int) -> Answer:
        rng = np.random.default_rng(seed)
        chain = rng.standard_normal((paths, 1))
        region = rng.standard_normal((paths, terms.regions))[:, terms.region]
        own = rng.standard_normal((paths, terms.deals))
        score = terms.chain * chain + terms.area * region + terms.own * own
        start = model.start(np, terms, score, rng.random((paths, terms.deals)))

        edges = np.arange(terms.quarters + 1.0)
        served = model.served_quarters(np, terms, edges[None, :, None] - start[:, None, :])
        delivered = np.diff(served, axis=1)
        capacity, compute, firm, flexible = np.moveaxis(delivered @ terms.weights.T, 2, 0)

        shocks = rng.standard_normal((paths, terms.quarters - 1, terms.opening.size)) @ cholesky.T
        log_factors = np.empty((paths, terms.quarters, terms.opening.size))
        log_factors[:, 0] = terms.opening
        log_factors[:, 1:] = terms.opening + np.cumsum(terms.drift + terms.volatility * shocks, axis=1)
        demand, revenue, spot_price = np.moveaxis(np.exp(log_factors), 2, 0)

        use, before = model.market(np, terms, compute, demand, revenue, spot_price)
        spend = firm + flexible * use
        cash = np.empty_like(spend)
        held, funding = np.full(paths, terms.buyer["cash"]), np.zeros(paths)
        for t in range(terms.quarters):
            held, funding = model.settle(np, terms, held, funding, before[:, t] - spend[:, t])
            cash[:, t] = held
        found = [capacity, compute, spend, cash]
        if by_deal:
            by_metric = model.shares(np, terms.weights, delivered, use[:, :, None])
            found += [of_deal for shares in by_metric for of_deal in np.moveaxis(shares, 2, 0)]
        series = terms.series(by_deal=by_deal)
        return {one: _statistics(values) for one, values in zip(series, found, strict=True)}

    return run


def _statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    p05, p50, p95 = np.quantile(values, QUANTILES, axis=0)
    sd = values.std(axis=0, ddof=1)
    se = sd / np.sqrt(len(values))
    return {"mean": values.mean(axis=0), "sd": sd, "se": se, "p05": p05, "p50": p50, "p95": p95}
