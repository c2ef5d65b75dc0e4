"""Things on a shelf whose length may change, with the published constructor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidewarp.compat.dynamic_des.resources.base import BaseDynamicResource
from tidewarp.process.stores import DynamicStore as _Store

if TYPE_CHECKING:
    from tidewarp.compat.dynamic_des.core.environment import DynamicRealtimeEnvironment

__all__ = ["DynamicStore"]


class DynamicStore(_Store, BaseDynamicResource):
    """The store that a SimParameter has registered as ``{sim_id}.stores.{store_id}``; ``priority``: the least item first."""

    def __init__(self, env: DynamicRealtimeEnvironment, sim_id: str, store_id: str, priority: bool = False) -> None:
        self.sim_id, self.obj_id = sim_id, store_id
        super().__init__(env, f"{sim_id}.stores.{store_id}", priority=priority)
