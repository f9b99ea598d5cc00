"""What concerns several keys of a study at once: order, references, exclusions, magnitudes, correlation."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from offtake.correlation import SMALLEST_EIGENVALUE, correlation_matrix, weakest_direction
from offtake.deals import (
    Commitment,
    Deal,
    Portfolio,
    Power,
    Purchase,
    SlipLoading,
    VendorInvestment,
    Warrants,
)
from offtake.distributions import Distribution, Normal, Quantiles, Sampled
from offtake.errors import OfftakeError
from offtake.ladder import planned_weight, quarters_between
from offtake.layering import Composition, did_you_mean
from offtake.metrics import METRICS, reach_name, total_metric_names
from offtake.quantiles import quantile_table
from offtake.quantities import LONGEST_QUARTERS
from offtake.samples import read_column
from offtake.source_map import KeyPath
from offtake.study import Study
from offtake.world import OPENING_VALUES, REQUIRED_FACTORS, Factor, World
from offtake_kernels.quantile_table import REACH

_MONTHS_PER_QUARTER = 3
# Quarters that are simulated before a study begins, for deals that began earlier.
_MOST_HISTORY = 400
# A year: 500 %.
_LARGEST_USUAL_RATE = 5.0
LARGEST_USUAL_TOTAL = 1000.0
"""US$ bn: no contract of this size has been announced; more is probably millions."""


class _Findings:
    """Adds mistakes to a composition, except about keys that are known to be wrong already."""

    def __init__(self, composition: Composition, wrong: list[KeyPath]) -> None:
        self.composition = composition
        self.wrong = set(wrong)
        self.warnings: list[str] = []

    def add(self, path: KeyPath, message: str, hint: str = "", *, of_key: bool = False) -> None:
        if not any(path[:length] in self.wrong for length in range(1, len(path) + 1)):
            self.composition.mistake(path, message, hint, of_key=of_key)

    def warn(self, path: KeyPath, message: str) -> None:
        self.warnings.append(f"{self.composition.location(path)}: {'.'.join(map(str, path))}: {message}")

    def touches(self, path: KeyPath) -> bool:
        """Whether something at or below a path is known to be wrong, checks so far included."""
        return any(wrong[: len(path)] == path for wrong in self.wrong | self.composition.wrong)

    def known(self, *path: str) -> set[str]:
        """Every name written in a mapping, also of entries that are left out because they are wrong."""
        node: Any = self.composition.data
        for part in path:
            node = node.get(part, {}) if isinstance(node, Mapping) else {}
        return set(node) if isinstance(node, Mapping) else set()

    def each(self, section: str, name: str, key: str) -> Iterator[tuple[int, str]]:
        """A text of every entry of a list, also of those that are left out because they are wrong."""
        node = self.composition.data.get(section, {})
        entries = node.get(name) if isinstance(node, Mapping) else None
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, Mapping) and isinstance(entry.get(key), str):
                yield index, entry[key]


def check(study: Study, composition: Composition, wrong: list[KeyPath]) -> Study:
    """Add every mistake between keys to `composition`; `wrong` are the key paths already reported.

    Returns the study with its warnings.
    """
    findings = _Findings(composition, wrong)
    for name, deal in study.portfolio.deals.items():
        path = ("portfolio", "deals", name)
        _check_start(findings, path, deal, study.portfolio)
        _check_lifecycle(findings, path, deal)
        _check_references(findings, path, name, deal, study)
        _check_magnitudes(findings, path, deal)
        _check_loading(findings, (*path, "slip_loading"), deal.slip_loading)
    _check_blocking(findings, study)
    _check_buyer(findings, study)
    _check_world(findings, study.world)
    _check_settings(findings, study)
    for path, distribution in sampled(study, ()):
        _check_samples(findings, path, distribution)
    study._warnings = tuple(findings.warnings)
    return study


def _check_start(findings: _Findings, path: KeyPath, deal: Deal, portfolio: Portfolio) -> None:
    least, most = _extremes(deal.slip)
    if most > LONGEST_QUARTERS:
        message = f"must be at most {LONGEST_QUARTERS:,} quarters, but goes up to {most:.3g}"
        hint = "the tail goes on beyond the points; a max ends it" if isinstance(deal.slip, Quantiles) else ""
        findings.add((*path, "slip"), message, hint)
    if findings.touches(("portfolio", "start")):
        return
    start = portfolio.start
    months = 12 * (deal.start.year - start.year) + deal.start.month - start.month
    if months >= _MONTHS_PER_QUARTER * portfolio.quarters:
        findings.warn(
            (*path, "start"),
            f"{deal.start} is after the study's last quarter;"
            " nothing of the deal may be seen, is the year right?",
        )
    begins = quarters_between(start, deal.start)
    if begins + least < -_MOST_HISTORY:
        message = f"may begin more than {_MOST_HISTORY} quarters before the study"
        findings.add((*path, "start"), message, "look at its slip, too")
    longer = 0 if deal.extension is None else deal.extension.quarters
    if deal.term is not None and begins + most + deal.term + longer <= 0:
        findings.warn((*path, "term"), "ends before the study begins; nothing of the deal is seen")


def _check_lifecycle(findings: _Findings, path: KeyPath, deal: Deal) -> None:
    known = not findings.touches((*path, "ladder"))
    for (_, before), (name, rung) in pairwise(deal.ladder.items()) if known else ():
        here = (*path, "ladder", name)
        if rung.after <= before.after:
            findings.add((*here, "after"), "rungs must be sorted by 'after', each later than the one before")
        if rung.gw < before.gw:
            findings.add((*here, "gw"), f"is below the rung before ({before.gw:g}); gw is cumulative")
    committed = {name: leg for name, leg in deal.pays.items() if isinstance(leg, Commitment)}
    if committed and deal.term is None:
        findings.add((*path, "term"), f"is required by the commitment '{next(iter(committed))}'")
    rises = not findings.touches((*path, "ladder"))
    for name, leg in committed.items():
        if deal.term is not None and rises and planned_weight(deal, leg) <= 0.0:
            message = f"the term of {deal.term:g} quarters ends before anything is delivered"
            findings.add((*path, "pays", name), message)
    if deal.term is not None and deal.life is not None:
        findings.add((*path, "life"), "a deal has a term or a life, not both", of_key=True)
    elif deal.life is not None and deal.layer != "chips":
        findings.add((*path, "life"), f"only chips are owned; a {deal.layer} deal has a term", of_key=True)
    if deal.follows_sites and deal.layer != "chips":
        findings.add((*path, "follows_sites"), "only chips follow sites")
    extension = deal.extension
    if extension is not None and extension.when != "never":
        if deal.term is None:
            findings.add((*path, "extension"), "needs a term to extend", of_key=True)
        if extension.quarters == 0:
            findings.add((*path, "extension", "quarters"), "must be at least 1")


def _check_references(findings: _Findings, path: KeyPath, name: str, deal: Deal, study: Study) -> None:
    _check_hardware(findings, path, deal)
    factors = findings.known("world", "factors") | set(OPENING_VALUES)
    deals = findings.known("portfolio", "deals")
    for leg_name, leg in deal.pays.items():
        if isinstance(leg, Commitment | Purchase):
            _check_known(findings, (*path, "pays", leg_name, "index"), leg.index, factors, "factor")
    for leg_name, leg in deal.receives.items():
        here = (*path, "receives", leg_name)
        if isinstance(leg, Warrants):
            _check_known(findings, (*here, "share"), leg.share, factors, "factor")
            if leg.expiry < study.portfolio.start and not findings.touches(("portfolio", "start")):
                start = study.portfolio.start
                findings.add((*here, "expiry"), f"{leg.expiry} is before the portfolio's start {start}")
        if isinstance(leg, VendorInvestment):
            for index, other in enumerate(leg.milestone_from):
                if other == name:
                    findings.add((*here, "milestone_from", index), "a deal's own milestones count anyway")
                _check_known(findings, (*here, "milestone_from", index), other, deals, "deal")
            if len(set(leg.milestone_from)) < len(leg.milestone_from):
                findings.add((*here, "milestone_from"), "names a deal twice")


def _check_hardware(findings: _Findings, path: KeyPath, deal: Deal) -> None:
    here = (*path, "hardware")
    if deal.layer == "site":
        if deal.hardware is not None:
            findings.add(here, "a site has no hardware of its own", "chips are a deal of their own")
    elif deal.hardware is None:
        findings.add(here, f"is required for {deal.layer}")
    else:
        _check_known(findings, here, deal.hardware, findings.known("world", "hardware"), "hardware")


def _check_known(findings: _Findings, path: KeyPath, name: str, known: set[str], what: str) -> None:
    if name not in known:
        hint = did_you_mean(name, sorted(known)) or (
            f"there are: {', '.join(sorted(known))}" if known else ""
        )
        findings.add(path, f"no {what} is named '{name}'", hint)


def _check_magnitudes(findings: _Findings, path: KeyPath, deal: Deal) -> None:
    _check_lowest(findings, (*path, "size"), deal.size, at_least=0.0)
    _check_lowest(findings, (*path, "stretch"), deal.stretch, above=0.0)
    for name, leg in deal.pays.items():
        here = (*path, "pays", name)
        if isinstance(leg, Commitment):
            _check_lowest(findings, (*here, "price"), leg.price, at_least=0.0)
            if leg.total > LARGEST_USUAL_TOTAL:
                findings.warn(
                    (*here, "total"),
                    f"{leg.total:g} is in US$ bn; no contract that large is known, is the unit right?",
                )
        elif isinstance(leg, Power):
            _check_lowest(findings, (*here, "pue"), leg.pue, at_least=1.0)


def _extremes(distribution: Distribution) -> tuple[float, float]:
    """The lowest and highest value that can be drawn; NaN where a file cannot be read, which is a mistake of
    its own.
    """
    with suppress(OfftakeError):
        value = quantile_table(distribution)[1]
        return float(value[0]), float(value[-1])
    return math.nan, math.nan


def _check_lowest(
    findings: _Findings,
    path: KeyPath,
    distribution: Distribution,
    *,
    at_least: float | None = None,
    above: float | None = None,
) -> None:
    """A bound on the lowest value that can be drawn."""
    # As the kernels hold it.
    least = float(np.float32(max(_extremes(distribution)[0], -3e38)))
    hint = "the tail goes on beyond the points; a min ends it" if isinstance(distribution, Quantiles) else ""
    if isinstance(distribution, Normal):
        hint = f"{REACH:g} standard deviations below the mean; truncnorm has a low"
    if at_least is not None and least < at_least:
        findings.add(path, f"must be at least {at_least:g}, but goes down to {least:.3g}", hint)
    if above is not None and least <= above:
        findings.add(path, f"must be above {above:g}, but goes down to {least:.3g}", hint)


def _check_loading(findings: _Findings, path: KeyPath, loading: SlipLoading | None) -> None:
    if loading is not None and loading.supply_chain + loading.region > 1:
        total = loading.supply_chain + loading.region
        findings.add(
            path, f"supply_chain + region is {total:g}; variance shares add up to at most 1", of_key=True
        )


def _check_blocking(findings: _Findings, study: Study) -> None:
    deals = study.portfolio.deals
    for name, deal in deals.items():
        blocker, path = deal.blocked_while, ("portfolio", "deals", name, "blocked_while")
        if blocker is None:
            continue
        if blocker == name:
            findings.add(path, "a deal cannot wait for itself")
            continue
        _check_known(findings, path, blocker, findings.known("portfolio", "deals"), "deal")
        other = deals.get(blocker)
        if other is not None and not other.exclusive:
            findings.add(path, f"'{blocker}' is not exclusive", f"set exclusive: true in '{blocker}'")
        if other is not None and other.term is None:
            findings.add(path, f"'{blocker}' has no term, so it never ends")
    for cycle in _cycles({name: deal.blocked_while for name, deal in deals.items()}):
        path = ("portfolio", "deals", cycle[0], "blocked_while")
        findings.add(path, "deals wait for each other: " + " → ".join([*cycle, cycle[0]]))


def _cycles(blocker: Mapping[str, str | None]) -> Iterator[list[str]]:
    """Each cycle of two or more once, beginning with its first deal in the order of the portfolio."""
    seen: set[str] = set()
    for start in blocker:
        chain: list[str] = []
        current: str | None = start
        while current is not None and current not in seen:
            seen.add(current)
            chain.append(current)
            current = blocker.get(current)
        if current in chain and blocker[current] != current:
            yield chain[chain.index(current) :]


def _check_buyer(findings: _Findings, study: Study) -> None:
    buyer = study.portfolio.buyer
    path = ("portfolio", "buyer")
    if buyer.target is not None and buyer.floor is not None and buyer.target < buyer.floor:
        findings.add((*path, "target"), f"is below the floor ({buyer.floor:g})")
    if buyer.on_distress == "defer" and (buyer.funding_limit is None or buyer.floor is None):
        findings.warn((*path, "on_distress"), "defer has no effect without a floor and a funding_limit")


def _check_world(findings: _Findings, world: World) -> None:
    for name in REQUIRED_FACTORS:
        if name not in findings.known("world", "factors"):
            findings.add(("world", "factors", name), "is required")
    for name, factor in world.factors.items():
        path = ("world", "factors", name)
        if factor.table is not None:
            for key, field in type(factor).model_fields.items():
                if key != "table" and getattr(factor, key) != field.default:
                    findings.add((*path, key), "a factor is a table or a process, not both", of_key=True)
            dates = list(factor.table)
            if any(later <= earlier for earlier, later in pairwise(dates)):
                findings.add((*path, "table"), "dates must be increasing", of_key=True)
            continue
        _check_lowest(findings, (*path, "initial"), factor.initial, above=0.0)
        if factor.reversion and factor.level is None:
            findings.add((*path, "level"), "is required with reversion")
        if factor.bust is not None and world.regime is None:
            findings.warn((*path, "bust"), "has no effect without world.regime")
        _warn_of_rates(findings, path, factor)
    _check_loading(findings, ("world", "slip_loading"), world.slip_loading)
    _check_correlation(findings, world)


def _warn_of_rates(findings: _Findings, path: KeyPath, factor: Factor) -> None:
    growth = factor.growth
    rates = {"growth": growth} if isinstance(growth, float | int) else {"growth.now": growth.now}
    for name, rate in {**rates, "volatility": factor.volatility}.items():
        if abs(rate) > _LARGEST_USUAL_RATE:
            message = f"{rate:g} is {100 * rate:,.0f} % a year; is the unit right?"
            findings.warn((*path, *name.split(".")), message)


def _check_correlation(findings: _Findings, world: World) -> None:
    before = len(findings.composition.mistakes)
    factors = findings.known("world", "factors") | set(OPENING_VALUES)
    given: dict[frozenset[str], float] = {}
    for first, others in world.correlation.items():
        path = ("world", "correlation", first)
        _check_known(findings, path, first, factors, "factor")
        for second, rho in others.items():
            here = (*path, second)
            _check_known(findings, here, second, factors, "factor")
            for name in {first, second} & world.factors.keys():
                if world.factors[name].table is not None:
                    findings.add(here, f"'{name}' is a table, which correlates with nothing")
            if first == second:
                findings.add(here, "a factor's correlation with itself is 1")
            elif not -1 <= rho <= 1:
                findings.add(here, f"must be between -1 and 1, not {rho:g}")
            elif given.setdefault(frozenset((first, second)), rho) != rho:
                findings.add(here, f"is given twice, as {given[frozenset((first, second))]:g} and {rho:g}")
    complete = all(name in world.factors for pair in given for name in pair)
    if world.repair == "nearest" or not complete or len(findings.composition.mistakes) > before:
        return
    smallest, pairs = weakest_direction(*correlation_matrix(world))
    if smallest < SMALLEST_EIGENVALUE:
        findings.add(
            ("world", "correlation"),
            f"is not positive definite: smallest eigenvalue {smallest:.3g}, mostly {', '.join(pairs)}",
            "lower one of these, or set world.repair: nearest",
            of_key=True,
        )


def _check_settings(findings: _Findings, study: Study) -> None:
    settings = study.study
    metrics = set(total_metric_names(settings.reach))
    for index, metric in findings.each("study", "thresholds", "metric"):
        _check_metric(findings, ("study", "thresholds", index, "metric"), metric, metrics)
    if settings.until is not None:
        _check_metric(findings, ("study", "until", "metric"), settings.until.metric, metrics)
        if settings.until.max_paths < settings.paths:
            message = f"must be at least study.paths, which is {settings.paths:,}"
            findings.add(("study", "until", "max_paths"), message)
    if len({reach_name(level) for level in settings.reach}) < len(settings.reach):
        findings.add(("study", "reach"), "names a level twice", "levels are told apart by six digits")


def _check_metric(findings: _Findings, path: KeyPath, name: str, known: set[str]) -> None:
    if any(name == metric.name for metric in METRICS) and name not in known:
        findings.add(path, f"'{name}' is of each deal or factor", "only totals can be named here")
    else:
        _check_known(findings, path, name, known, "metric")


def sampled(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Sampled]]:
    """Every distribution in the study that is read from a file."""
    if isinstance(node, Sampled):
        yield path, node
    elif isinstance(node, BaseModel):
        for key in type(node).model_fields:
            yield from sampled(getattr(node, key), (*path, key))
    elif isinstance(node, dict | tuple):
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from sampled(item, (*path, key))


def _check_samples(findings: _Findings, path: KeyPath, distribution: Sampled) -> None:
    file, column = Path(distribution.samples.file), distribution.samples.column
    here = (*path, "samples", "file")
    if file.suffix not in (".csv", ".parquet"):
        findings.add(here, f"must be a .csv or .parquet file, not '{file.name}'")
    elif not file.is_file():
        findings.add(here, f"no such file: {file}")
    else:
        try:
            columns = _columns(file)
            if column not in columns:
                hint = did_you_mean(column, columns) or f"there are: {', '.join(columns[:20])}"
                findings.add((*path, "samples", "column"), f"'{file.name}' has no column '{column}'", hint)
            else:
                read_column(file, column)
        except (OSError, ValueError) as error:
            findings.add(here, f"cannot be read: {str(error).splitlines()[0]}")


def _columns(file: Path) -> list[str]:
    if file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return next(csv.reader(lines), [])
    import pyarrow.parquet

    return pyarrow.parquet.read_schema(file).names
