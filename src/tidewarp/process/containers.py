"""Matter in a vessel whose size may change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeGuard

from simpy.core import BoundClass
from simpy.resources import base

from tidewarp.errors import ModelError
from tidewarp.process.buffers import Buffer
from tidewarp.process.rules import shown

if TYPE_CHECKING:
    from tidewarp.process.environment import Environment

__all__ = ["ContainerGet", "ContainerPut", "DynamicContainer"]


class ContainerPut(base.Put):  # type: ignore[type-arg]
    """``amount`` on its way in: triggered, with value None, when it fits behind those that came before.

    As a context manager it is withdrawn on leaving if it still waits.
    """

    resource: DynamicContainer

    def __init__(self, container: DynamicContainer, amount: float) -> None:
        self.amount = _checked(container, amount)
        super().__init__(container)

    def cancel(self) -> None:
        """Withdraw the put if it still waits. Those behind it may fit now: SimPy leaves them waiting."""
        was_first = self.resource.put_queue[:1] == [self]
        super().cancel()
        if was_first:
            self.resource._trigger_put(None)


class ContainerGet(base.Get):  # type: ignore[type-arg]
    """``amount`` on its way out: triggered, with value None, when there is so much and those that came before are served.

    As a context manager it is withdrawn on leaving if it still waits.
    """

    resource: DynamicContainer

    def __init__(self, container: DynamicContainer, amount: float) -> None:
        self.amount = _checked(container, amount)
        super().__init__(container)

    def cancel(self) -> None:
        """Withdraw the get if it still waits. Those behind it may be content with less: SimPy leaves them waiting."""
        was_first = self.resource.get_queue[:1] == [self]
        super().cancel()
        if was_first:
            self.resource._trigger_get(None)


class DynamicContainer(Buffer):
    """Holds up to ``capacity`` of something that has no parts: both are floats, 7.75 stays 7.75.

    A shrink leaves the level where it is: ``overflow`` says by how much it is too high. Puts wait, in order, until they
    fit; gets are never held up by that.

    Raises:
        ModelError: the path is malformed or taken, or ``init`` is not a finite number from 0 to the capacity.
        RuleViolation: a capacity is not a finite number >= 0, or greater than ``max_capacity``.
    """

    kind = float

    def __init__(
        self,
        env: Environment,
        path: str,
        capacity: float | None = None,
        init: float = 0.0,
        max_capacity: float | None = None,
    ) -> None:
        if not _is_number(init) or not 0 <= init < math.inf:
            raise ModelError(f"init {shown(init)} of {path}", "a finite number >= 0", "correct it")
        if _is_number(capacity) and init > capacity:
            raise ModelError(f"init {shown(init)} of {path}", f"at most the capacity {capacity}", "begin with less")
        self._level = float(init)
        super().__init__(env, path, capacity, max_capacity)

    @property
    def level(self) -> float:
        """How much is inside."""
        return self._level

    @property
    def overflow(self) -> float:
        """How much of it is too much, after a shrink."""
        return max(0.0, self._level - self._capacity)

    if TYPE_CHECKING:

        def put(self, amount: float) -> ContainerPut:  # type: ignore[override]
            """Put ``amount`` in, as soon as it fits. Raises ModelError unless it is finite and > 0; Removed."""

        def get(self, amount: float) -> ContainerGet:  # type: ignore[override]
            """Take ``amount`` out, as soon as there is so much. Raises ModelError unless it is finite and > 0; Removed."""

    else:
        put = BoundClass(ContainerPut)
        get = BoundClass(ContainerGet)

    def state(self) -> dict[str, Any]:
        """What a digest of the state takes in."""
        return super().state() | {"level": self._level}

    def _do_put(self, event: Any) -> bool:
        if self._capacity - self._level < event.amount:
            return False
        self._level += event.amount
        event.succeed()
        return True

    def _do_get(self, event: Any) -> bool:
        if self._level < event.amount:
            return False
        self._level -= event.amount
        event.succeed()
        return True


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked(container: DynamicContainer, amount: object) -> float:
    container._refuse_removed()
    if not _is_number(amount) or not 0 < amount < math.inf:
        raise ModelError(f"amount {shown(amount)} at {container.path}", "a finite number > 0", "put or get that much")
    return amount
