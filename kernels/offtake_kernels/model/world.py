"""Factors and the boom/bust regime: log-linear dynamics in log2.

x_{t+1} = x_t + drift + σ√Δ·z + J·[bust begins], or with reversion x + κΔ(log level - x) + …; growth and σ
are those of the regime at t. State: log2 levels [rows, lanes] and bust [lanes].
"""

from __future__ import annotations

import numpy as np

from .. import elementary
from ..layout import Plan
from .terms import sample


def initial(ops, plan: Plan, draws) -> dict:
    """State at quarter 0. `first` holds the levels that ratios X_t/X_0 refer to."""
    world = plan.world
    rows = []
    for factor, row in world.row.items():
        random = world.initial_random.get(factor)
        if random is None:
            rows.append(draws.zero + world.initial[row, 0])
        else:
            own = draws.score(-1, random.score)
            rows.append(elementary.log2(ops, sample(ops, plan, draws, own, random)[0]))
    state: dict = {}
    if rows:
        state["log_level"] = ops.stack(rows)
        state["first"] = elementary.exp2(ops, state["log_level"])
    if world.regime:
        state["bust"] = draws.zero > 0.0
    return state


def levels(ops, plan: Plan, state: dict, table_row, table_first) -> dict:
    """X_t of every factor, X_t/X_0 of those that something follows, and `bust` or None.

    [lanes] each, or a number for a factor that no path moves.
    """
    world = plan.world
    level: dict = {}
    ratio: dict = {}
    stochastic = elementary.exp2(ops, state["log_level"]) if world.row else ()
    for factor in range(len(world.names)):
        if factor in world.row:
            level[factor] = stochastic[world.row[factor]]
            if factor in world.ratios:
                ratio[factor] = level[factor] / state["first"][world.row[factor]]
        else:
            level[factor] = table_row[factor]
            if factor in world.ratios:
                ratio[factor] = table_row[factor] / table_first[factor]
    return {"level": level, "ratio": ratio, "bust": state.get("bust")}


def step(ops, plan: Plan, state: dict, growth, words: dict) -> dict:
    """State of the next quarter from the quarter's words: `factors` (raw) [rows, lanes], `regime` [lanes]."""
    world = plan.world
    after = dict(state)
    bust = begins = None
    if world.regime:
        bust = state["bust"]
        recovers = _happens(ops, words["regime"], world.recovery_threshold)
        falls = _happens(ops, words["regime"], world.bust_threshold)
        after["bust"] = (bust & ~recovers) | (~bust & falls)
        begins = after["bust"] & ~bust
    if not world.row:
        return after
    x = state["log_level"]
    drift = growth[0]
    if world.bust_growth_differs:
        drift = ops.where(bust, growth[1], drift)
    if world.reverts:
        drift = drift + world.reversion * (world.level - x)
    if np.any(world.volatility) or np.any(world.bust_volatility):
        shock = _correlated(ops, world.cholesky, elementary.normal(ops, words["factors"]))
        volatility = world.volatility
        if world.bust_volatility_differs:
            volatility = ops.where(bust, world.bust_volatility, world.volatility)
        drift = drift + volatility * shock
    if world.jumps:
        drift = drift + world.jump * ops.to_float(begins)
    after["log_level"] = x + drift
    return after


def _happens(ops, word, threshold: int):
    """Whether a word is below a threshold of at most 2^32, which no word holds."""
    return word < ops.word(threshold) if threshold < 2**32 else word >= ops.word(0)


def _correlated(ops, cholesky: np.ndarray, independent):
    """z = Lε, row by row, zeros of L skipped."""
    rows = []
    for i in range(cholesky.shape[0]):
        total = None
        for j in range(i + 1):
            if cholesky[i, j] != 0.0:
                part = independent[j] if cholesky[i, j] == 1.0 else cholesky[i, j] * independent[j]
                total = part if total is None else total + part
        rows.append(total if total is not None else 0.0 * independent[i])
    return ops.stack(rows)
