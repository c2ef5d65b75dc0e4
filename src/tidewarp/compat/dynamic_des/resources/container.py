"""Matter in a vessel whose size may change, with the published constructor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidewarp.compat.dynamic_des.resources.base import BaseDynamicResource
from tidewarp.process.containers import DynamicContainer as _Container

if TYPE_CHECKING:
    from tidewarp.compat.dynamic_des.core.environment import DynamicRealtimeEnvironment

__all__ = ["DynamicContainer"]


class DynamicContainer(_Container, BaseDynamicResource):
    """The container that a SimParameter has registered as ``{sim_id}.containers.{container_id}``, with ``init`` in it."""

    def __init__(self, env: DynamicRealtimeEnvironment, sim_id: str, container_id: str, init: float = 0) -> None:
        self.sim_id, self.obj_id = sim_id, container_id
        super().__init__(env, f"{sim_id}.containers.{container_id}", init=init)
