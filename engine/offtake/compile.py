"""A validated study → the Plan that a backend runs, and the catalogue of what it reports.

The only file that knows both sides: contract terms are validated types here, and arrays from here on.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from offtake import compile_deals, compile_world
from offtake.catalogue import Catalogue, compile_catalogue
from offtake.compile_deals import CompiledDeal
from offtake.errors import InputError, Mistake
from offtake.quantiles import is_degenerate, quantile_table
from offtake.study import Study
from offtake_kernels import layout
from offtake_kernels import quantile_table as tables
from offtake_kernels.layout import YEARS_PER_QUARTER

# Quarters by which float32 may bring a start forward.
_ROUNDING = 1.0e-3


@dataclass(frozen=True)
class Compiled:
    """A plan, and what its rows mean."""

    plan: layout.Plan
    catalogue: Catalogue


class _Streams:
    """One-time draws as they are named: scores and raw words, each with rows that a group or a cause owns."""

    def __init__(self) -> None:
        self.scores: list[str] = []
        self.words: list[str] = []
        self.tables: list[tuple] = []
        self.rows: dict[tuple[int, str], slice] = {}
        self.shared: dict[str, int] = {}

    def cause(self, name: str) -> int:
        """Row of a score that several terms share."""
        if name not in self.shared:
            self.shared[name] = len(self.scores)
            self.scores.append(name)
        return self.shared[name]

    def table(self, distribution) -> int:
        """Number of a distribution's quantile table."""
        self.tables.append(quantile_table(distribution))
        return len(self.tables) - 1

    def random(self, group: int, role: str, terms: list[compile_deals.RandomTerm]) -> layout.Random:
        """A drawn term of a group: its tables, its own scores and what drives them."""
        driven = tuple(self.cause(f"driver/{term.driver}") for term in terms if term.driver is not None)
        loading = tuple(term.loading for term in terms) if driven else ()
        self.rows[group, role] = slice(len(self.scores), len(self.scores) + len(terms))
        self.scores += [term.stream for term in terms]
        return layout.Random(tuple(self.table(term.distribution) for term in terms), role, driven, loading)

    def raw(self, group: int, role: str, names: list[str]) -> None:
        """Raw words of a group in a role."""
        self.rows[group, role] = slice(len(self.words), len(self.words) + len(names))
        self.words += names

    def build(self) -> layout.Streams:
        names = (*self.scores, *self.words)
        crc = np.array([stream_of(name) for name in names], np.uint64)
        return layout.Streams(names, crc, len(self.scores), self.rows, self.shared)


def stream_of(name: str) -> int:
    """CRC-32 of what is drawn: the counter word that keeps its draws apart from all others."""
    return zlib.crc32(name.encode())


def compile_study(study: Study) -> Compiled:
    """The plan of a study.

    Raises InputError when two names collide in CRC-32.
    """
    portfolio, world = study.portfolio, study.world
    factors = compile_world.factor_names(world)
    factor_number = {name: number for number, name in enumerate(factors)}
    regime = world.regime is not None
    fixed = frozenset(
        factor_number[name]
        for name in factors
        if not compile_world.is_stochastic(world.factors[name], regime)
        and np.ptp(compile_world.deterministic_path(world.factors[name], portfolio)) == 0.0
    )
    names = tuple(sorted(portfolio.deals))
    deals = [compile_deals.compile_deal(study, name, factor_number, fixed) for name in names]
    streams = _Streams()
    initial = _initial_random(study, streams, factors)
    history = max(0, int(np.ceil(-min(deal.earliest for deal in deals))))
    standing = _standing(study, deals)
    groups = tuple(
        _group(study, streams, deals, members, number, history, standing)
        for number, members in enumerate(_shapes(study, deals))
    )
    indices = [leg.index.factor for group in groups for leg in group.features.legs]
    followed = {factor for factor in indices if factor is not None}
    ratios = tuple(sorted(followed | {factor_number["market_supply"]}))
    compiled_world = compile_world.compile_world(world, portfolio, initial, ratios)
    series = [f"factor/{compiled_world.names[factor]}" for factor in compiled_world.row]
    series += ["regime"] if regime else []
    _refuse_collisions([*streams.scores, *streams.words, *series])
    suppliers = tuple(sorted({portfolio.deals[name].supplier for name in names}))
    catalogue = compile_catalogue(study, names, suppliers, compiled_world.names)
    years = np.arange(portfolio.quarters) * YEARS_PER_QUARTER
    plan = layout.Plan(
        quarters=portfolio.quarters,
        history=history,
        seed=study.study.seed,
        deal_names=names,
        supplier_names=suppliers,
        supplier_deals=tuple(
            tuple(n for n, name in enumerate(names) if portfolio.deals[name].supplier == supplier)
            for supplier in suppliers
        ),
        groups=groups,
        world=compiled_world,
        buyer=compile_world.compile_buyer(portfolio.buyer),
        streams=streams.build(),
        series_crc=tuple(stream_of(name) for name in series),
        tables=tables.build(streams.tables),
        discount=((1.0 + portfolio.buyer.discount_rate) ** -years).astype(np.float32),
        reach=catalogue.reach,
        quarter_series=catalogue.quarter_series,
        path_series=catalogue.path_series,
        thresholds=catalogue.plan_thresholds,
    )
    return Compiled(plan, catalogue)


def _shapes(study: Study, deals: list[CompiledDeal]) -> list[tuple[int, ...]]:
    """Deals by shape; a group comes after every group that may block one of its deals."""
    number = {deal.name: n for n, deal in enumerate(deals)}
    terms = study.portfolio.deals

    def depth(name: str) -> int:
        blocker = terms[name].blocked_while
        return 0 if blocker is None else 1 + depth(blocker)

    shapes: dict = defaultdict(list)
    for deal in deals:
        # A milestone that counts other deals is the deal's own: it cannot share a group.
        alone = deal.name if any(leg.milestone_from for leg in deal.features.legs) else ""
        shapes[depth(deal.name), deal.shape, alone].append(number[deal.name])
    ordered = sorted(shapes.items(), key=lambda item: (item[0][0], item[1]))
    return [tuple(members) for _, members in ordered]


def _standing(study: Study, deals: list[CompiledDeal]) -> frozenset[str]:
    """Deals that may have begun before the study, and those whose end such a deal waits for."""
    found: set[str] = set()
    waiting: list[str | None] = [deal.name for deal in deals if deal.earliest < _ROUNDING]
    while waiting:
        name = waiting.pop()
        if name is not None and name not in found:
            found.add(name)
            waiting.append(study.portfolio.deals[name].blocked_while)
    return frozenset(found)


def _group(
    study: Study,
    streams: _Streams,
    deals: list[CompiledDeal],
    members: tuple[int, ...],
    number: int,
    history: int,
    standing: frozenset[str],
) -> layout.Group:
    group = [deals[member] for member in members]
    terms = [study.portfolio.deals[deal.name] for deal in group]
    random = {
        role: streams.random(number, role, [deal.random[role] for deal in group]) for role in group[0].random
    }
    for role in group[0].words:
        streams.raw(number, role, [deal.words[role] for deal in group])
    regions: tuple[int, ...] = ()
    if group[0].features.slip_shared:
        streams.cause("supply_chain")
        regions = tuple(streams.cause(f"region/{term.region}") for term in terms)
    index = {deal.name: n for n, deal in enumerate(deals)}
    return compile_deals.assemble(
        group,
        members,
        random,
        regions=regions,
        blocked_by=tuple(index[term.blocked_while] for term in terms if term.blocked_while is not None),
        vintage=_vintage(study, group, history),
        standing=any(deal.name in standing for deal in group),
    )


def _vintage(study: Study, group: list[CompiledDeal], history: int) -> np.ndarray | None:
    """MH100e per GW delivered in each quarter, history included: float32 [history + quarters, deals, 1]."""
    if not group[0].features.improves:
        return None
    t = np.arange(-history, study.portfolio.quarters)[:, None]
    h100e, improvement, reference = (
        np.array(column) for column in zip(*(deal.hardware for deal in group if deal.hardware), strict=True)
    )
    return (h100e * np.exp(improvement * (t - reference) * YEARS_PER_QUARTER)).astype(np.float32)[:, :, None]


def _initial_random(study: Study, streams: _Streams, factors: tuple[str, ...]) -> dict[int, layout.Random]:
    """Opening values that are drawn, by factor number."""
    found = {}
    for number, name in enumerate(factors):
        factor = study.world.factors[name]
        if factor.table is None and not is_degenerate(quantile_table(factor.initial)):
            term = compile_deals.RandomTerm(f"factor/{name}/initial", factor.initial)
            found[number] = streams.random(-1, f"initial/{name}", [term])
    return found


def _refuse_collisions(names: list[str]) -> None:
    seen: dict[int, str] = {}
    mistakes = []
    for name in names:
        other = seen.setdefault(stream_of(name), name)
        if other != name:
            message = f"{other!r} and {name!r} have one CRC-32 and would share their draws; rename one"
            mistakes.append(Mistake("study", "", message))
    if mistakes:
        raise InputError(mistakes)
