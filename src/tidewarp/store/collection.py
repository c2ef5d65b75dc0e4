"""Garbage collection: drops the bytes of artifacts that nobody needs any more (:mod:`.retention`), and keeps every record.

It begins with candidates, which indices name: artifacts that a tombstone or an erasure speaks of, then the blocks that
these leave behind, then blocks that no artifact refers to, which a crash or a put that failed has left. So its cost follows
what may go. It goes round: each call begins where the last one stopped, and is complete when it has come back there.

Every transaction is short, so that writers come in between, and says in ``gc_state`` how far it has come: a crash loses
nothing but the place. A block of a directory is unlinked while a transaction is open in which nothing refers to it, and
after the transaction that dropped the last reference is durable; what a crash leaves of that stands in ``orphan``.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tidewarp.clocks.pacing import Clock
from tidewarp.codec.references import Reference
from tidewarp.store.arrivals import Arrivals
from tidewarp.store.artifacts import ArtifactTable
from tidewarp.store.blocks import Blocks
from tidewarp.store.connection import DATABASE_ERRORS
from tidewarp.store.domains import DomainTable
from tidewarp.store.handle import Handle
from tidewarp.store.holdings import TOGETHER_MAX, Candidate, NamingRecords, TableHoldings
from tidewarp.store.journal import SqliteJournal
from tidewarp.store.pins import Pins
from tidewarp.store.retention import GcReport, Guard, Retention, check_budget
from tidewarp.store.schema import ABSENT
from tidewarp.store.views import Views

__all__ = ["Collector"]

_ROWS_MAX = 1_000  # that one transaction writes
_RESERVED = 6  # rows beside those of artifacts and extents: where it has come, and the domain's own
_SLICE_S = 0.05  # that one transaction may take; writers wait so long
_PAGE = 500  # candidates that are looked up at once
_TOGETHER_BYTES = 1 << 20  # of candidates whose records are read together: those of edges may be as long
_COUNT_MAX = 10_000  # of candidates that are left

_CANDIDATE, _HALFWAY, _BLOCK = "candidate", "halfway", "block"  # names in gc_state


class Collector:
    """The collections of one open store.

    Args:
        handle, journal, artifacts, blocks, domains, views: its parts.
        arrivals: the blocks that puts are about to use.
        pins: of the store.
        make_views: views of the same store, for this object alone.
    """

    def __init__(
        self,
        handle: Handle,
        journal: SqliteJournal,
        artifacts: ArtifactTable,
        blocks: Blocks,
        arrivals: Arrivals,
        domains: DomainTable,
        pins: Pins,
        views: Views,
        make_views: Callable[[], Views],
    ) -> None:
        self._handle = handle
        self._journal = journal
        self._artifacts = artifacts
        self._blocks = blocks
        self._arrivals = arrivals
        self._domains = domains
        self._pins = pins
        self._views = views
        self._make_views = make_views

    def run(self, budget_s: float, guards: Sequence[Guard], dry_run: bool, clock: Clock) -> GcReport:
        """As the contract of the store says."""
        check_budget(budget_s, in_transaction=self._handle.in_transaction)
        return _Round(self, budget_s, guards, dry_run, clock).run()

    def drop_orphans(self) -> None:
        """Remove the blocks that are on their way out, but for those that somebody uses."""
        after = b""
        while names := self._orphans(after):
            with self._journal.transaction("gc") as transaction:
                for name in names:
                    self.drop_orphan(transaction.db, name)
            after = names[-1]

    def drop_orphan(self, db: sqlite3.Connection, name: bytes) -> tuple[bool, int]:
        """Remove a block in the open transaction, if nothing names it and nobody brings it; whether, and its bytes."""
        with self._arrivals.departure(name) as is_free:
            if db.execute("SELECT 1 FROM extent WHERE block = ? LIMIT 1", (name,)).fetchone():
                db.execute("DELETE FROM orphan WHERE block = ?", (name,))
                return False, 0
            if not is_free:
                return False, 0
            size = self._blocks.drop(name)
            db.execute("DELETE FROM orphan WHERE block = ?", (name,))
            return True, size

    def _orphans(self, after: bytes) -> list[bytes]:
        statement = "SELECT block FROM orphan WHERE block > ? ORDER BY block LIMIT 64"
        return [name for (name,) in self._handle.select("gc", statement, after)]


class _Round:
    """One collection."""

    def __init__(
        self, collector: Collector, budget_s: float, guards: Sequence[Guard], dry_run: bool, clock: Clock
    ) -> None:
        self._parts = collector
        self._handle = collector._handle
        self._guards = guards
        self._dry_run = dry_run
        self._clock = clock
        self._begun = clock.now()
        self._end = self._begun + budget_s
        self._tables = TableHoldings(self._handle, collector._domains, collector._make_views)
        views = collector._views
        self._naming = NamingRecords(self._handle, self._tables, views, collector._journal.domain)
        self._kept: Counter[str] = Counter()
        self._bytes = 0
        self._artifacts = 0

    def run(self) -> GcReport:
        remaining = self._collect_artifacts()
        is_complete = not remaining and self._remove_orphans() and self._sweep()
        seconds = self._clock.now() - self._begun
        return GcReport(self._bytes, self._artifacts, dict(self._kept), remaining, seconds, is_complete)

    # --- artifacts

    def _collect_artifacts(self) -> int:
        """Look at the candidates, once round; how many are left."""
        self._finish_halfway()
        start = int.from_bytes(self._place(_CANDIDATE), "big")
        for first, last in ((start, None), (0, start)):
            place = first
            while not self._is_over:
                page = self._candidates(place, last)
                if not page:
                    break
                place = self._collect_page(page)
                self._finish_halfway()
            else:
                return self._count(place, last) + (self._count(0, start) if last is None else 0)
            if last is None:
                self._keep_place(_CANDIDATE, b"")
            if not start:
                break
        return 0

    def _collect_page(self, page: list[Candidate | int]) -> int:
        """Look at candidates of a page, as many as one transaction may; the number of the last one."""
        with self._stage() as db:
            until = min(self._end, self._clock.now() + _SLICE_S)
            retention = self._retention()
            place, left = 0, _ROWS_MAX - _RESERVED
            known = 0  # how many of the page were read together
            for n, one in enumerate(page):
                if place and (left <= 0 or self._clock.now() >= until):
                    break
                if n == known:
                    known = self._read_together(page, n)
                place = one if isinstance(one, int) else one.no
                if not isinstance(one, int):
                    left -= self._collect(db, retention, one, left)
                    if left < 0:
                        break
            if db is not None:
                self._write_place(db, _CANDIDATE, place.to_bytes(8, "big"))
        return place

    def _read_together(self, page: list[Candidate | int], first: int) -> int:
        """Read what is asked of the next candidates of a page; behind which one it ended."""
        chunk: list[Candidate] = []
        size = 0
        for n, one in enumerate(page[first : first + TOGETHER_MAX], first):
            if not isinstance(one, int):
                size += one.size
                if chunk and size > _TOGETHER_BYTES:
                    self._tables.read_together(chunk)
                    return n
                chunk.append(one)
        self._tables.read_together(chunk)
        return first + TOGETHER_MAX

    def _collect(self, db: sqlite3.Connection | None, retention: Retention, one: Candidate, left: int) -> int:
        """Drop the bytes of one, if nothing is against it; rows that were written, more than ``left`` if some are left."""
        reason = retention.reason(one.ref)
        if reason is not None:
            self._kept[reason] += 1
            return 0
        self._artifacts += 1
        self._bytes += one.size
        if db is None:
            return 0
        self._parts._artifacts.let_go(db, one.no)
        if not one.is_split:
            return 1
        most = max(left - 1, 2) // 2  # each extent is a row, and its block may become one
        cleared = self._parts._artifacts.clear_extents(db, one.no, most)
        if cleared == most:
            self._write_place(db, _HALFWAY, one.no.to_bytes(8, "big"))
            return left + 1
        return 1 + 2 * cleared

    def _finish_halfway(self) -> None:
        """Clear the extents of an artifact that had too many for one transaction."""
        while not self._dry_run and not self._is_over and (place := self._place(_HALFWAY)):
            with self._stage() as db:
                most = (_ROWS_MAX - _RESERVED) // 2
                no = int.from_bytes(place, "big")
                if db is not None and self._parts._artifacts.clear_extents(db, no, most) < most:
                    self._write_place(db, _HALFWAY, b"")

    def _retention(self) -> Retention:
        self._naming.read(self._tables.refresh())
        own, admission = self._parts._journal.domain, self._parts._views.admission
        unsettled, named = self._naming.unsettled, self._naming.named
        return Retention(self._tables, admission, own, unsettled, named, self._parts._pins.all(), self._guards)

    def _candidates(self, after: int, last: int | None) -> list[Candidate | int]:
        """The candidates behind a number, up to ``last``; of those whose bytes are not here the number alone."""
        statement = (
            "SELECT DISTINCT event.artifact, artifact.ref, artifact.size, artifact.bytes IS NULL, artifact.state"
            " FROM event INDEXED BY event_hiding CROSS JOIN artifact ON artifact.no = event.artifact"
            f" WHERE event.kind IN (16, 18) AND event.artifact > ? AND event.artifact <= ?"
            f" ORDER BY event.artifact LIMIT {_PAGE}"
        )
        rows = self._handle.select("gc", statement, after, (1 << 63) - 1 if last is None else last)
        return [
            Candidate(no, Reference.from_bytes(ref), size, bool(is_split)) if state != ABSENT else no
            for no, ref, size, is_split, state in rows
        ]

    def _count(self, after: int, last: int | None) -> int:
        statement = (
            "SELECT count(*) FROM (SELECT DISTINCT event.artifact FROM event INDEXED BY event_hiding"
            " CROSS JOIN artifact ON artifact.no = event.artifact AND artifact.state != 1"
            " WHERE event.kind IN (16, 18) AND event.artifact > ? AND event.artifact <= ?"
            f" LIMIT {_COUNT_MAX})"
        )
        ((count,),) = self._handle.select("gc", statement, after, (1 << 63) - 1 if last is None else last)
        return int(count)

    # --- blocks

    def _remove_orphans(self) -> bool:
        """Remove the blocks that the dropped artifacts had; whether none is left but those that somebody uses."""
        after = b""
        while not self._dry_run and (names := self._parts._orphans(after)):
            with self._stage() as db:
                for name in names:
                    if self._is_over or db is None:
                        return False
                    self._parts.drop_orphan(db, name)
                    after = name
        return True

    def _sweep(self) -> bool:
        """Remove the blocks that no artifact refers to, once round, and what is left of others; whether it came round."""
        if not self._dry_run:
            self._bytes += self._parts._blocks.drop_drafts()
        start = self._place(_BLOCK)
        for first, last in ((start, None), (b"", start)):
            place = first
            for name in self._parts._blocks.names(first):
                if last is not None and name > last:
                    break
                if self._is_over:
                    self._keep_place(_BLOCK, place)
                    return False
                self._sweep_block(name)
                place = name
            if last is None:
                self._keep_place(_BLOCK, b"")
            if not start:
                break
        return True

    def _sweep_block(self, name: bytes) -> None:
        if self._handle.select("gc", "SELECT 1 FROM extent WHERE block = ? LIMIT 1", name):
            return
        with self._stage() as db:
            if db is not None:
                _, size = self._parts.drop_orphan(db, name)
                self._bytes += size

    # --- parts

    @property
    def _is_over(self) -> bool:
        return self._clock.now() >= self._end

    @contextmanager
    def _stage(self) -> Iterator[sqlite3.Connection | None]:
        """A transaction; None where nothing is to be written."""
        if self._dry_run:
            yield None
            return
        with self._parts._journal.transaction("gc") as transaction:
            try:
                yield transaction.db
            except DATABASE_ERRORS as error:
                self._handle.fail(error, "tables of artifacts")

    def _place(self, name: str) -> bytes:
        rows = self._handle.select("gc", "SELECT place FROM gc_state WHERE name = ?", name)
        return rows[0][0] if rows else b""

    def _keep_place(self, name: str, place: bytes) -> None:
        if self._place(name) != place:
            with self._stage() as db:
                if db is not None:
                    self._write_place(db, name, place)

    def _write_place(self, db: sqlite3.Connection, name: str, place: bytes) -> None:
        if place:
            db.execute("INSERT OR REPLACE INTO gc_state VALUES (?, ?)", (name, place))
        else:
            db.execute("DELETE FROM gc_state WHERE name = ?", (name,))
