"""What goes wrong between two runs, and what comes there: nothing is passed over, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect import Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import OperatorError, StoreFull
from tidewarp.observe import SilentProbe
from tidewarp.store.journal import SqliteJournal
from tidewarp.testing import ManualClock
from tidewarp.twin import journal_rows

EPOCH = "1970-01-01T00:00:00Z"


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The journal's file takes nothing meanwhile."""

    def refuse(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(SqliteJournal, "_transact", refuse)
        yield


class Parts(Source):
    """Messages in parts, (offset, time in s or None) each; a part behind ``held`` comes when the test says so."""

    name = kind = "parts"

    def __init__(self, *parts: Sequence[tuple[int, float | None]], held: int, clock: str = "data") -> None:
        self.parts, self.held, self.clock = parts, held, clock
        self.comes, self.is_asked = threading.Event(), threading.Event()
        self.given = 0

    async def open(self, positions: Mapping[int, int]) -> None:
        last = positions.get(0, -1)
        self.given = next((n for n, part in enumerate(self.parts) if part[-1][0] > last), len(self.parts))

    def decoder(self, epoch_ns: int) -> JsonMessages:
        return JsonMessages(epoch_ns)

    async def read(self, limit: int) -> list[Raw] | None:
        if self.given == self.held:
            self.is_asked.set()
            while not self.comes.is_set():
                await asyncio.sleep(0.001)
        if self.given == len(self.parts):
            return None
        part = self.parts[self.given]
        self.given += 1
        return [Raw(0, offset, json.dumps(self.payload(offset, time)).encode()) for offset, time in part]

    def payload(self, offset: int, time: float | None) -> dict[str, Any]:
        said = {} if time is None else {"time": time}
        return {"path": "a.level", "value": float(offset), **said}


def model(source: Source | None = None, high: float = 100.0, **policy: Any) -> Any:
    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", float, 0.0, high=high)
        twin.variable("a.other", float, 0.0)

        def tick() -> Any:
            while True:
                yield twin.env.timeout(1.0)

        twin.process(tick())
        if source is not None:
            twin.connect(source, **policy)

    return build


def wait_for_a_message(twin: tw.Twin) -> None:
    assert twin._host is not None
    pause = threading.Event()
    for _ in range(3_000):
        if not twin._host._inbox.empty():
            return
        pause.wait(0.01)
    pytest.fail("no message came")


@pytest.mark.parametrize("host", ["inline", "forked"])
def test_what_a_full_disk_does_not_take_ends_the_twin_and_it_can_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """An update that is not in the journal is nowhere: nothing waits for it, and the next life is that of the journal."""
    path = tmp_path / "a.tw"
    with tw.open(path, model(), host=host) as twin:
        before = twin.run(until=5)
        with full_disk(monkeypatch), pytest.raises(StoreFull):
            twin.apply("a.level", 7)
        for use in (lambda: twin.apply("a.level", 8), lambda: twin.run(until=6)):
            with pytest.raises(OperatorError, match="ended with an error"):
                use()
    with tw.open(path, model(), host=host) as twin:
        assert twin.digest() == before.digest
        twin.apply("a.level", 8)
        last = twin.run(until=6)
    assert tw.replay(path, model()).digest == last.digest


def test_what_a_full_disk_does_not_take_of_a_redrive_is_driven_in_the_next_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above; and the letter is one still."""
    path = tmp_path / "a.tw"
    source = Parts([(1, 1.0), (7, 2.0)], held=9)
    with tw.open(path, model(source, high=5.0), epoch=EPOCH) as twin:
        assert twin.run().dead_letters == 1
    with tw.open(path, model(source), accept_model=True) as twin:
        with full_disk(monkeypatch), pytest.raises(StoreFull):
            twin.redrive("parts")
        with pytest.raises(OperatorError, match="ended with an error"):
            twin.run()
    with tw.open(path, model(source), accept_model=True) as twin:
        assert twin.redrive("parts").done == 1
        twin.run()
    assert [row["offset"] for row in journal_rows(path, kind="input")] == [1, 7]


def test_an_error_of_a_source_that_an_update_meets_passes_nothing_over(tmp_path: Path) -> None:
    """What came with the message that is too late is in no journal yet: the next life has to read it again."""
    path = tmp_path / "a.tw"
    source = Parts([(0, 1.0), (1, 3.0)], [(2, 5.0), (3, 2.0)], [(4, 8.0)], held=1)
    with tw.open(path, model(source, late="stop"), epoch=EPOCH) as twin:
        twin.run(until=2)
        source.comes.set()
        wait_for_a_message(twin)
        with pytest.raises(OperatorError, match=r"message 3: event time 2\.000 s"):
            twin.apply("a.other", 1.0)
        with pytest.raises(OperatorError, match="ended with an error"):
            twin.run()
    with (
        tw.open(path, model(source, late="stop")) as twin,
        pytest.raises(OperatorError, match=r"message 3: event time 2\.000 s"),
    ):
        twin.run()
    assert [row["offset"] for row in journal_rows(path, source="parts") if row["kind"] == "input"] == [0, 1]


class Awaiting(SilentProbe):
    """Holds a run behind its first second until its source is asked for what is held."""

    def __init__(self, source: Parts) -> None:
        self.source = source
        self.twin: tw.Twin | None = None

    def progress(self, done: float, total: float | None) -> None:
        pause = threading.Event()
        for _ in range(3_000):
            if done < 1 or self.twin is None or self.source.is_asked.is_set():
                return
            assert self.twin._host is not None
            self.twin._host._take_all()  # that it is connected: the clock does not wait for it
            pause.wait(0.01)
        pytest.fail("the source was not asked")


@pytest.mark.parametrize(("catch_up", "tick_s"), [("pause", 10.0), ("fast", 3_610.0)])
def test_a_message_between_two_runs_comes_when_time_says(tmp_path: Path, catch_up: str, tick_s: float) -> None:
    """Where the time between two runs does not count, it has not passed for messages either."""
    clock = ManualClock()
    source = Parts([(0, None)], [(1, None)], held=0, clock="wall")
    probe = Awaiting(source)
    with tw.open(
        tmp_path / "a.tw", model(source), factor=1.0, clock=clock, catch_up=catch_up, epoch=EPOCH, probe=probe
    ) as twin:
        probe.twin = twin
        twin.run(until=10)
        clock.advance(3_600)
        source.comes.set()
        wait_for_a_message(twin)
        twin.run(until=3_620)
    first, *_ = (row for row in journal_rows(tmp_path / "a.tw") if row["kind"] == "input")
    assert (first["offset"], first["tick"] / 1e9) == (0, tick_s)
