"""monaco: a Sim whose functions compute one case, that is one path."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import monaco as mc  # pyright: ignore[reportMissingImports]
import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, uniform

from . import Answer, model, sample_arrays
from .terms import METRICS, Terms, terms_of

SCALAR = SimpleNamespace(maximum=max, minimum=min)


def prepare(study: dict[str, Any], paths: int) -> Callable[[int], Answer]:
    """A function of the seed that simulates `paths` paths and summarises them."""
    terms = terms_of(study)
    cholesky = np.linalg.cholesky(terms.correlation)
    normals = terms.drift.size + 1 + terms.regions + terms.deals
    cuts = np.cumsum([terms.drift.size, 1, terms.regions, terms.deals])

    def preprocess(case: Any) -> tuple[NDArray[np.float64], ...]:
        drawn = np.array([value.val for value in case.invals.values()])
        return tuple(np.split(drawn, cuts))

    def run_case(shocks: NDArray, chain: NDArray, region: NDArray, own: NDArray, drawn: NDArray) -> Any:
        score = terms.chain * chain + terms.area * region[terms.region] + terms.own * own
        start = model.start(np, terms, score, drawn)
        return _totals(terms, start, shocks.reshape(terms.drift.shape) @ cholesky.T)

    def postprocess(case: Any, *totals: Any) -> None:
        for metric, values in zip(METRICS, totals, strict=True):
            case.addOutVal(metric, values, split=False)

    functions = {"preprocess": preprocess, "run": run_case, "postprocess": postprocess}

    def run(seed: int) -> Answer:
        sim = mc.Sim(
            "peers",
            ndraws=paths,
            fcns={mc.SimFunctions(name): function for name, function in functions.items()},
            samplemethod=mc.SampleMethod.RANDOM,
            seed=seed,
            verbose=False,
            debug=True,
        )
        for number in range(normals):
            sim.addInVar(f"normal {number}", dist=norm, distkwargs={})
        for number in range(terms.deals):
            sim.addInVar(f"uniform {number}", dist=uniform, distkwargs={})
        sim.runSim()
        found = [np.array(sim.outvars[metric].nums).T for metric in METRICS]
        return sample_arrays.statistics(terms.series(by_deal=False), np.stack(found))

    return run


def _totals(terms: Terms, start: NDArray, shocks: NDArray) -> tuple[NDArray, ...]:
    """The four metrics [quarters] of a path, from starts [deals] and shocks [quarters - 1, factors]."""
    edges = np.arange(terms.quarters + 1.0)[:, None]
    delivered = np.diff(model.served_quarters(np, terms, edges - start), axis=0)
    capacity, compute, firm, flexible = (delivered @ terms.weights.T).T
    steps = np.vstack([terms.opening, terms.drift + terms.volatility * shocks])
    use, net = model.market(np, terms, compute, *np.exp(np.cumsum(steps, axis=0)).T)
    spend = firm + flexible * use
    held, funding, cash = terms.buyer["cash"], 0.0, []
    for brought in (net - spend).tolist():
        held, funding = model.settle(SCALAR, terms, held, funding, brought)
        cash.append(held)
    return capacity, compute, spend, np.array(cash)
