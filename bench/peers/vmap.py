"""Plain JAX: a function of one path, vmapped and jitted, its quarters in a scan, statistics by jax.numpy."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import Answer, model, sample_arrays
from .terms import Terms, terms_of


def prepare(
    study: dict[str, Any], paths: int, *, quantile: bool = True, by_deal: bool = False
) -> Callable[[int], Answer]:
    """A function of the seed that simulates `paths` paths and summarises them, compiled.

    The statistics are jax.numpy's, with jnp.quantile; or, without `quantile`, numpy's.
    """
    terms = terms_of(study, dtype=np.float32)
    series = terms.series(by_deal=by_deal)

    def simulate(key: jax.Array) -> jax.Array:
        of_path = partial(values, terms, by_deal=by_deal)
        return jax.vmap(of_path, out_axes=-1)(jax.random.split(key, paths))

    def summarise(key: jax.Array) -> dict[str, jax.Array]:
        found = simulate(key)
        sd = found.std(axis=2, ddof=1)
        p05, p50, p95 = jnp.quantile(found, jnp.array([0.05, 0.50, 0.95]), axis=2)
        se = sd / paths**0.5
        return {"mean": found.mean(axis=2), "sd": sd, "se": se, "p05": p05, "p50": p50, "p95": p95}

    compiled = jax.jit(summarise if quantile else simulate).lower(jax.random.key(0)).compile()

    def run(seed: int) -> Answer:
        found = compiled(jax.random.key(seed))
        if not quantile:
            return sample_arrays.statistics(series, np.asarray(found))
        columns = {name: np.asarray(column) for name, column in found.items()}
        return {one: {name: column[i] for name, column in columns.items()} for i, one in enumerate(series)}

    return run


def values(terms: Terms, key: jax.Array, *, by_deal: bool = False) -> jax.Array:
    """The values [series, quarters] of the path that a key names."""
    keys = jax.random.split(key, 5)
    chain = jax.random.normal(keys[0])
    region = jax.random.normal(keys[1], (terms.regions,))[terms.region]
    own = jax.random.normal(keys[2], (terms.deals,))
    score = terms.chain * chain + terms.area * region + terms.own * own
    start = model.start(jnp, terms, score, jax.random.uniform(keys[3], (terms.deals,)))
    shocks = jax.random.normal(keys[4], terms.drift.shape) @ np.linalg.cholesky(terms.correlation).T
    # By deal or, which is less to hold, weighted.
    weigh = (lambda served: served) if by_deal else partial(operator.matmul, terms.weights)
    steps = jnp.vstack([terms.opening, terms.drift + terms.volatility * shocks])

    def quarter(state: tuple[jax.Array, ...], inputs: tuple[jax.Array, ...]) -> tuple[Any, jax.Array]:
        log_factors, so_far, cash, funding = state
        end, step = inputs
        log_factors += step
        after = weigh(model.served_quarters(jnp, terms, end - start))
        now = after - so_far
        capacity, compute, firm, flexible = terms.weights @ now if by_deal else now
        use, net = model.market(jnp, terms, compute, *jnp.exp(log_factors))
        spend = firm + flexible * use
        cash, funding = model.settle(jnp, terms, cash, funding, net - spend)
        found = jnp.stack([capacity, compute, spend, cash])
        if by_deal:
            shares = model.shares(jnp, terms.weights, now, use)
            found = jnp.concatenate([found, shares.reshape(-1)])
        return (log_factors, after, cash, funding), found

    nothing = weigh(jnp.zeros(terms.deals))
    opening = (jnp.zeros(terms.opening.size), nothing, jnp.float32(terms.buyer["cash"]), 0.0)
    ends = jnp.arange(1.0, terms.quarters + 1.0)
    return jax.lax.scan(quarter, opening, (ends, steps))[1].T
