"""What a person reads in the terminal: a study's answer, the deals as announced, a path replayed. 80
columns.
"""

from __future__ import annotations

import textwrap
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from offtake.announce import announced_totals
from offtake.console import WIDTH
from offtake.headline import Headline, Number
from offtake.results import Result
from offtake.study import Study

_MOST_DEALS = 16
# From here on a number is shown by its first digits and a power of ten.
_MANY = 1e9


def print_summary(result: Result, study: Study, console: Console) -> None:
    """Years, chances, risks and the announced total beside the modelled one."""
    headline = Headline(result, study)
    manifest = result.manifest
    before = manifest.get("paths_resumed", 0)
    now = f", {manifest['paths'] - before:,} of them now" if before else ""
    _line(
        console,
        f"{study.portfolio.name}: {manifest['paths']:,} paths{now} in {manifest['seconds']:.1f} s "
        f"on {manifest['backend']}",
    )
    _line(console, "Means ± standard error: levels of the last quarter, flows of the year.")
    if headline.errors_add_up:
        _line(console, "Of flows the quarters' errors are added, which is an upper bound.")
    console.print(_years(headline, _COMPUTE), width=WIDTH)
    _line(console, "compute and demand in million H100-equivalents; money in US$ bn")
    console.print(_years(headline, _MONEY), width=WIDTH)
    _chances(console, headline)
    _thresholds(console, headline)
    _line(console, "")
    _line(console, "Deals, those expected to miss most GW first (of spend, ± is an upper bound):")
    console.print(_risks(headline), width=WIDTH)
    _announced_line(console, headline, study)
    _line(console, f"summary_hash {result.summary_hash}")


def _line(console: Console, text: str, indent: int = 0) -> None:
    for part in textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent) or [""]:
        console.print(Text(part), width=WIDTH, highlight=False)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def show(number: Number, digits: int | None = None) -> str:
    """A value with its standard error, to the error's precision: 12.34 ±0.05."""
    if number.value is None:
        return "–"
    if abs(number.value) >= _MANY:
        return f"{number.value:.3g}" + ("" if number.se is None else f" ±{number.se:.1g}")
    if digits is None:
        digits = 0 if abs(number.value) >= 100 else 1 if abs(number.value) >= 10 else 2
    if number.se is None:
        return f"{number.value:,.{digits}f}"
    smallest = 0.5 * 10.0**-digits
    error = (
        "0"
        if number.se == 0
        else f"{number.se:.{digits}f}"
        if number.se >= smallest
        else f"<{2 * smallest:.{digits}f}"
    )
    return f"{number.value:,.{digits}f} ±{error}"


def percent(number: Number) -> str:
    """A probability with its standard error, in per cent."""
    if number.value is None:
        return "–"
    error = "" if number.se is None else f" ±{100 * number.se:.1f}"
    return f"{100 * number.value:.1f}{error} %"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), width=WIDTH)
    for position, column in enumerate(columns):
        table.add_column(
            column, justify="left" if position == 0 else "right", no_wrap=True, overflow="ellipsis"
        )
    return table


_COMPUTE = {"capacity_gw": "capacity GW", "compute": "compute", "demand": "demand", "served": "served"}
_MONEY = {"spend": "spend", "revenue": "revenue", "cash": "cash", "funding": "funding"}


def _years(headline: Headline, columns: dict[str, str]) -> Table:
    table = _table("year", *columns.values())
    for row in headline.years():
        label = str(row["year"]) if row["quarters"] == 4 else f"{row['year']} ({row['quarters']} q)"
        table.add_row(label, *(show(row[name]) for name in columns))
    return table


_CHANCES = {
    "distress": "funding passes its limit in some quarter",
    "shortage": "demand goes unserved in some quarter",
}


def _chances(console: Console, headline: Headline) -> None:
    for name, chance in headline.probabilities().items():
        what = _CHANCES.get(name) or f"capacity reaches {name.removeprefix('reach_')} GW within the horizon"
        _line(console, f"{percent(chance):>16}  {what}")
    totals = headline.totals()
    funding = ", ".join(
        f"{label} {show(totals[f'peak_funding_{key}'])}"
        for key, label in (("p50", "median"), ("p95", "95 %"))
    )
    _line(console, f"Peak funding: {funding}. Lowest cash, 5 %: {show(totals['min_cash_p05'])}.")


def _thresholds(console: Console, headline: Headline) -> None:
    """The study's own: one of every quarter by the quarter in which it is likeliest."""
    likeliest: dict[tuple[str, str, float], dict[str, Any]] = {}
    for row in headline.thresholds():
        known = likeliest.setdefault((row["metric"], row["op"], row["level"]), row)
        if row["probability"].value > known["probability"].value:
            likeliest[row["metric"], row["op"], row["level"]] = row
    if likeliest:
        _line(console, "Thresholds of the study, each in the quarter in which it is likeliest:")
    for row in likeliest.values():
        when = f" in {row['period']}" if row["period"] and row["probability"].value else ""
        what = f"{row['metric']} {row['op']} {row['level']:g}{when}"
        _line(console, f"{percent(row['probability']):>16}  {what}")


def _risks(headline: Headline) -> Table:
    table = _table("deal", "GW", "delivered", "quarters late", "ends early", "spend")
    for row in headline.deals()[:_MOST_DEALS]:
        table.add_row(
            _short(row["deal"], 20),
            f"{row['gw']:g}",
            percent(row["delivered_share"]),
            show(row["lateness"]),
            percent(row["ends_early"]),
            show(row["spend"]),
        )
    return table


def _announced_line(console: Console, headline: Headline, study: Study) -> None:
    announced = announced_totals(study)
    total = headline.totals()
    _line(
        console,
        f"Announced {announced['announced_bn']:,.0f}; modelled spend in {study.portfolio.quarters} quarters "
        f"{show(total['total_spend_mean'])} (5 % {show(total['total_spend_p05'])}, "
        f"95 % {show(total['total_spend_p95'])}).",
    )


def print_announced(study: Study, console: Console) -> None:
    """The deals as announced, by supplier, and their total."""
    totals = announced_totals(study)
    table = _table("deal", "supplier", "GW", "start", "years", "US$ bn", "conf.", "as of")
    for deal in totals["deals"]:
        paid = deal["paid_bn"]
        years = "–" if deal["term_quarters"] is None else f"{deal['term_quarters'] / 4:g}"
        table.add_row(
            _short(deal["deal"], 16),
            _short(deal["supplier"], 12),
            f"{deal['gw']:g}",
            deal["start"][:7],
            years,
            f"{paid:,.1f}" if paid else "–",
            deal["confidence"] or "–",
            (deal["as_of"] or "–")[:7],
        )
    _line(console, f"{totals['portfolio']}: deals as announced (nothing random), US$ bn")
    console.print(table, width=WIDTH)
    by_supplier = ", ".join(
        f"{name} {value:,.1f}"
        for name, value in sorted(totals["suppliers_bn"].items(), key=lambda i: -i[1])
        if value
    )
    if by_supplier:
        _line(console, f"By supplier: {by_supplier}.")
    _line(
        console,
        f"Announced total {totals['announced_bn']:,.1f}, of which commitments "
        f"{totals['commitments_bn']:,.1f}; received from suppliers up to {totals['received_bn']:,.1f}.",
    )


def print_press(lines: dict[str, Any], console: Console) -> None:
    """The press's total and the model's, line by line, and the bridge to the announced total."""
    _line(console, "")
    _line(console, f"The total that the press gives ({lines['source']}), line by line:")
    table = _table("item", "press", "model", "more, less")
    for line in lines["counted"]:
        table.add_row(
            _short(line["item"], 42), *_amounts(line["press_bn"], line["model_bn"], line["difference_bn"])
        )
    difference = lines["model_bn"] - lines["press_bn"]
    table.add_row("total", *_amounts(lines["press_bn"], lines["model_bn"], difference))
    for step in lines["bridge"]:
        table.add_row(f"  {_short(step['item'], 44)}", "", f"{step['bn']:+,.1f}", "")
    table.add_row("announced total", "", f"{lines['announced_bn']:,.1f}", "")
    console.print(table, width=WIDTH)
    for line in (*lines["counted"], *lines["not_counted"], *lines["elsewhere"]):
        amount = "" if line["press_bn"] is None else f" ({line['press_bn']:,.1f})"
        _line(console, f"- {line['item']}{amount}: {line['note']}")


def _amounts(*values: float | None) -> list[str]:
    """Amounts with one decimal; rounding noise is no difference."""
    return [
        "not given" if value is None else f"{value + 0.0 if abs(value) >= 0.05 else 0.0:,.1f}"
        for value in values
    ]


def print_replay(replayed: Any, console: Console) -> None:
    """A path's events in order, deals to which the same happened together, then its figures."""
    _line(console, f"path {replayed.path}")
    happened: dict[tuple[str, str], list[str]] = {}
    for event in replayed.events:
        happened.setdefault((event["period"], event["event"]), []).append(event["deal"])
    for (when, what), deals in happened.items():
        subject = f"{', '.join(deals)}: " if any(deals) else ""
        _line(console, f"{when}  {subject}{what}", indent=8)
    _line(
        console,
        "Every fourth quarter: capacity in GW, compute and demand in million H100-equivalents, "
        "money in US$ bn (spend and revenue of that quarter):",
    )
    table = _table("period", "capacity", "compute", "demand", "spend", "revenue", "cash", "funding")
    names = ("capacity_gw", "compute", "demand", "spend", "revenue", "cash", "funding")
    for t in range(0, len(replayed.periods), 4):
        table.add_row(replayed.periods[t], *(f"{replayed.quarters[name][t]:,.2f}" for name in names))
    console.print(table, width=WIDTH)
