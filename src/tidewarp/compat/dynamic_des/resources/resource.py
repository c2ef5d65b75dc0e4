"""Units whose number may change, with the published constructor and views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tidewarp.compat.dynamic_des.resources.base import BaseDynamicResource
from tidewarp.process.resources import DynamicResource as _Resource
from tidewarp.process.resources import Request as DynamicResourceRequest

if TYPE_CHECKING:
    from tidewarp.compat.dynamic_des.core.environment import DynamicRealtimeEnvironment

__all__ = ["DynamicResource", "DynamicResourceRequest"]


class _Queue(list[Any]):
    """Waiting requests in the order of service; ``items`` are the same."""

    @property
    def items(self) -> list[Any]:
        return self


class _Pool(NamedTuple):
    """The units as a container has them: ``level`` are free, of ``capacity`` at most."""

    level: int
    capacity: int


class DynamicResource(_Resource, BaseDynamicResource):
    """The resource that a SimParameter has registered as ``{sim_id}.resources.{resource_id}``.

    Raises RuleViolation if there is none, or it is taken already.
    """

    def __init__(self, env: DynamicRealtimeEnvironment, sim_id: str, resource_id: str) -> None:
        self.sim_id, self.obj_id = sim_id, resource_id
        super().__init__(env, f"{sim_id}.resources.{resource_id}")

    @property
    def queue(self) -> _Queue:
        """Waiting requests, also as ``queue.items``."""
        return _Queue(super().queue)

    @property
    def pool(self) -> _Pool:
        """``level``: units that are free; ``capacity``: the most that there may be."""
        return _Pool(self.free, self.max_capacity)
