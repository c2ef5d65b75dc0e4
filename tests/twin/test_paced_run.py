"""A run at the pace of the wall: it sleeps until something is due, and after a kill it comes back at full speed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.observe import SilentProbe
from tidewarp.testing import ManualClock
from tidewarp.twin import Build


class PassingClock(ManualClock):
    """Time passes by itself, a millisecond at each look, as it does on a host: who polls is found by its looks."""

    looks = 0

    def now(self) -> float:
        self.looks += 1
        assert self.looks < 10_000, "it polls"
        self.advance(0.001)
        return super().now()


def held() -> int:
    """Whole lines in the file of the sink, in the working directory."""
    return Path("ticks.jsonl").read_bytes().count(b"\n")


class HeedfulClock(PassingClock):
    """No time passes while the sink is 50 ticks behind: it has a real disk, and has to tell of what it wrote."""

    def wait(self, inbox: Any, timeout_s: float | None) -> Any:
        return super().wait(inbox, None if self._now_s > 600 * (held() + 50) else timeout_s)


class Killer(SilentProbe):
    """Kills this process when its sink holds ten outputs: the threads decide when that is."""

    def progress(self, done: float, total: float | None) -> None:
        if held() >= 10:
            os.kill(os.getpid(), signal.SIGKILL)


def ticking(folder: Path, entries: Any = ()) -> Build:
    """A tick every ten minutes, told to a file; with a source if there are entries."""

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", float)

        def tick() -> Generator[Any, Any, None]:
            while True:
                yield twin.env.timeout(600)
                twin.publish_event("tick", twin.now)

        twin.process(tick())
        if entries:
            twin.connect(tw.sources.schedule(entries))
        twin.sink(tw.sinks.jsonl(folder / "ticks.jsonl"))

    return build


@pytest.mark.parametrize("entries", [(), [(1_000, "a.level", 1.0), (5_000, "a.level", 2.0)]])
@pytest.mark.parametrize("until", [6_000, 100])
def test_a_paced_run_sleeps_until_something_is_due(entries: Any, until: float, tmp_path: Path) -> None:
    """An event, an input or the end: about ten looks at the clock for each, and none while there is nothing."""
    clock = PassingClock()
    with tw.open(tmp_path / "a.tw", ticking(tmp_path, entries), clock=clock, factor=1.0) as twin:
        summary = twin.run(until=until)
    assert (summary.reason, summary.virtual_time_s) == ("end", until)
    assert summary.outputs == int((until - 1) // 600)
    assert clock.now() >= until
    assert clock.looks < 500


def test_a_stop_while_nothing_is_due_leaves_the_run_at_the_present(tmp_path: Path) -> None:
    """Not at the last event: the time since then has passed."""
    twin = tw.open(tmp_path / "a.tw", ticking(tmp_path), clock=(clock := StoppingClock(at_s=900.0)), factor=1.0)
    clock.stop = twin.stop
    with twin:
        summary = twin.run(until=6_000)
    assert summary.interrupted
    assert 900.0 <= summary.virtual_time_s < 1_200.0


class StoppingClock(PassingClock):
    """Calls ``stop`` when its time has come, in the middle of a sleep."""

    stop: Callable[[], None]

    def __init__(self, at_s: float) -> None:
        super().__init__()
        self.at_s = at_s

    def wait(self, inbox: Any, timeout_s: float | None) -> Any:
        if timeout_s is not None and self._now_s < self.at_s < self._now_s + timeout_s:
            self.advance(self.at_s - self._now_s)
            self.stop()
            return inbox.get()
        return super().wait(inbox, timeout_s)


def test_after_a_kill_a_paced_run_catches_up_at_full_speed(
    tmp_path: Path, require: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a sink holds was due before: the next life does not wait for it again."""
    require("fork")
    monkeypatch.chdir(tmp_path)
    child = os.fork()
    if child == 0:
        with tw.open("a.tw", ticking(tmp_path), clock=HeedfulClock(), factor=1.0, probe=Killer()) as twin:
            twin.run()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    told = held()  # the kill may have torn the last line
    assert told >= 10
    clock = PassingClock()
    with tw.open("a.tw", ticking(tmp_path), clock=clock, factor=1.0) as twin:
        summary = twin.run(until=600 * told + 120_000)  # well behind the last mark
    assert summary.outputs == told + 199
    assert clock.now() < 120_100, "only what had not been delivered takes its time"
    assert len((tmp_path / "ticks.jsonl").read_text().splitlines()) == told + 199
