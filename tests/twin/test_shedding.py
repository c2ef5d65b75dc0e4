"""A twin whose sources send more than it can take: what is let go is counted, and no replay has to know of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect import Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import OperatorError
from tidewarp.twin import Build, journal_rows, verify

COUNT = 2_000


class Holding(Source):
    """The clock waits for its one message, which comes once the flood is over."""

    name, kind, clock = "holding", "holding", "wall"

    def __init__(self) -> None:
        self.over = [False]
        self.given = False

    def decoder(self, epoch_ns: int) -> JsonMessages:
        return JsonMessages(epoch_ns)

    async def open(self, positions: Mapping[int, int]) -> None:
        self.given = 0 in positions

    async def read(self, limit: int) -> Sequence[Raw] | None:
        if self.given:
            return None
        while not self.over[0]:
            await asyncio.sleep(0)
        self.given = True
        return [Raw(0, 0, b'{"path": "a.other", "value": 1}')]


def model(full: str, count: int = COUNT, coalesce: bool = False) -> Build:
    def build(twin: tw.Twin) -> None:
        level = twin.variable("a.level", int, coalesce=coalesce)
        twin.variable("a.other", int)
        holding = Holding()

        async def flood() -> AsyncIterator[Any]:
            for n in range(count):
                yield {"path": "a.level", "value": n}
            holding.over[0] = True

        def follow() -> Any:
            changes = level.changes(capacity=COUNT + 1)
            while True:
                twin.publish_event("level", (yield changes.next()).new)

        twin.process(follow())
        twin.connect(tw.sources.python(flood), full=full, queue=600)
        twin.connect(holding, wait=True, idle="1 h")

    return build


@pytest.mark.parametrize("full", ["drop_oldest", "drop_newest"])
def test_a_flood_that_cannot_be_held_up_is_shed_and_counted(tmp_path: Path, full: str) -> None:
    """While the clock waits for another source. The journal says how many, its cursors pass over them, a later life agrees."""
    path = tmp_path / "a.tw"
    with tw.open(path, model(full)) as twin:
        summary = twin.run(factor=0)
        last = twin.registry.get("a.level").value
    shed = summary.shed["python"]
    assert 0 < shed < COUNT
    assert summary.inputs == COUNT - shed + 1
    assert (last == COUNT - 1) == (full == "drop_oldest")
    assert sum(row["shed"] for row in journal_rows(path, kind="shed")) == shed
    assert verify(path).digest == summary.digest
    again = tw.replay(path, model(full))
    assert (again.equal, again.digest) == (True, summary.digest)
    with tw.open(path, model(full, count=3)) as twin:
        later = twin.run(factor=0)
    assert (later.shed, later.inputs) == ({"python": shed}, summary.inputs + 3)


def test_of_a_burst_a_coalescing_variable_keeps_the_last(tmp_path: Path) -> None:
    """Of each drain; the counts are those of all lives."""
    path = tmp_path / "a.tw"
    with tw.open(path, model("block", coalesce=True)) as twin:
        summary = twin.run(factor=0)
        assert twin.registry.get("a.level").value == COUNT - 1
    assert summary.inputs + summary.coalesced == COUNT + 1
    assert summary.inputs < 100
    assert verify(path).digest == summary.digest
    again = tw.replay(path, model("block", coalesce=True))
    assert (again.equal, again.digest) == (True, summary.digest)
    with tw.open(path, model("block", count=0, coalesce=True)) as twin:
        assert twin.run(factor=0).coalesced == summary.coalesced


def test_what_the_clock_waits_for_is_not_let_go(tmp_path: Path) -> None:
    """It would be by chance which of its messages counted."""

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", int)
        twin.connect(tw.sources.schedule([(1, "a.level", 1)]), full="drop_oldest")

    with pytest.raises(OperatorError, match="wait=True"):
        tw.open(tmp_path / "a.tw", build)
    with pytest.raises(OperatorError, match="one of block, drop_oldest, drop_newest"):
        tw.open(tmp_path / "b.tw", model("spill"))
