"""The optimistic engine of the Python tier commits what the sequential one commits, whatever it tries on the way."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidewarp.errors import HandlerError, ModelError, OperatorError, PoolExhausted, ReverseMismatch
from tidewarp.kernel import Context, Engine, LogicalProcess, Model, Status, Undo, i64, mix64, on, reverse, run, u64
from tidewarp.kernel.optimistic.kernel import OptimisticKernel
from tidewarp.kernel.optimistic.memory import ENTRY_BYTES
from tidewarp.testing.kernel import cases, check_parity, optimistic_options
from tidewarp.units import TICK_MAX, seconds
from tidewarp.worlds.hurt import CLASSES, Case, hurt, play
from tidewarp.worlds.phold import phold

FEWER = settings(max_examples=max(10, settings.default.max_examples // 5), report_multiple_bugs=False)
OPTIMISTIC = {"kernel": "optimistic", "tier": "python"}


@FEWER
@given(case=cases())
def test_random_models_and_options(case: Case) -> None:
    """Digest, trace, outputs and accumulators are those of the reference; a memory bound may stop a run, never change it."""
    try:
        check_parity(case, **{**case.options, "tier": "python"})
    except PoolExhausted:
        assert case.options["memory_max_bytes"] is not None


@FEWER
@given(options=optimistic_options(), seed=st.integers(0, 5))
def test_one_model_one_digest(options: dict[str, Any], seed: int) -> None:
    """However a model is executed, its digest is the same, and what is executed is committed or rolled back."""
    case = Case(hurt(CLASSES[0], 6, population=3, emit=0.3, seed=seed), 15, [], {})
    played = check_parity(case, **options)
    assert played.stats.executed == played.committed + played.stats.rolled_back


@pytest.mark.parametrize("seed", range(3))
def test_messages_that_have_no_room_to_leave_at_the_end_belong_to_the_state(seed: int) -> None:
    """Committed events may have sent more than the rings hold, to arrive beyond ``until``: it is pending all the same."""
    case = Case(hurt(CLASSES[0], 6, population=8, lookahead=2, remote=1.0, seed=seed), 3, [], {})
    for schedule in range(8):
        check_parity(case, **OPTIMISTIC, workers=2, ring=2, batch=64, schedule_seed=schedule)


def test_phold_with_thrashing_schedules() -> None:
    """A large window and PEs that fall behind make many rollbacks and the same digest."""
    expected = run(phold(lps=24, population=4), seconds(3), tier="python")
    rolled_back = 0
    for seed in range(6):
        options = {**OPTIMISTIC, "workers": 3, "schedule_seed": seed, "window": seconds(5), "kps": 2}
        result = run(phold(lps=24, population=4), seconds(3), **options)
        assert (result.digest, result.committed) == (expected.digest, expected.committed)
        rolled_back += result.rolled_back
        again = run(phold(lps=24, population=4), seconds(3), **options)
        assert again.stats == result.stats, "a schedule seed is one interleaving"
    assert rolled_back > 6 * expected.committed / 4


def test_a_window_of_the_lookahead_never_rolls_back() -> None:
    """Nothing can arrive below GVT + lookahead."""
    for seed in range(4):
        result = run(
            phold(lps=12, population=4), seconds(3), **OPTIMISTIC, workers=3, window="lookahead", schedule_seed=seed
        )
        assert result.rolled_back == 0
        assert result.anti_messages == 0


# --- an image in between ------------------------------------------------------------------------------


@FEWER
@given(options=optimistic_options(3), seed=st.integers(0, 9), outputs_max=st.integers(1, 4))
def test_an_image_is_exact_where_the_run_stands(options: dict[str, Any], seed: int, outputs_max: int) -> None:
    """At a full queue of outputs, and at a tick before the end; the run goes on after it as if it had not been taken."""
    model = hurt(CLASSES[1], 2, population=2, emit=0.4, seed=seed)
    with (
        Engine(model, tier="python", outputs_max=outputs_max) as one,
        Engine(model, outputs_max=outputs_max, **options) as other,
    ):
        for until in (4, 9):
            while True:
                status = one.advance(until)
                assert other.advance(until) is status
                assert one.image() == other.image()
                assert one.gvt == other.gvt
                assert one.outputs() == other.outputs()
                if status is Status.DONE:
                    break
            assert one.digest() == other.digest()


# --- LPs that are never undone ------------------------------------------------------------------------


class Knock(NamedTuple):
    """From a speculative LP to one that is not."""

    number: i64


HEARD: list[tuple[int, int, int]] = []


class Knocker(LogicalProcess):
    """Sends at random, without delay too."""

    hash: u64

    def start(self, ctx: Context) -> None:
        """Three chains of knocks."""
        for number in range(3):
            ctx.send(ctx.lp, ctx.below(3), Knock(number))

    @on(Knock)
    def knock(self, now: int, knock: Knock, ctx: Context) -> None:
        """One to anybody, one that keeps the chain alive."""
        self.hash = mix64(self.hash ^ knock.number ^ now)
        ctx.send(ctx.below(ctx.n_lps), ctx.below(2), Knock(ctx.below(100)))
        if ctx.random() < 0.3:
            ctx.send(ctx.lp, 1 + ctx.below(3), Knock(ctx.below(100)))


class Witness(LogicalProcess, speculative=False):
    """Does what cannot be taken back: it writes down what it hears."""

    hash: u64

    @on(Knock)
    def hear(self, now: int, knock: Knock, ctx: Context) -> None:
        """Write it down; answer in the same tick."""
        HEARD.append((now, ctx.lp, knock.number))
        self.hash = mix64(self.hash ^ knock.number ^ now)
        if knock.number % 3 == 0:
            ctx.send(ctx.below(ctx.n_lps), 0, Knock(1 + 3 * ctx.below(9)))


def witnessed(seed: int) -> Model:
    """Two witnesses among five speculative LPs."""
    model = Model("witnessed", seed=seed, trace_interval=4)
    model.add(Knocker, 3, path="first")
    model.add(Witness, 2, path="witness")
    model.add(Knocker, 2, path="last")
    return model


@FEWER
@given(options=optimistic_options(), seed=st.integers(0, 20))
def test_an_lp_that_is_not_speculative_runs_each_event_once(options: dict[str, Any], seed: int) -> None:
    """In key order, with zero delays around it, in the order of the reference."""
    HEARD.clear()
    expected = run(witnessed(seed), 8, tier="python")
    heard = sorted(HEARD)
    HEARD.clear()
    assert run(witnessed(seed), 8, **options).digest == expected.digest
    assert sorted(HEARD) == heard, "an event ran twice, or too early"
    for lp in (3, 4):
        ticks = [now for now, one, _ in HEARD if one == lp]
        assert ticks == sorted(ticks)


# --- errors -------------------------------------------------------------------------------------------


class Arm(NamedTuple):
    """Makes the next try succeed."""


class Try(NamedTuple):
    """Fails if nobody has armed it."""

    number: i64


class Trap(LogicalProcess):
    """Its handler fails in a state that a late input makes unreal."""

    armed: i64
    tried: i64

    @on(Arm)
    def arm(self, now: int, arm: Arm, ctx: Context) -> None:
        """Arm it."""
        self.armed += 1

    @on(Try)
    def trap(self, now: int, message: Try, ctx: Context) -> None:
        """Half of the change is done when it fails."""
        self.tried += 1
        ctx.send(ctx.lp, 1, Arm())
        if self.armed == 0:
            raise ValueError("not armed")


def trap() -> Model:
    """One trap and one source."""
    model = Model("trap", trace_interval=10)
    model.add(Trap, 2, path="trap")
    model.input("hand")
    return model


@pytest.mark.parametrize("saving", ["copy", "undo", "delta", "periodic:2"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_counts_only_if_its_event_is_committed(saving: str, workers: int) -> None:
    """A late input takes the error back; without it the run ends with everything before it committed."""
    model = trap()
    (hand,) = model.sources
    for late in (True, False):
        with Engine(model, **OPTIMISTIC, workers=workers, kps=1, saving=saving, window=1000) as engine:
            engine.inject(hand, 0, 5, Arm())
            engine.inject(hand, 1, 20, Try(1))
            engine.inject(hand, 1, 30, Try(2))
            engine.watermark(hand, 6)
            assert engine.advance(50) is Status.WAITING
            if late:
                assert engine.stats().executed > 1, "it has run ahead"
                engine.inject(hand, 1, 10, Arm())
            engine.watermark(hand, TICK_MAX)
            if late:
                assert engine.advance(50) is Status.DONE
                assert engine.stats().errors_undone == 1
                assert engine.state(1) == {"armed": 3, "tried": 2}
            else:
                with pytest.raises(HandlerError, match=r"trap\.1 at .*not armed"):
                    engine.advance(50)
                assert engine.ledger.committed == 1
                with pytest.raises(HandlerError):
                    engine.advance(60)


class Fuse(LogicalProcess):
    """Fails at random."""

    hash: u64

    def start(self, ctx: Context) -> None:
        """Two sparks."""
        for number in range(2):
            ctx.send(ctx.lp, ctx.below(4), Try(number))

    @on(Try)
    def burn(self, now: int, message: Try, ctx: Context) -> None:
        """Send one on; one in thirty fails, after that."""
        self.hash = mix64(self.hash ^ message.number ^ now)
        ctx.emit(message)
        ctx.send(ctx.below(ctx.n_lps), ctx.below(3), Try(ctx.below(1000)))
        if self.hash % 30 == 0:
            raise ValueError(self.hash)
        if self.hash % 31 == 0:
            ctx.send(99, 1, message)


@FEWER
@given(options=optimistic_options(), seed=st.integers(0, 2**32))
def test_the_first_error_in_key_order_ends_the_run(options: dict[str, Any], seed: int) -> None:
    """The same error and the same committed events as in the reference."""
    model = Model("fuse", seed=seed)
    model.add(Fuse, 5, path="fuse")
    endings = []
    for given_options in ({"tier": "python"}, options):
        with Engine(model, **given_options) as engine:
            try:
                engine.advance(30)
                error = ""
            except ModelError as caught:
                error = str(caught)
            endings.append((error, engine.ledger.committed, engine.ledger.events.head(), engine.outputs()))
    assert endings[0] == endings[1]


# --- state saving -------------------------------------------------------------------------------------


class Turn(NamedTuple):
    """By how much."""

    by: i64


class Dial(LogicalProcess, saving="reverse"):
    """Its inverse forgets a field when ``wrong`` is set."""

    angle: i64
    turns: i64
    wrong: i64

    def start(self, ctx: Context) -> None:
        """Begin to turn."""
        ctx.send(ctx.lp, 1 + ctx.below(3), Turn(1))

    @on(Turn)
    def turn(self, now: int, turn: Turn, ctx: Context) -> None:
        """Turn, and let somebody else turn."""
        ctx.note(self.angle)
        self.angle = (self.angle * 3 + turn.by) % 360
        self.turns += 1
        ctx.send(ctx.below(ctx.n_lps), ctx.below(4), Turn(ctx.below(9)))

    @reverse(Turn)
    def turn_back(self, now: int, turn: Turn, undo: Undo) -> None:
        """The inverse."""
        self.angle = undo.bits
        if not self.wrong:
            self.turns -= 1


class Notes(Dial, saving="custom"):
    """Saves itself."""

    def save(self) -> tuple[int, int]:
        """What a turn changes."""
        return self.angle, self.turns

    def load(self, saved: tuple[int, int]) -> None:
        """Back to it."""
        self.angle, self.turns = saved


def dials(cls: type[Dial], wrong: int = 0) -> Model:
    """Four of them."""
    model = Model("dials")
    model.add(cls, 4, path="dial", init={"wrong": wrong})
    return model


@pytest.mark.parametrize("cls", [Dial, Notes])
@pytest.mark.parametrize("debug", [False, True])
def test_reverse_and_custom_saving(cls: type[Dial], debug: bool) -> None:
    """Both bring the state back under many rollbacks; draws and numbers of sends are put back for them."""
    expected = run(dials(cls), 60, tier="python").digest
    rolled_back = 0
    for seed in range(5):
        result = run(dials(cls), 60, **OPTIMISTIC, workers=4, window=2**40, schedule_seed=seed, debug=debug)
        assert result.digest == expected
        rolled_back += result.rolled_back
    assert rolled_back > 50


def test_debug_finds_a_wrong_inverse() -> None:
    """The error names class, message, field, both values."""
    with pytest.raises(ReverseMismatch, match=r"Dial.turns after Turn at .*: 1: it was 0"):
        run(dials(Dial, wrong=1), 20, **OPTIMISTIC, debug=True)


@pytest.mark.parametrize("saving", ["reverse", "custom"])
def test_a_saving_that_the_class_cannot_do(saving: str) -> None:
    """It is refused when the engine opens."""
    with pytest.raises(OperatorError, match=saving):
        run(phold(lps=2), 10, **OPTIMISTIC, saving=saving)


# --- memory -------------------------------------------------------------------------------------------


def need_of(model: Model, until: int) -> int:
    """The most pending events that a sequential run has between two ticks."""
    with Engine(model, tier="python") as engine:
        sizes = []
        for tick in range(until + 1):
            engine.advance(tick)
            sizes.append(engine.stats().pool_size)
        return max(sizes)


def test_a_memory_bound_costs_time_not_the_digest() -> None:
    """Twice the need of a sequential run is enough for any schedule; messages are sent back on the way."""
    cancelbacks = 0
    for seed in range(6):
        model = hurt(CLASSES[0], 6, population=4, remote=0.8, seed=seed)
        need = need_of(model, 15)
        case = Case(model, 15, [], {})
        options = {**OPTIMISTIC, "workers": 3, "window": 2**40, "kps": 1 + seed % 2, "schedule_seed": seed, "batch": 16}
        bound = (2 * need + 4) * ENTRY_BYTES
        for cancellation in ("aggressive", "lazy"):
            played = check_parity(case, **options, memory_max_bytes=bound, cancellation=cancellation)
            cancelbacks += played.stats.cancelbacks
    assert cancelbacks > 20


def test_a_bound_below_the_need_is_an_error() -> None:
    """It says what is needed, and where."""
    with pytest.raises(PoolExhausted, match=r"bytes for \d+ events at tick .*bound is 20480 bytes.*memory_max_bytes"):
        run(phold(lps=8, population=4), seconds(2), **OPTIMISTIC, workers=2, memory_max_bytes=20 * ENTRY_BYTES)


# --- looking in ---------------------------------------------------------------------------------------


@settings(FEWER, max_examples=12)
@given(seed=st.integers(0, 2**32), lazy=st.booleans(), bound=st.sampled_from([None, 40 * ENTRY_BYTES]))
@example(seed=1, lazy=True, bound=40 * ENTRY_BYTES)
def test_the_state_is_sound_after_every_turn(seed: int, lazy: bool, bound: int | None) -> None:
    """Lists, counts and marks of all PEs fit together at any moment."""
    options: dict[str, Any] = {**OPTIMISTIC, "workers": 3, "batch": 4, "ring": 4, "gvt_interval": 1, "window": 2**40}
    model = hurt(CLASSES[1], 2, population=2, seed=seed)
    engine = Engine(
        model, **options, schedule_seed=seed, cancellation="lazy" if lazy else "aggressive", memory_max_bytes=bound
    )
    kernel = engine._kernel
    assert isinstance(kernel, OptimisticKernel)
    turn = kernel.scheduler.turn

    def checked_turn(horizon: int) -> bool:
        done = turn(horizon)
        kernel.validate()
        return done

    kernel.scheduler.turn = checked_turn  # type: ignore[method-assign]
    with engine, contextlib.nullcontext() if bound is None else contextlib.suppress(PoolExhausted):
        engine.advance(8)


def test_what_holds_gvt_is_said_in_words() -> None:
    """A source that promises nothing: the engine names it; the PEs say what comes next."""
    model = trap()
    (hand,) = model.sources
    with Engine(model, **OPTIMISTIC, workers=2) as engine:
        engine.inject(hand, 0, 5, Arm())
        engine.watermark(hand, 3)
        assert engine.advance(50) is Status.WAITING
        assert engine.stalls() == ["waiting for the watermark of input 'hand', which stands at tick 3"]
        holders = engine._kernel.scheduler.holders()  # type: ignore[attr-defined]
        assert holders[1] == "PE 1: nothing to do, 0 letters not received"
        played = play(Case(model, 4, [], {}), tier="python")
        assert played.committed == 0
