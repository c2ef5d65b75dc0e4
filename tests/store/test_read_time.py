"""Reading a window of virtual time: exactly the records that speak of it, whatever lies between their ends."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.codec import CHECKPOINT, INPUT, PUBLISHED, split_timed_body, timed_body
from tidewarp.codec.batches import BODY, BatchItem
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.connect.documents import last_tick_of
from tidewarp.errors import CodecError, Corrupt, NotFound, OperatorError
from tidewarp.store import Entry, MemoryStore, SqliteStore, check_file, open_store

GOLDEN = Path(__file__).parent.parent / "golden" / "live-0.1.0.tw.gz"
EDGES = [-1 << 63, -(1 << 40), -2, -1, 0, 1, 2, 1 << 40, (1 << 63) - 1]
TICKS = st.one_of(st.integers(-40, 40), st.sampled_from(EDGES))
SPANS = st.tuples(TICKS, TICKS).map(sorted).map(tuple)


def said(record):
    """The last tick, which the bodies of these tests repeat behind the first."""
    return int(record.body[8:])


def inputs(spans, known=None):
    """Inputs with these spans; one that is not ``known`` does not tell its end."""
    return [
        Entry(INPUT, timed_body(first, b"%d" % last), last_tick=last if known is None or known[n] else None)
        for n, (first, last) in enumerate(spans)
    ]


def overlapping(spans, window):
    """Sequence numbers of the spans that overlap a window, by their first tick: naively."""
    found = [(span[0], seq) for seq, span in enumerate(spans, 1) if span[0] <= window[1] and span[1] >= window[0]]
    return [seq for _, seq in sorted(found)]


def seqs(journal, window, **options):
    return [record.seq for record in journal.read_time(*window, **options)]


@settings(deadline=None)
@given(st.lists(SPANS, max_size=40), st.lists(SPANS, min_size=1, max_size=8), st.data())
def test_a_window_gives_exactly_the_records_that_speak_of_it(tmp_path_factory, spans, windows, data):
    """In both stores, with ends that are known, and with those that only a reader of the bodies knows."""
    known = data.draw(st.lists(st.booleans(), min_size=len(spans), max_size=len(spans)))
    blind = [span if is_known else (span[0], 1 << 63) for span, is_known in zip(spans, known, strict=True)]
    file = tmp_path_factory.mktemp("time") / "a.tw"
    with MemoryStore() as memory, SqliteStore(file, create=True) as sqlite:
        for store in (memory, sqlite):
            store.journal.append(inputs(spans, known))
            assert [store.journal.last_tick(n) for n in range(1, len(spans) + 1)] == [
                last if is_known else None for (_, last), is_known in zip(spans, known, strict=True)
            ]
            for window in windows:
                assert seqs(store.journal, window, last_tick_of=said) == overlapping(spans, window)
                assert seqs(store.journal, window) == overlapping(blind, window)
    assert check_file(file).records == len(spans)


def test_records_come_whole_and_only_inputs_do(tmp_path):
    """Other timed kinds have their own tick and are not asked for; a record is the one that read() gives."""
    entries = [*inputs([(0, 9), (5, 5)]), Entry(CHECKPOINT, timed_body(3, b"9"), last_tick=9), Entry(0x80, b"")]
    with SqliteStore(tmp_path / "a.tw", create=True) as store:
        store.journal.append(entries * 700)  # several pages
        found = list(store.journal.read_time(4, 8))
        assert sorted(found, key=lambda one: one.seq) == list(store.journal.read(kinds={INPUT}))
        assert [split_timed_body(one.body)[0] for one in found] == [0] * 700 + [5] * 700


def test_a_window_ends_at_the_size_that_it_began_with(tmp_path):
    for store in (MemoryStore(), SqliteStore(tmp_path / "a.tw", create=True)):
        with store:
            store.journal.append(inputs([(n, n) for n in range(3)]))
            begun, asked = store.journal.read_time(0, 100), store.journal.read_time(0, 100)
            assert next(begun).seq == 1
            store.journal.append(inputs([(2, 2)]))
            assert [one.seq for one in begun] == [2, 3]
            assert [one.seq for one in asked] == [1, 2, 3]


def test_a_transaction_that_does_not_come_to_be_leaves_no_span(tmp_path):
    for store in (MemoryStore(), SqliteStore(tmp_path / "a.tw", create=True)):
        with store:
            with suppress(ZeroDivisionError), store.transaction():
                store.journal.append(inputs([(0, 7)]))
                raise ZeroDivisionError
            assert store.journal.size == 0
            store.journal.append(inputs([(0, 3)]))
            assert seqs(store.journal, (5, 9)) == []
            assert store.journal.last_tick(1) == 3


def test_what_is_no_window_and_no_span_is_refused(tmp_path):
    for store in (MemoryStore(), SqliteStore(tmp_path / "a.tw", create=True)):
        with store:
            for window in ((1, 0), (0, 1 << 63), (-1 << 64, 0)):
                with pytest.raises(OperatorError, match="window"):
                    store.journal.read_time(*window)
            for entry in (
                Entry(INPUT, timed_body(5, b""), last_tick=4),
                Entry(INPUT, timed_body(5, b""), last_tick=1 << 63),
                Entry(INPUT, timed_body(5, b""), last_tick=5.0),
                Entry(0x80, b"", last_tick=0),
            ):
                with pytest.raises(CodecError, match="last tick"):
                    store.journal.append([entry])
            store.journal.append([Entry(0x80, b"")])
            for seq in (0, 1, 2):
                with pytest.raises(NotFound):
                    store.journal.last_tick(seq)


def test_a_tail_that_came_back_from_another_site_is_found_too(tmp_path):
    """Its ends did not travel: without a reader of bodies none is missing, with one it is exact."""
    seed = bytes(range(32))
    spans = [(0, 9), (3, 4), (6, 6)]
    with SqliteStore(tmp_path / "whole.tw", create=True, key=seed) as whole:
        whole.journal.append([one._replace(flags=PUBLISHED) for one in inputs(spans)])
        items = [BatchItem(one.header, BODY, one.body, None) for one in whole.records(whole.domain)]
        head = whole.signed_head()
        for store in (MemoryStore(seed=seed), SqliteStore(tmp_path / "restored.tw", create=True, key=seed)):
            with store:
                store.journal.append([one._replace(flags=PUBLISHED) for one in inputs(spans[:1])])
                store.adopt(store.domain, items[1:], head, key=public_key_of(seed))
                assert [store.journal.last_tick(seq) for seq in (1, 2, 3)] == [9, None, None]
                assert seqs(store.journal, (5, 8)) == [1, 2, 3]
                assert seqs(store.journal, (5, 8), last_tick_of=said) == [1, 3]
    assert check_file(tmp_path / "restored.tw").records == 3


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM span WHERE seq = 2",
        "INSERT INTO span VALUES (64, 0, 2, NULL)",
        "UPDATE span SET tick = 1, level = 1 WHERE seq = 1",
        "UPDATE span SET last = 900 WHERE seq = 1",
        "UPDATE span SET seq = 3 WHERE seq = 2",
    ],
)
def test_a_damaged_index_is_found(tmp_path, damage):
    with SqliteStore(tmp_path / "a.tw", create=True) as store:
        store.journal.append([*inputs([(0, 0), (4, 7)]), Entry(CHECKPOINT, timed_body(4, b""))])
    with closing(sqlite3.connect(tmp_path / "a.tw", isolation_level=None)) as db:
        db.execute(damage)
    with pytest.raises(Corrupt, match="table span"):
        check_file(tmp_path / "a.tw")


def test_a_journal_of_format_1_answers_by_reading_its_bodies(tmp_path):
    """No end is noted there: what the documents say is compared with each record of the journal, naively."""
    file = tmp_path / "old.tw"
    file.write_bytes(gzip.decompress(GOLDEN.read_bytes()))
    with open_store(file, read_only=True) as store:
        found = list(store.journal.read(kinds={INPUT}))
        spans = [(split_timed_body(one.body)[0], last_tick_of(one)) for one in found]
        assert any(first < last for first, last in spans), "a record of several inputs"
        ends = sorted({tick for span in spans for tick in span})
        for n, first in enumerate(ends):
            for last in (first, ends[min(n + 1, len(ends) - 1)], ends[-1]):
                expected = [
                    one.seq
                    for one, span in sorted(zip(found, spans, strict=True), key=lambda pair: pair[1][0])
                    if span[0] <= last and span[1] >= first
                ]
                assert seqs(store.journal, (first, last), last_tick_of=last_tick_of) == expected
        assert store.journal.last_tick(found[0].seq) is None
