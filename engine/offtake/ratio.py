"""The unit cost of the means: mean spend over mean compute, beside the mean of each path's own ratio.

The two differ because paths with little compute have large ratios. Standard error of a ratio: Cochran,
Sampling Techniques, 3rd edition (1977), section 2.11; the covariance comes from the recorded product.
"""

from __future__ import annotations

import math

from offtake.summary import Summary
from offtake_kernels.layout import UNIT_COST

METRIC = "unit_cost_of_means"


def unit_cost_of_means(summary: Summary) -> list[tuple[int, float, float]]:
    """(quarter, value, standard error) in US$ per H100e-hour; NaN where there is none."""
    rows = {(row.metric, row.quarter): n for n, row in enumerate(summary.rows) if row.scope == "total"}
    quarters = [quarter for metric, quarter in rows if metric == "spend_compute" and quarter is not None]
    return [
        (quarter, *_ratio(summary, *(rows[m, quarter] for m in ("spend", "compute", "spend_compute"))))
        for quarter in quarters
    ]


def _ratio(summary: Summary, spend: int, compute: int, product: int) -> tuple[float, float]:
    statistics = summary.statistics
    mean_spend, mean_compute, mean_product = (float(statistics["mean"][n]) for n in (spend, compute, product))
    paths = int(statistics["paths"][spend])
    if not mean_compute > 0.0:
        return math.nan, math.nan
    ratio = mean_spend / mean_compute
    if paths < 2:
        return UNIT_COST * ratio, math.nan
    covariance = (mean_product - mean_spend * mean_compute) * paths / (paths - 1)
    sd_spend, sd_compute = (float(statistics["sd"][n]) for n in (spend, compute))
    variance = max(sd_spend**2 + ratio**2 * sd_compute**2 - 2 * ratio * covariance, 0.0)
    return UNIT_COST * ratio, UNIT_COST * math.sqrt(variance / paths) / mean_compute
