"""A twin that is killed anywhere, any number of times, ends as if nothing had happened; and the harness can tell."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from five_days import COUNT, five_days, loaded, write_model
from tidewarp.connect.backends.jsonl import JsonlSink
from tidewarp.connect.gate import Gate
from tidewarp.connect.shell import SourceThread
from tidewarp.connect.sinks import jsonl
from tidewarp.connect.sources import schedule
from tidewarp.observe import STAGES
from tidewarp.seeds import Stream
from tidewarp.store import Written
from tidewarp.store.journal import SqliteJournal
from tidewarp.testing.kill import JOURNAL, KillTrial, Report
from tidewarp.twin import Build, Twin, admissions, forked, host, open_twin, snapshots

pytestmark = pytest.mark.proof("killed anywhere, a run ends as if nothing had happened")
teeth = pytest.mark.proof("a mistake planted in the runtime is found by killing it")

POISON = ["yesterday,70.0", "2014-01-04 01:00:00,hot", "2014-01-04 01:00:00", "2014-01-04 01:00:00,1,2", "\xff"]
DEAD = COUNT // 10 + 3 * len(POISON)
WORKERS = min(4, os.cpu_count() or 1)
KILLS_MAX = 200  # a planted mistake is found long before, by one of the first ten or, where it is rare, fifty
REPEAT = "TIDEWARP_KILLS"  # "SEED" or "SEED,RUN": with a run, that one alone


def poisoned(header: str, rows: list[str]) -> tuple[str, list[str]]:
    """After each ten rows a broken one, and once 15 in a row (a record holds 12)."""
    for at in range(len(rows), 0, -10):
        rows.insert(at, POISON[at // 10 % len(POISON)])
    rows[700:700] = 3 * POISON
    return header, rows


def many_marks() -> None:
    """Marks often enough that a recovery of five days halts at several."""
    host.MARK_INPUTS = 150


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("five-days"), *poisoned(*five_days()))


@pytest.fixture
def build(model: Path, require: Callable[[str], None]) -> Iterator[Build]:
    require("fork")
    with loaded(model) as build:
        yield build


def seed_and_run() -> tuple[int, int | None]:
    seed, _, run = os.environ.get(REPEAT, "2026").partition(",")
    return int(seed), int(run) if run else None


@pytest.fixture
def show(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> Callable[[Report], None]:
    """Print the table of places (but with -q), also where pytest captures, and fail with what repeats each failure."""

    def show_report(report: Report) -> None:
        record_property("trials", report.kills)
        if request.config.get_verbosity() >= 0:
            with capsys.disabled():
                print("\n" + report.table())
        again = [f"{REPEAT}={report.seed},{one.run} pytest '{request.node.nodeid}'" for one in report.failures]
        if again:
            pytest.fail("\n".join([report.table(), "repeat with", *again]), pytrace=False)

    return show_report


def kill(trial: KillTrial, mode: str, kills: int) -> Report:
    _, run = seed_and_run()
    report = trial.run(mode, kills, workers=WORKERS) if run is None else trial.run(mode, 1_000, first=run, runs_max=1)
    assert run is not None or report.failures or report.kills == kills
    return report


@pytest.mark.parametrize("kills", [50, pytest.param(1_000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("mode", ["armed", "moments"])
def test_killed_runs_end_like_the_undisturbed_one(mode, kills, build, tmp_path, show):
    """Whatever the place and the number of kills: same digest, same outputs, nothing acknowledged is lost."""
    trial = KillTrial(build, tmp_path, seed=seed_and_run()[0], setup=many_marks)
    assert (trial.done["inputs"], trial.done["late"], trial.done["dead_letters"]) == (COUNT, 11, DEAD)
    report = kill(trial, mode, kills)
    show(report)
    if mode == "armed" and report.kills >= 50:
        assert report.places.keys() <= set(STAGES)
        assert len(report.places) >= (len(STAGES) if kills >= 1_000 else 6), "chance may leave out one or two of 50"


@pytest.mark.parametrize("kills", [6, pytest.param(1_000, marks=pytest.mark.nightly)])
def test_a_killed_command_resumes_to_the_same_end(kills, model, build, tmp_path, show):
    """`tidewarp run --resume` after SIGKILL, again and again, prints the digest of the undisturbed run."""
    options = ["--journal", JOURNAL, "--resume", "--seed", "7", "--journal-batch", "64", "--json"]
    command = [sys.executable, "-m", "tidewarp", "run", str(model), *options]
    trial = KillTrial(build, tmp_path, seed=seed_and_run()[0], command=command)
    show(kill(trial, "command", kills))


def disordered(name: str, count: int, gap_s: float) -> list[tuple[float, str, object]]:
    """Entries of which a quarter come late, some of them too late, and one in 15 is no number."""
    chance, now_s, entries = Stream(5, name), 0.0, []
    for n in range(count):
        now_s += chance.exponential(gap_s)
        time_s = now_s if chance.below(4) else max(0.0, now_s - chance.exponential(8 * gap_s))
        entries.append((time_s, name, "hot" if chance.below(15) == 0 else n))
    return entries


def two_sources(twin: Twin) -> None:
    """What is too late from one source is moved to the present, from the other it becomes a dead letter."""

    def follow(variable, path):
        while True:
            change = yield variable.wait_for_change()
            twin.publish_event(path, {"new": change.new, "draw": twin.stream(path).random()})

    for path, count, gap_s, late in (("a.level", 500, 2.0, "clamp"), ("b.level", 350, 3.0, "drop")):
        twin.process(follow(twin.variable(path, int), path))
        twin.connect(schedule(disordered(path, count, gap_s), name=path), disorder=4, late=late)
    twin.sink(jsonl("events.jsonl"), batch=10)


@pytest.mark.parametrize("kills", [8, pytest.param(1_000, marks=pytest.mark.nightly)])
def test_late_data_of_two_sources_survives_kills(kills, tmp_path, show, require):
    """Which inputs were too late, and what became of them, is the same in every life."""
    require("fork")
    trial = KillTrial(two_sources, tmp_path, seed=seed_and_run()[0], batch=16, setup=many_marks)
    assert min(trial.done[name] for name in ("clamped", "dropped", "dead_letters")) > 50
    show(kill(trial, "armed", kills))


def two_repaired(twin: Twin) -> None:
    """What is late is put in its place; outputs leave 200 s later."""

    def follow(path, changes):
        while True:
            change = yield changes.next()
            twin.publish_event(path, {"new": change.new, "draw": twin.stream(path).random()})

    for path, count, gap_s in (("a.level", 500, 2.0), ("b.level", 350, 3.0)):
        twin.process(follow(path, twin.variable(path, int).changes()))
        twin.connect(schedule(disordered(path, count, gap_s), name=path), disorder=4, late="repair", horizon=200)
    twin.sink(jsonl("events.jsonl"), batch=10)


def frail() -> None:
    """Each 30th slice the simulation process is killed alone, under its host; a snapshot is taken behind each third at the latest."""
    slice_of, count = forked.ForkedRun._slice, itertools.count(1)
    spend, taken = snapshots.Due.spend, snapshots.Due.taken
    snapshots.Due.spend = lambda self, s: spend(self, 1.0)  # by slices: a busy machine would take too few snapshots
    snapshots.Due.taken = lambda self, s: taken(self, 1.0)

    def slice_and_die(self, limit, events_max):
        if next(count) % 30 == 0:
            os.kill(self._simulation.pid, signal.SIGKILL)
        return slice_of(self, limit, events_max)

    forked.ForkedRun._slice, forked._SLICE_EVENTS, snapshots._SHARE = slice_and_die, 50, 3


@pytest.mark.parametrize("kills", [8, pytest.param(1_000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("setup", [many_marks, frail])
def test_repairs_from_snapshots_survive_kills(kills, setup, tmp_path, show, require):
    """The forked host, killed as a whole, and its simulation alone as well: the run of the inline host, each output once."""
    require("fork")
    (tmp_path / "inline").mkdir()
    with contextlib.chdir(tmp_path / "inline"), open_twin("a.tw", two_repaired, seed=7, host="inline") as twin:
        inline = twin.run()
    seed = seed_and_run()[0]
    trial = KillTrial(two_repaired, tmp_path / "trial", seed=seed, model_seed=7, batch=16, pauses=False, setup=setup)
    assert trial.done["late"] > 100
    assert trial.done["digest"] == inline.digest
    show(kill(trial, "armed", kills))


# ---------------------------------------------------------------------- planted mistakes: the harness has teeth


def journal_after_apply() -> None:
    """A record is said to be durable at once, and is written when three more have come."""
    submit, append = SqliteJournal.submit, SqliteJournal.append
    held = []

    def write_held(journal, but=0):
        while len(held) > but:
            entries, cursors = held.pop(0)
            submit(journal, entries, cursors=cursors)

    def submit_late(self, entries, *, cursors=None):
        held.append((entries, cursors))
        write_held(self, but=3)
        future = Future()
        future.set_result(Written(0, 0, b""))
        return future

    def append_behind(self, entries, *, cursors=None):
        write_held(self)
        return append(self, entries, cursors=cursors)

    SqliteJournal.submit, SqliteJournal.append = submit_late, append_behind


def cursor_first() -> None:
    """The source's position is committed by itself, before the records that it stands behind."""
    transact = SqliteJournal._transact

    def transact_twice(self, db, linked, cursors, tail):
        db.executemany("INSERT OR REPLACE INTO source_cursor VALUES (?, ?)", cursors.items())
        transact(self, db, linked, {}, tail)

    SqliteJournal._transact = transact_twice


def cursor_later() -> None:
    """The source's position is committed by itself, after its records."""
    transact = SqliteJournal._transact

    def transact_twice(self, db, linked, cursors, tail):
        transact(self, db, linked, {}, tail)
        db.executemany("INSERT OR REPLACE INTO source_cursor VALUES (?, ?)", cursors.items())

    SqliteJournal._transact = transact_twice


def sink_without_ids() -> None:
    """The sink does not look at what its file holds."""
    open_ = JsonlSink.open

    async def open_blind(self, run):
        await open_(self, run)
        self._last = ""
        return ""

    JsonlSink.open = open_blind


def journal_believed_over_sink() -> None:
    """What the sink holds is taken from the journal's last word about it."""
    open_ = JsonlSink.open

    async def open_mute(self, run):
        await open_(self, run)
        self._last = ""

    JsonlSink.open = open_mute


def torn_line_kept() -> None:
    """What a kill left of a line stays in the file."""
    open_ = JsonlSink.open

    async def open_uncut(self, run):
        held = self.path.read_bytes() if self.path.exists() else b""
        last = await open_(self, run)
        self.path.write_bytes(held)
        self._size = len(held)
        return last

    JsonlSink.open = open_uncut


def dead_letter_without_offset() -> None:
    """A dead letter is kept, and its record moves no position."""
    encode = admissions.encode_dead
    admissions.encode_dead = lambda source, admitted, letters, counted, moved: encode(
        source, admitted, letters, counted, {}
    )


def dead_letter_moves_back() -> None:
    """Read back, the position of a dead letter replaces that of an input behind it (found by this harness)."""
    handle = Gate._handle_replayed

    def handle_replayed(self, event):
        instructions = handle(self, event)
        self.sources.find(event.source).positions.update(event.positions)
        return instructions

    Gate._handle_replayed = handle_replayed


PLANTS = {
    journal_after_apply: {"acknowledged", "explained"},
    cursor_first: {"verify"},
    cursor_later: {"verify"},
    sink_without_ids: {"prefix", "outputs"},
    journal_believed_over_sink: {"prefix", "outputs"},
    torn_line_kept: {"prefix", "outputs"},
    dead_letter_without_offset: {"verify", "counts"},
    dead_letter_moves_back: {"counts", "verify"},
}


@teeth
@pytest.mark.parametrize(("plant", "checks"), PLANTS.items(), ids=[plant.__name__ for plant in PLANTS])
def test_a_planted_mistake_is_found(plant, checks, build, tmp_path):
    """Soon, and by the check that is meant for it."""
    report = KillTrial(build, tmp_path, seed=7, setup=many_marks, plant=plant).run("armed", KILLS_MAX, failures_max=1)
    assert {failure.check for failure in report.failures} <= checks, report.table()
    assert len(report.failures) == 1, report.table()


@teeth
def test_an_output_before_its_journal_record_is_seen_without_acknowledgements(build, tmp_path):
    """The sink and the journal alone tell that something was applied too early."""

    def plant() -> None:
        journal_after_apply()
        SourceThread.confirm = lambda self, positions: None

    report = KillTrial(build, tmp_path, seed=7, plant=plant).run("armed", KILLS_MAX, failures_max=1)
    assert [failure.check for failure in report.failures] == ["explained"], report.table()


@teeth
def test_a_life_that_raises_is_reported_with_its_traceback(build, tmp_path):
    """A child's error reaches the parent, and its run counts as wrong."""

    def plant() -> None:
        raise RuntimeError("planted")

    report = KillTrial(build, tmp_path, plant=plant).run("armed", 1, failures_max=1)
    assert report.kills == 0
    assert "RuntimeError: planted" in report.failures[0].message
    assert report.failures[0].check == "error"
    with contextlib.suppress(
        ChildProcessError
    ):  # raised where there is no child at all; servers of other tests may live
        assert os.waitpid(-1, os.WNOHANG) == (0, 0), "it leaves no zombie"
