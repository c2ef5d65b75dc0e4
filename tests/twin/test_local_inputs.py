"""twin.apply: what the program itself sets is an input like any other, and acts at once between two runs."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.codec import pack
from tidewarp.connect import Output, Refused, RunIdentity, Sink
from tidewarp.errors import Corrupt, ModelError, OperatorError, RuleViolation, UnknownPath
from tidewarp.store import open_store
from tidewarp.testing import ManualClock
from tidewarp.twin import journal_rows, verify
from tidewarp.twin.facts import documents
from tidewarp.twin.host import Host


class Memory(Sink):
    name, kind, delivery = "memory", "memory", "once"

    def __init__(self) -> None:
        self.held: list[Output] = []

    async def open(self, run: RunIdentity) -> str | None:
        return self.held[-1].id if self.held else ""

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        self.held += batch
        return []


def model(sink: Sink | None = None, rows: Sequence[tuple[float, str, Any]] = (), end: float = 100.0) -> Any:
    """Tells each change of a level, and the level every 10 s."""

    def build(twin: tw.Twin) -> None:
        level = twin.variable("a.level", float, 0.0, high=100.0)
        twin.variable("a.mode", str, "auto", one_of=("auto", "off"))
        twin.resource("a.lathe", 1, 3)

        def follow() -> Any:
            changes = level.changes()
            while True:
                change = yield changes.next()
                twin.publish_event("changed", change.new)

        def tick() -> Any:
            while twin.now < end:
                twin.publish_telemetry("a.level", level.value)
                yield twin.env.timeout(10.0)

        twin.process(follow())
        twin.process(tick())
        if rows:
            twin.connect(tw.sources.schedule(rows))
        if sink is not None:
            twin.sink(sink)

    return build


ROWS = [(float(n), "a.level", float(n % 50)) for n in range(100)]


@pytest.mark.parametrize("host", ["inline", "forked"])
def test_between_two_runs_it_acts_at_once_and_the_clock_stays(tmp_path: Path, host: str) -> None:
    """Before the first, between two, behind the last; at a time at which the data has a row too. The replay has it all."""
    path, sink = tmp_path / "a.tw", Memory()
    with tw.open(path, model(sink, ROWS), host=host) as twin:
        twin.apply("a.level", 7)
        assert (twin.registry.get("a.level").value, twin.now) == (7.0, 0.0)
        twin.run(until=30)
        twin.apply({"a.level": 55.5, "a.mode": "off"})
        twin.apply("a.level", 66.5)
        assert (twin.registry.get("a.level").value, twin.registry.get("a.mode").value, twin.now) == (66.5, "off", 30.0)
        same = twin.run(until=30)
        assert tw.replay(path, model(rows=ROWS)).digest == same.digest == twin.digest()
        summary = twin.run(until=60)
        twin.apply("a.level", 77.5)
        last = twin.digest()
        assert last != summary.digest
    told = [(output.tick // 10**9, output.value) for output in sink.held if output.key == "changed"]
    assert (
        len(told) == 60 + 2 - 1
    )  # the first row is the value that it has; two at 30 s, of which one process sees both
    again = tw.replay(path, model(rows=ROWS))
    assert (again.equal, again.digest, again.recorded) == (True, last, last)
    assert verify(path).digest == last
    local = [
        (row["tick"], row["offset"], row["path"])
        for row in journal_rows(path, source="local")
        if row["kind"] == "input"
    ]
    assert local == [
        (0, 0, "a.level"),
        (30 * 10**9, 1, "a.level"),
        (30 * 10**9, 1, "a.mode"),
        (30 * 10**9, 2, "a.level"),
        (60 * 10**9, 3, "a.level"),
    ]
    with tw.open(path, model(Memory(), ROWS), host=host) as twin:
        assert (twin.digest(), twin.registry.get("a.level").value) == (last, 77.5)


def test_what_does_not_fit_is_refused_at_the_call(tmp_path: Path) -> None:
    """With value, rule and next action, and nothing of it is in the journal but what only the moment forbids."""
    with tw.open(tmp_path / "a.tw", model()) as twin:
        size = len(list(journal_rows(tmp_path / "a.tw")))
        for path, value, error in [
            ("no.such", 1, UnknownPath),
            ("a.level", "high", RuleViolation),
            ("a.level", 100.5, RuleViolation),
            ("a.mode", "on", RuleViolation),
            (7, 1, UnknownPath),
        ]:
            with pytest.raises(error):
                twin.apply(path, value)  # type: ignore[arg-type]  # as somebody may
        with pytest.raises(RuleViolation, match="one path or more"):
            twin.apply({})
        with pytest.raises(UnknownPath):
            twin.apply({"a.level": 5.0, "no.such": 1})
        with pytest.raises(ModelError, match="a path and a value"):
            twin.apply("a.level")
        assert len(list(journal_rows(tmp_path / "a.tw"))) == size
        assert twin.registry.get("a.level").value == 0.0
        with pytest.raises(RuleViolation, match="max_cap"):
            twin.apply("a.lathe.current_cap", 4)
        assert twin.run(until=1).refused == 1
    assert tw.replay(tmp_path / "a.tw", model()).equal


def test_the_model_does_not_use_it(tmp_path: Path) -> None:
    """In a replay nobody would journal it: refused in build, in a process, and without a journal."""

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", float, 0.0)

        def act() -> Any:
            yield twin.env.timeout(1)
            twin.apply("a.level", 1.0)

        twin.process(act())

    with tw.open(tmp_path / "a.tw", build) as twin, pytest.raises(ModelError, match=r"registry\.update"):
        twin.run(until=2)

    def in_build(twin: tw.Twin) -> None:
        twin.variable("a.level", float, 0.0)
        twin.apply("a.level", 1.0)

    with pytest.raises(ModelError, match=r"registry\.update"):
        tw.open(tmp_path / "b.tw", in_build)


def test_from_another_thread_it_is_queued_and_comes_at_the_time_by_the_wall(tmp_path: Path) -> None:
    """A paced run; every update is applied once and in order, and the run is the replay of its journal."""
    path, sink = tmp_path / "a.tw", Memory()
    count = 300
    with tw.open(path, model(sink)) as twin:

        def act() -> None:
            for n in range(count):
                twin.apply("a.level", n / 10)
            twin.stop()

        thread = threading.Thread(target=act)
        thread.start()
        summary = twin.run(until=1_000, factor=0.01)
        thread.join()
        twin.run(until=twin.now + 1)
    inputs = [row for row in journal_rows(path, source="local") if row["kind"] == "input"]
    assert [row["value"] for row in inputs] == [n / 10 for n in range(count)]
    assert all(one["tick"] <= other["tick"] for one, other in pairwise(inputs))
    assert summary.interrupted
    assert tw.replay(path, model()).equal
    verify(path)


def test_what_comes_when_the_run_ends_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the journal when run returns, and acts in the next run, or life."""
    path = tmp_path / "a.tw"
    finish, calls = Host._finish, []

    def finish_late(host: Host, reason: str) -> None:
        finish(host, reason)
        if not calls:
            calls.append(reason)
            thread = threading.Thread(target=lambda: twin.apply("a.level", 42.0))
            thread.start()
            thread.join()

    monkeypatch.setattr(Host, "_finish", finish_late)
    with tw.open(path, model(Memory(), end=20.0)) as twin:
        twin.run(until=50)
        assert twin.registry.get("a.level").value == 0.0
    assert [row["value"] for row in journal_rows(path, source="local") if row["kind"] == "input"] == [42.0]
    with tw.open(path, model(Memory(), end=20.0)) as twin:
        assert twin.registry.get("a.level").value == 42.0
        twin.run(until=60)
    assert tw.replay(path, model(end=20.0)).equal


def set_when_it_ends(monkeypatch: pytest.MonkeyPatch, twin: tw.Twin, clock: ManualClock) -> None:
    """Another thread sets the level 5 s after the end of the next run: the clock has yet to come to that input."""
    finish = Host._finish

    def finish_late(host: Host, reason: str) -> None:
        finish(host, reason)
        monkeypatch.setattr(Host, "_finish", finish)
        clock.advance(5.0)
        thread = threading.Thread(target=lambda: twin.apply("a.level", 42.0))
        thread.start()
        thread.join()

    monkeypatch.setattr(Host, "_finish", finish_late)


@pytest.mark.parametrize("host", ["inline", "forked"])
def test_marks_behind_inputs_of_several_ticks_are_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Three inputs where a run ended, then two where the next apply moves the clock to: each mark counts those of its tick."""
    path, clock = tmp_path / "a.tw", ManualClock()
    with tw.open(path, model(Memory()), host=host, clock=clock) as twin:
        twin.run(until=10, factor=1)
        for value in (1.0, 2.0, 3.0):
            twin.apply("a.level", value)
        set_when_it_ends(monkeypatch, twin, clock)
        twin.run(until=10, factor=1)
        twin.apply("a.level", 4.0)  # behind 42.0
        digest = twin.run(until=12, factor=1).digest
        twin.apply("a.level", 5.0)
        twin.run(until=15, factor=1)
        twin.apply("a.level", 6.0)
    with open_store(path) as store:
        marks = [one[2].value for one in documents(store.journal) if one[2].schema == "tw.mark"]
    assert [(mark["tick"] // 10**9, mark.get("ahead", 0)) for mark in marks] == [
        *((10, 0), (10, 3)),
        *((15, 2), (15, 3), (15, 4)),
    ]
    assert marks[2]["digest"] == digest
    again = tw.replay(path, model())
    assert (again.equal, again.marks, again.first_difference) == (True, 5, None)
    verify(path)
    with tw.open(path, model(Memory()), host=host, clock=clock) as twin:
        assert (twin.digest(), twin.registry.get("a.level").value) == (again.digest, 6.0)
        twin.run(until=20)
    assert tw.replay(path, model()).equal


def test_a_second_thread_that_applies_is_not_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two runs, while the apply of a first one lets the model run: it waits its turn. A process of it is refused."""
    clock = ManualClock()
    is_inside, has_judged, may_go_on = threading.Event(), threading.Event(), threading.Event()
    refused: list[str] = []
    failed: list[BaseException] = []

    def build(twin: tw.Twin) -> None:
        model(Memory())(twin)

        def act() -> Any:
            yield twin.env.timeout(12.0)
            if not twin.live:
                return
            is_inside.set()
            assert may_go_on.wait(60)
            try:
                twin.apply("a.level", 8.0)
            except ModelError as error:
                refused.append(str(error))

        twin.process(act())

    def apply(value: float) -> None:
        try:
            twin.apply("a.level", value)
        except ModelError as error:
            failed.append(error)
        finally:
            if value == 7.0:
                has_judged.set()

    def checked(changes: Any) -> Any:
        if is_inside.is_set():
            has_judged.set()  # it has got beyond the question who calls
        return check(changes)

    with tw.open(tmp_path / "a.tw", build, clock=clock) as twin:
        check = twin._gate.checked
        monkeypatch.setattr(twin._gate, "checked", checked)
        set_when_it_ends(monkeypatch, twin, clock)
        twin.run(until=10, factor=1)
        threads = [threading.Thread(target=apply, args=(value,)) for value in (6.0, 7.0)]
        threads[0].start()
        assert is_inside.wait(60)
        threads[1].start()
        assert has_judged.wait(60)
        may_go_on.set()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(refused) == 1
        assert "registry.update" in refused[0]
        assert twin.registry.get("a.level").value == 7.0
    local = [row["value"] for row in journal_rows(tmp_path / "a.tw", source="local") if row["kind"] == "input"]
    assert local == [42.0, 6.0, 7.0]
    assert tw.replay(tmp_path / "a.tw", build).equal


@pytest.mark.parametrize("host", ["inline", "forked"])
def test_who_closes_a_twin_ends_its_run_first(tmp_path: Path, host: str) -> None:
    """In order, from another thread; from within the run that is refused. A twin that is closed does nothing further."""
    path, is_under_way = tmp_path / "a.tw", threading.Event()
    told: list[Any] = []

    class Probe:
        def add(self, name: str, n: int = 1) -> None: ...
        def set(self, name: str, value: float) -> None: ...
        def progress(self, done: float, total: float | None) -> None:
            if not is_under_way.is_set() and threading.current_thread() is thread:
                with pytest.raises(OperatorError, match="in this thread"):
                    twin.close()
                twin.pause()
                is_under_way.set()

    thread = threading.Thread(target=lambda: told.append(twin.run(until=100, factor=1)))
    twin = tw.open(path, model(Memory()), host=host, clock=ManualClock(), probe=Probe())
    thread.start()
    assert is_under_way.wait(60)
    twin.apply("a.level", 5.0)
    twin.close()
    twin.stop()  # of no effect by now
    thread.join()
    assert [(summary.reason, summary.inputs) for summary in told] == [("interrupted", 1)]
    twin.close()
    for act in (lambda: twin.run(until=200), lambda: twin.apply("a.level", 6.0)):
        with pytest.raises(OperatorError, match="it is closed"):
            act()
    assert tw.replay(path, model()).equal
    verify(path)


def test_a_full_queue_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of updates that the clock, which stands still here, has not come to."""
    monkeypatch.setattr("tidewarp.twin.local.LOCAL_MAX", 5)
    told: list[str] = []

    def act() -> None:
        assert begun.wait(60)
        for n in range(5):
            twin.apply("a.level", float(n))
        with pytest.raises(OperatorError, match="holds 5 updates") as error:
            twin.apply("a.level", 5.0)
        told.append(str(error.value))
        twin.proceed()
        twin.stop()

    thread, begun = threading.Thread(target=act), threading.Event()

    class Probe:
        def add(self, name: str, n: int = 1) -> None: ...
        def set(self, name: str, value: float) -> None: ...
        def progress(self, done: float, total: float | None) -> None:
            if thread.is_alive():
                twin.pause()
                begun.set()

    with tw.open(tmp_path / "a.tw", model(), probe=Probe()) as twin:
        thread.start()
        twin.run(until=100, factor=1)
        thread.join()
    assert told
    assert tw.replay(tmp_path / "a.tw", model()).equal is not False


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_runs_updates_and_lives_is_replayed(tmp_path: Path, seed: int) -> None:
    """With data beside it. A life that is not closed in order leaves a journal that the next one goes on with."""
    random = Random(seed)
    kinds = {
        "run": lambda: random.randrange(12),
        "apply": lambda: random.randrange(90),
        "reopen": lambda: random.random() < 0.5,
    }
    steps = [(kind, kinds[kind]()) for kind in random.choices([*kinds], [3, 4, 2], k=9)]
    path = tmp_path / "a.tw"
    sink = Memory()
    rows = [(n / 2, "a.level", float(n)) for n in range(40)]
    twin = tw.open(path, model(sink, rows))
    at = 0
    for what, value in steps:
        if what == "run" and at + value >= twin.now:
            at += value
            twin.run(until=at)
        elif what == "apply":
            twin.apply("a.level", value + 0.5)
            assert twin.registry.get("a.level").value == value + 0.5
        elif what == "reopen":
            before = twin.digest()
            if not value:
                twin._host._is_unsealed = False  # type: ignore[union-attr]  # as a kill leaves it
            twin.close()
            twin = tw.open(path, model(sink, rows))
            assert twin.digest() == before
    digest = twin.digest()
    twin.close()
    again = tw.replay(path, model(rows=rows))
    assert again.equal is not False
    if again.recorded is not None:
        assert again.digest == again.recorded == digest
    verify(path)
    ids = [output.id for output in sink.held]
    assert ids == sorted(set(ids))


class Killed(Exception):
    """Stands for a SIGKILL: nothing says in the journal where the run came to."""


def kill_when_it_ends(monkeypatch: pytest.MonkeyPatch, twin: tw.Twin, until: float) -> None:
    """Of what this life did, the sinks hold the outputs, and the journal nothing."""

    def finish(host: Host, reason: str) -> None:
        host._dispatcher.flush(host._wait)
        raise Killed(reason)

    with monkeypatch.context() as patch:
        patch.setattr(Host, "_finish", finish)
        with pytest.raises(Killed):
            twin.run(until=until)
    twin.close()


def periodic(sink: Sink, period: float) -> Any:
    """Publishes its level each ``period`` s from 0 on, if that is finite."""

    def build(twin: tw.Twin) -> None:
        level = twin.variable("a.level", float, 0.0)

        def tick() -> Any:
            for n in range(5 if period < math.inf else 0):
                yield twin.env.timeout(n * period - twin.env.now)
                twin.publish_event("level", level.value)

        twin.process(tick())
        twin.sink(sink)

    return build


@pytest.mark.parametrize(
    ("period", "until", "tick"),
    [(10.0, 25, 20 * 10**9 + 1), (2 / 3, 1.5, 1_333_333_334), (2 / 3, 1, 666_666_668), (10.0, 5, 1), (math.inf, 5, 0)],
    ids=["at 20 s", "rounded down", "rounded up", "at 0", "none"],
)
def test_what_is_set_after_a_kill_comes_behind_the_outputs_that_sinks_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, period: float, until: float, tick: int
) -> None:
    """No source says how far that life had come. The last instant that was shown is not made anew: sink and replay agree."""
    path, sink = tmp_path / "a.tw", Memory()
    kill_when_it_ends(monkeypatch, tw.open(path, periodic(sink, period)), until)
    assert len(sink.held) == (0 if period == math.inf else int(until / period) + 1)
    with tw.open(path, periodic(sink, period)) as twin:
        twin.apply("a.level", 7.0)
        twin.run(until=60)
    again: list[Output] = []
    assert tw.replay(path, periodic(sink, period), outputs=again.extend).equal
    assert [(one.id, one.value) for one in sink.held] == [(one.id, one.value) for one in again]
    assert period == math.inf or {one.value for one in again} == {pack(0.0), pack(7.0)}
    assert [row["tick"] for row in journal_rows(path, source="local") if row["kind"] == "input"] == [tick]


def test_in_a_first_life_it_acts_where_the_clock_stands(tmp_path: Path) -> None:
    """Nothing was shown before it: neither data that is read ahead nor an output whose tick is rounded up moves the clock."""
    with tw.open(tmp_path / "a.tw", model(Memory(), ROWS)) as twin:
        twin.run(until=30)
        twin.apply("a.level", 7.0)
        assert twin.now == 30.0
    sink = Memory()
    with tw.open(tmp_path / "b.tw", periodic(sink, 2 / 3)) as twin:
        twin.run(until=0.666666667)
        assert sink.held[-1].tick == 666_666_667
        twin.apply("a.level", 7.0)
        assert twin.now == 0.666666667
    for name, build in (("a.tw", model(rows=ROWS)), ("b.tw", periodic(Memory(), 2 / 3))):
        assert tw.replay(tmp_path / name, build).equal


def test_a_mark_that_claims_more_inputs_than_there_are_is_found(tmp_path: Path) -> None:
    """verify names the record."""
    path = tmp_path / "a.tw"
    with tw.open(path, model()) as twin:
        twin.run(until=10)
        twin.apply("a.level", 5.0)
    with open_store(path) as store:
        *_, (_, _, mark) = [one for one in documents(store.journal) if one[2].schema == "tw.mark"]
        assert mark.value["ahead"] == 1
        assert "ahead" not in next(one for one in documents(store.journal) if one[2].schema == "tw.mark")[2].value
        from tidewarp.twin.documents import MARK, entry

        store.journal.append([entry(MARK, 10 * 10**9, {**mark.value, "ahead": 2})])
    with pytest.raises(Corrupt, match="there are fewer"):
        verify(path)
