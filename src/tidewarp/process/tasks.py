"""A job that needs a unit for a service: it queues, is served, loses its unit and goes on, and says so in events.

    queued ─► started ─► finished
                 │  ▲
                 ▼  │ resumed | restarted
             interrupted ─► scrapped

What the model's author writes is a function. One that returns is called when the service starts and gives the payload of
``finished``; the service takes a time drawn from the live parameters. A generator function is the service itself.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Final

import simpy
from pydantic import BaseModel
from simpy.events import Event
from simpy.resources.resource import Preempted

from tidewarp import codec
from tidewarp.errors import ModelError, Removed, UnknownPath
from tidewarp.process.resources import Breakdown, Claim, DynamicResource, Reclaim, remaining_s
from tidewarp.process.rules import shown

if TYPE_CHECKING:
    from tidewarp.process.context import SimulationContext
    from tidewarp.process.environment import Environment

__all__ = ["BREAKDOWN_POLICIES", "Task"]

BREAKDOWN_POLICIES: Final = ("resume", "restart", "scrap")

_Work = Generator[Event, Any, Any]


class Task:
    """Calling it gives the generator of one job, for ``line.spawn`` or ``yield from``; its value is what the function gives.

    The job's events have the key ``task-{first argument}`` (an int or a text; else a number of the line's own).
    ``on_breakdown`` is what becomes of a job whose unit fails or is preempted, see ``SimulationContext.task``.
    """

    def __init__(
        self,
        line: SimulationContext,
        function: Callable[..., Any],
        service_id: str,
        resource_id: str,
        priority: int,
        on_breakdown: str,
    ) -> None:
        if on_breakdown not in BREAKDOWN_POLICIES:
            rule = f"one of {', '.join(BREAKDOWN_POLICIES)}"
            raise ModelError(f"on_breakdown={shown(on_breakdown)}", rule, "choose one of them")
        line.get_resource(resource_id)  # now, so that a wrong name is found in build
        line.service(service_id)
        functools.update_wrapper(self, function)
        self.function, self.priority, self.on_breakdown = function, priority, on_breakdown
        self.service_id, self.resource_id = service_id, resource_id
        self._line = line
        self._path_id = f"{line.sim_id}.service.{service_id}"
        self._resource_path = f"{line.sim_id}.resources.{resource_id}"
        self._contents: dict[str, bytes] = {}  # of events that say no more than a status
        self._is_generator = inspect.isgeneratorfunction(function)

    def __call__(self, *arguments: Any, **keywords: Any) -> _Work:
        """The generator of one job with these arguments of the function."""
        job = self._job(arguments, keywords)
        job.__name__ = self.function.__name__  # type: ignore[attr-defined]  # in errors and causes
        return job

    def _job(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> _Work:
        """One generator for all of it: each level below would be paid for at every event."""
        name = arguments[0] if arguments else next(iter(keywords.values()), None)
        key = f"task-{name if type(name) in (int, str) else self._line.next_number()}"
        self._tell(key, "queued")
        resource: DynamicResource | None = None
        service: _Timed | _Driven | None = None
        try:
            found = self._line.env.resources.get(self._resource_path)
            resource = found if isinstance(found, DynamicResource) else self._line.get_resource(self.resource_id)
            while True:
                with (Claim if service is None else Reclaim)(resource, self.priority) as place:
                    yield place
                    if service is None or self.on_breakdown == "restart":
                        self._tell(key, "started" if service is None else "restarted")
                        service = self._service(arguments, keywords)
                    else:
                        self._tell(key, "resumed")
                    lost = None
                    waited_for = service.go_on()
                    while waited_for is not None:
                        try:
                            value = yield waited_for
                        except simpy.Interrupt as interrupt:
                            lost = _loss(interrupt.cause, place)
                            if lost is not None:
                                service.hold(remaining_s(self._line.env, waited_for))
                                break
                            waited_for = service.throw(interrupt)
                        except Exception as error:
                            waited_for = service.throw(error)
                        else:
                            waited_for = service.send(value)
                if lost is None:
                    self._tell(key, "finished", _payload(service.result))
                    return service.result
                self._tell(key, "interrupted", {"reason": lost})
                if self.on_breakdown != "resume":
                    service.end()
                if self.on_breakdown == "scrap":
                    self._tell(key, "scrapped", {"reason": lost})
                    return None
        except (Removed, UnknownPath) as error:
            is_gone = resource is not None and resource.removed is not None  # though another may have its name by now
            if not is_gone and self._is_whole():
                raise
            self._tell(key, "scrapped", {"reason": error.value})
            return None

    def _service(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> _Timed | _Driven:
        line = self._line
        env = line.env
        config = env.registry.configs.get(self._path_id) or line.service(self.service_id)
        result = self.function(*arguments, **keywords)
        if self._is_generator:
            return _Driven(env, result)
        return _Timed(env, result, env.sampler(self._path_id).sample(config))

    def _is_whole(self) -> bool:
        """Is everything still there that a job needs?"""
        try:
            self._line.service(self.service_id)
            self._line.get_resource(self.resource_id)
        except UnknownPath:
            return False
        return True

    def _tell(self, key: str, status: str, fields: Mapping[Any, Any] | None = None) -> None:
        env = self._line.env
        event: dict[Any, Any] = {"path_id": self._path_id, "status": status}
        if fields:
            event.update(fields)
        elif env.publish_event is env._publish:  # else somebody has put his own there
            content = self._contents.get(status)
            if content is None:
                content = self._contents[status] = codec.pack({**event, "lifecycle": status})
            env._publish(key, None, content=content)
            return
        event["lifecycle"] = status
        env.publish_event(key, event)


class _Timed:
    """A service that takes a drawn time. ``go_on``, ``send`` and ``throw`` give what to wait for; None: it is done."""

    __slots__ = ("_env", "_left_s", "result")

    def __init__(self, env: Environment, result: Any, duration_s: float) -> None:
        self.result = result
        self._env = env
        self._left_s: float | None = duration_s

    def go_on(self) -> Event | None:
        """Begin, or begin again after :meth:`hold`."""
        return None if self._left_s is None else self._env.timeout(self._left_s)

    def send(self, value: Any) -> Event | None:
        """What was waited for has happened."""
        return None

    def throw(self, error: BaseException) -> Event | None:
        """What was waited for has failed, or the job is interrupted for a reason of the model's own."""
        raise error

    def hold(self, left_s: float | None) -> None:
        """The unit is lost; ``left_s`` is what is left of the timeout that was waited for, None if it was none."""
        self._left_s = left_s

    def end(self) -> None:
        """It will not go on."""


class _Driven:
    """A service that a generator performs, as :class:`_Timed`. Held, only its timeouts stand still."""

    def __init__(self, env: Environment, work: _Work) -> None:
        self.result: Any = None
        self._env, self._work = env, work
        self._waits_for: Event | None = None
        self._left: tuple[float, Any] | None = None  # of a timeout that was held: seconds, value

    def go_on(self) -> Event | None:
        if self._left is not None:
            self._waits_for, self._left = self._env.timeout(*self._left), None
        return self.send(None) if self._waits_for is None else self._waits_for

    def send(self, value: Any) -> Event | None:
        return self._advance(functools.partial(self._work.send, value))

    def throw(self, error: BaseException) -> Event | None:
        return self._advance(functools.partial(self._work.throw, error))

    def hold(self, left_s: float | None) -> None:
        if left_s is not None and self._waits_for is not None:
            self._left = left_s, self._waits_for.value

    def end(self) -> None:
        self._work.close()

    def _advance(self, step: Callable[[], Event]) -> Event | None:
        try:
            self._waits_for = step()
        except StopIteration as stop:
            self.result, self._waits_for = stop.value, None
        return self._waits_for


def _loss(cause: object, place: Claim) -> str | None:
    """Why the unit of ``place`` was taken away, if that is what the interrupt says."""
    if not isinstance(cause, Breakdown | Preempted) or place in place.resource._users:
        return None
    its_own: object = place.resource
    if cause.resource is not its_own:
        return None
    return "breakdown" if isinstance(cause, Breakdown) else "preemption"


def _payload(result: Any) -> Mapping[str, Any]:
    if type(result) is dict:  # most are
        return result
    if result is None:
        return {}
    if isinstance(result, BaseModel):
        return result.model_dump()
    if dataclasses.is_dataclass(type(result)):
        return dataclasses.asdict(result)
    return result if isinstance(result, Mapping) else {"result": result}
