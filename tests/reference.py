"""One path of the model in plain Python and float64, written from the specification alone.

Slow and readable on purpose, and sharing nothing with the kernels but the layout of the random counter and
the quantile tables: what the vectorised code is tested against. `simulate(study, path)` gives everything
that a path records. Units: US$ bn, GW, MH100e, quarters.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from scipy.special import ndtri

from offtake.correlation import (
    SMALLEST_EIGENVALUE,
    correlation_matrix,
    nearest_correlation,
    weakest_direction,
)
from offtake.deals import (
    Commitment,
    Deal,
    Equity,
    Hosting,
    Power,
    Purchase,
    VendorInvestment,
    Warrants,
)
from offtake.distributions import Distribution
from offtake.metrics import reach_name
from offtake.quantiles import quantile_table
from offtake.study import Study
from offtake.world import Factor, Growth

QUARTER = 0.25
"""Years in a quarter."""
HOURS = 8766 / 4
"""Hours in a quarter."""
NEARLY = 1.0 - 2.0**-16
"""A milestone is reached at this share of it."""
TRACE_GW = 1e-5
"""A deal that delivers less counts as nothing."""
NEVER = math.inf


# --- Section 1: draws ---------------------------------------------------------------------------------------


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (section 1)."""
    mask = 0xFFFFFFFF
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = (
            (second >> 32) ^ counter[1] ^ key[0],
            second & mask,
            (first >> 32) ^ counter[3] ^ key[1],
            first & mask,
        )
        key = (key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask
    return counter


@dataclass(frozen=True)
class Draws:
    """The random numbers of one path, by name (section 1)."""

    seed: int
    path: int

    def word(self, name: str, position: int = 0) -> int:
        """32 random bits: word `position` % 4 of block `position` // 4 of the name's stream."""
        block, lane = divmod(position, 4)
        stream = zlib.crc32(name.encode("utf-8"))
        counter = block, self.path >> 32, stream, self.path & 0xFFFFFFFF
        return philox(counter, (self.seed & 0xFFFFFFFF, self.seed >> 32))[lane]

    def happens(self, probability: float, name: str, position: int = 0) -> bool:
        """Whether an event of this probability happens."""
        return probability >= 1.0 or self.word(name, position) < round(probability * 2**32)

    def exponential(self, name: str) -> float:
        """Exponential with mean 1."""
        return -math.log((self.word(name) + 0.5) * 2.0**-32)

    def normal(self, name: str, position: int = 0) -> float:
        """Standard normal: sign from the top bit, tail probability from the rest."""
        word = self.word(name, position)
        tail = ((word & 0x7FFFFFFF) + 0.5) * 2.0**-32
        score = float(ndtri(tail))
        return -score if word >> 31 else score

    def score(self, distribution: Distribution, own: float) -> float:
        """A term's normal score, shared with its driver if it names one."""
        driver = getattr(distribution, "driver", None)
        if driver is None:
            return own
        loading = distribution.loading  # type: ignore[union-attr]
        return loading * self.normal(f"driver/{driver}") + math.sqrt(1.0 - loading**2) * own

    def value(self, distribution: Distribution, name: str) -> float:
        """A one-time random term."""
        return interpolate(distribution, self.score(distribution, self.normal(name)))

    def slip(self, study: Study, name: str, deal: Deal) -> float:
        """Delay of a deal's start; its score shares the supply chain's and the region's."""
        own = self.normal(f"deal/{name}/slip")
        if getattr(deal.slip, "driver", None) is None:
            loading = deal.slip_loading or study.world.slip_loading
            own = (
                math.sqrt(loading.supply_chain) * self.normal("supply_chain")
                + math.sqrt(loading.region) * self.normal(f"region/{deal.region}")
                + math.sqrt(max(0.0, 1.0 - loading.supply_chain - loading.region)) * own
            )
        return interpolate(deal.slip, self.score(deal.slip, own))


def interpolate(distribution: Distribution, score: float) -> float:
    """Value of a distribution at a normal score: linear between the nodes of its quantile table."""
    if isinstance(distribution, float | int):
        return float(distribution)
    z, value = _table(distribution.model_dump_json(), distribution)
    node = min(max(bisect_right(z, score) - 1, 0), len(z) - 2)
    gap = z[node + 1] - z[node]
    share = (score - z[node]) / gap if gap > 0 else 0.0
    return value[node] + share * (value[node + 1] - value[node])


_TABLES: dict[str, tuple[list[float], list[float]]] = {}


def _table(key: str, distribution: Distribution) -> tuple[list[float], list[float]]:
    if key not in _TABLES:
        z, value = quantile_table(distribution)
        _TABLES[key] = z.tolist(), value.tolist()
    return _TABLES[key]


def quarters_between(start: date, end: date) -> float:
    """Quarters between two dates (units)."""
    return 4 * (end.year - start.year) + (end.month - start.month) / 3 + (end.day - start.day) / 91.3125


# --- Section 2: world ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorldPath:
    """Factors by name and quarter, and whether each quarter is in a bust (section 2)."""

    factors: dict[str, list[float]]
    bust: list[bool]

    def ratio(self, name: str, t: int) -> float:
        """A factor relative to quarter 0."""
        return self.factors[name][t] / self.factors[name][0]


def simulate_world(study: Study, draws: Draws) -> WorldPath:
    """Regime and factors of one path (section 2)."""
    quarters = study.portfolio.quarters
    bust = _regime(study, draws)
    names, root = _correlation_root(study)
    noise = []
    for t in range(quarters - 1):
        independent = [draws.normal(f"factor/{name}", t) for name in names]
        noise.append(
            {
                name: sum(a * b for a, b in zip(row, independent, strict=True))
                for name, row in zip(names, root, strict=True)
            }
        )
    factors = {}
    for name, factor in study.world.factors.items():
        if factor.table is not None:
            factors[name] = _table_factor(study, factor.table)
            continue
        x = math.log(draws.value(factor.initial, f"factor/{name}/initial"))
        values = [math.exp(x)]
        for t in range(quarters - 1):
            z = noise[t].get(name, 0.0)
            begins = bust[t + 1] and not bust[t]
            x = _step(factor, x, t, bust[t], z, begins)
            values.append(math.exp(x))
        factors[name] = values
    return WorldPath(factors, bust)


def _regime(study: Study, draws: Draws) -> list[bool]:
    regime, bust = study.world.regime, [False]
    for t in range(study.portfolio.quarters - 1):
        if regime is None:
            bust.append(False)
            continue
        rate = regime.recovery_rate if bust[t] else regime.bust_rate
        changes = draws.happens(1.0 - math.exp(-rate * QUARTER), "regime", t)
        bust.append(bust[t] != changes)
    return bust


def _is_volatile(factor: Factor, regime: bool) -> bool:
    """Whether a factor can move at random."""
    in_bust = factor.bust.volatility if factor.bust is not None else None
    return factor.table is None and (factor.volatility > 0 or (regime and (in_bust or 0.0) > 0))


def _correlation_root(study: Study) -> tuple[list[str], list[list[float]]]:
    """Names of the factors with volatility, and the Cholesky factor of their correlation."""
    world = study.world
    names, matrix = correlation_matrix(world)
    if world.repair == "nearest" and weakest_direction(names, matrix)[0] < SMALLEST_EIGENVALUE:
        matrix = nearest_correlation(matrix)
    kept = [i for i, name in enumerate(names) if _is_volatile(world.factors[name], world.regime is not None)]
    if not kept:
        return [], []
    root = np.linalg.cholesky(matrix[np.ix_(kept, kept)])
    return [names[i] for i in kept], root.tolist()


def _step(factor: Factor, x: float, t: int, in_bust: bool, z: float, begins: bool) -> float:
    """The log of a factor in quarter t + 1."""
    volatility, jump = factor.volatility, 0.0
    growth = factor.growth
    if isinstance(growth, Growth):
        growth = growth.later + (growth.now - growth.later) * 2.0 ** (-t * QUARTER / growth.half_life)
    if factor.bust is not None:
        jump = factor.bust.jump if begins else 0.0
        if in_bust and factor.bust.volatility is not None:
            volatility = factor.bust.volatility
        if in_bust and factor.bust.growth is not None:
            growth = factor.bust.growth
    if factor.reversion:
        drift = factor.reversion * QUARTER * (math.log(factor.level or math.nan) - x)
    else:
        drift = (growth - 0.5 * volatility**2) * QUARTER
    return x + drift + volatility * math.sqrt(QUARTER) * z + jump


def _table_factor(study: Study, table: dict[date, float]) -> list[float]:
    when = [quarters_between(study.portfolio.start, day) for day in table]
    values = list(table.values())
    found = []
    for t in range(study.portfolio.quarters):
        after = bisect_right(when, t)
        if after == 0 or after == len(when):
            found.append(values[0] if after == 0 else values[-1])
            continue
        share = (t - when[after - 1]) / (when[after] - when[after - 1])
        found.append(values[after - 1] + share * (values[after] - values[after - 1]))
    return found


# --- Section 3: ladder --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """GW against quarters since own start: G(e) of section 3, 0 before own start."""

    after: list[float]
    gw: list[float]
    step: bool

    def left(self, e: float) -> float:
        """Level just before e: what a jump at e adds is not there yet."""
        if e <= 0.0:
            return 0.0
        before, level = 0.0, 0.0
        for after, gw in zip(self.after, self.gw, strict=True):
            if after < e:
                before, level = after, gw
            elif self.step:
                return level
            else:
                return level + (gw - level) * (e - before) / (after - before)
        return level

    def integral(self, low: float, high: float) -> float:
        """GW-quarters between two times since own start."""
        low, total = max(low, 0.0), 0.0
        before, level = 0.0, 0.0
        rungs = [*zip(self.after, self.gw, strict=True), (NEVER, self.gw[-1])]
        for after, gw in rungs:
            a, b = max(low, before), min(high, after)
            if b > a:
                if self.step or after == NEVER:
                    total += level * (b - a)
                else:
                    slope = (gw - level) / (after - before)
                    total += (level + slope * ((a + b) / 2 - before)) * (b - a)
            before, level = after, gw
        return total


def planned_curve(deal: Deal) -> Curve:
    """The ladder as announced."""
    rungs = deal.ladder.values()
    return Curve([rung.after for rung in rungs], [rung.gw for rung in rungs], deal.shape == "step")


def realised_curve(deal: Deal, rungs: int, stretch: float) -> Curve:
    """The ladder capped at the realised rungs, its times stretched; before size."""
    plan = planned_curve(deal)
    return Curve([after * stretch for after in plan.after[:rungs]], plan.gw[:rungs], plan.step)


# --- Section 3: a deal on a path ----------------------------------------------------------------------------


@dataclass
class Delivery:
    """What one quarter of a deal's curve holds, GW-quarters before size."""

    main: float = 0.0
    """Inside the first term (or at any time of a deal without term)."""
    extension: float = 0.0
    main_time: float = 0.0
    """Part of the quarter inside the first term."""
    extension_time: float = 0.0
    arrived: float = 0.0
    """GW that arrived during the quarter."""


@dataclass
class DealPath:
    """One deal on one path: its draws, its clock and its state (section 3)."""

    name: str
    deal: Deal
    planned_start: float
    slip: float
    size: float
    stretch: float
    rungs: int
    late: float
    prices: dict[str, float]
    """Price multiples of commitments, PUE of power legs."""
    thresholds: dict[str, float]
    """Exponential thresholds of "cancel" and "default"."""
    happens: bool = True
    long_stopped: bool = False
    own: float = 0.0
    """Own start but for the deal that blocks it."""
    start: float = 0.0
    """Own start."""
    waited: float = 0.0
    """Quarters for which the ladder's clock stood still after own start."""
    extended: bool = False
    cancelled_at: float = NEVER
    defaulted_at: float = NEVER
    hazards: dict[str, float] = field(default_factory=lambda: {"cancel": 0.0, "default": 0.0})
    standing: float = 0.0
    """GW that have arrived, before size and retirement."""
    computing: float = 0.0
    """Compute that has arrived, before size and retirement."""
    gross: dict[int, tuple[float, float]] = field(default_factory=dict)
    """(GW, compute) by quarter, before size and retirement."""
    this: Delivery = field(default_factory=Delivery)
    deposited: dict[str, float] = field(default_factory=dict)
    """GW, before size, on which a purchase's deposit has been paid."""
    reached: set[tuple[str, str]] = field(default_factory=set)
    vested: set[tuple[str, str]] = field(default_factory=set)
    delivered_gw: float = 0.0
    installed: float = 0.0
    """Compute of what is delivered, energised or not."""
    capacity_gw: float = 0.0
    compute: float = 0.0
    delivered_total: float = 0.0
    """GW-quarters from quarter 0 in the first term, before size and retirement."""

    def __post_init__(self) -> None:
        self.plan = planned_curve(self.deal)
        self.curve = realised_curve(self.deal, max(self.rungs, 1), self.stretch)
        extension = self.deal.extension
        always = extension is not None and extension.when == "always"
        self.extended = always and self.term_end < 1.0  # decided in a last whole quarter before quarter 0

    # The ends of service, in quarters from the study's start.

    @property
    def term_end(self) -> float:
        """End of the first term."""
        return NEVER if self.deal.term is None else self.start + self.deal.term

    @property
    def scheduled_end(self) -> float:
        """End of service if nothing ends it early."""
        extension = self.deal.extension
        return self.term_end + (extension.quarters if self.extended and extension is not None else 0)

    @property
    def end(self) -> float:
        """End of service (of deliveries, for a deal without term) as far as is known."""
        if not self.happens:
            return -NEVER
        return min(self.scheduled_end, self.cancelled_at, self.defaulted_at)

    @property
    def serves(self) -> bool:
        """Whether there is any service, as far as is known."""
        return self.happens and self.start < self.end

    def clock(self, time: float) -> float:
        """Quarters on the ladder's clock."""
        return time - self.start - self.waited

    def wait(self, t: int, blocker_end: float) -> None:
        """The clock stands still in quarter t."""
        if t <= self.start:
            self.own += 1.0
            moved = max(self.own, blocker_end)
            self.start = moved if moved >= t + 1 else self.start + 1.0
            self.own = max(self.own, self.start) if moved < t + 1 else self.own
        else:
            self.waited += 1.0

    def run_hazards(self, t: int, bust: bool) -> None:
        """Supplier default and cancellation in quarter t."""
        if not self.happens or t >= self.end:
            return
        hit = {}
        for event, clause in (("default", self.deal.default), ("cancel", self.deal.cancel)):
            if clause is None:
                continue
            rate = clause.hazard * (clause.bust_multiplier if bust else 1.0)
            self.hazards[event] += rate * QUARTER
            hit[event] = self.hazards[event] >= self.thresholds[event]
        if hit.get("default"):
            self.defaulted_at = t
        elif hit.get("cancel") and self.cancelled_at == NEVER and self.deal.cancel is not None:
            self.cancelled_at = t + self.deal.cancel.notice

    def deliver(self, t: int, stopped: bool, compute_per_gw: float) -> None:
        """Gross deliveries of quarter t, and what is left after retirement (section 3)."""
        now, before = Delivery(), self.standing
        low, high = max(float(t), self.start), min(t + 1.0, self.end)
        if self.happens and high > low:
            arrived = before if stopped else self.curve.left(self.clock(high))
            now.main, now.main_time = self._part(low, min(high, self.term_end), stopped)
            now.extension, now.extension_time = self._part(max(low, self.term_end), high, stopped)
            now.arrived = arrived - before
            self.standing = arrived
        owned = self.deal.term is None
        if owned and high < t + 1:
            after = max(high, float(t))
            now.main += self.standing * (t + 1 - after)
        self.this = now
        gross = now.main + now.extension
        # Part of the quarter in which the hardware that stood at its beginning computes.
        part = 1.0 if owned else max(0.0, high - t)
        compute = self.computing * part + compute_per_gw * (gross - before * part)
        self.computing += compute_per_gw * now.arrived
        self.gross[t] = gross, compute
        old = self.gross.get(t - self.deal.life, (0.0, 0.0)) if self.deal.life is not None else (0.0, 0.0)
        self.delivered_gw = self.size * (gross - old[0])
        self.installed = self.size * (compute - old[1])
        if self.delivered_gw < TRACE_GW:
            self.delivered_gw = self.installed = 0.0
        if t >= 0:
            self.delivered_total += now.main

    def _part(self, low: float, high: float, stopped: bool) -> tuple[float, float]:
        """GW-quarters and time between two moments of one quarter."""
        if high <= low:
            return 0.0, 0.0
        if stopped:
            return self.standing * (high - low), high - low
        return self.curve.integral(self.clock(low), self.clock(high)), high - low

    def weight(self, flat: bool, low: float, high: float) -> float:
        """Share of a commitment between two moments ahead, as far as is known."""
        low = max(low, self.start)
        if high <= low:
            return 0.0
        assert self.deal.term is not None
        if flat:
            return (high - low) / self.deal.term
        return self.curve.integral(self.clock(low), self.clock(high)) / self.plan.integral(
            0.0, self.deal.term
        )

    def owed(self, leg_name: str, leg: Commitment, since: float, until: float) -> float:
        """Take-or-pay money between two moments ahead, without index (section 4)."""
        flat = leg.profile == "flat"
        first = (1.0 - leg.prepay) * self.weight(flat, since, min(until, self.term_end))
        extension = self.deal.extension
        price = extension.price if extension is not None else 1.0
        second = price * self.weight(flat, max(since, self.term_end), until)
        return leg.take_or_pay * leg.total * self.prices[leg_name] * self.late * (first + second)


def open_deal(study: Study, name: str, deal: Deal, draws: Draws) -> DealPath:
    """A deal's one-time draws."""
    slip = draws.slip(study, name, deal)
    rungs, probability = 0, 1.0
    for rung in deal.ladder.values():
        probability *= rung.follow_through
        rungs += draws.happens(probability, f"deal/{name}/ladder")
    credit, late = deal.late_credit, 1.0
    if credit is not None:
        late = 1.0 - min(credit.max, credit.per_quarter * max(0.0, slip - credit.grace))
    prices = {}
    for leg_name, leg in deal.pays.items():
        if isinstance(leg, Commitment):
            prices[leg_name] = draws.value(leg.price, f"deal/{name}/pays/{leg_name}/price")
        elif isinstance(leg, Power):
            prices[leg_name] = draws.value(leg.pue, f"deal/{name}/pays/{leg_name}/pue")
    planned = quarters_between(study.portfolio.start, deal.start)
    long_stopped = rungs > 0 and deal.long_stop is not None and slip > deal.long_stop
    return DealPath(
        name, deal, planned, slip,
        size=draws.value(deal.size, f"deal/{name}/size"),
        stretch=draws.value(deal.stretch, f"deal/{name}/stretch"),
        rungs=rungs, late=late, prices=prices,
        thresholds={event: draws.exponential(f"deal/{name}/{event}") for event in ("cancel", "default")},
        happens=rungs > 0 and not long_stopped, long_stopped=long_stopped,
        own=planned + slip, start=planned + slip,
    )  # fmt: skip


# --- Section 6: a path --------------------------------------------------------------------------------------


@dataclass
class Totals:
    """Of all deals in one quarter."""

    compute: float = 0.0
    chips_gw: float = 0.0
    sites_gw: float = 0.0
    concentration: float | None = None


@dataclass
class BuyerPath:
    """The buyer's balances and what a path records once (sections 5 and 6)."""

    cash: float
    funding: float = 0.0
    scalars: dict[str, float | None] = field(default_factory=dict)


class Path:
    """One path of a study."""

    def __init__(self, study: Study, path: int) -> None:
        self.study, self.buyer = study, study.portfolio.buyer
        self.quarters = study.portfolio.quarters
        draws = Draws(study.study.seed, path)
        self.world = simulate_world(study, draws)
        deals = study.portfolio.deals
        self.deals = {name: open_deal(study, name, deals[name], draws) for name in _blockers_first(deals)}
        self.totals = Totals()
        self.money = BuyerPath(self.buyer.cash)
        self.running_max: dict[str, float] = {}
        self.recorded: dict[str, list[float | None]] = {}
        self.by_deal: dict[str, dict[str, list[float]]] = {name: {} for name in deals}
        self._open_scalars()

    def run(self) -> dict:
        """Every quarter, history first."""
        for t in range(min(0, *(math.floor(deal.start) for deal in self.deals.values()), 0), 0):
            self._deliver(t)
        for deal in self.deals.values():
            deal.deposited = dict.fromkeys(deal.deal.pays, deal.standing)
        for t in range(self.quarters):
            self._quarter(t)
        self._close_scalars()
        names = list(self.study.portfolio.deals)
        return {
            "quarters": self.recorded,
            "factors": self.world.factors,
            "deals": {name: self.by_deal[name] for name in names},
            "scalars": self.money.scalars,
        }

    # Lifecycle and delivery (section 3).

    def _deliver(self, t: int) -> None:
        """Lifecycle, delivered, energised, compute of quarter t; before quarter 0 nothing happens."""
        before = self.totals
        short_of_sites = before.chips_gw > before.sites_gw * (1.0 + 2.0**-16)
        limit = self.buyer.funding_limit
        distress = limit is not None and self.money.funding > limit
        for deal in self.deals.values():
            stops = (distress and self.buyer.on_distress == "defer" and deal.deal.deferrable) or (
                short_of_sites and deal.deal.follows_sites
            )
            stopped = t >= 0 and stops
            self._lifecycle(t, deal, stopped)
            hardware = self.study.world.hardware[deal.deal.hardware] if deal.deal.hardware else None
            per_gw = 0.0
            if hardware is not None:
                reference = quarters_between(
                    self.study.portfolio.start, hardware.reference or self.study.portfolio.start
                )
                per_gw = hardware.h100e_per_gw * math.exp(hardware.improvement * (t - reference) * QUARTER)
            deal.deliver(t, stopped, per_gw)
        self._energise()
        self._milestones()

    def _lifecycle(self, t: int, deal: DealPath, stopped: bool) -> None:
        blocker_end = -NEVER
        if deal.deal.blocked_while is not None:
            blocker_end = self.deals[deal.deal.blocked_while].end
            if deal.start >= t:
                deal.start = max(deal.own, blocker_end)
        if t >= 0:
            deal.run_hazards(t, self.world.bust[t])
        if stopped and t < deal.end:
            deal.wait(t, blocker_end)

    def _energise(self) -> None:
        """Chips need sites: what computes, and by whom (section 3)."""
        totals = Totals()
        for deal in self.deals.values():
            if deal.deal.layer == "chips":
                totals.chips_gw += deal.delivered_gw
            elif deal.deal.layer == "site":
                totals.sites_gw += deal.delivered_gw
        share = min(1.0, totals.sites_gw / totals.chips_gw) if totals.chips_gw > 0 else 1.0
        suppliers: dict[str, float] = {}
        for deal in self.deals.values():
            part = {"compute": 1.0, "chips": share, "site": 0.0}[deal.deal.layer]
            deal.capacity_gw, deal.compute = part * deal.delivered_gw, part * deal.installed
            suppliers[deal.deal.supplier] = suppliers.get(deal.deal.supplier, 0.0) + deal.compute
        totals.compute = sum(suppliers.values())
        if totals.compute > 0:
            totals.concentration = sum((part / totals.compute) ** 2 for part in suppliers.values())
        self.totals = totals

    def _milestones(self) -> None:
        """Which milestones have been reached (section 4, receives)."""
        for deal in self.deals.values():
            for leg_name, leg in deal.deal.receives.items() if deal.happens else ():
                energised = deal.capacity_gw
                wanted: dict[str, float] = {}
                if isinstance(leg, Equity) and leg.conditional is not None:
                    wanted = {"conditional": leg.conditional.gw}
                elif isinstance(leg, VendorInvestment):
                    energised += sum(self.deals[other].capacity_gw for other in leg.milestone_from)
                    wanted = {name: tranche.gw for name, tranche in leg.tranches.items()}
                elif isinstance(leg, Warrants):
                    wanted = {name: tranche.gw for name, tranche in leg.tranches.items()}
                for tranche, gw in wanted.items():
                    if energised >= gw * NEARLY:
                        deal.reached.add((leg_name, tranche))

    # Money (section 4).

    def _index(self, t: int, deal: DealPath, leg: Commitment | Purchase, concentration: float) -> float:
        """Price level of a charge in quarter t, bargaining included."""
        ratio = self.world.ratio(leg.index, t)
        if leg.index_cap is not None:
            ratio = min(ratio, leg.index_cap)
        years = max(0.0, t - deal.start) * QUARTER
        indexed = (1.0 + leg.escalator) ** years * ((1.0 - leg.pass_through) + leg.pass_through * ratio)
        return indexed * (1.0 - leg.leverage * (1.0 - concentration))

    def _commitment(self, t: int, deal: DealPath, name: str, leg: Commitment, index: float, util: float):
        """Charge, prepayment and fee of quarter t."""
        value = leg.total * deal.prices[name] * deal.late
        assert deal.deal.term is not None
        if leg.profile == "flat":
            main, extension = deal.this.main_time, deal.this.extension_time
            whole = deal.deal.term
        else:
            main, extension = deal.this.main, deal.this.extension
            whole = deal.plan.integral(0.0, deal.deal.term)
        price = deal.deal.extension.price if deal.deal.extension is not None else 1.0
        weight = ((1.0 - leg.prepay) * main + price * extension) / whole
        paid = value * weight * index * (leg.take_or_pay + (1.0 - leg.take_or_pay) * util)
        if deal.serves and t <= deal.start < t + 1:
            paid += leg.prepay * value
        cancel = deal.deal.cancel
        if cancel is not None and deal.happens and deal.cancelled_at == t and deal.defaulted_at > t:
            paid += cancel.fee * deal.owed(name, leg, t, deal.scheduled_end)
        return paid

    def _purchase(self, deal: DealPath, name: str, leg: Purchase, t: int, index: float) -> float:
        """Deposits and deliveries of quarter t."""
        paid = (1.0 - leg.deposit) * deal.this.arrived
        if deal.happens and leg.deposit > 0:
            ahead = min(t + 1.0 + leg.lead, deal.end)
            due = deal.curve.left(deal.clock(ahead))
            if due > deal.deposited[name]:
                paid += leg.deposit * (due - deal.deposited[name])
                deal.deposited[name] = due
        return leg.per_gw * deal.size * paid * index

    def _payments(self, t: int, deal: DealPath, concentration: float, util: float) -> tuple[float, float]:
        """What is paid on a deal in quarter t, and how much of it is electricity."""
        spend, power = 0.0, 0.0
        for name, leg in deal.deal.pays.items():
            if isinstance(leg, Commitment):
                index = self._index(t, deal, leg, concentration)
                spend += self._commitment(t, deal, name, leg, index, util)
            elif isinstance(leg, Purchase):
                spend += self._purchase(deal, name, leg, t, self._index(t, deal, leg, concentration))
            elif isinstance(leg, Hosting):
                spend += leg.per_gw_year * QUARTER * deal.delivered_gw
            else:
                gw = deal.capacity_gw
                if deal.deal.layer == "site" and deal.delivered_gw > 0:
                    gw = deal.delivered_gw * min(1.0, self.totals.chips_gw / self.totals.sites_gw)
                power += gw * deal.prices[name] * HOURS * self.world.factors["power_price"][t] * 1e-6
        return spend + power, power

    def _inflows(self, t: int, deal: DealPath, reached_before: set[tuple[str, str]]) -> float:
        """What is received on a deal in quarter t."""
        received = 0.0
        for name, leg in deal.deal.receives.items():
            now = {key[1] for key in deal.reached - reached_before if key[0] == name}
            if isinstance(leg, Equity):
                if deal.serves and t <= deal.start < t + 1:
                    received += leg.amount
                if leg.conditional is not None and now:
                    received += leg.conditional.amount
            elif isinstance(leg, VendorInvestment):
                received += sum(leg.tranches[tranche].amount for tranche in now)
            else:
                received += self._vest(t, deal, name, leg)
        return received

    def _vest(self, t: int, deal: DealPath, name: str, leg: Warrants) -> float:
        """Warrants that vest in quarter t: their value, if it becomes cash."""
        worth, price = 0.0, self.world.factors[leg.share][t]
        expiry = quarters_between(self.study.portfolio.start, leg.expiry)
        for key, tranche in leg.tranches.items():
            if (name, key) in deal.vested or (name, key) not in deal.reached or t > expiry:
                continue
            if self.running_max[leg.share] >= tranche.hurdle:
                deal.vested.add((name, key))
                worth += tranche.shares * max(price - tranche.strike, 0.0)
        self._add("warrant_value_vest", worth)
        return worth if leg.monetise == "vest" else 0.0

    # One quarter (sections 5 and 6).

    def _quarter(self, t: int) -> None:
        factors = self.world.factors
        for name, series in factors.items():
            self.running_max[name] = max(self.running_max.get(name, series[t]), series[t])
        concentration = 1.0 if self.totals.concentration is None else self.totals.concentration
        reached_before = {name: set(deal.reached) for name, deal in self.deals.items()}
        self._deliver(t)
        demand, compute = factors["demand"][t], self.totals.compute
        util = min(1.0, demand / compute) if compute > 0 else 1.0
        spot = self._spot(t, demand, compute)
        row: dict[str, float | None] = {"demand": demand, "compute": compute, "utilisation": util}
        row |= self._served(t, demand, compute + spot)
        row["shortfall"] = max(0.0, demand - compute - spot)
        self._extend(t, demand, compute)
        row["spot_cost"] = spot * HOURS * factors["spot_price"][t] * 1e-3
        row |= {"spend": 0.0, "inflows": 0.0, "power_cost": 0.0, "capacity_gw": 0.0, "delivered_gw": 0.0}
        for name, deal in self.deals.items():
            spend, power = self._payments(t, deal, concentration, util)
            inflows = self._inflows(t, deal, reached_before[name])
            amounts = {
                "capacity_gw": deal.capacity_gw, "delivered_gw": deal.delivered_gw,
                "compute": deal.compute, "spend": spend, "inflows": inflows,
            }  # fmt: skip
            for metric, amount in amounts.items():
                self.by_deal[name].setdefault(metric, []).append(amount)
                if metric != "compute":
                    row[metric] = (row[metric] or 0.0) + amount
            row["power_cost"] = (row["power_cost"] or 0.0) + power
        self._balance(t, row)
        row["commitments"] = sum(self._committed(t, deal) for deal in self.deals.values())
        row["unit_cost"] = row["spend"] / (compute * HOURS) * 1e3 if compute > 0 else None  # type: ignore
        row["spend_compute"] = (row["spend"] or 0.0) * compute
        row["concentration"] = self.totals.concentration
        row["bust"] = float(self.world.bust[t])
        for metric, value in row.items():
            self.recorded.setdefault(metric, []).append(value)
        self._scalars(t, {metric: value or 0.0 for metric, value in row.items()})

    def _extend(self, t: int, demand: float, compute: float) -> None:
        """Extensions are decided in the last whole quarter of the term, before its payments (section 3)."""
        for deal in self.deals.values():
            extension = deal.deal.extension
            if extension is None or extension.when == "never" or deal.extended or not deal.happens:
                continue
            if not t + 1 <= deal.term_end < t + 2 or deal.end < deal.term_end or deal.cancelled_at < NEVER:
                continue
            short = demand * extension.threshold > compute - deal.compute
            deal.extended = extension.when == "always" or short

    def _spot(self, t: int, demand: float, compute: float) -> float:
        """Compute bought at the spot price (section 5)."""
        terms = self.buyer.spot
        bought = terms.share * max(0.0, demand - compute)
        if terms.cap is not None:
            bought = min(bought, terms.cap * compute * self.world.ratio("market_supply", t))
        return bought

    def _served(self, t: int, demand: float, supply: float) -> dict[str, float | None]:
        """Shares of demand served, and the revenue (section 5)."""
        share = self.buyer.training_share
        served = min(1.0, supply / demand)
        inference = training = served  # pro rata: both are served alike
        if self.buyer.priority == "inference":
            wanted = (1.0 - share) * demand
            inference = min(1.0, supply / wanted) if wanted > 0 else 1.0
            training = min(1.0, max(0.0, supply - wanted) / (share * demand)) if share > 0 else 1.0
        revenue = self.world.factors["revenue"][t] * QUARTER * inference**self.buyer.served_elasticity
        return {
            "served": served, "served_inference": inference, "served_training": training, "revenue": revenue
        }  # fmt: skip

    def _balance(self, t: int, row: dict) -> None:
        """Cash and funding (section 5)."""
        buyer, money = self.buyer, self.money
        row["net"] = (
            row["revenue"] * buyer.margin - buyer.fixed_cost * QUARTER
            - row["spend"] - row["spot_cost"] + row["inflows"]
        )  # fmt: skip
        interest = buyer.interest_rate * QUARTER * money.funding
        money.cash = money.cash * (1.0 + buyer.cash_yield * QUARTER) + row["net"] - interest
        if buyer.floor is not None and money.cash < buyer.floor:
            money.funding += buyer.floor - money.cash
            money.cash = buyer.floor
        if buyer.target is not None and money.cash > buyer.target:
            repaid = min(money.funding, money.cash - buyer.target)
            money.funding -= repaid
            money.cash -= repaid
        row["cash"], row["funding"] = money.cash, money.funding

    def _committed(self, t: int, deal: DealPath) -> float:
        """Take-or-pay money and prepayments still owed after quarter t (section 6)."""
        if not deal.serves:
            return 0.0
        owed = 0.0
        for name, leg in deal.deal.pays.items():
            if isinstance(leg, Commitment):
                owed += deal.owed(name, leg, t + 1.0, deal.end)
                if deal.start >= t + 1:
                    owed += leg.prepay * leg.total * deal.prices[name] * deal.late
        return owed

    # What a path records once (section 6).

    def _add(self, name: str, amount: float) -> None:
        self.money.scalars[name] = (self.money.scalars[name] or 0.0) + amount

    def _open_scalars(self) -> None:
        sums = ("total_spend", "npv_spend", "total_inflows", "npv_net", "peak_funding")
        values = ("warrant_value_vest", "warrant_value_horizon")
        self.money.scalars = dict.fromkeys(sums + values, 0.0)
        self.money.scalars |= {"min_cash": NEVER, "first_shortage": None, "first_distress": None}
        self.money.scalars |= {reach_name(level): None for level in self.study.study.reach}

    def _scalars(self, t: int, row: dict[str, float]) -> None:
        scalars = self.money.scalars
        discount = (1.0 + self.buyer.discount_rate) ** (-t * QUARTER)
        self._add("total_spend", row["spend"])
        self._add("npv_spend", row["spend"] * discount)
        self._add("total_inflows", row["inflows"])
        self._add("npv_net", row["net"] * discount)
        scalars["peak_funding"] = max(scalars["peak_funding"] or 0.0, row["funding"])
        lowest = scalars["min_cash"]
        scalars["min_cash"] = row["cash"] if lowest is None else min(lowest, row["cash"])
        limit = self.buyer.funding_limit
        firsts = {
            "first_shortage": row["shortfall"] > 1e-4 * row["demand"],
            "first_distress": limit is not None and row["funding"] > limit,
        }
        firsts |= {
            reach_name(level): row["capacity_gw"] >= level * NEARLY for level in self.study.study.reach
        }
        for name, now in firsts.items():
            if now and scalars[name] is None:
                scalars[name] = float(t)

    def _close_scalars(self) -> None:
        last, scalars = self.quarters - 1, self.money.scalars
        for name, deal in self.deals.items():
            for leg_name, leg in deal.deal.receives.items():
                if isinstance(leg, Warrants):
                    price = self.world.factors[leg.share][last]
                    for key, tranche in leg.tranches.items():
                        if (leg_name, key) in deal.vested:
                            worth = tranche.shares * max(price - tranche.strike, 0.0)
                            self._add("warrant_value_horizon", worth)
            scalars |= {f"{name}.{metric}": value for metric, value in self._fate(deal).items()}

    def _fate(self, deal: DealPath) -> dict[str, float | None]:
        """How a deal went."""
        horizon, term = self.quarters, deal.deal.term
        begin = max(0.0, deal.planned_start)
        end = min(float(horizon), NEVER if term is None else deal.planned_start + term)
        planned = 0.0
        if end > begin:
            planned = deal.plan.integral(begin - deal.planned_start, end - deal.planned_start)
        ended = {"term": False, "cancelled": False, "default": False}
        if deal.happens and deal.end <= horizon:
            cancelled = deal.cancelled_at < min(deal.scheduled_end, deal.defaulted_at)
            ended["default"] = deal.defaulted_at <= deal.end
            ended["cancelled"] = cancelled and not ended["default"]
            ended["term"] = not cancelled and not ended["default"]
        return {
            "delivered_share": deal.delivered_total / planned if planned > 0 else None,
            "lateness": deal.start - deal.planned_start,
            "realised_rungs": float(deal.rungs),
            "ended_long_stop": float(deal.long_stopped),
            **{f"ended_{how}": float(happened) for how, happened in ended.items()},
        }


def _blockers_first(deals: dict[str, Deal]) -> list[str]:
    """Names of deals, each after the one that blocks it."""
    ordered: list[str] = []
    for name in deals:
        chain: list[str] = []
        current: str | None = name
        while current is not None and current not in ordered:
            chain.append(current)
            current = deals[current].blocked_while
        ordered += reversed(chain)
    return ordered


def simulate(study: Study, path: int) -> dict:
    """Everything that one path records: quarters, factors, deals (by name and metric) and scalars."""
    found = Path(study, path).run()
    found["quarters"].pop("net")
    return found
