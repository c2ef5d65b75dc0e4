"""Units that may become more, fewer or fail while work is in progress.

One class serves by priority and, among equals, in order of request, so it covers SimPy's ``Resource`` and
``PriorityResource``. Cost: a free unit is granted without touching the queue; a queued request costs a
bisection and the move of a list's tail, at insertion as at withdrawal.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from simpy.events import PENDING, Event, Process, Timeout

from tidewarp.errors import ModelError, Removed
from tidewarp.process.capacity import Capacity
from tidewarp.process.rules import shown
from tidewarp.process.usage import Usage

if TYPE_CHECKING:
    from tidewarp.process.environment import Environment

__all__ = ["Breakdown", "Claim", "DynamicResource", "Reclaim", "Request", "remaining_s"]

_AHEAD = 1 << 62  # more than any resource numbers requests


class Request(Event):
    """A claim on one unit: triggered, with value None, when it is granted.

    As a context manager it is given back on leaving: withdrawn if it still waits, released if it was granted,
    whatever the reason for leaving (the end of the block, an interrupt, a failure, a closed generator). If the
    resource is removed before the grant, it fails with :class:`Removed`.
    """

    preempt = True  # of a preemptive resource: may it take the unit of a less important user?
    heeds_alarms = False  # may a unit that is reported as failed from outside interrupt its process?
    _ahead = 0
    _asked = 0.0  # s when it was made, kept by a preemptive resource
    _since = 0  # tick when it began to wait
    _place: tuple[int, int, Request] | None = None  # in the queue; None: not waiting

    def __init__(self, resource: DynamicResource, priority: int = 1) -> None:
        # The fields of Event, set here: a call less for every request.
        env = resource.env
        self.env = env
        self.callbacks = []
        self.resource = resource
        self.proc: Process | None = env._active_proc
        self.priority = priority
        resource._enter(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        resource = self.resource
        now = self.env._now
        if now != resource._now:
            resource._move(now)
        if resource._users.pop(self, None) is not None:
            if resource._waiting:
                resource._grant()
        elif self._place is not None:
            resource._withdraw(self)

    def cancel(self) -> None:
        """Withdraw the request if it still waits. A granted one stays granted."""
        if self._value is PENDING:
            self.__exit__()


class Claim(Request):
    """A request of a process that handles losing its unit."""

    heeds_alarms = True


class Reclaim(Claim):
    """Of one that has lost its unit: it goes before its equals."""

    _ahead = _AHEAD


class Breakdown(NamedTuple):
    """Cause of the ``simpy.Interrupt`` of a process whose unit has failed. The unit is no longer its own."""

    resource: DynamicResource
    since: float  # s, when it got the unit
    remaining: float | None  # s to the end of the timeout that it waited for; None: it waited for something else
    cause: Any = None  # as given to fail()


class DynamicResource(Usage):
    """``capacity`` units at ``{path}.current_cap``, at most ``max_capacity`` at ``{path}.max_cap``.

    Both are whole numbers >= 0 in the registry, so that an input can change them; capacity 0 is legal. Without
    ``max_capacity`` it is the capacity at the start (at least 1): more units than the model was built with have
    to be asked for by raising ``max_cap``. ``capacity`` None takes what a SimParameter has registered at ``path``.

    A grow grants waiting requests in the same instant, in order. A shrink touches nothing in progress; nothing is
    granted until fewer are in use than may be. Of the units, ``{path}.failed`` may not be used; it may exceed the capacity.

    Raises:
        ModelError: the path is malformed or taken.
        RuleViolation: a capacity is not a whole number >= 0, or greater than ``max_capacity``.
    """

    def __init__(
        self, env: Environment, path: str, capacity: int | None = None, max_capacity: int | None = None
    ) -> None:
        super().__init__(env)
        self.path = path
        self.removed: Removed | None = None  # what it says to everybody since it was taken out of the model
        self._users: dict[Request, float] = {}  # in order of grant, with its time in s
        self._waiting: list[tuple[int, int, Request]] = []  # (priority, sequence, request), sorted
        self._sequence = 0
        self._capacity = Capacity.take(env.registry, path, int, capacity, max_capacity, self._changed, of_units=True)
        self._known_failed = 0
        self._done = Event(env)
        self._done.callbacks, self._done._ok, self._done._value = None, True, None  # type: ignore[assignment]  # of an event that is processed
        env.resources[path] = self
        self._changed()

    @property
    def capacity(self) -> int:
        """Units that there are (``current_cap``), failed ones among them."""
        value: int = self._capacity.current.value
        return value

    @property
    def max_capacity(self) -> int:
        """The most that ``capacity`` may be set to (``max_cap``)."""
        value: int = self._capacity.most.value
        return value

    @property
    def failed(self) -> int:
        """Failures that are not repaired: units that may not be used (``{path}.failed``)."""
        value: int = self._capacity.failed.value
        return value

    @property
    def in_use(self) -> int:
        """Granted requests, >= 0; above what may be used after a shrink or a failure, until they are released."""
        return len(self._users)

    @property
    def free(self) -> int:
        """Units that a request would get at once."""
        return max(0, self._limit - len(self._users))

    @property
    def over_capacity(self) -> int:
        """Grants beyond ``capacity`` less ``failed``, after a shrink or a failure."""
        return max(0, len(self._users) - self._limit)

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
            Removed: the resource was taken out of the model.
        """
        if type(priority) is not int:
            self._refuse_priority(priority)
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
        request.__exit__()
        return self._done

    def fail(self, units: int = 1, *, interrupt: bool = False, cause: Any = None) -> None:
        """Let ``units`` fail: free ones first, else each leaves when its job ends.

        With ``interrupt`` the least important users, of these the youngest, lose their units at once, and their
        processes get ``simpy.Interrupt(Breakdown(...))`` with ``cause`` in it. The process that calls this, and
        requests that were made outside of a process, are not interrupted.

        Raises:
            ModelError: ``units`` is not a whole number >= 1, or the call comes from outside a sealed run.
            Removed: the resource was taken out of the model.
        """
        self._set_failed(units, 1)
        if interrupt:
            self._interrupt(units, cause, alarm=False)

    def repair(self, units: int = 1) -> None:
        """Let ``units`` that failed work again.

        Raises:
            RuleViolation: fewer have failed.
            ModelError: as :meth:`fail`.
        """
        self._set_failed(units, -1)

    def remove(self) -> None:
        """Take the resource out of the model: who waits gets :class:`Removed`, holders finish, its paths refuse updates.

        Raises:
            ModelError: the call comes from outside a sealed run.
            Removed: it is already.
        """
        self._refuse_change()
        self.removed = Removed(f"resource {self.path}", "it was taken out of the model", "use another one")
        self._set_limit(0)
        waiting, self._waiting = self._waiting, []
        self._capacity.remove()
        del self.env.resources[self.path]
        for _, _, request in waiting:
            request._place = None
            self._given_up += self._tick - request._since
            request.fail(self.removed)
            request.defused = True  # who yields it later gets it all the same

    def state(self) -> dict[str, Any]:
        """What a digest of the state takes in."""
        return {
            "capacity": self.capacity,
            "in_use": len(self._users),
            "max_capacity": self.max_capacity,
            "waiting": len(self._waiting),
        }

    # ------------------------------------------------------------------ granting
    def _enter(self, request: Request) -> None:
        users = self._users
        now = request.env._now
        if now != self._now:
            self._move(now)
        if len(users) < self._limit:  # then nobody waits: every free unit was granted at once
            users[request] = now
            request._ok = True  # as Event.succeed
            request._value = None
            request.env.schedule(request)
            return
        if self.removed is not None:
            raise self.removed
        self._sequence = number = self._sequence + 1
        request._since = self._tick
        request._place = place = (request.priority, number - request._ahead, request)
        insort(self._waiting, place)

    def _withdraw(self, request: Request) -> None:
        assert request._place is not None
        del self._waiting[bisect_left(self._waiting, request._place)]
        request._place = None
        self._given_up += self._tick - request._since

    def _grant(self) -> None:
        waiting, users, limit = self._waiting, self._users, self._limit
        while waiting and len(users) < limit:
            request = waiting.pop(0)[2]
            request._place = None
            users[request] = self._now
            wait = self._tick - request._since
            self._waited += 1
            self._wait += wait
            if wait > self._wait_max:
                self._wait_max = wait
            request._ok = True
            request._value = None
            request.env.schedule(request)

    def _oldest_grant(self) -> Request:
        process = self.env.active_process
        for request in self._users:
            if process is not None and request.proc is process:
                return request
        name = "nobody" if process is None else process.name
        raise ModelError(
            f"release() of {self.path} by {name}", "it holds no unit of it", "request one first, or pass the request"
        )

    def _refuse_priority(self, priority: object) -> None:
        raise ModelError(
            f"priority {shown(priority)} at {self.path}", "a priority is an int; the lowest is first", "use an int"
        )

    # ------------------------------------------------------------------ capacity and failures
    def _changed(self) -> None:
        """An update has changed the capacity or the failures: an alarm, where there are more of these."""
        more = self.failed - self._known_failed
        self._resize()
        if more > 0:
            self._interrupt(more, None, alarm=True)

    def _resize(self) -> None:
        self._known_failed = self.failed
        self._set_limit(max(0, self.capacity - self._known_failed))
        self._grant()

    def _refuse_change(self) -> None:
        if self.removed is not None:
            raise self.removed
        self.env.registry.check_writable(self.path)

    def _set_failed(self, units: int, sign: int) -> None:
        self._refuse_change()
        value = self._capacity.failed
        if type(units) is not int or units < 1:
            raise ModelError(f"{shown(units)} units of {self.path}", "a whole number >= 1", "fail or repair at least 1")
        if sign * units + value.value < 0:
            raise value.rule.violation(-units, f"only {value.value} failed", "repair what has failed")
        value.store(value.rule.check(value.value + sign * units))
        self._resize()

    def _interrupt(self, units: int, cause: Any, *, alarm: bool) -> None:
        """Take the units of at most ``units`` users that are too many; ``alarm``: only of those that heed it."""
        for _ in range(min(units, self.over_capacity)):
            able = [user for user in reversed(self._users) if (user.heeds_alarms or not alarm) and self._can_stop(user)]
            if not able:
                return
            victim = max(able, key=_priority)  # the first of equals: the last that was granted
            assert victim.proc is not None
            since = self._users.pop(victim)
            victim.proc.interrupt(Breakdown(self, since, remaining_s(self.env, victim.proc.target), cause))

    def _can_stop(self, user: Request) -> bool:
        return user.proc is not None and user.proc.is_alive and user.proc is not self.env.active_process


def _priority(request: Request) -> int:
    return request.priority


def remaining_s(env: Environment, event: Event | None) -> float | None:
    """Seconds until ``event``, if it is a timeout that is still to come; else None. Looks through the whole schedule."""
    if not isinstance(event, Timeout) or event.processed:
        return None
    return next((entry[0] - env.now for entry in env._queue if entry[3] is event), None)
