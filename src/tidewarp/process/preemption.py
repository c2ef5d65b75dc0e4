"""Units that an important job takes from a less important one."""

from __future__ import annotations

from typing import Any

from simpy.events import Process
from simpy.resources.resource import Preempted

from tidewarp.process.resources import DynamicResource, Request

__all__ = ["DynamicPreemptiveResource"]


class _Polite(Request):
    """A request that waits although it is more important than a user."""

    preempt = False


class DynamicPreemptiveResource(DynamicResource):
    """As :class:`DynamicResource`, but who is first in the queue takes the unit of a user with a greater priority number.

    The user is the one that SimPy's ``PreemptiveResource`` chooses: of the greatest number, of these the one that asked
    last. Its process gets ``simpy.Interrupt(simpy.resources.resource.Preempted(by, usage_since, resource))``. Equal
    priority never preempts, a process never preempts itself, and nothing preempts where more units are in use than may be.
    """

    def request(self, priority: int = 1, preempt: bool = True) -> Request:
        """Ask for one unit; with ``preempt`` False only wait for it. Otherwise as :meth:`DynamicResource.request`."""
        if type(priority) is not int:
            self._refuse_priority(priority)
        return Request(self, priority) if preempt else _Polite(self, priority)

    def _enter(self, request: Request) -> None:
        request._asked = self.env._now
        super()._enter(request)
        if request._place is not None:
            self._grant()

    def _grant(self) -> None:
        super()._grant()
        while self._waiting and len(self._users) == self._limit:
            first = self._waiting[0][2]
            victim = self._less_important(first)
            if victim is None:
                return
            since = self._users.pop(victim)
            if victim.proc is not None and victim.proc.is_alive:
                cause = Preempted(by=first.proc, usage_since=since, resource=self)  # type: ignore[arg-type]
                victim.proc.interrupt(cause)
            super()._grant()

    def _less_important(self, request: Request) -> Request | None:
        """The user whose unit ``request`` may take."""
        active: Process | None = self.env.active_process
        able = [user for user in self._users if user.proc is None or user.proc is not active]
        if not request.preempt or not able:
            return None
        victim = max(able, key=_order)
        return victim if victim.priority > request.priority else None


def _order(request: Request) -> tuple[Any, ...]:
    return request.priority, request._asked, not request.preempt  # the key of simpy.resources.resource
