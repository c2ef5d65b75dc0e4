"""A CSV file as a source: what is wrong with the file stops the start, what is wrong with a row is that row's affair."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.connect import sources
from tidewarp.connect.backends import lines as backend
from tidewarp.connect.backends.csv import CsvSource
from tidewarp.connect.contract import HEAD_BYTES, MESSAGE_BYTES_MAX, Raw, Undecodable, Update
from tidewarp.errors import InternalError, OperatorError
from tidewarp.testing.sources import SourceConformance

HEADER = "time,value,mode\n"
S = 10**9


def source(path: Path, **options: Any) -> CsvSource:
    return CsvSource(path, **{"time": "time", "map": {"value": "line.value"}, **options})


def written(folder: Path, text: str | bytes, name: str = "readings.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def everything(one: CsvSource, positions: Mapping[int, int] | None = None, limit: int = 100) -> list[Raw]:
    """All messages behind the positions, read to the end and closed."""

    async def run() -> list[Raw]:
        rows: list[Raw] = []
        await one.open(positions or {})
        try:
            while (part := await one.read(limit)) is not None:
                assert 1 <= len(part) <= limit
                rows += part
            assert await one.read(limit) is None, "the end stays the end"
        finally:
            await one.close()
            await one.close()
        return rows

    return asyncio.run(run())


def updates(one: CsvSource, epoch_ns: int = 0) -> list[Update | str]:
    """What each row says, or the short name of the rule that it breaks."""
    rows, decoder = everything(one), one.decoder(epoch_ns)
    results: list[Update | str] = []
    for raw in rows:
        try:
            results.append(decoder.decode(raw))
        except Undecodable as error:
            results.append(error.short if f"row {raw.offset}: " in error.value else error.value)
    return results


def opening(path: Path, **options: Any) -> str:
    """The message with which it refuses to be opened; the same at each of the three ways in."""
    messages = []
    for start in (lambda one: asyncio.run(one.open({})), lambda one: one.first_event_ns(), lambda one: one.decoder(0)):
        with pytest.raises(OperatorError) as caught:
            start(source(path, **options))
        messages.append(str(caught.value))
    assert len(set(messages)) == 1
    return messages[0]


class TestCsvSource(SourceConformance):
    """What every source has to keep; below, what is the file's own."""

    messages = (
        (86_410 * S, {"line.value": "1.5", "line.mode": "auto"}),
        None,
        (86_412 * S, {"line.value": "3"}),
        (86_411 * S, {"line.value": "4", "line.mode": "é"}),
        None,
        (86_411 * S + 1, {"line.value": "4", "line.mode": "x,y"}),
    )

    def create(self, folder: Path) -> CsvSource:
        rows = [
            "1970-01-02T00:00:10Z,1.5,auto",
            "",
            "noon,2,x",
            "86412,3,",
            "86411,4,é",
            '1,"',
            '86411.000000001,4,"x,y"',
        ]
        return source(written(folder, HEADER + "\n".join(rows)), map={"value": "line.value", "mode": "line.mode"})

    def create_broken(self, folder: Path) -> CsvSource:
        return source(folder / "none.csv")


class TestCompressedCsvSource(TestCsvSource):
    def create(self, folder: Path) -> CsvSource:
        packed = gzip.compress(super().create(folder).path.read_bytes())
        return source(written(folder, packed, "readings.csv.gz"), map={"value": "line.value", "mode": "line.mode"})


# ---------------------------------------------------------------------------- rows


def test_a_row_is_one_input_with_its_number_as_offset(tmp_path: Path) -> None:
    """The line behind the header is row 1; all mapped columns together, as text that the path's rule will cast."""
    path = written(tmp_path, HEADER + "1970-01-01T00:00:01Z, 1.5 ,auto\n2,3,\n")
    one = source(path, map={"value": "line.value", "mode": "line.mode"})
    assert everything(one) == [Raw(0, 1, b"1970-01-01T00:00:01Z, 1.5 ,auto"), Raw(0, 2, b"2,3,")]
    assert updates(one) == [
        Update(1 * S, (("line.value", "1.5"), ("line.mode", "auto"))),
        Update(2 * S, (("line.value", "3"),)),
    ]
    assert one.paths() == ["line.mode", "line.value"]
    assert one.name == "readings"
    assert sources.csv is CsvSource


def test_an_empty_cell_sets_nothing(tmp_path: Path) -> None:
    """A file in which each sensor fills its own column now and then; a row of empty cells is counted."""
    path = written(tmp_path, HEADER + "1,1.5,\n2,,on\n3, ,\n4,2.5,off\n")
    assert updates(source(path, map={"value": "line.value", "mode": "line.mode"})) == [
        Update(1 * S, (("line.value", "1.5"),)),
        Update(2 * S, (("line.mode", "on"),)),
        "empty",
        Update(4 * S, (("line.value", "2.5"), ("line.mode", "off"))),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_and_blank_lines_change_nothing(tmp_path: Path, end: str, last: bool) -> None:
    """A blank line is no row but has a number; the last line needs no end."""
    text = end.join([HEADER.strip(), "1,a,x", "", "2,b,y", "", "3,c,z"]) + (end if last else "")
    rows = everything(source(written(tmp_path, text)))
    assert [(raw.offset, raw.payload) for raw in rows] == [(1, b"1,a,x"), (3, b"2,b,y"), (5, b"3,c,z")]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    """Spreadsheets write one."""
    path = written(tmp_path, "\ufeff" + HEADER + "1,2,x\n")
    assert updates(source(path)) == [Update(S, (("line.value", "2"),))]


def test_quoted_fields_may_hold_separators_and_quotes(tmp_path: Path) -> None:
    """RFC 4180 within a line."""
    path = written(tmp_path, '"time","value",mode\n1,"a,b",x\n2,"say ""hi""",x\n"3",c,"x"\n')
    assert [one.changes[0][1] for one in updates(source(path)) if isinstance(one, Update)] == ["a,b", 'say "hi"', "c"]


def test_another_separator(tmp_path: Path) -> None:
    """One character; what the comma is then, is text."""
    path = written(tmp_path, "time;value\n1;2,5\n")
    assert updates(source(path, sep=";")) == [Update(S, (("line.value", "2,5"),))]


@pytest.mark.parametrize(
    ("row", "short"),
    [
        (b"1", "fields"),
        (b"1,2", "fields"),
        (b"1,2,x,4", "fields"),
        (b"   ", "fields"),
        (b"1,\xff,x", "encoding"),
        (b"1,\xed\xa0\x80,x", "encoding"),
        (b'1,"2,x', "csv"),
        (b'1,"2"x,x', "csv"),
        (b'1,"2,\rx",x\r"', "csv"),
        (b",2,x", "time"),
        (b"noon,2,x", "time"),
        (b"2013-02-30 00:00:00,2,x", "time"),
        (b"2013-12-02 24:00:00,2,x", "time"),
        (b"nan,2,x", "time"),
        (b"1e400,2,x", "time"),
        (b"9223372036.9,2,x", "time"),
        (b"9999-01-01T00:00:00Z,2,x", "time"),
    ],
)
def test_a_bad_row_is_a_dead_letter_with_its_number_and_the_rule(tmp_path: Path, row: bytes, short: str) -> None:
    """The rows around it are read as if it were not there: a stray quote cannot swallow the rest of the file."""
    path = written(tmp_path, HEADER.encode() + b"1,a,x\n" + row + b'\n2,b,x\n3,"c",x\n')
    assert [one if isinstance(one, str) else one.changes[0][1] for one in updates(source(path))] == [
        "a",
        short,
        "b",
        "c",
    ]


def test_a_time_too_far_from_the_epoch_is_a_bad_row(tmp_path: Path) -> None:
    """A tick is int64 ns."""
    path = written(tmp_path, HEADER + "2200-01-01T00:00:00Z,1,x\n1970-01-01T00:00:00Z,2,x\n")
    one = source(path)
    assert updates(one, -(2**62)) == ["time", Update(2**62, (("line.value", "2"),))]


def test_a_line_of_ten_megabytes_is_one_bad_row_and_is_never_in_memory(tmp_path: Path) -> None:
    """Its head is kept and the hash of all of it, without its line end."""
    long = b"1," + b"9" * (10 << 20) + b",x"
    path = written(tmp_path, HEADER.encode() + b"1,a,x\n" + long + b"\n2,b,x\n")
    one = source(path)
    tracemalloc.start()
    rows = everything(one)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * MESSAGE_BYTES_MAX
    assert [raw.offset for raw in rows] == [1, 2, 3]
    assert rows[1].payload == long[:HEAD_BYTES]
    assert rows[1].sha256 == sha256(long).digest()
    assert [one if isinstance(one, str) else one.tick for one in updates(source(path))] == [S, "size", 2 * S]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("over", [0, 1, 2, 3])
def test_the_longest_line_that_is_legal_is_read(tmp_path: Path, end: bytes, over: int) -> None:
    """MESSAGE_BYTES_MAX without its line end; a byte more is too long."""
    line = b"1,a," + b"x" * (MESSAGE_BYTES_MAX - 4 + over)
    rows = everything(source(written(tmp_path, HEADER.encode() + line + end)))
    expected = Raw(0, 1, line) if over == 0 else Raw(0, 1, line[:HEAD_BYTES], sha256(line).digest())
    assert rows[0]._replace(sha256=None) == expected._replace(sha256=None)
    assert (rows[0].sha256 is None) == (expected.sha256 is None)
    assert len(rows) == 1


def test_one_read_is_bounded_in_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8,192 rows of a megabyte would be 8 GiB."""
    monkeypatch.setattr(backend, "_READ_BYTES", 100)
    path = written(tmp_path, HEADER + "".join(f"{n},{'9' * 40},x\n" for n in range(10)))
    one = source(path)

    async def sizes() -> list[int]:
        await one.open({})
        counts = []
        while (part := await one.read(8_192)) is not None:
            counts.append(len(part))
        await one.close()
        return counts

    assert asyncio.run(sizes()) == [3, 3, 3, 1]


ROWS = st.lists(st.sampled_from(["", "1,2,x", '1,"2",x', 'bad"', "1,é,x", "9" * 50]), max_size=12)


@given(rows=ROWS, limit=st.integers(1, 5), behind=st.integers(0, 14))
def test_a_source_goes_on_behind_what_is_durable(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], limit: int, behind: int
) -> None:
    """From any position: exactly the rows with higher numbers; a file that has become shorter is refused."""
    path = written(tmp_path_factory.mktemp("csv"), HEADER + "".join(row + "\n" for row in rows))
    every = everything(source(path))
    assert [raw.offset for raw in every] == [n for n, row in enumerate(rows, 1) if row]
    if behind > len(rows):
        with pytest.raises(OperatorError, match=f"{behind} were read before"):
            everything(source(path), {0: behind}, limit)
    else:
        assert everything(source(path), {0: behind}, limit) == [raw for raw in every if raw.offset > behind]


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO would block the start for ever."""
    os.mkfifo(tmp_path / "fifo.csv")
    with pytest.raises(OperatorError, match="regular file"):
        source(tmp_path / "fifo.csv").first_event_ns()


# ---------------------------------------------------------------------------- files


@pytest.mark.parametrize("header", ["timestamp,value,mode\n", "", "\n"])
def test_a_missing_column_names_those_that_were_found(tmp_path: Path, header: str) -> None:
    """So that the reader sees the spelling."""
    message = opening(written(tmp_path, header))
    assert "column 'time' of " in message
    assert ", ".join(map(repr, header.strip().split(","))) in message
    assert "name one of these columns" in message


def test_a_mapped_column_is_missed_as_well(tmp_path: Path) -> None:
    """At the start, not as a dead letter for each row."""
    assert "column 'valeu' of " in opening(written(tmp_path, HEADER), map={"value": "a", "valeu": "b"})


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Which one is meant is not ours to guess; one that nobody asked for may."""
    assert "the header names it twice" in opening(written(tmp_path, "time,value,value\n"))
    assert updates(source(written(tmp_path, "time,value,x,x\n1,2,3,4\n"))) == [Update(S, (("line.value", "2"),))]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """Missing, a directory: what it is and what to do."""
    assert "no such file or directory; check the path" in opening(tmp_path / "none.csv")
    assert "this is a directory" in opening(tmp_path)
    assert "no such file or directory" in opening(tmp_path / "none.csv.gz")


@pytest.mark.parametrize(
    "content", [b"time,val\xffue\n", "time,value\n".encode("utf-16"), b'time,"value\n1,2\n', b"\x1f\x8b\x08\0"]
)
def test_a_header_that_is_no_csv_is_refused(tmp_path: Path, content: bytes) -> None:
    """Another encoding, an open quote, a compressed file without its suffix."""
    assert "its header is not CSV" in opening(written(tmp_path, content))


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    """Not taken for its first mebibyte."""
    assert "its header has 1048576 bytes or more" in opening(written(tmp_path, b"time,value," + b"x" * (2 << 20)))


def test_a_compressed_file_is_read_as_it_is(tmp_path: Path) -> None:
    """Rows, positions and first time are those of the text."""
    path = written(tmp_path, gzip.compress((HEADER + "1,2,x\n2,3,x\n").encode()), "a.b.csv.gz")
    one = source(path)
    assert one.name == "a"
    assert one.first_event_ns() == S
    assert everything(one, {0: 1}) == [Raw(0, 2, b"2,3,x")]


@pytest.mark.parametrize("damage", ["cut", "flipped", "checksum", "garbage"])
def test_a_damaged_compressed_file_is_an_operators_error(tmp_path: Path, damage: str) -> None:
    """Never an EOFError or zlib.error, in the header, in the rows or in the search for the first time."""
    text = HEADER + "".join(f"bad {n * n * 7919 % 10_007},{n}\n" for n in range(900))
    data = bytearray(gzip.compress(text.encode()))
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0x55
        data[len(data) // 2 + 1] ^= 0x55
    elif damage == "checksum":
        data[-6] ^= 1
    else:
        data[:] = b"garbage"
    path = written(tmp_path, bytes(data), "a.csv.gz")
    with pytest.raises(OperatorError, match=r"a\.csv\.gz"):
        everything(source(path))
    with pytest.raises(OperatorError, match=r"a\.csv\.gz"):
        source(path).first_event_ns()


def test_a_read_of_what_is_not_open_is_our_fault(tmp_path: Path) -> None:
    """Before open and after close."""
    one = source(written(tmp_path, HEADER + "1,2,x\n"))
    with pytest.raises(InternalError, match="opened before it is read"):
        asyncio.run(one.read(1))
    everything(one)
    with pytest.raises(InternalError, match="opened before it is read"):
        asyncio.run(one.read(1))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"map": {}}, "at least one path"),
        ({"sep": ""}, "one character"),
        ({"sep": ",,"}, "one character"),
        ({"sep": '"'}, "no quote"),
        ({"sep": "\n"}, "no line end"),
        ({"tz": "Mars/Olympus"}, "not an IANA time zone"),
        ({"tz": "../../etc/passwd"}, "not an IANA time zone"),
        ({"tz": ""}, "not an IANA time zone"),
        ({"tz": "Europe"}, "not an IANA time zone"),
    ],
)
def test_wrong_options_are_refused_at_once(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    """Where they are written, not when the file is opened."""
    with pytest.raises(OperatorError, match=match):
        source(tmp_path / "none.csv", **options)


def test_what_decides_the_meaning_is_described_and_the_place_is_not(tmp_path: Path) -> None:
    """A file may move between two lives; its columns may not change their meaning."""
    one, other = source(tmp_path / "a.csv"), source(tmp_path / "b.csv")
    assert one.describe() == other.describe()
    for options in ({"sep": ";"}, {"tz": "Asia/Tokyo"}, {"time": "t"}, {"map": {"value": "x"}}):
        assert source(tmp_path / "a.csv", **options).describe() != one.describe()


# ---------------------------------------------------------------------------- time


@contextlib.contextmanager
def host_zone(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("host", ["UTC", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize(
    ("tz", "text", "utc_ms"),
    [
        ("UTC", "2013-12-02 21:15:00", 1386018900000),
        ("UTC", "2013-12-02T21:15:00.25+01:00", 1386015300250),
        ("UTC", "1386018900", 1386018900000),
        ("Asia/Tokyo", "2013-12-02 21:15:00", 1385986500000),
        ("Asia/Tokyo", "2013-12-02 21:15:00Z", 1386018900000),
        ("Asia/Tokyo", "1386018900.5", 1386018900500),
        ("Europe/Berlin", "2024-03-31 01:59:59", 1711846799000),
        ("Europe/Berlin", "2024-03-31 02:30:00", 1711848600000),
        ("Europe/Berlin", "2024-03-31 03:00:00", 1711846800000),
        ("Europe/Berlin", "2024-10-27 02:30:00", 1729989000000),
        ("Europe/Berlin", "2024-10-27 03:00:00", 1729994400000),
    ],
)
def test_a_time_means_what_its_zone_says_on_every_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, tz: str, text: str, utc_ms: int
) -> None:
    """tz= is for times without a zone; a doubled hour is its first, a skipped one has the offset before; TZ is nothing."""
    path = written(tmp_path, f"{HEADER}{text},1,x\n")
    with host_zone(monkeypatch, host):
        one = source(path, tz=tz)
        assert one.first_event_ns() == utc_ms * 10**6
        (update,) = updates(one, epoch_ns=1_000 * S)
    assert isinstance(update, Update)
    assert update.tick == utc_ms * 10**6 - 1_000 * S


def test_the_first_event_is_that_of_the_first_row_that_has_a_time(tmp_path: Path) -> None:
    """Bad rows before it are passed over, a file without any has none; the search ends after a thousand rows."""
    assert source(written(tmp_path, HEADER + "x,1,a\n,,\n1\n7,1,a\n3,1,a\n")).first_event_ns() == 7 * S
    assert source(written(tmp_path, HEADER)).first_event_ns() is None
    assert source(written(tmp_path, HEADER + "x,1,a\n" * 1_000 + "7,1,a\n")).first_event_ns() is None


def test_a_file_that_grows_is_a_live_source(tmp_path: Path) -> None:
    """Followed, it is read to its last line end, and waits there; each row comes once, under its number."""
    path = written(tmp_path, HEADER + "1,1.5,auto\n2,2.")

    async def run() -> list[Raw]:
        one = source(path, follow=True)
        assert (one.clock, one.first_event_ns()) == ("wall", None)
        await one.open({})
        rows = [*(await one.read(100) or [])]
        reading = asyncio.ensure_future(one.read(100))
        await asyncio.sleep(0)
        with path.open("a") as file:
            file.write("5,on\n3,3,off\n4,")
        rows += await reading or []
        await one.close()
        await one.open({0: 2})
        rows += await one.read(100) or []
        await one.close()
        return rows

    rows = asyncio.run(run())
    assert [(raw.offset, raw.payload) for raw in rows] == [
        (1, b"1,1.5,auto"),
        (2, b"2,2.5,on"),
        (3, b"3,3,off"),
        (3, b"3,3,off"),
    ]
