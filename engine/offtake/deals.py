"""Contract terms: a buyer, its deals, and what each deal pays and receives.

Field names are the keys of the YAML language. Money in US$ bn (nominal), power in GW of IT load, durations in
quarters, rates a year unless a field says otherwise. The equations that use the terms are in the model's
documentation; nothing here computes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from offtake.distributions import Distribution
from offtake.quantities import (
    Amount,
    Balance,
    Date,
    Gigawatts,
    Name,
    NonNegative,
    Positive,
    PositiveWhole,
    Quarters,
    Share,
    Terms,
    WholeQuarters,
    listed,
)


class Commitment(Terms):
    """A headline total over the term, with a take-or-pay share."""

    kind: Literal["commitment"]
    total: Amount
    """Headline value over the whole term, US$ bn."""
    take_or_pay: Share = 1.0
    """Share of the charge that is due whether used or not."""
    prepay: Share = 0.0
    """Share of the total due in the start quarter."""
    profile: Literal["capacity", "flat"] = "capacity"
    """Charge in proportion to delivered capacity, or evenly over the term."""
    price: Distribution = 1.0
    """Multiple of the headline price."""
    escalator: Annotated[float, Field(gt=-1)] = 0.0
    """Price growth a year from own start."""
    pass_through: Share = 0.0
    """Share of the price that follows the index."""
    index: Name = "hardware_price"
    """Factor that the price follows."""
    index_cap: Positive | None = None
    """Highest ratio of the index to its opening value that is passed through; null for none."""
    leverage: Share = 0.0
    """Largest discount that spreading demand over suppliers brings."""


class Purchase(Terms):
    """Hardware bought per GW delivered."""

    kind: Literal["purchase"]
    per_gw: Amount
    """Price, US$ bn per GW."""
    deposit: Share = 0.0
    """Share due `lead` quarters before delivery."""
    lead: WholeQuarters = 0
    """Whole quarters between deposit and delivery."""
    escalator: Annotated[float, Field(gt=-1)] = 0.0
    """Price growth a year from own start."""
    pass_through: Share = 1.0
    """Share of the price that follows the index."""
    index: Name = "hardware_price"
    """Factor that the price follows."""
    index_cap: Positive | None = None
    """Highest ratio of the index to its opening value that is passed through; null for none."""
    leverage: Share = 0.0
    """Largest discount that spreading demand over suppliers brings."""


class Hosting(Terms):
    """Rent of powered space."""

    kind: Literal["hosting"]
    per_gw_year: Amount
    """Rent, US$ bn per delivered GW and year."""


class Power(Terms):
    """Electricity at the factor power_price."""

    kind: Literal["power"]
    pue: Distribution = 1.2
    """Power usage effectiveness: facility power over IT power."""


class ConditionalEquity(Terms):
    """Equity paid in on a milestone."""

    gw: Gigawatts
    """Energised GW at which it is due."""
    amount: Amount
    """US$ bn."""


class Equity(Terms):
    """Equity paid in by the supplier when the deal starts, and possibly more on a milestone."""

    kind: Literal["equity"]
    amount: Amount
    """US$ bn in the start quarter if the first rung happens."""
    conditional: ConditionalEquity | None = None


class InvestmentTranche(Terms):
    """A part of a vendor's investment."""

    gw: Gigawatts
    """Energised GW at which it is due."""
    amount: Amount
    """US$ bn."""


class VendorInvestment(Terms):
    """Money paid in by the vendor as its gigawatts are energised."""

    kind: Literal["vendor_investment"]
    milestone_from: Annotated[tuple[Name, ...], BeforeValidator(listed)] = ()
    """Other deals whose energised GW count too."""
    tranches: Annotated[dict[Name, InvestmentTranche], Field(min_length=1)]


class WarrantTranche(Terms):
    """Shares that vest on a capacity milestone and a share-price hurdle."""

    gw: Gigawatts
    """Energised GW that must have been reached."""
    hurdle: NonNegative
    """Share price that must have been reached, US$."""
    shares: NonNegative
    """Number of shares, bn."""
    strike: NonNegative
    """Exercise price, US$."""


class Warrants(Terms):
    """Warrants on the supplier's shares."""

    kind: Literal["warrants"]
    share: Name
    """Factor that is the share price, US$."""
    expiry: Date
    """Last date on which a tranche can vest."""
    monetise: Literal["vest", "never"] = "never"
    """Whether the value becomes cash when a tranche vests."""
    tranches: Annotated[dict[Name, WarrantTranche], Field(min_length=1)]


Pays = Annotated[Commitment | Purchase | Hosting | Power, Field(discriminator="kind")]
Receives = Annotated[Equity | VendorInvestment | Warrants, Field(discriminator="kind")]


class Rung(Terms):
    """A step of the commitment ladder."""

    after: Quarters
    """Quarters since own start."""
    gw: Gigawatts
    """GW online from then on, cumulative."""
    follow_through: Share = 1.0
    """Probability, given that the rung before happened."""


class SlipLoading(Terms):
    """Shares of the variance of a slip that come from common causes; together at most 1."""

    supply_chain: Share = 0.0
    """Share from the score common to all deals."""
    region: Share = 0.0
    """Share from the score common to the deal's region."""


class LateCredit(Terms):
    """A price reduction for lateness."""

    grace: NonNegative = 0.0
    """Quarters of slip without credit."""
    per_quarter: Share
    """Reduction for each further quarter."""
    max: Share = 1.0
    """Largest reduction."""


class Cancellation(Terms):
    """The buyer or politics end the deal."""

    hazard: NonNegative
    """Rate a year from quarter 0 to the end of service."""
    bust_multiplier: NonNegative = 1.0
    """Multiple of the hazard in a bust."""
    notice: WholeQuarters = 0
    """Whole quarters from the decision to the end."""
    fee: Share = 0.0
    """Share of the take-or-pay money still owed at the end that is due then."""


class SupplierDefault(Terms):
    """The supplier fails; capacity ends at once."""

    hazard: NonNegative
    """Rate a year from quarter 0 to the end of service."""
    bust_multiplier: NonNegative = 1.0
    """Multiple of the hazard in a bust."""


class Extension(Terms):
    """More quarters on the same terms, decided in the last whole quarter of the term."""

    when: Literal["always", "never", "shortage"]
    threshold: NonNegative = 1.0
    """With `shortage`: extend when demand × threshold exceeds the compute online without this deal."""
    quarters: WholeQuarters = 0
    """Whole quarters added."""
    price: NonNegative = 1.0
    """Multiple of the old price."""


class Facts(Terms):
    """Where the figures of a deal come from; the simulation does not read it."""

    as_of: Date | None = None
    """Date of the information."""
    source: str = ""
    confidence: Literal["high", "medium", "low"] | None = None
    """high: filing or joint statement; medium: press or analyst; low: inferred."""
    note: str = ""


class Deal(Terms):
    """A contract for a ready service (compute), accelerators (chips) or powered space (site)."""

    supplier: Name
    """Who delivers; reports group by it."""
    region: Name = "global"
    """Where; slips of one region share a score."""
    layer: Literal["compute", "chips", "site"]
    hardware: Name | None = None
    """Generation of the hardware; required for compute and chips."""
    start: Date
    """Planned start of service or of deliveries."""
    size: Distribution = 1.0
    """Multiple of the ladder's GW; never of a commitment's money."""
    slip: Distribution = 0.0
    """Delay of the start, quarters."""
    stretch: Distribution = 1.0
    """Multiple of the ladder's times."""
    slip_loading: SlipLoading | None = None
    """Variance shares of the slip; null takes the world's."""
    ladder: Annotated[dict[Name, Rung], Field(min_length=1)]
    """Rungs in the order of `after`."""
    shape: Literal["linear", "step"] = "linear"
    """How capacity grows between rungs."""
    term: Annotated[Quarters, Field(gt=0)] | None = None
    """Quarters of service from own start; null for owned hardware."""
    life: PositiveWhole | None = None
    """Whole quarters of service after each delivery of owned chips; null for no retirement."""
    long_stop: NonNegative | None = None
    """Quarters of slip above which the deal ends at once; null for none."""
    late_credit: LateCredit | None = None
    cancel: Cancellation | None = None
    default: SupplierDefault | None = None
    extension: Extension | None = None
    blocked_while: Name | None = None
    """The exclusive deal that must have ended before this one starts."""
    exclusive: bool = False
    """Whether another deal may be blocked while this one runs."""
    deferrable: bool = True
    """Whether a buyer in distress that defers may stop this deal's clock."""
    follows_sites: bool = False
    """Chips only: wait while more chips are delivered than sites could power."""
    pays: dict[Name, Pays] = Field(default_factory=dict)
    """What the buyer pays."""
    receives: dict[Name, Receives] = Field(default_factory=dict)
    """What the buyer receives."""
    facts: Facts = Facts()


class Spot(Terms):
    """Compute bought at the spot price when demand exceeds what is online."""

    share: Share = 0.0
    """Share of the shortfall that is bought."""
    cap: NonNegative | None = None
    """Largest multiple of the compute online (× market supply); null for none."""


class Buyer(Terms):
    """Who pays: its cash, its funding and how it uses compute."""

    cash: Balance = 0.0
    """US$ bn at the start."""
    margin: Annotated[float, Field(ge=-10, le=1)] = 1.0
    """Share of revenue left before compute."""
    fixed_cost: Balance = 0.0
    """US$ bn a year."""
    served_elasticity: NonNegative = 1.0
    """Revenue is multiplied by (share of inference served)^this."""
    cash_yield: float = 0.0
    """Interest on cash, a year."""
    interest_rate: float = 0.0
    """Interest on outstanding funding, a year."""
    discount_rate: Annotated[float, Field(gt=-1)] = 0.1
    """For npv_*, a year."""
    floor: Balance | None = None
    """Cash never falls below: funding fills the gap; null for no funding. US$ bn."""
    target: Balance | None = None
    """Cash above this repays funding; null repays nothing. US$ bn."""
    funding_limit: Amount | None = None
    """Outstanding funding above this is distress; null for none. US$ bn."""
    on_distress: Literal["record", "defer"] = "record"
    """Whether distress stops the clocks of deferrable deals."""
    spot: Spot = Spot()
    training_share: Share = 0.0
    """Share of demand that is training."""
    priority: Literal["pro_rata", "inference"] = "pro_rata"
    """Who is served first when compute is short."""


class Portfolio(Terms):
    """A buyer's deals over a horizon."""

    name: Name
    start: Date
    """Quarter 0 begins here."""
    quarters: Annotated[PositiveWhole, Field(le=400)]
    """Length of the horizon."""
    buyer: Buyer = Buyer()
    deals: Annotated[dict[Name, Deal], Field(min_length=1)]
