"""How far JAX's `fast` arithmetic strays from `strict`, path by path and in the reported quantiles.

    python bench/fast_drift.py --json bench/results/fast.json

runs the same paths in both; `python docs/tables.py --write` puts the figures into docs/devices.md. What a
compiler contracts depends on its version and on the processor, so that another machine gives other figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import common
import numpy as np

import offtake
from offtake.compile import Compiled, compile_study
from offtake.hal.host import processor
from offtake.portfolio import load
from offtake.study import Study
from offtake.summary import QUANTILES, Summary
from offtake_kernels import path_jax, walk
from offtake_kernels.bins import MOST_LANES
from offtake_kernels.placement import Placement
from offtake_kernels.tally import TallyBuilder

EXAMPLE = Path(__file__).resolve().parent.parent / "tests" / "data" / "example.yaml"
STUDIES = {"OpenAI": "openai", "the example": str(EXAMPLE)}
ARITHMETIC = "strict", "fast"


def drift(study: Study, paths: int) -> dict[str, Any]:
    """Differences of fast from strict over `paths` paths from path 0.

    paths_that_differ, values_that_differ: shares, of paths with any recorded value of other bits, and of all
    recorded values. largest_relative: the largest |fast - strict| / max(|fast|, |strict|) of a value;
    share_above_1e_6: of values. worst_quantile_relative: the largest difference of a reported quantile,
    relative to it; worst_quantile_se: of one that has a standard error, relative to that.
    """
    import jax

    compiled = compile_study(study)
    recipes = [
        path_jax.Recipe(
            compiled.plan, Placement(jax.devices()[:1]), strict=name == "strict", lanes=min(paths, 16_384)
        ).compile()
        for name in ARITHMETIC
    ]
    found = _values_that_stray(recipes, paths)
    statistics = [_statistics(compiled, recipe, paths) for recipe in recipes]
    return {**found, **_quantiles_that_stray(*statistics)}


def _values_that_stray(recipes: list[path_jax.Recipe], paths: int) -> dict[str, Any]:
    plan, differs = recipes[0].plan, np.zeros(paths, np.bool_)
    values = others = above = 0
    largest = 0.0
    for first in range(0, paths, recipes[0].lanes):
        lanes = min(recipes[0].lanes, paths - first)
        tiles = [recipe.tile(first, lanes) for recipe in recipes]
        for t in range(plan.quarters):
            strict, fast = (np.stack(np.broadcast_arrays(*tile.step(t))) for tile in tiles)
            unequal = strict != fast
            differs[first : first + lanes] |= unequal.any(axis=0)
            scale = np.maximum(np.abs(strict[unequal]), np.abs(fast[unequal])).astype(np.float64)
            relative = np.abs(strict[unequal].astype(np.float64) - fast[unequal]) / scale
            values, others = values + strict.size, others + relative.size
            above += int((relative > 1e-6).sum())
            largest = max(largest, float(relative.max(initial=0.0)))
    return {
        "paths": paths,
        "paths_that_differ": float(differs.mean()),
        "values_that_differ": others / values,
        "share_above_1e_6": above / values,
        "largest_relative": largest,
    }


def _statistics(compiled: Compiled, recipe: path_jax.Recipe, paths: int) -> dict[str, Any]:
    builder = TallyBuilder(compiled.plan.rows, compiled.plan.threshold_rows)
    for first in range(0, paths, MOST_LANES):
        walk.run(recipe, first, min(MOST_LANES, paths - first), builder)
    catalogue = compiled.catalogue
    return Summary(builder.build(paths), catalogue.rows, catalogue.threshold_rows).statistics


def _quantiles_that_stray(strict: dict[str, Any], fast: dict[str, Any]) -> dict[str, float]:
    relative = in_errors = 0.0
    for name in QUANTILES:
        before, after = (np.asarray(summary[name], np.float64) for summary in (strict, fast))
        stray = np.abs(after - before)
        scale = np.maximum(np.abs(before), np.abs(after))
        relative = max(relative, _largest(stray, scale))
        if f"se_{name}" in strict:
            in_errors = max(in_errors, _largest(stray, np.asarray(strict[f"se_{name}"], np.float64)))
    return {"worst_quantile_relative": relative, "worst_quantile_se": in_errors}


def _largest(stray: np.ndarray, scale: np.ndarray) -> float:
    """The largest ratio, where both are known and the scale is not 0."""
    known = np.isfinite(stray) & np.isfinite(scale) & (scale > 0)
    return float((stray[known] / scale[known]).max(initial=0.0))


def measure(paths: int) -> dict[str, Any]:
    """Everything, as JSON holds it."""
    import jax

    return {
        "command": " ".join(["python", *sys.argv]),
        "processor": processor()["kind"],
        "jax": jax.__version__,
        "offtake": offtake.__version__,
        "studies": {name: drift(load(source), paths) for name, source in STUDIES.items()},
    }


def main() -> None:
    """Measures, prints, and writes where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--paths", type=int, default=100_000)
    options = parser.parse_args()
    found = measure(options.paths)
    print(json.dumps(found, indent=1))
    common.save(found, options.json)


if __name__ == "__main__":
    main()
