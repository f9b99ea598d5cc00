"""The Plan: all that a backend sees of a study, as a struct of arrays.

Deals of one shape (the same legs, rungs and clauses) form a group; a group's parameters are float32 columns
[deals, 1], so that a stage written for one deal runs for the group and for all lanes by broadcasting. What
a shape lacks is not computed. `Features` are known when a plan is compiled (they select code);
`parameters` are numbers (they never do).

Units: money US$ bn, power GW, compute million H100-equivalents (MH100e), time in quarters from the study's
start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .quantile_table import TableSet

# Later than any quarter of any study: the end of what has none, the start of what never starts.
NEVER = 1.0e6
# A nullable metric that has no value in a path (its values are never negative).
NONE = -1.0
# The series of zeros that every row reads which can be nothing else.
NOTHING = "nothing"
# Relative slack of "has reached" and of "more chips than sites", against float32 rounding of sums.
REACHED = 1.0 - 2.0**-16
SHORT_OF_SITES = 1.0 + 2.0**-16
SMALLEST_GW = 1.0e-5
SHORTAGE = 1.0e-4
YEARS_PER_QUARTER = 0.25
HOURS_PER_QUARTER = 2191.5
# US$ bn a quarter over MH100e, in US$ per H100e-hour.
UNIT_COST = 1.0e3 / HOURS_PER_QUARTER
# Keeps a quotient finite where its numerator is 0 too.
TINY = 1.0e-20

# Parameters of a group: name → meaning. Every backend reads them from here; `compile` may set no other.
DEAL_PARAMETERS: Mapping[str, str] = {
    "start": "announced own start, quarters",
    "slip_supply_chain": "loading of the slip's score on the supply chain, √a",
    "slip_region": "loading on the region, √b",
    "slip_own": "loading on the deal's own score, √(1-a-b)",
    "slip": "slip in quarters, when it is a constant",
    "size": "multiplier of GW, when it is a constant",
    "term": "quarters of service",
    "long_stop": "slip in quarters beyond which the deal ends",
    "late_grace": "quarters of slip without a credit",
    "late_per_quarter": "credit per quarter beyond the grace",
    "late_max": "largest credit",
    "cancel_hazard": "hazard per quarter in boom",
    "cancel_bust": "what a bust adds to it",
    "cancel_notice": "quarters from the decision to the end",
    "cancel_fee": "share of what is still owed",
    "default_hazard": "hazard per quarter in boom",
    "default_bust": "what a bust adds to it",
    "extension_quarters": "quarters added",
    "extension_threshold": "demand × threshold above compute online without the deal extends it",
    "h100e_per_gw": "MH100e per GW, when hardware does not improve",
    "planned_in_horizon": "planned GW-quarters inside the horizon, before size; 0 when none",
}
SEGMENT_PARAMETERS: Mapping[str, str] = {
    "gw": "GW that the segment adds",
    "begin": "ladder time at which it begins",
    "length": "quarters that it takes",
    "threshold": "the rung happens when the ladder's word is below this (uint32)",
}
LEG_PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "index": {
        "fixed_share": "1 - pass_through",
        "pass_through": "share of the price that follows the factor",
        "cap": "largest ratio of the factor to its start",
        "escalation": "log2(1 + escalator) per quarter",
        "leverage": "discount at zero concentration",
    },
    "commitment": {
        "rate": "US$ bn per unit of weight: (1-π)·V over planned GW-quarters or over the term",
        "extension_rate": "the same in the extension: V·price over the same, nothing prepaid",
        "take_or_pay": "share due whatever the use",
        "usage": "1 - take_or_pay",
        "prepayment": "π·V, US$ bn",
        "price": "price multiplier, when it is a constant",
    },
    "purchase": {
        "per_gw": "US$ bn per GW on delivery, deposit excluded",
        "deposit_per_gw": "US$ bn per GW, `lead` quarters before",
        "lead": "quarters",
    },
    "hosting": {"per_gw_quarter": "US$ bn per GW and quarter"},
    "power": {"cost": "US$ bn per GW and US$/MWh in a quarter, PUE included when it is a constant"},
    "vendor_investment": {"gw": "milestones [tranches]", "amount": "US$ bn [tranches]"},
    "equity": {"at_start": "US$ bn", "gw": "milestone [1]", "amount": "US$ bn on the milestone [1]"},
    "warrants": {
        "gw": "milestones [tranches]",
        "hurdle": "share prices in US$ [tranches]",
        "shares": "bn shares [tranches]",
        "strike": "US$ [tranches]",
        "expiry": "last quarter in which a tranche vests",
    },
}


@dataclass(frozen=True)
class Segment:
    """One rung's part of the planned curve. `certain`: its probability given the rung before is 1, as are
    all before.
    """

    kind: Literal["jump", "ramp"]
    certain: bool


@dataclass(frozen=True)
class Random:
    """A random term of a group: the first of its deals' tables, and what its score is made of."""

    tables: tuple[int, ...]
    score: str  # name of its rows in Draws.scores
    driver: tuple[int, ...] = ()  # rows of Draws.shared that a named driver loads on, () when none
    loading: tuple[float, ...] = ()


@dataclass(frozen=True)
class Index:
    """What a leg's price follows. `factor` is a row of the world, None when the price is fixed."""

    factor: int | None = None
    capped: bool = False
    escalates: bool = False
    leverage: bool = False


@dataclass(frozen=True)
class Leg:
    """A payment or receipt of a group: its kind, and which of the kind's clauses are in use."""

    kind: str
    index: Index = Index()
    flat: bool = False
    usage: bool = False
    prepaid: bool = False
    deposit: bool = False
    conditional: bool = False
    tranches: int = 0
    factor: int | None = None
    monetised: bool = False
    milestone_from: tuple[int, ...] = ()
    price: Random | None = None
    pue: Random | None = None


@dataclass(frozen=True)
class Features:
    """The shape of a group of deals."""

    layer: Literal["compute", "chips", "site"]
    segments: tuple[Segment, ...]
    legs: tuple[Leg, ...]
    slip: Random | None = None
    slip_shared: bool = False
    regions: tuple[int, ...] = ()
    stretch: Random | None = None
    size: Random | None = None
    term: bool = False
    extension: Literal["never", "always", "shortage"] = "never"
    blocked_by: tuple[int, ...] = ()
    deferrable: bool = False
    follows_sites: bool = False
    long_stop: bool = False
    late_credit: bool = False
    cancel: bool = False
    cancel_in_bust: bool = False
    default: bool = False
    default_in_bust: bool = False
    life: int | None = None
    improves: bool = False

    @property
    def uncertain(self) -> bool:
        """Whether some rung may not happen."""
        return not all(segment.certain for segment in self.segments)

    @property
    def waits(self) -> bool:
        """Whether the ladder's clock can stop."""
        return self.deferrable or self.follows_sites

    @property
    def owned(self) -> bool:
        """Hardware without a term stays when its deal ends."""
        return not self.term

    @property
    def milestones(self) -> bool:
        """Whether a leg's state follows what stood before quarter 0."""
        return any(leg.tranches or leg.deposit for leg in self.legs)

    @property
    def uses_capacity(self) -> bool:
        """Whether a leg looks at energised GW."""
        return any(leg.tranches or leg.kind == "power" for leg in self.legs)

    def has(self, kind: str) -> bool:
        """Whether a leg of this kind is present."""
        return any(leg.kind == kind for leg in self.legs)


@dataclass(frozen=True)
class Group:
    """Deals of one shape. `deals` number them in the plan; parameters are float32 columns [deals, 1].

    `standing`: whether one of them may have begun before quarter 0 (or ends what another waits for).
    """

    features: Features
    deals: tuple[int, ...]
    parameters: Mapping[str, np.ndarray]
    segments: tuple[Mapping[str, np.ndarray], ...]
    legs: tuple[Mapping[str, np.ndarray], ...]
    # MH100e per GW delivered in quarter t - history: float32 [quarters + history, deals, 1].
    vintage: np.ndarray | None = None
    standing: bool = True


@dataclass(frozen=True)
class World:
    """Factors. A stochastic one is a row of the log2 state; any other is a column of `table`.

    `names` fixes the number of each factor; `ratios` are those whose X_t/X_0 is used. table [quarters,
    factors]; growth [quarters, 2, rows, 1] is each step's drift in log2, in boom and in bust.
    """

    names: tuple[str, ...]
    row: Mapping[int, int]
    table: np.ndarray
    initial: np.ndarray
    initial_random: Mapping[int, Random]
    growth: np.ndarray
    volatility: np.ndarray
    bust_volatility: np.ndarray
    jump: np.ndarray
    reversion: np.ndarray
    level: np.ndarray
    cholesky: np.ndarray
    ratios: tuple[int, ...]
    regime: bool
    bust_growth_differs: bool
    bust_volatility_differs: bool
    jumps: bool
    bust_threshold: int = 0
    recovery_threshold: int = 0

    @property
    def reverts(self) -> bool:
        """Whether any factor is pulled towards a level."""
        return bool(np.any(self.reversion))


@dataclass(frozen=True)
class Buyer:
    """The buyer's cash, revenue and spot terms; rates are per quarter. None switches a clause off."""

    cash: float
    margin: float
    fixed: float
    elasticity: float
    cash_yield: float
    interest: float
    floor: float | None
    target: float | None
    limit: float | None
    spot_share: float
    spot_cap: float | None
    training_share: float
    inference_first: bool


@dataclass(frozen=True)
class Streams:
    """One-time draws by name: CRC-32 of each, scores first, then raw words; `rows` finds a group's own."""

    names: tuple[str, ...]
    crc: np.ndarray
    scores: int
    rows: Mapping[tuple[int, str], slice]
    shared: Mapping[str, int]


@dataclass(frozen=True)
class Series:
    """A recorded float32 array of a quarter (or of the path): one row of the tally per quarter.

    `index` numbers a deal, a supplier or a factor; `nullable` says that NONE may stand for no value.
    """

    metric: str
    scope: Literal["total", "deal", "supplier", "factor"]
    index: int
    nullable: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether kept paths show it: totals do, the shared row of what never happens does not."""
        return self.scope == "total" and self.metric != NOTHING


@dataclass(frozen=True)
class Threshold:
    """Counts of paths in which a recorded value compares with a level; `series` numbers quarterly or path
    series.
    """

    series: int
    per_path: bool
    op: Literal["<", "<=", ">", ">="]
    level: float


@dataclass(frozen=True)
class Plan:
    """A compiled study. See the module's docstring; `engine/offtake/compile.py` makes it."""

    quarters: int
    history: int
    seed: int
    deal_names: tuple[str, ...]
    supplier_names: tuple[str, ...]
    supplier_deals: tuple[tuple[int, ...], ...]
    groups: tuple[Group, ...]
    world: World
    buyer: Buyer
    streams: Streams
    series_crc: tuple[int, ...]
    tables: TableSet
    discount: np.ndarray
    reach: tuple[tuple[str, float], ...]
    quarter_series: tuple[Series, ...]
    path_series: tuple[Series, ...]
    thresholds: tuple[Threshold, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the tally: quarterly series quarter by quarter, then per-path series."""
        return len(self.quarter_series) * self.quarters + len(self.path_series)

    @property
    def threshold_rows(self) -> int:
        """Threshold counters: one per quarter, or one per path metric."""
        return sum(1 if t.per_path else self.quarters for t in self.thresholds)

    def kept_name(self, series: Series) -> str:
        """Column of a per-path series among the kept paths: metric, or deal.metric."""
        return (
            series.metric if series.scope == "total" else f"{self.deal_names[series.index]}.{series.metric}"
        )

    @property
    def nullable_names(self) -> frozenset[str]:
        """Columns of the kept paths in which NONE may stand for no value."""
        series = (*self.quarter_series, *self.path_series)
        return frozenset(self.kept_name(entry) for entry in series if entry.nullable)
