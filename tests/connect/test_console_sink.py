"""Outputs as lines for people: no output, no terminal ends a run."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tidewarp.codec import pack
from tidewarp.connect import sinks
from tidewarp.connect.backends.console import ConsoleSink
from tidewarp.connect.contract import Output
from tidewarp.connect.payload import event_payload
from tidewarp.errors import OperatorError
from tidewarp.testing.sinks import RUN, SinkConformance


class Terminal(io.StringIO):
    """Its line may be cut: then it takes half of what is written."""

    is_cut = False

    def write(self, text: str) -> int:
        if self.is_cut:
            super().write(text[: len(text) // 2] + "\n")
            raise OSError(errno.EIO, "the line is cut")
        return super().write(text)

    @contextmanager
    def cut(self) -> Iterator[None]:
        self.is_cut = True
        yield
        self.is_cut = False


class TestConsoleSink(SinkConformance):
    """What every sink has to keep; below, what is a terminal's own."""

    test_a_write_that_was_torn_is_mended = None  # what a terminal has shown, nobody mends
    test_the_outputs_of_another_run_are_no_outputs_of_this_one = None  # nor does it know what it has shown
    test_what_cannot_be_opened_says_so = test_what_the_target_refuses_is_returned_and_the_rest_is_held = None  # no such

    @pytest.fixture(autouse=True)
    def terminal(self) -> None:
        self.stream = Terminal()

    def create(self, folder: Path) -> ConsoleSink:
        return ConsoleSink(stream=self.stream)

    def values(self, folder: Path) -> list[Any]:
        lines = self.stream.getvalue().split("\n")
        return [json.loads(line.split(" ", 3)[3]) for line in lines if line.count(" ") >= 3]

    def failing(self, folder: Path) -> AbstractContextManager[object]:
        return self.stream.cut()


def output(n: int, value: object) -> Output:
    return Output(f"{n:016x}-00000000", n * 10**9, "alarm", pack(value), "", "", n)


def test_one_line_for_each_output_in_order() -> None:
    """Kind, time of the twin, key, value as JSON."""
    stream = io.StringIO()
    sink = ConsoleSink(stream=stream)

    async def run() -> None:
        assert await sink.open(RUN) is None, "a terminal does not tell what it has shown"
        assert await sink.write([output(0, {"a": [1, "x\ny"]}), output(90, math.nan)]) == []
        await sink.close()
        await sink.close()

    asyncio.run(run())
    assert stream.getvalue() == (
        '[EVT] 2013-12-02T21:15:00.000+00:00 alarm {"a":[1,"x\\ny"]}\n[EVT] 2013-12-02T21:16:30.000+00:00 alarm null\n'
    )
    assert (sink.delivery, sink.name, sinks.console) == ("at_least_once", "console", ConsoleSink)


def test_it_writes_to_standard_output_and_leaves_it_open(capsys: pytest.CaptureFixture[str]) -> None:
    """The default stream is that of the moment of wiring."""
    sink = ConsoleSink(name="here")
    asyncio.run(sink.write([output(0, 1)]))
    asyncio.run(sink.close())
    print("still open")
    assert capsys.readouterr().out == "[EVT] 1970-01-01T00:00:00.000+00:00 alarm 1\nstill open\n"


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "→é"), ("latin-1", r"\u2192é"), ("ascii", r"\u2192\xe9")])
def test_a_terminal_without_the_character_gets_its_number(encoding: str, shown: str) -> None:
    """A locale must not end a run."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    sink = ConsoleSink(stream=stream)
    asyncio.run(sink.write([output(0, "→é"), output(1, "plain")]))
    lines = raw.getvalue().decode(encoding).splitlines()
    assert lines[0].endswith(f' alarm "{shown}"')
    assert lines[1].endswith(' alarm "plain"')


def test_every_line_is_out_when_a_write_returns() -> None:
    """Delivered means that somebody could read it."""
    raw = io.BytesIO()
    sink = ConsoleSink(stream=io.TextIOWrapper(raw, write_through=False))
    asyncio.run(sink.write([output(0, 1)]))
    assert raw.getvalue().endswith(b"alarm 1\n")


def test_a_reader_that_has_gone_ends_the_run() -> None:
    """`| head` will not come back: a retry would hold the run up, and find the same."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(OperatorError, match="its reader has gone"):
        asyncio.run(ConsoleSink(stream=Closed()).write([output(0, 1)]))


def test_telemetry_has_a_tag_of_its_own_and_its_key_is_a_path() -> None:
    """[TEL] on the console, `path_id` in the payload of every sink."""
    stream = io.StringIO()
    sink = ConsoleSink(stream=stream)
    outputs = [
        Output(f"0-{n}", n, "line.use", pack(0.5), "c", "r", 1, kind) for n, kind in enumerate(("event", "telemetry"))
    ]
    asyncio.run(sink.open(RUN))
    asyncio.run(sink.write(outputs))
    lines = stream.getvalue().splitlines()
    assert [(line[:5], line.split(" ", 2)[2]) for line in lines] == [
        ("[EVT]", "line.use 0.5"),
        ("[TEL]", "line.use 0.5"),
    ]
    event, telemetry = [event_payload(one, RUN) for one in outputs]
    assert (event["stream_type"], event["key"], "path_id" in event) == ("event", "line.use", False)
    assert (telemetry["stream_type"], telemetry["path_id"], "key" in telemetry) == ("telemetry", "line.use", False)
    assert (telemetry["cause"], telemetry["root"]) == ("c", "r")
