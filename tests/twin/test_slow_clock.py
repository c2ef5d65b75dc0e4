"""A live source whose clock is behind: one line of the log says so, and names the hold that mends it."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect import Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.testing import ManualClock

NOON_NS = 1_780_000_000 * 10**9


class Driven(ManualClock):
    """Moved by the device; by the host only where nothing comes any more."""

    patience_s = 5.0

    def wait(self, inbox: queue.SimpleQueue[Any], timeout_s: float | None) -> Any:
        try:
            return inbox.get(timeout=self.patience_s)
        except queue.Empty:
            return super().wait(inbox, timeout_s)


class Device(Source):
    """A message each tenth of a second, 120 of them, stamped by a clock that is ``behind_s`` behind.

    ``reached_s`` is where the twin stands: it is waited for, so that time goes no faster than the twin can.
    """

    name, kind, clock = "device", "device", "wall"

    def __init__(self, clock: ManualClock, behind_s: float, hold_s: float) -> None:
        self.wall, self.behind_s, self.hold_s = clock, behind_s, hold_s
        self.next, self.reached_s = 0, 0.0

    async def open(self, positions: Mapping[int, int]) -> None:
        return

    def decoder(self, epoch_ns: int) -> JsonMessages:
        return JsonMessages(epoch_ns)

    async def read(self, limit: int) -> Sequence[Raw] | None:
        if self.next == 120:
            self.wall.patience_s = 0.2
            return None
        while self.reached_s < self.wall.now() - self.hold_s - 0.1:
            await asyncio.sleep(0)
        self.wall.advance(0.1)
        time = datetime.fromtimestamp(self.wall.unix_ns() / 10**9 - self.behind_s, UTC).isoformat()
        raw = Raw(0, self.next, json.dumps({"path": "a.level", "value": self.next, "time": time}).encode())
        self.next += 1
        return [raw]


def run(path: Path, behind_s: float, hold_s: float = 0.25, **policy: Any) -> tw.Summary:
    clock = Driven(unix_ns=NOON_NS)
    device = Device(clock, behind_s, hold_s)

    def build(twin: tw.Twin) -> None:
        def tick() -> Any:
            while True:
                device.reached_s = twin.env.now
                yield twin.env.timeout(0.05)

        twin.process(tick())
        twin.variable("a.level", int)
        twin.connect(device, time="payload", hold=f"{hold_s} s", **policy)

    with tw.open(path, build, clock=clock) as twin:
        return twin.run()


def test_a_slow_clock_is_named_once_with_the_hold_that_mends_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its messages are treated as they are without the line; with that hold there is none, nor is there for a right clock."""
    caplog.set_level(logging.WARNING, "tidewarp.twin")
    assert run(tmp_path / "a.tw", 1.0, late="clamp").clamped > 60
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("source device: most of what it sends comes ")
    told = re.search(r"comes (\S+) s after its times \(median\), which is (\S+) s too late", caplog.messages[0])
    hold = re.search(r"hold='(\S+) s'", caplog.messages[0])
    assert told is not None
    assert hold is not None
    median_s, late_s, hold_s = float(told[1]), float(told[2]), float(hold[1])
    assert 1.0 <= median_s < 1.5
    assert median_s - late_s == pytest.approx(0.25, abs=0.02), "the hold that it has"
    assert median_s <= hold_s < 2.0
    caplog.clear()
    assert run(tmp_path / "b.tw", 1.0, hold_s, late="clamp").clamped < 30
    assert run(tmp_path / "c.tw", 0.0, late="clamp").clamped < 30
    assert caplog.messages == []


def test_what_was_recorded_before_the_epoch_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A live twin begins now: what happened years ago is all moved to where it stands, which nobody means."""
    caplog.set_level(logging.WARNING, "tidewarp.twin")
    assert run(tmp_path / "a.tw", 1e8, late="clamp").clamped == 120
    assert len(caplog.messages) == 1
    assert re.match(r"source device: all that it has sent lies before the epoch, .* by 99999\d\d\d", caplog.messages[0])
    assert "epoch=" in caplog.messages[0]


def test_one_that_is_short_is_named_at_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "tidewarp.twin")

    async def old() -> AsyncIterator[dict[str, Any]]:
        yield {"path": "a.level", "value": 1, "time": "2020-01-01T00:00:00Z"}

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", int)
        twin.connect(tw.sources.python(old, name="old"), time="payload")

    with tw.open(tmp_path / "a.tw", build, clock=ManualClock(unix_ns=NOON_NS)) as twin:
        twin.run()
    assert [message.partition(",")[0] for message in caplog.messages] == [
        "source old: all that it has sent lies before the epoch"
    ]
