"""Pause, factor, lag, observations: what people do with the pace and see of a run, and none of it is in a digest."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.cli.run import _render
from tidewarp.connect import Output, Raw, Refused, RunIdentity, Sink, Source
from tidewarp.connect.contract import Observation
from tidewarp.connect.decoders import JsonMessages
from tidewarp.connect.payload import observation_payload
from tidewarp.errors import ModelError, OperatorError
from tidewarp.testing import ManualClock
from tidewarp.twin import dispatcher
from tidewarp.twin import host as host_module
from tidewarp.twin.observations import STAGES
from tidewarp.twin.pace import Pace


class Memory(Sink):
    """Holds outputs, and what it was told besides."""

    name, kind, delivery = "memory", "memory", "once"

    def __init__(self, down: int = 0) -> None:
        self.held: list[Output] = []
        self.sizes: list[int] = []
        self.seen: list[dict[str, Any]] = []
        self.down = down  # so many attempts at a write fail

    async def open(self, run: RunIdentity) -> str | None:
        self.run = run
        return self.held[-1].id if self.held else ""

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        if self.down:
            self.down -= 1
            raise ConnectionError("reset by peer")
        self.held += batch
        self.sizes.append(len(batch))
        return []

    async def observe(self, rows: Sequence[Observation]) -> None:
        self.seen.append({row.path: row.value for row in rows})
        assert "id" not in observation_payload(rows[0], self.run)


def model(sink: Sink, act: Any = lambda n: None, **policy: Any) -> Any:
    """An event a second, ten of them; ``act`` is what the test does meanwhile, unseen by the model."""

    def build(twin: tw.Twin) -> None:
        def tick() -> Any:
            for n in range(10):
                next_one = twin.env.timeout(1.0)
                twin.publish_event("n", n)
                if twin.live:
                    act(n)
                yield next_one

        twin.process(tick())
        twin.sink(sink, **policy)

    return build


def test_a_pause_takes_wall_time_and_no_virtual_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is paused stands until somebody lets it go on; then it keeps its pace from there, and is not late."""
    clock, sink = ManualClock(), Memory()
    held: list[int] = []
    stands = threading.Event()
    pause = Pace.pause
    monkeypatch.setattr(Pace, "pause", lambda pace: (pause(pace), stands.set()))

    class Other(Memory):
        async def write(self, batch: Sequence[Output]) -> list[Refused]:
            if batch[-1].tick == 4 * 10**9:  # it is paused at 4 s, which is all that comes
                assert stands.wait(60)
                held.append(len(self.held) + len(batch))
                clock.advance(100.0)
                twin.proceed()
            return await super().write(batch)

    def act(n: int) -> None:
        if n == 4:
            clock.advance(1.5)  # half a second late when it is paused: forgiven when it goes on
            twin.pause()

    def build(twin: tw.Twin) -> None:
        model(sink, act)(twin)
        twin.sink(Other(), name="other")

    with tw.open(tmp_path / "a.tw", build, clock=clock) as twin:
        summary = twin.run(until=10, factor=1)
        digest = summary.digest
        assert clock.now() == pytest.approx(110.5, abs=0.1)
        assert (summary.lag_s_max, twin.lag_s) == (pytest.approx(0.0, abs=1e-6), 0.0)
    assert held == [5]
    assert tw.replay(tmp_path / "a.tw", model(Memory())).digest == digest


def test_the_pace_may_be_changed_while_it_runs(tmp_path: Path) -> None:
    """From there on, for this run and the next ones, with the digest of a run that nobody touched."""
    clock = ManualClock()
    steps = {2: 3.0, 5: 0.5, 8: 0.0}
    times: list[float] = []

    def act(n: int) -> None:
        times.append(round(clock.now(), 3))
        if n in steps:
            twin.set_factor(steps[n])

    with tw.open(tmp_path / "a.tw", model(Memory(), act), clock=clock) as twin:
        summary = twin.run(until=10, factor=1)
        assert (summary.factor, twin.run(until=11).factor) == (0.0, 0.0)
        for factor in (-1, "1", None, True, 10**400):
            with pytest.raises(OperatorError, match="the factor is wall seconds per simulated second"):
                twin.set_factor(factor)  # type: ignore[arg-type]  # as somebody may
            if factor is not None:
                with pytest.raises(OperatorError, match="the factor is wall seconds per simulated second"):
                    twin.run(until=12, factor=factor)  # type: ignore[arg-type]
        assert twin.run(until=11).factor == 0.0
    assert times == [pytest.approx(s, abs=0.01) for s in (0, 1, 2, 5, 8, 11, 11.5, 12, 12.5, 12.5)]
    with tw.open(tmp_path / "b.tw", model(Memory())) as other:
        assert other.run(until=10, factor=0).digest == summary.digest


def test_a_run_that_is_later_than_it_may_stops_in_order(tmp_path: Path) -> None:
    """All that was done is delivered and journaled; what was late before a change of the factor is forgiven."""
    clock, sink = ManualClock(), Memory()
    lags: list[float] = []

    def act(n: int) -> None:
        clock.advance({2: 1.4, 3: 0.2, 6: 9.0}.get(n, 0.0))
        lags.append(round(twin.lag_s, 3))
        if n == 2:
            twin.set_factor(1.0)

    with tw.open(tmp_path / "a.tw", model(sink, act), clock=clock) as twin:
        summary = twin.run(until=10, factor=1, lag_limit="2 s")
        assert (summary.reason, summary.interrupted) == ("lag", False)
        assert summary.lag_s_max == pytest.approx(8.0, abs=0.01)
        assert twin.run(until=10).reason == "end"
        with pytest.raises(OperatorError, match="lag_limit"):
            twin.run(until=11, lag_limit=-1)
    assert lags[:4] == [0.0, 0.0, pytest.approx(0.4, abs=0.01), 0.0]
    assert [output.value for output in sink.held] == [bytes([n]) for n in range(10)]
    assert tw.replay(tmp_path / "a.tw", model(Memory())).equal


def test_a_model_has_no_hold_on_the_clock(tmp_path: Path) -> None:
    """It would not be replayable."""

    def build(twin: tw.Twin) -> None:
        twin.pause()

    with pytest.raises(ModelError, match="does not see"):
        tw.open(tmp_path / "a.tw", build)


def test_observations_are_told_beside_the_run(tmp_path: Path) -> None:
    """Each so many wall seconds, to who asked; the run has the digest and the ids that it has without them."""
    sink, silent, plain = Memory(), Memory(), Memory()

    def build(twin: tw.Twin) -> None:
        level = twin.variable("a.level", float, 0.0)
        twin.connect(tw.sources.schedule([(n / 10, level.name, n / 10) for n in range(80)]), name="plan")
        model(sink, name="seen", observe=True)(twin)
        twin.sink(silent, name="silent")

    with tw.open(tmp_path / "a.tw", build, observe=0.05) as twin:
        summary = twin.run(until=10, factor=0.05)
    assert sink.seen
    assert not silent.seen
    last = sink.seen[-1]
    assert last["system.simulation.lag_seconds"] >= 0.0
    assert last["system.source.plan.state"] in ("starting", "connected", "ended")
    assert last["system.source.plan.inputs"] in range(81)
    assert last["system.outbox.seen.state"] == "open"
    assert all(last[f"system.stage.{name}.seconds"] > 0.0 for name in STAGES)
    # Batches overlap on their way to the journal.
    assert all(last[f"system.stage.{name}.seconds"] < summary.wall_s for name in STAGES if name != "journal")
    assert {"system.gate.backlog", "system.gate.backlog_age_seconds", "system.source.plan.rate"} <= last.keys()
    assert last.keys() >= {f"system.outbox.silent.{what}" for what in ("backlog", "age_seconds", "state", "reason")}

    def unseen(twin: tw.Twin) -> None:
        level = twin.variable("a.level", float, 0.0)
        twin.connect(tw.sources.schedule([(n / 10, level.name, n / 10) for n in range(80)]), name="plan")
        model(plain, name="seen")(twin)

    with tw.open(tmp_path / "b.tw", unseen) as twin:
        assert twin.run(until=10).digest == summary.digest
    assert [output.id for output in plain.held] == [output.id for output in sink.held]
    with pytest.raises(OperatorError, match="takes outputs alone"):
        tw.open(tmp_path / "c.tw", lambda twin: twin.sink(tw.sinks.jsonl(tmp_path / "c.jsonl"), observe=True))


def test_the_time_of_each_stage_is_told(tmp_path: Path) -> None:
    """Wall seconds of this life: of the model 0.5 s an event, of the decoder 0.25 s a message, of the outbox 0.125 s an output."""
    clock, sink = ManualClock(), Memory()

    class Slow(JsonMessages):
        def decode(self, raw: Raw) -> Any:
            clock.advance(0.25)
            return super().decode(raw)

    class Three(Source):
        name, kind = "three", "three"
        given = 0

        def decoder(self, epoch_ns: int) -> JsonMessages:
            return Slow(epoch_ns)

        async def open(self, positions: Mapping[int, int]) -> None:
            return

        async def read(self, limit: int) -> Sequence[Raw] | None:
            self.given += 1
            return [Raw(0, 0, b"?"), Raw(0, 1, b"?"), Raw(0, 2, b"?")] if self.given == 1 else None

    def slowly(record: Mapping[str, Any]) -> bool:
        clock.advance(0.125)
        return True

    def build(twin: tw.Twin) -> None:
        twin.connect(Three())
        model(sink, lambda n: clock.advance(0.5), observe=True, select=slowly)(twin)

    with tw.open(tmp_path / "a.tw", build, clock=clock, observe=0.01) as twin:
        twin.run(until=10, factor=1)
        twin.run(until=11, factor=1)  # by now all of it can be seen
    seen = [sink.seen[-1][f"system.stage.{name}.seconds"] for name in ("decode", "model", "outbox")]
    assert seen == [0.75, 5.0, 1.25]


def test_a_sink_that_is_down_is_seen_to_be(tmp_path: Path) -> None:
    """Its state, its reason, how much waits and for how long."""
    watcher = Memory()

    def seen_down() -> list[dict[str, Any]]:
        names = [f"system.outbox.down.{what}" for what in ("state", "age_seconds")]
        return [one for one in watcher.seen if one[names[0]] == "down" and one[names[1]] > 0.0]

    class Down(Memory):
        async def write(self, batch: Sequence[Output]) -> list[Refused]:
            self.down = 0 if seen_down() else 1  # so long
            refused = await super().write(batch)
            if len(self.held) == 10:
                twin.stop()
            return refused

    sink = Down()

    def build(twin: tw.Twin) -> None:
        model(sink, name="down", retry=(0.1, 0.1))(twin)
        twin.sink(watcher, name="watcher", observe=True)

    with tw.open(tmp_path / "a.tw", build, observe=0.02) as twin:
        twin.run(until=1_000, factor=0.05)
    down = seen_down()
    assert "reset by peer" in down[-1]["system.outbox.down.reason"]
    assert down[-1]["system.outbox.down.backlog"] >= 1
    assert [output.value for output in sink.held] == [bytes([n]) for n in range(10)]


def test_a_batch_may_wait_to_fill(tmp_path: Path) -> None:
    """For so many wall seconds; not at the end of a run."""
    sink, prompt = Memory(), Memory()

    def build(twin: tw.Twin) -> None:
        model(sink, name="filling", flush="3500 ms")(twin)
        twin.sink(prompt, name="prompt")

    with tw.open(tmp_path / "a.tw", build, clock=ManualClock()) as twin:
        twin.run(until=10, factor=1)
    assert sink.sizes[0] == 4, "what came in 3.5 s"
    assert (sum(sink.sizes), sum(prompt.sizes), prompt.sizes[0]) == (10, 10, 1)


@pytest.mark.parametrize("until", [10, None])
@pytest.mark.parametrize("what", ["factor", "pause"])
def test_a_factor_set_at_full_speed_counts_from_where_the_run_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: int | None, what: str
) -> None:
    """Which is in the middle of a slice's way: what is left takes its time, and the marks are those of a replay."""
    monkeypatch.setattr(host_module, "EVENTS_PER_STEP", 3)
    monkeypatch.setattr(host_module, "_MARK_S", 1.0)
    clock, sink = ManualClock(), Memory()

    def act(n: int) -> None:
        if n == 5:
            twin.set_factor(1.0)
        if n == 5 and what == "pause":
            twin.pause()
            twin.proceed()

    with tw.open(tmp_path / "a.tw", model(sink, act), clock=clock) as twin:
        twin.run(until, factor=0)
    assert 3.0 < clock.now() < 6.0
    assert [output.tick for output in sink.held] == [n * 10**9 for n in range(10)]
    assert tw.replay(tmp_path / "a.tw", model(Memory())).equal
    with tw.open(tmp_path / "a.tw", model(sink), clock=clock) as twin:
        twin.run(until=20, factor=0)


def test_a_form_is_what_the_sink_and_its_select_are_given(tmp_path: Path) -> None:
    """A jsonl sink keeps what it needs to know what it holds."""
    path = tmp_path / "a.jsonl"

    def form(record: dict[str, Any]) -> dict[str, Any]:
        return {"key": record["key"], "value": record["value"] * 10, "sim_ts": round(record["sim_ts"], 1)}

    def build(twin: tw.Twin) -> None:
        model(tw.sinks.jsonl(path), form=form, select=lambda record: "id" not in record and record["value"] < 50)(twin)

    with tw.open(tmp_path / "a.tw", build) as twin:
        twin.run(until=3)
    with tw.open(tmp_path / "a.tw", build) as twin:
        twin.run(until=10)
    lines = path.read_text().splitlines()
    assert len(lines) == 5
    assert '"value":40,' in lines[-1]
    assert lines[-1].startswith('{"id":"')


def test_a_full_disk_under_the_spill_file_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sink is behind, the summary says of what and what to do; the next life makes the rest, each output once."""
    sink = Memory(down=3)
    write, calls = os.pwrite, []

    def full(file: int, data: bytes, at: int) -> int:
        calls.append(len(data))
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data, at)

    monkeypatch.setattr("tidewarp.connect.spill.os.pwrite", full)
    policy = {"queue": 2, "batch": 2, "retry": (2.0, 2.0)}
    with tw.open(tmp_path / "a.tw", model(sink, **policy), clock=ManualClock()) as twin:
        summary = twin.run(until=10, factor=1)
    assert len(calls) == 4, "a file that has failed once is left alone"
    told = summary.sinks["memory"]
    assert (told["state"], told["sent"] + told["behind"]) == ("behind", 10)
    assert told["behind"] > 0
    assert "No space left on device" in summary.behind["memory"]
    assert "--resume" in summary.behind["memory"]
    assert [output.value for output in sink.held] == [bytes([n]) for n in range(told["sent"])]
    monkeypatch.undo()
    with tw.open(tmp_path / "a.tw", model(sink, **policy)) as twin:
        assert twin.run(until=10).behind == {}
    assert [output.value for output in sink.held] == [bytes([n]) for n in range(10)]


def test_a_sink_that_makes_no_progress_is_given_up_after_its_own_time(tmp_path: Path) -> None:
    """By the clock of the twin; one that is still at work then is waited for, and has all."""
    clock = ManualClock()

    class Slow(Memory):
        async def write(self, batch: Sequence[Output]) -> list[Refused]:
            while clock.now() < 13.0:  # when the time of the other one is over
                await asyncio.sleep(0)
            return await super().write(batch)

    sink, other = Memory(down=10**9), Slow()

    def build(twin: tw.Twin) -> None:
        model(sink, name="stuck", stall=3.0)(twin)
        twin.sink(other, name="other")

    with (
        tw.open(tmp_path / "a.tw", build, clock=clock) as twin,
        pytest.raises(OperatorError, match="'stuck': 10 outputs not delivered"),
    ):
        twin.run(until=10, factor=1)
    assert clock.now() < 40.0
    assert len(other.held) == 10


def test_a_sink_that_does_not_open_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning, with the names of those that are waited for; the twin starts as soon as they answer."""
    told = threading.Event()

    class Slow(Memory):
        async def open(self, run: RunIdentity) -> str | None:
            assert told.wait(60)
            return await super().open(run)

    def build(twin: tw.Twin) -> None:
        model(Memory(), name="prompt")(twin)
        twin.sink(Slow(), name="slow")

    monkeypatch.setattr(dispatcher, "_OPEN_S", 0.01)
    monkeypatch.setattr(dispatcher._LOG, "warning", lambda *words: (words_of.append(words), told.set()))
    words_of: list[Any] = []
    with tw.open(tmp_path / "a.tw", build, clock=ManualClock()) as twin:
        assert twin.run(until=10, factor=1).outputs == 10
    assert [words[-1] for words in words_of] in (["slow"], ["prompt, slow"])


def test_what_connectors_count_is_in_the_summary(tmp_path: Path) -> None:
    """A sink's beside what the outbox counts, a source's by its name."""

    class Counting(Memory):
        def counts(self) -> dict[str, int]:
            return {"misrouted": len(self.held), "sent": 99}

    class Losing(Source):
        name, kind = "losing", "losing"

        def counts(self) -> dict[str, int]:
            return {"dropped": 3, "garbled": 2}

        def decoder(self, epoch_ns: int) -> JsonMessages:
            return JsonMessages(epoch_ns)

        async def open(self, positions: Mapping[int, int]) -> None:
            return

        async def read(self, limit: int) -> Sequence[Raw] | None:
            return None

    def build(twin: tw.Twin) -> None:
        model(Counting())(twin)
        twin.connect(Losing())

    with tw.open(tmp_path / "a.tw", build) as twin:
        summary = twin.run(until=10, factor=0)
    assert summary.sinks["memory"] | {"misrouted": 10, "sent": 10, "nonfinite": 0} == summary.sinks["memory"]
    assert (summary.sources, summary.shed) == (
        {"losing": {"dropped": 3, "garbled": 2, "state": "ended", "reason": ""}},
        {"losing": 3},
    )
    lines = _render({**asdict(summary), "journal": "a.tw"}).splitlines()
    assert {"source losing: 2 garbled", "source losing: 3 shed"} < {*lines}
    assert any("10 misrouted" in line for line in lines)


def test_the_pause_before_the_next_attempt_does_not_prolong_the_wait_for_a_sink(tmp_path: Path) -> None:
    """It is given up after so long, whatever woke the host meanwhile: its attempts are at 4 s, 12 s and 28 s."""
    clock = ManualClock()
    with (
        tw.open(tmp_path / "a.tw", model(Memory(down=10**9), stall=5.0, retry=(4.0, 30.0)), clock=clock) as twin,
        pytest.raises(OperatorError, match="not delivered"),
    ):
        twin.run(until=10, factor=1)
    assert clock.now() == pytest.approx(15.0, abs=0.1)
