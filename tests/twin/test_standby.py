"""A hot standby: it follows a living writer, and is the twin when that one dies."""

import json
import os
import signal
from collections import Counter

import pytest

import tidewarp as tw
from tidewarp.clocks import WallClock
from tidewarp.errors import ModelError, StoreLocked
from tidewarp.store import open_store
from tidewarp.twin import facts, host, standby, verify
from tidewarp.twin.facts import stop_at_end
from tidewarp.twin.follow import Follower

INPUTS = 300
UNTIL = 3.2
POLLS_MAX = 6_000  # of 10 ms
MARK = 20  # inputs between two marks


def model(folder, broken_at=None, sink=True, late="stop"):
    """Each reading takes a while to be worked on, so there is work in progress at any moment."""

    def build(twin):
        level = twin.variable("a.level", float)
        changes = level.changes()

        def watch():
            while True:
                change = yield changes.next()
                if broken_at is not None and change.new >= broken_at:
                    twin.publish_event("wrong", None)
                twin.process(work(change.new))

        def work(value):
            yield twin.env.timeout(twin.stream("work").exponential(0.2))
            twin.publish_event("done", value)

        twin.process(watch())
        entries = [((n + 1) / 100, "a.level", float(n)) for n in range(INPUTS)]
        twin.connect(tw.sources.schedule(entries), late=late, horizon=0.05)
        if sink:
            twin.sink(tw.sinks.jsonl(folder / "out.jsonl"))

    return build


def held(folder):
    """What the sink has, each once and ascending."""
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == sorted({line["id"] for line in lines})
    return [(line["id"], line["value"]) for line in lines]


@pytest.fixture(autouse=True)
def many_marks(monkeypatch):
    """A mark after few inputs."""
    monkeypatch.setattr(host, "MARK_INPUTS", MARK)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The undisturbed run: its digest and outputs."""
    folder = tmp_path_factory.mktemp("whole")
    with tw.open(folder / "a.tw", model(folder)) as twin:
        digest = twin.run(until=UNTIL).digest
    return digest, held(folder)


WRITERS = []


@pytest.fixture(autouse=True)
def no_writer_is_left():
    """Whatever a test finds."""
    yield
    while WRITERS:
        WRITERS.pop().end(signal.SIGKILL)


class Writer:
    """A paced twin in a process of its own."""

    def __init__(self, folder, stops=False, **options):
        self.path = folder / "a.tw"
        ready, begun = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with tw.open(self.path, model(folder, **options), batch=1, factor=0.5) as twin:
                os.write(begun, b"!")
                if stops:
                    signal.signal(signal.SIGTERM, lambda *_: twin.stop())
                if not twin.run(until=UNTIL).interrupted:
                    signal.pause()  # on a slow machine: it is ended from outside, whatever it has done
            os._exit(0)
        WRITERS.append(self)
        assert os.read(ready, 1) == b"!"
        os.close(ready)
        os.close(begun)

    def end(self, number):
        if self.pid:
            os.kill(self.pid, number)
            os.waitpid(self.pid, 0)
            self.pid = 0


class Watch(WallClock):
    """The clock of a standby. Once that has followed ``marks`` marks, ``then(writer)`` is done, at one of its polls."""

    def __init__(self, writer, marks, then):
        self.writer, self.marks, self.then = writer, marks, then
        self.compared = self.polls = 0
        self.records_behind = None

    def wait(self, inbox, timeout_s):
        self.polls += 1
        assert self.polls < POLLS_MAX, "it stands by for ever"
        if self.compared >= self.marks and self.writer.pid:
            self.then(self.writer)
            with open_store(self.writer.path, read_only=True) as store:
                self.size = store.journal.size
            self.taken_before = Counter.total(TAKEN)
        return super().wait(inbox, min(timeout_s, 0.01) if timeout_s is not None else None)


TAKEN = Counter()


@pytest.fixture
def counted(monkeypatch):
    """How many documents are read, and which marks were compared by whom."""
    take = facts._Reader.take
    TAKEN.clear()

    def counting(reader, document, is_wanted):
        TAKEN[document.schema] += 1
        return take(reader, document, is_wanted)

    monkeypatch.setattr(facts._Reader, "take", counting)


def stood_by(folder, watch, **options):
    """Open the standby; its follower tells the watch of each mark."""
    compare = Follower._compare

    def told(follower, seq, recorded):
        compare(follower, seq, recorded)
        watch.compared += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Follower, "_compare", told)
        return tw.open(watch.writer.path, model(folder, **options), clock=watch, standby=True)


@pytest.mark.parametrize("options", [{}, {"late": "repair"}], ids=["inline", "forked"])
def test_a_standby_goes_on_where_a_killed_writer_was(tmp_path, whole, counted, options):
    """The digest and the outputs of the undisturbed run; what is read at the takeover is what lies behind the last mark."""
    folder = tmp_path / "pair"
    folder.mkdir()
    watch = Watch(Writer(folder, **options), 6, lambda writer: writer.end(signal.SIGKILL))
    with stood_by(folder, watch, **options) as twin:
        read_at_takeover = TAKEN.total() - watch.taken_before
        assert watch.size >= 6 * MARK
        assert read_at_takeover <= watch.size - 6 * MARK + 10
        with pytest.raises(StoreLocked):
            open_store(folder / "a.tw")
        summary = twin.run(until=UNTIL, factor=0)
    assert summary.digest == whole[0]
    assert held(folder) == whole[1]
    verify(folder / "a.tw")
    again = tw.replay(folder / "a.tw", model(folder, **options))
    assert (again.equal, again.digest) == (True, summary.digest)


def test_a_writer_that_ends_in_order_is_succeeded_too(tmp_path, whole):
    """It stops in the middle: the standby begins exactly there."""
    folder = tmp_path / "pair"
    folder.mkdir()
    watch = Watch(Writer(folder, stops=True), 4, lambda writer: writer.end(signal.SIGTERM))
    with stood_by(folder, watch) as twin:
        with open_store(folder / "a.tw", read_only=True) as store:
            assert twin.tick == stop_at_end(store.journal)
        assert twin.run(until=UNTIL, factor=0).digest == whole[0]
    assert held(folder) == whole[1]


def test_without_a_writer_it_is_a_twin_like_any_other(tmp_path, whole):
    """It begins the journal, or goes on with it, at once."""
    with tw.open(tmp_path / "a.tw", model(tmp_path), standby=True) as twin:
        twin.run(until=1)
    with tw.open(tmp_path / "a.tw", model(tmp_path), standby=True) as twin:
        assert twin.run(until=UNTIL).digest == whole[0]
    assert held(tmp_path) == whole[1]


def test_what_the_sinks_lack_is_kept_or_made_again(tmp_path, whole, monkeypatch):
    """The sink of the writer has lost all that it held, and a standby keeps few outputs: all are there in the end."""
    monkeypatch.setattr(standby, "KEPT_MAX", 10)
    monkeypatch.setattr(standby, "_LOOK_OUTPUTS", 5)
    folder = tmp_path / "pair"
    folder.mkdir()
    made = Counter()
    again = standby.Standby._make_again

    def counting(*args):
        made["again"] += 1
        again(*args)

    monkeypatch.setattr(standby.Standby, "_make_again", counting)

    def ends(writer):
        writer.end(signal.SIGKILL)

    watch = Watch(Writer(folder, sink=False), 6, ends)
    with stood_by(folder, watch) as twin:
        assert twin.run(until=UNTIL, factor=0).digest == whole[0]
    assert made["again"] == 1
    assert held(folder) == whole[1]


def test_outputs_that_the_sinks_hold_are_not_kept(tmp_path, whole, monkeypatch):
    """The journal says what they hold, with each mark; a standby has the few outputs behind that."""
    monkeypatch.setattr(standby, "_LOOK_OUTPUTS", 5)
    folder = tmp_path / "pair"
    folder.mkdir()
    kept = []
    take_over = standby.Standby._take_over

    def looking(one, journal):
        kept.append(len(one._kept))
        take_over(one, journal)

    monkeypatch.setattr(standby.Standby, "_take_over", looking)
    watch = Watch(Writer(folder), 8, lambda writer: writer.end(signal.SIGKILL))
    with stood_by(folder, watch) as twin:
        twin.run(until=UNTIL, factor=0)
    assert kept[0] <= 3 * MARK < 8 * MARK
    assert held(folder) == whole[1]


def test_a_standby_with_another_model_ends_at_the_first_mark_that_differs(tmp_path, whole):
    """It is compared all the time: it does not wait for the writer's death to find out."""
    folder = tmp_path / "pair"
    folder.mkdir()
    writer = Writer(folder)
    with pytest.raises(ModelError, match="outputs"):
        stood_by(folder, Watch(writer, INPUTS, None), broken_at=30.0)
    with pytest.raises(StoreLocked):
        open_store(folder / "a.tw")
    writer.end(signal.SIGKILL)
