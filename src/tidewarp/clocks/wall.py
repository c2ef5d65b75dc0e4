"""The only reader of host time in the package, and the only place that sleeps. Not part of the pure ring."""

from __future__ import annotations

import queue
import threading
import time
from typing import TypeVar

__all__ = ["WallClock"]

T = TypeVar("T")


class WallClock:
    """The host's clock, as a :class:`tidewarp.clocks.pacing.Clock`."""

    def now(self) -> float:
        """Monotonic seconds since an arbitrary origin."""
        return time.monotonic()

    def unix_ns(self) -> int:
        """Unix ns, as far as the host knows them; it may be set back."""
        return time.time_ns()

    def wait(self, inbox: queue.SimpleQueue[T], timeout_s: float | None) -> T | None:
        """The next item of ``inbox``; None after ``timeout_s`` wall seconds (0 or less: only what is there).

        ``timeout_s`` None, infinity or beyond what the host can count blocks until an item comes. Signals
        interrupt the wait as usual.
        """
        if timeout_s is None or timeout_s >= threading.TIMEOUT_MAX:
            return inbox.get()
        try:
            return inbox.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None
