"""What if: a run's journal is branched, the branch gets other inputs, and the run itself never hears of it."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidewarp as tw
from tidewarp.connect import Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import ModelError, OperatorError
from tidewarp.store import MemoryStore, open_store

ROWS = [(float(n), "tank.level", float(n % 7)) for n in range(60)]


def model(sink=None, source=None):
    """Tells each change of a level, and draws a number for it."""

    def build(twin):
        level = twin.variable("tank.level", float)
        valve = twin.variable("tank.valve", float, 1.0)
        noise = twin.stream("noise")

        def watch():
            changes = level.changes()
            while True:
                change = yield changes.next()
                twin.publish_event("level", change.new * valve.value + noise.random())

        twin.process(watch())
        twin.connect(tw.sources.schedule(ROWS) if source is None else source)
        if sink is not None:
            twin.sink(sink)

    return build


def lived(twin, steps):
    """What a twin comes to that is told a valve and runs on, several times."""
    for valve, until in steps:
        twin.apply("tank.valve", valve)
        twin.run(until=until)
    return twin.digest()


def alone(steps):
    with tw.open(":memory:", model()) as twin:
        return lived(twin, steps)


STEPS = st.lists(st.floats(0, 9), min_size=1, max_size=3)


@settings(max_examples=6, deadline=None)
@given(STEPS, STEPS, STEPS)
def test_a_branch_is_the_run_that_got_these_inputs_in_the_first_place(common, real, other):
    """And the parent is the run without a branch: whichever of them goes on first, and each equals its own replay."""
    before = [(valve, 5 * n) for n, valve in enumerate(common, 1)]
    behind = [(valve, 20 + 5 * n) for n, valve in enumerate(real)]
    instead = [(valve, 20 + 7 * n) for n, valve in enumerate(other)]
    with tw.open(":memory:", model()) as twin:
        lived(twin, before)
        early, late = twin.branch("early"), twin.branch("late")
        with tw.open(early, model()) as future:
            assert lived(future, instead) == alone([*before, *instead])
        assert lived(twin, behind) == alone([*before, *behind])
        with tw.open(late, model()) as future:
            assert lived(future, instead) == alone([*before, *instead])
            further = future.branch("further")
            with tw.open(further, model()) as beyond:
                assert lived(beyond, [(1.5, 55)]) == alone([*before, *instead, (1.5, 55)])
            assert future.digest() == tw.replay(late, model()).digest
        for journal, steps in ((early, instead), (late, instead), (further, [*instead, (1.5, 55)])):
            found = tw.replay(journal, model())
            assert (found.equal, found.digest) == (True, alone([*before, *steps]))
        assert twin.digest() == alone([*before, *behind])


@pytest.mark.parametrize("host", ["inline", "forked"])
def test_a_file_is_branched_beside_the_process_that_writes_it(tmp_path, host):
    """By a reader of the file, while the twin is open; the file has not one byte more, and its replay is what it was."""
    path, sink = tmp_path / "a.tw", tw.sinks.memory()
    with tw.open(path, model(sink)) as twin:
        twin.run(until=30)
        count, head = len(sink.records), twin.head
        with open_store(path, read_only=True) as store:
            branch = store.journal.branch("valve shut")
            with tw.open(branch, model(sink), host=host) as future:
                ended = lived(future, [(0.0, 60)])
            outputs = []
            assert tw.replay(branch, model(), outputs=outputs.extend).digest == ended == alone_after_30(0.0)
            assert len(outputs) > count > 0
        assert len(sink.records) == count, "an output of what might be has left"
        assert twin.head == head
        assert twin.run().digest == tw.replay(path, model()).digest == plain()
        assert len(sink.records) > count


def alone_after_30(valve):
    with tw.open(":memory:", model()) as twin:
        twin.run(until=30)
        return lived(twin, [(valve, 60)])


def plain():
    with tw.open(":memory:", model()) as twin:
        twin.run(until=30)
        return twin.run().digest


class Live(Source):
    """A live source of three messages, which says when somebody opens it."""

    name, kind, clock = "plc", "live", "wall"

    def __init__(self):
        self.opened = 0
        self.left = [Raw(0, n, b'{"path": "tank.level", "value": %d}' % n) for n in range(3)]

    def decoder(self, epoch_ns):
        return JsonMessages(epoch_ns)

    async def open(self, positions):
        self.opened += 1

    async def read(self, limit):
        return [self.left.pop(0)] if self.left else None


def test_a_live_source_has_no_more_on_a_branch():
    """It is not opened, the clock does not wait for the wall, and inputs come from the program alone."""
    source, other = Live(), Live()
    with tw.open(":memory:", model(source=source), factor=0) as twin:
        twin.run()
        branch = twin.branch("shut")
        with tw.open(branch, model(source=other)) as future:
            future.apply("tank.level", 5.5)
            summary = future.run(until="2h")
            assert (summary.reason, summary.factor, summary.virtual_time_s) == ("end", 0.0, 7200.0)
            assert summary.inputs == 4
        with tw.open(branch, model(source=other)) as future:  # once more
            assert future.run().sources["plc"]["state"] == "ended"
            assert future.run(until="3h").inputs == 4
        assert tw.replay(branch, model(source=other)).equal
    assert (source.opened, other.opened) == (1, 0)


def test_a_run_is_branched_while_it_is_under_way():
    """From another thread, anywhere: what the branch holds is a prefix, and its replay is that of a run that was killed."""
    branches, errors = [], []
    entered, left = threading.Event(), threading.Event()

    def slow(twin):
        model()(twin)

        def halt():
            yield twin.env.timeout(20)
            entered.set()
            left.wait(30)

        twin.process(halt())

    def branch(twin):
        try:
            entered.wait(30)
            branches.append(twin.branch("now"))
        except Exception as error:  # shown below
            errors.append(error)
        finally:
            left.set()

    with tw.open(":memory:", slow) as twin:
        thread = threading.Thread(target=branch, args=(twin,))
        thread.start()
        ended = twin.run()
        thread.join()
        assert not errors
        (found,) = branches
        assert found.size < ended.journal_records
        assert tw.replay(found, slow).first_difference is None
        with tw.open(found, slow) as future:
            assert future.run().digest == ended.digest, "the same data behind the same prefix"


def test_what_is_no_branch_is_not_run_on(tmp_path):
    """A journal of a file is opened by its name; a branch has no other writer, and does not say where its model is."""
    with MemoryStore() as store:
        with pytest.raises(OperatorError, match="runs on a branch"):
            tw.open(store.journal, model())
        branch = store.journal.branch("a")
        with pytest.raises(OperatorError, match="holds no run"):
            tw.replay(branch, model())
        with pytest.raises(OperatorError, match="no other writer"):
            tw.open(branch, model(), standby=True)
        with tw.open(branch, model()) as twin:  # a run may begin there too
            assert twin.run().digest == alone([]) or twin.digest()
        with pytest.raises(OperatorError, match="give the build"):
            tw.replay(branch)
        assert store.journal.size == 0
    with pytest.raises(ModelError, match="without a journal"):
        tw.Twin(model(), seed=0, epoch_ns=0, live=False).branch("a")
