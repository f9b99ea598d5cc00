"""Factors, regime and buyer → the plan's World and Buyer (model, sections 2 and 5)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from offtake import correlation
from offtake.deals import Buyer as BuyerTerms
from offtake.deals import Portfolio
from offtake.ladder import quarters_between
from offtake.quantiles import is_degenerate, quantile_table
from offtake.world import Factor, Growth
from offtake.world import World as WorldTerms
from offtake_kernels import layout
from offtake_kernels.layout import YEARS_PER_QUARTER

_LOG2E = math.log2(math.e)


def event_threshold(probability: float) -> int:
    """Draws below this 32-bit threshold are events of the given probability."""
    return round(probability * 2**32)


def factor_names(world: WorldTerms) -> tuple[str, ...]:
    """Every factor: standard ones first, the others by name, so that the order of a file does not matter."""
    standard = [name for name in correlation.STANDARD_ORDER if name in world.factors]
    return (*standard, *sorted(set(world.factors) - set(standard)))


def is_stochastic(factor: Factor, regime: bool) -> bool:
    """Whether paths differ in this factor."""
    if factor.table is not None:
        return False
    bust = factor.bust if regime else None
    moved = bust is not None and (bust.growth is not None or bool(bust.volatility) or bust.jump != 0)
    return factor.volatility > 0 or moved or not is_degenerate(quantile_table(factor.initial))


def growth_by_quarter(factor: Factor, quarters: int) -> NDArray[np.float64]:
    """g_t of every quarter, a year."""
    if not isinstance(factor.growth, Growth):
        return np.full(quarters, float(factor.growth))
    years = np.arange(quarters) * YEARS_PER_QUARTER
    now, later = factor.growth.now, factor.growth.later
    return np.asarray(later + (now - later) * 2.0 ** (-years / factor.growth.half_life), np.float64)


def deterministic_path(factor: Factor, portfolio: Portfolio) -> NDArray[np.float64]:
    """Values by quarter of a factor that no path moves."""
    quarters = portfolio.quarters
    if factor.table is not None:
        dates = [quarters_between(portfolio.start, date) for date in factor.table]
        return np.asarray(np.interp(np.arange(quarters), dates, list(factor.table.values())), np.float64)
    log = np.empty(quarters)
    log[0] = math.log(quantile_table(factor.initial)[1][0])
    growth = growth_by_quarter(factor, quarters)
    for t in range(quarters - 1):
        if factor.reversion and factor.level is not None:
            step = factor.reversion * (math.log(factor.level) - log[t])
        else:
            step = growth[t]
        log[t + 1] = log[t] + step * YEARS_PER_QUARTER
    # What overflows is recorded, and refused as not finite with its metric and quarter.
    with np.errstate(over="ignore"):
        return np.exp(log)


def _column(values) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32).reshape(-1, 1)


def compile_world(
    world: WorldTerms,
    portfolio: Portfolio,
    initial_random: dict[int, layout.Random],
    ratios: tuple[int, ...],
) -> layout.World:
    """The factors as arrays. By factor number: random opening values; whose ratio to them is followed."""
    names = factor_names(world)
    factors = [world.factors[name] for name in names]
    quarters, regime = portfolio.quarters, world.regime is not None
    moving = [number for number, factor in enumerate(factors) if is_stochastic(factor, regime)]
    table = np.zeros((quarters, len(names)), np.float32)
    for number, factor in enumerate(factors):
        if number not in moving:
            with np.errstate(over="ignore"):
                table[:, number] = deterministic_path(factor, portfolio)
    rows = [factors[number] for number in moving]
    busts = [factor.bust if regime else None for factor in rows]
    sigma = np.array([factor.volatility for factor in rows])
    bust_sigma = np.array(
        [
            bust.volatility if bust and bust.volatility is not None else factor.volatility
            for factor, bust in zip(rows, busts, strict=True)
        ]
    )
    drift = np.zeros((quarters, 2, len(rows), 1), np.float32)
    for row, (factor, bust) in enumerate(zip(rows, busts, strict=True)):
        if factor.reversion:
            continue
        boom = growth_by_quarter(factor, quarters)
        in_bust = np.full(quarters, bust.growth) if bust and bust.growth is not None else boom
        drift[:, 0, row, 0] = (boom - sigma[row] ** 2 / 2) * YEARS_PER_QUARTER * _LOG2E
        drift[:, 1, row, 0] = (in_bust - bust_sigma[row] ** 2 / 2) * YEARS_PER_QUARTER * _LOG2E
    to_step = math.sqrt(YEARS_PER_QUARTER) * _LOG2E
    jump = [bust.jump * _LOG2E if bust else 0.0 for bust in busts]
    rates = world.regime
    opening = [
        0.0 if n in initial_random else math.log2(quantile_table(factors[n].initial)[1][0]) for n in moving
    ]
    return layout.World(
        names=names,
        row={number: row for row, number in enumerate(moving)},
        table=table,
        initial=_column(opening),
        initial_random=initial_random,
        growth=drift,
        volatility=_column(sigma * to_step),
        bust_volatility=_column(bust_sigma * to_step),
        jump=_column(jump),
        reversion=_column([(factor.reversion or 0.0) * YEARS_PER_QUARTER for factor in rows]),
        level=_column([math.log2(factor.level) if factor.level else 0.0 for factor in rows]),
        cholesky=_cholesky(world, [names[number] for number in moving], np.maximum(sigma, bust_sigma)),
        ratios=ratios,
        regime=regime,
        bust_growth_differs=bool(np.any(drift[:, 0] != drift[:, 1])),
        bust_volatility_differs=bool(np.any(sigma != bust_sigma)),
        jumps=bool(np.any(jump)),
        bust_threshold=event_threshold(-math.expm1(-rates.bust_rate * YEARS_PER_QUARTER)) if rates else 0,
        recovery_threshold=event_threshold(-math.expm1(-rates.recovery_rate * YEARS_PER_QUARTER))
        if rates
        else 0,
    )


def _cholesky(world: WorldTerms, names: list[str], sigma: NDArray[np.float64]) -> NDArray[np.float32]:
    """L with L·Lᵀ the correlation of the factors that have volatility; a row of the identity for the
    others.
    """
    free, matrix = correlation.correlation_matrix(world)
    if world.repair == "nearest" and np.linalg.eigvalsh(matrix)[0] < correlation.SMALLEST_EIGENVALUE:
        matrix = correlation.nearest_correlation(matrix)
    volatile = [row for row in range(len(names)) if sigma[row] > 0]
    chosen = [free.index(names[row]) for row in volatile]
    lower = np.eye(len(names))
    lower[np.ix_(volatile, volatile)] = np.linalg.cholesky(matrix[np.ix_(chosen, chosen)])
    return lower.astype(np.float32)


def compile_buyer(buyer: BuyerTerms) -> layout.Buyer:
    """Cash terms with rates per quarter."""
    return layout.Buyer(
        cash=buyer.cash,
        margin=buyer.margin,
        fixed=buyer.fixed_cost * YEARS_PER_QUARTER,
        elasticity=buyer.served_elasticity,
        cash_yield=buyer.cash_yield * YEARS_PER_QUARTER,
        interest=buyer.interest_rate * YEARS_PER_QUARTER,
        floor=buyer.floor,
        target=buyer.target,
        limit=buyer.funding_limit,
        spot_share=buyer.spot.share,
        spot_cap=buyer.spot.cap,
        training_share=buyer.training_share,
        inference_first=buyer.priority == "inference",
    )
