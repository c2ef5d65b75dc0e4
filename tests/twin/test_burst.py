"""What keeps the clock of a paced run in time while much comes in: the stamps of arrivals, short drains, a spared collector."""

from __future__ import annotations

import gc
import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect import Raw, Source, Update
from tidewarp.connect import gate as gates
from tidewarp.connect.gate import Gate
from tidewarp.testing import ManualClock
from tidewarp.twin.host import Host
from tidewarp.twin.pace import Pace
from tidewarp.units import ticks


class Slow(Source):
    """One message, which takes a while to decode."""

    name, kind, clock = "slow", "slow", "wall"

    def __init__(self, wall: ManualClock, decoding_s: float) -> None:
        self.wall, self.decoding_s = wall, decoding_s
        self.next = 0

    def decoder(self, epoch_ns: int) -> Any:
        return self

    def decode(self, raw: Raw) -> Update:
        self.wall.advance(self.decoding_s)
        return Update(None, (("a.level", float(raw.offset)),))

    async def open(self, positions: Mapping[int, int]) -> None:
        """It is there."""

    async def read(self, limit: int) -> Sequence[Raw] | None:
        self.next += 1
        return [Raw(0, self.next - 1, b"{}")] if self.next == 1 else None


class Looked(ManualClock):
    """Half a millisecond passes at each look."""

    def now(self) -> float:
        self.advance(0.0005)
        return super().now()


def host_of(twin: tw.Twin) -> Host:
    assert twin._host is not None
    return twin._host


@pytest.mark.parametrize(("decoding_s", "least_s"), [(0.04, 0.036), (5.0, 0.09)])
def test_an_arrival_is_stamped_for_when_it_will_be_durable_since_it_was_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoding_s: float, least_s: float
) -> None:
    """Its way includes the wait for the host, and the decoding; how far ahead it is stamped is bounded."""
    clock = ManualClock()

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", float)
        twin.connect(Slow(clock, decoding_s))

    with tw.open(tmp_path / "a.tw", build, clock=clock) as twin:
        twin.run()
        host = host_of(twin)
        monkeypatch.setattr(Gate, "appending", property(lambda gate: True))
        ahead = host._present() - host._pace.present()
        assert ticks(least_s) <= ahead <= ticks(0.1)
        monkeypatch.setattr(Gate, "appending", property(lambda gate: False))
        assert host._present() == host._pace.present()
    assert tw.replay(tmp_path / "a.tw", build).equal


@pytest.mark.parametrize(("factor", "left"), [(1.0, 4), (0.0, 0)])
def test_arrivals_leave_a_paced_run_its_turn(tmp_path: Path, factor: float, left: int) -> None:
    """What takes a millisecond to admit is followed by a slice; at full speed all that is there is taken first."""
    clock = Looked()
    with tw.open(tmp_path / "a.tw", lambda twin: None, clock=clock) as twin:
        host = host_of(twin)
        host._pace = Pace(clock, factor)
        host._pace.start(0)
        inbox: queue.SimpleQueue[Any] = host._inbox
        for _ in range(5):
            inbox.put(gates.Local(()))
        host._take_all()
        assert inbox.qsize() == left
        while inbox.qsize():
            host._take_all()


@pytest.mark.parametrize("factor", [1.0, 0.0])
def test_the_collector_spares_what_was_there_before_a_run(tmp_path: Path, factor: float) -> None:
    """As long as it runs, and also if it ends with an error."""
    frozen: list[int] = []

    def build(twin: tw.Twin) -> None:
        def act() -> Any:
            frozen.append(gc.get_freeze_count())
            yield twin.env.timeout(0.5)
            raise RuntimeError("broken")

        twin.process(act())

    assert gc.get_freeze_count() == 0
    with (
        tw.open(tmp_path / "a.tw", build, clock=ManualClock(), factor=factor) as twin,
        pytest.raises(tw.errors.ModelError),
    ):
        twin.run(until=1)
    assert frozen[0] > 0
    assert gc.get_freeze_count() == 0


def test_what_a_program_has_frozen_itself_stays_frozen(tmp_path: Path) -> None:
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        with tw.open(tmp_path / "a.tw", lambda twin: None, clock=ManualClock(), factor=1.0) as twin:
            twin.run(until=1)
        assert gc.get_freeze_count() >= count - 100  # of these some have gone by themselves
    finally:
        gc.unfreeze()
