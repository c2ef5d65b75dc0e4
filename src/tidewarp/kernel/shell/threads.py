"""Threads for the compiled tier: each runs the slices of one PE, and hands what it found to the thread that drives the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from tidewarp.clocks.pacing import Clock
from tidewarp.errors import InternalError

__all__ = ["Threads"]

Post = Callable[[Any], None]


class _Ended:
    """The last item of a thread's work: what it raised, if it did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Threads:
    """``count`` threads that wait for work. Made and driven by one thread; ``close`` ends them."""

    def __init__(self, count: int, clock: Clock) -> None:
        self._clock = clock
        self._running = 0
        self._posted: SimpleQueue[Any] = SimpleQueue()
        self._inboxes: list[SimpleQueue[Callable[[int, Post], None] | None]] = [SimpleQueue() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._serve, args=(index,), name=f"tidewarp-pe-{index}", daemon=True)
            for index in range(count)
        ]
        self._started = False

    def start(self, work: Callable[[int, Post], None]) -> None:
        """Let every thread run ``work(its number, post)``."""
        if self._running:
            raise InternalError("threads at work", "they take new work when all have ended", "please report this")
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        self._running = len(self._threads)
        for inbox in self._inboxes:
            inbox.put(work)

    @property
    def running(self) -> int:
        """How many have not ended their work."""
        return self._running

    def take(self, timeout_s: float) -> Any:
        """The next item that a thread has posted; None after ``timeout_s`` wall seconds, or when a thread has ended.

        Raises:
            BaseException: what the work of a thread raised; the others go on.
        """
        item = self._clock.wait(self._posted, timeout_s)
        if isinstance(item, _Ended):
            self._running -= 1
            if item.error is not None:
                raise item.error
            return None
        return item

    def close(self) -> None:
        """End the threads; they must have been told to leave their work."""
        for inbox in self._inboxes:
            inbox.put(None)
        for thread in self._threads if self._started else ():
            thread.join()
        self._threads.clear()
        self._inboxes.clear()

    def _serve(self, index: int) -> None:
        inbox = self._inboxes[index]
        while (work := inbox.get()) is not None:
            try:
                work(index, self._posted.put)
            except BaseException as error:  # handed to the thread that drives the run
                self._posted.put(_Ended(error))
            else:
                self._posted.put(_Ended(None))
