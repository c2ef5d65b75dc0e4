"""A run at full speed that has no sources and no end: in slices, as one with an end, and with the same result."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.twin import journal_rows
from tidewarp.twin.host import Host
from tidewarp.units import TICK_MAX, ticks

EVENTS = 50_000
TIMEOUT_S = 60.0  # of a test that hangs


def counting(count: int) -> Any:
    """Two processes that tick ``count`` times in all, and tell each thousandth time."""

    def build(twin: tw.Twin) -> None:
        def tick(gap_s: float) -> Any:
            for n in range(count // 2):
                yield twin.env.timeout(gap_s)
                if n % 1_000 == 0:
                    twin.publish_event("tick", n)

        twin.process(tick(0.7))
        twin.process(tick(1.1))

    return build


@pytest.mark.parametrize("host", ["inline", "forked"])
def test_it_goes_in_slices_to_behind_its_last_event(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some, so that a stop is heard, and not one for each event; the clock stands where one that is told the end stands."""
    slices: list[int] = []
    go = Host._slice

    def noted(self: Host, limit: int) -> None:
        slices.append(limit)
        go(self, limit)

    monkeypatch.setattr(Host, "_slice", noted)
    with tw.open(tmp_path / "a.tw", counting(EVENTS), host=host) as twin:
        free = twin.run()
        assert free.events > EVENTS
        assert 3 <= len(slices) <= 50
        assert free.virtual_time_s == twin.now == (ticks(twin.now) / 10**9)
        again = twin.run()
        assert (again.events, again.digest, again.virtual_time_s) == (free.events, free.digest, free.virtual_time_s)
    with tw.open(tmp_path / "b.tw", counting(EVENTS), host=host) as twin:
        bound = twin.run(until=free.virtual_time_s)
    assert (bound.digest, bound.events, bound.virtual_time_s) == (free.digest, free.events, free.virtual_time_s)
    assert tw.replay(tmp_path / "a.tw", counting(EVENTS)).equal


@pytest.mark.parametrize("host", ["inline", "forked"])
def test_what_the_program_sets_meanwhile_comes_between_two_slices(tmp_path: Path, host: str) -> None:
    """As an input of its own place: the run is the replay of its journal. Between two runs too, where the clock stands."""
    shown, seen = threading.Event(), threading.Event()

    class Shown(tw.connect.Sink):
        name, kind, delivery = "shown", "memory", "once"

        async def open(self, run: Any) -> str | None:
            return ""

        async def write(self, batch: Any) -> list[Any]:
            shown.set()
            if any(output.key == "level" for output in batch):
                seen.set()
            return []

    def build(twin: tw.Twin) -> None:
        level = twin.variable("a.level", float, 0.0)

        def follow() -> Any:
            changes = level.changes()
            while True:
                change = yield changes.next()
                twin.publish_event("level", change.new)

        def tick() -> Any:
            while True:
                yield twin.env.timeout(1.0)
                if twin.now % 5_000 == 0:
                    twin.publish_event("tick", level.value)

        twin.process(follow())
        twin.process(tick())
        twin.sink(Shown())

    with tw.open(tmp_path / "a.tw", build, host=host) as twin:

        def act() -> None:
            assert shown.wait(TIMEOUT_S)
            twin.pause()
            twin.apply("a.level", 7.0)
            twin.proceed()
            seen.wait(TIMEOUT_S)
            twin.stop()

        thread = threading.Thread(target=act)
        thread.start()
        first = twin.run()
        thread.join()
        assert seen.is_set()
        assert first.interrupted
        at = twin.now
        twin.apply("a.level", 8.0)
        assert twin.now == at
        assert twin.registry.get("a.level").value == 8.0
        last = twin.run(until=at + 10)
    inputs = [row for row in journal_rows(tmp_path / "a.tw", source="local") if row["kind"] == "input"]
    assert [row["value"] for row in inputs] == [7.0, 8.0]
    assert 0 < inputs[0]["tick"] < inputs[1]["tick"] == ticks(at)
    again = tw.replay(tmp_path / "a.tw", build)
    assert (again.equal, again.digest) == (True, last.digest)


def test_what_is_set_behind_the_floor_of_a_stopped_run_is_not_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was told an end has a floor there, wherever it was stopped: what is set later lies behind that."""
    end_s, count = 50_000.0, 0
    set_at_s: list[float] = []
    go = Host._slice

    def build(twin: tw.Twin) -> None:
        level = twin.variable("a.level", float, 0.0)

        def tick() -> Any:
            while True:
                yield twin.env.timeout(1.0)
                if twin.now % 10_000 == 0:
                    twin.publish_event("level", level.value)

        twin.process(tick())

    with tw.open(tmp_path / "a.tw", build) as twin:

        def noted(self: Host, limit: int) -> None:
            nonlocal count
            go(self, limit)
            count += 1
            if limit == TICK_MAX and not set_at_s:
                set_at_s.append(twin.now)
                thread = threading.Thread(target=lambda: twin.apply("a.level", 7.0))
                thread.start()
                thread.join()
            if count == 1 or twin.now > 1.5 * end_s:
                self.stop()

        monkeypatch.setattr(Host, "_slice", noted)
        first = twin.run(until=end_s)
        assert first.interrupted
        assert first.virtual_time_s < end_s
        last = twin.run()
        assert set_at_s[0] < end_s
        assert twin.registry.get("a.level").value == 7.0
    (row,) = [row for row in journal_rows(tmp_path / "a.tw", source="local") if row["kind"] == "input"]
    assert row["tick"] == ticks(end_s)
    again = tw.replay(tmp_path / "a.tw", build)
    assert (again.equal, again.digest) == (True, last.digest)
