"""A model made to hurt, and random cases of it: what every engine has to compute exactly as the reference does.

Times are whole ticks 0 to 3 apart, so most events tie, and sends without delay make later generations inside a
tick. An event begets 0 to 3 others, 1 on average. Every LP keeps a hash of all that it has received, in order; so one
swapped pair of events changes the end. Four classes differ in what their state is made of (numbers of all kinds, arrays,
a row of 520 bytes) and in how it is saved; LPs draw, read tables, emit, count, and may be linked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tidewarp.kernel import (
    Array,
    Context,
    LogicalProcess,
    Model,
    Published,
    Undo,
    b1,
    f64,
    function,
    i8,
    i16,
    i32,
    i64,
    mix64,
    on,
    reverse,
    u8,
    u16,
    u32,
    u64,
    u64_add,
    u64_mod,
    u64_mul,
)
from tidewarp.seeds import Stream

__all__ = ["CLASSES", "Flake", "Hurt", "Ledgered", "Mixer", "Token", "Walker", "Wide", "hurt"]

GOLDEN = 0x9E3779B97F4A7C15
MINUS_ONE = 0xFFFFFFFFFFFFFFFF


class Token(NamedTuple):
    """Most of what is sent."""

    value: u64


class Flake(NamedTuple):
    """A message of many kinds, with an array."""

    weight: f64
    trail: Array[i32, 3]
    step: i16
    bright: b1


class Hurt(NamedTuple):
    """Parameters."""

    population: i64  # tokens that each LP sends itself at the start
    lookahead: i64  # ticks, on top of a delay to another LP
    spread: i64  # delays are 0 to spread - 1 ticks
    remote: f64  # share of sends to another LP
    emit: f64  # share of events with an output


@function
def offspring(chance: f64) -> i64:
    """How many messages an event sends: 0 to 3, 1 on average, for a uniform ``chance``."""
    if chance < 0.3:
        return 0
    if chance < 0.75:
        return 1
    if chance < 0.95:
        return 2
    return 3


@function
def stirred(hash_: u64, now: i64, value: u64) -> u64:
    """A hash that depends on the order in which it was fed."""
    return mix64(u64_add(u64_mul(hash_, GOLDEN), mix64(value ^ now)))


class Mixer(LogicalProcess):
    """Keeps a hash, and does all the sending: the others derive from it."""

    hash: u64
    hits: i64

    def start(self, ctx: Context) -> None:
        """Send oneself tokens for the first five ticks."""
        for number in range(ctx.params.population):
            ctx.send(ctx.lp, ctx.below(5), Token(mix64(self.hash ^ number)))

    @on(Token)
    def take(self, now: int, token: Token, ctx: Context) -> None:
        """Stir the token in; send some on, here or elsewhere, at once or later."""
        self.hits += 1
        self.hash = stirred(self.hash, now, token.value)
        if ctx.random() < ctx.params.emit:
            ctx.emit(Token(self.hash))
            ctx.add("emitted")
        for number in range(offspring(ctx.random())):
            delay = ctx.below(ctx.params.spread)
            dst = ctx.lp
            if ctx.n_out > 0 and ctx.random() < ctx.params.remote:
                dst = ctx.out(ctx.below(ctx.n_out))
                delay += ctx.params.lookahead
            ctx.send(dst, delay, Token(self.hash ^ number))

    @on(Flake)
    def catch(self, now: int, flake: Flake, ctx: Context) -> None:
        """Stir the flake in, and make a token of it that comes at once."""
        value = u64_mul(flake.trail[0] + flake.trail[1] + flake.trail[2], GOLDEN)
        if flake.bright:
            value = u64_add(value, int(flake.weight * 1000.0))
        self.hash = stirred(self.hash, now, value)
        ctx.send(ctx.lp, 0, Token(value))


class Walker(Mixer, saving="periodic:3"):
    """Walks in floats and small numbers, and sends flakes."""

    at: Array[f64, (2, 2)]
    trail: Array[i32, 3]
    heading: i8
    turns: u16
    far: b1
    heard: i64

    @on(Token)
    def take(self, now: int, token: Token, ctx: Context) -> None:
        """A step of random length; the step is told to somebody."""
        steps = ctx.table("steps")
        row = self.turns % 2
        self.heading = (self.heading + steps[self.turns % 7]) % 100
        self.turns = (self.turns + 1) % 60000
        self.at[row][1] += ctx.normal() * ctx.table("weights")[row]
        self.at[row][0] = 0.5 * self.at[row][0] + ctx.exponential(4.0)
        self.far = self.at[row][1] > 1.0
        self.trail[now % 3] = self.heading
        self.hits += 1
        self.hash = stirred(self.hash, now, token.value)
        ctx.add("longest", int(self.at[row][0]))
        for _ in range(offspring(ctx.random())):
            delay = ctx.below(ctx.params.spread)
            dst = ctx.lp
            if ctx.n_out > 0 and ctx.random() < ctx.params.remote:
                dst = ctx.out(ctx.below(ctx.n_out))
                delay += ctx.params.lookahead
            ctx.send(dst, delay, Flake(self.at[row][1], self.trail, self.heading, self.far))

    @on(Published)
    def hear(self, now: int, published: Published, ctx: Context) -> None:
        """The value of an accumulator enters the state."""
        self.heard += published.value % 1000
        self.hash = stirred(self.hash, now, self.heard)


class Wide(Mixer, saving="delta"):
    """A long row, of which an event changes little."""

    cells: Array[u64, 63]

    @on(Flake)
    def catch(self, now: int, flake: Flake, ctx: Context) -> None:
        """Stir the flake into one cell; emit it."""
        place = u64_mod(self.hash, 63)
        self.cells[place] = stirred(self.cells[place], now, flake.step)
        self.hash = stirred(self.hash, now, self.cells[(place + 1) % 63])
        ctx.emit(flake)
        ctx.send(ctx.lp, ctx.below(2), Token(self.hash))


class Ledgered(LogicalProcess, saving="reverse"):
    """Keeps sums that can be taken back."""

    total: u64
    last: u32
    count: u8

    @on(Token)
    def take(self, now: int, token: Token, ctx: Context) -> None:
        """Add the token up and note what is lost; answer every other one."""
        ctx.note(self.last)
        self.total = u64_add(self.total, mix64(token.value ^ now ^ self.last))
        self.last = u64_mod(token.value, 1000003)
        self.count = (self.count + 1) % 256
        if self.count % 2 == 0:
            for number in range(2):
                ctx.send(ctx.lp, ctx.below(ctx.params.spread), Token(self.total ^ number))

    @reverse(Token)
    def give_back(self, now: int, token: Token, undo: Undo) -> None:
        """The inverse, in the opposite order."""
        self.count = (self.count + 255) % 256
        self.last = undo.bits
        self.total = u64_add(self.total, u64_mul(mix64(token.value ^ now ^ self.last), MINUS_ONE))

    @on(Flake)
    def catch(self, now: int, flake: Flake, ctx: Context) -> None:
        """Count the flake only."""
        self.count = (self.count + flake.step % 3) % 256

    @reverse(Flake)
    def let_go(self, now: int, flake: Flake, undo: Undo) -> None:
        """The inverse."""
        self.count = (self.count + 256 - flake.step % 3) % 256


CLASSES = ((Mixer,), (Mixer, Walker, Wide), (Mixer, Walker, Wide, Ledgered))


def hurt(
    classes: Sequence[type[LogicalProcess]] = CLASSES[-1],
    lps: int = 4,
    *,
    population: int = 4,
    lookahead: int = 0,
    spread: int = 4,
    remote: float = 0.5,
    emit: float = 0.1,
    links: str = "none",
    publish_every: int | None = None,
    trace_interval: int = 8,
    seed: int = 1,
) -> Model:
    """The model: ``lps`` of each class. ``links`` is "none", "some" (a random few from each LP) or "forward" (to higher numbers only).

    All times are ticks. With links, each declares a lookahead of 0 to ``lookahead``; forward links may declare 0 in
    conservative runs too, as they make no cycle.
    """
    model = Model(
        "hurt",
        Hurt(population, lookahead, spread, remote, emit),
        lookahead=lookahead,
        seed=seed,
        messages=[Token, Flake],
        trace_interval=trace_interval,
    )
    stream = Stream(seed, "hurt.build")
    for cls in classes:
        init = {"hash": lambda place: 1 + place} if "hash" in cls.__annotations__ or issubclass(cls, Mixer) else {}
        model.add(cls, lps, path=cls.__name__.lower(), init=init)
    model.table("steps", [3, -2, 5, 1, -4, 0, 7])
    model.table("weights", [0.25, 1.5])
    model.accumulator("emitted", publish_every=publish_every)
    model.accumulator("longest", "max")
    model.input("sensor")
    if links != "none":
        _link(model, links == "forward", lookahead, stream)
    return model


def _link(model: Model, forward: bool, lookahead: int, stream: Stream) -> None:
    for lp in range(model.n_lps):
        others = range(lp + 1 if forward else 0, model.n_lps)
        for dst in sorted({others[stream.below(len(others))] for _ in range(3) if len(others)} - {lp}):
            least = stream.below(lookahead + 1) if forward else max(lookahead - stream.below(2), min(lookahead, 1))
            model.link(lp, dst, lookahead=least)
