"""Parquet files as a source: columns of readings, exactly timed, in bounded memory, cell by cell resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from tidewarp.connect import sources
from tidewarp.connect.backends.parquet import ParquetSource
from tidewarp.connect.contract import Raw, Readings
from tidewarp.errors import OperatorError
from tidewarp.testing.readings import as_raws
from tidewarp.testing.sources import SourceConformance
from tidewarp.testing.suites import perform
from tidewarp.twin import Twin, open_twin

S = 10**9


@pytest.fixture(autouse=True)
def _arrow(require: Callable[[str], None]) -> None:
    require("arrow")


def written(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, **options)
    return path


def source(path: Path, **options: Any) -> ParquetSource:
    return ParquetSource(path, **{"time": "time", "map": {"value": "line.value"}, **options})


def everything(one: ParquetSource, behind: int = 0, limit: int = 1_000, epoch_ns: int = 0) -> list[Readings]:
    async def run() -> list[Readings]:
        parts: list[Readings] = []
        await one.open({0: behind} if behind else {})
        one.decoder(epoch_ns)
        try:
            while (part := await one.read(limit)) is not None:
                parts.append(part)
        finally:
            await one.close()
        return parts

    return perform(run())


def cells(one: ParquetSource, **options: Any) -> list[tuple[Any, str, Any]]:
    return [
        cell for part in everything(one, **options) for cell in zip(part.ticks, part.paths, part.values, strict=True)
    ]


class TestParquetSource(SourceConformance):
    """What every source has to keep; below, what is the format's own."""

    messages = (
        (86_410 * S, {"line.value": 1.5}),
        (86_410 * S, {"line.mode": "auto"}),
        (86_412 * S, {"line.value": 3.0}),
        (86_411 * S, {"line.value": 4.0}),
        (86_411 * S, {"line.mode": "é"}),
        (86_413 * S, {"line.value": 5.0}),
    )
    test_the_decoder_is_pure = None  # columns need none
    test_no_bytes_break_the_decoder = None

    def create(self, folder: Path) -> ParquetSource:
        path = folder / "readings.parquet"
        columns = {
            "time": [86_410.0, 86_412, 86_411, 86_413, 86_414],
            "value": [1.5, 3.0, 4.0, 5.0, None],
            "mode": ["auto", None, "é", None, None],
        }
        written(path, columns, row_group_size=2)
        return source(path, map={"value": "line.value", "mode": "line.mode"})

    def create_broken(self, folder: Path) -> ParquetSource:
        return source(folder / "none.parquet")


def test_a_time_may_have_any_type_and_stays_exact(tmp_path: Path) -> None:
    """Timestamps of every unit and zone, dates, numbers of seconds, text: the same nanosecond."""
    import pyarrow as pa

    whole = 1_700_000_000
    for kind, value, expected in (
        (pa.timestamp("s"), whole, whole * S),
        (pa.timestamp("ms", "Europe/Berlin"), whole * 1_000 + 7, whole * S + 7_000_000),
        (pa.timestamp("us"), whole * 10**6 + 1, whole * S + 1_000),
        (pa.timestamp("ns", "UTC"), whole * S + 123_456_789, whole * S + 123_456_789),
        (pa.date32(), date(1970, 1, 3), 2 * 86_400 * S),
        (pa.date64(), date(1970, 1, 3), 2 * 86_400 * S),
        (pa.int32(), 5, 5 * S),
        (pa.float64(), whole + 0.25, whole * S + S // 4),
        (pa.string(), "1970-01-01T00:00:01.000000001Z", S + 1),
        (pa.dictionary(pa.int8(), pa.string()), "1970-01-01T01:00:00+01:00", 0),
    ):
        path = written(tmp_path / "a.parquet", {"time": pa.array([value], kind), "value": [1]})
        assert cells(source(path), epoch_ns=1) == [(expected - 1, "line.value", 1)], kind
        assert source(path).first_event_ns() == expected
    far = datetime(9999, 1, 1, tzinfo=UTC)
    path = written(tmp_path / "a.parquet", {"time": pa.array([far], pa.timestamp("s", "UTC")), "value": [1]})
    assert source(path).first_event_ns() == int(far.timestamp()) * S, "beyond int64 ns, for the gate to refuse"
    assert sources.parquet is ParquetSource


def test_a_row_without_a_time_is_a_dead_letter_and_costs_no_other(tmp_path: Path) -> None:
    """Null, NaN, text that is none: in the summary of the run, with the cells that they would have set."""
    path = written(tmp_path / "a.parquet", {"time": ["1", None, "noon", "4"], "value": [1.0, 2.0, 3.0, 4.0]})
    assert [time for time, _, _ in cells(source(path))] == [S, "None", "'noon'", 4 * S]
    nan = written(
        tmp_path / "b.parquet", {"time": [1.0, float("nan"), float("inf"), None], "value": [1.0, 2.0, 3.0, 4.0]}
    )
    assert [time for time, _, _ in cells(source(nan))] == [S, "nan", "inf", "None"]

    def build(twin: Twin) -> None:
        twin.variable("line.value", float)
        twin.connect(source(path))

    with open_twin(tmp_path / "a.tw", build) as twin:
        summary = twin.run()
    assert (summary.inputs, summary.dead_letters) == (2, 2)


def test_values_are_plain(tmp_path: Path) -> None:
    """Numbers, bool, text, lists and structs; a null sets nothing, wherever it stands."""
    import pyarrow as pa

    rows: dict[str, list[Any]] = {
        "i": [1, None], "f": [None, 2.5], "b": [True, False], "s": ["x", None], "l": [[1, 2], []], "o": [{"a": 1}, None],
        "d": pa.array(["y", "z"]).dictionary_encode(),
    }  # fmt: skip
    path = written(tmp_path / "a.parquet", {"time": [1, 2], **rows})
    found = cells(source(path, map={name: f"line.{name}" for name in rows}))
    assert [(path[5:], value) for _, path, value in found] == [
        ("i", 1), ("b", True), ("s", "x"), ("l", [1, 2]), ("o", {"a": 1}), ("d", "y"),
        ("f", 2.5), ("b", False), ("l", []), ("d", "z"),
    ]  # fmt: skip


def test_the_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    """As a dataset is written; hidden ones and others are left out, and offsets go on over the ends of files."""
    for n, name in enumerate(("a/part-1.parquet", "a/part-2.parquet", "b/part-0.parquet")):
        written(tmp_path / name, {"time": [2 * n, 2 * n + 1], "value": [2 * n, 2 * n + 1]})
    for name in (".hidden.parquet", "_x/part.parquet"):
        written(tmp_path / name, {"time": [9], "value": [9]})
    (tmp_path / "notes.txt").write_text("no Parquet")
    assert [value for _, _, value in cells(source(tmp_path))] == [*range(6)]
    for behind in range(7):
        parts = everything(source(tmp_path), behind, limit=4)
        raws = [raw for part in parts for raw in as_raws(part)]
        assert [raw.offset for raw in raws] == [*range(behind + 1, 7)]
        assert all(type(raw) is Raw for raw in raws)


def test_row_groups_are_read_one_after_the_other(tmp_path: Path) -> None:
    """What is held is a row group and not the file."""
    import pyarrow as pa

    rows = 400_000
    path = written(tmp_path / "a.parquet", {"time": [*range(rows)], "value": [*range(rows)]}, row_group_size=4_000)
    before = pa.total_allocated_bytes()
    one = source(path)

    async def run() -> int:
        await one.open({})
        one.decoder(0)
        highest = count = 0
        while (part := await one.read(8_192)) is not None:
            count += len(part.ticks)
            highest = max(highest, pa.total_allocated_bytes() - before)
        await one.close()
        assert count == rows
        return highest

    assert perform(run()) < 1 << 20, "the file has 6 MiB of values"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time": "when"}, "column 'when'"),
        ({"map": {"temp": "a.b"}}, "column 'temp'"),
        ({"map": {"raw": "a.b"}}, "type binary"),
        ({"time": "raw"}, "type binary"),
        ({"map": {}}, "at least one"),
    ],
)
def test_what_is_wrong_with_the_columns_stops_the_start(tmp_path: Path, options: Any, said: str) -> None:
    """Named with the columns that there are."""
    path = written(tmp_path / "a.parquet", {"time": [1], "value": [1], "raw": [b"x"]})
    with pytest.raises(OperatorError, match=said):
        everything(source(path, **options))


def test_what_is_no_parquet_is_not_opened(tmp_path: Path) -> None:
    """Text, a torn file, an empty folder, and one that has lost cells that the journal has."""
    text = tmp_path / "text.parquet"
    text.write_text("time,value\n1,2\n")
    torn = written(tmp_path / "torn.parquet", {"time": [1], "value": [1]})
    torn.write_bytes(torn.read_bytes()[:-9])
    (tmp_path / "empty").mkdir()
    for path in (text, torn, tmp_path / "empty"):
        with pytest.raises(OperatorError):
            everything(source(path))
    short = written(tmp_path / "short.parquet", {"time": [1, 2], "value": [1, None]})
    with pytest.raises(OperatorError, match="1 cells, and 2 were read"):
        everything(source(short), 2)
