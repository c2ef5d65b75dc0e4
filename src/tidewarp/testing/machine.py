"""The state machine of the suite for stores: any sequence of calls, against a list and a dict."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

from tidewarp.codec import CHECKPOINT, DIGEST, INPUT, PUBLISHED, Record, RecordHeader, genesis, record_hash, timed_body
from tidewarp.codec.bodies import BranchBody
from tidewarp.store.contract import NAME_BYTES_MAX, Entry, Journal, JournalHolder, Written
from tidewarp.testing.suites import SAFETY_S, stateful, strategies

__all__ = ["StoreMachine", "check_journal", "entries_of"]

_TIMED = strategies.builds(
    lambda kind, tick, body, flags: Entry(kind, timed_body(tick, body), flags),
    strategies.sampled_from([INPUT, CHECKPOINT, DIGEST]),
    strategies.integers(-(2**63), 2**63 - 1),
    strategies.binary(max_size=20),
    strategies.sampled_from([0, PUBLISHED]),
)
_OTHER = strategies.builds(
    Entry,
    strategies.sampled_from([0x02, 0x80, 0xFF]),
    strategies.binary(max_size=20),
    strategies.just(0),
    strategies.none(),
)
_ENTRIES = strategies.lists(_TIMED | _OTHER, max_size=5)
_SOURCES = strategies.sampled_from(["a", "b", "é", "a b'\"%?#", "x" * NAME_BYTES_MAX])
_CURSORS = strategies.dictionaries(_SOURCES, strategies.binary(max_size=10), max_size=3)


class StoreMachine(stateful.RuleBasedStateMachine):
    """Any sequence of calls against a list and a dict. A store's own rules go into a class derived from this one."""

    _patience_s: ClassVar[float] = SAFETY_S

    def __init__(self, create: Callable[[Path], JournalHolder], reopen: Callable[[Path], JournalHolder] | None) -> None:
        super().__init__()
        self._reopen = reopen
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self.store = create(self.folder)
        self.entries = entries_of(self.store.journal)
        self.positions = self.store.journal.cursors()
        self.waiting: list[tuple[Future[Written], int, int]] = []

    @stateful.rule(entries=_ENTRIES, cursors=_CURSORS)
    def append(self, entries: list[Entry], cursors: dict[str, bytes]) -> None:
        """Behind all that was submitted before, and durable when it returns."""
        appended = self.store.journal.append(entries, cursors=cursors)
        assert appended[:2] == self._note(entries, cursors), "first and last sequence number"
        assert appended.head == self.store.journal.head, "the head behind the last entry"
        assert all(future.done() for future, _, _ in self.waiting), "an append overtook a submission"

    @stateful.rule(entries=_ENTRIES, cursors=_CURSORS)
    def submit(self, entries: list[Entry], cursors: dict[str, bytes]) -> None:
        """In the order of submission."""
        self.waiting.append((self.store.journal.submit(entries, cursors=cursors), *self._note(entries, cursors)))

    @stateful.rule()
    def wait(self) -> None:
        """Each submission says where it stands."""
        for future, first, last in self.waiting:
            try:
                written = future.result(self._patience_s)
            except TimeoutError:
                StoreMachine._patience_s = 0.1  # it is known now; Hypothesis looks for the shortest way to it
                raise AssertionError("a submission is committed by itself, without a further call") from None
            assert written[:2] == (first, last), "first and last sequence number of a submission"
        self.waiting.clear()

    @stateful.precondition(lambda self: self._reopen is not None)
    @stateful.rule()
    def reopen(self) -> None:
        """Closing commits what is queued, and the next life has all of it."""
        domain = self.store.journal.domain
        self.close()
        assert self._reopen is not None  # the precondition
        self.store = self._reopen(self.folder)
        assert self.store.journal.domain == domain, "a journal keeps its identity"

    @stateful.precondition(lambda self: not self.waiting)
    @stateful.rule(
        after=strategies.integers(0, 12),
        limit=strategies.none() | strategies.integers(0, 6),
        kinds=strategies.none() | strategies.sets(strategies.sampled_from([INPUT, DIGEST, 0x80, 7])),
    )
    def read(self, after: int, limit: int | None, kinds: set[int] | None) -> None:
        """The records behind ``after``, of these kinds, at most so many."""
        wanted = [
            seq for seq, one in enumerate(self.entries, 1) if seq > after and (kinds is None or one.kind in kinds)
        ]
        assert [one.seq for one in self.store.journal.read(after, limit, kinds)] == wanted[:limit]

    @stateful.precondition(lambda self: not self.waiting)
    @stateful.invariant()
    def agree(self) -> None:
        """Records, chain and positions are those of the list and the dict."""
        check_journal(self.store.journal, self.entries)
        assert list(self.store.journal.cursors().items()) == sorted(self.positions.items()), "by name, in byte order"
        assert self.store.journal.cursor("a") == self.positions.get("a")
        assert self.store.journal.cursor("nobody") is None

    def _note(self, entries: list[Entry], cursors: dict[str, bytes]) -> tuple[int, int]:
        first = len(self.entries) + 1
        self.entries += entries
        self.positions |= cursors
        return first, len(self.entries)

    def close(self) -> None:
        """What was queued is committed."""
        self.store.close()
        self.wait()

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.store.close()
        self._temporary.cleanup()


def entries_of(journal: Journal) -> list[Entry]:
    """What the journal holds, without what the entries said beside their records."""
    return [Entry(one.kind, one.body, one.header.flags) for one in journal.read()]


def check_journal(journal: Journal, entries: Sequence[Entry]) -> None:
    """The journal holds exactly ``entries``, chained as the format says: each header commits to body and predecessor.

    Where a branch begins, its first record names what it continues, its domain follows from that, and its chain begins.
    """
    records: list[Record] = list(journal.read())
    assert entries_of(journal) == list(entries), "the records of the journal"
    domain = records[0].header.domain if records else journal.domain
    prev = genesis(domain)
    for seq, (header, body) in enumerate(records, 1):
        if header.domain != domain or (seq == 1 and header.kind == BranchBody.kind):
            branch = BranchBody.from_bytes(body)
            parent = branch.parent if seq == 1 else domain
            assert branch == BranchBody(parent, seq - 1, genesis(parent) if seq == 1 else prev, branch.name), "a branch"
            domain, prev = branch.domain, genesis(branch.domain)
        found = (header.domain, header.seq, header.prev, header.body_len)
        assert found == (domain, seq, prev, len(body)), f"header of record {seq}"
        assert RecordHeader.from_bytes(header.to_bytes()) == header
        prev = record_hash(header.to_bytes())
    assert (journal.domain, journal.size, journal.head) == (domain, len(entries), prev), (
        "domain, size, hash of the last"
    )
