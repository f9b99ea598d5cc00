"""The correlation matrix of a world's factors, and what to do when it contradicts itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offtake.world import REQUIRED_FACTORS, World

STANDARD_ORDER = (
    *REQUIRED_FACTORS,
    "hardware_price",
    "power_price",
    "spot_price",
    "ai_equity",
    "market_supply",
)

SMALLEST_EIGENVALUE = 1e-8
"""Below it a matrix counts as not positive definite: its Cholesky factor would be rounding noise."""

_REPAIRED_EIGENVALUE = 1e-6
_MOST_PROJECTIONS = 1000


def correlation_matrix(world: World) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names and correlation matrix [factors, factors] of every factor that is not a table, as written.

    The standard factors come first in STANDARD_ORDER, then the others by name, so that the order of a file
    does not matter. Not repaired: see `nearest_correlation`.
    """
    free = [name for name, factor in world.factors.items() if factor.table is None]
    names = [name for name in STANDARD_ORDER if name in free]
    names += sorted(set(free) - set(STANDARD_ORDER))
    position = {name: index for index, name in enumerate(names)}
    matrix = np.eye(len(names))
    for first, others in world.correlation.items():
        for second, rho in others.items():
            i, j = position[first], position[second]
            matrix[i, j] = matrix[j, i] = rho
    return tuple(names), matrix


def weakest_direction(names: tuple[str, ...], matrix: NDArray[np.float64]) -> tuple[float, list[str]]:
    """The smallest eigenvalue, and up to three pairs with most weight in its eigenvector ("a–b 0.9")."""
    values, vectors = np.linalg.eigh(matrix)
    weight = np.abs(np.outer(vectors[:, 0], vectors[:, 0]) * matrix)
    pairs = [(weight[i, j], i, j) for i in range(len(names)) for j in range(i) if matrix[i, j] != 0]
    heaviest = sorted(pairs, reverse=True)[:3]
    return float(values[0]), [f"{names[j]}–{names[i]} {matrix[i, j]:g}" for _, i, j in heaviest]


def nearest_correlation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The correlation matrix nearest to a symmetric one in the Frobenius norm, positive definite.

    Alternating projections with Dykstra's correction (N. J. Higham, IMA J. Numer. Anal. 22, 2002), then a
    small floor on the eigenvalues and a unit diagonal.
    """
    nearest = matrix.copy()
    correction = np.zeros_like(matrix)
    for _ in range(_MOST_PROJECTIONS):
        before = nearest
        shifted = nearest - correction
        semidefinite = _with_eigenvalues_above(shifted, 0.0)
        correction = semidefinite - shifted
        nearest = semidefinite.copy()
        np.fill_diagonal(nearest, 1.0)
        if np.linalg.norm(nearest - before) <= 1e-12 * np.linalg.norm(nearest):
            break
    floored = _with_eigenvalues_above(nearest, _REPAIRED_EIGENVALUE)
    scale = 1.0 / np.sqrt(np.diag(floored))
    repaired = floored * np.outer(scale, scale)
    np.fill_diagonal(repaired, 1.0)
    return (repaired + repaired.T) / 2


def _with_eigenvalues_above(matrix: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, floor)) @ vectors.T
