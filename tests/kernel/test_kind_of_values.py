"""A value has its kind from when it is assigned, sent or emitted, and not only after it has been bytes for a while."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from tidewarp.errors import OperatorError, RangeError
from tidewarp.kernel import Array, Context, Engine, LogicalProcess, Model, b1, f64, i8, i64, on, u16, u32

ODD = 2**60 + 1  # no float
SEEN: list[Any] = []


class Ball(NamedTuple):
    """A message with every sort of number."""

    x: f64
    row: Array[f64, 2] = (1, 2)
    flag: b1 = False
    n: i64 = 0


class Plain(NamedTuple):
    """Whole numbers alone."""

    n: i64


class Keeper(LogicalProcess):
    """Gives whole numbers to everything that holds floats."""

    x: f64
    line: Array[f64, 3]
    grid: Array[f64, (2, 2)]
    rest: i64

    def start(self, ctx: Context) -> None:
        """Begin."""
        if ctx.lp == 0:
            self.x = 7
            ctx.send(0, 1, Ball(3))

    @on(Ball)
    def take(self, now: int, ball: Ball, ctx: Context) -> None:
        """Compute with what was just stored."""
        SEEN.append([*ball, *self.line, self.x])
        self.x = ODD
        self.line[0] = ODD
        self.line[1] += 2
        self.line[1:] = [self.line[1], True]
        row = self.grid[1]
        row[0] = ODD
        self.rest += int(self.x) + int(self.line[0]) + int(self.grid[1][0]) - 3 * ODD
        SEEN.append([self.x, *self.line, *row])
        ctx.emit(Ball(now, n=True))
        if now < 4:
            ctx.send(now % 2, 1, Ball(ODD, (True, self.rest)))

    @on(Plain)
    def count(self, now: int, plain: Plain, ctx: Context) -> None:
        """Nothing."""


def keepers() -> Model:
    """Two of them."""
    model = Model("keepers", trace_interval=1)
    model.add(Keeper, 2, path="keeper", init={"line": [1, 2, 3]})
    return model


OPTIONS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "optimistic": {"kernel": "optimistic", "workers": 2, "schedule_seed": 3},
    "delta": {"kernel": "optimistic", "workers": 2, "saving": "delta"},
    "undo": {"kernel": "optimistic", "saving": "undo"},
    "periodic": {"kernel": "optimistic", "saving": "periodic:3"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_float_field_is_a_float_at_once(name: str) -> None:
    """Fields, arrays of them, rows of arrays, messages and outputs: nobody ever reads a whole number there."""
    SEEN.clear()
    with Engine(keepers(), tier="python", **OPTIONS[name]) as engine:
        engine.advance(9)
        digest = engine.digest()
        outputs = [repr(output.message) for output in engine.outputs()]
        assert engine.state(0)["rest"] == -6  # each number comes back 1 below what was stored
    floats = [value for seen in SEEN for value in seen if type(value) not in (bool, int, tuple)]
    assert floats
    assert {type(value) for value in floats} == {float}
    assert {type(part) for seen in SEEN for value in seen if type(value) is tuple for part in value} == {float}
    assert outputs[0] == "Ball(x=1.0, row=(1.0, 2.0), flag=False, n=1)"
    with Engine(keepers(), tier="python") as engine:
        engine.advance(2)
        saved = engine.checkpoint()
    with Engine.restore(keepers(), saved, tier="python") as engine:
        engine.advance(9)
        assert engine.digest() == digest


def test_what_is_no_number_is_refused_where_it_is_assigned() -> None:
    """By class, field and kind, and the handler goes no further."""
    from tidewarp.kernel.objects import slotted

    state = slotted(Keeper)()
    for value in ("3", None, 1j, 10**400):
        with pytest.raises(RangeError, match=r"Keeper\.x = .*its kind is f64"):
            state.x = value
    with pytest.raises(RangeError, match=r"Keeper\.line"):
        state.line = [1, "2", 3]


def test_true_counts_as_one() -> None:
    """As a destination, a delay and a number of a message."""
    from scripted import Go, opened

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        self.n = True
        if not go.step:
            ctx.send(self.n, True, Go(True))

    with opened(script) as engine:
        engine.advance(20)
        assert engine.state(1)["n"] == 1
        assert engine.ledger.committed == 2


@pytest.mark.parametrize("saving", ["reverse", "custom"])
@pytest.mark.parametrize("tier", ["python", "compiled"])
def test_a_saving_that_a_class_cannot_do_is_refused(saving: str, tier: str, require: Any) -> None:
    """As an option, by both tiers alike."""
    if tier == "compiled":
        require("numba")
    model = Model("plain")
    model.add(Plainly, 1, path="one")
    with pytest.raises(OperatorError, match=f'saving "{saving}": Plainly has no '):
        Engine(model, tier=tier, kernel="optimistic", saving=saving)


class Plainly(LogicalProcess):
    """Has handlers and nothing else."""

    n: i64

    @on(Plain)
    def count(self, now: int, plain: Plain, ctx: Context) -> None:
        """Count."""
        self.n += plain.n


class Narrow(LogicalProcess):
    """Fields of narrow kinds; one thing goes wrong at tick 3 and is put right within the event."""

    small: i8
    flag: b1
    cells: Array[u16, 3]
    grid: Array[u32, (2, 2)]
    line: Array[f64, 2]
    wide: i64

    @on(Plain)
    def spoil(self, now: int, plain: Plain, ctx: Context) -> None:
        """Leave a kind and come back."""
        self.small = True
        if plain.n == 1:
            self.small += 127
            self.small -= 127
        elif plain.n == 2:
            self.cells[1] = -1
        elif plain.n == 3:
            self.grid[1][0] = 2**32
        elif plain.n == 4:
            self.wide += 2**62
            self.wide += 2**62
        ctx.emit(Plain(self.small))


class Careless(Narrow):
    """The same in ways that compiled handlers do not know."""

    @on(Plain)
    def spoil(self, now: int, plain: Plain, ctx: Context) -> None:
        """Leave a kind or a shape."""
        if plain.n == 1:
            self.flag = 1
        elif plain.n == 2:
            self.cells.append(1)
        elif plain.n == 3:
            self.cells[1:] = [1, 2, 3]
        elif plain.n == 4:
            del self.line[0]
        elif plain.n == 5:
            self.grid[0] = [1, 2, 3]
        elif plain.n == 6:
            self.cells.insert(0, 1)
        elif plain.n == 7:
            self.cells[0] = 1.0
        ctx.emit(Plain(self.cells[2]))


def spoiled(cls: type[LogicalProcess], n: int, **options: Any) -> tuple[Any, ...]:
    """The words of the error, the committed events before it and the outputs that they released."""
    model = Model("narrow")
    model.add(cls, 2, path="it")
    source = model.input("told")
    with Engine(model, **options) as engine:
        for tick in range(1, 6):
            engine.inject(source, tick % 2, tick, Plain(n if tick == 3 else 0))
        with pytest.raises(RangeError) as caught:
            engine.advance(9)
        return str(caught.value), engine.ledger.committed, len(engine.outputs())


WAYS: list[dict[str, Any]] = [
    {},
    {"kernel": "optimistic", "workers": 2, "schedule_seed": 3},
    {"kernel": "optimistic", "saving": "undo"},
]
NAMED = {1: r"Narrow\.small = 128: its kind is i8", 2: r"Narrow\.cells\[1\] = -1: its kind is u16"}
NAMED |= {3: r"Narrow\.grid\[0\] = 4294967296: its kind is u32"}


@pytest.mark.parametrize("n", NAMED)
def test_a_narrow_field_is_looked_at_when_it_is_assigned(n: int, require: Any) -> None:
    """One error in both tiers, in the event itself: with path, key, field and value, and all before it is committed."""
    require("numba")
    first = spoiled(Narrow, n, tier="python")
    assert re.match(rf"it\.1 at \(3, 0, 1, -2147483648, \d\): {NAMED[n]}", first[0])
    assert first[1:] == (2, 2)
    assert spoiled(Narrow, n, tier="compiled") == first
    for options in WAYS:
        assert spoiled(Narrow, n, tier="python", **options) == first, options


@pytest.mark.parametrize("n", range(1, 8))
def test_an_array_keeps_its_length_and_its_numbers_their_kind(n: int) -> None:
    """Whatever a list offers: the error comes in the event."""
    for options in WAYS:
        text, *rest = spoiled(Careless, n, tier="python", **options)
        assert text.startswith("it.1 at (3, 0, 1, ")
        assert "Careless." in text
        assert rest == [2, 2], options


@pytest.mark.parametrize("options", [*WAYS, {"kernel": "conservative", "workers": 1}])
@pytest.mark.parametrize("tier", ["python", "auto"])
def test_debug_looks_at_every_row_after_every_event(options: dict[str, Any], tier: str) -> None:
    """A field of i64 beyond its kind is an error of its event."""
    text, *rest = spoiled(Narrow, 4, tier=tier, debug=True, **options)
    assert text.startswith("it.1 at (3, 0, 1, ")
    assert "Narrow.wide = 9223372036854775808: its kind is i64" in text
    assert rest == [2, 2]


def test_refusals_of_ctx_name_the_place() -> None:
    """Path and tick of what is drawn, added or looked up in vain."""
    from scripted import Go, opened

    from tidewarp.errors import TidewarpError

    for call in ("below(0)", "exponential(0.0)", "out(6)", "note(2**63)", "add('x')", "table('x')"):

        def script(self: Any, now: int, go: Go, ctx: Context, call: str = call) -> None:
            eval(f"ctx.{call}", {"ctx": ctx})

        with opened(script) as engine, pytest.raises(TidewarpError, match=r"^\S+ at tick \d+: "):
            engine.advance(20)
