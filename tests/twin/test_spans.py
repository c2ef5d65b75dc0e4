"""What a journal finds an input by: the ticks of each record, as the twin notes them beside it, and verify reads them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

import tidewarp as tw
from tidewarp.codec import INPUT, split_timed_body
from tidewarp.connect import Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.connect.documents import last_tick_of
from tidewarp.errors import Corrupt
from tidewarp.store import check_file, open_store
from tidewarp.twin import verify

SECOND = 1_000_000_000


class Feed(Source):
    """Messages of ten seconds, one a second, read five at a time."""

    name = "feed"
    kind = "test"

    def decoder(self, epoch_ns):
        return JsonMessages(epoch_ns)

    async def open(self, positions):
        self._left = range(positions.get(0, -1) + 1, 10)

    async def read(self, limit):
        part, self._left = self._left[:5], self._left[5:]
        found = [{"path": "pump.flow", "value": float(n), "time": n + 1} for n in part]
        return [Raw(0, n, json.dumps(one).encode()) for n, one in zip(part, found, strict=True)] or None


def model(twin):
    twin.variable("pump.flow", float)
    twin.connect(Feed(), time="payload", wait=True)


@pytest.fixture
def path(tmp_path):
    with tw.open(tmp_path / "a.tw", model, epoch="1970-01-01T00:00:00Z") as twin:
        assert twin.run(until=20).inputs == 10
    return tmp_path / "a.tw"


def test_the_twin_notes_where_each_record_of_inputs_ends(path):
    """For all of them: what is noted is what the documents say, and some records hold several ticks."""
    with open_store(path, read_only=True) as store:
        inputs = list(store.journal.read(kinds={INPUT}))
        noted = [store.journal.last_tick(one.seq) for one in inputs]
        assert noted == list(map(last_tick_of, inputs))
        spans = [(split_timed_body(one.body)[0], last) for one, last in zip(inputs, noted, strict=True)]
        assert sum(first < last for first, last in spans) >= 2
        for tick in (3 * SECOND, 8 * SECOND):
            expected = [one for one, (first, last) in zip(inputs, spans, strict=True) if first <= tick <= last]
            assert list(store.journal.read_time(tick, tick)) == expected
            assert len(expected) == 1


def test_verify_finds_an_end_that_is_not_that_of_its_inputs(path):
    """The file alone cannot know: the level is right, and what the inputs say is the twin's affair."""
    verify(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        changed = db.execute(
            "UPDATE span SET last = last - 1 WHERE seq = (SELECT seq FROM span WHERE last > tick ORDER BY last DESC)"
        )
        assert changed.rowcount == 1
    check_file(path)
    with pytest.raises(Corrupt, match="noted as ending at tick"):
        verify(path)
