"""A line declared piece by piece: resources, distributions, variables, and the functions that are its processes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from simpy.events import Event, Process

from tidewarp import units
from tidewarp.errors import ModelError, Removed, UnknownPath
from tidewarp.process.buffers import Buffer
from tidewarp.process.containers import DynamicContainer
from tidewarp.process.distributions import DistributionConfig
from tidewarp.process.environment import Environment
from tidewarp.process.live import LiveDistribution, register_breakdown
from tidewarp.process.parameters import BreakdownConfig
from tidewarp.process.preemption import DynamicPreemptiveResource
from tidewarp.process.registry import DynamicValue
from tidewarp.process.resources import DynamicResource, Request
from tidewarp.process.rules import same, shown
from tidewarp.process.stores import DynamicStore
from tidewarp.process.tasks import Task
from tidewarp.process.topology import Topology

if TYPE_CHECKING:
    from tidewarp.process.sampler import Sampler

__all__ = ["SimulationContext"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Things = TypeVar("_Things", bound="DynamicResource | Buffer")
_KINDS = ("resources", "containers", "stores", "variables", "service", "arrival", "breakdowns")


class SimulationContext:
    """What a line is made of, at paths that begin with ``sim_id``, and the processes that run in it.

    Everything may be added and removed in a running model too, and from outside by an update of ``{sim_id}.topology``
    (see :class:`Topology`). What a SimParameter has registered for ``sim_id`` before is part of the line. The ``add_``
    methods return the line itself, so they can be chained. Random numbers come from streams named after their use:
    ``{sim_id}.service.{name}``, ``{sim_id}.arrival.{name}``, ``{sim_id}.breakdowns.{name}``, and ``{sim_id}`` for ``sampler``.
    """

    def __init__(self, env: Environment, sim_id: str) -> None:
        self.env = env
        self.sim_id = sim_id
        self._numbers = itertools.count(1)
        self.topology = Topology(self, lambda: SimulationContext(Environment(), sim_id))
        self._adopt()

    @property
    def sampler(self) -> Sampler:
        """Random times for the line's own code."""
        return self.env.sampler(self.sim_id)

    # ------------------------------------------------------------------ what the line is made of
    def add_resource(
        self, name: str, current_cap: int, max_cap: int | None = None, *, preemptive: bool = False
    ) -> SimulationContext:
        """Units that tasks need; see :class:`DynamicResource`, or :class:`DynamicPreemptiveResource`."""
        kind = DynamicPreemptiveResource if preemptive else DynamicResource
        kind(self.env, self._path("resources", name), _given(current_cap), max_cap)
        return self

    def add_container(
        self, name: str, current_cap: float, max_cap: float | None = None, init: float = 0.0
    ) -> SimulationContext:
        """A vessel of that size with ``init`` in it; see :class:`DynamicContainer`."""
        DynamicContainer(self.env, self._path("containers", name), _given(current_cap), init, max_cap)
        return self

    def add_store(
        self, name: str, current_cap: int, max_cap: int | None = None, priority: bool = False
    ) -> SimulationContext:
        """A shelf for that many items; see :class:`DynamicStore`."""
        DynamicStore(self.env, self._path("stores", name), _given(current_cap), priority, max_cap)
        return self

    def add_variable(self, name: str, value: Any, **rule: Any) -> SimulationContext:
        """A value with the type of its first one, or with ``type``.

        ``rule``: low, high, one_of, unit, nonfinite, coalesce, as ``registry.declare``.
        """
        kind = rule.pop("type", None if value is None else type(value))
        self.env.registry.declare(self._path("variables", name), kind, value, **rule)
        return self

    def add_service(self, name: str, dist: str, **parameters: Any) -> SimulationContext:
        """How long a service takes: a kind of distribution with its parameters in seconds; see :class:`DistributionConfig`."""
        config = DistributionConfig(dist, **parameters)
        LiveDistribution(self.env.registry, self._path("service", name), config, is_service=True)
        return self

    def add_arrival(self, name: str, dist: str, **parameters: Any) -> SimulationContext:
        """Time from one arrival to the next, as :meth:`add_service`; the rate of "exponential" may be 0: stopped."""
        config = DistributionConfig(dist, **parameters)
        LiveDistribution(self.env.registry, self._path("arrival", name), config, is_service=False)
        return self

    def add_breakdown(
        self, name: str, resource: str, up: DistributionConfig, down: DistributionConfig, interrupt: bool = True
    ) -> SimulationContext:
        """Let a unit of ``resource`` fail after a time drawn from ``up``, be repaired after one from ``down``, and so on.

        ``interrupt``: work in progress stops at once; else the unit leaves when its job ends.
        """
        broken = self.get_resource(resource)
        config = BreakdownConfig(resource=resource, up=up, down=down, interrupt=interrupt)
        path = self._path("breakdowns", name)
        register_breakdown(self.env.registry, path, config)
        self._start(self._break_down(path, config, broken), path)
        return self

    def remove(self, name: str) -> None:
        """Take out what is called ``name``, or ``kind.name`` where several are: waiting requests fail with :class:`Removed`.

        Work in progress goes on to its end. Jobs that begin later and need what is gone are scrapped.

        Raises:
            ModelError: nothing, or several things, have that name.
        """
        kind, name = self.find(name)
        path = self._path(kind, name)
        registry = self.env.registry
        if kind in ("resources", "containers", "stores"):
            self.env.resources[path].remove()
        elif kind == "variables":
            registry.remove(path)
        elif kind == "breakdowns":
            registry.check_writable(path)
            del registry.configs[path]
            registry.distributions[f"{path}.up"].remove()
            registry.distributions[f"{path}.down"].remove()
        else:
            registry.check_writable(path)
            registry.distributions[path].remove()

    def find(self, name: Any) -> tuple[str, str]:
        """The kind and the name of what is called ``name`` or ``kind.name``. Raises ModelError unless there is exactly one."""
        kinds: tuple[str, ...] = _KINDS
        if isinstance(name, str) and name.partition(".")[0] in _KINDS:
            kind, _, name = name.partition(".")
            kinds = (kind,)
        found = [kind for kind in kinds if self._has(kind, name)]
        if len(found) != 1:
            rule = f"it is one of {', '.join(found)}" if found else f"nothing of {self.sim_id} has that name"
            raise ModelError(f"name {shown(name)}", rule, f"name one, as in {(found or kinds)[0]}.{name!s:.40}")
        return found[0], name

    # ------------------------------------------------------------------ decorators
    @overload
    def task(self, service_id: _Function) -> _Function: ...
    @overload
    def task(
        self, service_id: str, resource_id: str, *, priority: int = 1, on_breakdown: str = "resume"
    ) -> Callable[[Callable[..., Any]], Task]: ...
    def task(
        self, service_id: Any, resource_id: str | None = None, *, priority: int = 1, on_breakdown: str = "resume"
    ) -> Any:
        """Make a function a job that needs a unit of ``resource_id`` for a ``service_id``; see :class:`Task`.

        Bare, ``@line.task`` marks a generator function that does all of that itself.

        Args:
            service_id: name of the service, for its time and in the events.
            resource_id: name of the resource.
            priority: of the request; the lowest is served first.
            on_breakdown: where a unit fails or is preempted: "resume" the rest of the time with the next unit, before
                others of equal priority; "restart" from the beginning; "scrap" the job.
        """
        if callable(service_id):
            if not inspect.isgeneratorfunction(service_id):
                raise ModelError(
                    f"@task on {_name(service_id)}",
                    "a task without a service is a generator function",
                    "write it with yield, or name the service and the resource",
                )
            return service_id
        return lambda function: Task(self, function, service_id, str(resource_id), priority, on_breakdown)

    def arrival_loop(self, arrival_id: str) -> Callable[[_Function], _Function]:
        """Start a generator function of the line as the process that makes the arrivals; it ends when the arrival is removed.

        A function without ``yield`` is called at each arrival instead.
        """
        self._distribution("arrival", arrival_id)

        def start(function: _Function) -> _Function:
            self._start(self._arrivals(function, arrival_id), _name(function))
            return function

        return start

    def telemetry_loop(self, interval: units.Duration) -> Callable[[_Function], _Function]:
        """Call a function of the line now and after every ``interval`` (seconds, or text with a unit), to publish."""
        ticks = units.ticks(interval)
        if ticks <= 0:
            raise ModelError(f"interval {shown(interval)}", "more than 0 s", "give a time")

        def start(function: _Function) -> _Function:
            self._start(self._telemetry(function, units.in_seconds(ticks)), _name(function))
            return function

        return start

    def process(self, function: _Function) -> _Function:
        """Start a generator function of the line as a process."""
        self.spawn(function(self))
        return function

    # ------------------------------------------------------------------ for processes
    def value(self, name: str) -> Any:
        """The present value of a variable; None until its first."""
        return self.watch(name).value

    def watch(self, name: str) -> DynamicValue:
        """The variable itself, to wait for its changes."""
        return self.env.registry.get(self._path("variables", name))

    def until(self, name: str, value: Any) -> Event:
        """An event for the moment when a variable has ``value``: at once if it has it already."""
        variable = self.watch(name)
        wanted = variable.rule.check(value)
        return variable.wait_until(lambda present: same(present, wanted))

    def wait_until(self, name: str, predicate: Callable[[Any], object]) -> Event:
        """An event for the moment when ``predicate`` holds for a variable; see ``DynamicValue.wait_until``."""
        return self.watch(name).wait_until(predicate)

    def wait_for_arrival(self, arrival_id: str) -> Event:
        """An event for the next arrival, a draw from now. While the rate is 0 it waits for another, then draws."""
        path = self._path("arrival", arrival_id)
        config: DistributionConfig = self.env.registry.get_config(path)
        if config.rate != 0.0:
            return self._draw(path, config)
        process = self.spawn(self._arrival_after_stop(arrival_id, config))
        process.defused = True  # if the arrival is removed, that is for who waits, if anybody does
        return process

    def get_resource(self, resource_id: str) -> DynamicResource:
        """The resource of that name. Raises UnknownPath."""
        return self._thing("resources", resource_id, DynamicResource)

    def get_container(self, container_id: str) -> DynamicContainer:
        """The container of that name. Raises UnknownPath."""
        return self._thing("containers", container_id, DynamicContainer)

    def get_store(self, store_id: str) -> DynamicStore:
        """The store of that name. Raises UnknownPath."""
        return self._thing("stores", store_id, DynamicStore)

    def request(self, resource_id: str, priority: int = 1) -> Request:
        """A request for one unit of a resource, for a ``with`` block."""
        return self.get_resource(resource_id).request(priority)

    def publish(self, metric: str, value: Any) -> str:
        """Publish a measurement as ``{sim_id}.{metric}``; the id of the output."""
        return self.env.publish_telemetry(f"{self.sim_id}.{metric}", value)

    def spawn(self, generator: Generator[Event, Any, Any]) -> Process:
        """Start ``generator`` as a process.

        Raises:
            ModelError: it is none, or the call comes from outside a sealed run.
        """
        if not hasattr(generator, "throw"):  # as SimPy asks
            action = "call it" if callable(generator) else "write it with yield, and call it"
            raise ModelError(f"process {_name(generator)}", "what a function with yield returns", action)
        if not self.env.writable:
            self.env.registry.check_writable(f"the processes of {self.sim_id}")  # raises
        return self.env.process(generator)

    def service(self, service_id: str) -> DistributionConfig:
        """The live parameters of a service. Raises UnknownPath."""
        return self._distribution("service", service_id)

    def next_number(self) -> str:
        """A name for a job that has none: ``{sim_id}-1`` and so on."""
        return f"{self.sim_id}-{next(self._numbers)}"

    # ------------------------------------------------------------------ the processes of the line itself
    def _start(self, generator: Generator[Event, Any, Any], name: str) -> None:
        generator.__name__ = name  # type: ignore[attr-defined]  # in errors and causes: the author's function, not ours
        self.spawn(generator)

    def _arrivals(self, function: Callable[..., Any], arrival_id: str) -> Generator[Event, Any, None]:
        try:
            if inspect.isgeneratorfunction(function):
                yield from function(self)
                return
            while True:
                yield self.wait_for_arrival(arrival_id)
                function(self)
        except (Removed, UnknownPath):
            if self._has("arrival", arrival_id):
                raise

    def _arrival_after_stop(self, arrival_id: str, config: DistributionConfig) -> Generator[Event, Any, None]:
        path = f"{self.sim_id}.arrival.{arrival_id}"
        while config.rate == 0.0:
            try:
                yield self.env.registry.get(path).wait_until(lambda whole: whole.get("rate") != 0.0)
            except Removed:  # another may have its name by now
                config = self._distribution("arrival", arrival_id)
        yield self._draw(path, config)

    def _telemetry(self, function: Callable[..., Any], interval_s: float) -> Generator[Event, Any, None]:
        while True:
            function(self)
            yield self.env.timeout(interval_s)

    def _break_down(self, path: str, config: BreakdownConfig, resource: DynamicResource) -> Generator[Event, Any, None]:
        registry = self.env.registry
        try:
            while True:
                if config.up.rate == 0.0:
                    yield registry.get(f"{path}.up").wait_until(lambda whole: whole.get("rate") != 0.0)
                yield self._draw(path, config.up)
                if registry.configs.get(path) is not config:
                    return
                resource.fail(interrupt=config.interrupt, cause=path)
                yield self._draw(path, config.down)
                resource.repair()
        except (Removed, UnknownPath):
            if resource.removed is None and registry.configs.get(path) is config:
                raise

    def _draw(self, path: str, config: DistributionConfig) -> Event:
        return self.env.timeout(self.env.sampler(path).sample(config))

    # ------------------------------------------------------------------ names
    def _path(self, kind: str, name: Any) -> str:
        if not isinstance(name, str) or "." in name:
            raise ModelError(f"name {shown(name)} in {self.sim_id}", "A-Z a-z 0-9 _ -, without a dot", "rename it")
        return f"{self.sim_id}.{kind}.{name}"

    def _has(self, kind: str, name: str) -> bool:
        path = self._path(kind, name)
        if kind == "variables":
            return bool(path in self.env.registry.free)
        if kind == "breakdowns":
            return path in self.env.registry.configs
        return path in (self.env.registry.distributions if kind in ("service", "arrival") else self.env.resources)

    def _distribution(self, kind: str, name: str) -> DistributionConfig:
        config: DistributionConfig = self.env.registry.get_config(self._path(kind, name))
        return config

    def _thing(self, kind: str, name: str, type_: type[_Things]) -> _Things:
        path = self._path(kind, name)
        found = self.env.resources.get(path)
        if not isinstance(found, type_):
            near = ", ".join(sorted(other for other in self.env.resources if other.startswith(f"{self.sim_id}.")))
            raise UnknownPath(f"path {path}", "no such resource, container or store", f"there are {near or 'none yet'}")
        return found

    def _adopt(self) -> None:
        """Build what a SimParameter has registered for this line and nobody has built."""
        registry = self.env.registry
        prefix = f"{self.sim_id}."
        for path in [
            path for path in registry.capacities if path.startswith(prefix) and path not in self.env.resources
        ]:
            kind = path[len(prefix) :].partition(".")[0]
            {"resources": DynamicResource, "containers": DynamicContainer, "stores": DynamicStore}[kind](self.env, path)
        for path, config in list(registry.configs.items()):
            if isinstance(config, BreakdownConfig) and path.startswith(prefix):
                self._start(self._break_down(path, config, self.get_resource(config.resource)), path)


def _given(capacity: Any) -> Any:
    """A capacity that has to be there: None would ask for one that a SimParameter has registered."""
    if capacity is None:
        raise ModelError("current_cap None", "a number", "say how much there is at the start")
    return capacity


def _name(value: object) -> str:
    return getattr(value, "__name__", type(value).__name__)
