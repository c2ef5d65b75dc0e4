"""Outputs made again for one sink that hangs: it is waited for once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect import Output, Refused, RunIdentity, Sink
from tidewarp.testing import ManualClock
from tidewarp.twin import follow, redeliver

STALL_S = 30.0


class Hanging(Sink):
    """Takes everything until it is told to hang, and holds nothing of it afterwards."""

    name, kind, delivery = "hanging", "hanging", "once"

    def __init__(self) -> None:
        self.hangs = False

    async def open(self, run: RunIdentity) -> str | None:
        return ""

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        if self.hangs:
            raise OSError("no answer")
        return []


def test_once_it_has_stalled_what_comes_is_only_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once more for every slice of a long journal: once where its queue is full, and once at the end."""
    sink, clock = Hanging(), ManualClock()

    def build(twin: tw.Twin) -> None:
        def tick() -> Any:
            while True:
                yield twin.env.timeout(1)
                twin.publish_event("tick", twin.now)

        twin.process(tick())
        twin.sink(sink, batch=5, queue=10, stall=STALL_S, retry=(1_000, 1_000))

    with tw.open(tmp_path / "a.tw", build) as twin:
        twin.run(until=100)
    sink.hangs = True
    monkeypatch.setattr(follow, "EVENTS_PER_STEP", 3)
    monkeypatch.setattr(sys.modules[redeliver.__module__], "WallClock", lambda: clock)
    result = redeliver(tmp_path / "a.tw", "hanging", build)
    assert (result.done, result.left) == (0, 99)
    assert clock.now() <= 2 * STALL_S
