"""What the shipped defaults lead to: the tables of docs/defaults.md, from runs of the studies.

    python docs/outcomes.py            exit 1 when the page shows other figures than the runs
    python docs/outcomes.py --write    put the runs' figures into the page

A table stands between "<!-- NAME -->" and "<!-- /NAME -->".
"""

from __future__ import annotations

import sys
from pathlib import Path

import offtake

PAGE = Path(__file__).resolve().parent / "defaults.md"
PERIODS = tuple(f"{year}Q4" for year in range(2025, 2031))
WORLDS = ("base", "boom", "bust_2027", "flat_demand", "no_volatility")
LIMIT = 250.0
_A_YEAR = 4
# Row, metric, and what its value is multiplied with.
_YEARS = (
    ("capacity, GW", "capacity_gw", 1),
    ("compute online, MH100e", "compute", 1),
    ("demand, MH100e", "demand", 1),
    ("utilisation", "utilisation", 1),
    ("served", "served", 1),
    ("revenue a year", "revenue", _A_YEAR),
    ("spend a year", "spend", _A_YEAR),
    ("cash", "cash", 1),
    ("funding", "funding", 1),
    ("cost of an H100e-hour, US$", "unit_cost", 1),
    ("concentration (HHI)", "concentration", 1),
)
_SUMS = (
    ("spend", "total_spend"),
    ("inflows from suppliers", "total_inflows"),
    ("peak funding", "peak_funding"),
    ("net present value, warrants and later years left out", "npv_net"),
)


def _run(world: str, *overrides: str) -> offtake.Result:
    study = offtake.load("openai", overrides=[f"world={world}", "study.keep_paths=0", *overrides])
    return offtake.run(study, device="numpy", workers=1)


def _value(result: offtake.Result, statistic: str, metric: str, period: str | None = None) -> float:
    table = result.scalars if period is None else result.quarters
    for row in table.to_pylist():
        here = row["metric"], row["scope"], row.get("period")
        if here == (metric, "total", period):
            return row[statistic]
    raise KeyError((metric, period))


def _three(value: float) -> str:
    """Three digits."""
    size = abs(value)
    return f"{value:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}"


def _whole(value: float) -> str:
    return f"{value + 0.0:.0f}"


def base(to_2033: offtake.Result, to_2030: offtake.Result) -> list[str]:
    """Medians by year, sums to 2030, and distress."""
    lines = [f"| | {' | '.join(PERIODS)} |", "|---" * (len(PERIODS) + 1) + "|"]
    quarters = {
        (row["metric"], row["period"]): row for row in to_2033.quarters.to_pylist() if row["scope"] == "total"
    }
    for title, metric, times in _YEARS:
        rows = [quarters[metric, period] for period in PERIODS]
        cells = [[_three(times * row[name]) for name in ("p50", "p05", "p95")] for row in rows]
        lines.append(f"| {title} | {' | '.join(f'{mid} ({low}–{high})' for mid, low, high in cells)} |")
    above = [to_2033.probability("funding", ">", LIMIT, quarter=period) or 0.0 for period in PERIODS]
    lines += [f"| P(funding above {LIMIT:g}) | {' | '.join(f'{100 * share:.1f} %' for share in above)} |", ""]
    lines += ["| to the end of 2030 | mean | 5 % | median | 95 % |", "|---|---|---|---|---|"]
    for title, metric in _SUMS:
        cells = [_value(to_2030, name, metric) for name in ("mean", "p05", "p50", "p95")]
        lines.append(f"| {title} | {' | '.join(map(_whole, cells))} |")
    early, late = (1.0 - _value(result, "share_none", "first_distress") for result in (to_2030, to_2033))
    return [
        *lines,
        "",
        f"P(distress at any time by the end of 2030) is {100 * early:.0f} %; by the end of 2033, "
        f"{100 * late:.0f} %.",
    ]


def public(to_2033: offtake.Result, to_2030: offtake.Result) -> list[str]:
    """Beside what the public knows."""

    def range_of(result: offtake.Result, form, metric: str, period: str | None = None, times: int = 1) -> str:
        mid, low, high = (
            form(times * _value(result, name, metric, period)) for name in ("p50", "p05", "p95")
        )
        return f"{mid} ({low}–{high})"

    first = _value(to_2033, "p50", "capacity_gw", "2025Q4")
    capacity = range_of(to_2033, _three, "capacity_gw", "2030Q4")
    revenue = range_of(to_2033, _three, "revenue", "2030Q4", _A_YEAR)
    cost = range_of(to_2033, _three, "unit_cost", "2026Q4")
    return [
        "| | model, median (5–95 %) | public |",
        "|---|---|---|",
        f"| capacity in 2025Q4 | {first:.1f} GW in the mean of the quarter | 1.9 GW at its end |",
        f"| capacity in 2030Q4 | {capacity} | 26 GW of chips and 4.5 GW of Oracle are announced; "
        "about half is likely when sites and odds are counted |",
        f"| revenue in 2030Q4, a year | {revenue} | plan of more than 280 in 2030 |",
        f"| spend to the end of 2030 | {range_of(to_2030, _whole, 'total_spend')} | plan of about 600 |",
        f"| cost of an H100 hour, 2026Q4 | {cost} | contracts at 1.70–2.35; owned and long-term capacity is "
        "cheaper once it is full |",
    ]


def worlds() -> list[str]:
    """The base's deals in every world."""
    lines = [
        "| world | capacity 2030Q4, GW | served 2030Q4 | revenue 2030Q4, a year | spend in all "
        "| peak funding | NPV | P(distress) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for world in WORLDS:
        result = _run(world, "study.paths=8192")
        cells = [
            f"{_value(result, 'mean', 'capacity_gw', '2030Q4'):.1f}",
            f"{_value(result, 'mean', 'served', '2030Q4'):.2f}",
            _whole(_A_YEAR * _value(result, "mean", "revenue", "2030Q4")),
            *(_whole(_value(result, "mean", name)) for name in ("total_spend", "peak_funding", "npv_net")),
            f"{100 * (1.0 - _value(result, 'share_none', 'first_distress')):.0f} %",
        ]
        lines.append(f"| `{world}` | {' | '.join(cells)} |")
    return lines


def renewed(text: str) -> str:
    """The page's text with what the runs yield."""
    paths = f"study.thresholds=[{{metric: funding, op: '>', level: {LIMIT}}}]", "study.paths=20000"
    to_2033, to_2030 = _run("base", *paths), _run("base", *paths, "portfolio.quarters=21")
    made = {"base": base(to_2033, to_2030), "public": public(to_2033, to_2030), "worlds": worlds()}
    for name, lines in made.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        assert end, f"{name} has no place in {PAGE.name}"
        text = "".join([before, begin, *(f"{line}\n" for line in lines), end, after])
    return text


def main() -> int:
    """Checks or writes the page."""
    text = PAGE.read_text(encoding="utf-8")
    new = renewed(text)
    if "--write" in sys.argv:
        PAGE.write_text(new, encoding="utf-8")
        return 0
    return int(new != text)


if __name__ == "__main__":
    sys.exit(main())
