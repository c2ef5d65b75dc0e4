"""The registry, which answers an update that it cannot make with a line in the log instead of an error."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tidewarp.errors import ModelError, RuleViolation, UnknownPath
from tidewarp.process.parameters import CapacityConfig, SimParameter
from tidewarp.process.registry import Complaint
from tidewarp.process.registry import DynamicValue as _Value
from tidewarp.process.registry import SimulationRegistry as _Registry

if TYPE_CHECKING:
    from tidewarp.compat.dynamic_des.core.environment import DynamicRealtimeEnvironment

__all__ = ["DynamicValue", "SimulationRegistry"]

_log = logging.getLogger(__name__)
_CURRENT, _MOST = ".current_cap", ".max_cap"


class DynamicValue(_Value):
    """``DynamicValue(env, name, initial_value)`` is a new value at the path ``name`` of the registry of ``env``."""

    def __new__(cls, env: DynamicRealtimeEnvironment, name: str, initial_value: Any) -> _Value:  # type: ignore[misc]  # noqa: D102
        kind = None if initial_value is None else type(initial_value)
        return env.registry.declare(name, kind, initial_value)


class SimulationRegistry(_Registry):
    """``refused`` counts the updates that were not made, ``clamped`` those of a capacity that were cut to its range."""

    env: DynamicRealtimeEnvironment

    def __init__(self, env: DynamicRealtimeEnvironment) -> None:
        super().__init__(env)
        self.refused = self.clamped = 0

    def update(self, path: str, new_value: object) -> None:
        """Change one value now, if its rule allows it; else a line in the log says why not.

        Between two runs, and from another thread than the one that runs the simulation, it is an input, as one of a
        connector: in the journal, and in the second case queued.
        """
        twin = self.env.outside(threading.get_ident())
        try:
            if twin is not None:
                twin.apply(path, self._clamped(path, new_value, ((path, new_value),)))
            else:
                super().update(path, new_value)
        except UnknownPath as error:
            self._refuse(path, error)
        except RuleViolation as error:
            self._refuse(path, error)

    def _refuse(self, path: str, error: ModelError) -> None:
        self.refused += 1
        _log.warning("update of %s ignored: %s", path, error)

    def change(self, changes: Sequence[tuple[Any, object]]) -> Complaint | None:
        """As the process layer's, with capacities cut to their range."""
        return super().change([(path, self._clamped(path, value, changes)) for path, value in changes])

    def _clamped(self, path: Any, value: Any, changes: Sequence[tuple[Any, object]]) -> Any:
        capacity = self.capacities.get(path.removesuffix(_CURRENT)) if isinstance(path, str) else None
        if capacity is None or not path.endswith(_CURRENT):
            return value
        most = capacity.most.value
        for other, given in changes:
            if other == capacity.most.name and type(given) in (int, float):
                most = given
        try:
            number = capacity.current.rule.check(value)
        except RuleViolation:
            number = value if type(value) is int else None
        if number is None or 0 <= number <= most:
            return value
        self.clamped += 1
        return min(max(number, 0), most)

    def register_sim_parameter(self, param: SimParameter) -> None:
        """Declare all parameters of ``param`` at their paths; a capacity beyond its maximum begins at the maximum."""
        for kind in (param.resources, param.containers, param.stores):
            for name, config in kind.items():
                if config.max_cap is not None and config.current_cap > config.max_cap:
                    self.clamped += 1
                    kind[name] = CapacityConfig(current_cap=config.max_cap, max_cap=config.max_cap)
        super().register_sim_parameter(param)
