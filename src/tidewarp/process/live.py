"""Parameters at paths: live documents that updates keep in step.

A distribution has a path of its own that takes a whole object, and one path for each parameter below it. Whatever is set,
the object, the parameters and the document that draws are read from change together, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tidewarp.process.capacity import Capacity
from tidewarp.process.distributions import PARAMETERS, DistributionConfig, complaint
from tidewarp.process.parameters import BreakdownConfig, SimParameter
from tidewarp.process.rules import Rule

if TYPE_CHECKING:
    from tidewarp.process.registry import Complaint, SimulationRegistry

__all__ = ["LiveDistribution", "register"]

_FIELDS: Final = tuple(DistributionConfig.model_fields)


@dataclass(frozen=True)
class _NumbersRule(Rule):
    """A list of finite numbers, kept sorted."""

    def check(self, value: object) -> Any:
        number = Rule(self.path, float)
        return sorted(number.check(item) for item in super().check(value))


@dataclass(frozen=True)
class _WholeRule(Rule):
    """A whole distribution: whether it makes sense does not depend on the state, so the gate may ask."""

    parts: Mapping[str, Rule] = field(default_factory=dict)
    is_service: bool = False

    def check(self, value: object) -> Any:
        given = super().check(value)
        for name in given:
            if name not in self.parts:
                raise self.violation(name, f"a distribution has {', '.join(self.parts)}", "leave it out")
        whole = {name: part.check(given[name]) for name, part in self.parts.items() if given.get(name) is not None}
        found = complaint(whole, is_service=self.is_service)
        if found is not None:
            name, rule, action = found
            raise self.parts[name].violation(whole.get(name), rule, action)
        return whole


class LiveDistribution:
    """``config`` at ``path``, with one path for each of its fields.

    ``is_service``: its rate must be above 0, that of an arrival may be 0.

    Raises:
        ModelError: a path is malformed or taken.
        RuleViolation: ``config`` is not one for this use.
    """

    def __init__(
        self, registry: SimulationRegistry, path: str, config: DistributionConfig, *, is_service: bool
    ) -> None:
        self.path, self.config = path, config
        self._registry = registry
        self._is_service = is_service
        parts = {name: _part(f"{path}.{name}", name) for name in _FIELDS}
        whole = _WholeRule(path, dict, parts=parts, is_service=is_service)
        first = whole.check({name: getattr(config, name) for name in _FIELDS})
        self._whole = registry.add(whole, first)
        self._parts = {name: registry.add(rule, first.get(name)) for name, rule in parts.items()}
        registry.govern([path, *(part.name for part in self._parts.values())], self._allow, self._changed)
        registry.configs[path] = config
        registry.distributions[path] = self
        self._next: dict[str, Any] = first

    def remove(self) -> None:
        """Take the paths out of the registry. Who holds ``config`` may still draw from it."""
        self._registry.drop([self.path, *(part.name for part in self._parts.values())])
        del self._registry.configs[self.path], self._registry.distributions[self.path]

    def _allow(self, planned: Mapping[str, Any]) -> Complaint | None:
        fields = dict(planned.get(self.path, self._whole.value))
        set_alone = {name: planned[part.name] for name, part in self._parts.items() if part.name in planned}
        fields.update(set_alone)
        found = complaint(fields, is_service=self._is_service)
        if found is None:
            self._next = fields
            return None
        name, rule, action = found
        blamed = name if name in set_alone else next(iter(set_alone))  # an object alone has been checked as a whole
        part = self._parts[blamed]
        return part.name, part.rule.violation(set_alone[blamed], rule, action)

    def _changed(self) -> None:
        for name, part in self._parts.items():
            value = self._next.get(name)
            setattr(self.config, name, value)
            part.store(value)
        self._whole.store({name: self._next[name] for name in _FIELDS if name in self._next})


def _part(path: str, name: str) -> Rule:
    if name == "dist":
        return Rule(path, str, one_of=tuple(PARAMETERS))
    if name == "values":
        return _NumbersRule(path, list)
    return Rule(path, float, low=0 if name in ("rate", "std") else None)


def register(registry: SimulationRegistry, param: SimParameter) -> None:
    """Declare all paths of ``param``; the capacities wait for the resources that take them."""
    sim = param.sim_id
    for name, config in param.arrival.items():
        LiveDistribution(registry, f"{sim}.arrival.{name}", config, is_service=False)
    for name, config in param.service.items():
        LiveDistribution(registry, f"{sim}.service.{name}", config, is_service=True)
    for kind, capacities in (
        ("resources", param.resources),
        ("containers", param.containers),
        ("stores", param.stores),
    ):
        for name, capacity in capacities.items():
            number = float if kind == "containers" else int
            of_units = kind == "resources"
            path = f"{sim}.{kind}.{name}"
            Capacity(registry, path, number, capacity.current_cap, capacity.max_cap, of_units=of_units)
    for name, value in param.variables.items():
        registry.declare(f"{sim}.variables.{name}", None if value is None else type(value), value)
    for name, breakdown in param.breakdowns.items():
        register_breakdown(registry, f"{sim}.breakdowns.{name}", breakdown)


def register_breakdown(registry: SimulationRegistry, path: str, config: BreakdownConfig) -> None:
    """Declare the two distributions of a breakdown. Its time to the next failure may be endless, the repair not."""
    LiveDistribution(registry, f"{path}.up", config.up, is_service=False)
    LiveDistribution(registry, f"{path}.down", config.down, is_service=True)
    registry.configs[path] = config
