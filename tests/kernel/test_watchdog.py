"""What the watchdog sees of the Python tier and of engines that wait; and children with handlers that never end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from endless import TIMEOUT_S
from scripted import Go, opened, scripted

from tidewarp.clocks import WallClock
from tidewarp.kernel import Context, Engine, Status
from tidewarp.kernel.shell import engine as engines
from tidewarp.kernel.shell.checkpoint_files import whole_checkpoints
from tidewarp.kernel.shell.watchdog import WATCHDOG, Watch, Watchdog
from tidewarp.testing import ManualClock

PROGRAM = Path(__file__).with_name("endless.py")


class StillDog(Watchdog):
    """Looks when the test says so; notes what it would end the process with."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.said: list[str] = []
        super().__init__(self.clock, self.said.append)

    def wake(self) -> None:
        pass

    def pass_by(self, *seconds: float) -> None:
        """Look, and look again after each of these times."""
        self.look()
        for passed in seconds:
            self.clock.advance(passed)
            self.look()


@pytest.fixture
def dog(monkeypatch: pytest.MonkeyPatch) -> Iterator[StillDog]:
    """The watchdog of all engines of this test."""
    dog = StillDog()
    monkeypatch.setattr(engines, "WATCHDOG", dog)
    yield dog
    assert dog._watches == [], "every engine was closed"


KERNELS = [("sequential", 1), ("conservative", 1), ("conservative", 2), ("optimistic", 1), ("optimistic", 2)]


@pytest.mark.parametrize(("kernel", "workers"), KERNELS)
def test_a_handler_of_the_python_tier_that_does_not_end_is_named(
    kernel: str, workers: int, dog: StillDog, caplog: pytest.LogCaptureFixture
) -> None:
    """First as a stall, then as the end: path, key, line of its file, last checkpoint, what to do."""
    saved = Path("/somewhere/5.twc")

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        if go.step == 3:
            dog.pass_by(4.0, 2.0, 2.0)
            assert dog.said == []
            dog.pass_by(52.5)
        elif go.step < 5:
            dog.pass_by(4.0)
        ctx.send(0, 1, Go(go.step + 1))

    with Engine(scripted(script, lookahead=1), tier="python", kernel=kernel, workers=workers) as engine:
        engine.saved_at = saved
        engine.advance(20)
    assert len(dog.said) == 1
    assert dog.said[0].startswith("error: s.0 at (13, 0, 0, 0, 3), line ")
    assert "its handler has been running for 60.5 s, handler_timeout_s is 60" in dog.said[0]
    assert f"the last checkpoint is {saved}" in dog.said[0]
    assert [record.getMessage()[:40] for record in caplog.records] == ["stalled: the handler of s.0 at (13, 0, 0"]
    assert caplog.records[0].getMessage().endswith("runs for 6 s")


def test_a_start_that_does_not_end_is_named(dog: StillDog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is an engine at all."""
    model = scripted(lambda *_: None)
    start = model.classes[0].start

    def slow(self: Any, ctx: Context) -> None:
        if ctx.lp == 1:
            dog.pass_by(61.0)
        start(self, ctx)

    monkeypatch.setattr(model.classes[0], "start", slow)
    from tidewarp.kernel import objects

    monkeypatch.setattr(objects, "_BLANKS", {})
    with Engine(model, tier="python") as engine:
        engine.advance(20)
    assert len(dog.said) == 1
    assert dog.said[0].startswith("error: s.1 at tick 0, line ")


def test_what_waits_for_a_source_is_said_once(dog: StillDog, caplog: pytest.LogCaptureFixture) -> None:
    """While nobody drives the engine, too; and no more when the source has gone on."""
    with opened(lambda *_: None) as engine:
        (sensor,) = engine.model.sources
        engine.watermark(sensor, 10)
        assert engine.advance(100) is Status.WAITING
        dog.pass_by(3.0)
        assert engine.advance(100) is Status.WAITING, "asking again moves nothing"
        dog.pass_by(1.9)
        assert caplog.records == []
        dog.pass_by(0.2, 100.0)
        assert [record.getMessage() for record in caplog.records] == [
            "stalled at tick 10 for 5 s: waiting for the watermark of input 'sensor', which stands at tick 10"
        ]
        engine.watermark(sensor, 50)
        assert engine.advance(100) is Status.WAITING
        dog.pass_by(6.0)
        assert len(caplog.records) == 2
        engine.watermark(sensor, 101)
        assert engine.advance(100) is Status.DONE
        dog.pass_by(600.0)
        assert len(caplog.records) == 2


def test_outputs_that_nobody_takes_are_said(dog: StillDog, caplog: pytest.LogCaptureFixture) -> None:
    """``stalls`` says so at once, the log after five seconds."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        ctx.emit(go)
        ctx.send(0, 1, go)

    with Engine(scripted(script), tier="python", outputs_max=3) as engine:
        assert engine.advance(100) is Status.FULL
        assert engine.stalls() == ["blocked: outputs, of which 3 may wait to be taken"]
        dog.pass_by(6.0)
        assert "blocked: outputs" in caplog.text
        engine.outputs()
        assert engine.stalls() == []
        assert engine.advance(100) is Status.FULL
        dog.pass_by(4.0)
        assert len(caplog.records) == 1


def test_a_run_that_goes_on_is_left_alone(dog: StillDog, caplog: pytest.LogCaptureFixture) -> None:
    """However long all its handlers take together."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        dog.pass_by(4.9)
        ctx.send(0, 1, go)

    with opened(script) as engine:
        engine.advance(60)
    assert (dog.said, caplog.records) == ([], [])


def test_the_thread_ends_when_there_is_nothing_to_watch() -> None:
    """And another one is started when there is: a process that stands still may fork."""

    class Quick(WallClock):
        def wait(self, inbox: Any, timeout_s: float | None) -> Any:
            return super().wait(inbox, 0.001)

    ended: list[str] = []
    dog = Watchdog(Quick(), ended.append)
    for _ in range(2):
        with opened(lambda *_: None) as engine:
            watch = Watch(engine.model, 60.0)
            dog.begin(watch, engine._kernel)
            thread = dog._thread
            assert thread is not None
            assert thread.is_alive()
            assert thread is not threading.current_thread()
            dog.end(watch, 0, [])
            thread.join(60.0)
            assert not thread.is_alive()
            assert dog._thread is None
    assert ended == []


def test_the_child_of_a_fork_has_a_watchdog_of_its_own() -> None:
    """Threads do not survive a fork; a handler of the child that never ends is ended all the same."""
    WATCHDOG.wake()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it forks beside a thread is what is tried here
        child = os.fork()
    if child == 0:
        kept = WATCHDOG._thread is None
        WATCHDOG.wake()
        alive = WATCHDOG._thread is not None and WATCHDOG._thread.is_alive()
        os._exit(0 if kept and alive else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


ENDLESS = [
    ("start", "sequential", "python", 1),
    ("handler", "sequential", "python", 1),
    ("handler", "conservative", "python", 2),
    ("handler", "optimistic", "python", 2),
    ("handler", "sequential", "compiled", 1),
    ("handler", "optimistic", "compiled", 2),
    *(
        pytest.param(*case, marks=pytest.mark.nightly)
        for case in [
            ("start", "optimistic", "compiled", 2),
            ("handler", "conservative", "compiled", 1),
            ("handler", "conservative", "compiled", 2),
            ("handler", "optimistic", "compiled", 1),
            ("ahead", "optimistic", "compiled", 2),
        ]
    ),
]


@pytest.mark.parametrize(("where", "kernel", "tier", "workers"), ENDLESS)
def test_what_never_ends_is_ended(
    where: str, kernel: str, tier: str, workers: int, tmp_path: Path, require: Callable[[str], None]
) -> None:
    """Exit 1 and one line with path, tick and the last checkpoint: in a process of its own, where it really runs for ever."""
    if tier == "compiled":
        require("numba")
    saved = [str(tmp_path)] if where == "handler" else []  # a run does not go ahead of its next checkpoint
    words = [where, kernel, tier, str(workers), *saved]
    done = subprocess.run([sys.executable, str(PROGRAM), *words], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert f"handler_timeout_s is {TIMEOUT_S}" in done.stderr
    assert done.stderr.startswith(
        {"start": "error: lp.1 at ", "handler": "error: lp.", "ahead": "error: waits at "}[where]
    )
    if where == "handler":
        from endless import model_of

        newest = next(whole_checkpoints(tmp_path, model_of(where)))
        assert f"the last checkpoint is {newest}" in done.stderr
        assert " at (2001, 0, " in done.stderr
