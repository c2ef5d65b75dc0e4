"""Stamps say when a record was written, ascend whatever the wall does, and nothing reads them."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.codec.batches import BODY, BatchItem
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.records import HLC_MAX, PUBLISHED
from tidewarp.store import Entry, MemoryStore, SqliteStore, check_file, open_store
from tidewarp.store.audit import audit
from tidewarp.store.stamps import stamp_ns, stamps
from tidewarp.testing import ManualClock

MS = 10**6
NOON_NS = 1_780_000_000_000 * MS
SEED = bytes(range(32))


class Jumping(ManualClock):
    """A wall clock that the test sets."""

    ns = NOON_NS

    def unix_ns(self):
        return self.ns


WALLS = st.lists(st.tuples(st.integers(-(1 << 70), 1 << 70) | st.integers(0, 50 * MS), st.integers(0, 5)), max_size=12)


@given(WALLS, st.integers(0, HLC_MAX) | st.integers(0, 1 << 20))
def test_stamps_ascend_and_are_never_behind_the_wall(walls, last):
    """By one where the wall has not come further; so they are ahead of it by its jumps back alone."""
    clock = Jumping()
    given_out = stamps(clock, last)
    for ns, count in walls:
        clock.ns = ns
        now = min(max(ns, 0) // MS << 16, HLC_MAX)
        for stamp in islice(given_out, count):
            assert stamp == max(now, min(last + 1, HLC_MAX))
            assert stamp > last or stamp == last == HLC_MAX
            last = stamp


def test_a_full_counter_carries_into_the_ms():
    """After 65,536 records in one of them; the wall takes over again when it has come so far."""
    clock = Jumping()
    found = list(islice(stamps(clock, 0), (1 << 16) + 2))
    assert (found[0], found[-1]) == (NOON_NS // MS << 16, (NOON_NS // MS + 1 << 16) + 1)
    assert (stamp_ns(found[0]), stamp_ns(found[-1])) == (NOON_NS, NOON_NS + MS)
    clock.ns += 2 * MS
    assert next(stamps(clock, found[-1])) == NOON_NS // MS + 2 << 16


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "submit", "put", "many", "undone", "transaction", "reopen"]), st.integers(-9, 9)
    ),
    max_size=10,
)


def written(store, what, n):
    """One step; it writes something with a body of its own."""
    text = b"%d" % n
    match what:
        case "append":
            store.journal.append([Entry(0x80, text)] * 3)
        case "submit":
            for future in [store.journal.submit([Entry(0x80, text)] * 2) for _ in range(3)]:
                future.result(30)
        case "put":
            store.put(text)
        case "many":
            store.put_many([(text + b"a", None), (text + b"b", 7)])
        case "undone":
            with suppress(ZeroDivisionError), store.transaction():
                store.put(text)
                raise ZeroDivisionError
        case "transaction":
            with store.transaction():
                store.put(text)
                store.journal.append([Entry(0x80, text)])


@settings(max_examples=20, deadline=None)
@given(STEPS)
def test_both_stores_stamp_alike_over_all_lives(tmp_path_factory, steps):
    """Whatever writes, and wherever the wall jumps; chain, file and views are whole, and one record has one stamp."""
    folder, clock = tmp_path_factory.mktemp("stamps"), Jumping()
    memory = MemoryStore(seed=SEED, clock=clock)
    sqlite = SqliteStore(folder / "a.tw", create=True, key=SEED, clock=clock)
    for n, (what, jump_ms) in enumerate(steps):
        clock.ns += jump_ms * MS
        if what == "reopen":
            sqlite.close()
            sqlite = SqliteStore(folder / "a.tw", clock=clock)
        for store in (memory, sqlite):
            written(store, what, n)
    with memory, sqlite:
        headers = [record.header for record in sqlite.journal.read()]
        assert headers == [record.header for record in memory.journal.read()]
        assert all(one.hlc < other.hlc for one, other in pairwise(headers))
        assert all(abs(stamp_ns(one.hlc) - NOON_NS) <= 90 * MS for one in headers)
        assert sqlite.state_hash("all") == memory.state_hash("all")
        assert audit(sqlite).findings == ()
    assert check_file(folder / "a.tw").records == len(headers)


def test_without_a_clock_nothing_is_stamped(tmp_path):
    """So equal calls give equal bytes; and a stamp of an earlier life changes nothing of that."""
    heads = set()
    for name in ("a.tw", "b.tw", ":memory:"):
        place = name if name == ":memory:" else tmp_path / name
        with open_store(place, create=True, key=SEED) as store:
            written(store, "append", 1)
            assert {record.header.hlc for record in store.journal.read()} == {0}
            heads.add(store.journal.head if name != ":memory:" else None)
    assert len(heads) == 2
    clock = Jumping()
    for chosen in (clock, None, clock):
        with open_store(tmp_path / "a.tw", clock=chosen) as store:
            store.journal.append([Entry(0x80, b"")])
            found = [record.header.hlc for record in store.journal.read()]
        clock.ns += MS
    assert found[-3:] == [NOON_NS // MS << 16, 0, NOON_NS // MS + 2 << 16]
    assert check_file(tmp_path / "a.tw").records == len(found)


def test_a_tail_that_came_back_is_continued(tmp_path):
    """Its stamps are above the wall of now: what is written next is above them."""
    clock = Jumping()
    with MemoryStore(seed=SEED, clock=clock) as whole:
        clock.ns += 3600 * 1000 * MS
        whole.journal.append([Entry(0x80, b"%d" % n, PUBLISHED) for n in range(3)])
        items = [BatchItem(one.header, BODY, one.body, None) for one in whole.records(whole.domain)]
        head = whole.signed_head()
    clock.ns = NOON_NS
    for store in (
        MemoryStore(seed=SEED, clock=clock),
        SqliteStore(tmp_path / "a.tw", create=True, key=SEED, clock=clock),
    ):
        with store:
            store.adopt(store.domain, items, head, key=public_key_of(SEED))
            store.journal.append([Entry(0x80, b"")])
            assert [one.header.hlc for one in store.journal.read()][-2:] == [
                items[-1].header.hlc,
                items[-1].header.hlc + 1,
            ]
