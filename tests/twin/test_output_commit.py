"""Output commit alone: what has left does not leave again."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidewarp.connect.contract import Output
from tidewarp.twin.output_commit import OutputCommit, Told

TICKS = range(1, 9)


def committing(left: list[int]) -> tuple[OutputCommit, SimpleNamespace]:
    """That of a run whose inputs may come late, and its gate; the ticks of what leaves are added to ``left``."""
    sources = SimpleNamespace(repairs=True, lives=False, has_local=False, arrivals_only=False)
    gate: Any = SimpleNamespace(sources=sources, gvt=0)
    dispatcher: Any = SimpleNamespace(publish=lambda outputs, begun_s: left.extend(one.tick for one in outputs))
    outbox: Any = SimpleNamespace(early=())
    clock: Any = SimpleNamespace(now=lambda: 0.0)
    journal: Any = SimpleNamespace(size=0)
    return OutputCommit(gate, outbox, dispatcher, journal, None, clock, lambda stage, begun_s: None), gate  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from(TICKS), st.sampled_from(TICKS)), max_size=6))
def test_a_run_that_was_made_anew_releases_nothing_again(lives: list[tuple[int, int]]) -> None:
    """Each run gives all from the first tick on, up to where it stands; GVT is told in between. Each leaves once, in order."""
    left: list[int] = []
    commit, gate = committing(left)
    furthest = 0
    for stands_at, gvt in [*lives, (TICKS.stop, TICKS.stop)]:
        commit.replace("", [])  # what waited is of the run before
        commit.take([Output(f"{tick:016x}-00000000", tick, "pump", b"{}", "", "", 0) for tick in range(1, stands_at)])
        gate.gvt = max(gate.gvt, min(gvt, stands_at))
        told: Future[Any] = Future()
        told.set_result(None)
        commit.hear(Told(gate.gvt, told))
        commit.settle(stands_at, TICKS.stop, 0.0, is_repairing=False)
        furthest = max(furthest, gate.gvt - 1)
        assert left == [*range(1, furthest + 1)]
    assert left == [*TICKS]
