"""Loops whose only way out stands in the middle of them: both tiers read the variable that was set last."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tidewarp.kernel import Context, LogicalProcess, Model, i64, on, run

STEPS = 8


@pytest.fixture(autouse=True, scope="module")
def _numba(require):
    require("numba")


class Step(NamedTuple):
    n: i64


class Nothing(NamedTuple):
    """No parameters."""


class Loop(LogicalProcess):
    """Each handler below gets the numbers 0 to 7."""

    total: i64

    def start(self, ctx: Context) -> None:
        for n in range(STEPS):
            ctx.send(ctx.lp, n + 1, Step(n))


class ReadOnTheWayOut(Loop):
    @on(Step)
    def take(self, now: int, step: Step, ctx: Context) -> None:
        x, turns = 1, 0
        while True:
            turns += 1
            if turns > 3:
                self.total += x
                x = 2
                break
            x = step.n + 5


class ReadBehindTheWayOut(Loop):
    @on(Step)
    def take(self, now: int, step: Step, ctx: Context) -> None:
        x, turns = 1, 0
        while True:
            turns += 1
            if turns > 3:
                x = 2
                break
            self.total += x


class Carried(Loop):
    @on(Step)
    def take(self, now: int, step: Step, ctx: Context) -> None:
        x, turns = 1, 0
        while True:
            turns += 1
            if turns > 3:
                x = x * 2
                break
            x = x + step.n
        self.total += x


class Condition(Loop):
    @on(Step)
    def take(self, now: int, step: Step, ctx: Context) -> None:
        x = step.n
        while True:
            if x > 20:
                x = x - 7
                break
            for k in range(3):
                self.total += x - k
            x = x + 3
        self.total += x


class Nested(Loop):
    @on(Step)
    def take(self, now: int, step: Step, ctx: Context) -> None:
        x, turns = 1, 0
        while True:
            while True:
                turns += 1
                if turns % 3 == 0:
                    self.total += x
                    x = turns
                    break
                x = x + step.n
            if turns > 9:
                self.total -= x
                x = 4
                break
            x = 2 * x


@pytest.mark.parametrize("cls", [ReadOnTheWayOut, ReadBehindTheWayOut, Carried, Condition, Nested])
def test_the_way_out_of_a_loop_does_not_change_what_the_loop_reads(cls: type[Loop]) -> None:
    """One state and digest in both tiers."""
    results = []
    for tier in ("python", "compiled"):
        model = Model("loops", Nothing())
        model.add(cls, 1, path="loop")
        results.append(run(model, 2 * STEPS, tier=tier))
    python, compiled = results
    assert python.state(0) == compiled.state(0)
    assert python.digest == compiled.digest
    assert python.state(0)["total"] != 0
