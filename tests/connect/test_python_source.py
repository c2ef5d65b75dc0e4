"""An async iterator of the program as a live source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect import Raw
from tidewarp.connect.backends.python import PythonSource
from tidewarp.errors import OperatorError
from tidewarp.testing.suites import perform


async def three() -> AsyncIterator[Any]:
    yield {"path": "a.level", "value": 1}
    yield b'{"path": "a.level", "value": 2}'
    yield {"path": "a.level", "value": object()}


def test_what_is_ready_comes_together_and_then_the_end() -> None:
    """Mappings as JSON, bytes as they are, and what has no JSON form as text; offsets go on behind the position."""

    async def life() -> None:
        source = PythonSource(three)
        await source.open({0: 6})
        first = await source.read(2)
        assert first == [Raw(0, 7, b'{"path":"a.level","value":1}'), Raw(0, 8, b'{"path": "a.level", "value": 2}')]
        rest = await source.read(9)
        assert rest is not None
        assert [(raw.offset, raw.payload[:8]) for raw in rest] == [(9, b"{'path':")]
        assert await source.read(1) is None
        await source.close()
        await source.close()

    perform(life())


def test_it_can_be_closed_while_it_waits() -> None:
    """The iterator is told: its `finally` runs."""
    ended = []

    async def waiting() -> AsyncIterator[Any]:
        try:
            await asyncio.Event().wait()
            yield {}
        finally:
            ended.append(True)

    async def life() -> None:
        source = PythonSource(waiting)
        await source.open({})
        reading = asyncio.ensure_future(source.read(5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await source.close()

    perform(life())
    assert ended == [True]


@pytest.mark.parametrize("make", [lambda: three, three], ids=["function", "iterator"])
def test_a_twin_follows_it_and_replays(tmp_path: Any, make: Callable[[], Any]) -> None:
    """Two readings, one dead letter, in the order of arrival; the run ends with the iterator, however it is given."""

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", float)
        twin.connect(tw.sources.python(make()))

    with tw.open(tmp_path / "a.tw", build) as twin:
        summary = twin.run(factor=0)
        assert twin.registry.get("a.level").value == 2.0
    assert (summary.inputs, summary.dead_letters, summary.late) == (2, 1, 0)
    assert tw.replay(tmp_path / "a.tw", build).digest == summary.digest


def test_an_outage_begins_a_function_anew_and_ends_an_iterator() -> None:
    """What it cannot give again is said, and not passed over as its end."""

    async def once() -> AsyncIterator[Any]:
        yield {"path": "a.level", "value": 1}
        raise ConnectionError("gone")

    async def lives(source: PythonSource) -> list[int]:
        offsets = []
        for position in ({}, {0: 0}):
            await source.open(position)
            offsets += [raw.offset for raw in await source.read(10) or ()]
            with pytest.raises(ConnectionError):
                await source.read(10)
            await source.close()
        return offsets

    assert perform(lives(PythonSource(once))) == [0, 1]
    with pytest.raises(OperatorError, match="no second beginning; give the function"):
        perform(lives(PythonSource(once())))


@pytest.mark.parametrize("wrong", [None, [1], three.__name__])
def test_what_gives_no_messages_is_refused_where_it_is_named(wrong: Any) -> None:
    """In `build`, not when the run has begun."""
    with pytest.raises(OperatorError, match="an async iterator, or a function that makes one"):
        PythonSource(wrong)


def test_a_function_that_gives_a_plain_iterator_is_refused_when_it_is_called() -> None:
    source = PythonSource(lambda: iter([]), name="plant")  # type: ignore[arg-type, return-value]
    with pytest.raises(OperatorError, match=r"what its function gave is of type list_iterator.*an async iterator"):
        perform(source.open({}))
