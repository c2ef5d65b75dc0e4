"""The environment: SimPy's, with a registry, and with connectors that never stop its clock."""

from __future__ import annotations

import dataclasses
import logging
import os
import queue
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from pydantic_core import PydanticSerializationError, to_jsonable_python
from simpy.events import Event

from tidewarp import units
from tidewarp.clocks import Clock, WallClock
from tidewarp.compat.dynamic_des.connectors.egress.network import NetworkEgress
from tidewarp.compat.dynamic_des.connectors.ingress.local import LocalIngress
from tidewarp.compat.dynamic_des.connectors.ingress.network import NetworkIngress
from tidewarp.compat.dynamic_des.connectors.payload import Form
from tidewarp.compat.dynamic_des.connectors.providers import Provider, QueueSink, queue_source
from tidewarp.compat.dynamic_des.core.hosting import MEMORY, Hosting, Wires, model_of, stopped_by_interrupt
from tidewarp.compat.dynamic_des.core.mixins import INGRESS_MAX, EgressMixIn, IngressMixIn, RegistryMixIn
from tidewarp.compat.dynamic_des.core.registry import SimulationRegistry
from tidewarp.connect.contract import Sink, Source
from tidewarp.connect.sources import schedule
from tidewarp.errors import ModelError, OperatorError, TidewarpError
from tidewarp.process import Environment
from tidewarp.process.environment import SLICE_OUTPUTS_MAX
from tidewarp.twin import Replay, Summary, Twin, replay

__all__ = ["DynamicRealtimeEnvironment", "EgressMixIn", "IngressMixIn", "RegistryMixIn"]

_DAY_S: Final = 86_400.0
_KEY_MAX: Final = 255
_PLAIN: Final = (str, int, float, bool, type(None))

_log = logging.getLogger(__name__)


class DynamicRealtimeEnvironment(Environment, RegistryMixIn, IngressMixIn, EgressMixIn):
    """A SimPy environment in step with the wall.

    Args:
        initial_time: seconds of virtual time.
        factor: wall seconds per simulated second; 0: full speed.
        strict: raise RuntimeError when the run is later than ``factor`` wall seconds.
        logical_start_time: the instant of second 0 (without a zone: UTC); default: the present.
        journal: file that every update from outside is written to before it is applied, so that a later life goes on
            where this one ended; default: TIDEWARP_JOURNAL, else memory.
        seed: of all random streams.
    """

    registry: SimulationRegistry

    def __init__(
        self,
        initial_time: float = 0,
        factor: float = 1.0,
        strict: bool = False,
        logical_start_time: datetime | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        self._clock: Clock = WallClock()
        self._given_start = logical_start_time
        now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self._clock.unix_ns() // 1_000)
        self.start_datetime = logical_start_time or now
        super().__init__(initial_time, seed=seed)
        self.setup_registry()
        self.factor, self.strict = factor, strict
        self.ingress_queue, self.egress_queue = queue.Queue(INGRESS_MAX), queue.Queue()
        self.ingress_providers, self.egress_providers = [], []
        self._queues: list[queue.Queue[Any]] = []
        self._journal = os.fspath(journal or os.environ.get("TIDEWARP_JOURNAL") or MEMORY)
        self._hosting: Hosting | None = None
        self._wired: tuple[Sequence[Any], Sequence[Any]] = ((), ())  # what it was opened with
        self._readers: list[Provider] = []
        self._writers: list[QueueSink] = []
        self._runner: int | None = None  # the thread in which a run is going on
        self._goal: Event | None = None
        self._is_over = False

    # ------------------------------------------------------------------ running
    def run(self, until: Any = None) -> Any:
        """Run until a time in seconds, until an event (gives its value), or for as long as there is something to do.

        With connectors that are live there always is. An error of a process is raised as it is.

        Raises:
            ValueError: ``until`` is in the past.
            RuntimeError: the run is late, and ``strict``.
            OperatorError: a connector needs somebody, or the environment was torn down.
        """
        if self._is_over:
            raise OperatorError("this environment", "it was torn down", "make another one")
        if self._hosting is None and self.factor == 0 and self._journal == MEMORY and not self._has_connectors:
            return super().run(until)
        goal = until if isinstance(until, Event) else None
        if goal is not None and goal.processed:
            return goal.value
        if goal is None and until is not None and float(until) <= self.now:
            raise ValueError(f"until ({until}) must be greater than the current simulation time")
        if goal is not None and goal.callbacks is not None:
            goal.callbacks.append(_expect)  # a condition looks only while somebody waits for it
        self._goal, self._runner = goal, threading.get_ident()
        try:
            twin = self._open().twin
            if goal is not None and goal.processed:  # an earlier life has come so far
                return goal.value
            with stopped_by_interrupt(twin):
                summary = self._run_twin(twin, None if goal is not None or until is None else float(until))
        except ModelError as error:
            if error.__cause__ is None or isinstance(error.__cause__, TidewarpError):
                raise
            raise error.__cause__ from error.__cause__.__cause__
        finally:
            self._runner = self._goal = None
            self.writable = self._journal == MEMORY  # else only what is journaled changes the model
        if summary.reason == "lag":
            raise RuntimeError(f"Simulation too slow for real time ({summary.lag_s_max:.3f}s).")
        return self._value(goal)

    def _value(self, goal: Event | None) -> Any:
        if goal is None:
            return None
        if not goal.processed:
            raise RuntimeError(f"No scheduled events left but until event was not triggered: {goal}")
        value: Any = goal.value
        if not goal.ok:
            raise value
        return value

    def _run_twin(self, twin: Twin, until: float | None) -> Summary:
        limit_s = self.factor if self.strict and self.factor > 0 else None
        summary = twin.run(until, lag_limit=limit_s)
        # The end of the data is no end of the model.
        while until is None and summary.reason == "end" and self.peek() < float("inf"):
            summary = twin.run(self.peek() + _DAY_S, lag_limit=limit_s)
        return summary

    def replay(self, journal: str | os.PathLike[str] | None = None) -> Replay:
        """Run a journal again, and compare every mark and the digest. Opens no connector, and is the end of this environment.

        Build it as for a run, up to the call of ``run``. ``journal``: default that of the environment.

        Raises:
            OperatorError: it has run, or was torn down; not a journal.
        """
        if self._is_over or self._hosting is not None:
            raise OperatorError("this environment", "a replay begins with one that has not run", "make another one")
        self._apply_waiting()
        self._runner = threading.get_ident()
        try:
            return replay(os.fspath(journal or self._journal), model_of(self, self._wires))
        finally:
            self._runner, self._is_over = None, True

    def run_slice(self, limit_tick: int, events_max: int | None = None) -> Literal["limit", "budget", "empty", "cut"]:
        """As the process layer's. A run until an event goes from instant to instant."""
        goal = self._goal
        if goal is None:
            return super().run_slice(limit_tick, events_max)
        events_end, outputs_end = self.events + (events_max or 0), len(self._outputs.held) + SLICE_OUTPUTS_MAX
        while not goal.processed:
            upcoming_s = self.peek()
            if events_max is not None and (self.events >= events_end or len(self._outputs.held) >= outputs_end):
                return "budget"
            if upcoming_s >= units.in_seconds(limit_tick):
                return super().run_slice(limit_tick, events_max)
            tick = units.ticks(upcoming_s) + 1
            while units.in_seconds(tick) <= upcoming_s:
                tick += 1
            super().run_slice(tick, 1)
        self._goal = None
        if self._hosting is not None:
            self._hosting.twin.stop()
        return "budget"

    def outside(self, thread: int) -> Twin | None:
        """The twin that takes an update which ``thread`` wants; None where it acts on the registry itself.

        That is so before the first run, and in a process of the model.
        """
        if self._hosting is None or self._is_over or self._runner == thread:
            return None
        return self._hosting.twin

    # ------------------------------------------------------------------ publishing
    def publish_telemetry(self, path_id: str, value: Any) -> str:
        """Send a measurement to all providers; the id of the output. Never waits; nothing without providers."""
        return self.publish_event(path_id, value, "telemetry")

    def publish_event(self, event_key: str, value: Any, stream: str = "event") -> str:
        """Send an event likewise. What has no form as plain data is replaced by a note that says so."""
        if not self.egress_providers and self._hosting is None and self._runner is None:
            return ""
        return super().publish_event(_key(event_key), _plain(value), stream)

    # ------------------------------------------------------------------ the end
    def teardown(self) -> None:
        """Deliver what was published, wait for providers that make progress, end all connectors. Safe to call twice."""
        self._finish()

    def _finish(self) -> None:
        if self._is_over:
            return
        try:
            if self.egress_providers and self._outputs.held:
                self._open().twin.run(f"{max(self.tick, 0) + 1} ns", factor=0)
        except TidewarpError as error:
            _log.warning("what was published last is not delivered: %s", error)
        finally:
            self._is_over = True
            self._close()

    def _close(self) -> None:
        for reader in self._readers:
            reader.stop()
        try:
            if self._hosting is not None:
                self._hosting.close()
        finally:
            writers = [writer.provider for writer in self._writers if writer.provider is not None]
            for writer in writers:
                writer.drain(self._clock, self.egress_drain_stall_seconds)
                writer.stop()

    # ------------------------------------------------------------------ connectors
    @property
    def _has_connectors(self) -> bool:
        return bool(self.ingress_providers or self.egress_providers)

    def _open(self) -> Hosting:
        if self._hosting is not None:
            if any(now is not then for now, then in zip(self._providers, self._wired, strict=True)):
                raise OperatorError("setup after a run", "connectors are named before the first run", "move it there")
            return self._hosting
        self._wired = self._providers
        start = self._given_start
        is_begun = self._journal != MEMORY and os.path.exists(self._journal)
        epoch = None if start is None and is_begun else self.start_datetime
        if epoch is not None and epoch.tzinfo is None:
            epoch = epoch.replace(tzinfo=UTC)
        self._apply_waiting()
        observe_s = self.egress_lag_monitor_interval
        self._hosting = Hosting(self, self._journal, self.factor, epoch, self._wires, self._clock, observe_s)
        return self._hosting

    @property
    def _providers(self) -> tuple[Sequence[Any], Sequence[Any]]:
        return self.ingress_providers, self.egress_providers

    def _apply_waiting(self) -> None:
        """What somebody has put into the queue before the first run."""
        while not self.ingress_queue.empty():
            self.registry.update(*self.ingress_queue.get_nowait())

    def _wires(self, twin: Twin) -> Wires:
        if self._given_start is None:
            self.start_datetime = twin.epoch  # of a journal that was begun before
        sources: list[tuple[Source, dict[str, Any]]] = []
        own = []
        for number, provider in enumerate(self.ingress_providers):
            name = f"ingress-{number}"
            if isinstance(provider, NetworkIngress):
                sources.append((provider.source(name, keeps=self._journal != MEMORY), provider.policy))
            elif isinstance(provider, LocalIngress) and type(provider).run is LocalIngress.run:
                begin = self.now
                entries = [(begin + seconds, path, value) for seconds, path, value in provider.schedule]
                sources.append((_Schedule(entries, name=name), {}))
            else:
                own.append(provider)
        if own:

            def begin_readers() -> None:
                self._readers = self._readers or [Provider(provider, self.ingress_queue) for provider in own]

            sources.append((queue_source(self.ingress_queue, "ingress", begin_readers), {}))
        form = Form(self.start_datetime)
        sinks: list[tuple[Sink, dict[str, Any]]] = []
        served = {
            "batch": self.egress_batch_size,
            "flush": self.egress_flush_interval,
            "stall": self.egress_drain_stall_seconds,
        }
        for number, provider in enumerate(self.egress_providers):
            name = f"egress-{number}"
            sink: Sink
            if isinstance(provider, NetworkEgress):
                sink = provider.sink(name)
            else:
                sink = QueueSink(provider, self._queues[number], name)
                self._writers.append(sink)
            sinks.append((sink, {**served, "form": form.record, "observe": hasattr(sink, "observe")}))
        return Wires(sources, sinks)


class _Schedule(schedule):
    """Of paths that the model need not know: such an update becomes a dead letter."""

    def paths(self) -> Sequence[str]:
        """None that must exist."""
        return ()


def _expect(event: Event) -> None:
    """A failure of the event is raised by who runs until it."""
    event.defused = True


def _key(key: object) -> str:
    """As keys are: printable ASCII."""
    text = "".join(one if one.isprintable() else "?" for one in str(key))
    return text.encode("ascii", "backslashreplace").decode()[:_KEY_MAX] or "-"


def _plain(value: Any) -> Any:
    """``value`` as plain data, where it has such a form."""
    try:
        if _is_plain(value):
            return value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        return to_jsonable_python(value, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, TypeError, RecursionError):
        return value  # the environment's note says what it was


def _is_plain(value: Any) -> bool:
    if type(value) in _PLAIN:
        return True
    if type(value) is dict:
        return all(type(name) is str and _is_plain(item) for name, item in value.items())
    return type(value) is list and all(map(_is_plain, value))
