"""Wiring a twin: variables, resources, processes, sources and sinks, up to the moment when it may run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import simpy

from tidewarp.codec import pack
from tidewarp.connect.contract import Decoder, Form, Output, RunIdentity, Sink, Source
from tidewarp.connect.gate import BEYOND_POLICIES, FULL_POLICIES, GAP_POLICIES, LATE_POLICIES, TIMES, Gate, Policy
from tidewarp.connect.gate.local import LOCAL
from tidewarp.connect.outbox import Delivery, Outbox
from tidewarp.connect.payload import event_payload
from tidewarp.connect.received import Decoding, chosen_decoder
from tidewarp.errors import ModelError, OperatorError, TidewarpError, UnknownPath
from tidewarp.observe import SILENT, Probe
from tidewarp.process import (
    DynamicContainer,
    DynamicResource,
    DynamicStore,
    DynamicValue,
    Environment,
    SimParameter,
    SimulationContext,
    SimulationRegistry,
    cuts,
)
from tidewarp.process.sampler import Sampler
from tidewarp.seeds import Stream
from tidewarp.store import NAME_BYTES_MAX
from tidewarp.twin.guard import Guard
from tidewarp.twin.model import ModelSource, model_source
from tidewarp.twin.run import Run
from tidewarp.units import Duration, ticks

__all__ = ["BATCH_MAX", "LIVE_BATCH", "Wiring"]

BATCH_MAX = 8_192
"""Inputs per journal record, at most."""

LIVE_BATCH = 512
"""Inputs per journal record of a live source: decoding them keeps the clock from its next slice."""

_DAY_NS = 86_400 * 10**9


class Restored(NamedTuple):
    """What a model is built from at a cut: its environment, what it gave as its state, and the id of its last output."""

    environment: dict[str, Any]
    states: list[Any]
    last_id: str
    model: ModelSource


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
        present_ns: int = 0,
        guard: bool = False,
        restored: Restored | None = None,
    ) -> None:
        self.env = Environment(0 if restored is None else restored.environment["now"], seed=seed)
        if restored is not None:
            cuts.begin(self.env, restored.environment, restored.last_id)
        self._restored = restored
        self.live = live
        self._build = build
        self._model = model_source(build) if restored is None else restored.model
        self._epoch_ns = epoch_ns
        self._batch = batch
        self._present_ns = present_ns  # Unix ns, the epoch of a twin of live sources alone
        self._hold_s = 0.0  # how far the clock stays behind the wall
        self._live_times: list[str] = []  # sources by whose times of their own the clock runs on without waiting
        self._decoders: dict[str, Callable[[int], Decoder | None]] = {}
        self._probe = probe
        self._sources: dict[str, Source] = {}
        self._policies: dict[str, dict[str, Any]] = {}
        self._sinks: dict[str, Sink] = {}
        self._documents: list[Callable[[], Any]] = []
        self._lines: dict[str, SimulationContext] = {}
        self._gate = Gate(self.env.registry.rule, probe)
        self._outbox = Outbox()
        self._ranks: dict[int, str] = {0: LOCAL}
        self._run = Run(self.env, self._ranks, self._added, self._go_on_from)
        self._guarded = guard
        if guard:
            self._run.guard = Guard()
        self._sealed = False

    def adopt(self, env: Environment) -> None:
        """Let the twin run ``env``, which holds a model already; first of all in ``build``.

        It goes on from where ``env`` stands. For a replay, and where a source repairs, each call of ``build`` has to bring
        another one, made in the same way.

        Raises:
            ModelError: it has been run by a twin before, has another seed, or something was declared before it came.
        """
        self._refuse_sealed("adopt")
        action = "make another environment, and adopt it first of all"
        if env.sealed or env.seed != self.seed:
            rule = f"it has the seed of the twin, {self.seed}, and was in no other one"
            raise ModelError(f"twin.adopt(): an environment with seed {env.seed}", rule, action)
        if self._sources or self._sinks or self._documents or self._lines or self.registry.paths():
            raise ModelError("twin.adopt()", "what was declared before belongs to another environment", action)
        guard = self._run.guard
        self.env = env
        self._run = Run(env, self._ranks, self._added, self._go_on_from)
        self._run.guard, self._run.at = guard, env.tick
        self._gate.judge_by(env.registry.rule)

    def _added(self) -> dict[str, Any]:
        """What the model adds to the state."""
        return {"states": [fn() for fn in self._documents]}

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
        nonfinite: bool = False,
        coalesce: bool = False,
    ) -> DynamicValue:
        """A typed value at ``path`` that sources may set and processes may wait for; None until first set.

        Args:
            path: dot-separated words of A-Z a-z 0-9 _ -.
            type: bool, int, float, str, list, dict; None: any of these.
            initial: its value until the first input; None leaves it unset.
            low: least number, inclusive.
            high: greatest number, inclusive.
            one_of: all that it may be.
            unit: text for people.
            nonfinite: may a float be NaN or infinite? Else such a reading is a dead letter. Sinks that write JSON make
                null of it, and count it.
            coalesce: of the values that a source sends at once, is the last enough? Then the others are counted
                (``coalesced``) and become no inputs. Only of sources that the clock does not wait for.
        """
        return self.registry.declare(
            path,
            type,
            initial,
            low=low,
            high=high,
            one_of=one_of,
            unit=unit,
            nonfinite=nonfinite,
            coalesce=coalesce,
        )

    def resource(self, path: str, capacity: int, max_capacity: int | None = None) -> DynamicResource:
        """A resource whose capacity may change while work is in progress (``path.current_cap``)."""
        return DynamicResource(self.env, path, capacity, max_capacity)

    def container(self, path: str, capacity: float, init: float = 0.0) -> DynamicContainer:
        """A vessel whose size may change while there is something in it (``path.current_cap``)."""
        return DynamicContainer(self.env, path, capacity, init)

    def store(self, path: str, capacity: int, priority: bool = False) -> DynamicStore:
        """A shelf whose length may change while there is something on it; ``priority``: the least item goes first."""
        return DynamicStore(self.env, path, capacity, priority)

    def line(self, sim_id: str) -> SimulationContext:
        """The line of that name, to declare its parts and processes; the same one at every call."""
        if sim_id not in self._lines:
            self._lines[sim_id] = SimulationContext(self.env, sim_id)
        return self._lines[sim_id]

    def parameters(self, param: SimParameter) -> None:
        """Declare all parameters of a unit at their paths. A ``line`` of its name that is asked for later has its parts."""
        self.registry.register_sim_parameter(param)

    def sampler(self, name: str) -> Sampler:
        """Random times from the stream of this name."""
        return self.env.sampler(name)

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
        if not self.env.writable:
            self._refuse_outside("publish_event")
        return self.env.publish_event(key, value)

    def publish_telemetry(self, path_id: str, value: Any) -> str:
        """Send ``value`` (plain data) to the sinks as a measurement of ``path_id``; the id of the output. Never blocks."""
        if not self.env.writable:
            self._refuse_outside("publish_telemetry")
        return self.env.publish_telemetry(path_id, value)

    def state(self, document: Callable[[], Any]) -> None:
        """Add ``document()`` (plain data) to the run digest: state that lives outside registry and resources."""
        self._refuse_sealed("state")
        self._documents.append(document)

    def cut(self) -> simpy.Event:
        """Let the run go on, at the end of this instant, from a document: a later life may begin there.

        For processes: ``yield twin.cut()`` does not come back, without ``yield`` the instant goes on. At a cut every process ends, in every life, and ``build`` is called anew, with the present time and
        the values of all paths, and with :attr:`restored`: it starts its processes from there. So there is nothing that
        only a crash would lose. Resources keep their statistics, containers their levels, stores their items.

        Allowed at a quiet instant: no unit of a resource is in use, nobody waits for a resource, container or store, what
        is in stores is plain data, and numpy's generators have not been drawn from. Arbitrary generators cannot be cut:
        a process that is in the middle of something else has to have it in what ``state`` was given.

        Raises:
            ModelError: the model gives no ``state``, or time has not passed since the last cut. What is not quiet ends the
                run with its name.
        """
        if not self._documents:
            rule = "the model is built anew from what the function given to twin.state returns, and there is none"
            raise ModelError("twin.cut()", rule, "give one: twin.state(save), and read twin.restored in build")
        return cuts.ask(self.env)

    @property
    def restored(self) -> Any:
        """In ``build``: what the function given to ``state`` returned at the cut (of several, a list); None at the beginning."""
        if self._restored is None:
            return None
        states = self._restored.states
        return states[0] if len(states) == 1 else states

    def connect(
        self,
        source: Source,
        *,
        name: str | None = None,
        time: str | None = None,
        hold: Duration | None = None,
        disorder: Duration = 0,
        idle: Duration | None = None,
        wait: bool | None = None,
        late: str | None = None,
        horizon: Duration | None = None,
        beyond: str = "clamp",
        gap: str = "stop",
        queue: int = 65_536,
        full: str = "block",
        decoder: Decoding | None = None,
        map: Mapping[str, str] | None = None,
    ) -> None:
        """Let ``source`` set variables, in the order of event time. Opened only when live.

        A source is *recorded* (a file: its clock is its data's) or *live* (a broker: it comes when it comes).

        Args:
            source: one of ``tw.sources``, or anything that has its methods.
            name: in the journal and in all counts; default: the source's own.
            time: what orders its messages: "arrival" (default of live sources), the "payload"'s own time (default of
                recorded ones; a message without is ordered by arrival), or that of the broker's "record".
            hold: how far the clock stays behind the wall, so that live messages with times of their own are not late
                when they come. Default: 0.25 s for these, else 0.
            disorder: how far below the highest event time seen a further event may lie. The clock waits for it.
            wait: does the clock wait for the watermark? Default: for recorded sources.
            idle: after so many wall seconds of silence a partition holds the clock no longer. Default: 1 s for live
                sources; recorded ones are waited for.
            late: what happens to an event below that bound, or below the clock: "repair": the run is executed again
                from there, as if it had come in time; "clamp" it to the bound; "drop" it (kept as a dead letter);
                "stop" the run with the message and the bound that would do. Default: "repair" for live sources with
                times of their own, "stop" for recorded ones.
            horizon: how far back a repair may reach; outputs leave that much later. Default: 5 s live, 1 h recorded.
            beyond: what happens to an event further back: "clamp", "drop" or "stop".
            gap: messages that the target no longer has: "stop", or "accept" (journaled and counted).
            queue: how many inputs may wait, at most (and 64 MiB of long ones).
            full: what happens then: "block": the source is not read; "drop_oldest" or "drop_newest" of the messages that
                wait to be journaled, counted (``shed``): for protocols that cannot wait, such as Pub/Sub. Only of sources
                that the clock does not wait for.
            decoder: takes the place of the source's own: an object with ``decode(raw)``, or a function from bytes to a
                mapping as JSON messages have it.
            map: field of a message -> path, for messages that are flat objects.
        """
        self._refuse_sealed("connect")
        live = _is_live(source)
        ordered = time or ("arrival" if live else "payload")
        waits = not live if wait is None else wait
        own_times = live and ordered != "arrival"
        treated = late or ("repair" if own_times else "stop")
        for what, word, words in (
            ("time", ordered, TIMES),
            ("late", treated, LATE_POLICIES),
            ("beyond", beyond, BEYOND_POLICIES),
            ("gap", gap, GAP_POLICIES),
            ("full", full, FULL_POLICIES),
        ):
            if word not in words:
                raise OperatorError(f"{what}={word!r}", f"one of {', '.join(words)}", "choose one of them")
        if queue < 1:
            raise OperatorError(f"queue={queue}", "a queue holds at least 1 input", "give a larger one")
        if full != "block" and waits:
            rule = "what the clock waits for must come: messages would be let go by chance"
            raise OperatorError(f"full={full!r} of a source with wait=True", rule, "leave full out, or give wait=False")
        source.name = _checked_name(source.name if name is None else name)
        bound, reach = (
            _span("disorder", disorder),
            _span("horizon", ("5 s" if live else "1 h") if horizon is None else horizon),
        )
        held = _span("hold", (0.25 if own_times and not waits else 0) if hold is None else hold)
        silence = _span("idle", 1 if idle is None else idle) / 10**9 if live or idle is not None else None
        policy = Policy(
            disorder=bound,
            late=treated,
            queue=queue,
            full=full,
            batch=min(self._batch, queue, LIVE_BATCH if live else BATCH_MAX),
            time=ordered,
            wait=waits,
            idle_s=silence if waits else None,
            horizon=reach if treated == "repair" else 0,
            beyond=beyond,
            gap=gap,
        )
        rank = self._gate.register(source.name, policy)
        self._ranks[rank] = source.name
        self._sources[source.name] = source
        self._policies[source.name] = {**source.describe(), **_policy_document(policy), "rank": rank}
        if decoder is not None or map is not None:
            self._decoders[source.name] = _decoder_maker(decoder, map)
            self._policies[source.name]["message_map"] = None if map is None else dict(map)
        if own_times and not waits:
            self._live_times.append(source.name)
            self._hold_s = max(self._hold_s, held / 10**9)
        if self.live:
            first_ns = source.first_event_ns()  # asked of each: a file that cannot be read is found before the run
            if self._epoch_ns is None and first_ns is not None:
                self._epoch_ns = (first_ns - bound) // _DAY_NS * _DAY_NS

    def sink(
        self,
        sink: Sink,
        *,
        name: str | None = None,
        batch: int = 500,
        queue: int = 2_000,
        spill: int = 1 << 30,
        retry: tuple[float, float] = (0.5, 30.0),
        poison: int = 8,
        select: Callable[[Mapping[str, Any]], bool] | None = None,
        flush: Duration = 0,
        stall: Duration = 30.0,
        form: Form | None = None,
        observe: bool = False,
        release: str = "final",
    ) -> None:
        """Send every output to ``sink``, in order, once nothing can change it any more. Opened only when live.

        A sink that is down is tried for ever, and stops nothing: a run that is paced by the wall lets what waits
        overflow into a file beside the journal (or in TIDEWARP_SPILL_DIR); one at full speed waits for it.

        Args:
            sink: one of ``tw.sinks``, or anything that has its methods.
            name: in the journal and in all counts; default: the sink's own.
            batch: outputs per write, at most.
            queue: outputs that wait in memory. At full speed the model gets no further slice while it is full; the
                slice that fills it may bring more.
            spill: bytes that may wait in the file. What does not fit is left to a later ``--resume``, and counted.
            retry: first and longest pause before an attempt is repeated, wall seconds.
            poison: attempts at an output that fails alone without a clear reason, before it is given up and counted.
            select: which outputs it gets, asked with the mapping of each as the sink writes it.
            flush: how long a batch may wait to fill, wall seconds. 0: it goes as soon as the one before it is held, and
                fills meanwhile.
            stall: how long the sink may make no progress at the end of a run, wall seconds, before that ends with an error.
            form: makes of each record the one that is written: other values, fewer fields. ``jsonl`` and ``parquet`` keep
                the fields by which they know what they hold.
            observe: is it also told, every so many seconds (see ``tw.open``), how late the run is, what waits where, and in
                which state sources and sinks are? These rows are no outputs: no id, at most once. Of ``console``, ``kafka``,
                ``redis_stream``, ``postgres``, and sinks with a method ``observe``.
            release: "final": it gets each output when no late input can change it any more. "early": at once, marked as
                provisional; a repair sends retractions and then what takes their place. Not of ``postgres`` and ``parquet``,
                nor of ``kafka`` with a schema: their records have no place for a retraction.
        """
        self._refuse_sealed("sink")
        if batch < 1 or queue < 1 or spill < 0 or poison < 1:
            given = f"batch={batch}, queue={queue}, spill={spill}, poison={poison}"
            raise OperatorError(given, "all are at least 1, spill at least 0", "give larger ones")
        if not 0 < retry[0] <= retry[1] < math.inf:
            raise OperatorError(f"retry={retry!r}", "0 < first pause <= longest pause, in seconds", "correct them")
        sink.name = _checked_name(sink.name if name is None else name)
        if observe and not hasattr(sink, "observe"):
            rule = f"a {getattr(sink, 'kind', 'sink')} sink takes outputs alone"
            raise OperatorError(f"sink {sink.name!r}: observe=True", rule, "observe by another one, such as console")
        if release not in ("final", "early"):
            raise OperatorError(f"release={release!r}", "it is 'final' or 'early'", "choose one of them")
        if release == "early" and not getattr(sink, "takes_early", True):
            rule = f"the records of this {getattr(sink, 'kind', '')} sink have no place for a retraction"
            raise OperatorError(f"sink {sink.name!r}: release='early'", rule, "send JSON, or leave release out")
        chosen = None if select is None else self._selector(sink.name, select, form)
        delivery = Delivery(
            batch=batch,
            queue=queue,
            spill=spill,
            retry_s=retry,
            poison=poison,
            select=chosen,
            flush_s=_span("flush", flush) / 10**9,
            stall_s=_span("stall", stall) / 10**9,
            form=form,
            observe=observe,
            early=release == "early",
        )
        self._outbox.register(sink.name, delivery)
        self._sinks[sink.name] = sink

    def _selector(
        self, name: str, select: Callable[[Mapping[str, Any]], bool], form: Form | None
    ) -> Callable[[Output], bool]:
        def chosen(output: Output) -> bool:
            if output.retracts and not output.provisional:
                return True  # of all that it was told
            try:
                return bool(select(event_payload(output, RunIdentity("", self._epoch_ns or 0, form))))
            except Exception as error:
                value = f"sink {name!r}, output {output.id}: {type(error).__name__}: {error}"
                raise OperatorError(value, "select says yes or no", "mend it, then --resume") from error

        return chosen

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
            with self._run.guard as guard:
                made = self._build(self)
            if guard.broken is not None:  # and the model caught the error
                raise guard.broken
        except TidewarpError:
            raise
        except (Exception, SystemExit) as error:
            value = f"{self._model.function}: {type(error).__name__}: {error}"
            raise OperatorError(value, "build wires a twin without an error", "mend the model and run again") from error
        if inspect.isgenerator(made) or inspect.iscoroutine(made):
            made.close()
            value = f"{self._model.function}: a {type(made).__name__} function, of which nothing has run"
            raise OperatorError(value, "build wires a twin when it is called", "make it a plain function")
        if self._restored is not None:
            cuts.complete(self.env, self._restored.environment)
        self._refuse_unknown_paths()
        if self._epoch_ns is None:
            self._epoch_ns = self._present_ns if any(map(_is_live, self._sources.values())) else 0
        self.env.epoch_ns = self._epoch_ns
        try:
            pack(self._run.state())
        except Exception as error:
            value = f"twin.state(): {type(error).__name__}: {error}"
            raise ModelError(value, "a state is plain data at any time", "mend the function given to state") from error
        self.env.seal()
        self._sealed = True

    def _go_on_from(self, document: dict[str, Any], last_id: str) -> tuple[Environment, Callable[[], dict[str, Any]]]:
        """The model built anew from the document of a cut."""
        restored = Restored(document["environment"], document["states"], last_id, self._model)
        fresh = type(self)(
            self._build, seed=self.seed, epoch_ns=self._epoch_ns, live=False, guard=False, restored=restored
        )
        fresh._wire()
        self.env = fresh.env
        self._gate.judge_by(fresh.registry.rule)
        return fresh.env, fresh._run._extra

    def _refuse_unknown_paths(self) -> None:
        for name, source in self._sources.items():
            for path in source.paths():
                try:
                    self.registry.rule(path)
                except UnknownPath as error:
                    raise OperatorError(
                        f"source {name!r} sets {path!r}", error.rule, "map it to a path that the model declares"
                    ) from error


def _is_live(source: Source) -> bool:
    return getattr(source, "clock", "data") == "wall"  # anything with the methods of a source will do


def _span(what: str, duration: Duration) -> int:
    span = ticks(duration)
    if span < 0:
        raise OperatorError(f"{what}={duration!r}", "a length of time is not negative", "give 0 or more")
    return span


def _policy_document(policy: Policy) -> dict[str, Any]:
    """What decides the meaning of messages: journaled, compared at a resume."""
    return {
        "ordered_by": policy.time,
        "wait": policy.wait,
        "disorder": policy.disorder,
        "late": policy.late,
        "horizon": policy.horizon,
        "beyond": policy.beyond,
    }


def _decoder_maker(decoding: Decoding | None, map: Mapping[str, str] | None) -> Callable[[int], Decoder | None]:
    if map is not None and isinstance(decoding, Decoder):
        rule = "a map is for messages that are objects; a decoder of yours says itself what they set"
        raise OperatorError("connect(decoder=..., map=...)", rule, "leave one of them out")
    return partial(chosen_decoder, decoding, map)


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
