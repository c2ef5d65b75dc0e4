"""The part of the suite for stores that is about what they hold beside the journal: see :mod:`.stores`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from tidewarp.codec import INPUT, PUBLISHED, timed_body
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.bodies import ARTIFACT, ERASE, EraseBody
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.errors import CodecError, Erased, InternalError, NotFound, OperatorError, Withheld
from tidewarp.store.admission import OPEN, Admission
from tidewarp.store.contract import Entry, Store
from tidewarp.store.query import SegmentScan
from tidewarp.store.shards import ShardMap
from tidewarp.store.snapshots import find_snapshot
from tidewarp.testing.artifact_machine import UNKNOWN, ArtifactMachine, Undone
from tidewarp.testing.domains import DomainConformance
from tidewarp.testing.site import Site
from tidewarp.testing.suites import hypothesis, pytest, stateful

__all__ = ["ArtifactMachine", "ContentConformance", "Site"]

_DDL = ("CREATE TABLE test_note (n INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT",)


class ContentConformance(DomainConformance):
    """Tests of what a store holds beside its journal. Give ``create``: see :class:`~tidewarp.testing.stores.StoreConformance`."""

    artifact_machine: type[ArtifactMachine] = ArtifactMachine
    """The state machine over artifacts; replace it to add rules of your own."""

    content_settings = hypothesis.settings(
        max_examples=25, stateful_step_count=20, deadline=None, report_multiple_bugs=False
    )
    """Of that machine."""

    def _reopening(self) -> Callable[[Path], Store] | None:
        return None

    def test_any_sequence_of_puts_gives_what_dicts_give(self) -> None:
        """Puts, edges, tombstones, lifts, undone transactions and lives in any order."""
        machine = partial(self.artifact_machine, self.create, self._reopening())
        stateful.run_state_machine_as_test(cast("Any", machine), settings=self.content_settings)

    def test_a_snapshot_is_found_by_name_and_by_id(self, tmp_path: Path) -> None:
        """A record keeps it: the last of a name counts, a pin before it; what was visible at it is listed."""
        with self.create(tmp_path) as store:
            one = store.put(b"one")
            first = store.snapshot("stock")
            two = store.put(b"two")
            store.tombstone(one)
            second = store.snapshot("stock")
            assert [find_snapshot(store, which) for which in ("stock", first.id())] == [second, first]
            assert list(store.snapshot_items(first.id())) == [(ARTIFACT, one, store.domain, 1)]
            assert [item.ref for item in store.snapshot_items(second.id())] == [two]
            assert store.snapshot() not in (first, second), "the record that names it came behind it"
            assert list(store.snapshot_items(store.snapshot().id())) == list(store.snapshot_items(second.id()))
            with contextlib.suppress(Undone), store.transaction():
                store.snapshot("undone")
                raise Undone
            store.pin("stock", first)
            assert find_snapshot(store, "stock") == first
            for which in ("undone", "", bytes(32)):
                with pytest.raises(NotFound):
                    find_snapshot(store, which)
            for name in ("", "a\0b", "x" * 1_025):
                with pytest.raises(CodecError):
                    store.snapshot(name)

    def test_shards_are_where_the_reference_says(self, tmp_path: Path) -> None:
        """A record is in the shard of the artifact that it is about, or else of its own hash; also one that comes later."""
        site = Site()
        site.put(b"theirs")
        site.write(INPUT, timed_body(5, b"secret"), flags=0)
        with self.create(tmp_path) as store:
            store.put_many([(b"%d" % n, None) for n in range(20)])
            store.reshard(ShardMap((0x55, 0xAA)))
            site.give(store)
            store.tombstone(store.put(b"later"))
            store.journal.append([Entry(INPUT, timed_body(1, b""))])
            view = store.view(scope="all")
            for row in view.run(SegmentScan()):
                digest = row["hash"] if row["ref"] is None else row["ref"].digest
                shard = (digest[0] >= 0x55) + (digest[0] >= 0xAA)
                found = [row in list(view.run(SegmentScan(shard=one))) for one in range(3)]
                assert found == [one == shard for one in range(3)]
            with pytest.raises(OperatorError):
                list(view.run(SegmentScan(shard=3)))

    def test_what_is_not_here_is_told_apart(self, tmp_path: Path) -> None:
        """Never heard of, hidden without an add, named without its bytes, dropped for good."""
        site = Site()
        withheld, erased = site.put(b"large", carry=False), site.put(b"gone", carry=False)
        site.write(ERASE, EraseBody(erased, None, 1).to_bytes())
        with self.create(tmp_path) as store:
            site.give(store)
            stone = Artifact(b"a tombstone alone").reference()
            store.tombstone(stone)
            for ref, wanted in ((UNKNOWN, NotFound), (stone, NotFound), (withheld, Withheld), (erased, Erased)):
                for call in (store.get, store.open):
                    with pytest.raises(wanted):
                        call(ref)
                assert store.has([ref]) == [False]
            assert store.info(withheld) == (withheld, None, 5, "withheld", True, True)
            assert store.info(erased).state == "erased"
            for ref in (UNKNOWN, stone):
                with pytest.raises(NotFound):
                    store.info(ref)
            store.put(b"large")
            assert store.get(withheld) == b"large"
            assert store.info(withheld).state == "here"

    def test_all_of_a_transaction_is_there_or_nothing(self, tmp_path: Path) -> None:
        """Puts, appends, cursors, adopted records and tables of an upper layer; a step that fails alone is undone alone."""
        site = Site()
        ref = site.put(b"theirs")
        with self.create(tmp_path) as store:
            tables = store.extension("test", 1, _DDL)
            with pytest.raises(Undone), store.transaction():
                store.put(b"mine")
                site.give(store)
                tables.execute("INSERT INTO test_note VALUES (1, 'one')")
                store.journal.append([Entry(0x80, b"")], cursors={"s": b"1"})
                raise Undone
            assert store.journal.size == 0
            assert (len(store.domains()), store.journal.cursors(), store.has([ref])) == (1, {}, [False])
            assert tables.execute("SELECT * FROM test_note") == []
            with store.transaction():
                mine = store.put(b"mine")
                with pytest.raises(Undone), store.transaction():
                    store.put(b"undone")
                    tables.execute("INSERT INTO test_note VALUES (1, 'one')")
                    raise Undone
                tables.execute("INSERT INTO test_note VALUES (2, 'two')")
                site.give(store)
                written = store.journal.append([Entry(0x80, b"")], cursors={"s": b"2"})
                assert (written.first_seq, store.journal.size) == (2, 0), "not durable yet"
                with pytest.raises(InternalError):
                    store.journal.submit([Entry(0x80, b"")])
            assert store.journal.size == 2
            assert store.has([mine, ref, Artifact(b"undone").reference()]) == [True, True, False]
            assert tables.execute("SELECT n, text FROM test_note WHERE n > ?", 1) == [(2, "two")]
            assert store.journal.cursor("s") == b"2"

    def test_tables_of_an_upper_layer_are_its_own(self, tmp_path: Path) -> None:
        """Their names begin with its name, they hold data and nothing that runs, and they have one version."""
        with self.create(tmp_path) as store:
            store.extension("test", 1, _DDL)
            store.extension("test", 1, _DDL)
            for name, version, ddl in (
                ("test", 1, ("CREATE TABLE test_note (n INTEGER)",)),
                ("other", 1, ("CREATE TABLE test_more (n INTEGER)",)),
                ("other", 1, ("CREATE TRIGGER other_t AFTER INSERT ON log BEGIN DELETE FROM log; END",)),
                ("other", 1, ("CREATE TABLE other_t (n INTEGER); DROP TABLE log",)),
                ("other", 1, ("DROP TABLE log",)),
                ("Other x", 1, ()),
            ):
                with pytest.raises((InternalError, OperatorError)):
                    store.extension(name, version, ddl)

    def test_a_put_that_breaks_a_rule_writes_nothing(self, tmp_path: Path) -> None:
        """A tag that is no U32, a name that is none, ranges below 0, a scope that nobody knows."""
        with self.create(tmp_path) as store:
            ref = store.put(b"here")
            for bad in (-1, 1 << 32):
                with pytest.raises(CodecError):
                    store.put(b"", tag=bad)
                with pytest.raises(CodecError):
                    store.put_many([(b"x", None), (b"y", bad)])
            with pytest.raises(OperatorError):
                store.put(tmp_path / "missing")
            with pytest.raises(OperatorError):
                store.put(Path("/dev/zero"))
            os.mkfifo(tmp_path / "pipe")
            with pytest.raises(OperatorError):
                store.put(tmp_path / "pipe")
            for options in ({"offset": -1}, {"length": -1}):
                with pytest.raises(OperatorError):
                    store.get(ref, **options)
            with pytest.raises(OperatorError):
                store.tombstone(ref, scope=cast("Any", "galaxy"))
            with pytest.raises(CodecError):
                store.point("x" * 2_000, ref)
            with pytest.raises(NotFound):
                store.lift(ref, scope="sticky")
            with pytest.raises(CodecError):
                store.journal.append([Entry(ARTIFACT, b"no artifact body", PUBLISHED)])
            assert store.journal.size == 1

    def test_room_is_what_the_quota_leaves(self, tmp_path: Path) -> None:
        """None without a quota; payloads that are here count, and a quota below them leaves less than nothing."""
        with self.create(tmp_path) as store:
            store.put_many([(b"1234", None), (b"56", 7)])
            for quota in (10, 6, 1):
                store.set_quota(quota)
                assert store.room() == quota - 6
            with store.transaction():
                store.set_quota(9)
                store.put(b"789")
                assert store.room() == 0
            store.set_quota(None)
            assert store.room() is None

    def test_names_point(self, tmp_path: Path) -> None:
        """A name has what it was given and what nobody has superseded."""
        with self.create(tmp_path) as store:
            one, two = store.put(b"1"), store.put(b"2")
            first = store.point("best", one)
            second = store.point("best", two)
            assert store.view().pointer("best") == sorted([one, two])
            store.point("best", two, [first.head, second.head])
            assert store.view().pointer("best") == [two]

    def test_curators_tombstones_name_what_was_seen(self, tmp_path: Path) -> None:
        """Scope federation bounds the adds of each domain; a lift without a name is of the last one."""
        site = Site()
        site.write(0x80, b"")
        ref = site.put(b"shared")
        with self.create(tmp_path) as store:
            site.give(store)
            store.put(b"shared")
            stone = store.tombstone(ref, scope="federation")
            assert store.view().is_visible(ref), "without the role it is recorded without effect"
            (record,) = store.records(store.domain, stone.last_seq - 1)
            bounds = sorted([(store.domain, 1), (site.domain, 2)])
            assert (record.body or b"").endswith(b"".join(domain + seq.to_bytes(8, "big") for domain, seq in bounds))
            lift = store.lift(ref, scope="federation")
            (record,) = store.records(store.domain, lift.last_seq - 1)
            assert (record.body or b"").endswith(stone.head)

    def test_bytes_go_when_nothing_keeps_them(self, tmp_path: Path) -> None:
        """A collection drops what is hidden, not what is visible, pinned or the end of a visible edge; records stay."""
        with self.create(tmp_path) as store:
            gone, pinned, end, shown = (store.put(bytes([n]) * 300) for n in range(4))
            for ref in (gone, pinned, end):
                store.tombstone(ref)
            store.pin("mine", pinned)
            edge = store.put_edge(Edge(DERIVES, (end,), (shown,)))
            state, size = store.state_hash(), store.journal.size
            dry = store.gc(60.0, dry_run=True)
            report = store.gc(60.0)
            assert report[:5] == (*dry[:4], report.seconds)
            assert report.complete
            assert (report.freed_bytes, report.freed_artifacts, report.kept) == (300, 1, {"pinned": 1, "linked": 1})
            assert store.has([gone, pinned, end, shown, edge]) == [False, True, True, True, True]
            assert (store.state_hash(), store.journal.size) == (state, size)
            assert store.pins() == {"mine": pinned}
            store.unpin("mine")
            assert store.gc(60.0).freed_artifacts == 1
            store.erase(shown)
            with pytest.raises(Erased):
                store.get(shown)
            assert store.fsck().clean

    def test_the_admission_in_force(self, tmp_path: Path) -> None:
        """The store says which one its views follow, from the moment that it was given."""
        with self.create(tmp_path) as store:
            assert store.admission == OPEN
            nobody = Admission(policy_hash=bytes(range(32)))
            store.admit(nobody)
            assert store.admission == store.view().admission == nobody

    def test_views_are_cut_at_snapshots(self, tmp_path: Path) -> None:
        """A snapshot's view stays what it was."""
        with self.create(tmp_path) as store:
            ref = store.put(b"1")
            early = store.snapshot()
            view = store.view(early)
            digest = view.state_hash()
            store.tombstone(ref)
            assert store.view(early).is_visible(ref)
            assert view.state_hash() == digest == store.view(early).state_hash() != store.state_hash()
            assert not store.view().is_visible(ref)
