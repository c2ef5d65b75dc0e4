"""Models for the tests of the compiled tier; its handlers must stand in a file that can be imported."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from tidewarp.kernel import (
    Array,
    Context,
    LogicalProcess,
    Model,
    b1,
    f64,
    function,
    i8,
    i16,
    i32,
    i64,
    mix64,
    on,
    u8,
    u16,
    u32,
    u64,
    u64_add,
    u64_div,
    u64_mod,
    u64_mul,
    wrap_i64,
)
from tidewarp.seeds import exact_exp, exact_log

SIZE = 8
SHARE = 0.25


class Step(IntEnum):
    """What a handler is told to do."""

    BITS = 0
    RANDOM = 1
    BELOW = 2
    EXPONENTIAL = 3
    NORMAL = 4
    SEND = 5
    EMIT = 6
    ADD = 7
    TABLE = 8
    OUT = 9
    SMALL = 10
    RING = 11
    RAISE = 12
    DIVIDE = 13
    WORDS = 14
    FLOATS = 15
    SEND_MANY = 16
    UNHANDLED = 17


class Do(NamedTuple):
    step: i64
    a: i64
    b: i64
    x: f64


class Seen(NamedTuple):
    """Every kind, and an array."""

    a: i64
    word: u64 = 7
    x: f64 = 0.5
    tiny: i8 = -1
    small: u8 = 1
    flag: b1 = False
    row: Array[i16, 3] = (1, 2, 3)


class Lost(NamedTuple):
    """Nobody handles it."""


class Params(NamedTuple):
    mean: i64
    bias: f64
    small: u8


@function
def folded(word: int, n: int) -> int:
    """Some rounds of mixing."""
    for k in range(n % 5):
        word = mix64(word ^ k)
    return word


class Probe(LogicalProcess):
    last: i64
    word: u64
    real: f64
    ring: Array[i64, SIZE]
    grid: Array[f64, (2, 3)]
    flags: Array[u8, 4]
    tiny: i8
    short: i16
    half: i32
    byte: u8
    pair: u16
    quad: u32
    flag: b1

    @on(Do)
    def do(self, now: int, do: Do, ctx: Context) -> None:
        a, b, x = do.a, do.b, do.x
        if do.step == Step.BITS:
            self.word = ctx.bits() ^ self.word ^ now
        elif do.step == Step.RANDOM:
            self.real = ctx.random() + ctx.params.bias
        elif do.step == Step.BELOW:
            self.last = ctx.below(a)
        elif do.step == Step.EXPONENTIAL:
            self.last = ctx.exponential(x) + ctx.exponential(ctx.params.mean)
        elif do.step == Step.NORMAL:
            self.real = ctx.normal()
        elif do.step == Step.SEND:
            ctx.send(a, b, Seen(now, word=self.word, x=x))
        elif do.step == Step.EMIT:
            ctx.emit(Seen(a, flag=self.flag, row=(1, 2, 4)))
            ctx.emit(do)
        elif do.step == Step.ADD:
            ctx.add("total", a)
            ctx.add("least", b)
            ctx.add("most", b)
            ctx.add("total")
        elif do.step == Step.TABLE:
            self.last = ctx.table("squares")[a]
            self.real = ctx.table("grid")[1][2]
        elif do.step == Step.OUT:
            self.last = ctx.out(a) + 100 * ctx.n_out
        elif do.step == Step.SMALL:
            self.tiny = a
            self.pair = b
            self.quad = self.byte - 1 + ctx.params.small
        elif do.step == Step.RING:
            self.ring[ctx.below(SIZE)] += a
            self.ring[0], self.ring[1] = self.ring[1], self.ring[0]
            self.grid[1][2] = x
            self.flags[a % 4] += b > 0
            self.flag = not self.flags[0]
        elif do.step == Step.RAISE:
            raise ValueError("as told")
        elif do.step == Step.DIVIDE:
            self.last = a // b + a % b
            self.real = float(a) / b
        elif do.step == Step.WORDS:
            self.word = folded(u64_add(self.word, a), abs(b % 100)) % (2**64 - 59)
            self.word = u64_mul(self.word, 3) ^ u64_div(self.word, 7) ^ u64_mod(self.word, 1000)
            self.last = wrap_i64(self.word) >> 3
            self.half = self.word % 1000 - (self.word >> 60) + min(self.word, 5) - max(a % 7, self.word & 3)
        elif do.step == Step.FLOATS:
            self.real = exact_log(1.0 + x * x) + exact_exp(SHARE) - x if x > 0.0 else -x
            self.last = int(x)
        elif do.step == Step.SEND_MANY:
            for k in range(a % 400):
                ctx.send(ctx.lp, k, Seen(k))
        elif do.step == Step.UNHANDLED:
            ctx.send(ctx.lp, 1, Lost())

    @on(Seen)
    def see(self, now: int, seen: Seen, ctx: Context) -> None:
        self.last = wrap_i64(self.last + seen.a + seen.tiny + seen.small + seen.row[2])
        self.word ^= seen.word
        self.short += 1
        self.byte = (self.byte + seen.small) % 256
        if seen.x > 0.75:
            ctx.emit(seen)


def probes(links: bool = False, lookahead: int = 0, lps: int = 4) -> Model:
    """Probes that do as they are told through the input "told"; linked in a ring, or all to all."""
    model = Model("probes", Params(1000, 0.5, 200), lookahead=lookahead, seed=3, messages=[Lost], trace_interval=10)
    model.add(Probe, lps, path="probe", init={"byte": 3, "ring": list(range(SIZE)), "real": -0.0})
    model.table("squares", [k * k for k in range(10)])
    model.table("grid", [[1.0, 2.0, 3.0], [4.0, 5.0, float("nan")]])
    model.accumulator("total")
    model.accumulator("least", kind="min")
    model.accumulator("most", kind="max")
    model.input("told")
    if links:
        for lp in range(lps):
            model.link(lp, [(lp + 1) % lps, (lp + 3) % lps] if lps > 3 else [(lp + 1) % lps], lookahead)
    return model


class Refused(LogicalProcess):
    """The base of what does not compile."""

    hits: i64
    word: u64
    line: Array[i64, 4]


def told(a: int) -> int:
    """A function that nobody marked."""
    return a
