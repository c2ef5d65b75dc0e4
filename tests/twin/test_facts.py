"""The journal read back as typed facts: shapes are checked, what one record needs of another is kept, memory is bounded."""

from __future__ import annotations

import pytest

import tidewarp as tw
from tidewarp.codec import DIGEST, INPUT, pack_document, timed_body
from tidewarp.connect.documents import ENDED, INPUTS, PATHS
from tidewarp.errors import Corrupt, OperatorError
from tidewarp.store import Entry, MemoryStore, open_store
from tidewarp.twin.documents import MARK, OPEN, RELEASED_IDS, RESUME, STOP, Mark, Opened, Stopped, entry
from tidewarp.twin.facts import Inputs, Marks, facts, opening_of, released_before, stop_at_end

PLACE = {"versions": {}, "platform": "here"}
MODEL = {"path": None, "function": "build", "digest": "", "files": {}}
WHOLE = {
    OPEN: {
        "domain": "00",
        "epoch_ns": 0,
        "seed": 0,
        "model": MODEL,
        "sources": {"s": {"rank": 1}},
        "unix_ns": 1,
        **PLACE,
    },
    RESUME: {
        "tick": 5,
        "model": "",
        "sources": {"s": {"rank": 1}},
        "unix_ns": 1,
        "catch_up": "fast",
        **PLACE,
    },
    STOP: {"tick": 5, "reason": "end", "detail": ""},
    MARK: {"tick": 5, "events": 1, "inputs": bytes(32), "outputs": bytes(32), "digest": None},
    RELEASED_IDS: {"tick": 5, "sinks": {"out": "id"}, "gvt": 3},
}


def journal_of(*entries):
    journal = MemoryStore().journal
    journal.append(entries)
    return journal


def mark(tick):
    return entry(MARK, tick, {**WHOLE[MARK], "tick": tick})


@pytest.mark.parametrize("schema", WHOLE)
def test_a_document_has_its_fields_and_no_others(schema):
    """One field less, one more, or one of another type is Corrupt with the record; the whole document is a fact."""
    whole = WHOLE[schema]
    [fact] = facts(journal_of(entry(schema, 5, whole)))
    assert (fact.seq, fact.tick, fact.what.document()) == (1, 5, whole)
    for name in whole:
        less = {other: value for other, value in whole.items() if other != name}
        for value in (less, {**whole, name: 1.5}, {**whole, "more": 1}):
            with pytest.raises(Corrupt, match="record 1: its document does not fit"):
                list(facts(journal_of(entry(schema, 5, value))))


def test_a_source_that_nothing_connects_is_no_fact():
    """Its inputs have no rank, hence no place in the order; who brings ranks of its own decides itself."""
    ended = Entry(INPUT, timed_body(0, pack_document(ENDED, 1, {"source": "other", "admitted": 0})))
    journal = journal_of(entry(OPEN, 0, WHOLE[OPEN]), ended)
    with pytest.raises(Corrupt, match=r"record 2: source 'other': neither tw.open nor tw.resume names it"):
        list(facts(journal))

    def refuse(source):
        raise OperatorError(source, "the model does not connect it", "connect it")

    with pytest.raises(OperatorError, match="does not connect it"):
        list(facts(journal, rank=refuse))


def test_an_unknown_document_is_refused():
    """A newer release may have written what this one would pass over."""
    strange = Entry(INPUT, timed_body(0, pack_document("tw.future", 1, {})))
    with pytest.raises(Corrupt, match=r"record 1: document 'tw.future': it is not known"):
        list(facts(journal_of(strange)))


def test_facts_behind_a_record_know_the_paths_before_it(tmp_path):
    """`after` leaves out facts, not what later ones need."""

    def build(twin):
        twin.variable("a.level", float)
        twin.connect(tw.sources.schedule([(0, "a.level", 1.0), (1, "a.level", 2.0), (2, "a.level", 3.0)]))

    with tw.open(tmp_path / "j.tw", build, batch=1) as twin:
        twin.run()
    with open_store(tmp_path / "j.tw", read_only=True) as store:
        whole = list(facts(store.journal))
        for after in range(len(whole) + 2):
            assert list(facts(store.journal, after=after)) == [fact for fact in whole if fact.seq > after]
        assert [one.changes for fact in whole if isinstance(fact.what, Inputs) for one in fact.what.inputs] == [
            (("a.level", value),) for value in (1.0, 2.0, 3.0)
        ]
        assert {INPUTS, PATHS}.isdisjoint({type(fact.what).__name__ for fact in whole})


def test_marks_are_read_one_ahead_and_no_further():
    """A journal of many marks is never held: what `up_to` has not come to is not decoded yet."""
    journal = journal_of(*map(mark, (10, 20, 20, 30)), entry(MARK, 40, {"tick": "spoilt"}))
    marks = Marks(journal)
    assert [(seq, one.tick) for seq, one in marks.up_to(9)] == []
    assert [(seq, one.tick) for seq, one in marks.up_to(20)] == [(1, 10), (2, 20), (3, 20)]
    assert list(marks.up_to(29)) == []
    with pytest.raises(Corrupt, match="record 5"):
        list(marks.up_to(30))


def test_a_mark_is_written_as_it_is_read():
    """What a run marks, a replay compares with."""
    one = Mark(7, 3, b"i" * 32, b"o" * 32, "ab")
    [(seq, again)] = Marks(journal_of(entry(MARK, 7, one.document()))).up_to(7)
    assert (seq, again) == (1, one)
    [record] = journal_of(entry(MARK, 7, one.document())).read()
    assert record.kind == DIGEST


def test_how_a_journal_begins_and_ends():
    """The first record is the opening, the last one alone says whether it was ended in order."""
    opened, stopped = entry(OPEN, 0, WHOLE[OPEN]), entry(STOP, 5, WHOLE[STOP])
    assert opening_of(journal_of(opened, stopped)) == Opened(
        **{**WHOLE[OPEN], "model": opening_of(journal_of(opened)).model}
    )
    assert stop_at_end(journal_of(opened, stopped)) == Stopped(**WHOLE[STOP]).tick == 5
    assert stop_at_end(journal_of(opened, stopped, entry(RESUME, 5, WHOLE[RESUME]))) is None
    assert stop_at_end(MemoryStore().journal) is None
    for journal, said in ((MemoryStore().journal, "holds no run"), (journal_of(stopped), "it begins with tw.stop")):
        with pytest.raises(OperatorError, match=said):
            opening_of(journal)


@pytest.mark.parametrize("behind", [0, 1, 2, 3, 4, 7, 8, 9, 100])
def test_artifacts_behind_a_stop_are_no_part_of_the_run(behind):
    """Somebody put files into the store of a twin at rest: it was still ended in order, or not, as before."""
    opened, stopped = entry(OPEN, 0, WHOLE[OPEN]), entry(STOP, 5, WHOLE[STOP])
    for last, tick in ((stopped, 5), (mark(7), None)):
        store = MemoryStore()
        store.put(b"before")
        store.journal.append([opened, stopped, last])
        store.put_many([(b"%d" % n, None) for n in range(behind)])
        assert store.journal.size == 4 + behind
        assert stop_at_end(store.journal) == tick
    only = MemoryStore()
    only.put_many([(b"%d" % n, None) for n in range(behind)])
    assert stop_at_end(only.journal) is None


def test_a_sink_that_was_left_out_keeps_its_place():
    """The last id of each sink, from whichever record speaks of it last."""
    ids = [{"a": "1", "b": "1"}, {"a": "2"}, {"c": "1"}]
    journal = journal_of(*[entry(RELEASED_IDS, 5, {"tick": 5, "sinks": sinks, "gvt": 0}) for sinks in ids], mark(6))
    assert released_before(journal) == {"a": "2", "b": "1", "c": "1"}
