"""What a handler does on the edge of what machine numbers hold: Python's result in every engine, or one error in all of them."""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import pytest

from tidewarp.errors import HandlerError, ModelError, NotCompilable, RangeError, TidewarpError
from tidewarp.kernel import Array, Context, Engine, LogicalProcess, Model, f64, function, i8, i64, on, u64


@pytest.fixture(autouse=True, scope="module")
def _numba(require):
    require("numba")


class Try(NamedTuple):
    what: i64
    a: i64 = 0
    w: u64 = 0
    x: f64 = 0.0


class Small(NamedTuple):
    n: i8
    row: Array[i64, 3] = (1, 2, 3)


@function
def is_beyond(n, x):
    """A comparison that a float would get wrong."""
    return n > x


class Edge(LogicalProcess):
    i: i64
    w: u64
    x: f64
    line: Array[i64, 4]
    hits: i64

    @on(Try)
    def attempt(self, now: int, told: Try, ctx: Context) -> None:
        """One thing after the other."""
        what, a, w, x = told.what, told.a, told.w, told.x
        self.hits += 1
        if what == 1:  # leaves its range and comes back
            self.i = a + self.hits
            self.i -= 9
        elif what == 2:
            ctx.send(ctx.lp, 1, Small(a))
        elif what == 3:
            ctx.note(w)
        elif what == 4:
            self.i = ctx.exponential(a)
        elif what == 5:
            self.i = math.floor(x) + math.ceil(x) + math.trunc(x) + round(x)
        elif what == 6:
            self.i = abs(a)
        elif what == 7:
            self.i = 1**a + (-1) ** a
        elif what == 8:
            self.i = (a < x) + 2 * is_beyond(w, x) + 4 * (w > a) + 8 * (a == x) + 16 * (a < x <= w) + 32 * (w != x)
        elif what == 9:
            for _ in range(-(2**63), a, 2**62):
                self.i += 1
        elif what == 10:
            self.x = math.sqrt(x)
        elif what == 11:
            self.line[ctx.below(4)] = ctx.below(100)  # Python draws the value first
        elif what == 12:
            self.i = 2**-self.hits > 0.1
        elif what == 13:
            for _ in range(2**20 + 1):
                ctx.add("n")
        elif what == 14:
            self.x = math.copysign(1.0, x)
        elif what == 15:
            self.x = x // a + x % a
        elif what == 16:
            ctx.emit(Small(self.hits, self.line))
        self.x = self.x + a
        ctx.emit(Small(self.hits % 100))

    @on(Small)
    def take(self, now: int, small: Small, ctx: Context) -> None:
        """Count it."""
        self.hits += small.row[2]


def edges() -> Model:
    """Four of them."""
    model = Model("edges")
    model.add(Edge, 4, path="edge")
    model.input("told")
    model.accumulator("n")
    return model


ENGINES = [
    {"tier": "compiled"},
    {"tier": "compiled", "kernel": "conservative", "workers": 1},
    {"tier": "compiled", "kernel": "optimistic", "workers": 2},
]


def told(message, **options):
    """What came of it, as one value: an error with its words and what was committed before it, or the digest."""
    with Engine(edges(), **options) as engine:
        source = engine.model.sources[0]
        for tick in range(5):
            for lp in range(4):
                engine.inject(source, lp, tick, message if (tick, lp) == (3, 2) else Try(0))
        try:
            engine.advance(9)
        except TidewarpError as error:
            return type(error), str(error), engine.ledger.committed, engine.ledger.events.head(), len(engine.outputs())
        return engine.digest()


ONLY_COMPILED = {
    "leaves its range": Try(1, 2**63 - 2),
    "a power below one": Try(12),
    "bounds far apart": Try(9, 2**63 - 1),
    "the sign of NaN": Try(14, x=math.nan),
    "abs of the least": Try(6, -(2**63)),
    "floor of 1e300": Try(5, x=1e300),
}
BOTH_REFUSE = {
    "a message out of range": (Try(2, 128), RangeError),
    "a note out of range": (Try(3, w=2**63), RangeError),
    "a mean out of range": (Try(4, 2**57 + 1), RangeError),
    "floor of NaN": (Try(5, x=math.nan), HandlerError),
    "floor of infinity": (Try(5, x=-math.inf), HandlerError),
    "the root of -1": (Try(10, x=-1.0), HandlerError),
    "a float by zero": (Try(15, 0, x=2.0), HandlerError),
    "another shape": (Try(16), RangeError),
}
AGREE = {
    "large exponents": Try(7, 2**62 + 1),
    "equal as floats": Try(8, 2**53 + 1, 2**53 + 1, 2.0**53),
    "the largest": Try(8, 2**63 - 1, 2**64 - 1, 2.0**63),
    "the largest u64": Try(8, -1, 2**64 - 1, 2.0**64),
    "NaN compared": Try(8, 3, 3, math.nan),
    "between": Try(8, -2, 0, -1.5),
    "half to even": Try(5, x=2.5),
    "the value is drawn first": Try(11),
    "rest of an infinity": Try(15, -3, x=math.inf),
    "signs": Try(15, -3, x=7.5),
}


@pytest.mark.parametrize("name", AGREE)
def test_results_are_pythons(name):
    """The digest of the compiled run is that of the interpreted one."""
    assert told(AGREE[name], tier="compiled") == told(AGREE[name], tier="python")


@pytest.mark.parametrize("name", BOTH_REFUSE)
def test_one_error_in_both_tiers_and_every_engine(name):
    """Its class and words, and what is committed before it."""
    message, error = BOTH_REFUSE[name]
    expected = told(message, tier="python")
    assert expected[0] is error
    assert expected[2] == 14
    for options in ENGINES:
        assert told(message, **options) == expected, options


@pytest.mark.parametrize(
    "options", [ENGINES[0], *(pytest.param(one, marks=pytest.mark.nightly) for one in ENGINES[1:])]
)
def test_too_many_effects_are_one_error(options):
    """A million and one in one event; a handler that never stops adding comes to the same."""
    expected = told(Try(13), tier="python")
    assert expected[0] is ModelError
    assert "at most 1048576 effects" in expected[1]
    assert told(Try(13), **options) == expected


@pytest.mark.parametrize("name", ONLY_COMPILED)
def test_what_machine_numbers_do_not_hold_is_one_error_in_every_compiled_engine(name):
    """A RangeError with path, event key and rule; what comes before it is committed."""
    first = told(ONLY_COMPILED[name], **ENGINES[0])
    assert first[0] is RangeError
    assert "edge.2" in first[1]
    assert "(3, 0, 2, " in first[1] or "its kind is" in first[1]
    assert first[2] == 14
    for options in ENGINES[1:]:
        assert told(ONLY_COMPILED[name], **options) == first, options


def test_outputs_before_an_error_need_not_fit():
    """The error comes even if outputs of its tick fill the ledger first."""
    with Engine(edges(), tier="compiled", kernel="optimistic", workers=2, outputs_max=2) as engine:
        for lp in range(4):
            engine.inject(engine.model.sources[0], lp, 3, Try(1, 2**63 - 1) if lp == 3 else Try(0))
        with pytest.raises(RangeError, match=r"edge\.3"):  # noqa: PT012  it may stop for outputs first
            for _ in range(3):
                engine.advance(9)
                engine.outputs()


def test_a_run_of_calm_values_agrees():
    """Nothing of the above is in the way of a handler that stays within its kinds."""
    digests = []
    for tier in ("python", "compiled"):
        with Engine(edges(), tier=tier) as engine:
            for tick, what in enumerate((0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 14, 15)):
                engine.inject(engine.model.sources[0], tick % 4, tick, Try(what, 5, 6, 7.25))
            engine.advance(20)
            digests.append(engine.digest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("options", [{"tier": "python", "kernel": "optimistic", "workers": 2}, *ENGINES])
def test_an_error_of_a_future_that_never_comes_is_none(options):
    """A handler that errs on a state which is undone later: the run is the one without it."""
    digests = []
    for given in ({"tier": "python"}, options):
        with Engine(edges(), **given) as engine:
            source = engine.model.sources[0]
            engine.watermark(source, 3)
            engine.inject(source, 1, 5, Try(1, 2**63 - 1))  # beyond int64, unless `hits` is below 0 by then
            engine.advance(9)
            assert engine.gvt <= 5
            engine.inject(source, 1, 3, Small(0, (0, 0, -5)))
            engine.watermark(source, 10)
            engine.advance(9)
            digests.append(engine.digest())
    assert digests[0] == digests[1]


K = 5


@function
def more(x, k=K):
    """Its default is the number that K was when it was defined."""
    return x + k


K = 6


def adding(k):
    """A function with a default of its own."""

    @function
    def add(x, by=k, pair=(k, 2)):
        return x + by + pair[1]

    return add


seven = adding(7)


class Mixed(NamedTuple):
    cells: Array[i8, 4]
    grid: Array[f64, (2, 2)]


class Defaults(LogicalProcess):
    n: i64
    tiny: i8

    @on(Try)
    def attempt(self, now: int, told: Try, ctx: Context) -> None:
        """Call them, and send tuples of numbers of several widths."""
        self.n = more(self.n) + seven(told.a)
        self.tiny = self.n % 7
        ctx.send(ctx.lp, 1, Mixed((self.tiny, 0, -1, now), ((0.0, self.n), (told.x, 3.0))))

    @on(Mixed)
    def take(self, now: int, mixed: Mixed, ctx: Context) -> None:
        """Send it on."""
        ctx.emit(Mixed((mixed.cells[1], 0, -1, self.tiny), mixed.grid))


def one_of(cls):
    """A model of one such LP that is told one thing at tick 1."""
    model = Model("one", messages=[Mixed, Small])
    model.add(cls, 1, path="one")
    model.input("told")
    return model


def test_defaults_and_mixed_tuples_are_pythons():
    """A default is read once; tuples may mix widths of whole numbers and follow the shape of an array."""
    found = []
    for tier in ("python", "compiled"):
        with Engine(one_of(Defaults), tier=tier) as engine:
            engine.inject(engine.model.sources[0], 0, 1, Try(0, 4))
            engine.advance(9)
            found.append((engine.digest(), engine.state(0), engine.outputs()))
    assert found[0] == found[1]
    assert found[0][1]["n"] == 5 + 4 + 7 + 2


def test_a_default_is_part_of_the_digest(monkeypatch):
    """The same text with another default is another model."""
    before = one_of(Defaults).digest()
    monkeypatch.setattr(sys.modules[__name__], "seven", adding(8))
    assert one_of(Defaults).digest() != before


@function
def with_text(x, how="fast"):
    """A default that no machine number holds."""
    return x


class TextDefault(LogicalProcess):
    n: i64

    @on(Try)
    def attempt(self, now: int, told: Try, ctx: Context) -> None:
        self.n = with_text(told.a)


class HalfTick(LogicalProcess):
    @on(Try)
    def attempt(self, now: int, told: Try, ctx: Context) -> None:
        ctx.send(ctx.lp, 1.5, told)


class FlatGrid(LogicalProcess):
    @on(Try)
    def attempt(self, now: int, told: Try, ctx: Context) -> None:
        ctx.emit(Mixed((1, 2, 3, 4), (told.x, 1.0)))


class WholeRow(LogicalProcess):
    grid: Array[i64, (2, 2)]

    @on(Try)
    def attempt(self, now: int, told: Try, ctx: Context) -> None:
        self.grid[1] = told.a


REASONS: dict[Any, str] = {
    TextDefault: "a default of a compiled function is a number",
    HalfTick: "a delay is a whole number of ticks",
    FlatGrid: "tuples nested as its shape is",
    WholeRow: "a row of an array field is changed number by number",
}


@pytest.mark.parametrize("cls", REASONS)
def test_a_refusal_says_why(cls):
    """In words of the model's author."""
    with pytest.raises(NotCompilable, match=REASONS[cls]):
        Engine(one_of(cls), tier="compiled")
