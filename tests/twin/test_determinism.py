"""One digest per content: environment, batches, budgets, pace, stops and the timing of threads leave no trace."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidewarp as tw
from five_days import COUNT, five_days, loaded, sample, write_model
from tidewarp.connect.backends.schedule import ScheduleSource
from tidewarp.observe import on_stage
from tidewarp.seeds import Stream
from tidewarp.testing import ManualClock
from tidewarp.twin import host, verify

pytestmark = pytest.mark.proof("environment, batches, pace and stops leave no trace")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("five-days"), *five_days())


@pytest.fixture
def build(model, tmp_path, monkeypatch):
    """The model in process; its sink's file is in the test's own directory."""
    monkeypatch.chdir(tmp_path)
    with loaded(model) as build:
        yield build


def outputs(folder, journal):
    """The sink's file without the domain, in which alone two runs differ."""
    return (folder / "events.jsonl").read_bytes().replace(verify(folder / journal).domain.encode(), b"")


def lived(folder, build, **options):
    """One life in a folder of its own: summary and outputs."""
    folder.mkdir()
    os.chdir(folder)
    with tw.open("run.tw", build, seed=7, **options) as twin:
        summary = twin.run()
    return summary, outputs(folder, "run.tw")


@pytest.fixture(scope="module")
def undisturbed(model, tmp_path_factory):
    """Digest and outputs of the command in the environment of the tests."""
    return commanded(tmp_path_factory.mktemp("undisturbed"), model, {})


def tidewarp(folder, env, *words):
    """The digest that the command prints."""
    command = [sys.executable, "-m", "tidewarp", *map(str, words), "--json"]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **env}, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return json.loads(done.stdout)["digest"]


def commanded(folder, model, env, *options):
    digest = tidewarp(folder, env, "run", model, "--journal", "run.tw", "--seed", "7", *options)
    return digest, outputs(folder, "run.tw")


PLAIN_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "env",
    [{"PYTHONHASHSEED": "0"}, {"PYTHONHASHSEED": "1"}, {"TZ": "UTC"}, {"TZ": "Asia/Tokyo"}, PLAIN_C],
    ids=["hash-0", "hash-1", "utc", "tokyo", "c"],
)
def test_the_environment_leaves_no_trace(env, model, undisturbed, tmp_path):
    """Hash seed, time zone and the C locale: one digest, and the outputs byte for byte."""
    assert commanded(tmp_path, model, env) == undisturbed


def test_a_latin1_locale_leaves_no_trace(model, undisturbed, tmp_path, latin1_env):
    """A German locale with a one-byte encoding, also through a replay."""
    assert commanded(tmp_path, model, latin1_env) == undisturbed
    assert tidewarp(tmp_path, latin1_env, "replay", "run.tw") == undisturbed[0]


@pytest.mark.nightly
def test_the_whole_sample_paced_by_the_wall_has_its_digest_at_full_speed(tmp_path):
    """79 days at a millionth of a wall second per second, by the command: about 7 s, and no trace of them."""
    model = write_model(tmp_path, *sample())
    runs = []
    for options in (), ("--factor", "1e-6"):
        folder = tmp_path / f"run-{len(runs)}"
        folder.mkdir()
        runs.append(commanded(folder, model, {}, *options))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("batch", [1, 64, 8_192])
def test_journal_batches_leave_no_trace(batch, build, undisturbed, tmp_path):
    """However many inputs share a record: one digest, live and replayed."""
    summary, events = lived(tmp_path / "a", build, batch=batch)
    assert (summary.digest, events) == undisturbed
    assert summary.journal_records >= COUNT // batch
    again = tw.replay("run.tw", build)
    assert (again.digest, again.equal, again.outputs) == (summary.digest, True, summary.outputs)


@pytest.mark.parametrize("budget", [1, 37, 5_000])
def test_budgets_and_marks_leave_no_trace(budget, build, undisturbed, tmp_path, monkeypatch):
    """However often the model pauses to look at its inbox, and however often a mark is made."""
    monkeypatch.setattr(host, "EVENTS_PER_STEP", budget)
    monkeypatch.setattr(host, "MARK_INPUTS", 10 * budget)
    summary, events = lived(tmp_path / "a", build, batch=50)
    assert (summary.digest, events) == undisturbed
    assert tw.replay("run.tw", build).equal


@pytest.mark.parametrize("factor", [1e-6, 0.001, 1.0])
def test_pace_leaves_no_trace(factor, build, undisturbed, tmp_path):
    """On a simulated clock, faster and slower than the data come: one digest; the clock shows that it was paced."""
    clock = ManualClock()
    summary, events = lived(tmp_path / "a", build, factor=factor, clock=clock, batch=64)
    assert (summary.digest, events) == undisturbed
    assert clock.now() >= factor * summary.virtual_time_s * 0.99


@pytest.mark.parametrize("number", range(3))
def test_stops_at_any_stage_leave_no_trace(number, build, undisturbed, tmp_path, monkeypatch, record_property):
    """stop() from whatever thread reaches a stage, again and again; resumed in the same session and in later ones."""
    monkeypatch.setattr(host, "EVENTS_PER_STEP", 200)
    folder, chance = tmp_path / "a", Stream(number, "stops")
    folder.mkdir()
    os.chdir(folder)
    stages = ("journal.before", "journal.commit", "journal.after", "apply.after", "release.inside", "release.after")
    twin, stops = None, 0

    def stop_at(stage, arrival):
        arrivals = itertools.count(1)
        on_stage(lambda name: name == stage and next(arrivals) == arrival and twin.stop())

    try:
        for session in itertools.count():
            with tw.open("run.tw", build, seed=7, batch=1 + chance.below(64)) as twin:
                for _ in range(1 + chance.below(3)):
                    if session < 12:
                        stop_at(stages[chance.below(len(stages))], 1 + chance.below(4))
                    summary = twin.run()
                    on_stage(None)
                    stops += summary.interrupted
                    assert twin.digest() == summary.digest
            assert tw.replay("run.tw", build).equal
            if session >= 12 and not summary.interrupted:
                break
    finally:
        on_stage(None)
    assert stops >= 1  # how many it takes depends on the threads: a run may outpace its stop
    record_property("trials", stops)
    assert (summary.digest, outputs(folder, "run.tw")) == undisturbed


def test_pieces_leave_no_trace(build, undisturbed, tmp_path):
    """run(until=...) to arbitrary places, at different paces, in several sessions: the whole is one run."""
    folder, chance = tmp_path / "a", Stream(1, "pieces")
    folder.mkdir()
    os.chdir(folder)
    until_s = sorted(chance.random() * 500_000 for _ in range(12))
    for first in range(0, 12, 3):
        with tw.open("run.tw", build, seed=7, batch=64, clock=ManualClock()) as twin:
            for n, until in enumerate(until_s[first : first + 3]):
                assert twin.run(until=until, factor=n / 1_000).virtual_time_s == pytest.approx(until, abs=1e-9)
    with tw.open("run.tw", build, seed=7) as twin:
        summary = twin.run()
    assert (summary.digest, outputs(folder, "run.tw")) == undisturbed
    again = tw.replay("run.tw", build)
    assert (again.digest, again.equal) == (summary.digest, True)


# ---------------------------------------------------------------------- two sources, out of order

SECOND = 10**9
by_key = pytest.mark.proof("inputs take effect in key order, however they arrive")


class Chunked(ScheduleSource):
    """A schedule that gives as many entries at a time as ``sizes`` say, in turn."""

    def __init__(self, entries, sizes, name):
        super().__init__(entries, name=name)
        self._sizes = itertools.cycle(sizes)

    async def read(self, limit):
        return await super().read(min(limit, next(self._sizes)))


def admitted(rank, times, disorder, late):
    """What a gate has to make of one source: (tick, rank, offset), in order of arrival."""
    highest, inputs = 0, []
    for offset, time in enumerate(times):
        bound = max(0, highest - disorder)
        if time >= bound or late == "clamp":
            inputs.append((max(time, bound) * SECOND, rank, offset))
            highest = max(highest, time)
    return inputs


def two_sources(contents, sizes):
    """A model that remembers, of each instant, what was set last; value = 1,000 rank + offset."""

    def build(twin):
        level = twin.variable("level", int)
        seen = {}

        def follow():
            while True:
                yield level.wait_for_change()
                seen[twin.tick] = level.value
                twin.publish_event("level", {"level": level.value, "draw": twin.stream("draws").random()})

        twin.process(follow())
        twin.state(lambda: sorted(seen.items()))
        twin.seen = seen
        for rank, (times, disorder, late) in enumerate(contents, 1):
            entries = [(time, "level", 1_000 * rank + offset) for offset, time in enumerate(times)]
            twin.connect(Chunked(entries, sizes[rank - 1], f"source-{rank}"), disorder=disorder, late=late)

    return build


CONTENT = st.tuples(
    st.lists(st.integers(1, 40), min_size=1, max_size=25), st.integers(0, 20), st.sampled_from(["clamp", "drop"])
)
# Each example is two runs with their threads, about 50 ms: a fifth of what a pure function gets.
EXAMPLES = settings(max_examples=max(20, settings().max_examples // 5))
SIZES = st.tuples(*[st.lists(st.integers(1, 8), min_size=1, max_size=4)] * 2)


@by_key
@EXAMPLES
@given(
    contents=st.tuples(CONTENT, CONTENT), sizes=st.tuples(SIZES, SIZES), batches=st.tuples(*[st.integers(1, 30)] * 2)
)
def test_inputs_of_two_sources_interleave_by_event_key_not_by_arrival(contents, sizes, batches):
    """Whatever the chunks, the batches and the disorder: what was set last at an instant is what the key says."""
    inputs = sorted(one for rank, content in enumerate(contents, 1) for one in admitted(rank, *content))
    last = {tick: 1_000 * rank + offset for tick, rank, offset in inputs}
    found = []
    for size, batch in zip(sizes, batches, strict=True):
        with tw.open(":memory:", two_sources(contents, size), batch=batch) as twin:
            summary = twin.run()
            assert twin.seen == last
            assert summary.inputs == len(inputs)
            found.append((summary.digest, summary.late, summary.clamped, summary.dropped, summary.events))
    assert found[0] == found[1]


@by_key
@EXAMPLES
@given(contents=st.tuples(CONTENT, CONTENT), sizes=SIZES, cuts=st.lists(st.integers(1, 39), max_size=3))
def test_pieces_of_a_disordered_run_are_one_run(contents, sizes, cuts):
    """Stopping on the way, at times that may hold inputs, changes neither what is late nor the digest."""
    end = max(max(times) for times, _, _ in contents)
    with tw.open(":memory:", two_sources(contents, sizes), batch=3) as twin:
        whole = twin.run()
    with tw.open(":memory:", two_sources(contents, sizes), batch=7) as twin:
        for cut in sorted(cuts):
            if cut <= end:
                twin.run(until=cut)
        pieces = twin.run()
    assert (pieces.digest, pieces.late, pieces.dropped) == (whole.digest, whole.late, whole.dropped)


# ---------------------------------------------------------------------- found by these tests and the kill harness


later_life = pytest.mark.proof("a later life goes on where the journal ends")


def level_of(entries):
    def build(twin):
        twin.variable("level", float)
        twin.connect(tw.sources.schedule(entries))

    return build


@later_life
def test_a_dead_letter_does_not_move_a_position_back(tmp_path):
    """A batch may hold an input behind a dead letter: after a recovery neither of them is read again."""
    build = level_of([(1, "level", 1.0), (2, "level", "hot"), (3, "level", 3.0), (9, "level", 9.0)])
    with tw.open(tmp_path / "a.tw", build) as twin:
        first = twin.run(until=2)
    with tw.open(tmp_path / "a.tw", build) as twin:
        second = twin.run()
    assert (first.inputs, second.inputs, second.dead_letters) == (3, 3, 1)
    with tw.open(":memory:", build) as twin:
        assert twin.run().digest == second.digest


@later_life
def test_a_source_that_had_ended_is_asked_again_by_a_later_life(tmp_path):
    """A file or list that has grown since goes on at its new entries, every time and not by luck."""
    entries = [(1, "level", 1.0), (2, "level", 2.0)]
    with tw.open(tmp_path / "a.tw", level_of(entries)) as twin:
        assert twin.run().inputs == 2
    grown = level_of([*entries, (20, "level", 20.0)])
    with tw.open(tmp_path / "a.tw", grown) as twin:
        summary = twin.run()
    assert (summary.inputs, summary.virtual_time_s) == (3, 20.000000001)
    assert tw.replay(tmp_path / "a.tw", grown).equal
