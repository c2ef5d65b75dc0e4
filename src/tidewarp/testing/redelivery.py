"""The suite for sources whose target gives again what was not confirmed, and whose offsets are a count.

    class TestInbox(RedeliveryConformance):
        messages = [(10**9, {"tank.level": 1}), None, (2 * 10**9, {"tank.level": 2})]

        def create(self, folder):
            if not any(folder.iterdir()):  # a later life finds what the former one has left
                for n, body in enumerate(BODIES):
                    (folder / f"{n}.json").write_bytes(body)
            return Inbox(str(folder))

Queues, streams with groups, tables with a column "done": where the reader stands is not the journal's to say. ``Raw.id``
tells the gate what it has had. A source whose offsets are its target's own derives from ``SourceConformance``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidewarp.connect.contract import Decoder, Raw, Source
from tidewarp.testing.readings import live, positions
from tidewarp.testing.sources import SourceConformance
from tidewarp.testing.suites import made, perform, pytest

__all__ = ["RedeliveryConformance", "drained", "fresh", "one_life"]

_TURNS = 20  # of the event loop: what waits after so many, waits for data


class RedeliveryConformance(SourceConformance):
    """All tests of :class:`~tidewarp.testing.sources.SourceConformance`, of what a gate admits: each ``Raw.id`` once.

    Give the same. ``create`` fills its target the first time that it is called for a folder, and never again.
    """

    waits = True
    # The target forgets what was confirmed: there is no second run over it.
    test_a_twin_runs_on_it_is_replayed_and_resumed = None  # type: ignore[assignment]

    @pytest.mark.parametrize("turns", [0, 1, _TURNS])
    def test_it_can_be_closed_while_it_reads(self, tmp_path: Path, turns: int) -> None:
        """A read under way is cancelled, confirmed beside it; then exactly what was not confirmed is given again."""
        raws, _ = self._all(tmp_path)

        async def life() -> list[Raw]:
            source = self.create(tmp_path)
            await source.open(positions(raws))
            again = await drained(source, len(raws))
            task = asyncio.ensure_future(source.read(1))
            for _ in range(turns):
                await asyncio.sleep(0)
            await source.confirm(positions(again[:1]))
            assert not task.done(), "behind the last message it waits"
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), f"{task}: let CancelledError pass"
            await source.close()
            return await one_life(self.create(tmp_path), len(raws) - 1, positions(again))

        given = [raw.id for raw in perform(life())]
        assert given == [raw.id for raw in raws[1:]], "confirm() lets the target forget what it names, and no more"

    def _all(
        self, folder: Path, done: Sequence[Raw] = (), *, limit: int = 1_000, epoch_ns: int = 0, confirming: bool = False
    ) -> tuple[list[Raw], Decoder]:
        left = len(self.messages) if len(done) < len(self.messages) else 0
        source, behind = self.create(made(folder)), positions(done)
        raws, decoder = perform(live(source, behind, limit, left=left, epoch_ns=epoch_ns, confirming=confirming))
        for raw in raws:
            assert raw.id, f"{raw}: an offset that is a count needs an id, by which the gate knows what it has had"
            assert raw.offset > behind.get(raw.partition, -1), f"{raw}, opened behind {behind}: the count goes on"
        return fresh(raws, done), decoder


def fresh(raws: Sequence[Raw], done: Sequence[Raw]) -> list[Raw]:
    """What a gate that has ``done`` admits of ``raws``, under the offsets that they would have if nothing had come twice."""
    known = {raw.id for raw in done}
    last = positions(done)
    kept = []
    for raw in raws:
        if raw.id not in known:
            known.add(raw.id)
            last[raw.partition] = last.get(raw.partition, -1) + 1
            kept.append(raw._replace(offset=last[raw.partition]))
    return kept


async def drained(source: Source, count: int) -> list[Raw]:
    """The next ``count`` messages of an open source."""
    raws: list[Raw] = []
    while len(raws) < count:
        raws += await source.read(count - len(raws))  # type: ignore[arg-type] # neither None nor Readings: it waits
    return raws


async def one_life(
    source: Source, count: int, behind: Mapping[int, int] | None = None, confirm: bool = False
) -> list[Raw]:
    """Open behind these positions, read so many, perhaps confirm them, close."""
    try:
        await source.open(behind or {})
        raws = await drained(source, count)
        if confirm:
            await source.confirm(positions(raws))
    finally:
        await source.close()
    return raws
