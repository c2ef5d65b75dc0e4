"""When to stop taking events in: a bound on a queue, with room between stopping and going on."""

from __future__ import annotations

from collections import deque

from tidewarp.clocks.logical import checked_int

__all__ = ["BackpressureController"]

_OFFERS = 1000  # that the rate is taken over


class BackpressureController:
    """Sheds what is offered from a depth of ``max_queue_depth`` on, until the queue has drained.

    The pressure ends when the depth has been at most half of the maximum for ``cooldown_ns`` of virtual time, or at once
    when the queue is empty: then virtual time may have nothing left that could move it. Without ``now_ns`` nobody
    knows the time, and half of the maximum is enough. What is shed is counted in ``rejected_count``.

    Raises:
        RangeError: a maximum below 1, a cooldown that is no int of ns.
    """

    def __init__(self, max_queue_depth: int = 10000, cooldown_ns: int = 100) -> None:
        self.max_queue_depth = checked_int("max_queue_depth", max_queue_depth, 1)
        self.cooldown_ns = checked_int("cooldown_ns", cooldown_ns)
        self.rejected_count = 0
        self.total_offered = 0
        self._recent: deque[bool] = deque(maxlen=_OFFERS)
        self._pressed = False
        self._calm_since_ns: int | None = None

    @property
    def is_backpressured(self) -> bool:
        """The last offer was shed, and so will be the next unless the queue drains."""
        return self._pressed

    @property
    def rejection_rate(self) -> float:
        """The share of the last 1,000 offers that was shed, 0.0 before the first."""
        return sum(self._recent) / len(self._recent) if self._recent else 0.0

    def should_accept(self, current_queue_depth: int, *, now_ns: int | None = None) -> bool:
        """Whether to take one more event at this depth; ``now_ns`` is virtual time, e.g. GVT.

        Raises:
            RangeError: a depth or time that is no int >= 0.
        """
        depth = checked_int("current_queue_depth", current_queue_depth)
        now_ns = None if now_ns is None else checked_int("now_ns", now_ns)
        if depth >= self.max_queue_depth:
            self._pressed, self._calm_since_ns = True, None
        elif self._pressed:
            self._pressed = not self._is_over(depth, now_ns)
        self.total_offered += 1
        self.rejected_count += self._pressed
        self._recent.append(self._pressed)
        return not self._pressed

    def _is_over(self, depth: int, now_ns: int | None) -> bool:
        if depth * 2 > self.max_queue_depth:
            self._calm_since_ns = None
            return False
        if depth == 0 or now_ns is None:
            return True
        if self._calm_since_ns is None:
            self._calm_since_ns = now_ns
        return now_ns - self._calm_since_ns >= self.cooldown_ns
