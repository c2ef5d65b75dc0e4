"""The session: one model in step with one physical thing, through one journal."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import simpy

from tidewarp.clocks import Clock, Pacer, WallClock
from tidewarp.codec import pack, unpack
from tidewarp.connect.contract import RunIdentity, Sink, Source
from tidewarp.connect.documents import PathTable
from tidewarp.connect.gate import LATE_POLICIES, Gate, Policy
from tidewarp.connect.outbox import Delivery, Outbox
from tidewarp.errors import (
    CodecError,
    InternalError,
    ModelChanged,
    ModelError,
    OperatorError,
    StoreFailed,
    StoreFull,
    TidewarpError,
    UnknownPath,
)
from tidewarp.observe import SILENT, Probe
from tidewarp.process import DynamicResource, DynamicValue, Environment, SimulationRegistry
from tidewarp.seeds import Stream
from tidewarp.store import NAME_BYTES_MAX, Store, open_store
from tidewarp.twin.documents import OPEN, RESUME, entry, opening, platform_of
from tidewarp.twin.follow import Follower
from tidewarp.twin.host import InlineHost
from tidewarp.twin.model import ModelSource, changed_files, model_source, refuse_while_loading
from tidewarp.twin.run import Run, tick_at
from tidewarp.units import Duration, in_seconds, parse_instant, ticks

__all__ = ["Build", "Summary", "Twin", "open_twin"]

_DAY_NS = 86_400 * 10**9
_BATCH_MAX = 8_192


@dataclass(frozen=True)
class Summary:
    """What a run did. ``events``, ``inputs``, ``outputs``, ``late``, ``clamped``, ``dropped``, ``refused`` and dead letters
    are of the whole journal, earlier lives included; ``duplicates``, ``sinks``, ``lag_s_max`` and ``wall_s`` of this life.
    ``undeliverable``: outputs whose value had no canonical form.
    """

    digest: str
    reason: str
    virtual_time_s: float
    journal_records: int
    head: str
    events: int
    inputs: int
    outputs: int
    undeliverable: int
    late: int
    clamped: int
    dropped: int
    duplicates: int
    refused: int
    dead_letters: int
    dead: dict[str, int]
    sinks: dict[str, dict[str, Any]]
    lag_s_max: float
    seed: int
    epoch: str
    factor: float
    resumed: bool
    interrupted: bool
    wall_s: float


class Twin:
    """What a model's ``build(twin)`` receives, and what runs it. Made by :func:`open_twin`; a context manager.

    A model is wired in ``build`` and must not look at the outside world: no clock, no ``random``, no file.
    """

    def __init__(
        self, *, seed: int, epoch_ns: int | None, live: bool, batch: int = _BATCH_MAX, probe: Probe = SILENT
    ) -> None:
        self.env = Environment(seed=seed)
        self.live = live
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
        self._host: InlineHost | None = None
        self._store: Store | None = None
        self._clock: Clock = WallClock()
        self._factor = 0.0
        self._resumed = False
        self._sealed = False
        self._failed = False

    # ------------------------------------------------------------------ what build uses
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
        """Send every output to ``sink``, in order, as soon as GVT has passed it. Opened only when live.

        ``batch``: outputs per write, at most. ``queue``: once so many wait, the model gets no further slice until
        there is room; the slice that fills the queue may bring more.
        """
        self._refuse_sealed("sink")
        if batch < 1 or queue < 1:
            raise OperatorError(f"batch={batch}, queue={queue}", "both are at least 1", "give larger ones")
        sink.name = _checked_name(sink.name if name is None else name)
        self._outbox.register(sink.name, Delivery(batch=batch, queue=queue))
        self._sinks[sink.name] = sink

    # ------------------------------------------------------------------ what runs it
    def run(self, until: Duration | datetime | None = None, *, factor: float | None = None) -> Summary:
        """Run until virtual time ``until`` (exclusive), or to the end of all data, or until :meth:`stop`.

        Blocks. On return every output is delivered and the journal holds a mark with the digest.

        Args:
            until: seconds since the epoch, text like "8h", timedelta, or an aware datetime.
            factor: wall seconds per simulated second; 0 = full speed. Default: as given to open.

        Raises:
            ModelError: the model raised; the journal says where, and resuming repeats it.
            OperatorError: a source, a sink or the store gave up; what was acknowledged is in the journal.
        """
        host, store = self._host, self._store
        if host is None or store is None:
            raise ModelError(
                "twin.run()", "build wires a twin, its caller runs it", "call run() on what open() returned"
            )
        if self._failed:
            raise OperatorError("this twin", "a run is under way, or ended with an error", "open its journal again")
        limit = None if until is None else tick_at(until, self._epoch_ns or 0)
        if limit is not None and limit < 0:
            raise OperatorError(f"until={until}", f"time begins at the epoch, {self.epoch}", "give a later time")
        pace = self._factor if factor is None else factor
        Pacer(pace)  # refuses what is no factor, before anything is written
        started_s = self._clock.now()
        if self._resumed:
            resume = {"tick": self._run.at, "model": self._model.digest, "sources": self._policies, **platform_of()}
            store.journal.append([entry(RESUME, self._run.at, resume)])
        host.open_sources(self._sources)
        self._failed = True  # unless it comes back: what was admitted but not journaled must not be passed over
        reason = host.go(limit, pace)
        self._failed = False
        summary = self._summary(reason, pace, self._clock.now() - started_s)
        self._resumed = True
        return summary

    def stop(self) -> None:
        """End a run at the next completed instant. Safe from other threads and signal handlers.

        Called when no run is in progress it ends the next one at once, so that a request cannot be lost.
        """
        if self._host is not None:
            self._host.stop()

    def digest(self) -> str:
        """The run digest (TWRUN1) up to now, hex."""
        return self._run.digest()

    @property
    def head(self) -> str:
        """The hash of the journal's last record, hex: kept elsewhere, it shows later that no tail was cut off."""
        if self._store is None:
            raise ModelError("twin.head", "a twin without a journal has none", "ask what open() returned")
        return self._store.journal.head.hex()

    def close(self) -> None:
        """Close connectors and journal. Safe to call twice."""
        if self._host is not None:
            self._host.close()
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Twin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(StoreFull, StoreFailed):  # after a full disk closing fails too: the first error counts
            self.close()

    # ------------------------------------------------------------------ putting it together
    def _refuse_outside(self, what: str) -> None:
        if not self.env.writable:
            raise ModelError(
                f"twin.{what}()", "only a journaled input or the model itself changes a model", "connect a source"
            )

    def _refuse_sealed(self, what: str) -> None:
        if self._sealed:
            raise ModelError(f"twin.{what}()", "a twin is wired in build, before it runs", f"move {what} into build")

    def _wire(self, build: Build) -> None:
        """Call the model's function, then close the wiring."""
        self._model: ModelSource = model_source(build)
        try:
            made = build(self)
        except TidewarpError:
            raise
        except (Exception, SystemExit) as error:
            value = f"{self._model.function}: {type(error).__name__}: {error}"
            raise OperatorError(value, "build wires a twin without an error", "mend the model and run again") from error
        if inspect.isgenerator(made) or inspect.iscoroutine(made):
            made.close()
            value = f"{self._model.function}: a {type(made).__name__} function, of which nothing has run"
            raise OperatorError(value, "build wires a twin when it is called", "make it a plain function")
        for name, source in self._sources.items():
            for path in source.paths():
                try:
                    self.registry.rule(path)
                except UnknownPath as error:
                    raise OperatorError(
                        f"source {name!r} sets {path!r}", error.rule, "map it to a path that the model declares"
                    ) from error
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

    def _begin(self, store: Store, path: Path, clock: Clock, factor: float, accept_model: bool) -> None:
        """Start a journal, or come back to where it stands."""
        self._store, self._clock, self._factor = store, clock, factor
        journal = store.journal
        self._resumed = journal.size > 0
        if self._epoch_ns is None:
            raise InternalError("the epoch", "it is settled once the model is wired", "report this")
        identity = RunIdentity(journal.domain.hex(), self._epoch_ns)
        if self._resumed and not accept_model:
            self._refuse_changed(opening(journal), path)
        table = PathTable()
        host = InlineHost(self._run, self._gate, self._outbox, journal, table, identity, clock, self._probe)
        self._host = host
        follower = Follower(journal, self._gate, self._run, host.release_and_wait, table=table, probe=self._probe)
        host.open_sinks(self._sinks, follower.released_before())
        if not self._resumed:  # last of all: what could not start has begun no journal
            journal.append([entry(OPEN, 0, self._opening(path, identity))])
        follower.follow()
        if follower.first_difference is not None:
            raise _differs(follower.first_difference)

    def _opening(self, path: Path, identity: RunIdentity) -> dict[str, Any]:
        return {
            "domain": identity.domain,
            "epoch_ns": identity.epoch_ns,
            "seed": self.seed,
            "model": self._model.document(path),
            "sources": self._policies,
            **platform_of(),
        }

    def _refuse_changed(self, opened: Mapping[str, Any], path: Path) -> None:
        changed = changed_files(opened["model"], self._model)
        if changed:
            raise ModelChanged(
                f"{path}: {', '.join(changed)} changed since this journal was begun",
                "a run goes on with the model that began it",
                "restore the files, or pass --accept-model (accept_model=True) if the change cannot alter the past",
            )
        policies = unpack(pack(self._policies))  # as the journal gives them back: tuples are arrays there
        if opened["sources"] != policies:
            names = [n for n in {*opened["sources"], *policies} if opened["sources"].get(n) != policies.get(n)]
            raise ModelChanged(
                f"{path}: source {', '.join(map(repr, sorted(names)))} is connected in another way",
                "a run goes on with the sources that began it",
                "connect them as before, or pass --accept-model (accept_model=True)",
            )

    def _summary(self, reason: str, factor: float, wall_s: float) -> Summary:
        store, host = self._store, self._host
        if store is None or host is None:
            raise InternalError("the session", "a summary is made by a twin that ran", "report this")
        return Summary(
            digest=self.digest(),
            reason=reason,
            virtual_time_s=in_seconds(self._run.at),
            journal_records=store.journal.size,
            head=self.head,
            events=self.env.events,
            outputs=self._run.published,
            undeliverable=self.env.undeliverable,
            **self._gate.counts(),
            refused=self._run.refused,
            dead=self._gate.dead(),
            sinks=self._outbox.counts(),
            lag_s_max=host.lag_s_max,
            seed=self.seed,
            epoch=self.epoch.isoformat(),
            factor=factor,
            resumed=self._resumed,
            interrupted=reason == "interrupted",
            wall_s=wall_s,
        )


Build = Callable[[Twin], Any]


def _checked_name(name: str) -> str:
    """A source's or sink's name, as journal records can hold it."""
    if not 0 < len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX or not name.isprintable():
        raise OperatorError(f"name {name!r:.80}", f"1 to {NAME_BYTES_MAX} bytes of printable text", "give another name")
    return name


def _differs(difference: Mapping[str, Any]) -> ModelError:
    return ModelError(
        f"the mark at {in_seconds(difference['tick']):.3f} s (record {difference['mark']}): "
        f"{', '.join(difference['parts'])} came out differently",
        "a model is a function of its inputs and its seed",
        "look for the order of sets, id(), time, random, files; run tidewarp replay for the whole comparison",
    )


def open_twin(
    journal: str | Path,
    build: Build,
    *,
    seed: int | None = None,
    factor: float = 0.0,
    epoch: datetime | str | None = None,
    batch: int = _BATCH_MAX,
    resume: bool = True,
    accept_model: bool = False,
    clock: Clock | None = None,
    probe: Probe = SILENT,
) -> Twin:
    """Open a twin: begin its journal, or come back to where an earlier life stopped or was killed.

    An existing journal is replayed at full speed, work in progress included; every mark on the way is
    compared. An existing journal keeps the seed and the epoch that it was begun with.

    Args:
        journal: the file (``NAME.tw``); its key and lock stand beside it. ":memory:" keeps nothing.
        build: the model: a function that wires the twin it is given.
        seed: of all random streams, 0 to 2^64 - 1; 0 by default. An existing journal refuses another one.
        factor: wall seconds per simulated second; 0 = full speed.
        epoch: the instant of tick 0 (aware datetime or ISO 8601). Default: midnight UTC before the first event
            of the first source that has times of its own; without one 1970-01-01.
        batch: inputs per journal record, 1 to 8,192.
        resume: go on with a journal that was begun; False refuses it.
        accept_model: go on although the model's files changed.
        clock: the wall clock; tests hand in a simulated one.
        probe: receives counts and progress.

    Raises:
        OperatorError: the journal cannot be opened, is not one, or belongs to another model or seed.
        StoreLocked: another process runs this twin.
        ModelError: the model came out differently from its own journal.
    """
    refuse_while_loading()
    if not 1 <= batch <= _BATCH_MAX:
        raise OperatorError(f"batch={batch}", f"1 to {_BATCH_MAX} inputs per record", "give a number in this range")
    if seed is not None and not 0 <= seed < 1 << 64:
        raise OperatorError(f"seed={seed}", "a seed is 0 to 2^64 - 1", "give a number in this range")
    Pacer(factor)  # refuses a factor that is none, before anything is begun
    path, epoch_ns = Path(journal), _epoch_ns(epoch)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(open_store(journal, create=True)))
        if store.journal.size and not resume:
            raise OperatorError(
                str(path), "it holds a run, and this one begins its own journal", "add --resume, or name another file"
            )
        if store.journal.size:
            opened = opening(store.journal)
            for what, asked, begun in (("seed", seed, opened["seed"]), ("epoch_ns", epoch_ns, opened["epoch_ns"])):
                if asked is not None and asked != begun:
                    raise OperatorError(f"{what}={asked}", f"{path} was begun with {begun}", "leave it out to go on")
            seed, epoch_ns = opened["seed"], opened["epoch_ns"]
        twin = Twin(seed=seed or 0, epoch_ns=epoch_ns, live=True, batch=batch, probe=probe)
        stack.push(twin)
        twin._wire(build)
        twin._begin(store, path, clock or WallClock(), factor, accept_model)
        stack.pop_all()
    return twin


def _epoch_ns(epoch: datetime | str | None) -> int | None:
    if epoch is None:
        return None
    if isinstance(epoch, datetime):
        if epoch.tzinfo is None:
            raise OperatorError(f"epoch={epoch!r}", "an instant needs a time zone", "give tzinfo=datetime.UTC")
        epoch = epoch.isoformat()
    try:
        return parse_instant(epoch, UTC)
    except CodecError as error:
        raise OperatorError(f"epoch={epoch!r:.80}", error.rule, error.action) from error
