"""The forked host: the simulation in a process of its own, its snapshots, its death. Everything is as with the inline host."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import os
import pickle
import random
import select
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_repair import Broker, Messages, in_order, model, told

import tidewarp as tw
from tidewarp.connect import Raw
from tidewarp.errors import ModelError, OperatorError, RuleViolation
from tidewarp.observe import SilentProbe
from tidewarp.twin import Summary, Twin, forked, host, simulation, snapshots, verify
from tidewarp.twin.forked import ForkedRun

HOSTS = ("inline", "forked")
EPOCH = "1970-01-01T00:00:00Z"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: run it on Linux or macOS")


class Slow(Broker):
    """Brings a message when the run has come to the highest time before it: so every late one needs a repair."""

    def __init__(self, messages: Messages) -> None:
        super().__init__(messages, 1)
        self.times = [at for _, at, _ in messages]
        self.reached = 0.0
        self.moved = threading.Condition()

    async def read(self, limit: int) -> list[Raw] | None:
        done = len(self.raws) - len(self.left)
        awaited = max(self.times[:done], default=0)
        await asyncio.to_thread(self._wait, awaited)
        return await super().read(limit)

    def _wait(self, awaited: float) -> None:
        with self.moved:
            self.moved.wait_for(lambda: self.reached >= awaited, 20)  # then the test fails by what it finds


class Watch(SilentProbe):
    """Tells a Slow source how far the run is, and calls ``act(s)``."""

    def __init__(self, source: Slow) -> None:
        self.source = source
        self.act: Callable[[float], None] = lambda s: None

    def progress(self, done: float, total: float | None) -> None:
        self.act(done)
        with self.source.moved:
            self.source.reached = done
            self.source.moved.notify_all()


def run(
    folder: Path, messages: Messages, at: str, act: Callable[[Twin, float], None] = lambda twin, s: None, **policy: Any
) -> Summary:
    """A run in which every late message is repaired; ``act`` is called behind each slice."""
    folder.mkdir(parents=True)
    source = Slow(messages)
    watch = Watch(source)
    options = {"late": "repair", "horizon": 1_000, **policy}
    with tw.open(folder / "a.tw", model(source, folder, **options), epoch=EPOCH, host=at, probe=watch) as twin:
        watch.act = partial(act, twin)
        found = twin.run()
        assert twin.registry.get("line.level").value == in_order(messages)[-1][2]
        assert twin.now == found.virtual_time_s
        return found


def shuffled(seed: int, count: int = 60, reach: float = 12) -> list[tuple[int, int, float]]:
    """One partition, some of it late, the highest time last: it ends where it would end in order."""
    draw = random.Random(seed)
    some = sorted((at + draw.choice([0, 0, reach]), at) for at in range(count))
    return [*((0, at, float(draw.randrange(4))) for _, at in some), (0, count + 20, 9.0)]


@pytest.mark.parametrize("seed", range(6))
def test_both_hosts_give_one_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int) -> None:
    """Repairs without number, snapshots many and few, inputs kept or not: outputs, ids, state and digest are equal."""
    draw = random.Random(seed)
    messages = shuffled(seed)
    inline = run(tmp_path / "inline", messages, "inline")
    monkeypatch.setattr(snapshots, "_SHARE", draw.choice([0, 2, 100]))
    monkeypatch.setattr(snapshots, "SNAPSHOTS_MAX", draw.choice([1, 3, 12]))
    monkeypatch.setattr(forked, "INPUTS_MAX", draw.choice([2, 15, 500_000]))
    monkeypatch.setattr(host, "EVENTS_PER_STEP", draw.choice([1, 7, 20_000]))
    found = run(tmp_path / "forked", messages, "forked")
    assert min(found.repairs, inline.repairs) > 5
    assert (found.digest, found.events, found.outputs) == (inline.digest, inline.events, inline.outputs)
    assert told(tmp_path / "forked") == told(tmp_path / "inline")
    assert verify(tmp_path / "forked" / "a.tw").digest == found.digest
    build = model(Broker(()), tmp_path, late="repair", horizon=1_000)
    assert tw.replay(tmp_path / "forked" / "a.tw", build).digest == found.digest


@pytest.mark.parametrize(("tick_s", "events"), [(2 / 3, 1), (0.1, 20_000)])
def test_an_output_whose_time_is_rounded_up_survives_a_repair(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tick_s: float, events: int
) -> None:
    """At 16.666... s its tick is that of the snapshot behind it, at 0.1 + 0.1 + ... = 15.999... s that of a message and of
    the snapshot before this one: a repair that begins there does not make it again, and it is not lost.
    """
    messages = [(0, at, 1.0 + at % 3) for at in (*range(0, 21, 2), 17, 22)]
    monkeypatch.setattr(snapshots, "_SHARE", 0)
    monkeypatch.setattr(snapshots, "SNAPSHOTS_MAX", 100)
    monkeypatch.setattr(host, "EVENTS_PER_STEP", events)
    found, inline = (run(tmp_path / at, messages, at, tick_s=tick_s) for at in ("forked", "inline"))
    assert found.repairs == 1
    assert (found.digest, found.outputs) == (inline.digest, inline.outputs)
    assert told(tmp_path / "forked") == told(tmp_path / "inline")
    assert len(told(tmp_path / "forked")) == found.outputs


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_a_repair_that_is_killed_goes_on_from_its_own_snapshot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, with_snapshot: bool
) -> None:
    """Killed behind the snapshot at 18.666... s, with it or without: each output is told, and none twice."""
    messages = [(0, at, 1.0 + at % 3) for at in (*range(0, 21, 2), 17, 22)]
    inline = run(tmp_path / "inline", messages, "inline", tick_s=2 / 3)
    take, taken = ForkedRun._take_snapshot, itertools.count(1)

    def take_and_kill(simulations: ForkedRun) -> None:
        take(simulations)
        if simulations._snapshots[-1].at == 18_666_666_667 and next(taken) == 2:  # the first was before the repair
            newest = [simulations._snapshots[-1]] if with_snapshot else []
            for simulation in (simulations._simulation, *newest):
                os.kill(simulation.pid, signal.SIGKILL)

    monkeypatch.setattr(ForkedRun, "_take_snapshot", take_and_kill)
    monkeypatch.setattr(snapshots, "_SHARE", 0)
    monkeypatch.setattr(snapshots, "SNAPSHOTS_MAX", 100)
    monkeypatch.setattr(host, "EVENTS_PER_STEP", 1)
    monkeypatch.setattr(forked, "_SLICE_EVENTS", 1)
    found = run(tmp_path / "forked", messages, "forked", tick_s=2 / 3)
    assert (found.repairs, next(taken)) == (1, 4 if with_snapshot else 3)
    assert (found.digest, found.outputs) == (inline.digest, inline.outputs)
    assert told(tmp_path / "forked") == told(tmp_path / "inline")


def test_deaths_on_the_way_of_a_repair_are_counted_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It died at 38 s; a repair from 3 s on that dies four times gets further each time, which is no reason to give up."""
    messages = [*((0, at, 1.0 + at % 3) for at in range(0, 41, 2)), (0, 3, 2.0), (0, 42, 1.0)]
    inline = run(tmp_path / "inline", messages, "inline")
    slice_of, repair = ForkedRun._slice, ForkedRun.repair
    deaths, due = list[int](), [38 * 10**9]

    def repairing(simulations: ForkedRun, *told: Any) -> Any:
        due[:] = [at * 10**9 for at in (8, 14, 20, 26)]
        return repair(simulations, *told)

    def slice_and_die(simulations: ForkedRun, *told: Any) -> Any:
        if due and simulations.at >= due[0]:
            deaths.append(due.pop(0))
            os.kill(simulations._simulation.pid, signal.SIGKILL)
        return slice_of(simulations, *told)

    monkeypatch.setattr(ForkedRun, "repair", repairing)
    monkeypatch.setattr(ForkedRun, "_slice", slice_and_die)
    monkeypatch.setattr(snapshots, "_SHARE", 0)
    monkeypatch.setattr(snapshots, "SNAPSHOTS_MAX", 100)
    monkeypatch.setattr(host, "EVENTS_PER_STEP", 1)
    monkeypatch.setattr(forked, "_SLICE_EVENTS", 1)
    found = run(tmp_path / "forked", messages, "forked")
    assert (found.repairs, len(deaths)) == (1, 5)
    assert (found.digest, found.outputs) == (inline.digest, inline.outputs)


@pytest.fixture
def own_children() -> Iterator[None]:
    """Leaves no child process and no descriptor behind."""
    gc.collect()  # what the tests before this one have left
    descriptors, children = _descriptors(), _children()
    yield
    gc.collect()
    assert _descriptors() <= descriptors
    assert _children() <= children


def _descriptors() -> set[str]:
    """Local sockets, of which the connections to simulations are. Other tests' clients of brokers may come and go."""
    local = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {link for link in found if link.startswith("socket:") and link[8:-1] in local}


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def _pids(twin: Twin, which: str) -> Sequence[int]:
    simulations = twin._host.run
    assert isinstance(simulations, ForkedRun)
    kept = [snapshot.pid for snapshot in simulations._snapshots]
    return {
        "the simulation": [simulations._simulation.pid],
        "the newest snapshot too": [simulations._simulation.pid, *kept[-1:]],
        "all snapshots too": [simulations._simulation.pid, *kept],
        "everything": [simulations._simulation.pid, *kept, simulations._nursery.pid],
    }[which]


@pytest.mark.usefixtures("own_children")
@pytest.mark.parametrize("inputs_max", [1, 500_000])
@pytest.mark.parametrize("which", ["the simulation", "the newest snapshot too", "all snapshots too", "everything"])
def test_a_killed_simulation_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    which: str,
    inputs_max: int,
) -> None:
    """Killed in the middle of repairs and behind them, with some or all of its copies: a warning, and the same run."""
    messages = shuffled(11)
    expected = run(tmp_path / "inline", messages, "inline")
    monkeypatch.setattr(snapshots, "_SHARE", 0 if inputs_max == 1 else 30)
    monkeypatch.setattr(host, "EVENTS_PER_STEP", 1)  # so there are outputs above the tick where it is settled
    monkeypatch.setattr(forked, "INPUTS_MAX", inputs_max)
    due = [20, 45, 59]  # behind the last there are no more messages, only instants
    slices = itertools.count(1)

    def kill(twin: Twin, s: float) -> None:
        if due and s >= due[0] and next(slices) % 4 == 0:
            due.pop(0)
            for pid in _pids(twin, which):
                os.kill(pid, signal.SIGKILL)

    with caplog.at_level(logging.WARNING, "tidewarp.twin"):
        found = run(tmp_path / "forked", messages, "forked", kill)
    assert not due
    assert {record.levelname for record in caplog.records} == {"WARNING"}  # none of one that a repair had overtaken
    assert (found.digest, found.events, found.outputs) == (expected.digest, expected.events, expected.outputs)
    assert told(tmp_path / "forked") == told(tmp_path / "inline")
    build = model(Broker(()), tmp_path, late="repair", horizon=1_000)
    assert tw.replay(tmp_path / "forked" / "a.tw", build).equal


def plant(rows: Sequence[tuple[float, str, Any]], sink: Path) -> Callable[[Twin], None]:
    """It tells each change of a level, and the level every 10 s; ``rows`` of a schedule."""

    def build(twin: Twin) -> None:
        level = twin.variable("a.level", float, 0.0)
        twin.resource("a.lathe", 1, 3)
        twin.sink(tw.sinks.jsonl(sink))

        def follow() -> Any:
            changes = level.changes()
            while True:
                change = yield changes.next()
                twin.publish_event("changed", [change.new, twin.stream("draws").random()])

        def tick() -> Any:
            while twin.now < 50:
                twin.publish_telemetry("a.level", level.value)
                yield twin.env.timeout(10.0)

        twin.process(follow())
        twin.process(tick())
        if rows:
            twin.connect(tw.sources.schedule(rows))

    return build


@pytest.mark.usefixtures("own_children")
@pytest.mark.parametrize("killed", ["before", "behind"])
@pytest.mark.parametrize("share", [0, 1e9], ids=["snapshots", "one snapshot"])
@pytest.mark.parametrize("which", ["the simulation", "all snapshots too", "everything"])
@pytest.mark.parametrize("rows", [[], [(float(n), "a.level", float(n)) for n in range(60)]], ids=["free", "leased"])
def test_what_was_set_between_two_runs_outlives_the_simulation(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rows: Sequence[tuple[float, str, Any]],
    which: str,
    share: float,
    killed: str,
) -> None:
    """Killed between two updates at one time, of which the second is refused, or behind them: each is made once, and told."""
    monkeypatch.setattr(snapshots, "_SHARE", share)
    step, steps = simulation.Simulation.step, itertools.count(1)

    def counted(one: simulation.Simulation, limit: int, events_max: int) -> list[Any]:
        assert next(steps) < 10_000, "it makes no headway"
        return step(one, limit, events_max)

    monkeypatch.setattr(simulation.Simulation, "step", counted)
    found = {}
    for at in HOSTS:

        def kill(when: str, at: str = at) -> None:
            if (at, when) == ("forked", killed):
                for pid in _pids(twin, which):
                    os.kill(pid, signal.SIGKILL)

        with tw.open(tmp_path / f"{at}.tw", plant(rows, tmp_path / f"{at}.jsonl"), host=at) as twin:
            twin.run(until=30)
            twin.apply("a.level", 77.0)
            kill("before")
            with pytest.raises(RuleViolation, match="max_cap"):
                twin.apply("a.lathe.current_cap", 4)
            kill("behind")
            summary = twin.run()
        outputs = [json.loads(line) for line in (tmp_path / f"{at}.jsonl").read_text().splitlines()]
        told_of = [(one["id"], one.get("key"), one["value"]) for one in outputs]
        found[at] = summary.digest, summary.events, summary.inputs, summary.outputs, told_of
        assert verify(tmp_path / f"{at}.tw").digest == summary.digest
    assert found["forked"] == found["inline"]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs os.pidfd_open: run it on Linux")
def test_a_host_that_dies_while_a_snapshot_is_made_leaves_nobody(tmp_path: Path) -> None:
    """The copy hears of it too: the simulation, which waits for its copies, is gone."""
    with tw.open(tmp_path / "a.tw", lambda twin: None, host="inline") as twin:
        left = simulation.launch(twin._host.run)
    left._connection.send_bytes(pickle.dumps(("fork", ())))
    left.end()
    ended = os.pidfd_open(left.pid)
    try:
        assert select.select([ended], [], [], 20)[0], "it still waits for its copy"
    finally:
        os.close(ended)
        os.kill(left.pid, signal.SIGKILL)
        os.waitpid(left.pid, 0)


def test_a_simulation_that_is_killed_as_it_begins_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And nobody is left."""

    def dead(run: Any) -> simulation.Simulation:
        launched = simulation.launch(run)
        os.kill(launched.pid, signal.SIGKILL)
        os.waitid(os.P_PID, launched.pid, os.WEXITED | os.WNOWAIT)
        return launched

    monkeypatch.setattr(forked, "launch", dead)
    with pytest.raises(OperatorError, match="ended by somebody as it began"):
        tw.open(tmp_path / "a.tw", lambda twin: None, host="forked")


def test_a_model_that_kills_its_process_ends_the_run(tmp_path: Path) -> None:
    """It would do so for ever: after four deaths at one time the run says where, and which limits to look at."""

    def build(twin: tw.Twin) -> None:
        def fall() -> Any:
            yield twin.env.timeout(5)
            if os.getpid() != here:
                os.kill(os.getpid(), signal.SIGKILL)

        twin.process(fall())

    here = os.getpid()
    with (
        tw.open(tmp_path / "a.tw", build, host="forked") as twin,
        pytest.raises(OperatorError, match=r"ended by somebody at 0\.000 s: it was so 4 times"),
    ):
        twin.run()


@pytest.mark.usefixtures("own_children")
def test_a_model_that_raises_says_where(tmp_path: Path) -> None:
    """The same error as inline, the outputs before it delivered, and its traceback beside it."""

    def build(twin: tw.Twin) -> None:
        def fall() -> Any:
            yield twin.env.timeout(5)
            twin.publish_event("last", 1)
            yield twin.env.timeout(5)
            raise ZeroDivisionError("by hand")

        twin.process(fall())
        twin.sink(tw.sinks.jsonl(tmp_path / f"{at}.jsonl"))

    errors = []
    for at in HOSTS:
        with tw.open(tmp_path / f"{at}.tw", build, host=at) as twin, pytest.raises(ModelError) as caught:
            twin.run()
        errors.append(caught.value)
        assert (tmp_path / f"{at}.jsonl").read_text().count("\n") == 1
    assert str(errors[0]) == str(errors[1])
    assert "in fall" in "".join(errors[1].__notes__)


@pytest.mark.usefixtures("own_children")
def test_new_paths_of_the_simulation_are_known_to_the_gate(tmp_path: Path) -> None:
    """A path that the model declares while it runs takes inputs; one that it takes out refuses them: as inline."""

    def build(twin: tw.Twin) -> None:
        def change() -> Any:
            yield twin.env.timeout(1)
            twin.registry.declare("line.late", float, None, low=0.0)
            twin.registry.remove("line.early")

        twin.variable("line.early", float)
        twin.process(change())
        twin.connect(source, late="repair")

    found = {}
    for at in HOSTS:
        source = Slow([(0, 0, 1.0), (0, 3, 1.0), (0, 7, 2.0), (0, 7, -2.0), (0, 9, 3.0)])
        source.raws[2:] = [raw._replace(payload=raw.payload.replace(b"level", b"late")) for raw in source.raws[2:]]
        source.raws[:2] = [raw._replace(payload=raw.payload.replace(b"level", b"early")) for raw in source.raws[:2]]
        with tw.open(tmp_path / f"{at}.tw", build, host=at, epoch=EPOCH, probe=Watch(source)) as twin:
            summary = twin.run()
            found[at] = summary.digest, summary.dead, summary.refused, twin.registry.values()
    assert found["forked"] == found["inline"]
    assert found["forked"][1:] == ({"value": 1}, 1, {"line.late": 3.0})


@pytest.mark.parametrize("at", HOSTS)
def test_too_many_outputs_that_wait_move_gvt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: str) -> None:
    """A horizon that keeps everything back: with a bound of 20 outputs it is cut, and what comes later still is clamped."""
    monkeypatch.setattr("tidewarp.twin.withheld.COUNT_MAX", 20)
    times = [*range(60), 5, 62]
    found = run(tmp_path / "cut", [(0, t, 1.0 + t % 3) for t in times], at)
    assert found.horizon_cuts > 0
    assert (found.late, found.clamped, found.repaired) == (1, 1, 0)
    build = model(Broker(()), tmp_path, late="repair", horizon=1_000)
    again = tw.replay(tmp_path / "cut" / "a.tw", build)
    assert (again.equal, again.digest) == (True, found.digest)
    assert len(told(tmp_path / "cut")) == found.outputs


def test_a_host_is_one_of_three(tmp_path: Path) -> None:
    """Another word is refused before anything is written."""
    with pytest.raises(OperatorError, match="one of auto, inline, forked"):
        tw.open(tmp_path / "a.tw", lambda twin: None, host="threaded")
    assert not list(tmp_path.iterdir())
