"""Small random models with links, for the conservative engine: both tiers can run them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from tidewarp.kernel import Context, LogicalProcess, Model, f64, i64, mix64, on, u64


class Token(NamedTuple):
    """What wanders over the links; it has so many hops left."""

    hops: i64
    bits: u64


class Gone(NamedTuple):
    """An output: a token came to its end."""

    lp: i64
    bits: u64


class Spread(NamedTuple):
    """Parameters."""

    tokens: i64
    hops: i64
    spread: i64  # a delay exceeds the lookahead by less than this
    fail_at: i64  # the hit of LP 0 at which its handler divides by 0; 0: never
    emit: f64  # share of events that emit
    stride: i64  # of the table of lookaheads


class Node(LogicalProcess):
    """Sends each token on to a linked LP, to itself, or to both."""

    hash: u64
    hits: i64

    def start(self, ctx: Context) -> None:
        """Send the first tokens to oneself."""
        for _ in range(ctx.params.tokens):
            ctx.send(ctx.lp, ctx.below(ctx.params.spread), Token(ctx.params.hops, ctx.bits()))

    @on(Token)
    def receive(self, now: int, token: Token, ctx: Context) -> None:
        """Mix the token in and send it on."""
        self.hits += 1
        self.hash = mix64(self.hash ^ token.bits ^ now)
        ctx.add("events")
        if ctx.lp == 0 and self.hits == ctx.params.fail_at:
            self.hits //= 0 * self.hits
        if ctx.random() < ctx.params.emit:
            ctx.emit(Gone(ctx.lp, self.hash))
        if token.hops > 0:
            kind = ctx.below(4)
            if kind == 0 or ctx.n_out == 0:
                ctx.send(ctx.lp, ctx.below(ctx.params.spread), Token(token.hops - 1, self.hash))
            if kind != 0 and ctx.n_out > 0:
                place = ctx.below(ctx.n_out)
                dst = ctx.out(place)
                ahead = ctx.table("ahead")[ctx.lp * ctx.params.stride + dst]
                ctx.send(dst, ahead + ctx.below(ctx.params.spread), Token(token.hops - 1, self.hash))
            if kind == 3:
                ctx.send(ctx.lp, 0, Token(token.hops - 2, self.hash))


def linked(
    lps: int,
    links: dict[tuple[int, int], int],
    *,
    tokens: int = 2,
    hops: int = 12,
    spread: int = 4,
    fail_at: int = 0,
    emit: float = 0.2,
    seed: int = 1,
) -> Model:
    """A model of ``lps`` nodes; ``links`` maps (LP, LP) to the lookahead in ticks. Without links all are linked, 1 tick."""
    stride = max(lps, 8)  # the same for all small models: compiled code depends on the shapes of tables
    params = Spread(tokens, hops, spread, fail_at, emit, stride)
    model = Model("linked", params, lookahead=1, seed=seed, trace_interval=5)
    model.add(Node, lps, path="node")
    model.accumulator("events")
    model.input("outside")
    ahead = np.ones((stride, stride), np.int64)
    for (src, dst), ticks in links.items():
        model.link(src, dst, ticks)
        ahead[src, dst] = ticks
    model.table("ahead", ahead.reshape(-1))
    return model


@st.composite
def linked_models(draw: st.DrawFn) -> Model:
    """Models of 2 to 8 nodes; forward links may have lookahead 0."""
    lps = draw(st.integers(2, 8))
    pairs = st.tuples(st.integers(0, lps - 1), st.integers(0, lps - 1)).filter(lambda pair: pair[0] != pair[1])
    ends = draw(st.lists(pairs, max_size=2 * lps, unique=True))
    links = {(src, dst): draw(st.integers(0 if src < dst else 1, 5)) for src, dst in ends}
    return linked(
        lps,
        links,
        tokens=draw(st.integers(1, 3)),
        hops=draw(st.integers(0, 12)),
        spread=draw(st.integers(1, 20)),
        emit=draw(st.sampled_from([0.0, 0.2, 1.0])),
        seed=draw(st.integers(0, 2**64 - 1)),
    )


def partitions(lps: int) -> st.SearchStrategy[list[int]]:
    """Partitions of ``lps`` LPs into 2 to 4 PEs, none of them empty."""

    def of(pes: int) -> st.SearchStrategy[list[int]]:
        rest = st.lists(st.integers(0, pes - 1), min_size=lps - pes, max_size=lps - pes)
        return rest.flatmap(lambda others: st.permutations([*range(pes), *others]).map(list))

    return st.integers(2, min(4, lps)).flatmap(of)
