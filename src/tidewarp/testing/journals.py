"""The suite for journals: what :class:`~tidewarp.store.contract.Journal` promises, of a store's journal and of a branch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from tidewarp.codec import BODY_BYTES_MAX, CHECKPOINT, INPUT, Record, timed_body
from tidewarp.errors import CodecError, InternalError, OperatorError
from tidewarp.store.contract import CURSOR_BYTES_MAX, NAME_BYTES_MAX, Entry, Journal, JournalHolder, Written
from tidewarp.testing.machine import StoreMachine, check_journal, entries_of
from tidewarp.testing.suites import SAFETY_S, hypothesis, pytest, stateful

__all__ = ["JournalConformance", "inputs"]

_THREADS = 4
_BAD_ENTRIES: Sequence[Any] = (
    (0x80, bytes(BODY_BYTES_MAX + 1), 0),
    (0x80, "text", 0),
    (0x80, None, 0),
    (0x80, bytearray(3), 0),
    (256, b"", 0),
    (-1, b"", 0),
    (True, b"", 0),
    (0x80, b"", 2),
    (0x80, b"", -1),
    (CHECKPOINT, bytes(7), 0),  # a timed body begins with its tick
    (INPUT, timed_body(5, b""), 0, 4),  # and does not end before it
    (0x80, b"", 0, 5),
)
_BAD_CURSORS: Sequence[Any] = (
    {"": b""},
    {"x" * (NAME_BYTES_MAX + 1): b""},
    {"é" * (NAME_BYTES_MAX // 2 + 1): b""},
    {"a\0b": b""},
    {"\ud800": b""},
    {"s": "text"},
    {"s": bytes(CURSOR_BYTES_MAX + 1)},
    {1: b""},
)


def inputs(number: int) -> list[Entry]:
    """So many inputs; entry n has tick n and n as its text."""
    return [Entry(INPUT, timed_body(n, b"%d" % n)) for n in range(number)]


def _told(record: Record) -> int:
    """The last tick, which is the text of a test's body."""
    return int(record.body[8:])


class JournalConformance:
    """Tests of one journal, which need not be durable. Give :meth:`create`."""

    begun: int = 0
    """Records that a new one has already; none of them speaks of a tick from -100 to 100."""

    machine: type[StoreMachine] = StoreMachine
    """The state machine of the long test; replace it to add rules of your own."""

    settings = hypothesis.settings(max_examples=25, stateful_step_count=25, deadline=None, report_multiple_bugs=False)
    """Of the long test."""

    def create(self, folder: Path) -> JournalHolder:
        """What has a new journal, made in ``folder``, which is empty and its own. Closing it ends the journal's use."""
        raise NotImplementedError("a suite for a journal needs create(folder)")

    def _reopening(self) -> Callable[[Path], JournalHolder] | None:
        return None

    def test_any_sequence_of_calls_gives_what_a_list_and_a_dict_give(self) -> None:
        """Appends, submissions, cursors, reads and lives in any order: records, chain and positions are right."""
        machine = partial(self.machine, self.create, self._reopening())
        stateful.run_state_machine_as_test(cast("Any", machine), settings=self.settings)

    def test_an_empty_journal_begins_with_its_genesis(self, tmp_path: Path) -> None:
        """The first record names the genesis of its domain, or that is the head; an append of nothing changes nothing."""
        with self.create(tmp_path) as store:
            begun, cursors = entries_of(store.journal), store.journal.cursors()
            assert len(begun) == self.begun
            check_journal(store.journal, begun)
            assert store.journal.append([]) == (self.begun + 1, self.begun, store.journal.head)
            check_journal(store.journal, begun)
            assert store.journal.cursors() == cursors

    def test_what_breaks_a_rule_is_refused_whole(self, tmp_path: Path) -> None:
        """A bad entry, name or cursor raises CodecError at once, and nothing of its batch is written."""
        with self.create(tmp_path) as store:
            positions = store.journal.cursors()
            for call in (store.journal.append, store.journal.submit):
                for bad in _BAD_ENTRIES:
                    with pytest.raises(CodecError):
                        call([*inputs(1), Entry(*bad)], cursors={"s": b""})
                for cursors in _BAD_CURSORS:
                    with pytest.raises(CodecError):
                        call(inputs(1), cursors=cursors)
            for after, limit in ((-1, None), (0, -1)):
                with pytest.raises(OperatorError):
                    store.journal.read(after, limit)
            assert (store.journal.size, store.journal.cursors()) == (self.begun, positions)

    def test_the_largest_that_is_legal_is_kept(self, tmp_path: Path) -> None:
        """A body of 1 MiB, a cursor of 1 MiB, a name of 1,024 bytes; a page of reading is bounded in bytes."""
        large = [Entry(0x80, bytes([n]) * BODY_BYTES_MAX) for n in range(6)]
        with self.create(tmp_path) as store:
            begun = entries_of(store.journal)
            store.journal.append(large, cursors={"x" * NAME_BYTES_MAX: bytes(CURSOR_BYTES_MAX)})
            check_journal(store.journal, begun + large)
            assert store.journal.cursor("x" * NAME_BYTES_MAX) == bytes(CURSOR_BYTES_MAX)

    def test_a_read_ends_at_the_size_that_it_began_with(self, tmp_path: Path) -> None:
        """What is appended while somebody reads belongs to the next read."""
        with self.create(tmp_path) as store:
            first, *_, last = range(self.begun + 1, self.begun + 6)
            store.journal.append(inputs(3))
            begun = store.journal.read(after=first)
            assert next(begun).seq == first + 1
            store.journal.append(inputs(2))
            assert [one.seq for one in begun] == [first + 2]
            assert [one.seq for one in store.journal.read(after=first + 2)] == [last - 1, last]

    def test_a_window_of_time_gives_the_records_that_speak_of_it(self, tmp_path: Path) -> None:
        """Inputs that overlap the window, whole, by their first tick; one that does not say its end ends nowhere."""
        spans = [(first, first + length) for first in (2, -3, 5, 0) for length in (0, 2, 9)]
        entries = [Entry(INPUT, timed_body(first, b"%d" % last), last_tick=last) for first, last in spans]
        unsaid = Entry(INPUT, timed_body(1, b"7"))
        others = [Entry(CHECKPOINT, timed_body(1, b"")), Entry(0x80, b"")]
        with self.create(tmp_path) as store:
            store.journal.append([*entries, unsaid, *others])
            assert [store.journal.last_tick(self.begun + seq) for seq in (1, 2, 13)] == [2, 4, None]
            records = list(store.journal.read(after=self.begun))
            for window in ((-9, -4), (-3, -3), (1, 1), (1, 6), (12, 20)):
                ends = [*spans, (1, 7)]
                wanted = [n for n, (first, last) in enumerate(ends) if first <= window[1] and last >= window[0]]
                wanted.sort(key=lambda n: (ends[n][0], n))
                found = list(store.journal.read_time(*window, last_tick_of=_told))
                assert found == [records[n] for n in wanted], f"what speaks of ticks {window[0]} to {window[1]}"
                assert (records[12] in store.journal.read_time(*window)) == (window[1] >= 1), "it may end anywhere"

    def test_threads_keep_their_order_and_their_batches(self, tmp_path: Path) -> None:
        """Any thread may append and submit: what one of them sends stays in its order, and a batch in one piece."""
        ends: list[Written] = []

        def produce(journal: Journal, name: int) -> None:
            futures = []
            for n in range(20):
                batch = [Entry(0x80, bytes([name, n, part])) for part in range(3)]
                if n % 5 == 3:
                    ends.append(journal.append(batch))
                else:
                    futures.append(journal.submit(batch))
            ends.extend(future.result(SAFETY_S) for future in futures)

        with self.create(tmp_path) as store:
            begun = entries_of(store.journal)
            threads = [threading.Thread(target=produce, args=(store.journal, name)) for name in range(_THREADS)]
            for one in threads:
                one.start()
            for one in threads:
                one.join(SAFETY_S)
            bodies = [one.body for one in store.journal.read(after=self.begun)]
            check_journal(store.journal, [*begun, *(Entry(0x80, body) for body in bodies)])
        whole = [bytes([name, n, part]) for name in range(_THREADS) for n in range(20) for part in range(3)]
        assert sorted(bodies) == whole, "each entry once"
        assert [body for name in range(_THREADS) for body in bodies if body[0] == name] == whole, "each thread's order"
        assert [body[2] for body in bodies] == [0, 1, 2] * (len(bodies) // 3), "a batch is never split"
        places = range(self.begun + 3, self.begun + len(bodies) + 1, 3)
        assert sorted(end.last_seq for end in ends) == list(places), "each is told its own place"

    def test_closed_is_closed(self, tmp_path: Path) -> None:
        """Closing twice is safe; every call after it raises InternalError."""
        store = self.create(tmp_path)
        journal = store.journal
        store.close()
        store.close()
        calls: list[Callable[[], object]] = [lambda: journal.append([]), lambda: journal.submit([]), journal.read]
        calls += [journal.cursors, lambda: journal.cursor("s")]
        for call in calls:
            with pytest.raises(InternalError):
                call()
