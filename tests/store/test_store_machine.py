"""Both stores against a list and a dict."""

from __future__ import annotations

import tempfile
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidewarp.codec import CHECKPOINT, DIGEST, INPUT, PUBLISHED, Record, RecordHeader, genesis, record_hash, timed_body
from tidewarp.errors import StoreLocked
from tidewarp.store import Appended, Entry, MemoryStore, SqliteStore, check_file, open_store

TIMED = st.builds(
    lambda kind, tick, body, flags: Entry(kind, timed_body(tick, body), flags),
    st.sampled_from([INPUT, CHECKPOINT, DIGEST]),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=20),
    st.sampled_from([0, PUBLISHED]),
)
OTHER = st.builds(Entry, st.sampled_from([0x02, 0x80, 0xFF]), st.binary(max_size=20), st.just(0))
ENTRIES = st.lists(TIMED | OTHER, max_size=5)
SOURCES = st.sampled_from(["a", "b", "é", "a b'\"%?#", "x" * 1024])
CURSORS = st.dictionaries(SOURCES, st.binary(max_size=10), max_size=3)


class Stores(RuleBasedStateMachine):
    """What is acknowledged is in the list; each store has to agree with it at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "a %3f#.tw"
        self.store = SqliteStore(self.path, create=True)
        (key,) = self.store._db.execute("SELECT value FROM meta WHERE name = 'root_public_key'").fetchone()
        self.memory = MemoryStore(key)
        self.entries: list[Entry] = []
        self.positions: dict[str, bytes] = {}
        self.waiting: list[tuple[Future[Appended], Appended]] = []

    def note(self, entries: list[Entry], cursors: dict[str, bytes]) -> Appended:
        memory = self.memory.journal.submit(entries, cursors=cursors)
        assert memory.done()
        first = len(self.entries) + 1
        self.entries += entries
        self.positions |= cursors
        assert memory.result()[:2] == (first, len(self.entries))
        return memory.result()

    @rule(entries=ENTRIES, cursors=CURSORS)
    def append(self, entries: list[Entry], cursors: dict[str, bytes]) -> None:
        assert self.store.journal.append(entries, cursors=cursors) == self.note(entries, cursors)
        assert all(future.done() for future, _ in self.waiting), "an append overtook a submission"

    @rule(entries=ENTRIES, cursors=CURSORS)
    def submit(self, entries: list[Entry], cursors: dict[str, bytes]) -> None:
        self.waiting.append((self.store.journal.submit(entries, cursors=cursors), self.note(entries, cursors)))

    @rule()
    def wait(self) -> None:
        for future, expected in self.waiting:
            assert future.result() == expected
        self.waiting.clear()

    @precondition(lambda self: not self.waiting)
    @rule(
        after=st.integers(0, 12),
        limit=st.none() | st.integers(0, 6),
        kinds=st.none() | st.sets(st.sampled_from([INPUT, DIGEST, 0x80, 7])),
    )
    def read(self, after: int, limit: int | None, kinds: set[int] | None) -> None:
        expected = [
            (seq, entry)
            for seq, entry in enumerate(self.entries, 1)
            if seq > after and (kinds is None or entry.kind in kinds)
        ][:limit]
        for store in (self.store, self.memory):
            got = list(store.journal.read(after, limit, kinds))
            assert [(one.seq, Entry(one.kind, one.body, one.header.flags)) for one in got] == expected

    @rule()
    def reopen(self) -> None:
        """Closing commits what is queued."""
        self.store.close()
        self.wait()
        assert {one.name for one in self.path.parent.iterdir()} == {
            self.path.name + end for end in ("", ".key", ".lock")
        }
        self.store = SqliteStore(self.path)

    @rule()
    def second_writer(self) -> None:
        with pytest.raises(StoreLocked, match=r"process \d+"):
            open_store(self.path)

    @precondition(lambda self: not self.waiting)
    @rule()
    def stand_beside(self) -> None:
        """A reader, and the check of the whole file, see what the writer acknowledged."""
        with open_store(self.path, read_only=True) as beside:
            assert list(beside.journal.read()) == list(self.memory.journal.read())
            assert beside.journal.cursors() == self.positions
        assert check_file(self.path) == (len(self.entries), self.memory.journal.head, self.memory.journal.domain)

    @precondition(lambda self: not self.waiting)
    @invariant()
    def agree(self) -> None:
        for journal in (self.store.journal, self.memory.journal):
            assert journal.size == len(self.entries)
            assert journal.head == self.memory.journal.head
            assert list(journal.cursors().items()) == sorted(self.positions.items())
            assert journal.cursor("a") == self.positions.get("a")
            assert journal.cursor("nobody") is None
        records = list(self.store.journal.read())
        assert records == list(self.memory.journal.read())
        verify_by_hand(self.memory.journal.domain, records, self.memory.journal.head)

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


def verify_by_hand(domain: bytes, records: list[Record], head: bytes) -> None:
    """The chain as the specification words it."""
    prev = genesis(domain)
    for seq, (header, body) in enumerate(records, 1):
        assert (header.domain, header.seq, header.prev, header.body_len) == (domain, seq, prev, len(body))
        assert RecordHeader.from_bytes(header.to_bytes()) == header
        prev = record_hash(header.to_bytes())
    assert prev == head


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
