"""Things on a shelf whose length may change."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simpy.core import BoundClass
from simpy.resources import base

from tidewarp.process.buffers import Buffer

if TYPE_CHECKING:
    from tidewarp.process.environment import Environment

__all__ = ["DynamicStore", "StoreGet", "StorePut"]


class StorePut(base.Put):  # type: ignore[type-arg]
    """``item`` on its way in: triggered, with value None, when there is room and those that came before are in."""

    def __init__(self, store: DynamicStore, item: Any) -> None:
        store._refuse_removed()
        self.item = item
        super().__init__(store)


class StoreGet(base.Get):  # type: ignore[type-arg]
    """A get of the first item that ``filter`` accepts (None: of any): triggered with the item as its value."""

    def __init__(self, store: DynamicStore, filter: Callable[[Any], object] | None = None) -> None:
        store._refuse_removed()
        self.filter = filter
        super().__init__(store)


class DynamicStore(Buffer):
    """Holds up to ``capacity`` items of any kind, given out in order; a get with a filter passes over others, as in SimPy.

    With ``priority`` the least item (by ``<``) goes first, and equals in the order in which they came; ``simpy.PriorityItem``
    gives any item a priority. A shrink leaves all items; puts wait, in order, until there is room.

    Raises:
        ModelError: the path is malformed or taken.
        RuleViolation: a capacity is not a whole number >= 0, or greater than ``max_capacity``.
    """

    def __init__(
        self,
        env: Environment,
        path: str,
        capacity: int | None = None,
        priority: bool = False,
        max_capacity: int | None = None,
    ) -> None:
        self.items: list[Any] = []
        self._insert = insort if priority else _append
        super().__init__(env, path, capacity, max_capacity)

    if TYPE_CHECKING:

        def put(self, item: Any) -> StorePut:  # type: ignore[override]
            """Put ``item`` in, as soon as there is room. Raises Removed."""

        def get(self, filter: Callable[[Any], object] | None = None) -> StoreGet:
            """Take out the first item, or the first that ``filter`` accepts, as soon as there is one. Raises Removed."""

    else:
        put = BoundClass(StorePut)
        get = BoundClass(StoreGet)

    def state(self) -> dict[str, Any]:
        """What a digest of the state takes in: items are counted, they may be anything."""
        return super().state() | {"items": len(self.items)}

    def _do_put(self, event: Any) -> None:
        if len(self.items) < self._capacity:
            self._insert(self.items, event.item)
            event.succeed()

    def _do_get(self, event: Any) -> bool:
        """Serve ``event`` if it can be; shall those behind it be looked at? As SimPy: after one without a filter, no."""
        for place, item in enumerate(self.items):
            if event.filter is None or event.filter(item):
                del self.items[place]  # not `remove`, which takes the first that is equal
                event.succeed(item)
                break
        return event.filter is not None and bool(self.items)


def _append(items: list[Any], item: Any) -> None:
    items.append(item)
