"""What containers and stores have in common: SimPy's queues of puts and gets, at a capacity that may change.

The queues are SimPy's own, event for event. Two things are added. A capacity may shrink below what is inside: that stays,
puts wait until they fit, and gets never do. And a buffer can be taken out of the running model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simpy.resources import base

from tidewarp.errors import Removed
from tidewarp.process.capacity import Capacity

if TYPE_CHECKING:
    from tidewarp.process.environment import Environment

__all__ = ["Buffer"]


class Buffer(base.BaseResource):  # type: ignore[type-arg]
    """Capacity now at ``{path}.current_cap``, at most ``{path}.max_cap``; puts and gets are served in order.

    ``capacity`` None takes what a SimParameter has registered at ``path``.
    """

    kind: type[int] | type[float] = int
    put_queue: list[Any]
    get_queue: list[Any]

    def __init__(
        self, env: Environment, path: str, capacity: float | None = None, max_capacity: float | None = None
    ) -> None:
        self.env = env
        self.path = path
        self.removed: Removed | None = None  # what it says to everybody since it was taken out of the model
        self._paths = Capacity.take(env.registry, path, self.kind, capacity, max_capacity, self._changed)
        super().__init__(env, self._paths.current.value)
        env.resources[path] = self

    @property
    def max_capacity(self) -> Any:
        """The most that ``capacity`` may be set to (``max_cap``)."""
        return self._paths.most.value

    def state(self) -> dict[str, Any]:
        """What a digest of the state takes in."""
        return {
            "capacity": self._capacity,
            "getting": len(self.get_queue),
            "max_capacity": self.max_capacity,
            "putting": len(self.put_queue),
        }

    def remove(self) -> None:
        """Take it out of the model: who waits gets :class:`Removed`, its paths refuse updates; what is inside stays readable.

        Raises:
            ModelError: the call comes from outside a sealed run.
            Removed: it is already.
        """
        self._refuse_removed()
        self.env.registry.check_writable(self.path)
        self.removed = Removed(f"{type(self).__name__} {self.path}", "it was taken out of the model", "use another one")
        waiting = [*self.put_queue, *self.get_queue]
        self.put_queue.clear()
        self.get_queue.clear()
        self._paths.remove()
        del self.env.resources[self.path]
        for request in waiting:
            request.fail(self.removed)
            request.defused = True  # who yields it later gets it all the same

    def _refuse_removed(self) -> None:
        if self.removed is not None:
            raise self.removed

    def _changed(self) -> None:
        self._capacity = self._paths.current.value
        waiting = -1
        while waiting != len(self.put_queue):  # SimPy lets one into a store at a time
            waiting = len(self.put_queue)
            self._trigger_put(None)
