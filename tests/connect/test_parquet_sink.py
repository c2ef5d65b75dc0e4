"""A dataset of Parquet files holds each output once, typed, in few parts, whatever was torn, killed or widened."""

from __future__ import annotations

import errno
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.codec import pack
from tidewarp.connect import sinks
from tidewarp.connect.backends import parquet_types
from tidewarp.connect.backends.parquet_sink import ParquetSink
from tidewarp.connect.contract import Output, Refused
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.testing import armed, hearing, raising
from tidewarp.testing.sinks import RUN, SinkConformance, output, outputs
from tidewarp.testing.suites import perform


@pytest.fixture(autouse=True)
def _arrow(require: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    require("arrow")
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no test cuts the power, and a disk takes its time


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("part-*.parquet"))


def rows(folder: Path) -> list[dict[str, Any]]:
    """All rows below the folder, by id."""
    import pyarrow.parquet as pq

    found = [row for path in parts(folder) for row in pq.ParquetFile(path).read().to_pylist()]
    return sorted(found, key=lambda row: row["id"])


def values(folder: Path) -> list[Any]:
    return [row["value"] for row in rows(folder)]


def valued(*found: Any, first: int = 0) -> list[Output]:
    return [output(n)._replace(value=pack(value)) for n, value in enumerate(found, first)]


def written(folder: Path, *batches: Sequence[Output], **options: Any) -> tuple[ParquetSink, list[Refused]]:
    """One life."""
    sink = ParquetSink(folder, **options)

    async def run() -> list[Refused]:
        await sink.open(RUN)
        refused = [one for batch in batches for one in await sink.write(batch)]
        await sink.close()
        return refused

    return sink, perform(run())


class TestParquetSink(SinkConformance):
    """What every sink has to keep; below, what is the dataset's own."""

    refused = 2**64 - 1

    def create(self, folder: Path) -> ParquetSink:
        return ParquetSink(folder / "outputs")

    def create_broken(self, folder: Path) -> ParquetSink:
        (folder / "file").write_text("no folder")
        return ParquetSink(folder / "file")

    def values(self, folder: Path) -> list[Any]:
        return values(folder)

    def failing(self, folder: Path) -> AbstractContextManager[object]:
        return armed("release.inside", raising(OSError(errno.ENOSPC, "No space left")))


class TestRoutedParquetSink(TestParquetSink):
    """Each batch goes to three folders, so that a kill may come between them."""

    refused = None
    test_any_value_is_written_or_refused = None  # of 3 routes, a value finds the type of another

    def create(self, folder: Path) -> ParquetSink:
        return ParquetSink(
            folder / "outputs", router=lambda record: f"{record['tick'] % 3}/{record['value'] % 3}", rows=100
        )


def test_a_row_is_the_whole_record_typed(tmp_path: Path) -> None:
    """A dataset as any reader of Arrow sees it: a folder for each kind of value."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    event = Output(output(3).id, 1_500_000_000, "alarm", pack({"t": 1.5, "n": 2}), "c", "r", 3)
    reading = Output(output(4).id, 1_500_000_000, "line.temp", pack(float("nan")), "c", "r", 3, "telemetry")
    sink, refused = written(tmp_path / "out", [event, reading])
    table = ds.dataset(tmp_path / "out" / "event-object").to_table()
    assert table.schema.field("timestamp").type == pa.timestamp("ms", "UTC")
    (row,) = table.to_pylist()
    assert row.pop("timestamp").isoformat(timespec="milliseconds") == "2013-12-02T21:15:01.500+00:00"
    assert row == {
        "id": event.id, "tick": 1_500_000_000, "sim_ts": 1.5, "stream_type": "event", "key": "alarm", "path_id": None,
        "value": {"t": 1.5, "n": 2}, "cause": "c", "root": "r", "domain": RUN.domain,
    }  # fmt: skip
    (row,) = ds.dataset(tmp_path / "out" / "telemetry-number").to_table().to_pylist()
    assert (row["key"], row["path_id"]) == (None, "line.temp")
    assert math.isnan(row["value"])
    assert (sink.name, sink.delivery, refused, sinks.parquet) == ("out", "once", [], ParquetSink)


def test_what_write_has_taken_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part is synced before it has its name, and the folder when it has it."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    written(tmp_path, outputs(0, 3))
    folder = tmp_path / "event-number"
    name = parts(tmp_path)[0].name
    assert synced == [str(folder / f".{name}"), str(folder)]


def test_small_parts_are_merged(tmp_path: Path) -> None:
    """A thousand batches leave few parts, none above the bound, in the order of ids, and every row once."""
    written(tmp_path, *[outputs(n, n + 3) for n in range(0, 900, 3)], rows=200)
    assert values(tmp_path) == [*range(900)]
    import pyarrow.parquet as pq

    counts = [pq.read_metadata(path).num_rows for path in parts(tmp_path)]
    assert max(counts) <= 200
    assert len(counts) < 900 / 24 + 2 * 8, counts
    written(tmp_path, outputs(0, 950), rows=200)
    assert values(tmp_path) == [*range(950)]


def test_a_kill_at_any_step_of_a_merge_doubles_nothing(tmp_path: Path) -> None:
    """After each step the folder as it is then is taken over by another life, which has every row once."""
    live, images = tmp_path / "live", list[Path]()
    written(live, *[outputs(n, n + 1) for n in range(63)], rows=200)

    def take(stage: str, arrival: int) -> None:
        images.append(tmp_path / f"{arrival}")
        shutil.copytree(live, images[-1])

    with hearing(take):
        written(live, outputs(63, 64), rows=200)  # the eighth of the eighth: two merges
    assert len(images) >= 6 + 14
    for image in images:
        written(image, outputs(0, 70), rows=200)
        assert values(image) == [*range(70)]
        assert not [*image.rglob(".part-*")]


def test_ints_become_floats_when_a_float_comes(tmp_path: Path) -> None:
    """In all parts, so that the folder has one schema; null and fields that were not there before likewise."""
    import pyarrow.dataset as ds

    written(tmp_path, valued(1, 2), valued(3, first=2))
    _, refused = written(tmp_path, valued(4.5, 2**60, first=3))
    assert refused == []
    table = ds.dataset(tmp_path / "event-number").to_table()
    assert str(table.schema.field("value").type) == "double"
    assert sorted(table["value"].to_pylist()) == [1, 2, 3, 4.5, 2.0**60]

    written(tmp_path / "o", valued({"a": 1}), valued({"b": {"c": "x"}}, {}, {"a": 0.5, "b": {"d": [1]}}, first=1))
    table = ds.dataset(tmp_path / "o" / "event-object").to_table().sort_by("id")
    assert table["value"].to_pylist() == [
        {"a": 1.0, "b": None},
        {"a": None, "b": {"c": "x", "d": None}},
        {"a": None, "b": None},
        {"a": 0.5, "b": {"c": None, "d": [1]}},
    ]


def test_a_kill_while_a_folder_is_widened_leaves_it_to_the_next_life(tmp_path: Path) -> None:
    """Whatever had been rewritten then: the same rows, one schema."""
    import pyarrow.dataset as ds

    live, images = tmp_path / "live", list[Path]()
    written(live, *[valued(n, first=n) for n in range(5)])

    def take(stage: str, arrival: int) -> None:
        images.append(tmp_path / f"{arrival}")
        shutil.copytree(live, images[-1])

    with hearing(take):
        written(live, valued(5.5, first=5))
    assert len(images) >= 10
    for image in images:
        written(image, valued(*range(5), 5.5, 6))
        table = ds.dataset(image / "event-number").to_table().sort_by("id")
        assert table["value"].to_pylist() == [0, 1, 2, 3, 4, 5.5, 6]
        assert str(table.schema.field("value").type) == "double"


def test_what_does_not_fit_is_refused_alone(tmp_path: Path) -> None:
    """A text where numbers were, in a struct; an int of 65 bits; a struct whose fields are data. The others are held."""
    odd = {f"job-{n}": n for n in range(parquet_types.LEAVES_MAX + 1)}
    batch = valued({"a": 1}, {"a": "x"}, {"a": 2**63}, odd, {"a": 2})
    _, refused = written(tmp_path, batch)
    assert [one.id for one in refused] == [output(n).id for n in (1, 2, 3)]
    assert ["string" in refused[0].reason, "64 bits" in refused[1].reason, "named by data" in refused[2].reason] == [
        True
    ] * 3
    assert values(tmp_path) == [{"a": 1}, {"a": 2}]


def test_a_router_says_where_and_may_say_nowhere(tmp_path: Path) -> None:
    """What it drops is counted, and so is what it cannot say: that goes where it would go without it."""
    answers = iter(["a/b", None, "../up", "/etc", "a//b", ".hidden", "x" * 300, 7, "a/b"])

    def router(record: Mapping[str, Any]) -> str | None:
        assert record["stream_type"] == "event"
        return next(answers)  # type: ignore[return-value]  # the last record finds none: it raises

    sink, refused = written(tmp_path, outputs(0, 10), router=router)
    assert (sink.router.dropped, sink.router.misrouted, refused) == (1, 7, [])
    assert values(tmp_path / "a" / "b") == [0, 8]
    assert values(tmp_path / "event-number") == [2, 3, 4, 5, 6, 7, 9]
    assert [path.name for path in tmp_path.parent.glob("up")] == []


def test_more_folders_than_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of a folder that is forgotten is read from it again."""
    monkeypatch.setattr("tidewarp.connect.backends.parquet_sink._TABLES_MAX", 2)
    sink = ParquetSink(tmp_path, router=lambda record: str(record["value"] % 5))

    async def run() -> None:
        await sink.open(RUN)
        for first in (0, 0, 20):
            await sink.write(outputs(first, first + 20))
        assert len(sink._tables) <= 2
        await sink.close()

    perform(run())
    assert values(tmp_path) == [*range(40)]


def test_any_filesystem_of_arrow(tmp_path: Path) -> None:
    """One below a folder of another, and one that is no local one: what is not this machine's is not synced by us."""
    import pyarrow.fs as fs

    below = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    for _ in range(2):
        written(Path("sub"), outputs(0, 20), filesystem=below)
    assert values(tmp_path / "sub") == [*range(20)]
    foreign = fs._MockFileSystem()
    for end in (5, 9):
        written(Path("remote"), *[outputs(n, n + 1) for n in range(end)], filesystem=foreign)
    found = foreign.get_file_info(fs.FileSelector("remote", recursive=True))
    import pyarrow.parquet as pq

    held = [
        value
        for one in sorted(found, key=lambda one: one.path)
        if one.is_file
        for value in pq.ParquetFile(foreign.open_input_file(one.path)).read()["value"].to_pylist()
    ]
    assert held == [*range(9)]


@pytest.mark.parametrize("damage", ["text", "plain"])
def test_a_part_of_somebody_else_is_left_alone(tmp_path: Path, damage: str) -> None:
    """Its name is like one of ours and its footer is not: the operator has to choose another path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "event-number" / "part-0.parquet"
    path.parent.mkdir()
    if damage == "text":
        path.write_text("no Parquet")
    else:
        pq.write_table(pa.table({"a": [1]}), path)
    before = path.read_bytes()
    with pytest.raises(OperatorError, match="continues its own"):
        written(tmp_path, outputs(0, 3))
    assert path.read_bytes() == before
    assert parts(tmp_path) == [path]


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=max(1, settings().max_examples // 2))
@given(st.lists(plain, min_size=1, max_size=8))
def test_any_values_are_held_or_refused(tmp_path_factory: pytest.TempPathFactory, found: list[Any]) -> None:
    """Of any sequence of values in one folder: what is not refused is there, equal but for ints that became floats."""
    folder = tmp_path_factory.mktemp("any")
    _, refused = written(folder, valued(*found), router=lambda _: "all")
    lost = {one.id for one in refused}
    assert [row["id"] for row in rows(folder)] == [output(n).id for n in range(len(found)) if output(n).id not in lost]
    if output(0).id in lost:
        import pyarrow as pa

        with pytest.raises(parquet_types.Misfit):
            parquet_types.type_of(pa, found[0])
    for row in rows(folder):
        value = found[next(n for n in range(len(found)) if output(n).id == row["id"])]
        assert _covers(row["value"], value), (row["value"], value)


def _covers(held: Any, value: Any) -> bool:
    """Is it the value, but for fields that are null, objects without fields, and ints as floats?"""
    if isinstance(value, dict):
        if held is None:
            return all(_covers(None, part) for part in value.values())
        return all(_covers(held[name], part) for name, part in value.items())
    if isinstance(value, list):
        return held is not None and len(held) == len(value) and all(map(_covers, held, value))
    return bool(held == value) or (type(held) is float and held == float(value))


LIVES = """
import asyncio, os, sys
from tidewarp.connect.backends.parquet_sink import ParquetSink
from tidewarp.testing import armed, die
from tidewarp.testing.sinks import RUN, outputs

async def life(arrival):
    sink = ParquetSink(sys.argv[1], router=lambda record: str(record["value"] % 2), rows=50)
    await sink.open(RUN)
    with armed("release.inside", die, arrival=arrival):
        for first in range(0, 100, 5):
            await sink.write(outputs(first, first + 5))
    await sink.close()

for arrival in map(int, sys.argv[2:]):
    pid = os.fork()
    if pid == 0:
        asyncio.run(life(arrival))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_sink_that_is_killed_anywhere_is_exactly_once(tmp_path: Path) -> None:
    """SIGKILL before and behind a rename, between two folders, in a merge; the next life offers everything again."""
    arrivals = ["1", "2", "3", "5", "8", "13", "14", "15", "16", "10000"]
    lives = subprocess.run([sys.executable, "-c", LIVES, str(tmp_path), *arrivals], capture_output=True, text=True)
    codes = lives.stdout.split()
    assert codes[-1] == "0", lives.stderr
    assert codes.count("-9") >= 8, codes
    assert values(tmp_path) == [*range(100)]


def test_a_missing_package_is_named_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the sink is opened: a replay needs it not."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    sink = ParquetSink("a")
    with pytest.raises(MissingExtra, match=r"tidewarp\[parquet\]"):
        perform(sink.open(RUN))
    perform(sink.close())
