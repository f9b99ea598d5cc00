"""Tables of `offtake bench`. 80 columns."""

from __future__ import annotations

import textwrap
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from offtake.benchmark import label
from offtake.console import WIDTH

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
    for kind, devices in kinds(found).items():
        _line(console, f"{', '.join(devices)}: {kind}")
    console.print(_speed(found), width=WIDTH)
    console.print(_limits(found, dollars), width=WIDTH)
    _line(console, "Limit: paths/s by what it does of each kind of work with nothing else to do.")
    if _has_energy(found):
        _line(console, "J/1e6: joules of the GPU for a million paths.")
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
        for kind, devices in kinds(found).items():
            _line(console, f"{name}: {', '.join(devices)}: {kind}")
    table = _table("A, paths/s", "B, paths/s", "B / A", "least", "most")
    for row in rows:
        ratio = row["ratio"]
        cells = (rate_text(row[side]["median"]) for side in ("first", "second"))
        table.add_row(row["device"], *cells, *(f"{ratio[key]:.2f}" for key in ("median", "least", "most")))
    console.print(table, width=WIDTH)


def rate_text(rate: float) -> str:
    """A rate as tables hold it: millions from one million on."""
    return f"{rate:,.0f}" if rate < 1e6 else f"{rate / 1e6:,.1f} M"


def duration_text(seconds: float) -> str:
    """Seconds as tables hold them: hours from one hour on."""
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds:,.0f} s"


def kinds(found: dict[str, Any]) -> dict[str, list[str]]:
    """Backends by the device that they ran on."""
    grouped: dict[str, list[str]] = {}
    for one in found["devices"]:
        device = one["device"]
        cores = 1 if one["backend"] == "numpy" else device["cores"]
        kind = f"{device['kind']}{f', {cores} cores' if cores > 1 else ', 1 core' if cores else ''}"
        names = grouped.setdefault(kind, [])
        if one["backend"] not in names:
            names.append(one["backend"])
    return grouped


def _speed(found: dict[str, Any]) -> Table:
    table = _table("paths/s", "least – most", "deal-quarters/s", "ns/path", "ratio")
    first = found["devices"][0]["paths_per_second"]["median"]
    for one in found["devices"]:
        rate = one["paths_per_second"]
        table.add_row(
            label(one["backend"], one["arithmetic"]),
            rate_text(rate["median"]),
            f"{rate_text(rate['least'])} – {rate_text(rate['most'])}",
            f"{one['deal_quarters_per_second']:.2e}",
            f"{1e9 / rate['median']:,.0f}",
            f"{ratio:,.2f}" if (ratio := rate["median"] / first) < 1000 else f"{ratio:,.0f}",
        )
    return table


def _limits(found: dict[str, Any], dollars: float | None) -> Table:
    counted = _has_energy(found)
    energy, price = ["J/1e6"] if counted else [], [] if dollars is None else [f"at ${dollars:g}/h"]
    table = _table("compile", "limit", "of limit", *energy, "1e9 paths", *price)
    for one in found["devices"]:
        seconds = _BILLION / one["paths_per_second"]["median"]
        cells = [
            f"{one['compile_seconds']:.1f} s",
            rate_text(one["limits"]["paths_per_second"]),
            f"{one['share_of_limit']:.0%}",
        ]
        if counted:
            joules = one["joules_per_million_paths"]
            cells.append(f"{joules:,.1f}" if joules else "")
        cells.append(duration_text(seconds))
        if dollars is not None:
            cells.append(f"${seconds / 3600 * dollars:,.2f}")
        table.add_row(label(one["backend"], one["arithmetic"]), *cells)
    return table


def _has_energy(found: dict[str, Any]) -> bool:
    return any(one["joules_per_million_paths"] for one in found["devices"])


def _table(*headings: str) -> Table:
    table = Table()
    table.add_column("device", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _line(console: Console, text: str) -> None:
    for part in textwrap.wrap(text, WIDTH):
        console.print(Text(part), width=WIDTH, highlight=False)
