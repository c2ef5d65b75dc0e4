"""The session: one model in step with one physical thing, through one journal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Final, NamedTuple

from tidewarp.clocks import Clock, WallClock
from tidewarp.connect.contract import Output, RunIdentity
from tidewarp.errors import InternalError, ModelError, OperatorError, TidewarpError
from tidewarp.store import Journal, Store
from tidewarp.twin.documents import RESUME, Resumed, entry, platform_of
from tidewarp.twin.follow import Follower, differs
from tidewarp.twin.host import InlineHost
from tidewarp.twin.pace import Pace
from tidewarp.twin.run import Run, tick_at
from tidewarp.twin.summary import Summary
from tidewarp.twin.wiring import Wiring
from tidewarp.units import Duration, in_seconds

__all__ = ["CATCH_UP", "Build", "Pacing", "Twin"]

CATCH_UP: Final = ("fast", "pause")
_SWITCH_S: Final = 0.0005  # a source's thread, holding bytes for a decoder, must not keep the clock waiting for 5 ms


class Pacing(NamedTuple):
    """As given to open: wall seconds per simulated second (None: it depends on the sources), and one of CATCH_UP."""

    factor: float | None = None
    catch_up: str = "fast"


class Twin(Wiring):
    """What a model's ``build(twin)`` receives, and what runs it. Made by ``tw.open``; a context manager."""

    _host: InlineHost | None = None
    _store: Store | None = None
    _clock: Clock = WallClock()
    _pacing = Pacing()
    _anchor = (0, 0)  # where the last life began: tick and Unix ns
    _resumed = False
    _failed = False

    def run(
        self, until: Duration | datetime | None = None, *, factor: float | None = None, go_live: bool = False
    ) -> Summary:
        """Run until virtual time ``until`` (exclusive), or to the end of all data, or until :meth:`stop`.

        Blocks. On return every output is delivered and the journal holds a mark with the digest.

        Args:
            until: seconds since the epoch, text like "8h", timedelta, or an aware datetime.
            factor: wall seconds per simulated second; 0 = full speed. Default: as given to open.
            go_live: at full speed until virtual time meets the wall's present, then in step with it (factor 1).

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
        pace = self._pace(host, factor, go_live)  # refuses what is no factor, before anything is written
        started_s, unix_ns = self._clock.now(), self._clock.unix_ns()
        if self._resumed:
            how = self._pacing.catch_up
            resumed = Resumed(
                self._run.at, self._model.digest, self._policies, **platform_of(), unix_ns=unix_ns, catch_up=how
            )
            store.journal.append([entry(RESUME, resumed.tick, resumed.document())])
        self._anchor = (self._run.at, unix_ns)
        host.open_sources(self._sources, self._decoders)
        self._failed = True  # unless it comes back: what was admitted but not journaled must not be passed over
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        try:
            reason = host.go(limit, pace)
        finally:
            sys.setswitchinterval(interval_s)
        self._failed = False
        summary = Summary(
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
            factor=pace.factor,
            repairs=host.repairs,
            resumed=self._resumed,
            interrupted=reason == "interrupted",
            wall_s=self._clock.now() - started_s,
        )
        self._resumed = True
        return summary

    def _pace(self, host: InlineHost, factor: float | None, go_live: bool) -> Pace:
        """Where the run begins, and where virtual time is by the wall."""
        wanted = self._pacing.factor if factor is None else factor
        if wanted is None:
            wanted = 1.0 if go_live or self._gate.lives else 0.0
        pace = Pace(self._clock, 1.0 if go_live and wanted == 0.0 else wanted)
        by_the_wall = go_live or self._live_times
        if by_the_wall and pace.factor != 1.0:
            raise OperatorError(
                f"factor {wanted:g} with " + ("go_live" if go_live else f"source {self._live_times[0]!r}"),
                "event times of live sources are those of the wall, and so is a twin that goes live: factor 1",
                "run with factor 1, or connect the source with time='arrival'",
            )
        at = max(self._run.at, host.delivered_tick())
        due_s: float | None = None
        if by_the_wall:
            due_s = (self._clock.unix_ns() - (self._epoch_ns or 0)) / 1e9 - self._hold_s
        elif (
            self._resumed
            and pace.factor > 0
            and self._gate.lives
            and self._pacing.catch_up == "fast"
            and self._anchor[1]
        ):
            tick, unix_ns = self._anchor
            passed_s = (self._clock.unix_ns() - unix_ns) / 1e9
            due_s = max(in_seconds(at), in_seconds(tick) + passed_s / pace.factor)
        pace.start(at, due_s)
        return pace

    def _rebuild(self, journal: Journal, floor: int, at: int) -> tuple[Run, list[Output]]:
        """The run anew from the journal, with all its inputs below ``floor``, up to tick ``at``; and all its outputs."""
        fresh = Twin(self._build, seed=self.seed, epoch_ns=self._epoch_ns, live=False)
        fresh._wire()
        outputs: list[Output] = []
        follower = Follower(journal, fresh._gate, fresh._run, outputs.extend, halt=at)
        follower.follow()
        follower.follow_to(floor)
        if follower.first_difference is not None:
            raise differs(follower.first_difference, ())
        self.env, self._run, self._documents = fresh.env, fresh._run, fresh._documents
        self._gate.judge_by(fresh.registry.rule)
        return fresh._run, outputs

    @property
    def follows_the_wall(self) -> bool:
        """Is there a source that the clock does not wait for? Then the run has no end of its own."""
        return self._gate.lives

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
        try:
            if self._host is not None:
                self._host.close()
        finally:
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
        with contextlib.suppress(TidewarpError):  # after a full disk closing fails too: the first error counts
            self.close()

    def _identity(self, domain: bytes) -> RunIdentity:
        if self._epoch_ns is None:
            raise InternalError("the epoch", "it is settled once the model is wired", "report this")
        return RunIdentity(domain.hex(), self._epoch_ns)

    def _attach(self, store: Store, host: InlineHost, clock: Clock, pacing: Pacing) -> None:
        """From now on it can run."""
        self._store, self._host, self._clock, self._pacing = store, host, clock, pacing
        self._resumed = store.journal.size > 0


Build = Callable[[Twin], Any]
"""A model: a function that wires the twin it is given. What it returns is not looked at."""
