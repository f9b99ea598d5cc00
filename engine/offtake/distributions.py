"""Distributions as a study writes them: types and their checks, no arithmetic.

A value marked as a distribution is a plain number, or a mapping in one of three forms:

    {quantiles: {0.1: a, 0.5: b, 0.9: c}, min: lowest, max: highest}    linear in the normal score
    {dist: NAME, ...}                                                     a named family
    {samples: {file: draws.csv, column: slip}}                            a step quantile function

Any mapping form may add {driver: NAME, loading: rho}: the draw then shares the normal score of a named
driver, score = rho·Z(driver) + sqrt(1 − rho²)·own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from offtake.quantities import Name, NonNegative, NumberKey, Positive, Terms, listed


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise PydanticCustomError("distribution", "{reason}", {"reason": message})


class _Form(Terms):
    driver: Name | None = None
    """Name of a normal score shared with every other term that names it."""
    loading: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Correlation with the driver's score, from −1 to 1."""

    @model_validator(mode="after")
    def _driver_and_loading(self) -> _Form:
        _require(self.driver is not None or self.loading == 0, "a loading needs a driver")
        _require(self.driver is None or "loading" in self.model_fields_set, "a driver needs a loading")
        return self


class Quantiles(_Form):
    """Points of the quantile function; linear in the normal score between and beyond them."""

    quantiles: Annotated[dict[NumberKey, float], Field(min_length=1)]
    """Value by probability, probabilities inside (0, 1)."""
    min: float | None = None
    """Values below this are this."""
    max: float | None = None
    """Values above this are this."""

    @model_validator(mode="after")
    def _ordered(self) -> Quantiles:
        probabilities, values = list(self.quantiles), list(self.quantiles.values())
        _require(all(0 < p < 1 for p in probabilities), "probabilities must lie strictly between 0 and 1")
        _require(
            all(a < b for a, b in pairwise(probabilities)),
            "probabilities must be increasing",
        )
        _require(all(a <= b for a, b in pairwise(values)), "values must not decrease")
        _require(self.min is None or self.max is None or self.min <= self.max, "min must not exceed max")
        return self


class Samples(Terms):
    """Where recorded draws are."""

    file: Annotated[str, Field(min_length=1)]
    """A .csv or .parquet file, relative to the YAML file that names it."""
    column: Annotated[str, Field(min_length=1)]
    """The column that holds the draws."""


class Sampled(_Form):
    """The empirical distribution of a column of a file."""

    samples: Samples


class Uniform(_Form):
    """Uniform on [low, high]."""

    dist: Literal["uniform"]
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        _require(self.low < self.high, "low must be below high")
        return self


class Normal(_Form):
    """Normal with the given mean and standard deviation."""

    dist: Literal["normal"]
    mean: float
    sd: Positive


class TruncatedNormal(_Form):
    """Normal(mean, sd) conditioned on [low, high]."""

    dist: Literal["truncnorm"]
    mean: float
    sd: Positive
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> TruncatedNormal:
        _require(self.low < self.high, "low must be below high")
        return self


class Lognormal(_Form):
    """Lognormal, given by (median, sigma of the log) or by its 10 % and 90 % quantiles."""

    dist: Literal["lognormal"]
    median: Positive | None = None
    sigma: Positive | None = None
    p10: Positive | None = None
    p90: Positive | None = None

    @model_validator(mode="after")
    def _one_pair(self) -> Lognormal:
        given = {key for key in ("median", "sigma", "p10", "p90") if getattr(self, key) is not None}
        _require(given in ({"median", "sigma"}, {"p10", "p90"}), "give median and sigma, or p10 and p90")
        _require(self.p10 is None or self.p90 is None or self.p10 < self.p90, "p10 must be below p90")
        return self


class _LowModeHigh(_Form):
    low: float
    mode: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> _LowModeHigh:
        _require(self.low < self.high, "low must be below high")
        _require(self.low <= self.mode <= self.high, "mode must lie between low and high")
        return self


class Triangular(_LowModeHigh):
    """Triangular on [low, high] with the given mode."""

    dist: Literal["triangular"]


class Pert(_LowModeHigh):
    """Beta-PERT on [low, high]: mean (low + 4·mode + high)/6."""

    dist: Literal["pert"]


class Beta(_Form):
    """Beta(a, b) stretched over [low, high]."""

    dist: Literal["beta"]
    a: Positive
    b: Positive
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Beta:
        _require(self.low < self.high, "low must be below high")
        return self


class Gamma(_Form):
    """Gamma with mean shape·scale."""

    dist: Literal["gamma"]
    shape: Positive
    scale: Positive


class Weibull(_Form):
    """Weibull with the given shape and scale."""

    dist: Literal["weibull"]
    shape: Positive
    scale: Positive


class Exponential(_Form):
    """Exponential with the given mean."""

    dist: Literal["expon"]
    mean: Positive


class Discrete(_Form):
    """Finitely many values with weights; the weights need not sum to 1."""

    dist: Literal["discrete"]
    values: Annotated[dict[NumberKey, NonNegative], Field(min_length=1)]
    """Weight by value."""

    @model_validator(mode="after")
    def _some_weight(self) -> Discrete:
        _require(sum(self.values.values()) > 0, "at least one weight must be above 0")
        return self


class Part(Terms):
    """One component of a mixture."""

    weight: NonNegative
    of: Distribution

    @model_validator(mode="after")
    def _own_score_only(self) -> Part:
        _require(getattr(self.of, "driver", None) is None, "a part of a mixture has no driver of its own")
        return self


class Mixture(_Form):
    """A weighted mixture; the weights need not sum to 1."""

    dist: Literal["mixture"]
    parts: Annotated[tuple[Part, ...], Field(min_length=1), BeforeValidator(listed)]

    @model_validator(mode="after")
    def _some_weight(self) -> Mixture:
        _require(sum(part.weight for part in self.parts) > 0, "at least one weight must be above 0")
        return self


FAMILIES: dict[str, type[_Form]] = {
    "uniform": Uniform,
    "normal": Normal,
    "truncnorm": TruncatedNormal,
    "lognormal": Lognormal,
    "triangular": Triangular,
    "pert": Pert,
    "beta": Beta,
    "gamma": Gamma,
    "weibull": Weibull,
    "expon": Exponential,
    "discrete": Discrete,
    "mixture": Mixture,
}


def _form_of(value: Any) -> str:
    """Which form a value is written in: the tag of the union below."""
    if isinstance(value, _Form):
        value = value.model_dump(include={"dist", "quantiles", "samples"})
    if not isinstance(value, dict):
        return "form:number"
    if "quantiles" in value:
        return "form:quantiles"
    if "samples" in value:
        return "form:samples"
    return f"form:{value.get('dist')}"


Distribution = Annotated[
    Annotated[float, Tag("form:number")]
    | Annotated[Quantiles, Tag("form:quantiles")]
    | Annotated[Sampled, Tag("form:samples")]
    | Annotated[Uniform, Tag("form:uniform")]
    | Annotated[Normal, Tag("form:normal")]
    | Annotated[TruncatedNormal, Tag("form:truncnorm")]
    | Annotated[Lognormal, Tag("form:lognormal")]
    | Annotated[Triangular, Tag("form:triangular")]
    | Annotated[Pert, Tag("form:pert")]
    | Annotated[Beta, Tag("form:beta")]
    | Annotated[Gamma, Tag("form:gamma")]
    | Annotated[Weibull, Tag("form:weibull")]
    | Annotated[Exponential, Tag("form:expon")]
    | Annotated[Discrete, Tag("form:discrete")]
    | Annotated[Mixture, Tag("form:mixture")],
    Discriminator(
        _form_of,
        custom_error_type="distribution_form",
        custom_error_message="neither a number nor a known distribution",
    ),
]
"""A number (a float) or one of the forms above."""

Part.model_rebuild()
Mixture.model_rebuild()


def is_constant(distribution: Distribution) -> bool:
    """Whether the value is a plain number."""
    return isinstance(distribution, float | int)
