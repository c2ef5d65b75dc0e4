"""Barriers: an advance stops at a tick, shows the exact state there, and goes on as if it had not stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Go, scripted

from tidewarp.errors import LateInput, ModelError, OperatorError
from tidewarp.kernel import Context, Engine, LogicalProcess, Model, Status, i64, on
from tidewarp.testing.kernel import small_options
from tidewarp.worlds.hurt import Token, hurt

UNTIL = 18


class Number(NamedTuple):
    """Goes round."""

    n: i64


WAYS = [
    ("sequential", "python", 1),
    ("conservative", "python", 2),
    ("optimistic", "python", 3),
    ("sequential", "compiled", 1),
    ("conservative", "compiled", 2),
    ("optimistic", "compiled", 2),
]
EVERY_WAY = pytest.mark.parametrize(("kernel", "tier", "workers"), WAYS)


def lively() -> Model:
    """A model with outputs, accumulators that are published, and an input."""
    return hurt(lps=1, population=8, lookahead=1, publish_every=5, seed=3)


class Strict(LogicalProcess):
    """Hands a number to the next."""

    count: i64

    def start(self, ctx: Context) -> None:
        """The first LP begins."""
        if ctx.lp == 0:
            ctx.send(1, 1, Number(0))

    @on(Number)
    def take(self, now: int, number: Number, ctx: Context) -> None:
        """Fail from tick 100 on."""
        self.count //= int(now < 100)
        ctx.send((ctx.lp + 1) % ctx.n_lps, 1, number)


def failing() -> Model:
    """A ring of LPs; a handler raises at tick 100."""
    model = Model("failing", lookahead=1)
    model.add(Strict, 4, path="strict")
    return model


def go_on(engine: Engine, until: int) -> list[Any]:
    """Advance, however often outputs have to be taken; the outputs."""
    outputs: list[Any] = []
    while engine.advance(until) is Status.FULL:
        outputs += engine.outputs()
    return outputs + engine.outputs()


def seen(engine: Engine) -> list[Any]:
    """All that an engine shows where it stands."""
    states = [engine.state(lp) for lp in range(engine.model.n_lps)]
    return [engine.until, engine.digest(), states, engine.image(), list(engine.ledger.accumulators)]


@EVERY_WAY
@given(data=st.data())
@settings(max_examples=max(10, settings.default.max_examples // 10))
def test_barriers_show_the_state_at_their_tick_and_change_nothing(
    require: Callable[[str], None], kernel: Any, tier: str, workers: int, data: st.DataObject
) -> None:
    """In the order of their ticks, each sees what a run to its tick comes to; the run ends as one without barriers."""
    if tier == "compiled":
        require("numba")
    ticks = data.draw(st.lists(st.integers(0, UNTIL + 2), max_size=6))
    inputs = data.draw(st.lists(st.tuples(st.integers(0, UNTIL - 1), st.integers(1, 6), st.integers(0, 3)), max_size=3))
    outputs_max = data.draw(st.sampled_from([1, 2**20]))
    how = data.draw(small_options(**({"schedule_seed": st.none()} if tier == "compiled" else {})))
    model = lively()
    (source,) = model.sources
    came: list[Any] = []
    outputs: list[Any] = []

    def look(engine: Engine) -> None:
        outputs.extend(engine.outputs())
        came.append(seen(engine))
        for at, later, dst in inputs:  # given at the first barrier at or behind tick `at`
            if at not in given_ and engine.until >= at:
                given_[at] = (engine.until + later, dst)
                engine.inject(source, dst, engine.until + later, Token(at), seq=at)

    given_: dict[int, tuple[int, int]] = {}
    with Engine(model, kernel=kernel, tier=tier, workers=workers, outputs_max=outputs_max, **how) as engine:
        for tick in ticks:
            engine.barrier(tick, look)
        outputs += go_on(engine, UNTIL)
        last = seen(engine)
    assert [one[0] for one in came] == sorted(tick for tick in ticks if tick <= UNTIL)
    with Engine(model, tier="python") as reference:
        for seq, (at, dst) in given_.items():
            reference.inject(source, dst, at, Token(seq), seq=seq)
        expected = []
        for tick in [one[0] for one in came]:
            expected += go_on(reference, tick)
            # An input beyond the barrier had not come yet where the barrier stood: what is committed is the same.
            assert came.pop(0)[2] == seen(reference)[2]
        assert outputs == expected + go_on(reference, UNTIL)
        assert last == seen(reference)


def test_barriers_of_one_tick_come_as_they_were_set_and_may_set_more() -> None:
    """Ties in the order in which they were set; one that is set at the tick of the call comes after those; none comes twice."""
    came: list[str] = []

    def note(name: str) -> Callable[[Engine], None]:
        return lambda engine: came.append(f"{name} {engine.until} {engine.gvt}")

    def more(engine: Engine) -> None:
        note("more")(engine)
        engine.barrier(7, note("same"))
        engine.barrier(9, note("next"))

    with Engine(lively(), tier="python") as engine:
        for at, call in ((12, note("late")), (7, note("a")), (7, more), (7, note("b")), (3, note("early"))):
            engine.barrier(at, call)
        engine.advance(2)
        assert came == []
        engine.advance(7)
        assert came == ["early 3 4", "a 7 8", "more 7 8", "b 7 8", "same 7 8"]
        engine.advance(11)
        engine.advance(12)
        assert came[5:] == ["next 9 10", "late 12 13"]
        engine.barrier(12, note("again"))
        engine.advance(12)
        engine.advance(15)
        assert came[7:] == ["again 12 13"]


@EVERY_WAY
def test_a_barrier_waits_for_watermarks(require: Callable[[str], None], kernel: Any, tier: str, workers: int) -> None:
    """It comes when every source has promised to give nothing at or below its tick, and no tick beyond it is committed before."""
    if tier == "compiled":
        require("numba")
    model = lively()
    (source,) = model.sources
    came: list[int] = []
    with Engine(model, kernel=kernel, tier=tier, workers=workers) as engine:
        engine.barrier(9, lambda engine: came.append(engine.until))
        engine.watermark(source, 9)
        assert engine.advance(UNTIL) is Status.WAITING
        assert came == []
        assert engine.gvt <= 9
        assert any("sensor" in line for line in engine.stalls())
        engine.inject(source, 0, 9, Token(1))
        engine.watermark(source, 10)
        assert engine.advance(UNTIL) is Status.WAITING
        assert came == [9]
        engine.watermark(source, UNTIL + 1)
        assert engine.advance(UNTIL) is Status.DONE
        digest = engine.digest()
    with Engine(model, tier="python") as engine:
        engine.inject(source, 0, 9, Token(1))
        engine.advance(UNTIL)
        assert engine.digest() == digest
    assert came == [9]


@EVERY_WAY
def test_what_a_call_raises_ends_the_advance_there(
    require: Callable[[str], None], kernel: Any, tier: str, workers: int
) -> None:
    """The engine stands at the barrier, which is used up; the next advance goes on to the digest of an undisturbed run."""
    if tier == "compiled":
        require("numba")

    def fail(engine: Engine) -> None:
        raise ZeroDivisionError(engine.until)

    with Engine(lively(), kernel=kernel, tier=tier, workers=workers) as engine:
        engine.barrier(6, fail)
        with pytest.raises(ZeroDivisionError, match="6"):
            engine.advance(UNTIL)
        middle = seen(engine)
        engine.advance(UNTIL)
        last = seen(engine)
    with Engine(lively(), tier="python") as engine:
        engine.advance(6)
        assert middle == seen(engine)
        engine.advance(UNTIL)
        assert last == seen(engine)


@EVERY_WAY
def test_a_checkpoint_of_a_call_is_that_of_a_run_to_there(
    require: Callable[[str], None], kernel: Any, tier: str, workers: int
) -> None:
    """At the tick before a multiple of trace_interval, which is 8; what is restored has no barriers. Elsewhere it is refused."""
    if tier == "compiled":
        require("numba")
    kept: list[bytes] = []
    with Engine(lively(), kernel=kernel, tier=tier, workers=workers) as engine:
        engine.barrier(7, lambda engine: kept.append(engine.checkpoint()))
        engine.barrier(9, lambda engine: kept.append(engine.checkpoint()))
        with pytest.raises(OperatorError, match="within the call of a barrier"):
            engine.advance(UNTIL)
        engine.outputs()
        engine.advance(UNTIL)
        digest = engine.digest()
    with Engine(lively(), tier="python") as engine:
        engine.advance(7)
        assert kept == [engine.checkpoint()]
    with Engine.restore(lively(), kept[0], kernel=kernel, tier=tier, workers=workers) as engine:
        engine.advance(UNTIL)
        assert engine.digest() == digest


def test_what_a_call_may_not_do() -> None:
    """Advance, inject at or below the barrier, or close the engine and let it go on; the engine stays as it was."""
    model = lively()
    (source,) = model.sources
    with Engine(model, tier="python") as engine:
        engine.barrier(5, lambda engine: engine.advance(6))
        with pytest.raises(
            OperatorError, match="an advance to 6 within the call of a barrier: the run stands at tick 5"
        ):
            engine.advance(UNTIL)
        engine.barrier(5, lambda engine: engine.inject(source, 0, 5, Token(1)))
        with pytest.raises(LateInput):
            engine.advance(UNTIL)
        engine.advance(UNTIL)
        digest = engine.digest()
    with Engine(model, tier="python") as engine:
        engine.advance(UNTIL)
        assert engine.digest() == digest
    with Engine(model, tier="python") as engine:
        engine.barrier(5, Engine.close)
        with pytest.raises(OperatorError, match="a closed engine"):
            engine.advance(UNTIL)


@pytest.mark.parametrize("at", [-1, 2.0, True, "7", 2**63 - 1, None])
def test_a_barrier_is_at_a_tick(at: Any) -> None:
    """What is no tick is refused, with its value."""
    with Engine(lively(), tier="python") as engine, pytest.raises(OperatorError, match="a barrier at"):
        engine.barrier(at, print)


def test_a_barrier_lies_ahead_and_calls() -> None:
    """Below what the run was advanced to it would show another state; without a function it would show none."""
    with Engine(lively(), tier="python") as engine:
        engine.advance(10)
        with pytest.raises(OperatorError, match="a barrier at 9: the run has been advanced to 10"):
            engine.barrier(9, print)
        with pytest.raises(OperatorError, match="it calls a function"):
            engine.barrier(12, None)  # type: ignore[arg-type]
    with pytest.raises(OperatorError, match="a closed engine"):
        engine.barrier(12, print)


@pytest.mark.parametrize("kernel", ["sequential", "optimistic"])
def test_no_handler_runs_beyond_a_barrier(kernel: Any) -> None:
    """Not even one that would be undone."""
    begun: list[int] = []

    def tick(lp: Any, now: int, go: Go, ctx: Context) -> None:
        begun.append(now)
        ctx.send(1 - ctx.lp, 1, go)

    most: list[int] = []
    with Engine(scripted(tick), kernel=kernel, tier="python", window=1000) as engine:
        engine.barrier(50, lambda engine: most.append(max(begun)))
        engine.advance(90)
    assert (most, max(begun)) == ([50], 90)


@EVERY_WAY
def test_a_run_that_fails_calls_the_barriers_before_and_none_behind(
    require: Callable[[str], None], kernel: Any, tier: str, workers: int
) -> None:
    """An error at tick 100 ends the run; it is the error of a run without barriers."""
    if tier == "compiled":
        require("numba")
    came: list[int] = []
    with Engine(failing(), kernel=kernel, tier=tier, workers=workers) as engine:
        for at in (40, 9, 300):
            engine.barrier(at, lambda engine: came.append(engine.until))
        with pytest.raises(ModelError) as got:
            engine.advance(400)
    with Engine(failing(), tier="python") as engine, pytest.raises(ModelError) as expected:
        engine.advance(400)
    assert str(got.value) == str(expected.value)
    assert came == [9, 40]
