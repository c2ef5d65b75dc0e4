"""A twin of live sources: it follows the wall, outlives outages on both sides, and is the replay of its journal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect import Gap, Output, Raw, Refused, RunIdentity, Sink, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import OperatorError
from tidewarp.testing import ManualClock
from tidewarp.twin import Build, journal_rows, verify
from tidewarp.twin.pace import Pace

S = 10**9
NOON_NS = 1_780_000_000 * S


class Script(Source):
    """A live source of ten messages; ``steps`` are what its first calls of open and read raise, None: nothing."""

    name, kind, clock = "script", "script", "wall"

    def __init__(self, *steps: Exception | None, count: int = 10) -> None:
        self.steps = [*steps]
        self.count = count
        self.opened: list[dict[int, int]] = []
        self.accepted: list[Gap] = []
        self.confirmed: list[dict[int, int]] = []

    def _step(self) -> None:
        error = self.steps.pop(0) if self.steps else None
        if error is not None:
            raise error

    async def open(self, positions: Mapping[int, int]) -> None:
        self._step()
        self.opened.append(dict(positions))
        self.next = positions.get(0, -1) + 1

    def accept(self, gap: Gap) -> None:
        self.accepted.append(gap)

    def decoder(self, epoch_ns: int) -> JsonMessages:
        return JsonMessages(epoch_ns)

    async def read(self, limit: int) -> Sequence[Raw] | None:
        self._step()
        if self.next == self.count:
            return None
        raws = [Raw(0, self.next, json.dumps({"path": "a.level", "value": self.next}).encode())]
        self.next += 1
        return raws

    async def confirm(self, positions: Mapping[int, int]) -> None:
        self.confirmed.append(dict(positions))


class Memory(Sink):
    """Holds values; ``steps`` are what its first calls of open and write raise."""

    name, kind, delivery = "memory", "memory", "once"

    def __init__(self, *steps: Exception | None) -> None:
        self.steps = [*steps]
        self.held: list[Output] = []

    def _step(self) -> None:
        error = self.steps.pop(0) if self.steps else None
        if error is not None:
            raise error

    async def open(self, run: RunIdentity) -> str | None:
        self._step()
        return self.held[-1].id if self.held else ""

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        self._step()
        self.held += batch
        return []


def model(source: Source, sink: Sink | None = None, sink_policy: Mapping[str, Any] = {}, **policy: Any) -> Build:
    def build(twin: tw.Twin) -> None:
        level = twin.variable("a.level", int)

        def follow() -> Any:
            changes = level.changes()
            while True:
                change = yield changes.next()
                twin.publish_event("level", change.new)

        twin.process(follow())
        twin.connect(source, **policy)
        if sink is not None:
            twin.sink(sink, **sink_policy)

    return build


def replayed(path: Path, **policy: Any) -> tw.Replay:
    return tw.replay(path, model(Script(), **policy))


LOST = ConnectionError("reset by peer")


@pytest.mark.parametrize(
    "steps",
    [(LOST,), (LOST, LOST, TimeoutError("no answer")), (None, LOST), (None, None, None, LOST, LOST, None, LOST)],
    ids=["at the start", "thrice at the start", "at the first read", "while it reads"],
)
def test_a_source_that_is_lost_is_opened_again_behind_what_was_admitted(tmp_path: Path, steps: Any) -> None:
    """For ever, with pauses; each message is applied once and in order."""
    source, sink = Script(*steps), Memory()
    with tw.open(tmp_path / "a.tw", model(source, sink), clock=ManualClock()) as twin:
        summary = twin.run(factor=0)
    assert [output.value for output in sink.held] == [bytes([n]) for n in range(10)]
    assert (summary.inputs, summary.duplicates) == (10, 0)
    assert all(one.get(0, -1) <= other.get(0, -1) for one, other in zip(source.opened, source.opened[1:], strict=False))
    assert source.confirmed[-1] == {0: 9}
    assert replayed(tmp_path / "a.tw").digest == summary.digest


def test_an_error_that_no_retry_mends_ends_the_run(tmp_path: Path) -> None:
    """Wrong credentials, say. What was acknowledged is in the journal, and the run can go on."""
    refused = OperatorError("user x", "the broker refuses the password", "correct it")
    path = tmp_path / "a.tw"
    with (
        pytest.raises(OperatorError, match="refuses the password"),
        tw.open(path, model(Script(None, None, refused))) as twin,
    ):
        twin.run(factor=0)
    with tw.open(path, model(Script())) as twin:
        assert twin.run(factor=0).inputs == 10


def test_a_gap_stops_the_run_or_is_accepted_and_journaled(tmp_path: Path) -> None:
    """The operator decides; an accepted gap is counted, replayed, and the source told."""
    gap = Gap(0, 0, 4, "topic t")
    with (
        pytest.raises(Gap, match="the next message would be 0, the first that is left is 4"),
        tw.open(tmp_path / "a.tw", model(Script(gap))) as twin,
    ):
        twin.run(factor=0)
    source = Script(gap)
    path = tmp_path / "b.tw"
    with tw.open(path, model(source, gap="accept")) as twin:
        summary = twin.run(factor=0)
    assert (summary.gaps, summary.inputs, source.opened, source.accepted) == (1, 6, [{0: 3}], [gap])
    assert (replayed(path, gap="accept").digest, verify(path).digest) == (summary.digest, summary.digest)
    with tw.open(path, model(Script(count=11), gap="accept")) as twin:
        assert (twin.run(factor=0).gaps, twin.registry.get("a.level").value) == (1, 10)


@pytest.mark.parametrize(
    "steps",
    [(LOST, LOST), (None, LOST, LOST), (None, None, LOST)],
    ids=["at the start", "at the first write, and again", "at the second write"],
)
@pytest.mark.parametrize("factor", [0, 1e-6])
def test_a_sink_that_is_down_gets_everything_later(tmp_path: Path, steps: Any, factor: float) -> None:
    """In order, each output once, whether the run waits for it or is paced."""
    sink = Memory(*steps)
    with tw.open(tmp_path / "a.tw", model(Script(), sink, {"queue": 2, "batch": 3}), clock=ManualClock()) as twin:
        summary = twin.run(factor=factor)
    assert [output.value for output in sink.held] == [bytes([n]) for n in range(10)]
    assert (summary.sinks["memory"]["sent"], summary.sinks["memory"]["behind"]) == (10, 0)
    assert not [file for file in tmp_path.iterdir() if "spill" in file.name], "what waited in a file is gone"


def test_what_a_sink_cannot_take_costs_no_other_output(tmp_path: Path) -> None:
    """An error without a clear reason is narrowed down to the one output that fails alone."""

    class Picky(Memory):
        async def write(self, batch: Sequence[Output]) -> list[Refused]:
            if any(output.value == bytes([4]) for output in batch):
                raise ValueError("it does not like four")
            return await super().write(batch)

    sink = Picky()
    with tw.open(tmp_path / "a.tw", model(Script(), sink, {"poison": 2}), clock=ManualClock()) as twin:
        summary = twin.run(factor=0)
    assert [output.value for output in sink.held] == [bytes([n]) for n in range(10) if n != 4]
    told = summary.sinks["memory"]
    assert (told["sent"], told["dead"]) == (9, 1)
    assert "it does not like four" in told["refusal"]


def test_arrivals_are_stamped_by_the_wall_and_replayed_by_the_journal(tmp_path: Path) -> None:
    """Paced: each message at the virtual time of its arrival; the epoch is when the twin was begun."""
    clock = ManualClock(unix_ns=NOON_NS)

    async def messages() -> AsyncIterator[Mapping[str, Any]]:
        for n in range(5):
            clock.advance(1.5)
            yield {"path": "a.level", "value": n}
            await asyncio.sleep(0)

    build = model(tw.sources.python(messages), Memory())
    with tw.open(tmp_path / "a.tw", build, clock=clock) as twin:
        summary = twin.run()
        assert twin.epoch.timestamp() == NOON_NS / S
    assert (summary.factor, summary.inputs, summary.late) == (1.0, 5, 0)
    assert summary.virtual_time_s >= 1.5
    again = tw.replay(tmp_path / "a.tw", build)
    assert (again.equal, again.digest) == (True, summary.digest)


@pytest.mark.parametrize(("catch_up", "at_least_s"), [("fast", 3_600.0), ("pause", 0.0)])
def test_the_time_in_which_a_live_twin_was_down_passes_or_not(tmp_path: Path, catch_up: str, at_least_s: float) -> None:
    """An hour between two lives: by default it is an hour for the twin as well, made up for at full speed."""
    path = tmp_path / "a.tw"
    with tw.open(path, model(Script(count=3)), clock=ManualClock(unix_ns=NOON_NS), catch_up=catch_up) as twin:
        first = twin.run()
    clock = ManualClock(unix_ns=NOON_NS + 3_600 * S)
    with tw.open(path, model(Script(count=6)), clock=clock, catch_up=catch_up) as twin:
        second = twin.run()
    assert second.inputs == 6
    lay_between_s = (
        second.virtual_time_s - first.virtual_time_s + 1.0
    )  # each life moves a little, where it waits for its own threads
    assert at_least_s <= lay_between_s < at_least_s + 600
    assert second.lag_s_max < 600, "the hour that was made up for is no lag"
    assert replayed(path).digest == second.digest


def test_a_twin_goes_live_when_it_has_caught_up(tmp_path: Path) -> None:
    """History at full speed from an epoch two hours ago, then in step with the wall."""
    clock = ManualClock(unix_ns=NOON_NS)
    build = model(Script())
    epoch = "2026-05-28T18:26:40Z"  # two hours before NOON_NS
    with tw.open(tmp_path / "a.tw", build, epoch=epoch, clock=clock) as twin:
        summary = twin.run(until=7_210, go_live=True)
    assert (summary.factor, summary.virtual_time_s) == (1.0, 7_210.0)
    assert 10 <= clock.now() < 600, "only the last ten seconds took time"


def test_live_event_times_need_the_pace_of_the_wall(tmp_path: Path) -> None:
    """A clock that runs on at another speed would make every message late, or early for ever."""
    with (
        tw.open(tmp_path / "a.tw", model(Script(), time="payload")) as twin,
        pytest.raises(OperatorError, match="factor 1"),
    ):
        twin.run(factor=0.5)


def test_a_twin_comes_back_while_a_sink_is_down(tmp_path: Path) -> None:
    """What an earlier life has told is made again, more than the queue holds: it waits in a file, and nothing comes twice."""
    path, sink, policy = tmp_path / "a.tw", Memory(), {"queue": 2, "batch": 3}
    with tw.open(path, model(Script(count=8), sink, policy), clock=ManualClock()) as twin:
        twin.run(factor=0)
    sink.steps = [LOST, LOST, LOST]
    with tw.open(path, model(Script(count=10), sink, policy), clock=ManualClock()) as twin:
        summary = twin.run(factor=0)
    assert [output.value for output in sink.held] == [bytes([n]) for n in range(10)]
    assert (summary.sinks["memory"]["sent"], summary.sinks["memory"]["skipped"]) == (2, 8)


def test_a_clock_that_holds_back_stays_that_far_behind_the_wall() -> None:
    """Where the epoch is the present, a run that is held back by 3 s begins to move 3 s later."""
    clock = ManualClock()
    pace = Pace(clock, 1.0)
    pace.start(0, -3.0)
    assert pace.limit(None) == -3 * S + 1
    clock.advance(3.5)
    assert pace.limit(None) == S // 2 + 1
    assert pace.lag_s_max == 0.0


def test_at_full_speed_nothing_arrives_before_the_processes_have_started(tmp_path: Path) -> None:
    """Whether a process that waits for its first change sees it is no matter of timing."""

    async def messages() -> AsyncIterator[Any]:
        yield {"path": "a.level", "value": 1}

    def build(twin: tw.Twin) -> None:
        level = twin.variable("a.level", float)

        def follow() -> Any:
            twin.publish_event("level", (yield level.wait_for_change()))

        twin.process(follow())
        twin.connect(tw.sources.python(messages))

    path = tmp_path / "a.tw"
    with tw.open(path, build) as twin:
        summary = twin.run(factor=0)
    assert summary.outputs == 1
    assert [row["tick"] >= 1 for row in journal_rows(path, kind="input")] == [True]


def test_the_replay_of_a_live_run_that_did_not_stop_in_order_ends_behind_its_last_input(tmp_path: Path) -> None:
    """How far the wall had brought the clock is not in the journal of a run that was killed."""

    async def messages() -> AsyncIterator[Any]:
        yield {"path": "a.level", "value": 1, "time": "2026-01-01T00:00:03Z"}
        await asyncio.sleep(0)
        raise ValueError("it ends here")

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", float)

        def for_ever() -> Any:
            while True:
                yield twin.env.timeout(1)
                twin.publish_event("tick", 1)

        twin.process(for_ever())
        twin.connect(tw.sources.python(messages), time="payload", hold=0)

    path, clock = tmp_path / "a.tw", ManualClock(unix_ns=1_767_225_600 * S)
    with pytest.raises(OperatorError, match="it ends here"), tw.open(path, build, clock=clock) as twin:
        twin.run()
    again = tw.replay(path, build)
    assert (again.equal, again.recorded, again.inputs) == (None, None, 1)
    assert 3.0 < again.virtual_time_s < 4.0
