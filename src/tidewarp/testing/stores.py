"""The suites for stores: derive from one, and pytest checks your store against the contract.

    class TestMyStore(DurableStoreConformance):
        def create(self, folder):
            return MyStore(folder / "journal", create=True)

        def reopen(self, folder):
            return MyStore(folder / "journal")

The contract is :mod:`tidewarp.store.contract`. Importing this module needs the extra ``test`` (else MissingExtra).
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

from tidewarp.codec import BODY_BYTES_MAX, CHECKPOINT, INPUT, Record, genesis, timed_body
from tidewarp.errors import CodecError, InternalError, OperatorError
from tidewarp.store.contract import CURSOR_BYTES_MAX, NAME_BYTES_MAX, Entry, Journal, Store, Written
from tidewarp.testing.contents import ArtifactMachine, ContentConformance
from tidewarp.testing.faults import hearing
from tidewarp.testing.machine import StoreMachine, check_journal
from tidewarp.testing.suites import SAFETY_S, hypothesis, made, pytest, stateful

__all__ = ["ArtifactMachine", "DurableStoreConformance", "StoreConformance", "StoreMachine", "inputs"]

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


class StoreConformance(ContentConformance):
    """Tests of one store, which need not be durable. Give :meth:`create`."""

    machine: type[StoreMachine] = StoreMachine
    """The state machine of the long test; replace it to add rules of your own."""

    settings = hypothesis.settings(max_examples=25, stateful_step_count=25, deadline=None, report_multiple_bugs=False)
    """Of the long test."""

    def test_any_sequence_of_calls_gives_what_a_list_and_a_dict_give(self) -> None:
        """Appends, submissions, cursors, reads and lives in any order: records, chain and positions are right."""
        machine = partial(self.machine, self.create, self._reopening())
        stateful.run_state_machine_as_test(cast("Any", machine), settings=self.settings)

    def test_an_empty_journal_begins_with_its_genesis(self, tmp_path: Path) -> None:
        """Size 0, the head is the genesis of the domain, nothing to read; an append of nothing changes nothing."""
        with self.create(tmp_path) as store:
            check_journal(store.journal, [])
            assert store.journal.append([]) == (1, 0, genesis(store.journal.domain))
            assert store.journal.cursors() == {}

    def test_what_breaks_a_rule_is_refused_whole(self, tmp_path: Path) -> None:
        """A bad entry, name or cursor raises CodecError at once, and nothing of its batch is written."""
        with self.create(tmp_path) as store:
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
            assert (store.journal.size, store.journal.cursors()) == (0, {})

    def test_the_largest_that_is_legal_is_kept(self, tmp_path: Path) -> None:
        """A body of 1 MiB, a cursor of 1 MiB, a name of 1,024 bytes; a page of reading is bounded in bytes."""
        large = [Entry(0x80, bytes([n]) * BODY_BYTES_MAX) for n in range(6)]
        with self.create(tmp_path) as store:
            store.journal.append(large, cursors={"x" * NAME_BYTES_MAX: bytes(CURSOR_BYTES_MAX)})
            check_journal(store.journal, large)
            assert store.journal.cursor("x" * NAME_BYTES_MAX) == bytes(CURSOR_BYTES_MAX)

    def test_a_read_ends_at_the_size_that_it_began_with(self, tmp_path: Path) -> None:
        """What is appended while somebody reads belongs to the next read."""
        with self.create(tmp_path) as store:
            store.journal.append(inputs(3))
            begun = store.journal.read(after=1)
            assert next(begun).seq == 2
            store.journal.append(inputs(2))
            assert [one.seq for one in begun] == [3]
            assert [one.seq for one in store.journal.read(after=3)] == [4, 5]

    def test_a_window_of_time_gives_the_records_that_speak_of_it(self, tmp_path: Path) -> None:
        """Inputs that overlap the window, whole, by their first tick; one that does not say its end ends nowhere."""
        spans = [(first, first + length) for first in (2, -3, 5, 0) for length in (0, 2, 9)]
        entries = [Entry(INPUT, timed_body(first, b"%d" % last), last_tick=last) for first, last in spans]
        unsaid = Entry(INPUT, timed_body(1, b"7"))
        others = [Entry(CHECKPOINT, timed_body(1, b"")), Entry(0x80, b"")]
        with self.create(tmp_path) as store:
            store.journal.append([*entries, unsaid, *others])
            assert [store.journal.last_tick(seq) for seq in (1, 2, 13)] == [2, 4, None]
            records = list(store.journal.read())
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
            threads = [threading.Thread(target=produce, args=(store.journal, name)) for name in range(_THREADS)]
            for one in threads:
                one.start()
            for one in threads:
                one.join(SAFETY_S)
            bodies = [one.body for one in store.journal.read()]
            check_journal(store.journal, [Entry(0x80, body) for body in bodies])
        whole = [bytes([name, n, part]) for name in range(_THREADS) for n in range(20) for part in range(3)]
        assert sorted(bodies) == whole, "each entry once"
        assert [body for name in range(_THREADS) for body in bodies if body[0] == name] == whole, "each thread's order"
        assert [body[2] for body in bodies] == [0, 1, 2] * (len(bodies) // 3), "a batch is never split"
        assert sorted(end.last_seq for end in ends) == list(range(3, len(bodies) + 1, 3)), "each is told its own place"

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


class DurableStoreConformance(StoreConformance):
    """Tests of a store whose journal outlives the process, in files of its folder. Give :meth:`reopen` too."""

    def reopen(self, folder: Path) -> Store:
        """The store that was created in ``folder``, or of which a copy lies there, opened for writing."""
        raise NotImplementedError("a suite for a durable store needs reopen(folder)")

    def _reopening(self) -> Callable[[Path], Store]:
        return self.reopen

    def test_what_is_acknowledged_outlives_a_crash(self, tmp_path: Path) -> None:
        """The files as they are when append returns, and when a submission is done, hold its entries and cursors."""
        with self.create(made(tmp_path / "live")) as store:
            store.journal.append(inputs(3), cursors={"s": b"1"})
            shutil.copytree(tmp_path / "live", tmp_path / "1")
            store.journal.submit(inputs(3), cursors={"s": b"2"}).result(SAFETY_S)
            shutil.copytree(tmp_path / "live", tmp_path / "2")
        for n in (1, 2):
            with self.reopen(tmp_path / f"{n}") as store:
                check_journal(store.journal, inputs(3) * n)
                assert store.journal.cursor("s") == b"%d" % n

    def test_a_crash_leaves_a_batch_whole_or_absent(self, tmp_path: Path) -> None:
        """Entries and cursors are one transaction: at whatever stage the files are taken, both are there or neither is."""
        numbers = count(1)
        with self.create(made(tmp_path / "live")) as store:
            store.journal.append(inputs(2), cursors={"s": b"old"})
            with hearing(lambda *_: shutil.copytree(tmp_path / "live", tmp_path / f"{next(numbers)}")) as stages:
                store.journal.append(inputs(5), cursors={"s": b"new"})
        assert stages, (
            'call tidewarp.observe.stage("journal.inside"), "journal.commit", "journal.after" around the commit'
        )
        for n in range(1, next(numbers)):
            with self.reopen(tmp_path / f"{n}") as store:
                found = (store.journal.size, store.journal.cursor("s"))
                assert found in ((2, b"old"), (7, b"new")), f"at stage {n} of {list(stages)}"
                store.journal.append(inputs(1))
                check_journal(store.journal, (inputs(2) + inputs(5))[: found[0]] + inputs(1))

    def test_a_crash_leaves_an_artifact_whole_or_absent(self, tmp_path: Path) -> None:
        """Of a small one and a large one, at whatever stage the files are taken: never a record without its bytes."""
        payloads = [b"small", bytes(range(256)) * 1_500]
        numbers = count(1)
        with self.create(made(tmp_path / "live")) as store:
            store.put(b"before")
            with hearing(lambda *_: shutil.copytree(tmp_path / "live", tmp_path / f"{next(numbers)}")) as stages:
                refs = [store.put(payload) for payload in payloads]
        assert stages
        found = set()
        for n in range(1, next(numbers)):
            with self.reopen(tmp_path / f"{n}") as store:
                held = store.has(refs)
                found.add(tuple(held))
                assert store.journal.size == 1 + sum(held)
                assert [store.get(ref) for ref, is_here in zip(refs, held, strict=True) if is_here] == payloads[
                    : sum(held)
                ]
                assert [store.put(payload) for payload in payloads] == refs
                assert (store.journal.size, [store.get(ref) for ref in refs]) == (3, payloads)
        assert found == {(False, False), (True, False), (True, True)}, f"at the stages {list(stages)}"
