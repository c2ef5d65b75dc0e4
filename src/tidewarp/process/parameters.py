"""The parameters of a simulation unit as one document: what a line is made of, and how long things take.

pydantic checks them where they are made. Later updates go by the rules of the registry's paths.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

from tidewarp.process.distributions import DistributionConfig, refused

__all__ = ["BreakdownConfig", "CapacityConfig", "SimParameter"]

_Amount: TypeAlias = Annotated[StrictInt | StrictFloat, Field(ge=0)]


class _Checked(BaseModel):
    """A document that says what is wrong with it in three sentences of ours."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise refused(type(self).__name__, error) from None


class CapacityConfig(_Checked):
    """A capacity now and at most: whole units for resources and stores, any amount >= 0 for containers.

    Raises:
        RuleViolation: not a finite number >= 0. That ``current_cap <= max_cap`` is checked when it is registered.
    """

    current_cap: _Amount
    max_cap: _Amount | None = None


class BreakdownConfig(_Checked):
    """One unit of ``resource`` (its name) works for a time drawn from ``up``, then has failed for one from ``down``.

    ``interrupt``: work in progress stops at once; else the unit leaves when its job ends.
    """

    resource: str
    up: DistributionConfig
    down: DistributionConfig
    interrupt: bool = True


class SimParameter(_Checked):
    """All parameters of the unit ``sim_id``, by kind and name.

    They become the paths ``{sim_id}.{kind}.{name}`` of a registry and all that lies below these. ``variables`` maps a
    name to its first value, whose type is the type of the variable (None: any).

    Raises:
        RuleViolation: a field is missing, unknown, or not what it should be.
    """

    sim_id: str = Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=200)
    arrival: dict[str, DistributionConfig] = Field(default_factory=dict)
    service: dict[str, DistributionConfig] = Field(default_factory=dict)
    resources: dict[str, CapacityConfig] = Field(default_factory=dict)
    containers: dict[str, CapacityConfig] = Field(default_factory=dict)
    stores: dict[str, CapacityConfig] = Field(default_factory=dict)
    variables: dict[str, Any] = Field(default_factory=dict)
    breakdowns: dict[str, BreakdownConfig] = Field(default_factory=dict)
