"""The world around a portfolio: log-linear factors, their correlation, boom and bust, hardware generations.

Rates and volatilities are a year. Units: demand MH100e (million H100-equivalents), revenue US$ bn a year,
power_price US$ per MWh, spot_price US$ per H100e-hour, share prices US$; the rest are relative.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from offtake.deals import SlipLoading
from offtake.distributions import Distribution
from offtake.quantities import Date, Name, NonNegative, Positive, Terms

REQUIRED_FACTORS = ("demand", "revenue")

OPENING_VALUES = {
    "hardware_price": 1.0,
    "power_price": 57.0,
    "spot_price": 2.0,
    "ai_equity": 1.0,
    "market_supply": 1.0,
}
"""Factors that exist in every world, constant unless given, and their opening values."""


class Growth(Terms):
    """Growth of the mean that fades from `now` to `later`."""

    now: float
    """Growth a year at the start."""
    later: float
    """Growth a year in the long run."""
    half_life: Positive
    """Years in which half of the difference is gone."""


class Bust(Terms):
    """What a bust changes; a key not given keeps the boom's value."""

    growth: float | None = None
    """Growth of the mean a year."""
    volatility: NonNegative | None = None
    """A year."""
    jump: float = 0.0
    """Change of the log when a bust begins."""


class Factor(Terms):
    """A log-linear process, or a table of dates and values."""

    initial: Distribution = 1.0
    """Value in quarter 0, in the factor's unit."""
    growth: Annotated[
        Annotated[float, Tag("growth:constant")] | Annotated[Growth, Tag("growth:fading")],
        Discriminator(
            lambda value: "growth:fading" if isinstance(value, dict | Growth) else "growth:constant"
        ),
    ] = 0.0
    """Growth of the mean a year; ignored with reversion."""
    volatility: NonNegative = 0.0
    """A year."""
    reversion: NonNegative | None = None
    """Speed of mean reversion a year."""
    level: Positive | None = None
    """Long-run median; required with reversion."""
    bust: Bust | None = None
    table: Annotated[dict[Date, Positive], Field(min_length=1)] | None = None
    """Value by date: linear between, flat outside, no randomness."""


class Regime(Terms):
    """Boom and bust."""

    bust_rate: NonNegative
    """Rate a year of boom → bust."""
    recovery_rate: NonNegative
    """Rate a year of bust → boom."""


class Hardware(Terms):
    """A hardware generation."""

    h100e_per_gw: Positive
    """Million H100-equivalents per GW of IT load."""
    improvement: float = 0.0
    """Growth of that figure a year (continuous) for later deliveries."""
    reference: Date | None = None
    """Date at which the figure holds; null takes the portfolio's start."""


class World(Terms):
    """The factors and hardware that every deal of a portfolio shares."""

    factors: dict[Name, Factor]
    """By name; demand and revenue are required, those of OPENING_VALUES always exist."""
    correlation: dict[Name, dict[Name, float]] = Field(default_factory=dict)
    """Pairs; the rest are 0."""
    repair: Literal["refuse", "nearest"] = "refuse"
    """What to do when the correlations contradict each other."""
    regime: Regime | None = None
    slip_loading: SlipLoading = SlipLoading()
    """Variance shares of slips, for deals that give none."""
    hardware: dict[Name, Hardware] = Field(default_factory=dict)

    @field_validator("factors", mode="before")
    @classmethod
    def _with_implicit_factors(cls, factors: Any) -> Any:
        if not isinstance(factors, dict):
            return factors
        completed = dict(factors)
        for name, opening in OPENING_VALUES.items():
            given = completed.get(name, {})
            if isinstance(given, dict) and not given.keys() & {"initial", "table"}:
                completed[name] = {**given, "initial": opening}
        return completed
