"""How long something takes: the kind of a distribution and its parameters, checked where they are set.

Times are seconds of virtual time, rates are per second. ``complaint`` is the rule as a plain function, because an
update of one path must not pay for a pydantic model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from tidewarp.errors import RuleViolation
from tidewarp.process.rules import shown

__all__ = ["ERLANG_STAGES_MAX", "PARAMETERS", "VALUES_MAX", "Dist", "DistributionConfig", "complaint", "refused"]

Dist = Literal[
    "constant", "empirical", "erlang", "exponential", "lognormal", "normal", "triangular", "uniform", "weibull"
]
PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "constant": ("mean",),
    "empirical": ("values",),
    "erlang": ("shape", "scale"),
    "exponential": ("rate", "mean"),  # one of the two
    "lognormal": ("mean", "std"),
    "normal": ("mean", "std"),
    "triangular": ("low", "mode", "high"),
    "uniform": ("low", "high"),
    "weibull": ("shape", "scale"),
}
"""Kind -> the parameters that it takes."""
ERLANG_STAGES_MAX: Final = 1_000
VALUES_MAX: Final = 10_000
_SECONDS_MAX: Final = 1e9  # about 31 years: a mean, or an end, beyond it is a mistake of unit
_STEP: Final = "correct the parameter"
_NOT_BELOW_0: Final = ("rate", "std")
_SHAPE_LEAST: Final = 0.1  # below it a delay of Weibull would be either nothing or beyond all time
_LEAST: Final = 1e-9  # 1 ns, the resolution of time; of a rate, one event in 31 years

Complaint = tuple[str, str, str]  # the parameter, the rule that it breaks, the next action


class DistributionConfig(BaseModel):
    """A distribution of times: ``DistributionConfig("lognormal", mean=300.0, std=60.0)``.

    Attributes:
        dist: the kind; PARAMETERS says which of the others it takes, and it takes no other.
        rate: events per second, for "exponential"; 0 means stopped, which only an arrival may be.
        mean: seconds; above 0 for "exponential" and "lognormal". Of the value itself, not of its logarithm.
        std: seconds >= 0, of the value itself.
        low: least value, seconds.
        high: greatest value, seconds.
        mode: likeliest value, seconds, from ``low`` to ``high``.
        shape: 0.1 or more; for "erlang" the whole number of stages, at most ERLANG_STAGES_MAX.
        scale: seconds above 0; for "erlang" the mean of one stage.
        values: seconds, at most VALUES_MAX of them, each equally likely; kept sorted.

    A draw reads the fields as they are at that moment, so they may be assigned to. An assignment is not checked;
    an update through the registry is.

    Raises:
        RuleViolation: a parameter is missing, superfluous, not a number, or out of its range.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    dist: Dist
    rate: float | None = None
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    mode: float | None = None
    shape: float | None = None
    scale: float | None = None
    values: list[float] | None = None

    def __init__(self, dist: str | None = None, **parameters: Any) -> None:
        what = f"distribution {shown(dist)}"
        try:
            super().__init__(dist=dist, **parameters)
        except ValidationError as error:
            raise refused(what, error) from None
        if self.values is not None:
            self.values.sort()
        found = complaint(self.__dict__)
        if found is not None:
            name, rule, action = found
            raise RuleViolation(f"{name} {shown(parameters.get(name))} of {what}", rule, action)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_bool(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("true and false are no numbers")  # pydantic collects ValueErrors
        return value


def refused(what: str, error: ValidationError) -> RuleViolation:
    """The first thing that pydantic found wrong with ``what``, in three sentences of ours."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    value = f"{place or 'value'} {shown(first['input'])} of {what}"
    return RuleViolation(value, first["msg"], "correct it, or leave it out" if place else _STEP)


def complaint(config: Mapping[str, Any], *, is_service: bool = False) -> Complaint | None:
    """What is wrong with the fields of a distribution (name -> value, None or absent: not set); None if nothing.

    ``is_service``: somebody waits for the end of each draw, so its rate must be above 0; that of an arrival may be 0.
    Values must be numbers already (list of numbers for ``values``).
    """
    dist = config.get("dist")
    takes = PARAMETERS.get(dist) if isinstance(dist, str) else None
    if takes is None:
        return "dist", f"one of {', '.join(PARAMETERS)}", "name one of these"
    given = {name: value for name, value in config.items() if name != "dist" and value is not None}
    if dist == "exponential" and len(given.keys() & {"rate", "mean"}) != 1:
        return "rate", "exponential takes either rate or mean", "set one of the two"
    for name in takes:
        if name not in given and dist != "exponential":
            return name, f"{dist} takes {' and '.join(takes)}", "set it"
    for name, value in given.items():
        if name not in takes:
            return name, f"{dist} takes {' and '.join(takes)}", "leave it out"
        rule = _values_rule(value) if name == "values" else _number_rule(name, value)
        if rule is not None:
            return name, rule, _STEP
    return _together(str(dist), given, is_service)


def _number_rule(name: str, value: float) -> str | None:
    if not math.isfinite(value):
        return "a finite number"
    if abs(value) > _SECONDS_MAX:
        return f"at most {_SECONDS_MAX:g}"
    if name in _NOT_BELOW_0 and value < 0:
        return "0 or more"
    if name == "rate" and 0 < value < _LEAST:
        return f"0, or {_LEAST:g} or more"
    if name == "scale" and value < _LEAST:
        return f"{_LEAST:g} or more"
    if name == "shape" and value < _SHAPE_LEAST:
        return f"{_SHAPE_LEAST:g} or more"
    return None


def _values_rule(values: Sequence[float]) -> str | None:
    if not 0 < len(values) <= VALUES_MAX:
        return f"1 to {VALUES_MAX} numbers"
    if not all(math.isfinite(value) and abs(value) <= _SECONDS_MAX for value in values):
        return f"finite numbers of at most {_SECONDS_MAX:g}"
    return None


def _together(dist: str, given: Mapping[str, Any], is_service: bool) -> Complaint | None:
    """The rules of one kind, and those between parameters."""
    if dist in ("exponential", "lognormal") and given.get("mean", 1.0) < _LEAST:
        return "mean", f"the mean of {dist} is {_LEAST:g} or more", _STEP
    if is_service and not given.get("rate", 1.0) > 0:
        return "rate", "the rate of a service is above 0", "give a positive rate; only an arrival may stop"
    if dist == "uniform" and not given["low"] <= given["high"]:
        return "high", f"at least low {given['low']:g}", "set both in one update"
    if dist == "triangular" and not given["low"] <= given["mode"] <= given["high"]:
        return "mode", f"from low {given['low']:g} to high {given['high']:g}", "set all three in one update"
    if dist == "erlang" and not (given["shape"] % 1 == 0 and 1 <= given["shape"] <= ERLANG_STAGES_MAX):
        return "shape", f"a whole number of stages, 1 to {ERLANG_STAGES_MAX}", _STEP
    return None
