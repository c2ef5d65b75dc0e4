"""Late inputs are put in their place: whatever the order of arrival, the run is that of the inputs in order of event time."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tidewarp as tw
from tidewarp.connect import Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.observe import SilentProbe
from tidewarp.twin import Build, Summary, host, output_commit, snapshots, verify
from tidewarp.twin.output_commit import OutputCommit

S = 10**9
Messages = Sequence[tuple[int, int, float]]  # partition, event time in s, value


class Broker(Source):
    """Messages in the order of their list, ``step`` at a time, each with the offset that its partition gives it."""

    name = "broker"
    kind = "broker"

    def __init__(self, messages: Messages, step: int = 3, clock: str = "data") -> None:
        self.clock = clock
        self.step = step
        counts: Counter[int] = Counter()
        self.raws = []
        for partition, at, value in messages:
            payload = json.dumps({"path": "line.level", "value": value, "time": at}).encode()
            self.raws.append(Raw(partition, counts[partition], payload))
            counts[partition] += 1
        self.left: list[Raw] = []

    async def open(self, positions: Mapping[int, int]) -> None:
        self.left = [raw for raw in self.raws if raw.offset > positions.get(raw.partition, -1)]

    def decoder(self, epoch_ns: int) -> JsonMessages:
        return JsonMessages(epoch_ns)

    async def read(self, limit: int) -> list[Raw] | None:
        count = min(self.step, limit)
        raws, self.left = self.left[:count], self.left[count:]
        return raws or None


def model(source: Source, folder: Path, tick_s: float = 2, **policy: Any) -> Build:
    """It publishes each change and a tick every ``tick_s``, and draws random numbers: its outputs tell every order apart."""

    def build(twin: tw.Twin) -> None:
        level = twin.variable("line.level", float)

        def follow() -> Any:
            changes = level.changes()
            while True:
                change = yield changes.next()
                twin.publish_event("level", [twin.tick, change.new, twin.stream("draws").random()])

        def tick() -> Any:
            while True:
                yield twin.env.timeout(tick_s)
                twin.publish_event("tick", [level.value, twin.stream("draws").random()])

        twin.process(follow())
        twin.process(tick())
        twin.connect(source, **policy)
        twin.sink(tw.sinks.jsonl(folder / "outputs.jsonl"))

    return build


HOSTS = ("inline", "forked")


def live(folder: Path, source: Source, at: str = "inline", **policy: Any) -> Summary:
    folder.mkdir(parents=True)
    with tw.open(folder / "a.tw", model(source, folder, **policy), epoch="1970-01-01T00:00:00Z", host=at) as twin:
        return twin.run()


def told(folder: Path) -> list[Any]:
    lines = [json.loads(line) for line in (folder / "outputs.jsonl").read_text().splitlines()]
    return [(line["id"], line["key"], line["value"]) for line in lines]


def in_order(messages: Messages) -> list[tuple[int, int, float]]:
    """Each partition keeps the order of its offsets among equal times, as the key has it."""
    return sorted(messages, key=lambda one: (one[1], one[0]))


def distinct(messages: Messages) -> list[tuple[int, int, float]]:
    """Without equal times in one partition: their order is that of their offsets, which shuffling changes."""
    found: dict[tuple[int, int], tuple[int, int, float]] = {}
    for one in messages:
        found.setdefault((one[0], one[1]), one)
    return list(found.values())


MESSAGES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 60), st.sampled_from([1.0, 2.0, 3.0])), min_size=1, max_size=25
).map(distinct)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(messages=MESSAGES, seed=st.integers(0, 2**16), step=st.integers(1, 6), at=st.sampled_from(HOSTS))
def test_four_partitions_in_any_order_are_one_run(
    tmp_path_factory: pytest.TempPathFactory, messages: Messages, seed: int, step: int, at: str
) -> None:
    """State, outputs and every id are those of the run in order; nothing is told twice or otherwise, and it replays."""
    folder = tmp_path_factory.mktemp("repair")
    expected = live(folder / "ordered", Broker(in_order(messages), step), late="repair", horizon=100)
    shuffled = list(messages)
    random.Random(seed).shuffle(shuffled)
    found = live(folder / "shuffled", Broker(shuffled, step), at, late="repair", horizon=100)
    assert told(folder / "shuffled") == told(folder / "ordered")
    assert (found.outputs, found.inputs, found.events) == (expected.outputs, expected.inputs, expected.events)
    assert found.clamped == found.dropped == 0
    again = tw.replay(folder / "shuffled" / "a.tw", model(Broker(()), folder, late="repair", horizon=100))
    assert (again.equal, again.digest) == (True, found.digest)
    assert verify(folder / "shuffled" / "a.tw").digest == found.digest


@pytest.mark.parametrize("at", HOSTS)
def test_a_late_input_changes_what_came_after_it_and_nothing_that_has_left(tmp_path: Path, at: str) -> None:
    """The last of six comes when the clock is 20 s past it: everything behind it is told once, as if it had been in time."""
    messages = [(0, at, float(at)) for at in (0, 10, 20, 30, 40)]
    late = [*messages, (0, 18, 99.0)]
    passed = threading.Event()

    class Patient(Broker):
        async def read(self, limit: int) -> list[Raw] | None:
            if len(self.left) == 1:
                await asyncio.to_thread(passed.wait)
            return await super().read(limit)

    class Watch(SilentProbe):
        def progress(self, done: float, total: float | None) -> None:
            if done >= 39:
                passed.set()

    build = model(Patient(late, 1), tmp_path, late="repair", horizon=60)
    with tw.open(tmp_path / "a.tw", build, epoch="1970-01-01T00:00:00Z", host=at, probe=Watch()) as twin:
        found = twin.run()
    assert (found.late, found.repaired, found.repairs, found.clamped) == (1, 1, 1, 0)
    live(tmp_path / "ordered", Broker(in_order(late), 1), late="repair", horizon=60)
    assert told(tmp_path) == told(tmp_path / "ordered")
    assert tw.replay(tmp_path / "a.tw", build).equal


@pytest.mark.parametrize(("beyond", "counted"), [("clamp", "clamped"), ("drop", "dropped")])
def test_beyond_the_horizon_the_policy_decides(tmp_path: Path, beyond: str, counted: str) -> None:
    """60 s late and a horizon of 10 s: counted, not repaired, and replayed to the same digest."""
    messages = [(0, 0, 1.0), (0, 100, 2.0), (0, 40, 3.0)]
    found = live(tmp_path / "a", Broker(messages, 1), late="repair", horizon=10, beyond=beyond)
    assert (found.repaired, found.late, getattr(found, counted)) == (0, 1, 1)
    again = tw.replay(tmp_path / "a" / "a.tw", model(Broker(()), tmp_path, late="repair", horizon=10, beyond=beyond))
    assert (again.equal, again.digest) == (True, found.digest)


@pytest.mark.parametrize("at", HOSTS)
@pytest.mark.parametrize("seed", range(8))
def test_a_repair_between_the_journal_and_the_release_loses_no_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int, at: str
) -> None:
    """GVT is in the journal, the outputs below it have not left yet, and then a late input makes the run anew."""
    draw, settle = random.Random(seed), OutputCommit.settle
    monkeypatch.setattr(output_commit, "_TELL_S", 0.0)
    monkeypatch.setattr(OutputCommit, "settle", lambda *to, **how: settle(*to, **how) if draw.random() < 0.3 else None)
    monkeypatch.setattr(host, "EVENTS_PER_STEP", draw.choice([1, 2, 20_000]))
    monkeypatch.setattr(snapshots, "_SHARE", draw.choice([0, 3]))
    monkeypatch.setattr(snapshots, "SNAPSHOTS_MAX", draw.choice([1, 2, 12]))
    times = [(at + draw.choice([0, 0, 12]), at) for at in range(0, 200, 2)]
    messages = [(0, at, float(at % 5)) for _, at in sorted(times)]
    found = live(tmp_path / "late", Broker(messages, 1), at, late="repair", horizon=15)
    monkeypatch.undo()
    live(tmp_path / "ordered", Broker(in_order(messages), 1), late="repair", horizon=15)
    assert found.late > 0
    assert found.clamped == 0
    assert told(tmp_path / "late") == told(tmp_path / "ordered")


@pytest.mark.parametrize("at", HOSTS)
@pytest.mark.parametrize("cut", range(1, 7))
def test_a_run_that_is_opened_again_goes_on_where_it_was(tmp_path: Path, cut: int, at: str) -> None:
    """Cut off without a stop after any message, late ones before and behind the cut: the digest of one run in order."""
    messages = [(0, 0, 1.0), (1, 3, 2.0), (0, 30, 3.0), (1, 12, 4.0), (0, 20, 5.0), (1, 50, 6.0), (0, 10, 7.0)]

    class Dies(Exception):
        pass

    class Fragile(Broker):
        async def read(self, limit: int) -> list[Raw] | None:
            raws = await super().read(1)
            if raws and self.raws.index(raws[0]) == cut:
                raise Dies
            return raws

    expected = live(tmp_path / "ordered", Broker(in_order(messages)), late="repair", horizon=100)
    folder = tmp_path / "cut"
    with pytest.raises(tw.TidewarpError, match="Dies"):
        live(folder, Fragile(messages), at, late="repair", horizon=100)
    build = model(Broker(messages, 2), folder, late="repair", horizon=100)
    with tw.open(folder / "a.tw", build, host=at) as twin:
        found = twin.run()
    assert found.resumed
    assert (found.outputs, told(folder)) == (expected.outputs, told(tmp_path / "ordered"))
    assert tw.replay(folder / "a.tw", build).equal
