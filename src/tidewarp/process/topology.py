"""Changes of what a line is made of, as updates from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tidewarp.errors import ModelError
from tidewarp.process.distributions import DistributionConfig
from tidewarp.process.rules import shown

if TYPE_CHECKING:
    from tidewarp.process.context import SimulationContext
    from tidewarp.process.registry import Complaint

__all__ = ["OPERATIONS", "Topology"]

_DISTRIBUTION: Final = frozenset(DistributionConfig.model_fields)
OPERATIONS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    "add_resource": (frozenset({"name", "current_cap"}), frozenset({"max_cap", "preemptive"})),
    "add_container": (frozenset({"name", "current_cap"}), frozenset({"max_cap", "init"})),
    "add_store": (frozenset({"name", "current_cap"}), frozenset({"max_cap", "priority"})),
    "add_variable": (
        frozenset({"name", "value"}),
        frozenset({"type", "low", "high", "one_of", "unit", "nonfinite", "coalesce"}),
    ),
    "add_service": (frozenset({"name", "dist"}), _DISTRIBUTION),
    "add_arrival": (frozenset({"name", "dist"}), _DISTRIBUTION),
    "remove": (frozenset({"name"}), frozenset()),
}
"""Operation -> the fields that it needs, and those that it may have besides."""
_TYPES: Final = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict, "any": None}
_FLAGS: Final = ("preemptive", "priority", "nonfinite", "coalesce")


class Topology:
    """``{sim_id}.topology``: an object ``{"op": "add_resource", "name": "drill", "current_cap": 2}`` set there is carried out.

    ``op`` is one of OPERATIONS, the other fields are the arguments of the line's method of that name. What the method
    would refuse is refused as an update: the line stays as it is. Whether it would is tried on a ``blank`` line.
    """

    def __init__(self, line: SimulationContext, blank: Callable[[], SimulationContext]) -> None:
        self._line, self._blank = line, blank
        registry = line.env.registry
        self.value = registry.declare(f"{line.sim_id}.topology", dict)
        registry.govern([self.value.name], self._allow, self._changed)
        self._next: Callable[[], object] | None = None

    def _allow(self, planned: Mapping[str, Any]) -> Complaint | None:
        document = planned[self.value.name]
        try:
            self._next = self._prepared(document)
        except ModelError as error:
            reason = f"{error.value}: {error.rule}"
            return self.value.name, self.value.rule.violation(document.get("op"), reason, error.action)
        return None

    def _changed(self) -> None:
        if self._next is not None:
            self._next()

    def _prepared(self, document: Mapping[str, Any]) -> Callable[[], object]:
        """What carries ``document`` out, after a trial."""
        fields = dict(document)
        op = fields.pop("op", None)
        needed, possible = OPERATIONS.get(op, (None, frozenset())) if isinstance(op, str) else (None, frozenset())
        if needed is None:
            raise ModelError(f"op {shown(op)}", f"one of {', '.join(OPERATIONS)}", "name one of these")
        if not needed <= fields.keys() <= needed | possible:
            rule = f"{op} needs {', '.join(sorted(needed))}"
            besides = f" and may have {', '.join(sorted(possible - needed))}" if possible - needed else ""
            raise ModelError(f"fields {', '.join(sorted(fields)):.80}", rule + besides, "correct the fields")
        for flag in _FLAGS:
            if not isinstance(fields.get(flag, False), bool):
                raise ModelError(f"{flag} {shown(fields[flag])}", "true or false", "correct it")
        if op == "remove":
            self._line.find(fields["name"])
            return partial(self._line.remove, **fields)
        if not isinstance(fields.get("one_of", []), list):
            raise ModelError(f"one_of {shown(fields['one_of'])}", "a list of values", "correct it")
        if "type" in fields:
            fields["type"] = _type(fields["type"])
        self._try(op, fields)
        add: Callable[[], object] = partial(getattr(self._line, op), **fields)
        return add

    def _try(self, op: str, fields: dict[str, Any]) -> None:
        trial = self._blank()
        getattr(trial, op)(**fields)
        for path in trial.env.registry.paths():
            if path != self.value.name:
                self._line.env.registry.check_new(path)


def _type(name: object) -> type | None:
    if not isinstance(name, str) or name not in _TYPES:
        raise ModelError(f"type {shown(name)}", f"one of {', '.join(_TYPES)}", "name one of these")
    return _TYPES[name]
