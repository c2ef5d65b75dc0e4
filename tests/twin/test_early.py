"""Sinks with release="early": told at once, corrected after a repair, and right whoever reads their records in order."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import test_standby
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cuts import shop
from test_repair import HOSTS, MESSAGES, Broker, Messages, model

import tidewarp as tw
from tidewarp.connect import Output, Refused, RunIdentity, Sink, Source
from tidewarp.connect.payload import event_payload
from tidewarp.errors import OperatorError
from tidewarp.observe import SilentProbe
from tidewarp.twin import Build, Summary, host, journal_rows, output_commit, snapshots, standby
from tidewarp.twin.early import Early, complete_below
from tidewarp.twin.output_commit import OutputCommit
from tidewarp.twin.redeliver import redeliver

Record = dict[str, Any]


class Told(Sink):
    """Keeps what it is told over the lives of a twin; ``knows``: and says so, and drops what it has."""

    kind = "told"

    def __init__(self, knows: bool = True, name: str = "told") -> None:
        self.name = name
        self.knows = knows
        self.delivery = "once" if knows else "at_least_once"
        self.records: list[Record] = []
        self.is_down = False  # when it is opened next
        self.run = RunIdentity("", 0)

    async def open(self, run: RunIdentity) -> str | None:
        self.run = run
        if self.is_down:
            self.is_down = False
            raise ConnectionError("down")
        return (self.records[-1]["id"] if self.records else "") if self.knows else None

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        last = self.records[-1]["id"] if self.records and self.knows else ""
        self.records += [event_payload(output, self.run) for output in batch if output.id > last]
        return []


def build_with(source: Source, folder: Path, *early: Sink, **policy: Any) -> Build:
    final = model(source, folder, **policy)

    def build(twin: tw.Twin) -> None:
        final(twin)
        for sink in early:
            twin.sink(sink, release="early", retry=(0.001, 0.001))

    return build


def live(folder: Path, source: Source, at: str, *early: Sink, **policy: Any) -> Summary:
    folder.mkdir(parents=True, exist_ok=True)
    build = build_with(source, folder, *early, **policy)
    with tw.open(folder / "a.tw", build, epoch="1970-01-01T00:00:00Z", host=at) as twin:
        return twin.run()


SHOWN = ("tick", "stream_type", "key", "value", "cause", "root")


def final_table(folder: Path) -> dict[str, list[Any]]:
    records = [json.loads(line) for line in (folder / "outputs.jsonl").read_text().splitlines()]
    assert not any("provisional" in record for record in records)
    return {record["id"]: [record[name] for name in SHOWN] for record in records}


def table_of(records: Sequence[Record]) -> dict[str, list[Any]]:
    """As a consumer keeps it. No retraction is without its record; no two outputs that differ have one id."""
    table: dict[str, Record] = {}
    ever: dict[str, Any] = {}
    for record in records:
        assert record["provisional"] is True
        if "retracts" in record:
            assert record["retracts"] in table
            del table[record["retracts"]]
        elif "retracts_from" in record:
            table = {
                name: one
                for name, one in table.items()
                if one["tick"] < record["retracts_from"] or one["stream_type"] != record["stream_type"]
            }
        else:
            shown = [record[name] for name in SHOWN]
            assert ever.setdefault(record["output"], shown) == shown
            table[record["output"]] = record
    assert len({name.split("~")[0] for name in table}) == len(table)
    return {name.split("~")[0]: [one[field] for field in SHOWN] for name, one in sorted(table.items())}


def ascend(records: Sequence[Record]) -> bool:
    ids = [record["id"] for record in records]
    return ids == sorted(set(ids))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(messages=MESSAGES, seed=st.integers(0, 2**16), step=st.integers(1, 6), at=st.sampled_from(HOSTS))
def test_its_records_applied_in_order_are_what_the_final_sink_holds(
    tmp_path_factory: pytest.TempPathFactory, messages: Messages, seed: int, step: int, at: str
) -> None:
    """For any order of arrival, inline and forked; and the digest is that of a run without an early sink."""
    folder = tmp_path_factory.mktemp("early")
    shuffled = list(messages)
    random.Random(seed).shuffle(shuffled)
    early = Told()
    found = live(folder, Broker(shuffled, step), at, early, late="repair", horizon=100)
    alone = live(folder / "alone", Broker(shuffled, step), at, late="repair", horizon=100)
    assert table_of(early.records) == final_table(folder) == final_table(folder / "alone")
    assert ascend(early.records)
    assert found.digest == alone.digest


@pytest.mark.parametrize("at", HOSTS)
@pytest.mark.parametrize("seed", range(8))
def test_it_is_right_at_whatever_moment_outputs_leave(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int, at: str
) -> None:
    """Repairs between the journal and the release of GVT, in the middle of instants, and from few snapshots."""
    draw, settle = random.Random(seed), OutputCommit.settle
    monkeypatch.setattr(output_commit, "_TELL_S", 0.0)
    monkeypatch.setattr(OutputCommit, "settle", lambda *to, **how: settle(*to, **how) if draw.random() < 0.3 else None)
    monkeypatch.setattr(host, "EVENTS_PER_STEP", draw.choice([1, 2, 20_000]))
    monkeypatch.setattr(snapshots, "_SHARE", draw.choice([0, 3]))
    times = [(at + draw.choice([0, 0, 12]), at) for at in range(0, 120, 2)]
    messages = [(0, at, float(at % 5)) for _, at in sorted(times)]
    early = Told()
    found = live(tmp_path, Broker(messages, 1), at, early, late="repair", horizon=15)
    assert found.late > 0
    assert table_of(early.records) == final_table(tmp_path)
    assert ascend(early.records)


class Patient(Broker):
    """The last message comes when the clock is far past it."""

    def __init__(self, messages: Messages) -> None:
        super().__init__(messages, 1)
        self.passed = threading.Event()

    async def read(self, limit: int) -> Any:
        if len(self.left) == 1:
            assert await asyncio.to_thread(self.passed.wait, 60), "nothing was told before the horizon"
        return await super().read(limit)


def test_lives_that_tell_and_journal_nothing_are_numbered_too(tmp_path: Path) -> None:
    """Opened and closed, again and again, with an output that may still change: no record has the id of another."""
    early = Told()
    messages = [(0, at, float(at)) for at in (0, 10, 20)]
    live(tmp_path, Broker(messages, 1), "inline", early, late="repair", horizon=1_000)
    build = build_with(Broker(messages, 1), tmp_path, early, late="repair", horizon=1_000)
    for _ in range(3):
        with tw.open(tmp_path / "a.tw", build, epoch="1970-01-01T00:00:00Z", host="inline"):
            pass
    ids = [record["id"] for record in early.records]
    assert ids == sorted(set(ids))
    told = [record["output"] for record in early.records if "output" in record]
    assert len(told) == len(set(told))


@pytest.mark.parametrize("at", HOSTS)
def test_only_what_a_repair_changes_is_told_again(tmp_path: Path, at: str) -> None:
    """Retractions first, with the numbers under which things were told, then what takes their place with the next number."""
    source, early = Patient([(0, at, float(at)) for at in (0, 10, 20, 30, 40, 18)]), Told()

    class Watch(SilentProbe):
        def progress(self, done: float, total: float | None) -> None:
            if done >= 39:
                source.passed.set()

    build = build_with(source, tmp_path, early, late="repair", horizon=60)
    with tw.open(tmp_path / "a.tw", build, epoch="1970-01-01T00:00:00Z", host=at, probe=Watch()) as twin:
        assert twin.run().repairs == 1
    kinds = ["retracts" if "retracts" in one else one["output"][-1] for one in early.records]
    first, retracted = kinds.index("retracts"), kinds.count("retracts")
    assert kinds == ["0"] * first + ["retracts"] * retracted + ["1"] * (len(kinds) - first - retracted)
    changed = [one for one in early.records if "retracts" in one]
    assert {one["retracts"][-2:] for one in changed} == {"~0"}
    assert min(one["tick"] for one in early.records if one.get("output", "").endswith("~1")) >= 18 * 10**9
    assert min(one["tick"] for one in changed) >= 18 * 10**9
    told = {one["output"]: one for one in early.records if "output" in one}
    assert all({**told[one["retracts"]], "id": "", "output": ""} == _but_retracted(one) for one in changed)
    assert table_of(early.records) == final_table(tmp_path)


def _but_retracted(record: Record) -> Record:
    return {**{name: value for name, value in record.items() if name != "retracts"}, "id": "", "output": ""}


@pytest.mark.parametrize("at", HOSTS)
def test_it_waits_for_no_horizon(tmp_path: Path, at: str) -> None:
    """What happened at the beginning is told before the source has brought what the horizon would wait for."""
    source, early = Patient([(0, 0, 1.0), (0, 10, 2.0), (0, 12, 3.0)]), Told()
    write = early.write

    async def heard(batch: Sequence[Output]) -> list[Refused]:
        refused = await write(batch)
        source.passed.set()  # else the source waits for ever
        return refused

    early.write = heard  # type: ignore[method-assign]
    live(tmp_path, source, at, early, late="repair", horizon="1 h")
    assert table_of(early.records) == final_table(tmp_path)


def test_without_repairs_it_is_the_final_sink_but_for_the_mark(tmp_path: Path) -> None:
    """One record for each output, in order, with number 0, and nothing else."""
    early = Told()
    live(tmp_path, Broker([(0, at, 1.0) for at in range(30)]), "inline", early)
    assert [one["output"] for one in early.records] == [f"{name}~0" for name in final_table(tmp_path)]
    assert table_of(early.records) == final_table(tmp_path)


class Dies(Exception):
    pass


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("at", HOSTS)
@pytest.mark.parametrize("cut", range(1, 7))
def test_after_a_crash_the_next_life_puts_it_right(tmp_path: Path, cut: int, at: str, knows: bool) -> None:
    """Cut off after any message, late ones before and behind the cut, with a sink that knows what it holds and one that does not."""
    messages = [(0, 0, 1.0), (1, 3, 2.0), (0, 30, 3.0), (1, 12, 4.0), (0, 20, 5.0), (1, 50, 6.0), (0, 10, 7.0)]

    class Fragile(Broker):
        async def read(self, limit: int) -> Any:
            raws = await super().read(1)
            if raws and self.raws.index(raws[0]) == cut:
                raise Dies
            return raws

    early = Told(knows)
    with pytest.raises(tw.TidewarpError, match="Dies"):
        live(tmp_path, Fragile(messages), at, early, late="repair", horizon=100)
    live(tmp_path, Broker(messages, 2), at, early, late="repair", horizon=100)
    assert table_of(early.records) == final_table(tmp_path)
    assert ascend(early.records)


@pytest.mark.parametrize("seed", range(12))
def test_many_lives_with_repairs_and_a_sink_that_is_often_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    """Lives that are cut off, in which the sink has lost a part of what it held, or is down when they begin."""
    draw = random.Random(seed)
    monkeypatch.setattr(output_commit, "_TELL_S", 0.0)
    times = [(at + draw.choice([0, 0, 12]), at) for at in range(0, 160, 2)]
    messages = [(0, at, float(at % 5)) for _, at in sorted(times)]
    early = Told()
    reach = 0
    for life in range(4):
        reach += draw.randrange(1, 19)

        class Fragile(Broker):
            async def read(self, limit: int, stop: int = reach) -> Any:
                raws = await super().read(1)
                if raws and self.raws.index(raws[0]) >= stop:
                    raise Dies
                return raws

        with pytest.raises(tw.TidewarpError, match="Dies"):
            live(tmp_path, Fragile(messages), HOSTS[life % 2], early, late="repair", horizon=15)
        early.is_down = draw.random() < 0.5  # then what it had acknowledged counts
        if not early.is_down:
            del early.records[draw.randrange(len(early.records) + 1) :]
    live(tmp_path, Broker(messages, 1), "inline", early, late="repair", horizon=15)
    assert table_of(early.records) == final_table(tmp_path)
    assert ascend(early.records)
    gvt = complete_below(early.records[-1]["id"])
    assert int(gvt, 16) > 0


@pytest.mark.parametrize("at", HOSTS)
def test_a_recovery_from_a_cut_has_what_it_lacks(tmp_path: Path, at: str) -> None:
    """A life begins at the last cut that the sink has passed for good, and not behind it."""
    early, log = Told(), list[str]()

    def build(twin: tw.Twin) -> None:
        shop(sink=tmp_path / "outputs.jsonl", until=80, host_log=log)(twin)
        twin.sink(early, release="early")

    for end, kept in ((30, 10_000), (60, 150), (80, 10_000)):
        log.clear()
        with tw.open(tmp_path / "a.tw", build, host=at) as twin:
            if end == 60 and at == "inline":  # else it is built elsewhere
                last = [row["tick"] for row in journal_rows(tmp_path / "a.tw", kind="checkpoint")][-1]
                assert float(log[1].removeprefix("built at ")) == pytest.approx(last / 1e9, rel=1e-5)
            twin.run(until=end)
        del early.records[kept:]
    assert table_of(early.records) == final_table(tmp_path)


def test_a_standby_puts_it_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes over from a writer that was killed, with its file."""
    final = test_standby.model

    def model_(folder: Path, **options: Any) -> Build:
        def build(twin: tw.Twin) -> None:
            final(folder, **options)(twin)
            twin.sink(tw.sinks.jsonl(folder / "early.jsonl"), release="early")

        return build

    monkeypatch.setattr(test_standby, "model", model_)
    monkeypatch.setattr(host, "MARK_INPUTS", test_standby.MARK)
    monkeypatch.setattr(standby, "_LOOK_OUTPUTS", 5)
    writer = test_standby.Writer(tmp_path, late="repair")
    try:
        watch = test_standby.Watch(writer, 6, lambda one: one.end(signal.SIGKILL))
        with test_standby.stood_by(tmp_path, watch, late="repair") as twin:
            twin.run(until=test_standby.UNTIL, factor=0)
    finally:
        writer.end(signal.SIGKILL)
        test_standby.WRITERS.remove(writer)
    records = [json.loads(line) for line in (tmp_path / "early.jsonl").read_text().splitlines()]
    final_records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert table_of(records) == {one["id"]: [one[name] for name in SHOWN] for one in final_records}
    assert [one["retracts_from"] > 0 for one in records if "retracts_from" in one] == [True, True]


def test_its_last_id_says_what_a_later_life_has_to_tell_again() -> None:
    """While a repair is told, nothing behind its first change counts as complete, though GVT has been moved further."""

    def output(tick: int, value: bytes) -> Output:
        return Output(f"{tick:016x}-00000000", tick, "k", value, "", "", 0)

    early = Early(0)
    before = [output(tick, b"a") for tick in range(10)]
    early.tell(before, 3)
    after = [output(tick, b"b" if tick in (5, 8) else b"a") for tick in range(10)]
    records = early.correct(before, after, 9)
    assert [one.provisional[-3:] for one in records] == ["0~0", "0~0", "0~1", "0~1"]
    assert [int(complete_below(one.id), 16) for one in records] == [5, 5, 5, 8]
    assert int(complete_below(early.tell([output(12, b"")], 9)[0].id), 16) == 9


def test_a_jsonl_file_takes_it(tmp_path: Path) -> None:
    """Its own form of once holds for early records, and a later life goes on in the same file."""
    messages = [(0, 0, 1.0), (0, 30, 3.0), (0, 12, 4.0), (0, 50, 6.0)]
    path = tmp_path / "early.jsonl"
    for some in (messages[:2], messages):
        live(tmp_path, Broker(some, 1), "inline", tw.sinks.jsonl(path), late="repair", horizon=100)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert table_of(records) == final_table(tmp_path)
    assert ascend(records)
    assert [one["stream_type"] for one in records if "retracts_from" in one] == ["event", "telemetry"]
    path.write_bytes(path.read_bytes()[:60])  # torn in its first line
    live(tmp_path, Broker(messages, 1), "inline", tw.sinks.jsonl(path), late="repair", horizon=100)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert table_of(records) == final_table(tmp_path)


def test_select_is_asked_of_retractions_too_but_for_those_of_all(tmp_path: Path) -> None:
    """So a sink of one key is told of that key alone, and of what a new life makes void."""
    messages = [(0, 0, 1.0), (0, 30, 3.0), (0, 12, 4.0), (0, 50, 6.0)]
    early = Told()

    def build_(source: Source) -> Build:
        final = model(source, tmp_path, late="repair", horizon=100)

        def build(twin: tw.Twin) -> None:
            final(twin)
            twin.sink(early, release="early", select=lambda record: record["key"] == "level")

        return build

    for some in (messages[:3], messages):
        with tw.open(tmp_path / "a.tw", build_(Broker(some, 1)), epoch="1970-01-01T00:00:00Z") as twin:
            twin.run()
    wanted = {name: one for name, one in final_table(tmp_path).items() if one[2] == "level"}
    assert table_of(early.records) == wanted
    assert sum("retracts_from" in one for one in early.records) == 2


def test_it_stays_what_it_is(tmp_path: Path) -> None:
    """A later life that makes it final is refused, as are sinks without a place for retractions and a redelivery."""
    early = Told()
    live(tmp_path, Broker([(0, 0, 1.0), (0, 9, 1.0)]), "inline", early)

    def build(twin: tw.Twin) -> None:
        model(Broker([(0, 0, 1.0), (0, 9, 1.0)]), tmp_path)(twin)
        twin.sink(early)

    with pytest.raises(OperatorError, match="early or final in all lives"):
        tw.open(tmp_path / "a.tw", build)
    with pytest.raises(OperatorError, match="--resume"):
        redeliver(tmp_path / "a.tw", "told", build_with(Broker(()), tmp_path, early))

    def refused(sink: Sink, release: str) -> Build:
        return lambda twin: twin.sink(sink, release=release)

    for sink, release in (
        (tw.sinks.parquet(tmp_path / "p"), "early"),
        (tw.sinks.postgres("postgresql://h/d", "t"), "early"),
        (tw.sinks.kafka("h:1", default=lambda topic, record: b""), "early"),
        (Told(), "soon"),
    ):
        with pytest.raises(OperatorError, match="release="):
            tw.open(":memory:", refused(sink, release))
