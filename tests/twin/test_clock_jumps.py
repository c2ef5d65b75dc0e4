"""A calendar that is set while a twin runs, and a machine that sleeps: the pace knows them, the result does not."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.testing import ManualClock

BEGIN_S = 1_767_225_600  # the calendar when the run begins
EPOCH = "2026-01-01T00:00:00Z"


class Adjusted(ManualClock):
    """Somebody sets the calendar by an hour, on and back, at every reading behind the first."""

    def __init__(self, step_s: int) -> None:
        super().__init__(unix_ns=BEGIN_S * 10**9)
        self._step_s, self._readings = step_s, 0

    def unix_ns(self) -> int:
        self._readings += 1
        return super().unix_ns() + (self._step_s * 10**9 if self._readings % 2 == 0 else 0)


def model(happen: Callable[[float], None], published: Any) -> Callable[[tw.Twin], None]:
    """It notes its time every half second; ``happen`` is what befalls the machine then, unseen by it."""

    def build(twin: tw.Twin) -> None:
        level = twin.variable("a.level", int)

        def tick() -> Generator[Any, Any, None]:
            while True:
                yield twin.env.timeout(0.5)
                happen(twin.now)
                twin.publish_event("tick", level.value)

        twin.process(tick())
        twin.connect(tw.sources.schedule([(n, "a.level", n) for n in range(1, 11)]))
        twin.sink(published)

    return build


def told(tmp_path: Path, clock: ManualClock, happen: Callable[[float], None]) -> tuple[tw.Summary, list[Any]]:
    published = tw.sinks.memory()
    build = model(happen, published)
    with tw.open(tmp_path / f"{len([*tmp_path.iterdir()])}.tw", build, clock=clock, epoch=EPOCH) as twin:
        summary = twin.run(until=12, go_live=True)  # so it follows the calendar
    return summary, [(one["sim_ts"], one["value"]) for one in published.records]


@pytest.mark.parametrize("step_s", [3_600, -3_600])
def test_a_calendar_that_is_set_moves_nothing(tmp_path: Path, step_s: int) -> None:
    """By an hour, forth and back, all the time: the monotonic clock paces."""
    undisturbed, expected = told(tmp_path, ManualClock(unix_ns=BEGIN_S * 10**9), lambda now: None)
    summary, found = told(tmp_path, Adjusted(step_s), lambda now: None)
    assert found == expected
    assert (summary.virtual_time_s, summary.lag_s_max < 1) == (12.0, True)
    assert summary.digest == undisturbed.digest
    assert summary.wall_s == pytest.approx(undisturbed.wall_s, abs=1)


def test_a_machine_that_sleeps_is_late_and_catches_up(tmp_path: Path) -> None:
    """SIGSTOP, or a closed lid, for 30 s: that is its lag, and nothing else of it is left."""
    undisturbed, expected = told(tmp_path, ManualClock(unix_ns=BEGIN_S * 10**9), lambda now: None)
    clock = ManualClock(unix_ns=BEGIN_S * 10**9)
    summary, found = told(tmp_path, clock, lambda now: clock.advance(30) if now == 5 else None)
    assert found == expected
    assert summary.digest == undisturbed.digest
    assert summary.lag_s_max == pytest.approx(30, abs=1)
    assert undisturbed.lag_s_max < 1
