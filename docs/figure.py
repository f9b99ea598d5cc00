"""Draws the README's picture from a run's folder: python docs/figure.py RUN docs/openai.png.

Needs the extra `report`.
"""

from __future__ import annotations

import sys

import altair as alt
import pyarrow.parquet as parquet

_PANELS = {
    "capacity_gw": "capacity, GW",
    "compute": "compute (band) and mean demand (line), million H100e",
    "spend": "spend, US$ bn a quarter",
    "funding": "outstanding funding, US$ bn",
}


def panel(frame, metric: str, title: str) -> alt.LayerChart:
    """A fan: 5–95 % and 25–75 % bands, median; mean demand beside compute."""
    rows = frame[frame.metric == metric]
    x = alt.X("date:T", title=None, axis=alt.Axis(format="%Y", tickCount="year"))
    y = alt.Y("p05:Q", title=None)
    base = alt.Chart(rows, title=title).encode(x=x)
    layers = [
        base.mark_area(opacity=0.25, color="#3b6ea8").encode(y=y, y2="p95"),
        base.mark_area(opacity=0.45, color="#3b6ea8").encode(y=alt.Y("p25:Q"), y2="p75"),
        base.mark_line(color="#12365e").encode(y="p50:Q"),
    ]
    if metric == "compute":
        demand = frame[frame.metric == "demand"]
        layers.append(alt.Chart(demand).mark_line(color="#b3452c", strokeDash=[5, 3]).encode(x=x, y="mean:Q"))
    return alt.layer(*layers).properties(width=360, height=190)


def main(run: str, target: str) -> None:
    """Four panels by quarter."""
    frame = parquet.read_table(f"{run}/quarters.parquet").to_pandas()
    frame = frame[frame.scope.astype(str) == "total"].copy()
    year, quarter = frame.period.str[:4].astype(int), frame.period.str[5:].astype(int)
    frame["date"] = [f"{y}-{3 * q - 2:02d}-01" for y, q in zip(year, quarter, strict=True)]
    frame["metric"] = frame.metric.astype(str)
    columns = ["metric", "date", "mean", "p05", "p25", "p50", "p75", "p95"]
    panels = [panel(frame[columns], metric, title) for metric, title in _PANELS.items()]
    chart = alt.vconcat(alt.hconcat(*panels[:2]), alt.hconcat(*panels[2:]))
    chart = chart.configure_view(stroke=None).configure_title(anchor="start", fontSize=12)
    chart.save(target, scale_factor=2.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
