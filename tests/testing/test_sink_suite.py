"""The suite for sinks finds what is wrong with a sink. (What is right, the sinks that ship show in tests/connect.)"""

from __future__ import annotations

import json
import os

import pytest

from tidewarp.connect.backends import jsonl as backend
from tidewarp.connect.backends.jsonl import JsonlSink
from tidewarp.testing import armed, raising
from tidewarp.testing.sinks import SinkConformance


class JsonlSuite(SinkConformance):
    """Not collected: each test below puts its own sink in."""

    refused = "x" * 100_000

    def __init__(self, sink):
        self.create_in = sink

    def create(self, folder):
        return self.create_in(folder / "outputs.jsonl")

    def values(self, folder):
        path = folder / "outputs.jsonl"
        return [json.loads(line)["value"] for line in path.read_bytes().splitlines()] if path.exists() else []

    def failing(self, folder):
        return armed("release.inside", raising(OSError("full")), arrival=2)


class ForgetsWhatItHolds(JsonlSink):
    async def open(self, run):
        await super().open(run)
        self._last = ""
        return ""


class CountsWhatItWasOffered(JsonlSink):
    async def open(self, run):
        last = await super().open(run)
        self._last = last and f"{int(last[:16], 16) - 10**9:016x}{last[16:]}"
        return self._last


class LooksAtNoDomain(JsonlSink):
    def _last_id(self, line):
        return json.loads(line)["id"]


class KeepsATornLine(JsonlSink):
    async def open(self, run):
        held = self.path.read_bytes() if self.path.exists() else b""
        last = await super().open(run)
        self.path.write_bytes(held)
        self._size = len(held)
        return last


class WritesWhenItCloses(JsonlSink):
    async def open(self, run):
        self.kept = []
        return await super().open(run)

    async def write(self, batch):
        self.kept += batch
        return []

    async def close(self):
        if self._file is not None:
            await super().write(self.kept)
        await super().close()


class LeavesHalfABatch(JsonlSink):
    async def write(self, batch):
        try:
            return await super().write(batch)
        except OSError:
            last = self._last
            await super().write(batch[: len(batch) // 2])
            self._last = last
            raise


class SwallowsItsErrors(JsonlSink):
    async def write(self, batch):
        try:
            return await super().write(batch)
        except OSError:
            return []


class RefusesAWholeBatch(JsonlSink):
    async def write(self, batch):
        size = self._size
        refused = await super().write(batch)
        if refused:
            self._size = size
            os.truncate(self.path, size)
        return refused


class LosesTheLastOfARetry(JsonlSink):
    failed = False

    async def write(self, batch):
        kept = batch[:-1] if self.failed and len(batch) > 1 else batch
        try:
            refused = await super().write(kept)
        except OSError:
            self.failed = True
            raise
        self.failed = False
        return refused


class TurnsABatchAround(JsonlSink):
    async def write(self, batch):
        return await super().write(batch[::-1])


class CannotWriteBytes(JsonlSink):
    async def write(self, batch):
        if any(one.value.startswith(b"\xc4") for one in batch):
            raise TypeError("bytes are no JSON")
        return await super().write(batch)


class EmptiesItsFileAtOnce(JsonlSink):
    def __init__(self, path):
        super().__init__(path)
        path.unlink(missing_ok=True)


class ClosesOnce(JsonlSink):
    async def close(self):
        if self._file is None:
            raise ValueError("it is closed")
        await super().close()


PLANTS = [
    (ForgetsWhatItHolds, "what_is_offered_again_is_not_doubled", "each output is held, in order, and once"),
    (ForgetsWhatItHolds, "open_tells_what_the_target_holds", "the last id of this run on the target"),
    (ForgetsWhatItHolds, "a_twin_delivers_to_it_and_a_replay_does_not", "each output is held, in order, and once"),
    (CountsWhatItWasOffered, "what_is_offered_again_is_not_doubled", "each output is held, in order, and once"),
    (
        LooksAtNoDomain,
        "the_outputs_of_another_run_are_no_outputs_of_this_one",
        "of this run the target holds nothing yet",
    ),
    (KeepsATornLine, "a_write_that_was_torn_is_mended", "json|Expecting|Unterminated|Invalid|Extra"),
    (WritesWhenItCloses, "it_holds_what_was_written_in_order", "is on the target when it returns"),
    (LeavesHalfABatch, "a_failed_write_can_be_tried_again", "each output is held, in order, and once"),
    (LosesTheLastOfARetry, "a_failed_write_can_be_tried_again", "each output is held, in order, and once"),
    (SwallowsItsErrors, "a_failed_write_can_be_tried_again", "DID NOT RAISE"),
    (
        RefusesAWholeBatch,
        "what_the_target_refuses_is_returned_and_the_rest_is_held",
        "the others of the batch are held",
    ),
    (TurnsABatchAround, "it_holds_what_was_written_in_order", "is on the target when it returns"),
    (CannotWriteBytes, "any_value_is_written_or_refused", "bytes are no JSON"),
    (EmptiesItsFileAtOnce, "a_twin_delivers_to_it_and_a_replay_does_not", "only open"),
    (ClosesOnce, "close_may_come_at_any_time", "it is closed"),
]


@pytest.mark.parametrize(("plant", "test", "told"), PLANTS)
def test_a_planted_fault_of_a_sink_is_found(plant, test, told, tmp_path, monkeypatch):
    """By the test whose sentence it breaks, which says what to do; the sink that it is planted in passes."""
    monkeypatch.setattr(backend, "_LINE_BYTES_MAX", 80_000)
    options = [""] if test == "what_is_offered_again_is_not_doubled" else []
    for name in ("sound", "planted"):
        (tmp_path / name).mkdir()
    getattr(JsonlSuite(JsonlSink), f"test_{test}")(tmp_path / "sound", *options)
    with pytest.raises(BaseException, match=told):  # pytest's own failures are no Exception
        getattr(JsonlSuite(plant), f"test_{test}")(tmp_path / "planted", *options)
