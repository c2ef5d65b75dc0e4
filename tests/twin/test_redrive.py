"""Dead letters driven again after a model change: inputs of now, once, and nothing else is moved by it."""

import json
import os

import pytest

import tidewarp as tw
from tidewarp.connect.contract import HEAD_BYTES, Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import OperatorError
from tidewarp.store import open_store
from tidewarp.twin import journal_rows, verify


class Broker(Source):
    """Messages at offsets, given again where nobody has confirmed them; ``offset`` may skip."""

    name = "broker"
    kind = "test"

    def __init__(self, messages):
        self.messages = messages
        self.opened_behind = None

    def decoder(self, epoch_ns):
        return JsonMessages(epoch_ns)

    async def open(self, positions):
        self.opened_behind = dict(positions)
        self._left = [raw for raw in self.messages if raw.offset > positions.get(raw.partition, -1)]

    async def read(self, limit):
        part, self._left = self._left[:limit], self._left[limit:]
        return part or None


def message(offset, time, value, *, partition=0, identity="", **more):
    payload = {"path": "pump.flow", "value": value, "time": time, **more}
    return Raw(partition, offset, json.dumps(payload).encode(), id=identity)


MESSAGES = [
    message(1, 1, 3.0),
    message(2, 2, 300.0, id="high"),  # above the first model's range
    message(3, 3, 4.0),
    Raw(0, 4, b"{no json"),
    message(5, 4, 500.0, partition=1, identity="at-5"),
    message(6, 5, 900.0, blob="x" * HEAD_BYTES),  # longer than what a letter keeps
    message(7, 6, 5.0),
    message(8, 7, 7_000.0),  # above every range
]


def model(high, messages=MESSAGES, seen=None, **policy):
    def build(twin):
        flow = twin.variable("pump.flow", float, low=0, high=high)
        changes = flow.changes()

        def watch():
            while True:
                change = yield changes.next()
                twin.publish_event("flow", [change.new, change.cause])
                if seen is not None:
                    seen.append((twin.now, change.new, change.cause))

        twin.process(watch())
        twin.connect(Broker(list(messages)), **{"time": "payload", "wait": True, **policy})

    return build


def kept(path):
    """(offset, value) of all inputs, in the order of the journal."""
    return [(row["offset"], row["value"]) for row in journal_rows(path, kind="input")]


def test_letters_that_fit_the_new_model_become_inputs_of_now(tmp_path):
    """Each once, at the present; what is unfit still stays a letter; the run goes on with them and replays equal."""
    path = tmp_path / "a.tw"
    with tw.open(path, model(100), epoch="1970-01-01T00:00:00Z") as twin:
        first = twin.run(until=20)
    assert (first.inputs, first.dead_letters) == (3, 5)
    cursors = verify(path)
    with tw.open(path, model(1_000), accept_model=True) as twin:
        found = twin.redrive("broker")
        assert (found.done, found.left) == (2, 3)
        assert found.rules == {"cut": 1, "json": 1, "value": 1}
        assert twin.digest() == first.digest
        again = twin.redrive("broker")
        assert (again.done, again.left) == (0, 3)
    assert kept(path) == [(1, 3.0), (3, 4.0), (7, 5.0), (2, 300.0), (5, 500.0)]
    assert verify(path).records > cursors.records
    replayed = tw.replay(path, model(1_000))
    assert (replayed.equal, replayed.digest) == (True, first.digest)
    seen = []
    with tw.open(path, model(1_000, seen=seen), accept_model=True) as twin:
        second = twin.run(until=30)
    assert seen[-2:] == [(20.0, 300.0, "broker[0:2]"), (20.0, 500.0, "broker[1:5]")]
    assert (second.inputs, second.duplicates) == (5, 0)
    last = tw.replay(path, model(1_000))
    assert (last.equal, last.digest) == (True, second.digest)
    with tw.open(path, model(1_000), accept_model=True) as twin:
        assert (twin.redrive("broker").done, twin.redrive("broker").left) == (0, 3)


def test_the_source_goes_on_where_it_was(tmp_path):
    """Offsets of letters lie below the cursor and do not move it, in this life or in one after a kill."""
    path, later = tmp_path / "a.tw", [*MESSAGES, message(9, 8, 6.0), message(10, 9, 7.0, partition=1)]
    with tw.open(path, model(100), epoch="1970-01-01T00:00:00Z") as twin:
        twin.run(until=20)
    with tw.open(path, model(1_000), accept_model=True) as twin:
        assert twin.redrive("broker").done == 2
    with tw.open(path, model(1_000, later, late="clamp"), accept_model=True) as twin:
        assert twin._gate.positions("broker") == {0: 8, 1: 5}
        assert twin.run(until=30).inputs == 7
    assert sorted(kept(path)) == [(1, 3.0), (2, 300.0), (3, 4.0), (5, 500.0), (7, 5.0), (9, 6.0), (10, 7.0)]
    verify(path)
    assert tw.replay(path, model(1_000, later, late="clamp")).equal


@pytest.mark.parametrize("artifacts", [0, 2])
def test_a_run_at_rest_stays_at_rest(tmp_path, artifacts):
    """Stopped before the end of what it has read: its last digest is still the one that a replay comes to.

    Also if its store was given artifacts behind the stop.
    """
    with tw.open(tmp_path / "a.tw", model(100), epoch="1970-01-01T00:00:00Z") as twin:
        first = twin.run(until=2.5)
    with open_store(tmp_path / "a.tw") as store:
        store.put_many([(bytes([number]), None) for number in range(artifacts)])
    with tw.open(tmp_path / "a.tw", model(1_000), accept_model=True) as twin:
        assert twin.redrive("broker").done == 2
    again = tw.replay(tmp_path / "a.tw", model(1_000))
    assert (again.equal, again.digest, again.virtual_time_s) == (True, first.digest, 2.5)


def test_a_message_under_the_same_id_that_came_since_is_not_doubled(tmp_path):
    """The sender has mended it and sent it again under its own id: then the letter is a duplicate."""
    path = tmp_path / "a.tw"
    with tw.open(path, model(100, [message(1, 1, 300.0, identity="m")]), epoch="1970-01-01T00:00:00Z") as twin:
        assert twin.run(until=5).dead_letters == 1
    resent = [message(1, 1, 300.0, identity="m"), message(2, 6, 30.0, id="mended")]
    broken = [Raw(0, 3, b'{"id": "mended", "path": "pump.flow", "value": 1, "time": 7, "beyond": [}')]
    with tw.open(path, model(100, [*resent, *broken]), accept_model=True) as twin:
        assert twin.run(until=10).dead_letters == 2
    with tw.open(path, model(1_000), accept_model=True) as twin:
        assert twin.redrive("broker").done == 1
        assert twin.redrive("broker").done == 0
    assert kept(path) == [(2, 30.0), (1, 300.0)]


def test_columns_have_letters_too(tmp_path):
    """A letter of a source without messages is a cell: tick, path, value."""

    def build(high):
        def wire(twin):
            twin.variable("a.level", float, high=high)
            twin.connect(tw.sources.schedule([(1, "a.level", 5.0), (2, "a.level", 50.0), (3, "a.level", 6.0)]))

        return wire

    with tw.open(tmp_path / "a.tw", build(10)) as twin:
        assert twin.run().dead_letters == 1
    with tw.open(tmp_path / "a.tw", build(100), accept_model=True) as twin:
        assert twin.redrive("schedule").done == 1
        summary = twin.run(until=9)
        assert (summary.inputs, twin.registry.get("a.level").value) == (3, 50.0)
    verify(tmp_path / "a.tw")
    assert tw.replay(tmp_path / "a.tw", build(100)).equal


def test_what_a_policy_has_dropped_is_left(tmp_path):
    """A late message that was dropped broke no rule of the model: it does not come back as if it were of today."""
    messages = [message(1, 10, 1.0), message(2, 2, 2.0), message(3, 11, 300.0)]
    with tw.open(tmp_path / "a.tw", model(100, messages, late="drop"), epoch="1970-01-01T00:00:00Z") as twin:
        assert twin.run(until=20).dropped == 1
    with tw.open(tmp_path / "a.tw", model(1_000, messages, late="drop"), accept_model=True) as twin:
        found = twin.redrive("broker")
    assert (found.done, found.left, found.rules) == (1, 1, {"late": 1})


@pytest.mark.parametrize("late", ["clamp", "repair", "stop"])
def test_after_a_kill_nothing_that_was_shown_changes(tmp_path, late):
    """No stop, and the clock had gone on to the end of its data: the letters come behind what its sinks may hold."""
    path, shown = tmp_path / "a.tw", []
    child = os.fork()
    if child == 0:  # killed without a word, behind its last output

        def dies(twin):
            model(100, late=late)(twin)

            def last():
                yield twin.env.timeout(6.5)
                os._exit(9)

            twin.process(last())

        tw.open(path, dies, epoch="1970-01-01T00:00:00Z", host="inline").run(until=20)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with tw.open(path, model(1_000, late=late, seen=shown), accept_model=True, host="inline") as twin:
        assert twin.redrive("broker").done == 2
        summary = twin.run(until=20)
    assert [when for when, _, _ in shown] == sorted(when for when, _, _ in shown)
    assert [value for when, value, _ in shown if when < 6] == [3.0, 4.0]
    assert summary.inputs == 5
    verify(path)
    assert tw.replay(path, model(1_000, late=late)).equal


def test_a_source_that_is_not_connected_is_named(tmp_path):
    """And a twin without letters has nothing to do."""
    with tw.open(tmp_path / "a.tw", model(100, MESSAGES[:1]), epoch="1970-01-01T00:00:00Z") as twin:
        with pytest.raises(OperatorError, match="connects broker"):
            twin.redrive("no")
        assert twin.redrive("broker").done == 0
        twin.run(until=3)
        assert (twin.redrive("broker").done, twin.redrive("broker").left) == (0, 0)
