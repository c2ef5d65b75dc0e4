"""The suites for stores find what is wrong with a store. (What is right, the stores that ship show in tests/store.)"""

from __future__ import annotations

from concurrent.futures import Future

import hypothesis
import pytest

from tidewarp.store import MemoryStore, SqliteStore
from tidewarp.store.journal import SqliteJournal
from tidewarp.store.memory import MemoryJournal
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
        store._journal = self.journal(bytes(32))
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


FILE_PLANTS = [
    (acknowledge_early, "what_is_acknowledged_outlives_a_crash", "the records of the journal"),
    (cursor_first, "a_crash_leaves_a_batch_whole_or_absent", "at stage 1"),
]


@pytest.mark.parametrize(("plant", "test", "told"), FILE_PLANTS)
def test_a_planted_fault_of_a_file_is_found(plant, test, told, tmp_path, monkeypatch):
    """What was acknowledged is lost, or half of it is there."""
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=told):
        getattr(FileSuite(), f"test_{test}")(tmp_path)
