"""Changes of a value, and a reader that sees each of them."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from simpy.events import Event

from tidewarp.errors import ModelError

if TYPE_CHECKING:
    from tidewarp.process.environment import Environment

__all__ = ["FULL_POLICIES", "Change", "Changes"]

FULL_POLICIES: Final = ("error", "latest")


class Change(NamedTuple):
    """One change of one value: ``version`` counts the changes of its path from 1, ``tick`` is ns.

    ``cause`` is the id of the input, the process or the publication that made it; "" while the model is built.
    """

    path: str
    old: Any
    new: Any
    version: int
    tick: int
    cause: str = ""


class Changes:
    """Every change of one value from now on, in order, for one process. Made by :meth:`DynamicValue.changes`.

    What is not read yet waits here, ``capacity`` changes at most. Beyond that, ``full`` decides: "latest" lets the oldest
    go and counts it in ``dropped``; "error" does so too, and makes the next :meth:`next` raise. With "error" all changes of one instant
    find room, for nobody could have read them in between, as long as none of an earlier instant waits.
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
        self._signal: Event | None = None  # the last that was handed out
        self._overrun = False

    def next(self) -> Event:
        """An event whose value is the next :class:`Change`; triggered at once if one waits. Yield it where it is asked for.

        A change counts as read when somebody waits for the event at the moment when it is processed. So a wait that was
        abandoned or interrupted (``changes.next() | env.timeout(60)``), even at the instant of the change, loses
        nothing: the change is that of the next call. While a wait is under way, a further call gives the same event.

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
        signal = self._signal
        if signal is None or signal.processed or (signal.triggered and not _is_awaited(signal)):
            signal = self._signal = Event(self._env)
            signal.callbacks.append(partial(self._processed, signal.callbacks))
        if self._unread and not signal.triggered:
            signal.succeed(self._unread[0])
        return signal

    def close(self) -> None:
        """See no further changes."""
        self.closed = True
        self._unread.clear()

    def put(self, change: Change) -> None:
        """Take a change: for the value that it is of."""
        self._unread.append(change)
        signal = self._signal
        if signal is not None and not signal.triggered and _is_awaited(signal):
            signal.succeed(self._unread[0])
        in_hand = signal is not None and signal.triggered and not signal.processed and _is_awaited(signal)
        if len(self._unread) - in_hand <= self._capacity:
            return
        if self._full == "latest" or self._unread[int(in_hand)].tick < change.tick:
            self._overrun = self._full == "error"
            del self._unread[int(in_hand)]
            self.dropped += 1

    def _processed(self, callbacks: list[Any], event: Event) -> None:
        """The first callback of an event that was handed out, with the list of all: has it reached anybody?"""
        if len(callbacks) > 1 and self._unread and self._unread[0] is event.value:
            self._unread.popleft()


def _is_awaited(signal: Event) -> bool:
    return len(signal.callbacks) > 1  # besides `_processed`
