"""Outputs over several files of JSON lines, as a router says: each of them once, whatever was killed between two files."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tidewarp.connect.backends import jsonl as backend
from tidewarp.connect.backends.jsonl import JsonlSink
from tidewarp.errors import OperatorError
from tidewarp.testing import armed, raising
from tidewarp.testing.sinks import RUN, SinkConformance, output, outputs
from tidewarp.testing.suites import perform


def values(folder: Path) -> list[Any]:
    """Of all files below the folder, by id."""
    lines = [json.loads(line) for path in folder.rglob("*.jsonl") for line in path.read_bytes().splitlines()]
    return [line["value"] for line in sorted(lines, key=lambda line: str(line["id"]))]


def by_tick(record: Mapping[str, Any]) -> str:
    return f"{record['tick'] % 7 % 3}/{record['stream_type']}.jsonl"


class TestRoutedJsonlSink(SinkConformance):
    """What every sink has to keep, over three files."""

    refused = "x" * 100_000
    test_the_outputs_of_another_run_are_no_outputs_of_this_one = None  # of each file by itself: see below

    @pytest.fixture(autouse=True)
    def short_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "_LINE_BYTES_MAX", 80_000)

    def create(self, folder: Path) -> JsonlSink:
        return JsonlSink(folder / "outputs.jsonl", router=by_tick)

    def create_broken(self, folder: Path) -> JsonlSink:
        return JsonlSink(folder / "none" / "outputs.jsonl", router=by_tick)

    def values(self, folder: Path) -> list[Any]:
        return values(folder)

    def failing(self, folder: Path) -> AbstractContextManager[object]:
        return armed("release.inside", raising(OSError(errno.ENOSPC, "No space left")), arrival=3)


def test_a_router_says_where_and_may_say_nowhere(tmp_path: Path) -> None:
    """What it drops is counted, and so is what it cannot say: that goes to the sink's own file."""
    answers = iter(["a/b.jsonl", None, "../up.jsonl", "/etc/x", "own.jsonl"])
    sink = JsonlSink(tmp_path / "own.jsonl", router=lambda record: next(answers))

    async def run() -> None:
        await sink.open(RUN)
        await sink.write(outputs(0, 6))
        await sink.close()

    perform(run())
    assert (sink.router.dropped, sink.router.misrouted) == (1, 3)
    assert values(tmp_path / "a") == [0]
    assert [json.loads(line)["value"] for line in (tmp_path / "own.jsonl").read_bytes().splitlines()] == [2, 3, 4, 5]


def test_no_more_files_are_open_than_a_process_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is closed in between is opened again, and says what it holds."""
    monkeypatch.setattr(backend, "_FILES_MAX", 2)
    sink = JsonlSink(tmp_path / "own.jsonl", router=lambda record: f"{record['value'] % 5}.jsonl")

    async def run() -> None:
        await sink.open(RUN)
        for end in (20, 20, 40):
            await sink.write(outputs(0, end))
            assert len(sink._files or {}) <= 2
        await sink.close()

    perform(run())
    assert values(tmp_path) == [*range(40)]


def test_a_file_of_another_run_is_left_alone(tmp_path: Path) -> None:
    """It is found when a record is routed to it."""

    async def run(domain: str, first: int) -> None:
        sink = JsonlSink(tmp_path / "own.jsonl", router=lambda record: "one.jsonl")
        await sink.open(RUN._replace(domain=domain))
        try:
            await sink.write([output(first)])
        finally:
            await sink.close()

    perform(run(RUN.domain, 0))
    with pytest.raises(OperatorError, match="continues its own"):
        perform(run("cd" * 32, 1))
    assert values(tmp_path) == [0]
