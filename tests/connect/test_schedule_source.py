"""A list of changes as a source: virtual time alone decides when each is applied."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tidewarp.connect import sources
from tidewarp.connect.backends.schedule import ScheduleSource
from tidewarp.errors import CodecError, OperatorError
from tidewarp.testing.sources import SourceConformance

S = 10**9


class TestScheduleSource(SourceConformance):
    """What every source has to keep; below, what is the list's own."""

    test_the_decoder_is_pure = test_no_bytes_break_the_decoder = None  # a list needs no decoding
    test_what_cannot_be_opened_says_so = None  # it can always be opened: what is wrong is refused where it is written
    messages = (
        (0, {"a": 1}),
        (3 * S, {"b": "x"}),
        (2 * S, {"a": 2.5}),
        (2 * S, {"c": [1, {"k": 2.5}]}),
        (7_200 * S, {"a": True}),
    )

    def create(self, folder: Path) -> ScheduleSource:
        return ScheduleSource(
            [(0, "a", 1), (3, "b", "x"), ("2 s", "a", 2.5), (2.0, "c", [1, {"k": 2.5}]), ("2h", "a", True)]
        )


def everything(
    one: ScheduleSource, positions: Mapping[int, int] | None = None, limit: int = 2
) -> list[tuple[int, int, str, Any]]:
    """All of it as (offset, tick, path, value)."""

    async def run() -> list[tuple[int, int, str, Any]]:
        rows: list[tuple[int, int, str, Any]] = []
        await one.open(positions or {})
        assert one.decoder(epoch_ns=1_700_000_000 * S) is None
        while (part := await one.read(limit)) is not None:
            assert 1 <= len(part.ticks) <= limit
            offsets = range(part.first, part.first + len(part.ticks))
            rows += zip(offsets, part.ticks, part.paths, part.values, strict=True)
        await one.confirm({0: len(rows)})
        await one.close()
        await one.close()
        return rows

    return asyncio.run(run())


def test_times_are_virtual_and_have_no_wall_clock_in_them() -> None:
    """A predecessor's "deterministic" list ran on wall time: t = 0.5 was applied at 5.1, or never at full speed."""
    one = ScheduleSource(
        [(0, "a", 1), (0.5, "b", "x"), ("8h", "a", None), (timedelta(minutes=1), "c", [1, {"k": 2.5}])]
    )
    assert everything(one) == [
        (0, 0, "a", 1),
        (1, S // 2, "b", "x"),
        (2, 8 * 3_600 * S, "a", None),
        (3, 60 * S, "c", [1, {"k": 2.5}]),
    ]
    assert one.first_event_ns() is None
    assert one.paths() == ["a", "b", "c"]
    assert sources.schedule is ScheduleSource


def test_a_list_may_grow_at_its_end_between_two_lives() -> None:
    """The place in the list is the offset, and the list is no part of what must not change."""
    entries = [(n, "a", n) for n in range(5)]
    short, long = ScheduleSource(entries[:3]), ScheduleSource(entries)
    assert [row[0] for row in everything(short)] == [0, 1, 2]
    assert everything(long)[:3] == everything(short)
    assert [row[0] for row in everything(long, {0: 2})] == [3, 4]
    assert everything(short, {0: 2}) == []
    assert short.describe() == long.describe()


def test_a_later_change_of_a_value_does_not_reach_the_list() -> None:
    """What was given is what is sent."""
    value = [1]
    one = ScheduleSource([(0, "a", value)])
    value.append(2)
    assert everything(one) == [(0, 0, "a", [1])]


@pytest.mark.parametrize("entry", [(0, "a"), (0, "a", 1, 2), 7, None, (0, ["a"], 1), (0, None, 1), ("soon", "a", 1)])
def test_a_wrong_entry_is_refused_where_it_is_written(entry: Any) -> None:
    """A predecessor's run was killed by an item of wrong arity, or a path that cannot be hashed, when its time came."""
    with pytest.raises(OperatorError):
        ScheduleSource([(0, "a", 1), entry])


@pytest.mark.parametrize("value", [object(), {1: 2}, 2**64, "\ud800", {1, 2}])
def test_a_value_that_is_no_plain_data_is_refused_where_it_is_written(value: Any) -> None:
    """It could not be journaled."""
    with pytest.raises(CodecError):
        ScheduleSource([(0, "a", value)])
