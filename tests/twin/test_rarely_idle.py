"""A run that never waits, since it is behind, and one whose clock waits for others: sinks are tried again, GVT promises nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_between_runs import EPOCH, Parts
from test_local_inputs import Memory

import tidewarp as tw
from tidewarp.connect import Output, Refused, RunIdentity
from tidewarp.errors import OperatorError
from tidewarp.observe import SilentProbe
from tidewarp.testing import ManualClock
from tidewarp.twin import journal_rows


class Shaky(Memory):
    """Its first write fails."""

    def __init__(self) -> None:
        super().__init__()
        self.is_back = threading.Event()
        self.failed = False

    async def open(self, run: RunIdentity) -> str | None:
        if self.failed:
            self.is_back.set()
        return await super().open(run)

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        if not self.failed:
            self.failed = True
            raise ConnectionError("reset by peer")
        return await super().write(batch)


def test_a_sink_is_tried_again_by_a_run_that_is_always_late(tmp_path: Path) -> None:
    """Each step takes twice as long as it may. Its outage lasts half a second, and not until the end of the run."""
    clock, sink, pause = ManualClock(), Shaky(), threading.Event()
    back_at: list[float] = []

    def build(twin: tw.Twin) -> None:
        def work() -> Any:
            while True:
                yield twin.env.timeout(0.01)
                clock.advance(0.02)
                twin.publish_event("step", twin.now)
                if sink.is_back.is_set():
                    back_at.append(twin.now)
                else:
                    pause.wait(0.001)  # the sink's thread has to hear of it

        twin.process(work())
        twin.sink(sink)

    with tw.open(tmp_path / "a.tw", build, factor=1.0, clock=clock, host="inline") as twin:
        twin.run(until=20)
    assert back_at, "it was opened again at the end only"
    assert len(sink.held) == 1_999


class Down(Memory):
    """Nobody reaches it."""

    async def open(self, run: RunIdentity) -> str | None:
        raise ConnectionError("refused")


def test_a_live_run_comes_to_the_present_though_a_sink_is_down(tmp_path: Path) -> None:
    """What a recovery makes again fills its queue; what the run has to make up for goes into the file behind it."""
    clock, path = ManualClock(unix_ns=10**18), tmp_path / "a.tw"

    def build(twin: tw.Twin) -> None:
        def tick() -> Any:
            while True:
                yield twin.env.timeout(0.1)
                twin.publish_event("tick", twin.now)

        twin.process(tick())
        twin.variable("a.level", float, 0.0)
        twin.connect(Parts([(0, None)], held=0, clock="wall"))
        twin.sink(Down(), batch=5, queue=10, stall=1.0)

    for until in (10, 30):
        with pytest.raises(OperatorError, match="refused"), tw.open(path, build, clock=clock) as twin:
            twin.run(until=until)
        clock.advance(15.0)
    assert [row["time_s"] for row in journal_rows(path, kind="stop")] == [10.0, 30.0]


class Stopping(SilentProbe):
    """Stops the run where its source has nothing more yet."""

    twin: tw.Twin | None = None

    def progress(self, done: float, total: float | None) -> None:
        if self.twin is not None and done >= 0.94:
            self.twin.stop()


def test_gvt_is_not_promised_beyond_what_the_clock_waits_for(tmp_path: Path) -> None:
    """A life after a kill begins where GVT was promised: what its source brings below that would be too late there alone."""
    rows = [[(n, 0.19 * n)] for n in range(1, 6)]
    source = Parts(*rows, [(7, 0.97)], held=len(rows))
    clock, probe = ManualClock(), Stopping()

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", float, 0.0)

        def tick() -> Any:
            while True:
                yield twin.env.timeout(0.1)
                twin.publish_event("tick", twin.now)

        twin.process(tick())
        twin.connect(source, late="stop")
        twin.sink(Memory())

    with tw.open(tmp_path / "a.tw", build, factor=1.0, clock=clock, epoch=EPOCH, probe=probe) as twin:
        probe.twin = twin
        twin.apply("a.level", 1.0)
        assert twin.run().reason == "interrupted"
    told = [row["gvt"] for row in journal_rows(tmp_path / "a.tw") if row["kind"] == "released"]
    assert max(told) <= 950_000_000, "where the last row is"


def test_nor_beyond_the_end_of_the_run(tmp_path: Path) -> None:
    """A wall second is 100 virtual ones here: a life after a kill would make outputs that nobody has asked for."""

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", float, 0.0)

        def tick() -> Any:
            while True:
                yield twin.env.timeout(0.5)
                twin.publish_event("tick", twin.now)

        twin.process(tick())
        twin.sink(Memory())

    with tw.open(tmp_path / "a.tw", build, factor=0.01, clock=ManualClock()) as twin:
        twin.apply("a.level", 1.0)
        twin.run(until=10)
    told = [row["gvt"] for row in journal_rows(tmp_path / "a.tw") if row["kind"] == "released"]
    assert max(told) == 10 * 10**9
