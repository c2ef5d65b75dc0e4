"""Waiting until a value fulfils a condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simpy.events import PENDING, Event

if TYPE_CHECKING:
    from tidewarp.process.registry import DynamicValue

__all__ = ["Until"]


class Until(Event):
    """Triggered with the value as soon as ``predicate(value)`` holds, at once if it does already.

    It looks at every change while somebody waits for it, and at the value as it is when a wait begins. So one that was
    abandoned (``value.wait_until(...) | env.timeout(60)``) is asked no more and leaves nothing behind. A predicate that
    raises fails the event. It is not asked about a value that was never set.
    """

    def __init__(self, value: DynamicValue, predicate: Callable[[Any], object]) -> None:
        super().__init__(value.env)
        self._of, self._predicate = value, predicate
        self._seen = -1  # version of the value
        self.callbacks = _Waiting(self)
        if value.value is not None and predicate(value.value):
            self.succeed(value.value)
        self._seen = value.version

    def look(self) -> None:
        """Ask the predicate about the present value."""
        value, self._seen = self._of.value, self._of.version
        try:
            holds = self._predicate(value)
        except Exception as error:  # the process that waits gets it
            self.fail(error)
        else:
            if not holds:
                return
            self.succeed(value)
        self.end()

    def begin(self) -> None:
        """Somebody waits."""
        if self._value is PENDING:
            self._of.awaited[self] = None
            if self._seen != self._of.version:
                self.look()

    def end(self) -> None:
        """Nobody waits any more, or there is nothing to wait for."""
        self._of.awaited.pop(self, None)


class _Waiting(list[Any]):
    """Callbacks that tell their event of the first that comes and of the last that goes."""

    def __init__(self, until: Until) -> None:
        super().__init__()
        self._until = until

    def append(self, callback: Any) -> None:
        super().append(callback)
        if len(self) == 1:
            self._until.begin()

    def remove(self, callback: Any) -> None:
        super().remove(callback)
        if not self:
            self._until.end()
