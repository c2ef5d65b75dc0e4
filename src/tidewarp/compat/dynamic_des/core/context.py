"""A simulation declared piece by piece, and built when it runs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Generator
from datetime import datetime
from functools import wraps
from typing import Any

from simpy.events import Event, Process

from tidewarp.compat.dynamic_des.core.environment import DynamicRealtimeEnvironment
from tidewarp.compat.dynamic_des.models.params import CapacityConfig, DistributionConfig, SimParameter
from tidewarp.compat.dynamic_des.resources.container import DynamicContainer
from tidewarp.compat.dynamic_des.resources.resource import DynamicResource
from tidewarp.compat.dynamic_des.resources.store import DynamicStore
from tidewarp.compat.dynamic_des.utils import time_to_seconds
from tidewarp.process import SimulationContext as _Line
from tidewarp.process.sampler import Sampler
from tidewarp.twin import Replay

__all__ = ["SimulationContext"]

_NOT_ATTACHED = "Environment is not attached until context is run."
_NOT_BUILT = "Simulation has not been built yet."
_NO_ARRIVAL = "Cannot sample arrival before context is run."
_NO_THINGS = "Resources are not instantiated until context is run."
_NO_PUBLISHING = "Cannot publish telemetry before context is run."
_NO_PROCESSES = "Cannot spawn processes before context is run."


class SimulationContext:
    """``sim_id`` is the first part of all its paths.

    Args:
        sim_id: the name of the simulation.
        factor: wall seconds per simulated second; 0: full speed.
        random_seed: of all random streams; None: 0.
        logical_start_time: the instant of second 0; default: the present.
        journal: as of the environment.

    While it runs it has, besides the methods below, those of :class:`tidewarp.process.SimulationContext`.
    """

    def __init__(
        self,
        sim_id: str,
        factor: float = 1.0,
        random_seed: int | None = None,
        logical_start_time: datetime | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
    ) -> None:
        self.sim_id, self.factor, self.random_seed = sim_id, factor, random_seed
        self.logical_start_time, self.journal = logical_start_time, journal
        self._ingress: list[Any] = []
        self._egress: list[Any] = []
        self._batching: dict[str, Any] = {}
        self._kinds: dict[str, dict[str, Any]] = {
            name: {} for name in ("arrival", "service", "resources", "containers", "stores", "variables")
        }
        self._inits: dict[str, float] = {}
        self._priorities: dict[str, bool] = {}
        self._starts: list[Callable[[_Line], Any]] = []
        self._tasks: list[Callable[[_Line], None]] = []
        self._env: DynamicRealtimeEnvironment | None = None
        self._line: _Line | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self._line is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r} before it runs")
        return getattr(self._line, name)

    # ------------------------------------------------------------------ what it is made of
    def add_ingress(self, provider: Any) -> SimulationContext:
        """Read updates from ``provider``."""
        self._ingress.append(provider)
        return self

    def add_egress(self, provider: Any) -> SimulationContext:
        """Send outputs to ``provider``."""
        self._egress.append(provider)
        return self

    def with_batching(
        self,
        batch_size: int,
        flush_interval: float,
        max_queued_batches: int = 2000,
        drain_stall_seconds: float = 30.0,
    ) -> SimulationContext:
        """As the arguments of ``setup_egress``."""
        self._batching = {
            "batch_size": batch_size,
            "flush_interval": flush_interval,
            "max_queued_batches": max_queued_batches,
            "drain_stall_seconds": drain_stall_seconds,
        }
        return self

    def add_resource(self, name: str, current_cap: int, max_cap: int | None = None) -> SimulationContext:
        """Units that tasks need."""
        self._kinds["resources"][name] = CapacityConfig(current_cap, max_cap)
        return self

    def add_container(
        self, name: str, current_cap: float, max_cap: float | None = None, init: float = 0.0
    ) -> SimulationContext:
        """A vessel of that size with ``init`` in it."""
        self._kinds["containers"][name] = CapacityConfig(current_cap, max_cap)
        self._inits[name] = init
        return self

    def add_store(
        self, name: str, current_cap: int, max_cap: int | None = None, priority: bool = False
    ) -> SimulationContext:
        """A shelf for that many items; ``priority``: the least item goes first."""
        self._kinds["stores"][name] = CapacityConfig(current_cap, max_cap)
        self._priorities[name] = priority
        return self

    def add_variable(self, name: str, value: Any) -> SimulationContext:
        """A value that updates may set, with the type of its first."""
        self._kinds["variables"][name] = value
        return self

    def add_service(
        self, name: str, dist: str, mean: float = 0.0, std: float = 0.0, rate: float = 0.0
    ) -> SimulationContext:
        """How long a service takes."""
        self._kinds["service"][name] = DistributionConfig(dist, rate=rate, mean=mean, std=std)
        return self

    def add_arrival(
        self, name: str, dist: str, rate: float = 0.0, mean: float = 0.0, std: float = 0.0
    ) -> SimulationContext:
        """The time between two arrivals."""
        self._kinds["arrival"][name] = DistributionConfig(dist, rate=rate, mean=mean, std=std)
        return self

    # ------------------------------------------------------------------ decorators
    def task(self, service_id: Any, resource_id: str | None = None, **options: Any) -> Any:
        """Make a function a job; see :meth:`tidewarp.process.SimulationContext.task`. Bare, it marks a generator function."""
        if callable(service_id):
            return service_id

        def decorate(function: Callable[..., Any]) -> Callable[..., Generator[Event, Any, Any]]:
            made: list[Callable[..., Generator[Event, Any, Any]]] = []

            def make(line: _Line) -> None:
                made[:] = [line.task(service_id, str(resource_id), **options)(function)]

            @wraps(function)
            def job(*arguments: Any, **keywords: Any) -> Generator[Event, Any, Any]:
                if not made:
                    raise RuntimeError(_NOT_BUILT)
                return (yield from made[0](*arguments, **keywords))

            self._tasks.append(make)
            return job

        return decorate

    def arrival_loop(self, arrival_id: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Start a generator function, which gets this context, with the run; one without ``yield`` is called at each arrival."""

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            self._starts.append(lambda line: line.arrival_loop(arrival_id)(self._with_context(function)))
            return function

        return decorate

    def telemetry_loop(self, interval: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Call a function, which gets this context, at the start and every ``interval`` seconds of virtual time."""

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            self._starts.append(lambda line: line.telemetry_loop(interval)(self._with_context(function)))
            return function

        return decorate

    def _with_context(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function):

            @wraps(function)
            def process(_: _Line) -> Generator[Event, Any, Any]:
                return (yield from function(self))

            return process

        @wraps(function)
        def call(_: _Line) -> Any:
            return function(self)

        return call

    # ------------------------------------------------------------------ while it runs
    @property
    def env(self) -> DynamicRealtimeEnvironment:
        """The environment. Raises RuntimeError before the run."""
        if self._env is None:
            raise RuntimeError(_NOT_ATTACHED)
        return self._env

    @property
    def sampler(self) -> Sampler | None:
        """Random times for the model's own code, and ``sampler.rng``, a numpy Generator; None before the run."""
        return None if self._line is None else self._line.sampler

    def wait_for_arrival(self, arrival_id: str) -> Event:
        """An event for the next arrival. Raises RuntimeError before the run."""
        return self._built(_NO_ARRIVAL).wait_for_arrival(arrival_id)

    def get_resource(self, resource_id: str) -> DynamicResource:
        """The resource of that name. Raises RuntimeError before the run."""
        found: Any = self._built(_NO_THINGS).get_resource(resource_id)
        return found  # type: ignore[no-any-return]  # the line holds what `_build` made

    def get_container(self, container_id: str) -> DynamicContainer:
        """The container of that name. Raises RuntimeError before the run."""
        found: Any = self._built(_NO_THINGS).get_container(container_id)
        return found  # type: ignore[no-any-return]  # as above

    def get_store(self, store_id: str) -> DynamicStore:
        """The store of that name. Raises RuntimeError before the run."""
        found: Any = self._built(_NO_THINGS).get_store(store_id)
        return found  # type: ignore[no-any-return]  # as above

    def publish(self, metric_name: str, value: Any) -> None:
        """Publish a measurement as ``{sim_id}.{metric_name}``. Raises RuntimeError before the run."""
        self._built(_NO_PUBLISHING).publish(metric_name, value)

    def spawn(self, process: Generator[Event, Any, Any]) -> Process:
        """Start a process. Raises RuntimeError before the run."""
        return self._built(_NO_PROCESSES).spawn(process)

    def _built(self, otherwise: str) -> _Line:
        if self._line is None:
            raise RuntimeError(otherwise)
        return self._line

    # ------------------------------------------------------------------ the run
    def run(self, until: Any = None) -> None:
        """Build everything, run until a time (seconds, or text like "1 week"), tear down."""
        limit = time_to_seconds(until) if isinstance(until, str) else until
        env = self._fresh()
        try:
            self._build(env)
            env.run(until=limit)
        finally:
            env.teardown()

    def replay(self, journal: str | os.PathLike[str] | None = None) -> Replay:
        """Build everything, run a journal again (default: that of this context) and compare; opens no connector."""
        env = self._fresh()
        self._build(env)
        return env.replay(journal)

    def _fresh(self) -> DynamicRealtimeEnvironment:
        self._env = DynamicRealtimeEnvironment(
            factor=self.factor,
            logical_start_time=self.logical_start_time,
            journal=self.journal,
            seed=(self.random_seed or 0) % (1 << 64),
        )
        return self._env

    def _build(self, env: DynamicRealtimeEnvironment) -> None:
        env.registry.register_sim_parameter(SimParameter(self.sim_id, **self._kinds))
        if self._ingress:
            env.setup_ingress(self._ingress)
        if self._egress:
            env.setup_egress(self._egress, **self._batching)
        for name in self._kinds["resources"]:
            DynamicResource(env, self.sim_id, name)
        for name, init in self._inits.items():
            DynamicContainer(env, self.sim_id, name, init)
        for name, priority in self._priorities.items():
            DynamicStore(env, self.sim_id, name, priority)
        line = self._line = _Line(env, self.sim_id)
        for make in self._tasks:
            make(line)
        for start in self._starts:
            start(line)
