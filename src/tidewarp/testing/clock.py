"""A clock that moves when the test says so."""

from __future__ import annotations

import math
import queue
from typing import TypeVar

from tidewarp.errors import OperatorError

__all__ = ["ManualClock"]

T = TypeVar("T")


class ManualClock:
    """A :class:`tidewarp.clocks.pacing.Clock` on which waiting takes no time.

    ``start_s`` is the first reading of :meth:`now` (seconds), ``unix_ns`` that of :meth:`unix_ns`; both move together.
    """

    def __init__(self, start_s: float = 0.0, unix_ns: int = 0) -> None:
        self._now_s = self._start_s = float(start_s)
        self._start_ns = unix_ns

    def now(self) -> float:
        """Seconds, as far as the test has come."""
        return self._now_s

    def unix_ns(self) -> int:
        """Unix ns, moved by the same seconds as :meth:`now`."""
        return self._start_ns + round((self._now_s - self._start_s) * 10**9)

    def advance(self, s: float) -> None:
        """Let ``s`` seconds pass. A clock never goes back: negative or NaN raises OperatorError."""
        if not s >= 0.0:
            raise OperatorError(f"advance({s!r})", "a clock never goes back", "advance by 0 or more")
        self._now_s += s

    def wait(self, inbox: queue.SimpleQueue[T], timeout_s: float | None) -> T | None:
        """A queued item at once; else jump ``timeout_s`` ahead and return None. None or infinity really blocks."""
        if timeout_s is None or timeout_s == math.inf:
            return inbox.get()
        try:
            return inbox.get_nowait()
        except queue.Empty:
            self.advance(max(0.0, timeout_s))
            return None
