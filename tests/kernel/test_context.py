"""What a handler may do, and every refusal: in the reference, which all engines are compared with."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Go, Letter, Unknown, play, scripted

from tidewarp.errors import (
    GenerationOverflow,
    HandlerError,
    LookaheadError,
    ModelError,
    NegativeDelay,
    RangeError,
    TidewarpError,
    UnhandledMessage,
    UnknownDestination,
)
from tidewarp.kernel import Context, Engine, context
from tidewarp.kernel.objects import Objects, initial_image
from tidewarp.seeds import Stream
from tidewarp.units import TICK_MAX


def test_a_handler_knows_where_it_is() -> None:
    """now, lp, n_lps, and the parameters of the model."""
    seen: list[Any] = []

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        seen.append((now, ctx.now, ctx.lp, ctx.n_lps, ctx.params, go.step))
        if go.step == 0:
            ctx.send(1, 7, Go(1))

    play(script)
    assert seen == [(10, 10, 0, 3, None, 0), (17, 17, 1, 3, None, 1)]


SENDS: dict[str, tuple[type[TidewarpError], str, Any]] = {
    "no such LP": (UnknownDestination, "sends to LP 3: LPs are 0 to 2", lambda ctx: ctx.send(3, 1, Go())),
    "below 0": (UnknownDestination, "sends to LP -1: LPs are 0 to 2", lambda ctx: ctx.send(-1, 1, Go())),
    "far too many": (UnknownDestination, "LPs are 0 to 2", lambda ctx: ctx.send(2**70, 1, Go())),
    "a float": (UnknownDestination, "sends to LP 1.0", lambda ctx: ctx.send(1.0, 1, Go())),
    "a path": (UnknownDestination, "sends to LP 's.1'", lambda ctx: ctx.send("s.1", 1, Go())),
    "into the past": (NegativeDelay, "s.0 at tick 10 sends to s.1 after -1 ticks", lambda ctx: ctx.send(1, -1, Go())),
    "into one's past": (NegativeDelay, "nothing arrives before it is sent", lambda ctx: ctx.send(0, -1, Go())),
    "half a tick": (NegativeDelay, "a delay is a whole number of ticks", lambda ctx: ctx.send(0, 0.5, Go())),
    "a whole float": (NegativeDelay, "a delay is a whole number of ticks", lambda ctx: ctx.send(0, 1.0, Go())),
    "beyond time": (NegativeDelay, "a tick below 2**63", lambda ctx: ctx.send(0, TICK_MAX - 9, Go())),
    "beyond time, elsewhere": (NegativeDelay, "a tick below 2**63", lambda ctx: ctx.send(1, 2**64, Go())),
    "an unknown message": (
        UnhandledMessage,
        "sends a Unknown: the model has no such",
        lambda ctx: ctx.send(0, 1, Unknown(1)),
    ),
    "no message": (UnhandledMessage, "sends a int", lambda ctx: ctx.send(0, 1, 5)),
    "a class": (UnhandledMessage, "sends a type", lambda ctx: ctx.send(0, 1, Go)),
    "emits an unknown message": (UnhandledMessage, "has no such message class", lambda ctx: ctx.emit(Unknown(1))),
    "an unknown accumulator": (
        ModelError,
        "the model's accumulators are: count, least, most",
        lambda ctx: ctx.add("sum"),
    ),
    "adds too much": (RangeError, "n is a whole number of int64", lambda ctx: ctx.add("count", 2**63)),
    "adds half": (RangeError, "n is a whole number of int64", lambda ctx: ctx.add("count", 0.5)),
    "notes too much": (RangeError, "a whole number of int64", lambda ctx: ctx.note(2**63)),
    "notes half": (RangeError, "a whole number of int64", lambda ctx: ctx.note(0.5)),
    "an unknown table": (ModelError, "the model's tables are: small, square", lambda ctx: ctx.table("large")),
    "below nothing": (RangeError, "from 1 to 2", lambda ctx: ctx.below(0)),
    "below too much": (RangeError, "from 1 to 2", lambda ctx: ctx.below(2**63)),
    "a mean of 0": (RangeError, "a mean is above 0", lambda ctx: ctx.exponential(0)),
    "a mean below 0": (RangeError, "a mean is above 0", lambda ctx: ctx.exponential(-1.0)),
    "a mean that is none": (RangeError, "a mean is above 0", lambda ctx: ctx.exponential(float("nan"))),
    "a mean without end": (RangeError, "a mean is above 0", lambda ctx: ctx.exponential(2.0**57 * 1.001)),
    "the LP behind all": (UnknownDestination, "s.0 at tick 10: out(3): it has 3 links", lambda ctx: ctx.out(3)),
    "the LP before all": (UnknownDestination, "s.0 at tick 10: out(-1)", lambda ctx: ctx.out(-1)),
}


@pytest.mark.parametrize("name", SENDS)
def test_what_a_handler_must_not_do(name: str) -> None:
    """An error of its class with value, rule and action; it is raised by ``advance``, and everything before it is committed."""
    error, words, act = SENDS[name]
    model = scripted(lambda self, now, go, ctx: act(ctx))
    with Engine(model, tier="python") as engine:
        engine.inject(model.sources[0], 2, 9, Go())
        with pytest.raises(error, match=re.escape(words)) as caught:
            engine.advance(100)
        assert caught.value.action
        assert engine.ledger.committed == 1
        assert engine.state(2) == {"n": 1}
        with pytest.raises(error, match=re.escape(words)):
            engine.advance(200)


def test_an_error_says_where_and_when() -> None:
    """The LP's path and the tick."""
    with pytest.raises(UnknownDestination, match=r"^s\.0 at tick 10 sends to LP 9"):
        play(lambda self, now, go, ctx: ctx.send(9, 1, Go()))


def test_the_lookahead_holds_between_lps_only() -> None:
    """To oneself any delay; to others the declared one, or it is an error in every engine."""
    play(lambda self, now, go, ctx: ctx.send(1, 5, Go(1)) if not go.step else None, lookahead=5)
    play(lambda self, now, go, ctx: ctx.send(0, 0, Go(1)) if not go.step else None, lookahead=5)
    with pytest.raises(
        LookaheadError, match=r"s\.0 at tick 10 sends to s\.1 after 4 ticks: the declared lookahead is 5"
    ):
        play(lambda self, now, go, ctx: ctx.send(1, 4, Go(1)), lookahead=5)


def test_links_have_lookaheads_of_their_own() -> None:
    """And the model's does not count."""
    seen: list[Any] = []

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        if go.step == 0:
            seen.append((ctx.n_out, [ctx.out(i) for i in range(ctx.n_out)]))
            ctx.send(2, 3, Go())
            ctx.send(1, 5, Go(1))
            ctx.send(0, 0, Go(2))
        else:
            seen.append((ctx.lp, ctx.n_out))

    result = play(script, links=True, lookahead=100)
    assert seen == [(2, [2, 1]), (0, 2), (1, 0)]
    assert result.committed == 4
    for dst, delay, least in ((2, 2, 3), (1, 4, 5)):
        with pytest.raises(LookaheadError, match=f"the declared lookahead is {least} ticks"):
            play(lambda self, now, go, ctx, dst=dst, delay=delay: ctx.send(dst, delay, Go(1)), links=True)  # type: ignore[misc]


def test_a_send_outside_of_the_links() -> None:
    """An LP that exists, but is not linked from here."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        ctx.send(1, 5, Go(1)) if ctx.lp == 0 else ctx.send(0, 5, Go())

    with pytest.raises(UnknownDestination, match=r"s\.1 at tick 15 sends to LP 0: no link leads from there to s\.0"):
        play(script, links=True)
    with pytest.raises(UnknownDestination, match=r"s\.0 at tick 10: out\(2\): it has 2 links"):
        play(lambda self, now, go, ctx: ctx.out(2), links=True)


def test_without_links_everybody_is_reached() -> None:
    """``out`` counts the LPs."""
    seen: list[Any] = []
    play(lambda self, now, go, ctx: seen.append([ctx.out(i) for i in range(ctx.n_out)]))
    assert seen == [[0, 1, 2]]


def test_a_message_that_nobody_handles_there() -> None:
    """Named with sender and destination, when it is committed."""
    with pytest.raises(UnhandledMessage, match=r"deaf at \(11, 0, 2, 0, 1\): a Letter from s\.0: Deaf has no handler"):
        play(lambda self, now, go, ctx: ctx.send(2, 1, Letter(1, [1, 2])))


def test_numpy_numbers_are_as_good_as_python_s() -> None:
    """And do not travel on: event keys are Python's own numbers."""
    seen: list[Any] = []

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        seen.append((now, ctx.lp))
        if go.step == 0:
            ctx.send(np.int32(1), np.uint8(3), Go(1))
            ctx.add("count", np.int16(4))

    result = play(script)
    assert seen == [(10, 0), (13, 1)]
    assert [type(number) for number in seen[1]] == [int, int]
    assert result.accumulators["count"] == 4


def test_generations_count_sends_without_delay() -> None:
    """0 behind a delay, one more than the parent's without one."""
    seen: list[tuple[int, int]] = []

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        seen.append((now, ctx.generation))
        if go.step < 3:
            ctx.send(0, 0, Go(go.step + 1))
        elif go.step == 3:
            ctx.send(0, 1, Go(4))

    play(script)
    assert seen == [(10, 0), (10, 1), (10, 2), (10, 3), (11, 0)]


def test_a_loop_without_time_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an error in place of a full memory."""
    monkeypatch.setattr(context, "GENERATIONS_MAX", 50)
    with pytest.raises(GenerationOverflow, match=r"at tick 10 sends to .* without delay: at most 50 events cause"):
        play(lambda self, now, go, ctx: ctx.send(ctx.lp, 0, Go()))


@pytest.mark.parametrize("effect", ["send", "emit", "add"])
def test_an_event_has_a_bounded_number_of_effects(effect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that sends for ever is refused."""
    monkeypatch.setattr(context, "SENDS_MAX", 100)
    act = {
        "send": lambda ctx: ctx.send(0, 5000, Go()),
        "emit": lambda ctx: ctx.emit(Go()),
        "add": lambda ctx: ctx.add("count"),
    }[effect]

    def script(limit: int) -> Any:
        return lambda self, now, go, ctx: [act(ctx) for _ in range(limit)] and None

    play(script(100))
    with pytest.raises(ModelError, match="an event has at most 100 effects"):
        play(script(101))


def test_what_was_sent_cannot_be_changed_any_more() -> None:
    """A list in a message is copied when it is sent: the row of the sender goes on changing."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        self.cells[0] = 1
        letter = Letter(5, self.cells)
        ctx.send(1, 10, letter)
        ctx.emit(letter)
        self.cells[0] = 99

    result = play(script)
    assert result.state(1)["cells"] == [1, 0]
    assert result.outputs[0].message == Letter(5, (1, 0))


def test_a_received_array_cannot_be_changed() -> None:
    """The event may be executed once more."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        ctx.send(0, 0, Letter(1, [1, 2]))

    model = scripted(script)
    objects = Objects(model, initial_image(model))
    objects.execute((10, 0, 0, 0, 0, Go()))
    (event,) = objects.context.sends
    with pytest.raises(TypeError):
        event[5].cells[0] = 5


def test_items_of_a_table_are_plain_numbers() -> None:
    """numpy's would wrap around in the middle of a handler."""
    seen: list[Any] = []

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        small, square = ctx.table("small"), ctx.table("square")
        seen.extend([small[0], small[-1], *small, square[1, 0], square[1][0], len(small), square.shape])
        self.n = small[1] * 2**40 * 2**20
        with pytest.raises(ValueError, match="read-only"):
            small[0] = 1

    result = play(script)
    assert seen == [3, 2, 3, 1, 2, 3.5, 3.5, 3, (2, 2)]
    assert {type(value) for value in seen[:7]} == {int, float}
    assert result.state(0)["n"] == 2**60


def test_draws_are_those_of_the_lp_s_stream() -> None:
    """Every kind of draw, of the stream that its path names; the count is part of the state."""
    drawn: list[Any] = []

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        drawn.extend([ctx.bits(), ctx.random(), ctx.below(1000), ctx.exponential(10**9), ctx.normal()])

    play(script, seed=77)
    stream = Stream(77, "s.0")
    expected = [stream.bits(), stream.random(), stream.below(1000), int(stream.exponential(10**9)), stream.normal()]
    assert drawn == expected


@given(st.integers(1, TICK_MAX), st.integers(0, 2**64 - 1))
def test_below_stays_below(n: int, seed: int) -> None:
    """For every bound, and never negative."""
    model = scripted(lambda *_: None, seed=seed)
    objects = Objects(model, initial_image(model))
    ctx = objects.context
    ctx.begin(objects.states[0], 0, 0, 0)
    assert all(0 <= ctx.below(n) < n for _ in range(5))
    assert ctx.below(1) == 0


@given(st.floats(1e-300, 2.0**57), st.integers(0, 2**64 - 1))
def test_exponential_gives_ticks(mean: float, seed: int) -> None:
    """Whole, not negative, and never beyond int64."""
    model = scripted(lambda *_: None, seed=seed)
    objects = Objects(model, initial_image(model))
    ctx = objects.context
    ctx.begin(objects.states[0], 0, 0, 0)
    for _ in range(5):
        ticks = ctx.exponential(mean)
        assert type(ticks) is int
        assert 0 <= ticks < TICK_MAX


def test_accumulators_merge() -> None:
    """sum, min and max; those that nobody touched keep their start."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        for n in (3, -5, 4):
            ctx.add("count", n)
            ctx.add("least", n)
        ctx.add("count")

    assert play(script).accumulators == {"count": 3, "least": -5, "most": -TICK_MAX - 1}


def fail(self: Any, ctx: Context) -> None:
    raise RuntimeError("on purpose")


HANDLERS: dict[str, tuple[type[TidewarpError], str, Any]] = {
    "raises": (HandlerError, "RuntimeError: on purpose: its handler of Go raised", fail),
    "raises a KeyError": (HandlerError, "KeyError: 'x'", lambda self, ctx: {}["x"]),
    "raises a KeyError of its message's class": (HandlerError, "KeyError", lambda self, ctx: {}[Go]),
    "returns a value": (ModelError, "a handler returns nothing", None),
    "writes what is no field": (HandlerError, "AttributeError", lambda self, ctx: setattr(self, "other", 1)),
    "takes a hidden word for its own": (
        HandlerError,
        "AttributeError",
        lambda self, ctx: setattr(self, "__dict__", {}),
    ),
}


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_that_fails(name: str) -> None:
    """The error names path and key, and the cause stays attached."""
    error, words, act = HANDLERS[name]

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        act(self, ctx)

    def returns(self: Any, now: int, go: Go, ctx: Context) -> None:
        return 5  # type: ignore[return-value]

    with pytest.raises(error, match=re.escape(words)) as caught:
        play(returns if act is None else script)
    if error is HandlerError:
        assert caught.value.value.startswith("s.0 at (10, 0, 0, 0, 0): ")
        assert caught.value.__cause__ is not None


def test_keyboard_interrupts_pass() -> None:
    """A handler does not swallow the operator's ^C."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(script)
