"""The session as a user meets it: open, run, stop, resume, replay."""

import functools
import io
import json
import os
import py_compile
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

import tidewarp as tw
from tidewarp.errors import ModelChanged, ModelError, OperatorError, PeerError, StoreLocked
from tidewarp.observe import SilentProbe
from tidewarp.process import Environment, environment
from tidewarp.twin import journal_rows, load_model, verify


def schedule(entries=((0, "a.level", 1.0), ("2s", "a.level", 2.5), ("5s", "a.level", 4.0))):
    return tw.sources.schedule(list(entries))


def watch(twin, entries=None, **policy):
    """A model that publishes every change of one variable and ticks once a second."""
    level = twin.variable("a.level", float)
    seen = []

    def follow():
        while True:
            change = yield level.wait_for_change()
            seen.append([twin.tick, change.new])
            twin.publish_event("level", {"new": change.new})

    def tick():
        while True:
            yield twin.env.timeout(1.0)
            twin.publish_event("tick", {"draw": twin.stream("a.draws").random()})

    twin.process(follow())
    twin.process(tick())
    twin.state(lambda: seen)
    twin.connect(schedule() if entries is None else schedule(entries), **policy)


def test_a_run_ends_behind_the_last_event_and_replays_to_its_digest(tmp_path):
    """Without `until` the clock stops one tick behind the last event time, whatever the model would still do."""
    with tw.open(tmp_path / "a.tw", watch, seed=3) as twin:
        summary = twin.run()
    assert (summary.virtual_time_s, summary.inputs, summary.reason) == (5.000000001, 3, "end")
    again = tw.replay(tmp_path / "a.tw", watch)
    assert (again.equal, again.digest, again.recorded) == (True, summary.digest, summary.digest)


def test_a_journal_keeps_seed_and_epoch(tmp_path):
    """What an existing journal was begun with counts, not what it is opened with."""
    with tw.open(tmp_path / "a.tw", watch, seed=3, epoch="2020-01-01T00:00:00Z") as twin:
        first = twin.run(until="3s")
    with pytest.raises(OperatorError, match="begun with 3"):
        tw.open(tmp_path / "a.tw", watch, seed=99)
    with pytest.raises(OperatorError, match="was begun with"):
        tw.open(tmp_path / "a.tw", watch, epoch="2021-01-01T00:00:00Z")
    with tw.open(tmp_path / "a.tw", watch) as twin:
        assert (twin.seed, twin.epoch) == (3, datetime(2020, 1, 1, tzinfo=UTC))
        assert twin.digest() == first.digest
    with tw.open(tmp_path / "b.tw", watch, seed=4, epoch="2020-01-01T00:00:00Z") as twin:
        assert twin.run(until="3s").digest != first.digest


def test_pieces_of_a_run_are_one_run(tmp_path):
    """run(until=...) several times, in one session or in several, gives the digest of one run."""
    with tw.open(tmp_path / "whole.tw", watch) as twin:
        whole = twin.run(until="8s")
    with tw.open(tmp_path / "pieces.tw", watch) as twin:
        twin.run(until=1.5)
        twin.run(until="2s")
    with tw.open(tmp_path / "pieces.tw", watch) as twin:
        assert twin.now == 2.0
        pieces = twin.run(until=8)
    assert (pieces.digest, pieces.outputs, pieces.events) == (whole.digest, whole.outputs, whole.events)
    assert tw.replay(tmp_path / "pieces.tw", watch).marks == 3


def test_until_may_be_an_instant(tmp_path):
    """An aware datetime is a time of the twin's epoch."""
    with tw.open(tmp_path / "a.tw", watch, epoch="2020-01-01T00:00:00Z") as twin:
        assert twin.run(until=datetime(2020, 1, 1, 0, 0, 4, tzinfo=UTC)).virtual_time_s == 4.0
        with pytest.raises(OperatorError, match="time zone"):
            twin.run(until=datetime(2020, 1, 1))  # noqa: DTZ001 - a naive one is what is refused


def test_the_default_epoch_is_midnight_before_the_first_event(tmp_path):
    """The first event less the disorder bound, down to midnight UTC, so that no reading lies before tick 0."""
    (tmp_path / "t.csv").write_text("time,level\n2013-12-02 00:30:00,1\n2013-12-02 00:35:00,2\n")

    def build(twin):
        twin.variable("a.level", float)
        source = tw.sources.csv(tmp_path / "t.csv", time="time", map={"level": "a.level"})
        twin.connect(source, disorder="1h")

    with tw.open(tmp_path / "a.tw", build) as twin:
        assert twin.epoch == datetime(2013, 12, 1, tzinfo=UTC)
        twin.run()
        assert twin.registry.get("a.level").value == 2.0


def test_a_twin_can_be_stopped_from_another_thread_and_resumed(tmp_path):
    """stop() ends a run without an end at a completed instant; going on gives what one run gives."""
    reached = threading.Event()

    def endless(twin):
        def tick():
            while True:
                yield twin.env.timeout(1.0)
                twin.publish_event("tick", None)
                if twin.now > 20_000:
                    reached.set()

        twin.process(tick())

    with tw.open(tmp_path / "a.tw", endless) as twin:
        stopper = threading.Thread(target=lambda: (reached.wait(60), twin.stop()))
        stopper.start()
        summary = twin.run()
        stopper.join()
        assert summary.interrupted
        assert summary.virtual_time_s > 20_000
    end = round(summary.virtual_time_s) + 100
    with tw.open(tmp_path / "a.tw", endless) as twin:
        resumed = twin.run(until=end)
    with tw.open(tmp_path / "b.tw", endless) as twin:
        assert twin.run(until=end).digest == resumed.digest


def test_a_model_without_sources_ends_when_nothing_is_left(tmp_path):
    """As SimPy: no end is given, the queue is empty, the run is over."""

    def finite(twin):
        def tick():
            for _ in range(3):
                yield twin.env.timeout(2.0)

        twin.process(tick())

    with tw.open(tmp_path / "a.tw", finite) as twin:
        assert twin.run().virtual_time_s == 6.000000001
    assert tw.replay(tmp_path / "a.tw", finite).equal


def test_each_output_reaches_a_jsonl_sink_once_in_order(tmp_path):
    """Over two lives: ids ascend, none is missing, none is there twice."""

    def build(twin):
        watch(twin)
        twin.sink(tw.sinks.jsonl(tmp_path / "out.jsonl"))

    with tw.open(tmp_path / "a.tw", build) as twin:
        twin.run(until="3s")
    with tw.open(tmp_path / "a.tw", build) as twin:
        summary = twin.run(until="6s")
    ids = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ids == sorted(set(ids))
    assert len(ids) == summary.outputs == 7  # the input at 0 s came before any process waited for it
    assert summary.sinks["out"]["last_id"] == ids[-1]


def test_a_late_event_stops_the_run_and_says_which_bound_would_do(tmp_path):
    """The default: nothing is dropped or moved in silence."""
    entries = [(0, "a.level", 1), (100, "a.level", 2), (40, "a.level", 3), (200, "a.level", 4)]

    def build(twin, **policy):
        watch(twin, entries, **policy)

    with (
        tw.open(tmp_path / "a.tw", build, batch=1) as twin,
        pytest.raises(OperatorError, match="disorder of at least 60 s"),
    ):
        twin.run()
    with tw.open(tmp_path / "b.tw", lambda twin: build(twin, disorder=60), batch=1) as twin:
        ordered = twin.run()
    assert (ordered.late, ordered.clamped, ordered.dropped) == (1, 0, 0)


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("late", ["clamp", "drop"])
def test_late_policies_are_counted_and_replayed(tmp_path, late, batch):
    """A clamped input gets the floor's stamp, a dropped one becomes a dead letter: both in the journal."""
    entries = [(0, "a.level", 1), (100, "a.level", 2), (40, "a.level", 3), (200, "a.level", 4)]

    def build(twin):
        watch(twin, entries, late=late)

    with tw.open(tmp_path / "a.tw", build, batch=batch) as twin:
        summary = twin.run()
    rows = [(row["tick"], row["value"]) for row in journal_rows(tmp_path / "a.tw", kind="input")]
    assert rows == [(0, 1), (100 * 10**9, 2), *([(100 * 10**9, 3)] if late == "clamp" else []), (200 * 10**9, 4)]
    assert (summary.late, summary.clamped, summary.dropped) == (1, late == "clamp", late == "drop")
    assert summary.dead == ({"late": 1} if late == "drop" else {})
    assert tw.replay(tmp_path / "a.tw", build).equal
    with tw.open(tmp_path / "a.tw", build) as twin:
        resumed = twin.run()
    assert (resumed.digest, resumed.late, resumed.clamped, resumed.dropped) == (
        summary.digest,
        summary.late,
        summary.clamped,
        summary.dropped,
    )


def test_a_refused_input_is_part_of_the_run(tmp_path):
    """What the state of the moment forbids is published, counted and replayed."""

    def build(twin):
        twin.resource("a.lathe", capacity=2, max_capacity=3)
        twin.connect(tw.sources.schedule([(1, "a.lathe.current_cap", 3), (2, "a.lathe.current_cap", 4)]))

    with tw.open(tmp_path / "a.tw", build) as twin:
        summary = twin.run()
    assert (summary.refused, summary.outputs, summary.dead_letters) == (1, 1, 0)
    assert tw.replay(tmp_path / "a.tw", build).equal


def test_a_model_that_looks_outside_is_caught_by_its_own_journal(tmp_path):
    """A build that differs between lives: resuming fails at the first mark, a replay names it."""
    lives = iter(range(10))

    def build(twin):
        life = next(lives)
        watch(twin)
        twin.state(lambda: life)

    with tw.open(tmp_path / "a.tw", build) as twin:
        twin.run()
    result = tw.replay(tmp_path / "a.tw", build)
    assert result.equal is False
    assert result.first_difference is not None
    assert result.first_difference["parts"] == ["digest"]
    with pytest.raises(ModelError, match="came out differently"):
        tw.open(tmp_path / "a.tw", build)


def write_model(folder, factor):
    (folder / "helper.py").write_text(f"FACTOR = {factor}\n")
    (folder / "plant.py").write_text(
        "import helper\n"
        "import tidewarp as tw\n\n"
        "def build(twin):\n"
        "    twin.variable('a.level', float, float(helper.FACTOR))\n"
        "    twin.connect(tw.sources.schedule([(1, 'a.level', 2)]))\n"
    )


def test_a_changed_model_is_refused_by_file_and_can_be_accepted(tmp_path, monkeypatch):
    """The modules beside the model belong to it."""
    monkeypatch.setattr("sys.path", [*sys.path])
    write_model(tmp_path, 1)
    with tw.open(tmp_path / "a.tw", load_model(str(tmp_path / "plant.py"))) as twin:
        twin.run()
    (tmp_path / "helper.py").write_text("FACTOR = 1  # the same, said otherwise\n")
    build = load_model(str(tmp_path / "plant.py"))
    with pytest.raises(ModelChanged, match=r"helper\.py changed"):
        tw.open(tmp_path / "a.tw", build)
    with tw.open(tmp_path / "a.tw", build, accept_model=True) as twin:
        assert twin.run(until="3s").inputs == 1
    result = tw.replay(tmp_path / "a.tw")
    assert (result.equal, result.model_changed) == (True, ["helper.py"])
    monkeypatch.delitem(sys.modules, "helper", raising=False)


def test_a_changed_policy_is_refused_by_source(tmp_path):
    """A run goes on with the sources that began it."""
    with tw.open(tmp_path / "a.tw", watch) as twin:
        twin.run()

    with pytest.raises(ModelChanged, match="source 'schedule'"):
        tw.open(tmp_path / "a.tw", lambda twin: watch(twin, disorder="1s"))


def test_wiring_ends_with_build(tmp_path):
    """Sources, sinks and values are set up in build; afterwards only journaled inputs change a model."""
    with tw.open(tmp_path / "a.tw", watch) as twin:
        with pytest.raises(ModelError, match="wired in build"):
            twin.connect(schedule())
        with pytest.raises(ModelError, match="wired in build"):
            twin.sink(tw.sinks.console())
        with pytest.raises(ModelError, match="wired in build"):
            twin.state(dict)
        for change in (
            lambda: twin.registry.update("a.level", 3.0),
            lambda: twin.publish_event("outside", 1),
            lambda: twin.process(iter(())),
        ):
            with pytest.raises(ModelError, match="only a journaled input"):
                change()


def test_a_path_that_the_model_does_not_declare_is_refused_at_the_start(tmp_path):
    """With the near names; no journal is begun."""
    with pytest.raises(OperatorError, match=r"a\.levle"):
        tw.open(tmp_path / "a.tw", lambda twin: watch(twin, [(0, "a.levle", 1)]))
    with tw.open(tmp_path / "a.tw", watch, resume=False) as twin:
        twin.run()
    with pytest.raises(OperatorError, match="--resume"):
        tw.open(tmp_path / "a.tw", watch, resume=False)


def test_one_live_twin_per_journal(tmp_path):
    """The second is told who has it."""
    with tw.open(tmp_path / "a.tw", watch), pytest.raises(StoreLocked, match=str(os.getpid())):
        tw.open(tmp_path / "a.tw", watch)


def test_a_model_that_raises_stops_there_and_resuming_repeats_it(tmp_path):
    """The journal holds the stop with its reason; what was published before is delivered."""

    def build(twin, until=2.5):
        watch(twin)
        twin.sink(tw.sinks.jsonl(tmp_path / f"{until}.jsonl"))

        def fail():
            yield twin.env.timeout(until)
            raise RuntimeError("jammed")

        twin.process(fail())

    for _ in range(2):
        with tw.open(tmp_path / "a.tw", build, accept_model=True) as twin:
            with pytest.raises(
                ModelError,
                match=r"jammed \(in fail, test_session.py:\d+, at 2.5 s, caused by process:2:fail, after inputs a.level=",
            ):
                twin.run()
            with pytest.raises(OperatorError, match="open its journal again"):
                twin.run()
    keys = [json.loads(line)["key"] for line in (tmp_path / "2.5.jsonl").read_text().splitlines()]
    assert sorted(keys) == ["level", "tick", "tick"]
    stops = [row["reason"] for row in journal_rows(tmp_path / "a.tw", kind="stop")]
    assert stops == ["model", "model"]


@pytest.mark.parametrize("how", ["raises", "publishes", "fails an event"])
def test_an_error_says_what_made_it_happen(how, tmp_path):
    """The input that it leads back to, and the output between the two, if there is one; in the journal's stop too."""

    def build(twin):
        level = twin.variable("a.level", float)
        twin.connect(tw.sources.schedule([(1, "a.level", 1.0), (2, "a.level", 9.0)], name="pump"))

        def watch():
            while (yield level.wait_for_change()).new < 5:
                pass
            if how == "publishes":
                twin.publish_event("high", level.value)
            yield twin.env.timeout(0.5)
            if how == "fails an event":
                twin.env.event().fail(RuntimeError("jammed"))  # nobody waits for it
                yield twin.env.timeout(1)
            raise RuntimeError("jammed")

        def busy():
            while True:
                yield twin.env.timeout(0.25)

        twin.process(watch())
        twin.process(busy())

    said = f"caused by {2 * 10**9:016x}-00000000 of pump[0:1]" if how == "publishes" else "caused by pump[0:1]"
    with tw.open(tmp_path / "a.tw", build) as twin, pytest.raises(ModelError) as raised:
        twin.run(until=9)
    assert f"at 2.5 s, {said}, after inputs a.level=1.0; a.level=9.0)" in raised.value.value
    [stop] = journal_rows(tmp_path / "a.tw", kind="stop")
    assert said in stop["detail"]


@pytest.mark.parametrize("misuse", ["key", "instant", "process"])
def test_an_error_names_the_author_s_line_and_not_ours(misuse, tmp_path, monkeypatch):
    """Whatever of tidewarp or SimPy found the mistake, the place is where the model made it."""
    monkeypatch.setattr(environment, "INSTANT_EVENTS_MAX", 100)

    def build(twin):
        def author():
            yield twin.env.timeout(1)
            if misuse == "key":
                twin.publish_event("", 1)
            elif misuse == "process":
                twin.process(7)
            while True:
                yield twin.env.timeout(0)

        twin.process(author())

    with tw.open(tmp_path / "a.tw", build) as twin, pytest.raises(ModelError) as caught:
        twin.run(until=9)
    assert "author" in str(caught.value)
    assert "(in author, test_session.py:" in str(caught.value) or misuse == "instant"


def test_progress_is_told_and_changes_nothing(tmp_path):
    """A probe hears of inputs and progress; the digest is that of a run without one."""

    class Probe(SilentProbe):
        def __init__(self):
            self.counts = {}
            self.done = []

        def add(self, name, n=1):
            self.counts[name] = self.counts.get(name, 0) + n

        def progress(self, done, total):
            self.done.append(done)

    probe = Probe()
    with tw.open(tmp_path / "a.tw", watch, probe=probe) as twin:
        heard = twin.run().digest
    with tw.open(tmp_path / "b.tw", watch) as twin:
        assert twin.run().digest == heard
    assert probe.counts == {"inputs": 3}
    assert probe.done == sorted(probe.done)
    assert probe.done[-1] == 5.000000001


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch", 0),
        ("batch", 8_193),
        ("factor", -1.0),
        ("factor", float("nan")),
        ("factor", "x"),
        ("factor", ""),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_options_out_of_range_are_refused_at_once(tmp_path, option, value):
    """By name, and before a journal is begun."""
    with pytest.raises(OperatorError):
        tw.open(tmp_path / "a.tw", watch, **{option: value})
    with tw.open(tmp_path / "a.tw", watch, resume=False) as twin:
        twin.run()


def test_a_console_goes_on_behind_what_the_journal_says_was_shown(tmp_path):
    """A terminal does not tell what it has shown: the RELEASED records do, also for a sink that was left out once."""
    texts = []

    def build(twin, shown=True):
        watch(twin)
        if shown:
            texts.append(io.StringIO())
            twin.sink(tw.sinks.console(stream=texts[-1]))

    for until, shown in (("3s", True), ("4s", False), ("6s", True)):
        with tw.open(tmp_path / "a.tw", lambda twin, shown=shown: build(twin, shown)) as twin:
            twin.run(until=until)
    with tw.open(tmp_path / "b.tw", build) as twin:
        twin.run(until="6s")
    assert len(texts) == 3
    assert texts[0].getvalue()
    assert texts[0].getvalue() + texts[1].getvalue() == texts[2].getvalue()


def test_what_came_before_a_failure_reaches_a_slow_sink(tmp_path):
    """One output a write: all completed instants are delivered before the run gives up."""

    def build(twin):
        watch(twin)
        twin.sink(tw.sinks.jsonl(tmp_path / "out.jsonl"), batch=1)

        def fail():
            yield twin.env.timeout(4.5)
            raise RuntimeError("jammed")

        twin.process(fail())

    with tw.open(tmp_path / "a.tw", build) as twin, pytest.raises(ModelError, match="jammed"):
        twin.run()
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5


def test_a_source_more_is_known_to_verify_and_log(tmp_path):
    """A life that was accepted with another source writes it down; what describe() holds may be a tuple."""

    class Described(type(schedule())):
        def describe(self):
            return {"kind": "schedule", "columns": ("a", "b")}

    def build(twin, more=False):
        watch(twin)
        twin.variable("b.level", float)
        if more:
            twin.connect(Described([("7s", "b.level", 1.0)], name="second"))

    with tw.open(tmp_path / "a.tw", build) as twin:
        twin.run(until="6s")
    with tw.open(tmp_path / "a.tw", lambda twin: build(twin, True), accept_model=True) as twin:
        twin.run()
    verified = verify(tmp_path / "a.tw")
    assert verified.inputs == 4
    assert [row["source"] for row in journal_rows(tmp_path / "a.tw", kind="input")] == ["schedule"] * 3 + ["second"]


def test_a_source_described_by_a_tuple_can_be_resumed(tmp_path):
    """The journal gives arrays back where tuples were written."""

    class Described(type(schedule())):
        def describe(self):
            return {"kind": "schedule", "columns": ("a", "b")}

    def build(twin):
        twin.variable("a.level", float)
        twin.connect(Described([(1, "a.level", 1.0)]))

    for _ in range(2):
        with tw.open(tmp_path / "a.tw", build) as twin:
            assert twin.run().inputs == 1


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 2_000])
def test_a_name_that_no_record_can_hold_is_refused_in_build(tmp_path, name):
    """Before a journal is begun."""
    with pytest.raises(OperatorError, match="printable"):
        tw.open(tmp_path / "a.tw", lambda twin: watch(twin, name=name))
    with tw.open(tmp_path / "a.tw", watch, resume=False) as twin:
        assert twin.run().inputs == 3


def test_the_last_reading_has_its_effect_beyond_104_days(tmp_path):
    """Where neighbouring ticks are one float, the end lies behind the instant of the last input, not in it."""
    entries = [(86_400 * day, "a.level", float(day)) for day in range(1, 401)]

    def build(twin):
        level = twin.variable("a.level", float)

        def follow():
            while True:
                change = yield level.wait_for_change()
                twin.publish_event("level", change.new)

        twin.process(follow())
        twin.connect(schedule(entries))

    with tw.open(tmp_path / "a.tw", build) as twin:
        summary = twin.run()
    assert (summary.inputs, summary.outputs) == (400, 400)
    assert tw.replay(tmp_path / "a.tw", build).equal


@pytest.mark.parametrize("days", [1, 400])
def test_a_stop_inside_the_last_instant_ends(tmp_path, days):
    """However fine or coarse the floats of that time are."""

    def build(twin, stop=lambda: None):
        level = twin.variable("a.level", float)

        def follow():
            yield level.wait_for_change()
            for n in range(30_000):
                yield twin.env.timeout(0)
                if n == 25_000:
                    stop()

        twin.process(follow())
        twin.connect(schedule([(days * 86_400, "a.level", 1.0)]))

    twins = []
    with tw.open(tmp_path / "a.tw", lambda twin: build(twin, lambda: twins[0].stop())) as twin:
        twins.append(twin)
        twin.run(until=f"{days * 86_400 * 10**9 + 1} ns")
        stopped = twin.run(until=f"{days + 1}d")
    with tw.open(tmp_path / "b.tw", build) as twin:
        assert twin.run(until=f"{days + 1}d").digest == stopped.digest


def test_a_model_file_that_opens_a_twin_is_refused_when_it_is_loaded(tmp_path):
    """A replay must not run the live twin behind the user's back."""
    (tmp_path / "script.py").write_text(
        "import tidewarp as tw\n"
        "def build(twin):\n    twin.variable('a.b', float)\n"
        "with tw.open('own.tw', build) as twin:\n    twin.run(until=1)\n"
    )
    with pytest.raises(OperatorError, match="__main__"):
        load_model(str(tmp_path / "script.py"))


def test_what_runs_is_the_text_that_is_digested(tmp_path, monkeypatch):
    """An edit of the same second and size is another model: Python's own cache would not see it, and none is written."""
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    file = tmp_path / "plant.py"
    for number in (1, 2):
        file.write_text(f"def build(twin):\n    return {number}\n")
        os.utime(file, (1_000_000_000, 1_000_000_000))
        assert load_model(str(file))(None) == number
        if number == 1:
            assert not (tmp_path / "__pycache__").exists()
            py_compile.compile(str(file))  # as another program may


def test_relative_imports_and_arguments_belong_to_the_model(tmp_path):
    """What decides the run is in the model's files or in its plain arguments."""
    from tidewarp.twin.model import model_source

    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "a.py").write_text("from .b import RATE\nfrom . import c\n")
    (tmp_path / "pkg" / "b.py").write_text("RATE = 1\n")
    (tmp_path / "pkg" / "c.py").write_text("")
    (tmp_path / "model.py").write_text("def build(twin, rate=1):\n    from pkg import a\n")
    build = load_model(str(tmp_path / "model.py"))
    assert sorted(model_source(build).files) == ["model.py", "pkg/__init__.py", "pkg/a.py", "pkg/b.py", "pkg/c.py"]
    one, two = (model_source(functools.partial(build, rate=rate)).digest for rate in (1, 2))
    assert one != two
    with pytest.raises(OperatorError, match="plain data"):
        model_source(functools.partial(build, rate=object()))


def test_a_jsonl_file_has_one_writer_and_keeps_what_it_was_given(tmp_path):
    """A second sink on it, or a hand that cuts it, is an error and not a loss."""

    def build(twin):
        watch(twin)
        twin.sink(tw.sinks.jsonl(tmp_path / "out.jsonl"))

    with tw.open(tmp_path / "a.tw", build) as twin:
        with pytest.raises(OperatorError, match="another sink writes it"):
            tw.open(tmp_path / "b.tw", build)
        twin.run(until="3s")
        (tmp_path / "out.jsonl").write_text("")
        with pytest.raises(OperatorError, match="cut or written by another"):
            twin.run(until="6s")


def test_a_new_journal_beside_an_old_key_does_not_lose_its_outputs(tmp_path):
    """A sink knows a run by its key: it would drop the outputs of the new journal as seen before."""

    def build(twin):
        watch(twin)
        twin.sink(tw.sinks.jsonl(tmp_path / "events.jsonl"))

    with tw.open(tmp_path / "a.tw", build) as twin:
        twin.run()
    (tmp_path / "a.tw").unlink()
    before = (tmp_path / "events.jsonl").read_bytes()
    with pytest.raises(OperatorError, match=r"sink 'events'.*earlier journal.*move what the sink holds away"):
        tw.open(tmp_path / "a.tw", build)
    assert (tmp_path / "events.jsonl").read_bytes() == before
    (tmp_path / "events.jsonl").unlink()
    with tw.open(tmp_path / "a.tw", build) as twin:
        assert twin.run().sinks["events"]["sent"] == len(before.splitlines())


def gauge(path, disorder="40 min"):
    """A model that publishes every level of a file."""

    def build(twin):
        level = twin.variable("tank.level", float)
        changes = level.changes()

        def follow():
            while True:
                change = yield changes.next()
                twin.publish_event("level", [change.tick, change.new])

        twin.process(follow())
        twin.connect(tw.sources.csv(path, time="t", map={"v": "tank.level"}), disorder=disorder)

    return build


def test_a_file_that_grew_while_a_run_rested_is_read_as_if_in_one_life(tmp_path):
    """A run that stopped in order went no further than its stop, though it had read to the end of the file."""
    path = tmp_path / "levels.csv"
    rows = [f"{60 * n},{n}" for n in range(100)]
    path.write_text("\n".join(["t,v", *rows]) + "\n")
    with tw.open(tmp_path / "two.tw", gauge(path)) as twin:
        twin.run(until=3_600)
    path.write_text("\n".join(["t,v", *rows, "4000,0.5", "6000,0.25"]) + "\n")  # the first lies 1,940 s below the last
    with tw.open(tmp_path / "two.tw", gauge(path)) as twin:
        second = twin.run()
    with tw.open(tmp_path / "one.tw", gauge(path)) as twin:
        first = twin.run()
    assert (second.digest, second.late, second.inputs) == (first.digest, 1, 102)


def test_a_file_that_grew_below_where_its_end_let_the_clock_go_says_so(tmp_path):
    """Not the disorder bound is too small: outputs of that time have left."""
    path = tmp_path / "levels.csv"
    path.write_text("t,v\n0,1\n6000,2\n")
    with tw.open(tmp_path / "a.tw", gauge(path)) as twin:
        twin.run()
    path.write_text("t,v\n0,1\n6000,2\n4000,3\n")
    with (
        tw.open(tmp_path / "a.tw", gauge(path)) as twin,
        pytest.raises(
            OperatorError, match=r"message 3: .*the source had ended before, and the clock went on to 92400.000 s"
        ),
    ):
        twin.run()


def test_the_late_message_names_the_row_that_it_is_late_against(tmp_path):
    """One absurd time makes all after it late: it is the one to look at."""
    path = tmp_path / "levels.csv"
    path.write_text("t,v\n0,1\n4070908800,2\n60,3\n")
    with (
        tw.open(tmp_path / "a.tw", gauge(path)) as twin,
        pytest.raises(OperatorError, match=r"message 3: .* below that of message 2.*if both times are right"),
    ):
        twin.run()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda twin, level: setattr(level, "value", 99.0), r"a.level: value = 99.0.*use update\(\)"),
        (lambda twin, level: twin.process(gauge), r"twin.process\(gauge\).*call it: twin.process\(gauge\(\)\)"),
        (lambda twin, level: twin.process(7), r"twin.process\(int\).*a process is a generator"),
    ],
)
def test_what_would_fail_in_silence_is_refused(wrong, message, tmp_path):
    """An assignment that no rule sees, and a function that was not called."""
    with pytest.raises(ModelError, match=message):
        tw.open(tmp_path / "a.tw", lambda twin: wrong(twin, twin.variable("a.level", float, 1.0)))


def test_an_accepted_change_that_alters_the_past_is_named_as_the_cause(tmp_path):
    """Not the order of sets."""
    model = tmp_path / "model.py"
    text = 'def build(twin):\n    def say():\n        yield twin.env.timeout(5)\n        twin.publish_event("said", 1)\n    twin.process(say())\n'
    model.write_text(text)
    with tw.open(tmp_path / "a.tw", load_model(str(model))) as twin:
        twin.run()
    model.write_text(text.replace("timeout(5)", "timeout(4)"))
    with pytest.raises(ModelError, match=r"begin a new journal: what changed in model.py alters the past"):
        tw.open(tmp_path / "a.tw", load_model(str(model)), accept_model=True)


def test_the_model_s_error_is_not_hidden_by_that_of_a_close(tmp_path):
    """The first error counts."""

    class Leaving(type(schedule())):
        async def close(self):
            raise PeerError("peer", "rule", "act")

    def build(twin):
        twin.variable("a.level", float)
        twin.connect(Leaving([(0, "a.level", 1.0)]))

        def fail():
            yield twin.env.timeout(1)
            raise RuntimeError("jammed")

        twin.process(fail())

    with pytest.raises(ModelError, match="jammed"), tw.open(tmp_path / "a.tw", build) as twin:
        twin.run(until=5)


def test_inputs_that_each_wake_the_model_are_not_copied_for_each(tmp_path, monkeypatch):
    """What waits is offered in windows: twice as many inputs cost about twice, by the number of inputs looked at."""
    looked = []
    real = Environment.apply_ahead

    def counted(self, inputs, refusals):
        looked.append(len(inputs))
        return real(self, inputs, refusals)

    monkeypatch.setattr(Environment, "apply_ahead", counted)

    def build(twin):
        changes = twin.variable("a.level", float).changes()

        def follow():
            while True:
                yield changes.next()

        twin.process(follow())
        twin.connect(schedule([(n / 1_000, "a.level", float(n)) for n in range(5_000)]), disorder="1h")

    with tw.open(tmp_path / "a.tw", build) as twin:
        assert twin.run().inputs == 5_000
    assert sum(looked) < 50 * 5_000


def test_two_threads_that_close_do_so_one_after_the_other(tmp_path, monkeypatch):
    """As at the end of ``with``, while another thread is at it: who returns finds the journal closed."""
    twin = tw.open(tmp_path / "a.tw", lambda twin: None)
    end, wait = twin._end, twin._turn.wait
    begun, second, may_end, ended = threading.Event(), threading.Event(), threading.Event(), []

    def slowly():
        (second if begun.is_set() else begun).set()
        assert may_end.wait(60)
        end()
        ended.append("ended")

    def waits():
        ended.append("waits")
        second.set()
        return wait()

    monkeypatch.setattr(twin, "_end", slowly)
    monkeypatch.setattr(twin._turn, "wait", waits)
    with ThreadPoolExecutor(2) as threads:
        closing = [threads.submit(twin.close)]
        assert begun.wait(60)
        closing.append(threads.submit(twin.close))
        assert second.wait(60)
        may_end.set()
        for one in closing:
            one.result(60)
    assert ended == ["waits", "ended", "ended"]
