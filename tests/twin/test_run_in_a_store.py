"""A run in a store that holds other things: they are no part of it, whether they came before, between or behind."""

from __future__ import annotations

import pytest

import tidewarp as tw
from tidewarp.codec.bodies import ARTIFACT
from tidewarp.errors import OperatorError
from tidewarp.store import open_store
from tidewarp.twin import verify

READINGS = [(f"{hour}h", "tank.level", float(hour)) for hour in range(1, 7)]


def model(twin):
    level = twin.variable("tank.level", float)
    changes = level.changes()

    def watch():
        while True:
            change = yield changes.next()
            twin.publish_event("level", change.new)

    twin.process(watch())
    twin.connect(tw.sources.schedule(READINGS))


def put(path, text):
    with open_store(path, create=True) as store:
        return store.put(text)


def live(path, *texts):
    """A run in two lives, a text put before each and behind; its last digest."""
    for text, until in zip(texts, ("150min", None), strict=False):
        if text:
            put(path, text)
        with tw.open(path, model) as twin:
            ended = twin.run(until=until)
    return ended


@pytest.mark.parametrize("texts", [(b"before", b""), (b"", b"between"), (b"before", b"between")])
@pytest.mark.parametrize("name", ["a.tw", "folder"])
def test_artifacts_beside_a_run_change_nothing_of_it(tmp_path, name, texts):
    """The digest is that of a run alone; it is resumed, verified and replayed, and the artifacts are there."""
    alone = live(tmp_path / "alone.tw", b"", b"")
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    ended = live(path, *texts)
    assert (ended.digest, ended.inputs, ended.resumed) == (alone.digest, len(READINGS), True)
    ref = put(path, b"behind")
    found = verify(path)
    assert (found.digest, found.inputs) == (alone.digest, len(READINGS))
    assert tw.replay(path, model).equal
    with tw.open(path, model) as twin:
        assert twin.run().digest == alone.digest
    with open_store(path, read_only=True) as store:
        assert store.get(ref) == b"behind"
        assert len(list(store.journal.read(kinds={ARTIFACT}))) == sum(map(bool, texts)) + 1


def test_a_store_without_a_run_is_not_resumed_and_not_replayed(tmp_path):
    """There is nothing to go on with; who wants one begins it."""
    put(tmp_path / "a.tw", b"hello")
    with pytest.raises(OperatorError, match="this one holds no run"):
        tw.replay(tmp_path / "a.tw", model)
    with tw.open(tmp_path / "a.tw", model, resume=False) as twin:
        assert not twin.run(until="1h").resumed
    with pytest.raises(OperatorError, match="it holds a run"):
        tw.open(tmp_path / "a.tw", model, resume=False)


def test_a_run_that_begins_behind_artifacts_is_a_new_one_for_its_sinks(tmp_path):
    """Which refuse it where they hold outputs of another journal with the same key."""

    def sinking(twin):
        model(twin)
        twin.sink(tw.sinks.jsonl(tmp_path / "out.jsonl"))

    for name, texts in (("a.tw", []), ("b.tw", [b"before"])):
        with open_store(tmp_path / name, create=True, key=bytes(32)) as store:
            store.put_many([(text, None) for text in texts])
    with tw.open(tmp_path / "a.tw", sinking) as twin:
        assert twin.run().outputs == len(READINGS)
    with pytest.raises(OperatorError, match="of an earlier journal with the same key"):
        tw.open(tmp_path / "b.tw", sinking)
