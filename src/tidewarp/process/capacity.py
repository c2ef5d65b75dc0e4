"""The paths of a capacity: what may be set there, and what follows from a change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tidewarp.errors import RuleViolation
from tidewarp.process.parameters import CapacityConfig
from tidewarp.process.rules import Rule

if TYPE_CHECKING:
    from tidewarp.process.registry import Complaint, SimulationRegistry

__all__ = ["Capacity"]


class Capacity:
    """``{path}.current_cap`` and ``{path}.max_cap``, always 0 <= current_cap <= max_cap, and for units ``{path}.failed``.

    ``kind`` is int for things that are counted, float for matter. Without ``most``, max_cap is the capacity at the
    start, at least 1: more than the model was built with has to be asked for by raising ``max_cap``.

    Raises:
        ModelError: the path is malformed or taken.
        RuleViolation: a capacity does not fit its kind, or is greater than ``most``.
    """

    def __init__(
        self,
        registry: SimulationRegistry,
        path: str,
        kind: type[int] | type[float],
        current: float,
        most: float | None = None,
        *,
        of_units: bool = False,
    ) -> None:
        self.path, self.kind, self.of_units = path, kind, of_units
        self._registry = registry
        rules = [Rule(f"{path}.{name}", kind, low=0, given=True) for name in ("current_cap", "max_cap")]
        first = rules[0].check(current)
        limit = rules[1].check(max(first, kind(1)) if most is None else most)
        if first > limit:
            raise rules[0].violation(current, f"at most max_cap {limit}", "begin with less, or with a greater max_cap")
        self.current, self.most = registry.add(rules[0], first), registry.add(rules[1], limit)
        governed = [self.current.name, self.most.name]
        if of_units:
            self.failed = registry.declare(f"{path}.failed", int, 0, low=0)
            governed.append(self.failed.name)
        registry.govern(governed, self._allow, self._changed)
        self.config = registry.configs[path] = CapacityConfig(current_cap=first, max_cap=limit)
        registry.capacities[path] = self
        self._follow: Callable[[], None] | None = None

    @classmethod
    def take(
        cls,
        registry: SimulationRegistry,
        path: str,
        kind: type[int] | type[float],
        current: float | None,
        most: float | None,
        follow: Callable[[], None],
        *,
        of_units: bool = False,
    ) -> Capacity:
        """The capacity of a new resource, which then follows its changes. ``current`` None: as registered by a SimParameter."""
        if current is not None:
            capacity = cls(registry, path, kind, current, most, of_units=of_units)
        else:
            found = registry.capacities.get(path)
            if found is None or found._follow is not None or (found.kind, found.of_units) != (kind, of_units):
                raise RuleViolation(
                    f"capacity None of {path}", "a number, unless a SimParameter has registered one", "give a number"
                )
            capacity = found
        capacity._follow = follow
        return capacity

    def remove(self) -> None:
        """Take the paths out of the registry: they refuse all updates from here on."""
        self._registry.drop([self.current.name, self.most.name, *([self.failed.name] if self.of_units else [])])
        del self._registry.configs[self.path], self._registry.capacities[self.path]

    def _allow(self, planned: Mapping[str, Any]) -> Complaint | None:
        current = planned.get(self.current.name, self.current.value)
        most = planned.get(self.most.name, self.most.value)
        if current <= most:
            return None
        if self.current.name in planned:
            action = "raise max_cap first, or set both in one update"
            return self.current.name, self.current.rule.violation(current, f"at most max_cap {most}", action)
        action = "lower current_cap first, or set both in one update"
        return self.most.name, self.most.rule.violation(most, f"at least current_cap {current}", action)

    def _changed(self) -> None:
        self.config.current_cap, self.config.max_cap = self.current.value, self.most.value
        if self._follow is not None:
            self._follow()
