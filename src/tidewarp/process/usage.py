"""How much a resource was used, as integers of ticks.

The counts move only when something changes, and only at the first change of an instant: between two instants the
numbers of users and of waiting requests stand still. Integers add up to the same sum however the time is cut.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, NamedTuple

from tidewarp import units

if TYPE_CHECKING:
    from tidewarp.process.environment import Environment
    from tidewarp.process.resources import Request

__all__ = ["Statistics", "Usage"]

_SECOND = units.TICKS_PER_SECOND
_COUNTS = ("_first_tick", "_busy", "_available", "_waited", "_wait", "_wait_max", "_given_up")


class Statistics(NamedTuple):
    """Of one resource since it was made. Durations are ticks (ns), summed over units or requests.

    By Little's law ``queue_ticks`` is the time that all requests waited together, those that gave up among them.
    """

    ticks: int  # since the resource was made
    busy_ticks: int  # of units in use: 2 units for 3 ns are 6
    capacity_ticks: int  # of units that may be in use: current_cap less failed
    queue_ticks: int  # of waiting requests
    waited: int  # granted requests that did not get their unit at once
    wait_ticks: int  # how long these waited, together
    wait_ticks_max: int  # the longest of these waits


class Usage:
    """The counts of one resource, which says who its users are and who waits."""

    env: Environment
    _users: Sized
    _waiting: Sequence[tuple[int, int, Request]]

    def __init__(self, env: Environment) -> None:
        self.env = env
        self._now: float = env._now
        self._tick = self._first_tick = self._limit_tick = units.ticks(float(env._now))
        self._limit = 0  # units that may be in use, since _limit_tick
        self._busy = self._available = 0
        self._waited = self._wait = self._wait_max = self._given_up = 0

    @property
    def statistics(self) -> Statistics:
        """Use, queue and waits up to now, in ticks."""
        self._move(self.env._now)
        tick = self._tick
        queued = self._wait + self._given_up + sum(tick - request._since for _, _, request in self._waiting)
        return Statistics(
            ticks=tick - self._first_tick,
            busy_ticks=self._busy,
            capacity_ticks=self._available + (tick - self._limit_tick) * self._limit,
            queue_ticks=queued,
            waited=self._waited,
            wait_ticks=self._wait,
            wait_ticks_max=self._wait_max,
        )

    @property
    def utilization(self) -> float:
        """Units in use over units that might have been (``current_cap`` less ``failed``), both over the time so far.

        0.0 while none might have been; above 1 where a shrink left work in progress.
        """
        statistics = self.statistics
        return statistics.busy_ticks / statistics.capacity_ticks if statistics.capacity_ticks else 0.0

    def usage_saved(self) -> list[int]:
        """The counts up to now, of a resource that nobody uses and nobody waits for."""
        self._set_limit(self._limit)
        return [getattr(self, name) for name in _COUNTS]

    def resume_usage(self, counts: Sequence[int]) -> None:
        """Count on from what :meth:`usage_saved` gave at this time."""
        self._set_limit(self._limit)
        for name, count in zip(_COUNTS, counts, strict=True):
            setattr(self, name, count)

    def _move(self, now: float) -> None:
        """Count the time up to ``now`` (s): before the first change of an instant."""
        whole = int(now)  # units.ticks, written out: a call less for every change
        tick = whole * _SECOND + round((now - whole) * _SECOND)
        self._busy += (tick - self._tick) * len(self._users)
        self._tick = tick
        self._now = now

    def _set_limit(self, units_max: int) -> None:
        self._move(self.env._now)
        self._available += (self._tick - self._limit_tick) * self._limit
        self._limit_tick = self._tick
        self._limit = units_max
