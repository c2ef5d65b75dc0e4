"""A program whose handler, or ``start``, does not end: run by tests as a child with a short ``handler_timeout_s``.

python endless.py WHERE KERNEL TIER WORKERS [FOLDER FOR CHECKPOINTS]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

from tidewarp.kernel import Context, LogicalProcess, Model, i64, on, run

TIMEOUT_S = 0.3
HORIZON = 4_000_000


class Step(NamedTuple):
    n: i64


class Open(NamedTuple):
    """Without it, which comes just in time, ``Waits`` does not end."""

    n: i64


class Counts(LogicalProcess):
    """Counts, and never ends a count that its parameter names."""

    n: i64

    def start(self, ctx: Context) -> None:
        ctx.send(ctx.lp, 1, Step(0))

    @on(Step)
    def step(self, now: int, step: Step, ctx: Context) -> None:
        while step.n == 2000 and self.n >= 0:
            self.n ^= 1
        ctx.send(ctx.lp, 1, Step(step.n + 1))


class NeverStarts(LogicalProcess):
    n: i64

    def start(self, ctx: Context) -> None:
        while ctx.lp == 1:
            self.n += 1

    @on(Step)
    def step(self, now: int, step: Step, ctx: Context) -> None:
        self.n += 1


class Works(LogicalProcess):
    """Much to do before it opens."""

    n: i64

    def start(self, ctx: Context) -> None:
        ctx.send(ctx.lp, 1, Step(0))

    @on(Step)
    def step(self, now: int, step: Step, ctx: Context) -> None:
        if now < HORIZON // 2:
            ctx.send(ctx.lp, 1, Step(0))
        else:
            ctx.send(1, 1, Open(0))


class Waits(LogicalProcess):
    """Ends where events come in order: only an execution ahead of GVT finds it closed."""

    opened: i64
    n: i64

    def start(self, ctx: Context) -> None:
        ctx.send(ctx.lp, HORIZON, Step(0))

    @on(Open)
    def open(self, now: int, message: Open, ctx: Context) -> None:
        self.opened = 1

    @on(Step)
    def step(self, now: int, step: Step, ctx: Context) -> None:
        while self.opened == 0:
            self.n ^= 1


def model_of(where: str) -> Model:
    """Two LPs, of which one does not end ``where``: in start, handler, or ahead (of GVT)."""
    model = Model("endless", lookahead=1, trace_interval=500)
    if where == "ahead":
        model.add(Works, 1, path="works")
        model.add(Waits, 1, path="waits")
    else:
        model.add(Counts if where == "handler" else NeverStarts, 2, path="lp")
    return model


def main(where: str, kernel: str, tier: str, workers: str, folder: str | None = None) -> None:
    """Run it."""
    how: dict[str, Any] = {"window": 10**9} if where == "ahead" else {}
    if folder is not None:
        how |= {"checkpoint": Path(folder), "checkpoint_every": 500}
    run(
        model_of(where),
        2 * HORIZON,
        kernel=kernel,
        tier=tier,
        workers=int(workers),
        handler_timeout_s=TIMEOUT_S,
        digest="off",
        **how,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
