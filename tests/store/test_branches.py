"""Branches of a journal: a prefix that is shared, records of one's own behind it, and nothing of it anywhere else."""

from __future__ import annotations

import gzip
import os
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.codec import CHECKPOINT, INPUT, genesis, record_hash, timed_body
from tidewarp.codec.bodies import BRANCH, BranchBody
from tidewarp.errors import CodecError, Corrupt, InternalError, NotFound, OperatorError, TidewarpError
from tidewarp.store import Entry, MemoryStore, SqliteStore, check_file, open_store
from tidewarp.testing.journals import JournalConformance
from tidewarp.testing.machine import check_journal, entries_of

GOLDEN = Path(__file__).parent.parent / "golden" / "live-0.1.0.tw.gz"


class Branched:
    """A branch, and the store whose end is its end."""

    def __init__(self, store, journal):
        self.store, self.journal = store, journal

    def close(self):
        self.store.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def filled(store):
    """With records of all sorts, and a cursor."""
    store.journal.append([Entry(INPUT, timed_body(200, b"210"), last_tick=210), Entry(0x80, b"x")], cursors={"a": b"1"})
    store.put(b"an artifact")
    return store


class TestBranchOfMemory(JournalConformance):
    begun = 4

    def create(self, folder):
        store = filled(MemoryStore())
        return Branched(store, store.journal.branch("a"))


class TestBranchOfAFile(JournalConformance):
    """Which is only read."""

    begun = 4

    def create(self, folder):
        filled(SqliteStore(folder / "a.tw", create=True)).close()
        store = SqliteStore(folder / "a.tw", read_only=True)
        return Branched(store, store.journal.branch("a"))


class TestBranchOfABranch(JournalConformance):
    """Both parents have gone on since."""

    begun = 6

    def create(self, folder):
        store = filled(SqliteStore(folder, create=True))
        one = store.journal.branch("a")
        one.append([Entry(CHECKPOINT, timed_body(0, b""))], cursors={"b": b"2"})
        two = one.branch("a")
        for journal in (store.journal, one):
            journal.append([Entry(INPUT, timed_body(0, b"5"), last_tick=5)] * 3, cursors={"a": b"9", "c": b"9"})
        return Branched(store, two)


class TestBranchOfNothing(JournalConformance):
    begun = 1

    def create(self, folder):
        store = MemoryStore()
        return Branched(store, store.journal.branch("a"))


SPANS = st.tuples(st.integers(-20, 20), st.integers(0, 12), st.booleans())
PARTS = st.lists(st.lists(SPANS, max_size=8), min_size=1, max_size=4)


def inputs(spans):
    """Inputs that span so many ticks from the first on; one in two does not say its end."""
    return [
        Entry(INPUT, timed_body(first, b"%d" % (first + length)), last_tick=first + length if says else None)
        for first, length, says in spans
    ]


def told(record):
    return int(record.body[8:])


def naive(records, window, last_of):
    """The inputs that overlap a window, by their first tick and their number."""
    found = [(int.from_bytes(one.body[:8], "big", signed=True), one.seq, one) for one in records if one.kind == INPUT]
    return [one for tick, _, one in sorted(found) if tick <= window[1] and last_of(one) >= window[0]]


@settings(max_examples=25, deadline=None)
@given(PARTS, PARTS, st.lists(st.tuples(st.integers(-25, 25), st.integers(0, 20)), min_size=1, max_size=5))
def test_each_branch_is_the_list_up_to_its_cut_and_its_own(tmp_path_factory, parts, others, windows):
    """In both stores, of branches of branches, whatever comes behind the cuts: records, chain, windows, ends, positions."""
    file = tmp_path_factory.mktemp("branches") / "a.tw"
    with MemoryStore() as memory, SqliteStore(file, create=True) as sqlite:
        for store in (memory, sqlite):
            journal, wanted, chain = store.journal, [], []
            for n, spans in enumerate(parts):
                journal.append(inputs(spans), cursors={"a": b"%d" % n})
                wanted = [*wanted, *inputs(spans)]
                branch = journal.branch("é")
                body = BranchBody(journal.domain, len(wanted), journal.head, "é")
                assert branch.domain == sha256(b"TWBR1" + body.to_bytes()).digest()
                assert journal.branch("é").domain == branch.domain != journal.branch("e").domain
                chain.append((journal, wanted, {"a": b"%d" % n}))
                journal, wanted = branch, [*wanted, Entry(BRANCH, body.to_bytes())]
            chain.append((journal, wanted, chain[-1][2]))
            for n, spans in enumerate(others):  # behind all cuts, of each
                for place, (one, before, positions) in enumerate(chain):
                    one.append(inputs(spans), cursors={"b": b"%d" % n})
                    chain[place] = one, [*before, *inputs(spans)], {**positions, "b": b"%d" % n}
            for one, entries, positions in chain:
                check_journal(one, [entry._replace(last_tick=None) for entry in entries])
                assert one.cursors() == positions
                assert one.cursor("b") == positions["b"]
                records = list(one.read())
                ends = {n: entry.last_tick for n, entry in enumerate(entries, 1) if entry.kind == INPUT}
                assert {seq: one.last_tick(seq) for seq in ends} == ends
                for first, length in windows:
                    window = first, first + length
                    assert list(one.read_time(*window, last_tick_of=told)) == naive(records, window, told)
                    blind = naive(
                        records, window, lambda record, ends=ends: 99 if ends[record.seq] is None else told(record)
                    )
                    assert list(one.read_time(*window)) == blind
                for after in range(0, len(records) + 2, 3):
                    for limit in (None, 0, 2):
                        assert list(one.read(after, limit)) == records[after:][:limit]
                        assert (
                            list(one.read(after, limit, {BRANCH}))
                            == [record for record in records[after:] if record.kind == BRANCH][:limit]
                        )
    assert check_file(file).records == sum(map(len, [parts[0], *others]))


def stores(tmp_path):
    return [MemoryStore(), SqliteStore(tmp_path / "a.tw", create=True)]


def test_nothing_of_a_branch_is_anywhere_else(tmp_path):
    """Not in the file, in heads, snapshots, the state hash, the list of domains; the parent goes on as if it were not."""
    for store in stores(tmp_path):
        with store:
            filled(store)

            def seen(store=store):
                journal = store.journal
                state = store.state_hash(), store.state_hash("all"), store.snapshot(), store.domains()
                return *state, journal.head, journal.size, journal.cursors(), list(journal.read())

            before = seen()
            branch = store.journal.branch("a")
            branch.append([Entry(0x02, b"no artifact"), Entry(CHECKPOINT, timed_body(0, b""))] * 5, cursors={"a": b"7"})
            assert seen() == before
            assert list(store.records(branch.domain)) == []
            assert store.hash_at(branch.domain, 5) is None
            assert store.fsck().problems == ()
            record = next(iter(branch.read(after=3)))
            assert (record.header.flags, record.header.hlc, record.header.prev) == (0, 0, genesis(branch.domain))
            assert record_hash(record.header.to_bytes()) == next(iter(branch.read(after=4))).header.prev
    assert check_file(tmp_path / "a.tw").records == 3


def test_a_branch_begins_with_what_is_durable(tmp_path):
    """Not in one's own open transaction; beside that of another thread, of a file, without what is not committed yet."""
    for store in stores(tmp_path):
        with store, pytest.raises(InternalError, match="leave the block"), store.transaction():
            store.journal.branch("a")
    with SqliteStore(tmp_path / "a.tw") as store, store.transaction():
        store.journal.append([Entry(0x80, b"")], cursors={"a": b"1"})
        found = []
        thread = threading.Thread(target=lambda: found.append(store.journal.branch("a")))
        thread.start()
        thread.join()
        (branch,) = found
        assert entries_of(branch)[:-1] == []
        assert (branch.size, branch.cursors()) == (1, {})


def test_its_rules_are_those_of_a_journal(tmp_path):
    for store in stores(tmp_path):
        with filled(store):
            journal = store.journal.branch("é" * 512)
            for name in ("", "é" * 513, "a\0b", "\ud800", 7):
                with pytest.raises(CodecError, match="name has 1 to"):
                    journal.branch(name)
                with pytest.raises(CodecError, match="name has 1 to"):
                    store.journal.branch(name)
            store.journal.append(inputs([(0, 0, True)] * 9))
            for seq in (-1, 0, 2, 4, 5, 9):
                with pytest.raises(NotFound, match="no record of inputs"):
                    journal.last_tick(seq)
            with pytest.raises(OperatorError, match="window"):
                journal.read_time(1, 0)
            assert (journal.journal, journal.close()) == (journal, None)
            assert journal.size == 4


def calls(journal):
    return [
        lambda: journal.size,
        lambda: journal.head,
        lambda: journal.append([]),
        lambda: journal.submit([]),
        lambda: journal.read(after=journal._cut.size),
        lambda: journal.read_time(0, 1),
        lambda: journal.last_tick(1),
        journal.cursors,
        lambda: journal.cursor("a"),
        lambda: journal.branch("b"),
    ]


def test_it_ends_with_its_parent(tmp_path):
    """Closed, or in a child process: every call says so."""
    for store in stores(tmp_path):
        journal = filled(store).journal.branch("a").branch("b")
        store.close()
        for call in calls(journal):
            with pytest.raises(InternalError, match="closed"):
                call()
    with SqliteStore(tmp_path / "a.tw") as store:
        journal = store.journal.branch("a")
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            said = b""
            for call in calls(journal):
                try:
                    call()
                    said += b"0"
                except TidewarpError as error:
                    said += b"1" if "fork()" in error.rule else b"2"
            os.write(writing, said)
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        with os.fdopen(reading, "rb") as answer:
            assert answer.read() == b"1" * len(calls(journal))


def test_damage_behind_the_cut_is_none_of_a_branch(tmp_path):
    """And damage in the prefix is found, also where it is the very record that was continued."""
    with filled(SqliteStore(tmp_path / "a.tw", create=True)) as store:
        branch = store.journal.branch("a")
        store.journal.append(inputs([(0, 0, True)]))
        store._db.execute("UPDATE log SET body = X'00' WHERE id & 15 = 4")
        assert len(entries_of(branch)) == 4
        with pytest.raises(Corrupt, match="record 4"):
            list(store.journal.read())
        store._db.execute("UPDATE log SET flags = 0 WHERE id & 15 = 3")
        with pytest.raises(Corrupt, match="record 3"):
            list(branch.read(after=2))


def test_a_file_of_format_1_can_be_branched(tmp_path):
    """Though it takes no artifacts."""
    file = tmp_path / "old.tw"
    file.write_bytes(gzip.decompress(GOLDEN.read_bytes()))
    with open_store(file, read_only=True) as store:
        branch = store.journal.branch("a")
        assert entries_of(branch)[:-1] == entries_of(store.journal)
        assert branch.cursors() == store.journal.cursors()
        branch.append(inputs([(0, 5, True)]))
        assert branch.last_tick(branch.size) == 5
        check_journal(branch, entries_of(branch))
