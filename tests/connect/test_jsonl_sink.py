"""A file of JSON lines holds each output once, in order, whatever was torn, full or killed."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import pack
from tidewarp.connect import sinks
from tidewarp.connect.backends import jsonl as backend
from tidewarp.connect.backends.jsonl import JsonlSink
from tidewarp.connect.contract import Output, Refused, RunIdentity
from tidewarp.errors import OperatorError
from tidewarp.testing import armed, raising
from tidewarp.testing.sinks import RUN, SinkConformance

OTHER = RunIdentity("cd" * 32, 0)


def output(n: int, value: Any = None) -> Output:
    return Output(f"{n // 10:016x}-{n % 10:08x}", n // 10, "key", pack({"n": n} if value is None else value), "", "", n)


def outputs(first: int, end: int) -> list[Output]:
    return [output(n) for n in range(first, end)]


def opened(path: Path, run: RunIdentity = RUN) -> tuple[JsonlSink, str | None]:
    sink = JsonlSink(path)
    return sink, asyncio.run(sink.open(run))


def close(sink: JsonlSink) -> None:
    asyncio.run(sink.close())


def write(path: Path, batch: list[Output], run: RunIdentity = RUN) -> JsonlSink:
    """One life: open, write, close."""
    sink, _ = opened(path, run)
    assert asyncio.run(sink.write(batch)) == []
    close(sink)
    return sink


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def refused(path: Path, match: str, run: RunIdentity = RUN) -> None:
    """It is not opened, and not a byte of it is changed."""
    before = path.read_bytes()
    sink = JsonlSink(path)
    with pytest.raises(OperatorError, match=match):
        asyncio.run(sink.open(run))
    close(sink)
    close(sink)
    assert path.read_bytes() == before


class TestJsonlSink(SinkConformance):
    """What every sink has to keep; below, what is the file's own."""

    refused = "x" * 100_000

    @pytest.fixture(autouse=True)
    def short_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "_LINE_BYTES_MAX", 80_000)

    def create(self, folder: Path) -> JsonlSink:
        return JsonlSink(folder / "outputs.jsonl")

    def create_broken(self, folder: Path) -> JsonlSink:
        return JsonlSink(folder)

    def values(self, folder: Path) -> list[Any]:
        path = folder / "outputs.jsonl"
        return [json.loads(line)["value"] for line in path.read_bytes().splitlines()] if path.exists() else []

    def failing(self, folder: Path) -> AbstractContextManager[object]:
        return armed("release.inside", raising(OSError(errno.ENOSPC, "No space left")), arrival=2)


def test_a_line_is_the_whole_record(tmp_path: Path) -> None:
    """The mapping that every sink sends, id first."""
    path = tmp_path / "events.jsonl"
    sink = write(path, [Output(output(15).id, 1_500_000_000, "alarm", pack({"t": 1.5}), "c", "r", 3)])
    assert path.read_text() == (
        '{"id":"0000000000000001-00000005","tick":1500000000,"sim_ts":1.5,'
        '"timestamp":"2013-12-02T21:15:01.500+00:00","stream_type":"event","key":"alarm","value":{"t":1.5},'
        f'"cause":"c","root":"r","domain":"{RUN.domain}"}}\n'
    )
    assert (sink.name, sink.delivery, sinks.jsonl) == ("events", "once", JsonlSink)


@given(count=st.integers(0, 3), torn=st.floats(0, 1), shape=st.sampled_from(["prefix", "zeros"]))
def test_a_torn_last_line_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, count: int, torn: float, shape: str
) -> None:
    """Wherever a kill or a power cut tore it; the whole lines before it stay, byte for byte."""
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    write(path, outputs(0, count + 1))
    data = path.read_bytes()
    start = data.rfind(b"\n", 0, -1) + 1
    end = start + round(torn * (len(data) - start - 1))
    path.write_bytes(data[:end] if shape == "prefix" or count == 0 else data[:start] + bytes(end - start))
    sink, last = opened(path)
    close(sink)
    assert last == (output(count - 1).id if count else "")
    assert path.read_bytes() == data[:start]


def test_a_long_line_and_a_torn_one_behind_it_are_told_apart(tmp_path: Path) -> None:
    """A value of a mebibyte has up to six of JSON."""
    path = tmp_path / "a.jsonl"
    write(path, [output(0), output(1, "\0" * ((1 << 20) - 10)), output(2, "\0" * ((1 << 20) - 10))])
    data = path.read_bytes()
    assert len(data) > 12 << 20
    sink, last = opened(path)
    close(sink)
    assert last == output(2).id
    path.write_bytes(data[:-5])
    sink, last = opened(path)
    close(sink)
    assert last == output(1).id
    assert path.read_bytes() == data[: data.rfind(b"\n", 0, -5) + 1]


def test_a_line_that_could_not_be_found_again_is_refused_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the tail that is searched at the next start: the others of its batch are written."""
    monkeypatch.setattr(backend, "_LINE_BYTES_MAX", 400)
    path = tmp_path / "a.jsonl"
    sink, _ = opened(path)
    (one,) = asyncio.run(sink.write([output(0), output(1, "x" * 400), output(2)]))
    close(sink)
    assert (type(one), one.id) == (Refused, output(1).id)
    assert "a line has at most 400" in one.reason
    assert ids(path) == [output(0).id, output(2).id]


OURS = b'{"id":"%s","tick":0,"domain":"%s"}\n' % (output(0).id.encode(), RUN.domain.encode())


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"hello\n",
        b"\n",
        b'{"id":"x',
        b'{"id":"0123","name":"somebody"}',
        b'{"id":"0000000000000000-00000000","name',
        b'{"id":7,"domain":"' + RUN.domain.encode() + b'"}\n',
        b'{"id":"z","domain":"' + RUN.domain.encode() + b'"}\n',
        b'{"id":null,"domain":null}\n',
        b'{"name":"somebody"}\n',
        b"[1]\n",
        b"7\n",
        b"\xff\xfe\n",
        b'{"id":"\xff"}\n',
        b"[" * 20_000 + b"\n",
        OURS + b"and a note\n",
        OURS.replace(b'"tick":0', b'"tick":0,"tick":'),
        OURS.replace(b'"tick"', b'"tock"'),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    """Somebody's notes, somebody's JSON: nothing is overwritten or cut off."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    refused(path, "a jsonl sink continues its own file")


def test_the_file_of_another_journal_is_refused(tmp_path: Path) -> None:
    """Its ids mean something else."""
    path = tmp_path / "a.jsonl"
    write(path, outputs(0, 2), OTHER)
    refused(path, "outputs of the journal with domain cdcd")


def test_a_large_file_without_a_line_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And read no further than the tail."""
    monkeypatch.setattr(backend, "_TAIL_BYTES", 1_000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * 5_000)
    refused(path, "no line end in its last 1000 bytes")


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    """A directory, a folder that is missing."""
    for path, match in ((tmp_path, "is a directory"), (tmp_path / "none" / "a.jsonl", "no such file")):
        with pytest.raises(OperatorError, match=match):
            asyncio.run(JsonlSink(path).open(RUN))
    with pytest.raises(OperatorError, match="the sink is closed"):
        asyncio.run(JsonlSink(tmp_path / "a").write(outputs(0, 1)))


def test_numbers_that_json_lacks_become_null_and_are_counted(tmp_path: Path) -> None:
    """NaN and infinity, at any depth."""
    path = tmp_path / "a.jsonl"
    value = {"a": math.nan, "b": [1.5, math.inf, {"c": -math.inf}], "d": "NaN", "e": None, "f": True}
    sink = write(path, [output(0, value), output(1, math.nan), output(2, 0.0)])
    lines = [json.loads(line)["value"] for line in path.read_text().splitlines()]
    assert lines == [{"a": None, "b": [1.5, None, {"c": None}], "d": "NaN", "e": None, "f": True}, None, 0.0]
    assert sink.nonfinite == 4


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda part: (
        st.lists(part, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), part, max_size=4)
    ),
    max_leaves=12,
)


@given(values=st.lists(VALUES, min_size=1, max_size=4))
def test_every_value_that_was_published_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any]
) -> None:
    """A predecessor's run was killed by a value that is no JSON: here no canonical value can break a line."""
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    write(path, [output(n, {"v": value}) for n, value in enumerate(values)])
    data = path.read_bytes()
    assert data.count(b"\n") == len(values)
    assert ids(path) == [output(n).id for n in range(len(values))]
    sink, last = opened(path)
    close(sink)
    assert last == output(len(values) - 1).id
    assert path.read_bytes() == data


# ---------------------------------------------------------------------------- writes that fail


def broken(name: str, allowed: int, half: bool) -> Callable[..., Any]:
    """`os.write` or `os.fsync` that works `allowed` times more, then half, then not at all."""
    real, left = getattr(os, name), [allowed]

    def call(fd: int, *data: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            return real(fd, *data)
        if left[0] == -1 and half and data:
            return real(fd, data[0][: len(data[0]) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return call


@pytest.mark.parametrize(("name", "half"), [("write", False), ("write", True), ("fsync", False)])
@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_after_a_failed_write_a_retry_leaves_no_half_line_and_no_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, half: bool, allowed: int
) -> None:
    """Full half-way through a batch of several system calls: the batch is cut back and written again, once."""
    path = tmp_path / "a.jsonl"
    sink, _ = opened(path)
    asyncio.run(sink.write(outputs(0, 2)))
    before = path.read_bytes()
    batch = [output(n, math.nan if n == 5 else "x" * 300) for n in range(2, 40)]
    with monkeypatch.context() as patch:
        patch.setattr(backend.os, name, broken(name, 0 if name == "fsync" else allowed, half))
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                asyncio.run(sink.write(batch))
            assert path.read_bytes() == before
    assert asyncio.run(sink.write(batch)) == []
    asyncio.run(sink.write(outputs(40, 41)))
    close(sink)
    assert ids(path) == [output(n).id for n in range(41)]
    assert sink.nonfinite == 1, "a retry counts once"


CHILD = """
import asyncio, resource, sys
sys.path.insert(0, sys.argv[2])
from test_jsonl_sink import RUN, JsonlSink, output
from pathlib import Path
sink = JsonlSink(Path(sys.argv[1]))
print(asyncio.run(sink.open(RUN)))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, hard))
batch = [output(n, "x" * 300) for n in range(1, 40)]
try:
    asyncio.run(sink.write(batch))
except OSError as error:
    print(type(error).__name__, Path(sys.argv[1]).stat().st_size)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
asyncio.run(sink.write(batch))
asyncio.run(sink.close())
"""


def test_a_limit_of_the_system_is_a_failed_write(tmp_path: Path) -> None:
    """The kernel writes as much as fits and then refuses: seen in a process with a limit on the size of files."""
    path = tmp_path / "a.jsonl"
    write(path, outputs(0, 1))
    size = path.stat().st_size
    command = [sys.executable, "-c", CHILD, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.stderr == ""
    assert done.stdout.split() == [output(0).id, "OSError", str(size)]
    assert ids(path) == [output(n).id for n in range(40)]
