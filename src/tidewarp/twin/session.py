"""The session: one model in step with one physical thing, through one journal."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from math import inf
from types import TracebackType
from typing import Any, Final, NamedTuple

from tidewarp.clocks import Clock, WallClock
from tidewarp.collector import collector_spared
from tidewarp.connect.contract import RunIdentity, counts_of
from tidewarp.errors import InternalError, ModelError, OperatorError, TidewarpError
from tidewarp.store import Journal, JournalHolder
from tidewarp.twin.documents import RESUME, Resumed, entry, platform_of
from tidewarp.twin.facts import holds_run
from tidewarp.twin.handles import Handles
from tidewarp.twin.host import Host
from tidewarp.twin.pace import Pace
from tidewarp.twin.redrive import Redriven, redrive
from tidewarp.twin.run import tick_at
from tidewarp.twin.summary import Summary
from tidewarp.units import Duration, in_seconds, ticks

__all__ = ["CATCH_UP", "Build", "Pacing", "Twin"]

CATCH_UP: Final = ("fast", "pause")
_SWITCH_S: Final = 0.0005  # a source's thread, holding bytes for a decoder, must not keep the clock waiting for 5 ms


class Pacing(NamedTuple):
    """As given to open: wall seconds per simulated second (None: it depends on the sources), one of CATCH_UP, and wall
    seconds between two observations.
    """

    factor: float | None = None
    catch_up: str = "fast"
    observe_s: float = 0.0


class Twin(Handles):
    """What a model's ``build(twin)`` receives, and what runs it. Made by ``tw.open``; a context manager."""

    _store: JournalHolder | None = None
    _clock: Clock = WallClock()
    _pacing = Pacing()
    _anchor = (0, 0)  # where the last life began: tick and Unix ns
    _resumed = False

    def run(
        self,
        until: Duration | datetime | None = None,
        *,
        factor: float | None = None,
        go_live: bool = False,
        lag_limit: Duration | None = None,
    ) -> Summary:
        """Run until virtual time ``until`` (exclusive), or to the end of all data, or until :meth:`stop`.

        Blocks. On return every output is delivered and the journal holds a mark with the digest.

        Args:
            until: seconds since the epoch, text like "8h", timedelta, or an aware datetime.
            factor: wall seconds per simulated second; 0 = full speed. Default: as given to open.
            go_live: at full speed until virtual time meets the wall's present, then in step with it (factor 1).
            lag_limit: wall seconds; later than that, the run stops in order, and the summary's reason is "lag".

        Raises:
            ModelError: the model raised; the journal says where, and resuming repeats it.
            OperatorError: a source, a sink or the store gave up; what was acknowledged is in the journal.
        """
        host, store = self._host, self._store
        if host is None or store is None:
            raise ModelError(
                "twin.run()", "build wires a twin, its caller runs it", "call run() on what open() returned"
            )
        limit = None if until is None else tick_at(until, self._epoch_ns or 0)
        if limit is not None and limit < 0:
            raise OperatorError(f"until={until}", f"time begins at the epoch, {self.epoch}", "give a later time")
        with contextlib.ExitStack() as stack:
            with self._turn:
                self._refuse_busy()
                host.control.begin()
                # It refuses what is no factor, before anything is written.
                pace = self._pace(host, factor, go_live, lag_limit)
                started_s, unix_ns = self._clock.now(), self._clock.unix_ns()
                if self._resumed:
                    how = self._pacing.catch_up
                    resumed = Resumed(
                        host.run.at, self._model.digest, self._policies, **platform_of(), unix_ns=unix_ns, catch_up=how
                    )
                    store.journal.append([entry(RESUME, resumed.tick, resumed.document())])
                self._anchor = (host.run.at, unix_ns)
                stack.enter_context(self._running())  # what a source's thread sets by `apply` is queued from here on
            stack.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(_SWITCH_S)
            stack.enter_context(collector_spared())
            host.open_sources(self._sources, self._decoders)
            reason = host.go(limit, pace)
            if self._pacing.catch_up == "pause":
                pace.end()  # what comes between two runs has come now
            with self._turn:
                host.settle_local()
                summary = self._summary(host, store, pace, reason, started_s)
                self._resumed = True
                self._come_to_rest(failed=False)
        return summary

    def _summary(self, host: Host, store: JournalHolder, pace: Pace, reason: str, started_s: float) -> Summary:
        run = host.run  # a repair may have put another one there
        return Summary(
            digest=self.digest(),
            reason=reason,
            virtual_time_s=in_seconds(run.at),
            journal_records=store.journal.size,
            head=self.head,
            events=run.events,
            outputs=run.published,
            undeliverable=run.undeliverable,
            **self._gate.sources.counts(),
            refused=run.refused,
            dead=self._gate.sources.dead(),
            shed=self._shed(),
            sources=self._told_of_sources(),
            sinks=self._told(),
            behind=self._outbox.lacking(),
            lag_s_max=host.lag_s_max,
            seed=self.seed,
            epoch=self.epoch.isoformat(),
            factor=pace.factor,
            repairs=host.repairs,
            horizon_cuts=host.horizon_cuts,
            resumed=self._resumed,
            interrupted=reason == "interrupted",
            wall_s=self._clock.now() - started_s,
        )

    def _told_of_sources(self) -> dict[str, dict[str, Any]]:
        """Source -> its state, the reason of that, and what its connector counts."""
        return {
            name: {**counts_of(self._sources[name]), "state": told["state"], "reason": told["reason"]}
            for name, told in self._gate.sources.told().items()
        }

    def _told(self) -> dict[str, dict[str, Any]]:
        """Sink -> its counts: the outbox's, and its own, such as numbers that became null (JSON has no form for them)."""
        unobserved = {} if self._host is None else self._host.unobserved()
        return {
            name: {"nonfinite": 0, **counts_of(self._sinks[name]), **one, "unobserved": unobserved.get(name, 0)}
            for name, one in self._outbox.counts().items()
        }

    def _shed(self) -> dict[str, int]:
        """Source -> messages let go: by its full queue here, or by its connector because nobody had asked for them."""
        shed = self._gate.sources.shed()
        for name, source in self._sources.items():
            dropped = counts_of(source).get("dropped", 0)
            if dropped or name in shed:
                shed[name] = shed.get(name, 0) + dropped
        return shed

    def _pace(self, host: Host, factor: float | None, go_live: bool, lag_limit: Duration | None) -> Pace:
        """Where the run begins, and where virtual time is by the wall."""
        given = self._pacing.factor if self._factor is None else self._factor
        wanted = given if factor is None else factor
        if wanted is None:
            wanted = 1.0 if go_live or self._gate.sources.lives else 0.0
        by_the_wall = bool(go_live or self._live_times)
        limit_s = inf if lag_limit is None else in_seconds(ticks(lag_limit))
        if limit_s < 0:
            raise OperatorError(f"lag_limit={lag_limit!r}", "a run is late by 0 s or more", "give a length of time")
        real = 1.0 if go_live and wanted == 0.0 else wanted
        pace = Pace(self._clock, real, by_calendar=by_the_wall, lag_limit_s=limit_s)
        if by_the_wall and pace.factor != 1.0:
            raise OperatorError(
                f"factor {pace.factor:g} with " + ("go_live" if go_live else f"source {self._live_times[0]!r}"),
                "event times of live sources are those of the wall, and so is a twin that goes live: factor 1",
                "run with factor 1, or connect the source with time='arrival', or with wait=True if its messages are recorded",
            )
        at = max(host.run.at, host.delivered_tick())
        due_s: float | None = None
        if by_the_wall:
            due_s = (self._clock.unix_ns() - (self._epoch_ns or 0)) / 1e9 - self._hold_s
        elif (
            self._resumed
            and pace.factor > 0
            and self._gate.sources.lives
            and self._pacing.catch_up == "fast"
            and self._anchor[1]
        ):
            tick, unix_ns = self._anchor
            passed_s = (self._clock.unix_ns() - unix_ns) / 1e9
            due_s = max(in_seconds(at), in_seconds(tick) + passed_s / pace.factor)
        pace.start(at, due_s)
        return pace

    def _anew(self) -> Twin:
        """The same model wired once more, with a gate of its own; no source or sink of it is opened."""
        fresh = Twin(self._build, seed=self.seed, epoch_ns=self._epoch_ns, live=False, guard=self._guarded)
        fresh._wire()
        fresh._run.cuts_from = self._run.cuts_from
        return fresh

    def _take_over(self, fresh: Twin) -> None:
        """Go on with the model of another one."""
        self.env, self._run, self._documents = fresh.env, fresh._run, fresh._documents
        self._run.again = self._go_on_from
        self._gate.judge_by(fresh.registry.rule)

    @property
    def follows_the_wall(self) -> bool:
        """Is there a source that the clock does not wait for? Then the run has no end of its own."""
        return self._gate.sources.lives

    def redrive(self, source: str) -> Redriven:
        """Admit the dead letters of ``source`` again, after a model change: those that fit now are inputs of the next `run`.

        They are decoded, checked and journaled as any message; none is stamped below where the clock stands, whatever
        its own time. What was driven once is not driven again, and a letter that is unfit still stays one. Call it between
        two runs. Blocks until all is durable; opens no source.

        Raises:
            OperatorError: no such source, or a run is under way.
            MissingExtra: a server that the decoder asks for schemas cannot be reached.
        """
        if self._host is None or self._store is None:
            rule = "build wires a twin, its caller drives it"
            raise ModelError("twin.redrive()", rule, "call it on what open() returned")
        with self._turn:
            self._refuse_busy()
            return redrive(self, self._host, self._store.journal, source)

    def _refuse_busy(self) -> None:
        """Called in turn, by what is done between two runs. Raises OperatorError."""
        if self._is_under_way:
            raise OperatorError("this twin", "a run is under way", "wait until run() has returned")
        self._refuse_at_end()

    def stop(self) -> None:
        """End a run at the next completed instant. Safe from other threads and signal handlers.

        Called when no run is in progress it ends the next one at once, so that a request cannot be lost.
        """
        if self._host is not None:
            self._host.stop()

    def digest(self) -> str:
        """The run digest (TWRUN1) up to now, hex. Not while a run is under way in another thread."""
        with self._turn:
            return (self._run if self._host is None else self._host.run).digest()

    @property
    def head(self) -> str:
        """The hash of the journal's last record, hex: kept elsewhere, it shows later that no tail was cut off."""
        if self._store is None:
            raise ModelError("twin.head", "a twin without a journal has none", "ask what open() returned")
        return self._store.journal.head.hex()

    def branch(self, name: str) -> Journal:
        """A what-if continuation of this run, from all that its journal holds now. Safe from any thread, also during a run.

        ``tw.open`` runs on it, ``tw.replay`` replays it, and this run goes on as if it were not there. It is held in memory,
        and can be used until this twin is closed. There may be any number of them.

        Raises:
            CodecError: the name has not 1 to 1,024 bytes of UTF-8 without NUL.
        """
        if self._store is None:
            raise ModelError("twin.branch()", "a twin without a journal has none", "ask what open() returned")
        return self._store.journal.branch(name)

    def close(self) -> None:
        """Close connectors and journal. Safe to call twice, and from any thread: a run under way is stopped first, in order.

        Raises:
            OperatorError: called from within the run.
        """
        me = threading.get_ident()
        with self._turn:
            if self._is_under_way and self._runner == me:
                rule = "the run that is under way is in this thread"
                raise OperatorError("twin.close()", rule, "call stop(), and close it when run() has returned")
            self._is_closed = True  # so that no other run begins
            while self._is_under_way or self._closer not in (None, me):
                if self._is_under_way:
                    self.stop()
                self._turn.wait()
            self._closer = me  # not in turn: a connector that is waited for may be in `apply`
        try:
            self._end()
        finally:
            with self._turn:
                self._closer = None
                self._turn.notify_all()

    def _end(self) -> None:
        try:
            if self._host is not None:
                self._seal(self._host)
                self._host.close()
        finally:
            if self._store is not None:
                self._store.close()

    def _seal(self, host: Host) -> None:
        """What `apply` has set since the last run is to be part of what a replay is compared with."""
        if not self._failed:
            try:
                host.seal()
            except BaseException:
                self._failed = True
                host.close()
                raise

    def __enter__(self) -> Twin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(TidewarpError):  # after a full disk closing fails too: the first error counts
            self.close()

    def _identity(self, domain: bytes) -> RunIdentity:
        if self._epoch_ns is None:
            raise InternalError("the epoch", "it is settled once the model is wired", "report this")
        return RunIdentity(domain.hex(), self._epoch_ns)

    def _attach(self, store: JournalHolder, host: Host, clock: Clock, pacing: Pacing) -> None:
        """From now on it can run; first of all in a recovery, in this thread."""
        self._runner = threading.get_ident()
        self._store, self._host, self._clock, self._pacing = store, host, clock, pacing
        self._resumed = holds_run(store.journal)


Build = Callable[[Twin], Any]
"""A model: a function that wires the twin it is given. What it returns is not looked at."""
