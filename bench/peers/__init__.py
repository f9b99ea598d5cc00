"""offtake's peers on one reduced study, each as a user of that library would write it.

The study is `common.plain()`: contracts that slip and may never begin, correlated lognormal factors, a buyer
with cash and funding. A peer gives mean, sd, se, p05, p50 and p95 of capacity, compute, spend and cash by
quarter; those of `BY_DEAL` also give capacity, compute and spend of every deal.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

# Metric, and the deal whose it is: none for a total.
Series = tuple[str, str]
# Statistics [quarters] by series and name.
Answer = dict[Series, dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Peer:
    """A module of this package with its options, the library that it needs, and paths of a timed round."""

    module: str
    library: str
    paths: int
    options: dict[str, bool] = field(default_factory=dict)

    def prepare(self, study: dict[str, Any], paths: int) -> Callable[[int], Answer]:
        """A function of the seed; what needs doing once, such as compiling, is done."""
        module = importlib.import_module(f".{self.module}", __name__)
        return module.prepare(study, paths, **self.options)


PEERS = {
    "naive numpy": Peer("naive", "numpy", 8_192),
    "blocked numpy": Peer("blocked", "numpy", 65_536),
    "squigglepy": Peer("squiggle", "squigglepy", 4_096),
    "squigglepy, correlated by numpy": Peer("squiggle", "squigglepy", 16_384, {"correlate": False}),
    "OpenTURNS": Peer("turns", "openturns", 16_384),
    "OpenTURNS, computed by numpy": Peer("turns", "openturns", 16_384, {"function": False}),
    "monaco": Peer("monaco_cases", "monaco", 1_024),
    "JAX vmap": Peer("vmap", "jax", 16_384),
    "JAX vmap, statistics by numpy": Peer("vmap", "jax", 65_536, {"quantile": False}),
}
BY_DEAL = {
    "naive numpy": Peer("naive", "numpy", 4_096, {"by_deal": True}),
    "blocked numpy": Peer("blocked", "numpy", 16_384, {"by_deal": True}),
    "JAX vmap": Peer("vmap", "jax", 4_096, {"by_deal": True}),
    "JAX vmap, statistics by numpy": Peer("vmap", "jax", 16_384, {"by_deal": True, "quantile": False}),
}
