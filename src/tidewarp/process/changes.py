"""Changes of a value, and a reader that sees each of them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from simpy.events import Event

from tidewarp.errors import ModelError

if TYPE_CHECKING:
    from tidewarp.process.environment import Environment

__all__ = ["FULL_POLICIES", "Change", "Changes"]

FULL_POLICIES: Final = ("error", "latest")


class Change(NamedTuple):
    """One change of one value: ``version`` counts the changes of its path from 1, ``tick`` is ns."""

    path: str
    old: Any
    new: Any
    version: int
    tick: int


class Changes:
    """Every change of one value from now on, in order, for one process. Made by :meth:`DynamicValue.changes`.

    What is not read yet waits here, ``capacity`` changes at most. Beyond that, ``full`` decides: "error" makes the
    next :meth:`next` raise, "latest" lets the oldest go and counts it in ``dropped``.
    """

    def __init__(self, env: Environment, path: str, capacity: int, full: str) -> None:
        if type(capacity) is not int or capacity < 1 or full not in FULL_POLICIES:
            raise ModelError(
                f"changes(capacity={capacity!r}, full={full!r}) of {path}",
                f"at least 1 change, and one of {', '.join(FULL_POLICIES)}",
                "correct the arguments",
            )
        self.dropped = 0
        self.closed = False
        self._env, self._path, self._capacity, self._full = env, path, capacity, full
        self._unread: deque[Change] = deque()
        self._signal = Event(env)
        self._overrun = False

    def next(self) -> Event:
        """An event whose value is the next :class:`Change`; triggered at once if one waits. Yield it where it is asked for.

        An abandoned wait (``changes.next() | env.timeout(60)``) loses nothing: the change waits for the next call.

        Raises:
            ModelError: more changes than ``capacity`` came unread, or the reader is closed.
        """
        if self._overrun:
            raise ModelError(
                f"{self._capacity + 1} unread changes of {self._path}",
                f"at most {self._capacity} wait",
                "read them as they come, raise capacity, or take full='latest'",
            )
        if self.closed:
            raise ModelError(f"changes of {self._path}", "its reader is closed", "ask for a new one with changes()")
        if self._unread:
            return Event(self._env).succeed(self._unread.popleft())
        if self._signal.triggered:
            self._signal = Event(self._env)
        return self._signal

    def close(self) -> None:
        """See no further changes."""
        self.closed = True
        self._unread.clear()

    def put(self, change: Change) -> None:
        """Take a change: for the value that it is of."""
        self._unread.append(change)
        if self._signal.callbacks and not self._signal.triggered:  # somebody waits
            self._signal.succeed(self._unread.popleft())
        elif len(self._unread) > self._capacity:
            self._overrun = self._full == "error"
            self._unread.popleft()
            self.dropped += 1
