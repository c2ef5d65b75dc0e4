"""PHOLD: balls that hop between processes; the classical benchmark of Time Warp (Fujimoto 1990)."""

from __future__ import annotations

from typing import NamedTuple

from tidewarp.kernel import Context, LogicalProcess, Model, f64, i64, mix64, on, u64
from tidewarp.units import seconds

__all__ = ["Ball", "Phold", "Process", "phold"]


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


def phold(
    lps: int = 1024,
    population: int = 16,
    remote: float = 0.1,
    lookahead: int = seconds(0.1),
    mean: int = seconds(0.9),
    grain: int = 0,
    seed: int = 1,
) -> Model:
    """The model: ``lookahead`` and ``mean`` in ticks; ``grain`` adds about 3.7 ns of work a round when compiled."""
    model = Model("phold", Phold(population, remote, lookahead, mean, grain), lookahead=lookahead, seed=seed)
    model.add(Process, lps, path="process")
    return model
