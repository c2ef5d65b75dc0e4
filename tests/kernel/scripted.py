"""A model whose handler is whatever the test says: for the rules of the Python tier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tidewarp import kernel
from tidewarp.kernel import Array, Context, Engine, LogicalProcess, Model, Result, b1, f64, i64, on, u8


class Go(NamedTuple):
    """Makes an LP run the script."""

    step: i64 = 0


class Letter(NamedTuple):
    """A message with fields to get wrong."""

    small: u8
    cells: Array[i64, 2]


class Unknown(NamedTuple):
    """No model knows it."""

    n: i64


class Deaf(LogicalProcess):
    """Has no handler of Letter."""

    n: i64

    @on(Go)
    def go(self, now: int, go: Go, ctx: Context) -> None:
        """Count."""
        self.n += 1


Script = Callable[[Any, int, Go, Context], None]
SCRIPT: list[Script] = []


class Scripted(LogicalProcess):
    """Runs the script at every Go; keeps letters."""

    n: i64
    x: f64
    flag: b1
    cells: Array[i64, 2]

    def start(self, ctx: Context) -> None:
        """The first LP begins."""
        if ctx.lp == 0:
            ctx.send(0, 10, Go())

    @on(Go)
    def go(self, now: int, go: Go, ctx: Context) -> None:
        """Whatever the test says."""
        return SCRIPT[-1](self, now, go, ctx)

    @on(Letter)
    def letter(self, now: int, letter: Letter, ctx: Context) -> None:
        """Copy the letter."""
        self.n = letter.small
        self.cells[0], self.cells[1] = letter.cells[0], letter.cells[1]


def scripted(script: Script, *, lookahead: int = 0, links: bool = False, seed: int = 1) -> Model:
    """Two Scripted (0, 1) and a Deaf (2); with ``links`` 0 may send to 2 and 1, in this order, after 3 and 5 ticks."""
    SCRIPT.append(script)
    model = Model("scripted", lookahead=lookahead, seed=seed, messages=[Letter], trace_interval=100)
    model.add(Scripted, 2, path="s")
    model.add(Deaf, 1, path="deaf")
    model.table("small", [3, 1, 2])
    model.table("square", [[1.5, 2.5], [3.5, 4.5]])
    model.accumulator("count")
    model.accumulator("least", "min")
    model.accumulator("most", "max")
    model.input("sensor")
    if links:
        model.link(0, 2, lookahead=3)
        model.link(0, 1, lookahead=5)
    return model


def run(model: Model, until: int, **options: Any) -> Result:
    """``kernel.run`` in the Python tier: nothing is compiled."""
    return kernel.run(model, until, **{"tier": "python", **options})


def play(script: Script, until: int = 1000, **arguments: Any) -> Result:
    """Run the script to the end, in the reference."""
    return run(scripted(script, **arguments), until)


def opened(script: Script, **arguments: Any) -> Engine:
    """An engine of the reference with the script."""
    return Engine(scripted(script, **arguments), tier="python")
