"""Capacity that may change while work is in progress.

One class serves by priority and, among equals, in order of request, so it covers SimPy's ``Resource`` and
``PriorityResource``. Cost: a free unit is granted without touching the queue; a queued request costs a
bisection and the move of a list's tail, at insertion as at withdrawal.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from simpy.events import Event, Process

from tidewarp.errors import ModelError
from tidewarp.process.registry import Complaint
from tidewarp.process.rules import Rule, shown

if TYPE_CHECKING:
    from tidewarp.process.environment import Environment

__all__ = ["DynamicResource", "Request"]


class Request(Event):
    """A claim on one unit: triggered, with value None, when it is granted.

    As a context manager it is given back on leaving: withdrawn if it still waits, released if it was granted,
    whatever the reason for leaving (the end of the block, an interrupt, a failure, a closed generator).
    """

    def __init__(self, resource: DynamicResource, priority: int = 1) -> None:
        # The fields of Event, set here: a call less for every request.
        env = resource.env
        self.env = env
        self.callbacks = []
        self.resource = resource
        self.proc: Process | None = env._active_proc
        self.priority = priority
        self._place: tuple[int, int] | None = None  # in the queue; None: not waiting
        resource._enter(self)

    def __enter__(self) -> Request:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resource._leave(self)

    def cancel(self) -> None:
        """Withdraw the request if it still waits. A granted one stays granted."""
        if not self.triggered:
            self.resource._leave(self)


class DynamicResource:
    """``capacity`` units at ``{path}.current_cap``, at most ``max_capacity`` at ``{path}.max_cap``.

    Both are whole numbers >= 0 in the registry, so that an input can change them; capacity 0 is legal. Without
    ``max_capacity`` it is the capacity at the start (at least 1): more units than the model was built with have
    to be asked for by raising ``max_cap``. A grow grants waiting requests in the same instant, in order. A
    shrink touches nothing in progress; nothing is granted until ``in_use < capacity``.

    Raises:
        ModelError: the path is malformed or taken.
        RuleViolation: a capacity is not a whole number >= 0, or greater than ``max_capacity``.
    """

    def __init__(self, env: Environment, path: str, capacity: int, max_capacity: int | None = None) -> None:
        self.env = env
        self.path = path
        current, most = Rule(f"{path}.current_cap", int, low=0), Rule(f"{path}.max_cap", int, low=0)
        self._capacity: int = current.check(capacity)
        limit: int = most.check(max(self._capacity, 1) if max_capacity is None else max_capacity)
        if self._capacity > limit:
            raise current.violation(
                capacity, f"at most max_cap {limit}", "begin with less, or with a greater max_capacity"
            )
        self._current = env.registry.declare(current.path, int, self._capacity, low=0)
        self._max = env.registry.declare(most.path, int, limit, low=0)
        env.registry.govern((current.path, most.path), self._allow, self._changed)
        self._users: dict[Request, None] = {}  # in order of grant
        self._waiting: list[tuple[int, int, Request]] = []  # (priority, sequence, request), sorted
        self._sequence = 0
        self._done = Event(env)
        self._done.callbacks, self._done._ok, self._done._value = None, True, None  # type: ignore[assignment]  # of an event that is processed
        env.resources[path] = self

    @property
    def capacity(self) -> int:
        """Units that may be granted now (``current_cap``)."""
        return self._capacity

    @property
    def max_capacity(self) -> int:
        """The most that ``capacity`` may be set to (``max_cap``)."""
        value: int = self._max.value
        return value

    @property
    def in_use(self) -> int:
        """Granted requests, >= 0; above ``capacity`` after a shrink until they are released."""
        return len(self._users)

    @property
    def free(self) -> int:
        """Units that a request would get at once."""
        return max(0, self._capacity - len(self._users))

    @property
    def over_capacity(self) -> int:
        """Grants beyond the capacity after a shrink."""
        return max(0, len(self._users) - self._capacity)

    @property
    def queue(self) -> list[Request]:
        """The waiting requests in the order in which they will be served."""
        return [request for _, _, request in self._waiting]

    @property
    def users(self) -> list[Request]:
        """The granted requests in the order of their grants."""
        return list(self._users)

    def request(self, priority: int = 1) -> Request:
        """Ask for one unit; the lowest ``priority`` is served first, equals in order of request.

        A job that needs several asks so often and waits for ``env.all_of`` of the requests.

        Raises:
            ModelError: ``priority`` is not an int.
        """
        if type(priority) is not int:
            raise ModelError(
                f"priority {shown(priority)} at {self.path}", "a priority is an int; the lowest is first", "use an int"
            )
        return Request(self, priority)

    def release(self, request: Request | None = None) -> Event:
        """Give a unit back; without ``request`` the active process's oldest grant.

        A request that waits is withdrawn, one that is over already is left alone, as in SimPy. The returned event is
        processed already: ``yield resource.release(request)`` goes on at once.

        Raises:
            ModelError: no ``request``, and the active process holds none; or it is another resource's.
        """
        if request is None:
            request = self._oldest_grant()
        elif request.resource is not self:
            raise ModelError(
                f"release of a request for {request.resource.path}",
                f"this is {self.path}",
                "release it where it was made",
            )
        self._leave(request)
        return self._done

    def state(self) -> dict[str, int]:
        """What a digest of the state takes in."""
        return {
            "capacity": self._capacity,
            "in_use": len(self._users),
            "max_capacity": self.max_capacity,
            "waiting": len(self._waiting),
        }

    def _enter(self, request: Request) -> None:
        if len(self._users) < self._capacity:  # then nobody waits: every free unit was granted at once
            self._users[request] = None
            request.succeed()
            return
        priority = request.priority
        self._sequence += 1
        request._place = (priority, self._sequence)
        insort(self._waiting, (priority, self._sequence, request))

    def _leave(self, request: Request) -> None:
        users = self._users
        if request in users:
            del users[request]
            if self._waiting:
                self._grant()
        elif request._place is not None:
            # A pair sorts directly before the triple that begins with it.
            del self._waiting[bisect_left(self._waiting, request._place)]
            request._place = None

    def _grant(self) -> None:
        while self._waiting and len(self._users) < self._capacity:
            request = self._waiting.pop(0)[2]
            request._place = None
            self._users[request] = None
            request.succeed()

    def _oldest_grant(self) -> Request:
        process = self.env.active_process
        for request in self._users:
            if process is not None and request.proc is process:
                return request
        name = "nobody" if process is None else process.name
        raise ModelError(
            f"release() of {self.path} by {name}", "it holds no unit of it", "request one first, or pass the request"
        )

    def _allow(self, planned: Mapping[str, Any]) -> Complaint | None:
        current = planned.get(self._current.name, self._current.value)
        most = planned.get(self._max.name, self._max.value)
        if current <= most:
            return None
        if self._current.name in planned:
            error = self._current.rule.violation(
                current, f"at most max_cap {most}", "raise max_cap first, or set both in one update"
            )
            return self._current.name, error
        action = "lower current_cap first, or set both in one update"
        return self._max.name, self._max.rule.violation(most, f"at least current_cap {current}", action)

    def _changed(self) -> None:
        self._capacity = self._current.value
        self._grant()
