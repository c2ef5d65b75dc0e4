"""Shards divide the work and nothing else: hashes, references, rows and their order are those of an undivided store."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import MEMBERS
from query_sites import HISTORIES, NODES, OWN_KEY, Sites, scanned
from tidewarp.codec import INPUT, record_hash, timed_body
from tidewarp.codec.artifacts import TAG_EDGE
from tidewarp.codec.bodies import decode_body
from tidewarp.errors import Corrupt, OperatorError
from tidewarp.store import Entry, MemoryStore, ShardMap, SqliteStore, open_store
from tidewarp.store.query import (
    Aggregation,
    IndexFilter,
    LimitOffset,
    Merge,
    Projection,
    SegmentScan,
    ShardDispatch,
    SIMDFilter,
    TGKTraversal,
    TombstoneShadow,
    running,
)

COUNTS = st.sampled_from([1, 2, 7, 64, 256])
MAPS = st.one_of(
    COUNTS.map(ShardMap.even),
    st.sets(st.integers(1, 255), max_size=6).map(lambda bounds: ShardMap(tuple(sorted(bounds)))),
)
PLANS = (
    SegmentScan(),
    SegmentScan(seq=(2, 4)),
    IndexFilter(SegmentScan(), tag=7),
    IndexFilter(SegmentScan(), node=NODES[0]),
    SIMDFilter(SegmentScan(), tag=TAG_EDGE),
    Merge((SegmentScan(frozenset({2})), SegmentScan(frozenset({3, 16})))),
    TombstoneShadow(IndexFilter(SegmentScan(), type=1), "mark"),
    Projection(SegmentScan(), ("ref", "seq")),
    LimitOffset(SegmentScan(), 3, 2),
    Aggregation(SegmentScan(), "max", "seq", ("kind",)),
    TGKTraversal(tuple(NODES), "both"),
)


def shard_of(record, bounds):
    """Where a record belongs, from the words of the documentation: by the reference that it is about, or else its hash."""
    kinds = (2, 3, 4, 0x10, 0x11, 0x12)
    said = decode_body(record.header.kind, record.body) if record.body and record.header.kind in kinds else None
    digest = record_hash(record.header.to_bytes()) if said is None or said.ref is None else said.ref.to_bytes()[2:]
    return sum(bound <= digest[0] for bound in bounds)


def check_shards(store, view, expected):
    """The shards of the store are a partition of the rows of a view, and no plan has other rows by them."""
    bounds = store.shard_map.bounds
    records = list(view.records())
    for shard in range(store.shard_map.count):
        wanted = [row for row, record in zip(expected, records, strict=True) if shard_of(record, bounds) == shard]
        assert list(view.run(SegmentScan(shard=shard))) == wanted
    for plan in PLANS:
        assert list(view.run(ShardDispatch(plan))) == list(view.run(plan))
    node = IndexFilter(SegmentScan(shard=0), node=NODES[0])
    assert list(view.run(node)) == [
        row for row in view.run(SegmentScan(shard=0)) if NODES[0] in (*(row["sources"] or ()), *(row["targets"] or ()))
    ]


def is_right(store):
    """Whether a check finds nothing wrong with the shards; these sites sign nothing, and send no bytes."""
    return "shard" not in [one.kind for one in store.fsck().problems]


def local(store):
    """What a store writes itself: records about artifacts, and about none."""
    refs = store.put_many([(b"own %d" % n, 7) for n in range(5)])
    store.put(b"internal", publish=False)
    store.tombstone(refs[0])
    store.erase(refs[1])
    store.point("name", refs[2])
    store.journal.append([Entry(INPUT, timed_body(n, b""), 1) for n in range(3)])
    return refs


@settings(deadline=None, max_examples=25)
@given(HISTORIES, st.lists(st.tuples(MAPS, st.integers(0, 8)), min_size=1, max_size=4))
def test_no_sequence_of_maps_changes_an_answer(tmp_path_factory, history, steps):
    """Records come before, between and behind; the two stores, and one that was never divided, agree on everything."""
    sites = Sites(history)
    plain = MemoryStore(OWN_KEY, admission=MEMBERS)
    folder = tmp_path_factory.mktemp("shards")
    first = steps[0][0]
    memory = MemoryStore(OWN_KEY, shard_map=first, admission=MEMBERS)
    sqlite = SqliteStore(folder / "a.tw", create=True, key=bytes(32), admission=MEMBERS)
    with plain, memory, sqlite:
        sqlite.reshard(first)
        size = 0
        for shard_map, more in steps:
            for store in (plain, memory, sqlite):
                sites.give(store, size, size + more)
            size += more
            for store in (memory, sqlite):
                store.reshard(shard_map)
                assert store.shard_map == shard_map
            assert plain.state_hash() == memory.state_hash()
        refs = [local(store) for store in (plain, memory, sqlite)]
        assert refs[0] == refs[1] == refs[2]
        assert plain.state_hash("all") == memory.state_hash("all")
        assert [one for one in sqlite.view().visible() if one not in refs[0]] == [
            one for one in plain.view().visible() if one not in refs[0]
        ]
        for store in (memory, sqlite):
            for scope in ("published", "all"):
                view = store.view(scope=scope)
                check_shards(store, view, scanned(view))
        assert scanned(plain.view()) == scanned(memory.view())
        assert is_right(sqlite)


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_a_store_that_is_made_divided_is_the_store_that_it_would_have_been(tmp_path, count):
    """Equal calls give equal references, state hash and journal, whatever the number of shards."""
    key = bytes(range(32))
    with (
        open_store(tmp_path / "a.tw", create=True, key=key) as plain,
        open_store(tmp_path / "b.tw", create=True, key=key, shards=count) as divided,
    ):
        assert divided.shard_map.count == count
        assert local(plain) == local(divided)
        for scope in ("published", "all"):
            assert plain.state_hash(scope) == divided.state_hash(scope)
        assert plain.journal.head == divided.journal.head
        assert scanned(plain.view(scope="all")) == list(divided.view(scope="all").run(ShardDispatch(SegmentScan())))
        with open_store(tmp_path / "b.tw", read_only=True) as beside:
            assert beside.shard_map == ShardMap.even(count)
    with open_store(":memory:", shards=count) as store:
        assert store.shard_map.count == count


@given(COUNTS, st.binary(min_size=32, max_size=32))
def test_shards_are_ranges_that_leave_nothing_out(count, digest):
    """Ascending with the digest; even ones differ by one first byte at most."""
    shard_map = ShardMap.even(count)
    places = [shard_map.shard_of(bytes([first]) + digest[1:]) for first in range(256)]
    assert places == sorted(places)
    sizes = [places.count(shard) for shard in range(count)]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert ShardMap.from_bytes(shard_map.to_bytes()) == shard_map


@pytest.mark.parametrize(
    "make",
    [
        lambda: ShardMap.even(0),
        lambda: ShardMap.even(257),
        lambda: ShardMap((0,)),
        lambda: ShardMap((256,)),
        lambda: ShardMap((4, 4)),
        lambda: ShardMap((5, 4)),
        lambda: SegmentScan(shard=-1),
        lambda: SegmentScan(shard=256),
        lambda: open_store(":memory:", shards=0),
    ],
)
def test_what_is_no_division_is_refused(make):
    with pytest.raises(OperatorError):
        make()


def stores(folder):
    return MemoryStore(), SqliteStore(folder / "a.tw", create=True)


def test_a_shard_that_there_is_not_is_refused(tmp_path):
    for store in stores(tmp_path):
        with store:
            store.put(b"one")
            store.reshard(ShardMap.even(3))
            for plan in (SegmentScan(shard=3), SIMDFilter(SegmentScan(shard=3), tag=7)):
                with pytest.raises(OperatorError, match="3 shards, numbered from 0"):
                    list(store.view().run(plan))


def test_columns_are_those_of_a_shard(tmp_path):
    """Each artifact is in the columns of one shard; they are made anew when the store is divided in another way."""
    for store in stores(tmp_path):
        with store:
            refs = store.put_many([(b"%d" % n, None) for n in range(40)])
            store.reshard(ShardMap((0x40, 0x80)))
            view = store.view()
            found = [list(view.columns(shard).ordinals) for shard in range(3)]
            assert sorted(one for part in found for one in part) == sorted(refs)
            assert all(one.digest[0] < 0x40 for one in found[0])
            assert all(one.digest[0] >= 0x80 for one in found[2])
            assert view.columns(1) is view.columns(1)
            store.reshard(ShardMap((0x80,)))
            assert sorted(view.columns(1).ordinals) == sorted(found[2])


def test_rows_that_were_begun_go_on_by_the_old_shards(tmp_path, monkeypatch):
    """Also where they are read beside the writer, by another handle."""
    monkeypatch.setattr(running, "_PAGE", 16)
    with SqliteStore(tmp_path / "a.tw", create=True) as store:
        store.put_many([(b"%d" % n, None) for n in range(100)])
        store.reshard(ShardMap.even(2))
        with SqliteStore(tmp_path / "a.tw", read_only=True) as beside:
            for reader in (store, beside):
                view = reader.view()
                expected = [list(view.run(SegmentScan(shard=shard))) for shard in (0, 1)]
                begun = [view.run(SegmentScan(shard=shard)) for shard in (0, 1)]
                firsts = [next(rows) for rows in begun]
                store.reshard(ShardMap.even(5))
                assert [[first, *rows] for first, rows in zip(firsts, begun, strict=True)] == expected
                assert len(list(view.run(SegmentScan(shard=0)))) < len(expected[0])
                store.reshard(ShardMap.even(2))


def test_a_division_that_is_undone_was_never_made(tmp_path):
    """It is a part of the transaction that it is in."""
    for store in stores(tmp_path):
        with store:
            store.put(b"one")
            store.reshard(ShardMap.even(2))
            with suppress(RuntimeError), store.transaction():
                store.reshard(ShardMap.even(64))
                store.put(b"two")
                assert len(list(store.view().run(ShardDispatch(SegmentScan())))) == 2
                raise RuntimeError("undone")
            assert store.shard_map.count == 2
            assert len(list(store.view().run(ShardDispatch(SegmentScan())))) == 1
            assert store.fsck().clean


def test_a_death_at_any_statement_leaves_one_division_or_the_other(tmp_path):
    """The files as they lie before each statement of the division are a sound store, with the records that it had."""
    place = tmp_path / "a.tw"
    with SqliteStore(place, create=True) as store:
        store.put_many([(b"%d" % n, None) for n in range(20)])
        store.reshard(ShardMap.even(2))
        before = store.state_hash()
        copies = []

        def keep(statement):
            copy = tmp_path / str(len(copies))
            copy.mkdir()
            for file in tmp_path.glob("a.tw*"):
                if not file.name.endswith("-shm"):
                    shutil.copy(file, copy / file.name)
            copies.append((statement, copy))

        store._db.set_trace_callback(keep)
        store.reshard(ShardMap.even(7))
        store._db.set_trace_callback(None)
        keep("behind it")
    counts = []
    for _, copy in copies:
        with SqliteStore(copy / "a.tw") as left:
            counts.append(left.shard_map.count)
            assert left.fsck().clean
            assert left.state_hash() == before
            assert len(list(left.view().run(ShardDispatch(SegmentScan())))) == 20
    assert counts == [2] * (len(counts) - 1) + [7]
    assert any(statement.startswith("INSERT INTO shard") for statement, _ in copies)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM shard WHERE id = (SELECT max(id) FROM shard)",
        "UPDATE shard SET no = 1 - no WHERE id = (SELECT max(id) FROM shard)",
        "INSERT INTO shard VALUES (7, 0)",
        "UPDATE meta SET value = x'20' WHERE name = 'shards'",
        "DELETE FROM meta WHERE name = 'shards'",
    ],
)
def test_a_wrong_row_is_found_and_made_anew(tmp_path, damage):
    place = tmp_path / "a.tw"
    with SqliteStore(place, create=True) as store:
        refs = store.put_many([(b"%d" % n, None) for n in range(20)])
        store.reshard(ShardMap.even(2))
    change(place, damage)
    with SqliteStore(place) as store:
        assert [one.kind for one in store.fsck().problems] == ["shard"]
        assert store.fsck(repair=True).clean
        assert store.fsck().problems == ()
        found = [row["ref"] for row in store.view().run(ShardDispatch(SegmentScan()))]
        assert found == refs


@pytest.mark.parametrize("value", [b"", b"\0", b"\2\2", b"\3\2"])
def test_a_map_that_is_none_is_damage(tmp_path, value):
    place = tmp_path / "a.tw"
    with SqliteStore(place, create=True) as store:
        store.reshard(ShardMap.even(2))
    change(place, "UPDATE meta SET value = ? WHERE name = 'shards'", value)
    with pytest.raises(Corrupt, match="table meta"):
        SqliteStore(place)


def change(place, statement, *values):
    db = sqlite3.connect(place, isolation_level=None)
    assert db.execute(statement, values).rowcount > 0
    db.close()


def test_records_that_are_taken_back_leave_no_place(tmp_path):
    """What is cut off a domain is in no shard any more, and its branch comes in anew."""
    sites = Sites([(0, ("add", n, None)) for n in range(6)])
    with SqliteStore(tmp_path / "a.tw", create=True, admission=MEMBERS) as store:
        store.reshard(ShardMap.even(7))
        sites.give(store)
        store.cut_back(sites.authors[0].domain, 2)
        assert len(list(store.view().run(ShardDispatch(SegmentScan())))) == 2
        assert is_right(store)
        sites.give(store, first=2)
        assert is_right(store)


def test_the_work_of_a_division_grows_with_the_records_and_no_faster(tmp_path):
    """Counted in steps of SQLite's machine: four times the records, far less than sixteen times the steps."""
    steps = []
    with SqliteStore(tmp_path / "a.tw", create=True) as store:
        for size in (500, 2_000):
            store.put_many([(b"%d" % n, None) for n in range(size)])
            ticks = []
            store._db.set_progress_handler(partial(ticks.append, None), 100)
            store.reshard(ShardMap.even(7))
            store._db.set_progress_handler(None, 0)
            store.reshard(ShardMap.even(1))
            steps.append(len(ticks))
    assert 0 < steps[1] < 8 * steps[0]


def test_a_plan_says_how_many_read(tmp_path):
    with SqliteStore(tmp_path / "a.tw", create=True) as store:
        store.put(b"one")
        store.reshard(ShardMap.even(4))
        plan = ShardDispatch(IndexFilter(SegmentScan(shard=2), tag=7))
        assert store.view().explain(plan).splitlines() == [
            "ShardDispatch: one reader for each of 4 shards, merged",
            "  IndexFilter(tag=7, role=both): no index: each row looked at",
            "    SegmentScan(shard=2): records of 1 domains in shard 2 of 4, merged",
        ]
