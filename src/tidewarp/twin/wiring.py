"""Wiring a twin: variables, resources, processes, sources and sinks, up to the moment when it may run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import simpy

from tidewarp.codec import pack
from tidewarp.connect.contract import Sink, Source
from tidewarp.connect.gate import LATE_POLICIES, Gate, Policy
from tidewarp.connect.outbox import Delivery, Outbox
from tidewarp.errors import ModelError, OperatorError, TidewarpError, UnknownPath
from tidewarp.observe import SILENT, Probe
from tidewarp.process import DynamicResource, DynamicValue, Environment, SimulationRegistry
from tidewarp.seeds import Stream
from tidewarp.store import NAME_BYTES_MAX
from tidewarp.twin.model import model_source
from tidewarp.twin.run import Run
from tidewarp.units import Duration, ticks

__all__ = ["BATCH_MAX", "Wiring"]

BATCH_MAX = 8_192
"""Inputs per journal record, at most."""

_DAY_NS = 86_400 * 10**9


class Wiring:
    """The part of a :class:`~tidewarp.twin.session.Twin` that its model uses.

    A model is wired in ``build`` and must not look at the outside world: no clock, no ``random``, no file. Without that
    it could not be replayed.
    """

    def __init__(
        self,
        build: Callable[[Any], Any],
        *,
        seed: int,
        epoch_ns: int | None,
        live: bool,
        batch: int = BATCH_MAX,
        probe: Probe = SILENT,
    ) -> None:
        self.env = Environment(seed=seed)
        self.live = live
        self._build = build
        self._model = model_source(build)
        self._epoch_ns = epoch_ns
        self._batch = batch
        self._probe = probe
        self._sources: dict[str, Source] = {}
        self._policies: dict[str, dict[str, Any]] = {}
        self._sinks: dict[str, Sink] = {}
        self._documents: list[Callable[[], Any]] = []
        self._gate = Gate(self.env.registry.rule, probe)
        self._outbox = Outbox()
        self._ranks: dict[int, str] = {}
        self._run = Run(self.env, self._ranks, lambda: {"states": [fn() for fn in self._documents]})
        self._sealed = False

    @property
    def now(self) -> float:
        """Virtual time, seconds since the epoch of the twin."""
        return self.env.now

    @property
    def tick(self) -> int:
        """Virtual time, ns since the epoch of the twin."""
        return self.env.tick

    @property
    def seed(self) -> int:
        """The seed of all random streams of this twin."""
        return self.env.seed

    @property
    def epoch(self) -> datetime:
        """Tick 0 as an aware UTC datetime. Raises ModelError if asked before it is settled."""
        if self._epoch_ns is None:
            raise ModelError(
                "twin.epoch", "it is settled by open(epoch=...) or the first source", "connect sources first"
            )
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self._epoch_ns // 1_000)

    @property
    def registry(self) -> SimulationRegistry:
        """All variables and resources by path."""
        return self.env.registry

    def variable(
        self,
        path: str,
        type: type | None = None,
        initial: Any = None,
        *,
        low: float | None = None,
        high: float | None = None,
        one_of: tuple[Any, ...] | None = None,
        unit: str = "",
    ) -> DynamicValue:
        """A typed value at ``path`` that sources may set and processes may wait for; None until first set."""
        return self.registry.declare(path, type, initial, low=low, high=high, one_of=one_of, unit=unit)

    def resource(self, path: str, capacity: int, max_capacity: int | None = None) -> DynamicResource:
        """A resource whose capacity may change while work is in progress (``path.current_cap``)."""
        return DynamicResource(self.env, path, capacity, max_capacity)

    def stream(self, name: str) -> Stream:
        """The random stream of this name: draws depend on (seed, name, count) and on nothing else."""
        return self.env.stream(name)

    def process(self, generator: Generator[simpy.Event, Any, Any]) -> simpy.Process:
        """Start a SimPy process."""
        self._refuse_outside("process")
        _refuse_no_generator(generator)
        return self.env.process(generator)

    def publish_event(self, key: str, value: Any) -> str:
        """Send ``value`` (plain data) to the sinks under ``key``; the id of the output. Never blocks."""
        self._refuse_outside("publish_event")
        return self.env.publish_event(key, value)

    def state(self, document: Callable[[], Any]) -> None:
        """Add ``document()`` (plain data) to the run digest: state that lives outside registry and resources."""
        self._refuse_sealed("state")
        self._documents.append(document)

    def connect(
        self,
        source: Source,
        *,
        name: str | None = None,
        disorder: Duration = 0,
        late: str = "stop",
        queue: int = 65_536,
    ) -> None:
        """Let ``source`` set variables, in the order of event time. Opened only when live.

        Args:
            source: one of ``tw.sources``, or anything that has its methods.
            name: in the journal and in all counts; default: the source's own.
            disorder: how far below the highest event time seen a further event may lie. The clock waits for it.
            late: what happens to an event below that bound: "stop" the run with the message and the bound that
                would do, "clamp" it to the bound, "drop" it (kept as a dead letter).
            queue: how many inputs may wait, at most; the source is not read while it is full.
        """
        self._refuse_sealed("connect")
        if late not in LATE_POLICIES:
            raise OperatorError(f"late={late!r}", f"one of {', '.join(LATE_POLICIES)}", "choose one of them")
        if queue < 1:
            raise OperatorError(f"queue={queue}", "a queue holds at least 1 input", "give a larger one")
        source.name = _checked_name(source.name if name is None else name)
        bound = ticks(disorder)
        if bound < 0:
            raise OperatorError(f"disorder={disorder!r}", "a bound is not negative", "give 0 or more")
        policy = Policy(disorder=bound, late=late, queue=queue, batch=min(self._batch, queue))
        rank = self._gate.register(source.name, policy)
        self._ranks[rank] = source.name
        self._sources[source.name] = source
        self._policies[source.name] = {**source.describe(), "disorder": bound, "late": late, "rank": rank}
        if self.live:
            first_ns = source.first_event_ns()  # asked of each: a file that cannot be read is found before the run
            if self._epoch_ns is None and first_ns is not None:
                self._epoch_ns = (first_ns - bound) // _DAY_NS * _DAY_NS

    def sink(self, sink: Sink, *, name: str | None = None, batch: int = 500, queue: int = 2_000) -> None:
        """Send every output to ``sink``, in order, once nothing can change it any more. Opened only when live.

        ``batch``: outputs per write, at most. ``queue``: once so many wait, the model gets no further slice until
        there is room; the slice that fills the queue may bring more.
        """
        self._refuse_sealed("sink")
        if batch < 1 or queue < 1:
            raise OperatorError(f"batch={batch}, queue={queue}", "both are at least 1", "give larger ones")
        sink.name = _checked_name(sink.name if name is None else name)
        self._outbox.register(sink.name, Delivery(batch=batch, queue=queue))
        self._sinks[sink.name] = sink

    # ------------------------------------------------------------------ putting it together
    def _refuse_outside(self, what: str) -> None:
        if not self.env.writable:
            raise ModelError(
                f"twin.{what}()", "only a journaled input or the model itself changes a model", "connect a source"
            )

    def _refuse_sealed(self, what: str) -> None:
        if self._sealed:
            raise ModelError(f"twin.{what}()", "a twin is wired in build, before it runs", f"move {what} into build")

    def _wire(self) -> None:
        """Call the model's function, then close the wiring."""
        try:
            made = self._build(self)
        except TidewarpError:
            raise
        except (Exception, SystemExit) as error:
            value = f"{self._model.function}: {type(error).__name__}: {error}"
            raise OperatorError(value, "build wires a twin without an error", "mend the model and run again") from error
        if inspect.isgenerator(made) or inspect.iscoroutine(made):
            made.close()
            value = f"{self._model.function}: a {type(made).__name__} function, of which nothing has run"
            raise OperatorError(value, "build wires a twin when it is called", "make it a plain function")
        self._refuse_unknown_paths()
        if self._epoch_ns is None:
            self._epoch_ns = 0
        self.env.epoch_ns = self._epoch_ns
        try:
            pack(self._run.state())
        except Exception as error:
            value = f"twin.state(): {type(error).__name__}: {error}"
            raise ModelError(value, "a state is plain data at any time", "mend the function given to state") from error
        self.env.seal()
        self._sealed = True

    def _refuse_unknown_paths(self) -> None:
        for name, source in self._sources.items():
            for path in source.paths():
                try:
                    self.registry.rule(path)
                except UnknownPath as error:
                    raise OperatorError(
                        f"source {name!r} sets {path!r}", error.rule, "map it to a path that the model declares"
                    ) from error


def _checked_name(name: str) -> str:
    """A source's or sink's name, as journal records can hold it."""
    if not 0 < len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX or not name.isprintable():
        raise OperatorError(f"name {name!r:.80}", f"1 to {NAME_BYTES_MAX} bytes of printable text", "give another name")
    return name


def _refuse_no_generator(made: object) -> None:
    if not hasattr(made, "throw"):  # as SimPy asks
        name = getattr(made, "__name__", type(made).__name__)
        action = f"call it: twin.process({name}())" if callable(made) else "write it with yield, and call it"
        raise ModelError(
            f"twin.process({name})", "a process is a generator: what a function with yield returns", action
        )
