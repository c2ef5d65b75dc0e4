"""What made the event in hand happen, and the two constructors of events that remember it.

An *origin* is (id of the cause, id of the root). Every event keeps the origin that was current when it was scheduled;
while it is processed, that origin is current again. Roots are the applied inputs, and the processes that are started
while nothing runs. A publication becomes the cause of what its process does next, under the same root. An origin
holds two texts and no other origin, so a run of any length keeps no chain of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappush
from typing import TYPE_CHECKING, Any, Final, Protocol

from simpy.events import NORMAL, Event, EventPriority, Timeout

from tidewarp.connect.contract import Input

if TYPE_CHECKING:
    from tidewarp.process.environment import Environment

__all__ = ["NO_ORIGIN", "Causality", "Origin", "makers"]

Origin = tuple[str, str] | Input
"""(cause, root). An input stands for its own origin until somebody asks: most inputs wake nobody."""
NO_ORIGIN: Final = ("", "")
_NAME_MAX: Final = 80  # characters of a process's name in an id
_new_event = Event.__new__


class _Schedule(Protocol):
    def __call__(self, event: Event, priority: EventPriority = NORMAL, delay: float = 0) -> None: ...


class _Timeout(Protocol):
    def __call__(self, delay: float = 0, value: Any = None) -> Timeout: ...


class Causality:
    """The origin of what runs now, for one environment.

    ``current`` is a list of one item, which the constructors of events read and the loop sets. ``sources``: rank of a
    source -> its name, for the ids of inputs.
    """

    def __init__(self) -> None:
        self.current: list[Origin] = [NO_ORIGIN]
        self.sources: Mapping[int, str] = {}
        self.started = 0  # roots among the processes
        self.failed: Origin = NO_ORIGIN  # of what raised, and ended a slice

    def now(self) -> tuple[str, str]:
        """(cause, root) of what runs now; two empty texts if nothing does."""
        origin = self.current[0]
        if isinstance(origin, Input):
            origin = self.current[0] = self.resolved(origin)
        return origin

    def resolved(self, origin: Origin) -> tuple[str, str]:
        """(cause, root) of an origin. An input is a root, named by the output of another twin that it carries, else by its
        place, as ``tidewarp log`` shows it: ``source[partition:offset]``.
        """
        if not isinstance(origin, Input):
            return origin
        name = origin.cause or (f"{self.sources.get(origin.rank, origin.rank)}[{origin.partition}:{origin.offset}]")
        return name, name

    def begin(self, generator: object) -> None:
        """Make the process that is about to be started a root. Its id: ``process:{n}:{name}``, n counted from 0."""
        name = f"process:{self.started}:{str(getattr(generator, '__name__', ''))[:_NAME_MAX]}"
        self.started += 1
        self.current[0] = (name, name)


def makers(env: Environment, current: list[Origin]) -> tuple[_Schedule, _Timeout]:
    """``schedule`` and ``timeout`` of ``env``, as SimPy's, with the current origin in each event.

    They are closures, because a call through the class costs a subclass of SimPy's environment a tenth of its speed.
    """
    queue, number = env._queue, env._eid

    def schedule(event: Event, priority: EventPriority = NORMAL, delay: float = 0) -> None:
        """Schedule ``event`` after ``delay`` seconds."""
        event._origin = current[0]  # type: ignore[attr-defined]
        heappush(queue, (env._now + delay, priority, next(number), event))

    def timeout(delay: float = 0, value: Any = None) -> Timeout:
        """An event after ``delay`` seconds >= 0, with this value. NaN is refused."""
        if not delay >= 0:
            raise ValueError(f"Negative delay {delay}")
        event = _new_event(Timeout)
        event.env = env
        event.callbacks = []
        event._value = value
        event._delay = delay
        event._ok = True
        if env.schedule is schedule:
            event._origin = current[0]  # type: ignore[attr-defined]
            heappush(queue, (env._now + delay, NORMAL, next(number), event))
        else:  # a tracer has taken its place
            env.schedule(event, NORMAL, delay)
        return event

    return schedule, timeout
