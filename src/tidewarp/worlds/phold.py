"""PHOLD: balls that hop between processes; the classical benchmark of Time Warp (Fujimoto 1990)."""

from __future__ import annotations

from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from tidewarp.kernel import Array, Context, LogicalProcess, Model, f64, i64, mix64, on, u64
from tidewarp.units import seconds

__all__ = ["Ball", "Carrier", "Parcel", "Phold", "Process", "phold"]

WORD = 8  # bytes


class Ball(NamedTuple):
    """What hops; its token is the hash of the process that sent it."""

    token: u64


class Phold(NamedTuple):
    """Parameters."""

    population: i64  # balls per process
    remote: f64  # share of balls sent to a random process
    lookahead: i64  # ticks
    mean: i64  # ticks, on top of the lookahead
    grain: i64  # rounds of extra work per event


class Process(LogicalProcess):
    """Keeps a hash of all that it has received, in order: two runs with one swapped pair of events end differently."""

    hash: u64
    hits: i64

    def start(self, ctx: Context) -> None:
        """Send the first balls to oneself."""
        for token in range(ctx.params.population):
            ctx.send(ctx.lp, ctx.params.lookahead + ctx.exponential(ctx.params.mean), Ball(token))

    @on(Ball)
    def receive(self, now: int, ball: Ball, ctx: Context) -> None:
        """Take the ball in, work, send it on."""
        self.hits += 1
        self.hash = mix64(self.hash ^ ball.token ^ now)
        for _ in range(ctx.params.grain):
            self.hash = mix64(self.hash)
        dst = ctx.lp
        if ctx.random() < ctx.params.remote:
            dst = ctx.below(ctx.n_lps)
        ctx.send(dst, ctx.params.lookahead + ctx.exponential(ctx.params.mean), Ball(self.hash))


class Parcel(NamedTuple):
    """A ball with a load, which is carried along and never looked at."""

    token: u64
    load: Array[u64, 7]


class Carrier(Process):
    """The same with parcels: what a message costs by its size."""

    def start(self, ctx: Context) -> None:
        """Send the first parcels to oneself."""
        for token in range(ctx.params.population):
            delay = ctx.params.lookahead + ctx.exponential(ctx.params.mean)
            ctx.send(ctx.lp, delay, Parcel(token, ctx.table("load")))

    @on(Parcel)
    def receive(self, now: int, parcel: Parcel, ctx: Context) -> None:  # type: ignore[override]
        """Take the parcel in, work, send it on."""
        self.hits += 1
        self.hash = mix64(self.hash ^ parcel.token ^ now)
        for _ in range(ctx.params.grain):
            self.hash = mix64(self.hash)
        dst = ctx.lp
        if ctx.random() < ctx.params.remote:
            dst = ctx.below(ctx.n_lps)
        ctx.send(dst, ctx.params.lookahead + ctx.exponential(ctx.params.mean), Parcel(self.hash, parcel.load))


def phold(
    lps: int = 1024,
    population: int = 16,
    remote: float = 0.1,
    lookahead: int = seconds(0.1),
    mean: int = seconds(0.9),
    grain: int = 0,
    seed: int = 1,
    *,
    payload_bytes: int = WORD,
    state_bytes: int = 2 * WORD,
) -> Model:
    """The model: ``lookahead`` and ``mean`` in ticks; ``grain`` adds about 3.7 ns of work a round when compiled.

    ``payload_bytes`` (>= 8) is the size of a message's fields, ``state_bytes`` (>= 16) that of a process's, both
    multiples of 8: what is more than PHOLD needs is carried along.
    """
    model = Model("phold", Phold(population, remote, lookahead, mean, grain), lookahead=lookahead, seed=seed)
    load, ballast = payload_bytes // WORD - 1, state_bytes // WORD - 2
    if load:
        model.table("load", np.arange(load, dtype=np.uint64))
    model.add(_process(load, ballast), lps, path="process")
    return model


def _process(load: int, ballast: int) -> type[LogicalProcess]:
    """The class whose messages and rows have so many more words."""
    cls: Any = Process
    if load:
        # No class statement: its annotations would be text, and nobody could say what `load` was.
        parcel: Any = type("Parcel", (Parcel,), _annotated("load", load))
        methods = {name: _rebound(getattr(Carrier, name), parcel) for name in ("start", "receive")}
        cls = type("Carrier", (Carrier,), {**methods, "receive": on(parcel)(methods["receive"])})
    if ballast:
        cls = type(cls.__name__, (cls,), _annotated("ballast", ballast))
    return cls  # type: ignore[no-any-return]


def _annotated(name: str, words: int) -> dict[str, Any]:
    array: Any = Array
    return {"__annotations__": {name: array[u64, words]}}


def _rebound(method: FunctionType, parcel: type) -> Any:
    """A method of Carrier that makes parcels of another size: the same code, another class behind the name."""
    copy = FunctionType(method.__code__, {**method.__globals__, "Parcel": parcel}, method.__name__)
    copy.__qualname__ = method.__qualname__
    return copy
