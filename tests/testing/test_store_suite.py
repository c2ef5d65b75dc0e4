"""The suites for stores find what is wrong with a store. (What is right, the stores that ship show in tests/store.)"""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import nullcontext

import hypothesis
import pytest

from tidewarp.codec import record_hash, split_timed_body
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.bodies import ArtifactBody
from tidewarp.store import Adopted, Entry, MemoryStore, SqliteStore
from tidewarp.store.continuation import Incoming
from tidewarp.store.journal import SqliteJournal
from tidewarp.store.memory import MemoryJournal
from tidewarp.store.memory.state import Log
from tidewarp.testing.stores import DurableStoreConformance, StoreConformance, StoreMachine


class MemorySuite(StoreConformance):
    """Not collected: each test puts its own journal in."""

    settings = hypothesis.settings(
        StoreConformance.settings, phases=[hypothesis.Phase.generate], max_examples=100, derandomize=True, database=None
    )

    def __init__(self, journal=MemoryJournal):
        self.journal = journal

    def create(self, folder):
        store = MemoryStore()
        store._journal = self.journal(store)
        return store


class FileSuite(DurableStoreConformance):
    def create(self, folder):
        return SqliteStore(folder / "j.tw", create=True)

    def reopen(self, folder):
        return SqliteStore(folder / "j.tw")


class LosesCursorsWithoutEntries(MemoryJournal):
    def append(self, entries, *, cursors=None):
        return super().append(entries, cursors=cursors if entries else None)


class ForgetsTheLimit(MemoryJournal):
    def read(self, after=0, limit=None, kinds=None):
        return super().read(after, None, kinds)


class ReadsOnForEver(MemoryJournal):
    def read(self, after=0, limit=None, kinds=None):
        while found := list(super().read(after, None, kinds)):
            after = found[0].seq
            yield found[0]


class LooksAtTheFirstTickAlone(MemoryJournal):
    def read_time(self, first_tick, last_tick, *, last_tick_of=None):
        found = super().read_time(first_tick, last_tick, last_tick_of=last_tick_of)
        return (one for one in found if split_timed_body(one.body)[0] >= first_tick)


class GivesAWindowInTheOrderOfWriting(MemoryJournal):
    def read_time(self, first_tick, last_tick, *, last_tick_of=None):
        found = super().read_time(first_tick, last_tick, last_tick_of=last_tick_of)
        return iter(sorted(found, key=lambda one: one.seq))


class SplitsABatch(MemoryJournal):
    def append(self, entries, *, cursors=None):
        for one in entries[:-1]:
            super().append([one])
        return super().append(entries[-1:], cursors=cursors)


class KeepsPartOfABadBatch(MemoryJournal):
    def append(self, entries, *, cursors=None):
        super().append([], cursors=cursors)
        return super().append(entries)


class NeverCloses(MemoryJournal):
    def close(self):
        pass


class Late(Future):
    """Done when somebody asks."""

    def __init__(self, write):
        super().__init__()
        self.write = write

    def result(self, timeout=None):
        if not self.done():
            self.set_result(self.write())
        return super().result(timeout)


class LetsAnAppendOvertake(MemoryJournal):
    def submit(self, entries, *, cursors=None):
        return Late(lambda: self.append(entries, cursors=cursors))


class CommitsWithTheNext(MemoryJournal):
    def submit(self, entries, *, cursors=None):
        return Future()


MEMORY_PLANTS = [
    (LosesCursorsWithoutEntries, "any_sequence_of_calls_gives_what_a_list_and_a_dict_give", "by name, in byte order"),
    (ForgetsTheLimit, "any_sequence_of_calls_gives_what_a_list_and_a_dict_give", "assert"),
    (LetsAnAppendOvertake, "any_sequence_of_calls_gives_what_a_list_and_a_dict_give", "overtook|first and last"),
    (
        CommitsWithTheNext,
        "any_sequence_of_calls_gives_what_a_list_and_a_dict_give",
        "committed by itself|first and last",
    ),
    (SplitsABatch, "any_sequence_of_calls_gives_what_a_list_and_a_dict_give", "first and last sequence number"),
    (LooksAtTheFirstTickAlone, "a_window_of_time_gives_the_records_that_speak_of_it", "what speaks of ticks"),
    (GivesAWindowInTheOrderOfWriting, "a_window_of_time_gives_the_records_that_speak_of_it", "what speaks of ticks"),
    (ReadsOnForEver, "a_read_ends_at_the_size_that_it_began_with", "assert"),
    (KeepsPartOfABadBatch, "what_breaks_a_rule_is_refused_whole", "assert"),
    (NeverCloses, "closed_is_closed", "DID NOT RAISE"),
]


@pytest.mark.parametrize(("plant", "test", "told"), MEMORY_PLANTS)
def test_a_planted_fault_of_a_journal_is_found(plant, test, told, tmp_path, monkeypatch):
    """By the test whose sentence it breaks."""
    monkeypatch.setattr(StoreMachine, "_patience_s", 0.01)  # of the one that never comes to an end
    arguments = [] if "sequence_of_calls" in test else [tmp_path]
    with pytest.raises(BaseException, match=told):  # pytest's own failures are no Exception
        getattr(MemorySuite(plant), f"test_{test}")(*arguments)


class ArtifactSuite(StoreConformance):
    """Not collected: each test puts its own store in."""

    content_settings = hypothesis.settings(
        StoreConformance.content_settings,
        phases=[hypothesis.Phase.generate],
        max_examples=100,
        derandomize=True,
        database=None,
    )

    def __init__(self, store):
        self.store = store

    def create(self, folder):
        return self.store()


class AppendsAgain(MemoryStore):
    def _shown(self, state, ref, publish):
        return False


class ForgetsThatItIsInternal(MemoryStore):
    def _shown(self, state, ref, publish):
        return super()._shown(state, ref, False)


class KeepsHalfATransaction(MemoryStore):
    def transaction(self):
        return nullcontext()


class HidesForGood(MemoryStore):
    def lift(self, ref, **options):
        return self.journal.append([Entry(0x80, b"")])


class BelievesWhatComes(MemoryStore):
    def adopt(self, domain, items, head, *, key, sources=None):
        with self._writing("adopt") as state:
            log = state.logs.setdefault(domain, Log(domain, key))
            hashes = [record_hash(one.header.to_bytes()) for one in items]
            state.extend(
                domain,
                [Incoming(one.header, last, one.state, one.body) for one, last in zip(items, hashes, strict=True)],
            )
            return Adopted(1, len(log.records))


class GivesTheWholeQuota(MemoryStore):
    def room(self):
        return self._seen().quota_bytes


class DropsEdges(MemoryStore):
    def edges(self, type=None, source=None, target=None):
        return super().edges(type, source)


STORE_PLANTS = [
    (AppendsAgain, "any_sequence_of_puts_gives_what_dicts_give", "one record for each artifact"),
    (ForgetsThatItIsInternal, "any_sequence_of_puts_gives_what_dicts_give", "one record for each artifact"),
    (KeepsHalfATransaction, "all_of_a_transaction_is_there_or_nothing", "assert"),
    (HidesForGood, "any_sequence_of_puts_gives_what_dicts_give", "assert"),
    (BelievesWhatComes, "what_does_not_continue_a_domain_is_refused_whole", "DID NOT RAISE|assert|missing"),
    (GivesTheWholeQuota, "room_is_what_the_quota_leaves", "assert"),
    (DropsEdges, "any_sequence_of_puts_gives_what_dicts_give", "assert"),
]


@pytest.mark.parametrize(("plant", "test", "told"), STORE_PLANTS)
def test_a_planted_fault_of_a_store_is_found(plant, test, told, tmp_path):
    """By the test whose sentence it breaks."""
    arguments = [] if "sequence_of_puts" in test else [tmp_path]
    with pytest.raises(BaseException, match=told):  # pytest's own failures are no Exception
        getattr(ArtifactSuite(plant), f"test_{test}")(*arguments)


def acknowledge_early(monkeypatch):
    """A submission is said to be durable at once, and written with the next."""
    submit, held = SqliteJournal.submit, []

    def submit_late(self, entries, *, cursors=None):
        while held:
            submit(self, *held.pop(), cursors=None)
        held.append((entries,))
        future = Future()
        future.set_result(None)
        return future

    monkeypatch.setattr(SqliteJournal, "submit", submit_late)


def cursor_first(monkeypatch):
    """The position is committed by itself, before the records that it stands behind."""
    transact = SqliteJournal._transact

    def transact_twice(self, db, linked, cursors, *rest):
        db.executemany("INSERT OR REPLACE INTO source_cursor VALUES (?, ?)", cursors.items())
        transact(self, db, linked, {}, *rest)

    monkeypatch.setattr(SqliteJournal, "_transact", transact_twice)


def name_first(monkeypatch):
    """The record of a large artifact is committed by itself, before its blocks."""
    put = SqliteStore.put

    def put_named(self, source, **options):
        artifact = Artifact(source)
        body = ArtifactBody(artifact.reference(), None, len(source))
        if len(source) > 1_000:
            self.journal.append([Entry(body.kind, body.to_bytes(), 1)])
        return put(self, source, **options)

    monkeypatch.setattr(SqliteStore, "put", put_named)


FILE_PLANTS = [
    (name_first, "a_crash_leaves_an_artifact_whole_or_absent", "assert"),
    (acknowledge_early, "what_is_acknowledged_outlives_a_crash", "the records of the journal"),
    (cursor_first, "a_crash_leaves_a_batch_whole_or_absent", "at stage 1"),
]


@pytest.mark.parametrize(("plant", "test", "told"), FILE_PLANTS)
def test_a_planted_fault_of_a_file_is_found(plant, test, told, tmp_path, monkeypatch):
    """What was acknowledged is lost, or half of it is there."""
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=told):
        getattr(FileSuite(), f"test_{test}")(tmp_path)
