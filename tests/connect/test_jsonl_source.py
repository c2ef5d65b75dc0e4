"""A file of JSON lines as a source: what is wrong with a line is that line's affair, and a growing file is read to its last line end."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tidewarp.connect import sources
from tidewarp.connect.backends.jsonl_source import JsonlSource
from tidewarp.connect.contract import HEAD_BYTES, MESSAGE_BYTES_MAX, Raw, Undecodable, Update
from tidewarp.errors import InternalError, OperatorError
from tidewarp.testing.sources import SourceConformance
from tidewarp.testing.suites import perform

S = 10**9
LINES = (
    b'{"path":"line.value","value":1.5,"time":"1970-01-02T00:00:10Z"}',
    b"",
    b"no JSON",
    b'{"path":"line.value","value":3,"time":86412}\r',
    '{"set":{"line.value":4,"line.mode":"é"},"time":86411}'.encode(),
    b'{"path":"line.value","value":3}',
    b'{"path":"line.value","value":5,"time":86413.5}',
)


def written(folder: Path, data: bytes, name: str = "readings.jsonl") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def line(n: int, **fields: Any) -> bytes:
    return json.dumps({"path": "a.b", "value": n, "time": n, **fields}).encode() + b"\n"


def everything(one: JsonlSource, positions: Mapping[int, int] | None = None) -> list[Raw]:
    async def run() -> list[Raw]:
        raws: list[Raw] = []
        await one.open(positions or {})
        try:
            while (part := await one.read(100)) is not None:
                raws += part
        finally:
            await one.close()
        return raws

    return perform(run())


class TestJsonlSource(SourceConformance):
    """What every source has to keep; below, what is the file's own."""

    messages = (
        (86_410 * S, {"line.value": 1.5}),
        None,
        (86_412 * S, {"line.value": 3}),
        (86_411 * S, {"line.value": 4, "line.mode": "é"}),
        None,
        (86_413 * S + S // 2, {"line.value": 5}),
    )

    def create(self, folder: Path) -> JsonlSource:
        return JsonlSource(written(folder, b"\n".join(LINES)))

    def create_broken(self, folder: Path) -> JsonlSource:
        return JsonlSource(folder / "none.jsonl")


class TestCompressedJsonlSource(TestJsonlSource):
    def create(self, folder: Path) -> JsonlSource:
        return JsonlSource(written(folder, gzip.compress(b"\n".join(LINES)), "readings.jsonl.gz"))


class TestFollowedJsonlSource(SourceConformance):
    """The same file, live."""

    messages = TestJsonlSource.messages[:4]
    waits = True

    def create(self, folder: Path) -> JsonlSource:
        return JsonlSource(written(folder, b"\n".join(LINES[:5]) + b'\n{"path":"a.b","val'), follow=True)

    def create_broken(self, folder: Path) -> JsonlSource:
        return JsonlSource(folder / "none.jsonl", follow=True)


def test_a_line_is_one_message_with_its_number_as_offset(tmp_path: Path) -> None:
    """Line 1 is the first; a last line without line end is one in a file that is not followed."""
    one = JsonlSource(written(tmp_path, line(1) + b"\n" + line(3)[:-1]))
    assert [(raw.offset, raw.payload) for raw in everything(one)] == [(1, line(1)[:-1]), (3, line(3)[:-1])]
    assert (one.name, one.clock, sources.jsonl) == ("readings", "data", JsonlSource)


def test_time_and_values_may_be_in_fields_of_any_name(tmp_path: Path) -> None:
    """A file that somebody else's program has written; the fast way of the decoder gives the same."""
    one = JsonlSource(written(tmp_path, b""), time="at", map={"temp": "line.temperature"})
    decoder = one.decoder(S)
    raw = Raw(0, 1, b'{"at": 3, "temp": 71.5, "time": "no time"}')
    assert decoder.decode(raw) == Update(2 * S, (("line.temperature", 71.5),))
    assert one.paths() == ["line.temperature"]
    plain = JsonlSource(tmp_path / "a", time="at").decoder(0)
    assert plain.columns([b'{"path":"a.b","value":1,"time":9,"at":3}']) is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("follow", [False, True])
def test_only_a_live_line_may_say_no_time(tmp_path: Path, follow: bool) -> None:
    """It is stamped when it comes; a recorded one would be nowhere. One by one, and many at once."""
    decoder: Any = JsonlSource(written(tmp_path, b""), follow=follow).decoder(0)
    payload = b'{"path":"a.b","value":1}'
    if follow:
        assert decoder.decode(Raw(0, 1, payload)).tick is None
        assert decoder.columns([payload]) == (["a.b"], [1], None)
    else:
        with pytest.raises(Undecodable, match="time") as caught:
            decoder.decode(Raw(0, 1, payload))
        assert caught.value.short == "time"
        assert decoder.columns([payload]) is None


def test_a_long_line_keeps_its_place(tmp_path: Path) -> None:
    """Its head and its digest; the line behind it is read."""
    long = b"x" * (3 * MESSAGE_BYTES_MAX)
    raws = everything(JsonlSource(written(tmp_path, line(1) + long + b"\n" + line(3))))
    assert raws[1] == Raw(0, 2, long[:HEAD_BYTES], sha256(long).digest())
    assert [raw.offset for raw in raws] == [1, 2, 3]


def test_a_growing_file_is_read_to_its_last_line_end(tmp_path: Path) -> None:
    """Cut anywhere, a line comes once and whole; also an over-long one, and a character of several bytes."""
    data = line(1) + line(2, unit="°F") + b"x" * (MESSAGE_BYTES_MAX + 10) + b"\n" + b"\n" + line(5)
    cuts = [
        0,
        5,
        len(line(1)),
        len(line(1)) + 3,
        90,
        200,
        MESSAGE_BYTES_MAX + 50,
        len(data) - 60,
        len(data) - 1,
        len(data),
    ]

    async def run() -> list[Raw]:
        path = written(tmp_path, b"")
        one = JsonlSource(path, follow=True)
        await one.open({})
        raws: list[Raw] = []
        for first, end in pairwise(cuts):
            reading = asyncio.ensure_future(one.read(100))
            await asyncio.sleep(0)
            with path.open("ab") as file:
                file.write(data[first:end])
            if data[:end].count(b"\n") > data[:first].count(b"\n"):
                raws += await reading or []
            else:
                reading.cancel()
                await asyncio.wait([reading])
        await one.close()
        return raws

    raws = perform(run())
    assert [raw.offset for raw in raws] == [1, 2, 3, 5]
    assert [raw.payload for raw in raws if raw.sha256 is None] == [line(1)[:-1], line(2, unit="°F")[:-1], line(5)[:-1]]
    assert JsonlSource(tmp_path / "a", follow=True).clock == "wall"


def test_a_followed_file_goes_on_behind_the_journal(tmp_path: Path) -> None:
    """Another life, and lines that were written meanwhile."""
    path = written(tmp_path, line(1) + line(2))

    async def run() -> list[int]:
        one = JsonlSource(path, follow=True)
        await one.open({0: 2})
        reading = asyncio.ensure_future(one.read(100))
        await asyncio.sleep(0)
        assert not reading.done()
        with path.open("ab") as file:
            file.write(line(3) + line(4))
        found = [raw.offset for raw in await reading or []]
        await one.close()
        return found

    assert perform(run()) == [3, 4]


def _cut(path: Path) -> None:
    path.write_bytes(line(1))


def _replace(path: Path) -> None:
    path.rename(path.with_suffix(".1"))
    path.write_bytes(line(1) * 9)


@pytest.mark.parametrize("change", [_cut, _replace, Path.unlink])
def test_a_followed_file_that_is_no_longer_the_same_ends_the_run(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """Rotated or cut: its rest would be lost in silence."""
    path = written(tmp_path, line(1) + line(2))

    async def run() -> None:
        one = JsonlSource(path, follow=True)
        await one.open({})
        await one.read(100)
        change(path)
        try:
            await one.read(100)
        finally:
            await one.close()

    with pytest.raises(OperatorError, match="while it is followed"):
        perform(run())


@pytest.mark.parametrize("follow", [False, True])
def test_a_file_that_has_lost_lines_is_not_read_on(tmp_path: Path, follow: bool) -> None:
    """The journal has five lines of it; three are there."""
    one = JsonlSource(written(tmp_path, line(1) * 3), follow=follow)
    with pytest.raises(OperatorError, match="3 rows, and 5 were read"):
        everything(one, {0: 5})


def test_what_cannot_be_a_file_of_lines(tmp_path: Path) -> None:
    """A folder; a compressed file that is to grow; a damaged one; a read without open."""
    for one in (
        JsonlSource(tmp_path),
        JsonlSource(written(tmp_path, b"", "a.gz"), follow=True),
        JsonlSource(written(tmp_path, b"no gzip", "b.gz")),
    ):
        with pytest.raises(OperatorError):
            everything(one)
    with pytest.raises(OperatorError):
        JsonlSource(tmp_path / "b.gz").first_event_ns()
    with pytest.raises(InternalError):
        perform(JsonlSource(tmp_path / "a").read(1))
