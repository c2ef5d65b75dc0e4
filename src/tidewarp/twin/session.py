"""The session: one model in step with one physical thing, through one journal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any

from tidewarp.clocks import Clock, Pacer, WallClock
from tidewarp.connect.contract import RunIdentity
from tidewarp.errors import InternalError, ModelError, OperatorError, TidewarpError
from tidewarp.store import Store
from tidewarp.twin.documents import RESUME, Resumed, entry, platform_of
from tidewarp.twin.host import InlineHost
from tidewarp.twin.run import tick_at
from tidewarp.twin.summary import Summary
from tidewarp.twin.wiring import Wiring
from tidewarp.units import Duration, in_seconds

__all__ = ["Build", "Twin"]


class Twin(Wiring):
    """What a model's ``build(twin)`` receives, and what runs it. Made by ``tw.open``; a context manager."""

    _host: InlineHost | None = None
    _store: Store | None = None
    _clock: Clock = WallClock()
    _factor = 0.0
    _resumed = False
    _failed = False

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
            resumed = Resumed(self._run.at, self._model.digest, self._policies, **platform_of())
            store.journal.append([entry(RESUME, resumed.tick, resumed.document())])
        host.open_sources(self._sources)
        self._failed = True  # unless it comes back: what was admitted but not journaled must not be passed over
        reason = host.go(limit, pace)
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
            factor=pace,
            resumed=self._resumed,
            interrupted=reason == "interrupted",
            wall_s=self._clock.now() - started_s,
        )
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

    def _attach(self, store: Store, host: InlineHost, clock: Clock, factor: float) -> None:
        """From now on it can run."""
        self._store, self._host, self._clock, self._factor = store, host, clock, factor
        self._resumed = store.journal.size > 0


Build = Callable[[Twin], Any]
"""A model: a function that wires the twin it is given. What it returns is not looked at."""
