"""How many outputs a sink is handed at once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect.contract import Output, Refused, RunIdentity, Sink
from tidewarp.testing import ManualClock


class Sizes(Sink):
    kind = name = "sizes"
    delivery = "once"

    def __init__(self, clock: ManualClock, spent_s: float) -> None:
        self.sizes: list[int] = []
        self._clock, self._spent_s = clock, spent_s

    async def open(self, run: RunIdentity) -> str:
        return ""

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        self.sizes.append(len(batch))
        self._clock.advance(self._spent_s)
        return []


@pytest.mark.parametrize(
    ("spent_s", "given", "most"),
    [(0.0, {}, 2_000), (0.0, {"queue": 700}, 700), (0.0, {"batch": 300}, 300), (0.5, {}, 500)],
)
def test_a_quick_sink_is_handed_as_many_as_may_wait(spent_s: float, given: dict[str, int], most: int) -> None:
    """Unless it asks for so many at most, or takes its time; in any case all are delivered."""
    sink = Sizes(ManualClock(), spent_s)

    def build(twin: tw.Twin) -> None:
        def act() -> Generator[Any, Any, None]:
            for _ in range(1_000):
                yield twin.env.timeout(1.0)
                for _ in range(10):
                    twin.publish_event("made", 1)

        twin.process(act())
        twin.sink(sink, **given)

    with tw.open(":memory:", build, clock=sink._clock) as twin:
        twin.run(until=1_001)
    assert (sum(sink.sizes), max(sink.sizes)) == (10_000, most)
