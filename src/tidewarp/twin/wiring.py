"""Wiring a twin: what its model declares, and its sources and sinks, up to the moment when it may run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tidewarp.codec import pack
from tidewarp.connect.contract import Decoder, Form, Output, RunIdentity, Sink, Source
from tidewarp.connect.gate import Gate
from tidewarp.connect.gate.local import LOCAL
from tidewarp.connect.outbox import Outbox
from tidewarp.connect.payload import event_payload
from tidewarp.connect.received import Decoding
from tidewarp.errors import ModelError, OperatorError, TidewarpError, UnknownPath
from tidewarp.observe import SILENT, Probe
from tidewarp.process import Environment, cuts
from tidewarp.twin.declarations import Declarations, Restored
from tidewarp.twin.guard import Guard
from tidewarp.twin.model import model_source
from tidewarp.twin.options import (
    BATCH_MAX,
    checked_name,
    decoder_maker,
    delivery_of,
    is_live,
    policy_document,
    policy_of,
    span,
)
from tidewarp.twin.run import Run
from tidewarp.units import Duration

__all__ = ["Wiring"]

_DAY_NS = 86_400 * 10**9


class Wiring(Declarations):
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
        super().__init__(seed, restored)
        self.live = live  # False in a replay
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
        self._gate = Gate(self.env.registry.rule, probe)
        self._outbox = Outbox()
        self._ranks: dict[int, str] = {0: LOCAL}
        self._run = Run(self.env, self._ranks, self._added, self._go_on_from)
        self._guarded = guard
        if guard:
            self._run.guard = Guard()

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
    def epoch(self) -> datetime:
        """Tick 0 as an aware UTC datetime. Raises ModelError if asked before it is settled."""
        if self._epoch_ns is None:
            raise ModelError(
                "twin.epoch", "it is settled by open(epoch=...) or the first source", "connect sources first"
            )
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self._epoch_ns // 1_000)

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
        policy = policy_of(
            source,
            self._batch,
            time=time,
            disorder=disorder,
            idle=idle,
            wait=wait,
            late=late,
            horizon=horizon,
            beyond=beyond,
            gap=gap,
            queue=queue,
            full=full,
        )
        own_times = is_live(source) and policy.time != "arrival" and not policy.wait
        held = span("hold", (0.25 if own_times else 0) if hold is None else hold)
        source.name = checked_name(source.name if name is None else name)
        rank = self._gate.sources.register(source.name, policy)
        self._ranks[rank] = source.name
        self._sources[source.name] = source
        self._policies[source.name] = {**source.describe(), **policy_document(policy), "rank": rank}
        if decoder is not None or map is not None:
            self._decoders[source.name] = decoder_maker(decoder, map)
            self._policies[source.name]["message_map"] = None if map is None else dict(map)
        if own_times:
            self._live_times.append(source.name)
            self._hold_s = max(self._hold_s, held / 10**9)
        if self.live:
            first_ns = source.first_event_ns()  # asked of each: a file that cannot be read is found before the run
            if self._epoch_ns is None and first_ns is not None:
                self._epoch_ns = (first_ns - policy.disorder) // _DAY_NS * _DAY_NS

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
        sink.name = checked_name(sink.name if name is None else name)
        chosen = None if select is None else self._selector(sink.name, select, form)
        delivery = delivery_of(
            sink,
            batch=batch,
            queue=queue,
            spill=spill,
            retry=retry,
            poison=poison,
            select=chosen,
            flush=flush,
            stall=stall,
            form=form,
            observe=observe,
            release=release,
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
            self._epoch_ns = self._present_ns if any(map(is_live, self._sources.values())) else 0
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
