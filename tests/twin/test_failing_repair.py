"""A model that raises where late inputs are: what leaves, and what the journal says, is that of the inputs in order."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_repair import HOSTS, Broker, Messages, in_order, model, told

import tidewarp as tw
from tidewarp.connect import Raw
from tidewarp.errors import ModelError
from tidewarp.observe import SILENT, SilentProbe
from tidewarp.twin import admissions, forked, host, journal_rows, replay
from tidewarp.units import TICK_MAX

S = 10**9
EPOCH = "1970-01-01T00:00:00Z"
JAM = 7.0

hosts = pytest.mark.parametrize(
    "at",
    [
        pytest.param(
            at,
            marks=pytest.mark.skipif(
                at == "forked" and not hasattr(os, "fork"), reason="needs os.fork: run it on Linux or macOS"
            ),
        )
        for at in HOSTS
    ],
)


class Late(Broker):
    """All at once but the last, which is late and comes when the run has come to ``due_s``."""

    def __init__(self, messages: Messages, due_s: float) -> None:
        super().__init__(messages, len(messages) - 1)
        self.due_s = due_s
        self.is_due = threading.Event()

    async def read(self, limit: int) -> list[Raw] | None:
        if len(self.left) == 1:
            await asyncio.to_thread(self.is_due.wait, 20)  # then the test fails by what it finds
        return await super().read(limit)


class Watch(SilentProbe):
    """Holds the run at ``due_s`` until the late message has come."""

    def __init__(self, source: Late) -> None:
        self.source = source
        self.twin: tw.Twin | None = None

    def progress(self, done: float, total: float | None) -> None:
        if self.twin is not None and done >= self.source.due_s and not self.source.is_due.is_set():
            self.source.is_due.set()
            assert self.twin._host is not None
            inbox, pause = self.twin._host._inbox, threading.Event()
            for _ in range(2_000):
                if not inbox.empty():
                    return
                pause.wait(0.01)
            pytest.fail("the late message has not come")


def run(folder: Path, source: Broker, at: str, wire: Callable[[tw.Twin], None], **policy: Any) -> tw.Summary:
    folder.mkdir()
    watch = Watch(source) if isinstance(source, Late) else None
    options = {"late": "repair", "horizon": 1_000, **policy}
    with tw.open(
        folder / "a.tw", wired(source, folder, wire, **options), epoch=EPOCH, host=at, probe=watch or SILENT
    ) as twin:
        if watch is not None:
            watch.twin = twin
        return twin.run()


def wired(source: Broker, folder: Path, wire: Callable[[tw.Twin], None], **policy: Any) -> Callable[[tw.Twin], None]:
    plain = model(source, folder, **policy)

    def build(twin: tw.Twin) -> None:
        plain(twin)
        wire(twin)

    return build


def jams(twin: tw.Twin) -> None:
    """It raises when the level is JAM."""
    level = twin.registry.get("line.level")

    def watch() -> Any:
        while True:
            change = yield level.wait_for_change()
            if change.new == JAM:
                raise RuntimeError("jammed")

    twin.process(watch())


def needs_it(twin: tw.Twin, at_s: float = 15) -> None:
    """It raises at ``at_s`` unless the level was JAM before."""
    level = twin.registry.get("line.level")
    seen = [twin.env.now]

    def watch() -> Any:
        while (yield level.wait_for_change()).new != JAM:
            pass
        seen.append(twin.env.now)

    def check() -> Any:
        yield twin.env.timeout(at_s)
        if len(seen) < 2:
            raise RuntimeError("it never came")

    twin.process(watch())
    twin.process(check())


def stops(folder: Path) -> list[tuple[str, float, str]]:
    return [(row["reason"], row["time_s"], row["detail"]) for row in journal_rows(folder / "a.tw", kind="stop")]


@hosts
def test_a_model_that_raises_in_a_repair_has_delivered_what_came_before(tmp_path: Path, at: str) -> None:
    """As it does where the inputs come in order, and the journal ends with the same stop; resuming repeats it."""
    messages = [*((0, s, 1.0 + s % 3) for s in range(0, 21, 2)), (1, 9, JAM)]
    for folder, source in (
        ("order", Broker(in_order(messages))),
        ("late", Late(messages, 15.0)),
    ):
        with pytest.raises(ModelError, match="jammed"):
            run(tmp_path / folder, source, at, jams)
    assert told(tmp_path / "late") == told(tmp_path / "order")
    assert stops(tmp_path / "late") == stops(tmp_path / "order")
    assert [(reason, time_s) for reason, time_s, _ in stops(tmp_path / "late")] == [("model", 9.0)]
    build = wired(Late(messages, 15.0), tmp_path / "late", jams, late="repair", horizon=1_000)
    with tw.open(tmp_path / "late" / "a.tw", build, host=at) as twin, pytest.raises(ModelError, match="jammed"):
        twin.run()
    assert told(tmp_path / "late") == told(tmp_path / "order")


@hosts
def test_a_late_input_on_its_way_to_the_journal_may_avert_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: str
) -> None:
    """The model raises while its journal is slow: what the journal then holds is what the run is, in this life too."""
    messages = [*((0, s, 1.0 + s % 3) for s in range(0, 21, 2)), (1, 9, JAM)]
    wire = partial(needs_it, at_s=15)
    ordered = run(tmp_path / "order", Broker(in_order(messages)), at, wire)
    held: list[Callable[[], None]] = []
    submit, give_up = admissions.Admissions.submit, host.Host._give_up

    def slowly(self: admissions.Admissions, batch: Any, heard_s: float) -> None:
        if any(one.event_tick == 9 * S for one in batch.inputs):
            held.append(partial(submit, self, batch, heard_s))
        else:
            submit(self, batch, heard_s)

    def given_up(self: host.Host, error: ModelError) -> None:
        assert len(held) == 1
        held.pop()()
        give_up(self, error)

    monkeypatch.setattr(admissions.Admissions, "submit", slowly)
    monkeypatch.setattr(host.Host, "_give_up", given_up)
    monkeypatch.setattr(host, "EVENTS_PER_STEP", 1)
    monkeypatch.setattr(forked, "_SLICE_EVENTS", 1)
    found = run(tmp_path / "late", Late(messages, 11.0), at, wire)
    assert found.repairs == 1
    assert not held
    assert (found.digest, found.outputs) == (ordered.digest, ordered.outputs)
    assert told(tmp_path / "late") == told(tmp_path / "order")
    build = wired(Late(messages, 11.0), tmp_path / "late", wire, late="repair", horizon=1_000)
    assert replay(tmp_path / "late" / "a.tw", build).digest == found.digest


class TwoLate(Late):
    """The last two are late, and come one by one."""

    async def read(self, limit: int) -> list[Raw] | None:
        if len(self.left) == len(self.raws):
            raws, self.left = self.left[:-2], self.left[-2:]
            return raws
        await asyncio.to_thread(self.is_due.wait, 20)
        raws, self.left = self.left[:1], self.left[1:]
        return raws or None


def bears_it(twin: tw.Twin) -> None:
    """It raises behind 12 s if the level was 5, unless it was JAM as well."""
    level = twin.registry.get("line.level")
    seen = set[float]()

    def watch() -> Any:
        while True:
            seen.add((yield level.wait_for_change()).new)

    def check() -> Any:
        while True:
            yield twin.env.timeout(0.5)
            if twin.env.now > 12 and 5.0 in seen and JAM not in seen:
                raise RuntimeError("unbearable")

    twin.process(watch())
    twin.process(check())


@hosts
def test_a_late_input_may_avert_what_another_one_brought_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: str
) -> None:
    """The model raises in a repair while a second late input is on its way; the run comes to its end, which was granted before."""
    messages = [*((0, s, 1.0 + s % 3) for s in range(0, 21, 2)), (1, 9, 5.0), (2, 7, JAM)]
    held: list[Callable[[], None]] = []
    heard: list[Callable[[], None]] = []
    submit, repair, give_up = admissions.Admissions.submit, host.Host._repair, host.Host._give_up

    def one_after_the_other(self: admissions.Admissions, batch: Any, heard_s: float) -> None:
        partition = max((one.partition for one in batch.inputs), default=0)
        if partition == 2 and is_late:
            held.append(partial(submit, self, batch, heard_s))
            return
        submit(self, batch, heard_s)
        pause = threading.Event()
        while partition == 1 and is_late and self._inbox.empty():  # the run stands until it is durable
            pause.wait(0.001)

    def with_the_other_one_heard(self: host.Host) -> None:
        while self._repair_from < TICK_MAX and not heard:
            self._wait(None)
            heard.extend(held)
        repair(self)

    def given_up(self: host.Host, error: ModelError) -> None:
        if held:
            held.pop()()
        give_up(self, error)

    monkeypatch.setattr(admissions.Admissions, "submit", one_after_the_other)
    monkeypatch.setattr(host.Host, "_repair", with_the_other_one_heard)
    monkeypatch.setattr(host.Host, "_give_up", given_up)
    monkeypatch.setattr(host, "EVENTS_PER_STEP", 1)
    monkeypatch.setattr(forked, "_SLICE_EVENTS", 1)
    found = {}
    for folder, source in (("order", Broker(in_order(messages))), ("late", TwoLate(messages, 13.0))):
        (tmp_path / folder).mkdir()
        is_late = isinstance(source, Late)
        watch = Watch(source) if isinstance(source, Late) else None
        build = wired(source, tmp_path / folder, bears_it, late="repair", horizon=1_000)
        with tw.open(tmp_path / folder / "a.tw", build, epoch=EPOCH, host=at, probe=watch or SILENT) as twin:
            if watch is not None:
                watch.twin = twin
            found[folder] = twin.run(until=20)
    assert not held
    assert found["late"].repairs == 2
    assert (found["late"].digest, found["late"].virtual_time_s) == (found["order"].digest, 20.0)
    assert told(tmp_path / "late") == told(tmp_path / "order")
