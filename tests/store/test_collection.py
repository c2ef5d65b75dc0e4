"""Garbage collection: what may go goes, what may not never does, at any stop, crash and budget."""

from __future__ import annotations

import contextlib
import io
import signal
import threading
from concurrent import futures
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forked import forked
from tidewarp.codec import PUBLISHED
from tidewarp.codec.artifacts import TAG_EDGE, TAG_MANIFEST, TAG_RESULT, Artifact
from tidewarp.codec.bodies import (
    ERASE,
    STICKY,
    TOMBSTONE,
    ArtifactBody,
    EraseBody,
    PolicyBody,
    RequestBody,
    TombstoneBody,
    VerdictBody,
)
from tidewarp.codec.computations import Manifest
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import CodecError, Erased, InternalError, NotFound, OperatorError, QuotaExceeded, Withheld
from tidewarp.store import MemoryStore, Settings, SqliteStore, check_file
from tidewarp.store.admission import OPEN, Admission, Decision, Role, Standing
from tidewarp.store.contract import Entry
from tidewarp.store.retention import GcReport, Word
from tidewarp.testing.contents import Site
from tidewarp.testing.faults import armed, die, hearing, raising

KINDS = ("memory", "file", "directory")


class StepClock:
    """Each look at it takes ``step_s``."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.time = 0.0
        self.step_s = step_s

    def now(self) -> float:
        self.time += self.step_s
        return self.time


def make(kind: str, folder: Path, **settings: Any) -> Any:
    if kind == "memory":
        return MemoryStore(bytes(32), **settings)
    path = folder / "A"
    if kind == "directory":
        path.mkdir(exist_ok=True)
    else:
        path = folder / "A.tw"
    return SqliteStore(path, create=True, settings=Settings(None, 1_000), key=bytes(range(32)), **settings)


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    with make(request.param, tmp_path) as opened:
        yield opened


def collect(store: Any, budget_s: float = 1.0, **options: Any) -> GcReport:
    return store.gc(budget_s, clock=StepClock(), **options)


def hidden(store: Any, data: bytes = b"gone", tag: int | None = None) -> Reference:
    ref = store.put(data, tag=tag)
    store.tombstone(ref)
    return ref


def is_here(store: Any, ref: Reference) -> bool:
    return store.has([ref])[0]


# --- what goes


def test_what_nobody_shows_goes_and_its_record_stays(store):
    kept, ref = store.put(b"kept"), hidden(store)
    before = store.state_hash(), store.journal.size
    report = collect(store)
    assert (report.freed_artifacts, report.freed_bytes, report.kept) == (1, 4, {})
    assert (report.remaining, report.complete) == (0, True)
    assert not is_here(store, ref)
    assert store.get(kept) == b"kept"
    assert (store.state_hash(), store.journal.size) == before
    assert store.info(ref)[1:4] == (None, 4, "withheld")
    with pytest.raises(Withheld):
        store.get(ref)
    assert collect(store)[:4] == (0, 0, {}, 0)


@pytest.mark.parametrize("payload", [b"", b"%d" * 1_000], ids=["small", "large"])
def test_many_that_are_read_together_are_judged_one_by_one(store, payload):
    """Of every four: hidden; hidden and linked to by what is visible; visible again; hidden by another entry too."""
    refs = [store.put(payload + b"%d" % n) for n in range(150)]
    for ref in refs:
        store.tombstone(ref)
    for n, ref in enumerate(refs):
        if n % 4 == 1:
            store.put_edge(Edge(DERIVES, (ref,), (store.put(b"top"),), store.put(b"")))
        elif n % 4 == 2:
            store.lift(ref)
        elif n % 4 == 3:
            store.tombstone(ref)
    report = collect(store)
    here = {n for n, is_held in enumerate(store.has(refs)) if is_held}
    assert here == {n for n in range(150) if n % 4 in (1, 2)}
    assert report.kept == {"linked": 38, "visible": 37}
    assert (report.freed_artifacts, report.complete) == (75, True)


def test_what_was_collected_comes_back_with_a_put(store):
    ref = hidden(store)
    collect(store)
    assert store.put(b"gone") == ref
    assert store.get(ref) == b"gone"
    assert store.view().is_visible(ref)
    assert collect(store).kept == {"visible": 1}
    assert store.get(ref) == b"gone"


@pytest.mark.parametrize("size", [0, 1_000, 1_001, 20_000])
def test_artifacts_of_all_sizes_go(store, size):
    ref = hidden(store, bytes(size))
    assert collect(store)[:2] == (size, 1)
    assert not is_here(store, ref)
    if isinstance(store, SqliteStore):
        assert list(store._blocks.names()) == []


def test_a_dry_run_says_what_a_run_does_and_does_nothing(store):
    for n in range(5):
        hidden(store, b"%d" % n)
    store.lift(hidden(store, b"back"))
    dry = collect(store, dry_run=True)
    assert dry.freed_artifacts == 5
    assert dry.kept == {"visible": 1}
    assert collect(store, dry_run=True) == dry
    assert collect(store) == dry


# --- what stays


def test_what_is_lifted_stays(store):
    ref = hidden(store)
    store.lift(ref)
    assert collect(store).kept == {"visible": 1}
    assert store.get(ref) == b"gone"


def test_what_is_shown_within_the_site_alone_stays(store):
    ref = store.put(b"inner", publish=False)
    store.tombstone(ref)
    store.put(b"inner", publish=False)
    assert collect(store).kept == {"visible": 1}


def test_pins_keep(store):
    ref = hidden(store)
    store.pin("mine", ref)
    assert store.pins() == {"mine": ref}
    assert collect(store).kept == {"pinned": 1}
    assert store.get(ref) == b"gone"
    store.unpin("mine")
    assert collect(store).freed_artifacts == 1


def test_pinned_snapshots_keep_what_was_visible_then(store):
    before = store.snapshot()
    ref = store.put(b"then")
    then = store.snapshot()
    store.tombstone(ref)
    store.pin("before", before)
    store.pin("then", then)
    assert collect(store).kept == {"snapshot": 1}
    store.unpin("then")
    store.pin("after", store.snapshot())
    assert collect(store).freed_artifacts == 1


def test_a_snapshot_of_another_policy_keeps_all_that_was_added_by_then(store):
    ref = hidden(store)
    snapshot = store.snapshot()
    store.pin("then", snapshot._replace(policy_hash=bytes([7]) * 32))
    assert collect(store).kept == {"snapshot": 1}
    assert is_here(store, ref)


def test_pins_are_of_what_is_here(store):
    unknown = Artifact(b"unknown").reference()
    with pytest.raises(NotFound):
        store.pin("a", unknown)
    with pytest.raises(NotFound):
        store.pin("a", Snapshot(bytes(32), ((store.domain, 1, bytes(32)),)))
    with pytest.raises(NotFound):
        store.unpin("a")
    ref = store.put(b"here")
    for name in ("", "x\0", "x" * 1_025):
        with pytest.raises(CodecError):
            store.pin(name, ref)
    assert store.pins() == {}


def test_edges_keep_their_ends_until_they_are_hidden(store):
    source, target = hidden(store, b"a"), hidden(store, b"b")
    edge = store.put_edge(Edge(DERIVES, (source,), (target,)))
    assert collect(store).kept == {"linked": 2}
    store.tombstone(edge)
    assert collect(store).freed_artifacts == 3


def test_links_reach_through_what_is_hidden_itself(store):
    far = hidden(store, b"far")
    manifest = hidden(store, Manifest((far,)).to_bytes(), TAG_MANIFEST)
    edge = store.put_edge(Edge(DERIVES, (manifest,), ()))
    assert collect(store).kept == {"linked": 2}
    store.tombstone(edge)
    assert collect(store).freed_artifacts == 3
    assert not is_here(store, far)


def test_a_pinned_manifest_keeps_its_inputs(store):
    one = hidden(store, b"input")
    manifest = hidden(store, Manifest((one,)).to_bytes(), TAG_MANIFEST)
    store.pin("run", manifest)
    assert collect(store).kept == {"linked": 1, "pinned": 1}


def test_a_large_manifest_keeps_its_inputs(store):
    inputs = [hidden(store, b"%d" % n) for n in range(40)]  # more than stands in a row here
    store.put(Manifest(tuple(inputs)).to_bytes(), tag=TAG_MANIFEST)
    assert collect(store).kept == {"linked": 40}


def test_links_that_go_round_keep_nothing(store):
    one = store.put(b"one")
    edge = store.put_edge(Edge(DERIVES, (one,), ()))
    back = store.put_edge(Edge(DERIVES, (edge,), (one,)))
    for ref in (one, edge, back):
        store.tombstone(ref)
    assert collect(store).freed_artifacts == 3


def test_bytes_that_only_claim_to_be_a_result_name_nothing(store):
    ref = hidden(store)
    store.put(b"\0\1" + ref.encoded(), tag=TAG_RESULT)
    assert collect(store).freed_artifacts == 1


def test_names_keep_what_they_point_to(store):
    ref = hidden(store)
    written = store.point("latest", ref)
    assert collect(store).kept == {"named": 1}
    store.point("latest", store.put(b"new"), supersedes=[written.head])
    assert collect(store).freed_artifacts == 1


@pytest.mark.parametrize("body", [PolicyBody, RequestBody])
def test_records_keep_what_they_name(store, body):
    ref = hidden(store)
    named = body(ref)
    store.journal.append([Entry(named.kind, named.to_bytes(), PUBLISHED)])
    assert collect(store).kept == {"named": 1}


def test_verdicts_keep_their_outputs(store):
    ref = hidden(store)
    named = VerdictBody(bytes(32), (ref,))
    store.journal.append([Entry(named.kind, named.to_bytes(), PUBLISHED)])
    assert collect(store).kept == {"named": 1}


class Veto:
    """Objects to one artifact; remembers what it was told."""

    name = "veto"

    def __init__(self, ref: Reference) -> None:
        self.ref = ref
        self.told: list[Word] = []

    def objects(self, ref, words):
        self.told = list(words)
        return ref == self.ref


def test_guards_object(store):
    one = hidden(store, b"one")
    guard = Veto(one)
    report = collect(store, guards=[guard])
    assert report.kept == {"veto": 1}
    assert is_here(store, one)
    assert [type(word.body) for word in guard.told] == [ArtifactBody, TombstoneBody]
    other = Veto(store.put(b"other"))
    assert collect(store, guards=[other]).freed_artifacts == 1


# --- other domains


def neighbour() -> Site:
    return Site(bytes([9]) * 32)


def test_what_another_domain_shows_stays(store):
    site = neighbour()
    ref = site.put(b"shared")
    site.give(store)
    store.put(b"shared")
    store.tombstone(ref)
    assert collect(store).kept == {"visible": 1}
    site.write(TOMBSTONE, TombstoneBody(ref).to_bytes())
    site.give(store, 1)
    assert collect(store).freed_artifacts == 1


def test_a_domain_that_does_not_count_keeps_nothing(store):
    site = neighbour()
    ref = site.put(b"shared")
    site.give(store)
    store.put(b"shared")
    store.tombstone(ref)
    store.admit(Admission({store.domain: Standing(Decision.ACCEPTED, frozenset({Role.PRODUCE}))}))
    assert collect(store).freed_artifacts == 1


def test_the_tombstone_of_a_curator_counts_and_that_of_anybody_else_does_not(store):
    site = neighbour()
    ref = store.put(b"own")
    site.write(TOMBSTONE, TombstoneBody(ref, STICKY).to_bytes())
    site.give(store)
    assert collect(store).kept == {"visible": 1}
    may = frozenset({Role.PRODUCE, Role.CURATE})
    store.admit(Admission(others=Standing(Decision.ACCEPTED, may)))
    assert collect(store).freed_artifacts == 1


def test_what_a_forked_domain_hid_behind_the_fork_stays(store):
    site, rival = neighbour(), neighbour()
    ref = site.put(b"shared")
    rival.put(b"shared")
    site.write(TOMBSTONE, TombstoneBody(ref).to_bytes())
    rival.write(0x80, b"another history")
    site.give(store)
    store.admit(OPEN, [rival.items[1].header])
    assert collect(store).kept == {"visible": 1}
    store.admit(OPEN)
    assert collect(store).freed_artifacts == 1


def test_a_tombstone_that_was_erased_hides_nothing(store):
    site = neighbour()
    ref = site.put(b"shared")
    site.write(TOMBSTONE, TombstoneBody(ref).to_bytes())
    site.write(ERASE, EraseBody(None, 2).to_bytes())
    site.give(store)
    assert collect(store).kept == {"visible": 1}


# --- erasure


def test_what_is_erased_is_gone_at_once(store):
    refs = [store.put(b"secret"), store.put(bytes(20_000))]
    for ref in refs:
        store.pin(ref.hex(), ref)
        before = store.journal.size
        store.erase(ref, 7)
        assert store.journal.size == before + 1
        with pytest.raises(Erased):
            store.get(ref)
        assert store.info(ref).state == "erased"
    if isinstance(store, SqliteStore):
        assert list(store._blocks.names()) == []
    assert collect(store)[:4] == (0, 0, {}, 0)


def test_erased_bytes_that_come_again_go_again(store):
    ref = store.put(b"secret")
    store.erase(ref)
    store.pin("mine", ref)
    store.put(b"secret")
    assert collect(store).freed_artifacts == 1
    with pytest.raises(Erased):
        store.get(ref)


def test_an_erasure_of_anybody_else_is_not_followed(store):
    site = neighbour()
    ref = store.put(b"own")
    site.write(ERASE, EraseBody(ref, None).to_bytes())
    site.give(store)
    assert collect(store).kept == {"visible": 1}


def test_nothing_is_erased_that_no_record_names(store):
    with pytest.raises(NotFound):
        store.erase(Artifact(b"unknown").reference())
    assert store.journal.size == 0


def test_an_erasure_that_does_not_come_to_be_leaves_the_bytes(store):
    refs = [store.put(b"secret"), store.put(bytes(20_000))]
    with contextlib.suppress(ZeroDivisionError), store.transaction():
        for ref in refs:
            store.erase(ref)
        raise ZeroDivisionError
    assert [len(store.get(ref)) for ref in refs] == [6, 20_000]


def test_the_pages_of_erased_bytes_are_overwritten(tmp_path):
    needle = b"nobody may read this ever again!"
    with make("file", tmp_path) as store:
        ref = store.put(needle)
        store.erase(ref)
    assert needle not in (tmp_path / "A.tw").read_bytes()


# --- budget, stops, crashes


def test_a_budget_is_kept_and_the_next_collection_goes_on(store):
    refs = [hidden(store, b"%d" % n) for n in range(100)]
    freed = rounds = 0
    while True:
        clock = StepClock(0.001)
        report = store.gc(0.03, clock=clock)
        freed, rounds = freed + report.freed_artifacts, rounds + 1
        assert report.seconds <= 0.04, "less than one artifact late"
        assert report.freed_artifacts > 0
        assert report.remaining == 100 - freed
        if report.complete:
            break
    assert rounds > 3
    assert freed == 100
    assert not any(store.has(refs))


def test_without_a_budget_nothing_is_done(store):
    hidden(store)
    report = collect(store, budget_s=0.0)
    assert (report.freed_artifacts, report.remaining, report.complete) == (0, 1, False)


@pytest.mark.parametrize("budget", [-1.0, float("nan")])
def test_a_budget_is_a_number_of_seconds(store, budget):
    with pytest.raises(OperatorError):
        store.gc(budget)


def test_candidates_before_the_place_are_not_forgotten(tmp_path):
    """A collection goes round: what was hidden behind its back is found before it calls itself complete."""
    with make("file", tmp_path) as store:
        first = store.put(b"first")
        for n in range(50):
            hidden(store, b"%d" % n)
        assert not store.gc(0.02, clock=StepClock(0.001)).complete
        store.tombstone(first)
        assert collect(store).complete
        assert not is_here(store, first)


def test_a_collection_makes_transactions_of_its_own(store):
    with store.transaction(), pytest.raises(InternalError):
        collect(store)


def test_a_reader_may_only_ask(tmp_path):
    with make("file", tmp_path) as store:
        hidden(store)
    with SqliteStore(tmp_path / "A.tw", read_only=True) as store:
        assert collect(store, dry_run=True).freed_artifacts == 1
        with pytest.raises(OperatorError):
            collect(store)


def test_transactions_are_small(tmp_path):
    """No more than 1,000 rows in one, however many extents an artifact has."""
    with make("file", tmp_path) as store:
        ref = store.put(bytes(2_000))
        store.tombstone(ref)
        (no,) = (row[0] for row in store._db.execute("SELECT artifact FROM extent"))
        rows = [(no, idx, idx.to_bytes(32, "big"), idx, 1) for idx in range(1, 2_500)]
        store._db.executemany("INSERT INTO extent VALUES (?, ?, ?, ?, ?)", rows)
        for n in range(1_500):
            hidden(store, b"%d" % n)
        changes = []
        with hearing(lambda stage, _: stage == "journal.inside" and changes.append(store._db.total_changes)):
            assert collect(store, budget_s=100.0).complete
        assert len(changes) > 6
        assert max(b - a for a, b in pairwise(changes)) <= 1_000
        assert store._db.execute("SELECT count(*) FROM extent").fetchone() == (0,)
        assert store._db.execute("SELECT count(*) FROM orphan").fetchone() == (0,)


class Crash(BaseException):
    """The process ends here: nobody catches it."""


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("stage", ["journal.inside", "journal.commit", "journal.after"])
@pytest.mark.parametrize("arrival", [1, 2, 3])
def test_a_crash_anywhere_is_gone_on_from(tmp_path, kind, stage, arrival):
    with make(kind, tmp_path) as store:
        kept = store.put(bytes(30_000))
        shared = [hidden(store, bytes(30_000) + b"x" * n) for n in range(1, 4)]
        small = [hidden(store, b"%d" % n) for n in range(20)]
        state = store.state_hash()
        with armed(stage, raising(Crash()), arrival=arrival), contextlib.suppress(Crash):
            collect(store)
    check_file(tmp_path / ("A" if kind == "directory" else "A.tw"))
    with make(kind, tmp_path) as store:
        assert collect(store).complete
        assert not any(store.has(shared + small))
        assert store.get(kept) == bytes(30_000)
        assert len(list(store._blocks.names())) == 1
        assert store.state_hash() == state
    check_file(tmp_path / ("A" if kind == "directory" else "A.tw"))


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize(("stage", "arrival"), [("journal.inside", 2), ("journal.commit", 1), ("journal.after", 1)])
def test_a_killed_collection_is_gone_on_with(tmp_path, require, kind, stage, arrival):
    require("fork")
    with make(kind, tmp_path) as store:
        kept = store.put(bytes(30_000))
        refs = [hidden(store, bytes(30_000) + b"x" * n) for n in range(1, 4)]
        state = store.state_hash()
    place = tmp_path / ("A" if kind == "directory" else "A.tw")

    def run() -> None:
        with SqliteStore(place) as store, armed(stage, die, arrival=arrival):
            store.gc(60.0)

    assert forked(run) == -signal.SIGKILL
    check_file(place)
    with make(kind, tmp_path) as store:
        assert store.fsck().problems == (), "what it had begun is no damage"
        assert collect(store).complete
        assert not any(store.has(refs))
        assert len(list(store._blocks.names())) == 1
        assert (store.get(kept), store.state_hash()) == (bytes(30_000), state)


def test_what_was_freed_is_room_for_others(tmp_path):
    for kind in ("memory", "file"):
        settings = {"quota_bytes": 10} if kind == "memory" else {}
        path = tmp_path / "Q.tw"
        opened = (
            make(kind, tmp_path, **settings)
            if kind == "memory"
            else SqliteStore(path, create=True, settings=Settings(10, None), key=bytes(range(32)))
        )
        with opened as store:
            hidden(store, b"12345678")
            with pytest.raises(QuotaExceeded):
                store.put(b"abcdefgh")
            collect(store)
            store.put(b"abcdefgh")


def test_its_work_does_not_grow_with_the_store(tmp_path):
    """Steps of the database's own machine, for the same ten candidates among few artifacts and among many."""

    def steps(others: int) -> int:
        folder = tmp_path / str(others)
        folder.mkdir()
        with make("file", folder) as store:
            store.put_many([(b"other %d" % n, None) for n in range(others)])
            for n in range(10):
                hidden(store, b"%d" % n)
            counted = [0]

            def count() -> int:
                counted[0] += 1
                return 0

            for db in (store._db, store._handle.reader):
                db.set_progress_handler(count, 1)
            assert collect(store).freed_artifacts == 10
            for db in (store._db, store._handle.reader):
                db.set_progress_handler(None, 0)
            return counted[0]

    few, many = steps(100), steps(4_000)
    assert few > 100
    assert many <= 1.5 * few


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_blocks_that_nothing_names_go(tmp_path, kind):
    with make(kind, tmp_path) as store:
        ref = store.put(bytes(5_000))
        store._blocks.write(b"left by a put that did not come to its end")
        report = collect(store)
        assert (report.freed_bytes, report.freed_artifacts) == (42, 0)
        assert store.get(ref) == bytes(5_000)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_blocks_that_a_put_is_about_to_use_stay(tmp_path, kind):
    """Between the moment when a block is durable, and the transaction that refers to it, a collection comes by."""
    with make(kind, tmp_path) as store:
        ref = hidden(store, bytes(5_000))
        reports = []

        def come_by() -> None:
            thread = threading.Thread(target=lambda: reports.append(collect(store)))
            thread.start()
            thread.join()

        class Slow(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                return super().read(size)

        original = store._put

        def put(*args: Any) -> None:
            come_by()
            original(*args)

        store._put = put
        assert store.put(Slow(bytes(5_000))) == ref
        assert reports[0].freed_artifacts == 1
        assert store.get(ref) == bytes(5_000)
        assert collect(store).kept == {"visible": 1}
        assert store.get(ref) == bytes(5_000)


def test_writers_come_in_between(tmp_path):
    with make("file", tmp_path) as store:
        for n in range(300):
            hidden(store, b"%d" % n)
        seen = []

        def write(stage: str, arrival: int) -> None:
            if stage == "journal.after" and threading.current_thread() is collector and arrival % 2:
                seen.append(writers.submit(store.put, b"new %d" % arrival))

        with futures.ThreadPoolExecutor(1) as writers:
            collector = threading.Thread(target=lambda: store.gc(10.0, clock=StepClock(0.01)))
            with hearing(write):
                collector.start()
                collector.join()
            assert seen
            assert all(is_here(store, one.result()) for one in seen)


# --- the law

NAMES = ("a", "b", "c", "d")
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["put", "inner", "hide", "lift", "sticky", "pin", "unpin", "erase"]), st.sampled_from(NAMES)
        ),
        st.tuples(st.just("edge"), st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES))),
        st.tuples(st.just("unedge"), st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES))),
        st.tuples(st.sampled_from(["point", "snapshot", "gc", "theirs", "their_stone"]), st.sampled_from(NAMES)),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, curates=st.booleans())
def test_what_may_not_go_never_does_and_both_stores_agree(tmp_path_factory, steps, curates):
    """Whatever was done: what is visible, pinned, shown at a pinned snapshot or linked from there has its bytes."""
    roles = frozenset({Role.PRODUCE, Role.CURATE} if curates else {Role.PRODUCE})
    admission = Admission(others=Standing(Decision.ACCEPTED, roles))
    with (
        MemoryStore(public_key_of(bytes(range(32))), admission=admission) as memory,
        make("file", tmp_path_factory.mktemp("law"), admission=admission) as file,
    ):
        site = neighbour()
        for step in steps:
            outcomes = [perform(store, site, *step, given=len(site.items)) for store in (memory, file)]
            assert outcomes[0] == outcomes[1], step
        for store in (memory, file):
            collect(store)
            check_law(store)
        refs = [Artifact(name.encode()).reference() for name in NAMES]
        assert memory.has(refs) == file.has(refs)
        assert memory.state_hash() == file.state_hash()


def perform(store: Any, site: Site, what: str, name: Any, *, given: int) -> object:
    """One step; what it came to."""
    if what in ("edge", "unedge"):
        edge = Edge(DERIVES, *[(Artifact(one.encode()).reference(),) for one in name])
        return store.put_edge(edge) if what == "edge" else store.tombstone(edge.reference())
    ref = Artifact(name.encode()).reference()
    held = {one.id: one.size for one in store.domains()}.get(site.domain, 0)
    try:
        match what:
            case "put" | "inner":
                return store.put(name.encode(), publish=what == "put")
            case "hide":
                return store.tombstone(ref)
            case "sticky":
                return store.tombstone(ref, scope="sticky")
            case "lift":
                return store.lift(ref)
            case "pin":
                return store.pin(name, ref)
            case "snapshot":
                return store.pin(name, store.snapshot())
            case "unpin":
                return store.unpin(name)
            case "erase":
                return store.erase(ref)
            case "point":
                return store.point(name, ref)
            case "theirs" | "their_stone":
                if held == len(site.items):
                    if what == "theirs":
                        site.put(name.encode())
                    else:
                        site.write(TOMBSTONE, TombstoneBody(ref).to_bytes())
                return site.give(store, held)
            case _:
                report = collect(store)
                return report.freed_bytes, report.freed_artifacts, report.kept, report.complete
    except NotFound as error:
        return str(error)


def check_law(store: Any) -> None:
    erased = {
        Artifact(name.encode()).reference()
        for name in NAMES
        if known(store, name) and store.info(Artifact(name.encode()).reference()).state == "erased"
    }
    stays = set(store.view().visible()) | set(store.view(scope="all").visible())
    for what in store.pins().values():
        if isinstance(what, Snapshot):
            stays |= set(store.view(what).visible())
        else:
            stays.add(what)
    for name in NAMES:
        stays.update(store.view().pointer(name))
    for ref in list(stays):
        info = store.info(ref) if known_ref(store, ref) else None
        if info is not None and info.tag == TAG_EDGE and info.state == "here":
            edge = Edge.from_bytes(store.get(ref))
            stays |= {one for one in (*edge.sources, *edge.targets) if known_ref(store, one)}
    for ref in stays - erased:
        if known_ref(store, ref):
            assert is_here(store, ref)


def known(store: Any, name: str) -> bool:
    return known_ref(store, Artifact(name.encode()).reference())


def known_ref(store: Any, ref: Reference) -> bool:
    try:
        store.info(ref)
    except NotFound:
        return False
    return True
