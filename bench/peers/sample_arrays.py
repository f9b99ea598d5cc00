"""The study in numpy on arrays whose last axis is paths, and its statistics: what several peers share."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from . import Answer, Series, model
from .terms import METRICS, SHARED_METRICS, Terms


def values(terms: Terms, start: NDArray, shocks: NDArray, *, by_deal: bool = False) -> NDArray:
    """The values [series, quarters, paths] of `Terms.series`.

    start [deals, paths] is that of `model.start`; shocks [quarters - 1, factors, paths] are standard normal,
    correlated. Terms of shape (-1, 1) and of the same type as both.
    """
    paths = start.shape[1]
    found = np.empty((len(terms.series(by_deal=by_deal)), terms.quarters, paths), start.dtype)
    cash, funding = np.full(paths, terms.buyer["cash"], start.dtype), np.zeros(paths, start.dtype)
    log_factors = np.repeat(terms.opening[:, None], paths, axis=1)
    # By deal or, which is less to hold, weighted.
    weigh = (lambda served: served) if by_deal else partial(operator.matmul, terms.weights)
    so_far = weigh(model.served_quarters(np, terms, -start))
    for t in range(terms.quarters):
        if t:
            log_factors += terms.drift[t - 1, :, None] + terms.volatility[:, None] * shocks[t - 1]
        before = so_far
        so_far = weigh(model.served_quarters(np, terms, (t + 1.0) - start))
        now = so_far - before
        capacity, compute, firm, flexible = terms.weights @ now if by_deal else now
        use, net = model.market(np, terms, compute, *np.exp(log_factors))
        spend = firm + flexible * use
        cash, funding = model.settle(np, terms, cash, funding, net - spend)
        found[: len(METRICS), t] = capacity, compute, spend, cash
        if by_deal:
            shares = found[len(METRICS) :, t].reshape(len(SHARED_METRICS), terms.deals, paths)
            shares[...] = model.shares(np, terms.weights[:, :, None], now, use)
    return found


def score(terms: Terms, chain: NDArray, region: NDArray, own: NDArray) -> NDArray:
    """Normal scores of the slips [deals, paths] from those of supply chain [paths], regions and deals."""
    return terms.chain * chain + terms.area * region[terms.region] + terms.own * own


def statistics(series: Sequence[Series], found: NDArray) -> Answer:
    """Of what `values` gives, by series and quarter."""
    sd = found.std(axis=2, ddof=1, dtype=np.float64)
    p05, p50, p95 = np.quantile(found, (0.05, 0.50, 0.95), axis=2)
    columns = {
        "mean": found.mean(axis=2, dtype=np.float64),
        "sd": sd,
        "se": sd / np.sqrt(found.shape[2]),
        "p05": p05,
        "p50": p50,
        "p95": p95,
    }
    return {one: {name: column[i] for name, column in columns.items()} for i, one in enumerate(series)}
