"""Tables of `offtake bench`. 80 columns."""

from __future__ import annotations

import textwrap
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from offtake.benchmark import label

_WIDTH = 80
_BILLION = 1e9


def print_bench(found: dict[str, Any], dollars: float | None, console: Console) -> None:
    """Speed, then what it is made of: limits, energy and price."""
    study, machine = found["study"], found["machine"]
    path = study["path"]
    _line(console, f"{study['portfolio']}: {study['deals']} deals x {study['quarters']} quarters")
    _line(
        console,
        f"a path: {path['operations']:,} operations, {path['words']:,} random words, "
        f"{path['bytes'] / 1e3:,.1f} kB moved",
    )
    for kind, devices in _kinds(found).items():
        _line(console, f"{', '.join(devices)}: {kind}")
    console.print(_speed(found), width=_WIDTH)
    console.print(_limits(found, dollars), width=_WIDTH)
    _line(console, "Limit: what the device does of each kind of work with nothing else to do.")
    for skipped in found["skipped"]:
        _line(console, f"not run, {skipped['backend']}: {skipped['reason']}")
    if found["load_average"] and found["load_average"] > 0.5 * machine["cores"]:
        _line(
            console, f"The machine was busy (load {found['load_average']}): take the ratios, not the rates."
        )


def print_comparison(
    rows: list[dict[str, Any]], first: dict[str, Any], second: dict[str, Any], console: Console
) -> None:
    """Rates of two files and their ratio."""
    for name, found in (("A", first), ("B", second)):
        for kind, devices in _kinds(found).items():
            _line(console, f"{name}: {', '.join(devices)}: {kind}")
    table = _table("A, paths/s", "B, paths/s", "B / A", "least", "most")
    for row in rows:
        ratio = row["ratio"]
        cells = (f"{row[side]['median']:,.0f}" for side in ("first", "second"))
        table.add_row(row["device"], *cells, *(f"{ratio[key]:.2f}" for key in ("median", "least", "most")))
    console.print(table, width=_WIDTH)


def _kinds(found: dict[str, Any]) -> dict[str, list[str]]:
    """Devices by what they are."""
    kinds: dict[str, list[str]] = {}
    for one in found["devices"]:
        device = one["device"]
        cores = 1 if one["backend"] == "numpy" else device["cores"]
        kind = f"{device['kind']}{f', {cores} cores' if cores > 1 else ', 1 core' if cores else ''}"
        names = kinds.setdefault(kind, [])
        if one["backend"] not in names:
            names.append(one["backend"])
    return kinds


def _speed(found: dict[str, Any]) -> Table:
    table = _table("paths/s", "least – most", "deal-quarters/s", "ns/path", "ratio")
    first = found["devices"][0]["paths_per_second"]["median"]
    for one in found["devices"]:
        rate = one["paths_per_second"]
        table.add_row(
            label(one["backend"], one["arithmetic"]),
            f"{rate['median']:,.0f}",
            f"{rate['least']:,.0f} – {rate['most']:,.0f}",
            f"{one['deal_quarters_per_second']:.2e}",
            f"{1e9 / rate['median']:,.0f}",
            f"{rate['median'] / first:,.2f}",
        )
    return table


def _limits(found: dict[str, Any], dollars: float | None) -> Table:
    counted = any(one["joules_per_million_paths"] for one in found["devices"])
    energy, price = ["J/1e6"] if counted else [], [] if dollars is None else [f"at ${dollars:g}/h"]
    table = _table("compile", "limit, paths/s", "of limit", *energy, "1e9 paths", *price)
    for one in found["devices"]:
        hours = _BILLION / one["paths_per_second"]["median"] / 3600
        cells = [
            f"{one['compile_seconds']:.1f} s",
            f"{one['limits']['paths_per_second']:,.0f}",
            f"{one['share_of_limit']:.0%}",
        ]
        if counted:
            cells.append(f"{one['joules_per_million_paths'] or float('nan'):,.1f}")
        cells.append(f"{hours:,.1f} h" if hours >= 1 else f"{3600 * hours:,.0f} s")
        if dollars is not None:
            cells.append(f"${hours * dollars:,.2f}")
        table.add_row(label(one["backend"], one["arithmetic"]), *cells)
    return table


def _table(*headings: str) -> Table:
    table = Table()
    table.add_column("device", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _line(console: Console, text: str) -> None:
    for part in textwrap.wrap(text, _WIDTH):
        console.print(Text(part), width=_WIDTH, highlight=False)
