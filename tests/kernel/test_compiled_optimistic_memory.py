"""A bound of memory changes no digest of the compiled tier: a run that fits ends, one that does not fit names the bound that does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewarp.errors import HandlerError, PoolExhausted
from tidewarp.kernel import Context, Engine, LogicalProcess, Model, i64, on, run
from tidewarp.testing.kernel import check_parity
from tidewarp.testing.planted import interleaved
from tidewarp.units import seconds
from tidewarp.worlds.hurt import CLASSES, Case, Late, Token, hurt, play
from tidewarp.worlds.phold import phold
from tidewarp.worlds.queueing import shop

FEWER = settings(
    max_examples=max(5, settings.default.max_examples // 30),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def numba(require: Callable[[str], None]) -> None:
    """The compiled tier is what is tested."""
    require("numba")


def bound_of(error: PoolExhausted) -> int:
    """The bound that an error names."""
    return int(str(error).rsplit("memory_max_bytes", 1)[1].lstrip("= above").split()[0]) + 1


def least_of(model: Model, until: int, **options: Any) -> int:
    """The bound that a run without any memory asks for."""
    with pytest.raises(PoolExhausted) as caught:
        run(model, until, kernel="optimistic", tier="compiled", memory_max_bytes=1, **options)
    return bound_of(caught.value)


MODELS = st.builds(
    hurt,
    st.sampled_from(CLASSES),
    st.sampled_from([4, 8]),
    population=st.sampled_from([1, 4]),
    lookahead=st.sampled_from([0, 0, 2]),
    spread=st.sampled_from([2, 4]),
    remote=st.sampled_from([0.1, 0.6, 1.0]),
    emit=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 2**64 - 1),
)
OPTIONS = st.fixed_dictionaries(
    {
        "kernel": st.just("optimistic"),
        "tier": st.just("compiled"),
        "workers": st.integers(2, 4),
        "kps": st.sampled_from([None, 1, 3]),
        "window": st.sampled_from(["auto", 3, 2**40]),
        "batch": st.sampled_from([1, 8, 64]),
        "gvt_interval": st.integers(1, 8),
        "ring": st.sampled_from([2, 4, 16, 64]),
        "slice_turns": st.integers(1, 64),
        "cancellation": st.sampled_from(["aggressive", "lazy"]),
        "saving": st.sampled_from([None, "copy", "delta", "periodic:3"]),
        "outputs_max": st.sampled_from([3, 2**20]),
    }
)
LATE = st.lists(st.builds(Late, st.integers(0, 12), st.integers(0, 3), st.integers(0, 2**64 - 1)), max_size=3)


@FEWER
@given(MODELS, OPTIONS, st.integers(30, 300), st.booleans(), st.integers(0, 2**32))
def test_a_run_that_fits_ends_and_another_names_what_does(
    model: Model, options: dict[str, Any], share: int, threaded: bool, seed: int
) -> None:
    """From the least bound on every run ends as the sequential one; below it too, or the bound that it names suffices."""
    case = Case(model, 12, [], options)
    least = least_of(model, case.until, workers=options["workers"])
    expected = play(case, kernel="sequential", tier="python")
    bound = least * share // 100
    with nullcontext() if threaded else interleaved(seed, options["slice_turns"], slices_max=100_000):
        try:
            played = check_parity(case, expected, **options, memory_max_bytes=bound)
        except PoolExhausted as error:
            assert share < 100
            bound = bound_of(error)
            played = check_parity(case, expected, **options, memory_max_bytes=bound)
    assert played.stats.pool_bytes <= bound


@FEWER
@given(MODELS, OPTIONS, LATE, st.integers(100, 200), st.integers(0, 2**32))
def test_inputs_that_come_late_fit_or_are_refused(
    model: Model, options: dict[str, Any], late: list[Late], share: int, seed: int
) -> None:
    """What comes later nobody can count, so a run may end at the bound; if it does not, it ends as the sequential one."""
    case = Case(model, 12, late, options)
    bound = least_of(model, case.until, workers=options["workers"]) * share // 100
    with interleaved(seed, options["slice_turns"], slices_max=100_000), suppress(PoolExhausted):
        check_parity(case, **options, memory_max_bytes=bound)


def counted() -> Model:
    """What an event adds takes slots until it is committed, and one tick has many events: they fill a pool."""
    model = Model("counted", lookahead=1)
    model.add(Eager, 6, path="eager")
    model.add(Careful, 2, path="careful")
    model.accumulator("sum")
    model.accumulator("least", "min")
    model.accumulator("most", "max")
    return model


class Eager(LogicalProcess):
    """Adds thrice in each event."""

    hits: i64

    def start(self, ctx: Context) -> None:
        """Ten tokens."""
        for number in range(10):
            ctx.send(ctx.lp, 1 + number % 2, Token(number))

    @on(Token)
    def take(self, now: int, token: Token, ctx: Context) -> None:
        """Send it to anybody."""
        self.hits += 1
        ctx.add("sum", 1)
        ctx.add("least", self.hits)
        ctx.add("most", self.hits)
        ctx.send(ctx.below(ctx.n_lps), 1, Token(token.value))


class Careful(Eager, speculative=False):
    """The same, only what is final."""


@pytest.mark.parametrize("share", [100, 130, 200])
def test_events_that_are_final_together_may_fill_the_pools(share: int) -> None:
    """Then they are executed one after the other: GVT stands at a tick whose events do not fit all at once."""
    model = counted()
    least = least_of(model, 30, workers=3)
    expected = run(model, 30, tier="python")
    options = {"kernel": "optimistic", "tier": "compiled", "workers": 3, "kps": 1, "ring": 2, "gvt_interval": 1}
    with interleaved(share):
        result = run(model, 30, **options, saving="periodic:7", memory_max_bytes=least * share // 100)
    assert (result.digest, result.accumulators) == (expected.digest, expected.accumulators)


@pytest.mark.parametrize(
    ("model", "until"),
    [
        (phold(lps=24, population=4, remote=0.5, lookahead=seconds(0.01)), seconds(4)),
        (shop(servers=15), seconds(60)),
        (hurt(CLASSES[0], 8, population=4, remote=0.6, seed=3), 15),
    ],
    ids=["phold", "shop", "hurt"],
)
@pytest.mark.parametrize("tier", ["python", "compiled"])
def test_twice_the_least_bound_is_enough(model: Model, until: int, tier: str) -> None:
    """In each tier, whatever it takes an event to need."""
    options: dict[str, Any] = {"kernel": "optimistic", "tier": tier, "workers": 3, "window": 2**62, "kps": 2}
    expected = run(model, until, tier="python").digest
    with pytest.raises(PoolExhausted) as caught:
        run(model, until, **options, memory_max_bytes=1)
    result = run(model, until, **options, memory_max_bytes=2 * bound_of(caught.value))
    assert result.digest == expected


def test_an_error_at_the_bound_is_the_sequential_one() -> None:
    """Whoever executes the event, the text and what is committed before it are the same."""
    model = Model("fragile", lookahead=1)
    model.add(Fragile, 6, path="fragile")
    told = []
    parallel = {"kernel": "optimistic", "tier": "compiled", "workers": 3}
    least = least_of(model, 100, workers=3)
    for options in ({"tier": "python"}, parallel, {**parallel, "memory_max_bytes": least}):
        with interleaved(1), Engine(model, **options) as engine:
            with pytest.raises(HandlerError) as caught:
                engine.advance(100)
            told.append((str(caught.value), engine.ledger.committed))
    assert len(set(told)) == 1


class Fragile(LogicalProcess):
    """Divides by what it counts down."""

    left: i64

    def start(self, ctx: Context) -> None:
        """Many tokens, of which the last cannot be taken."""
        self.left = 40 + ctx.lp
        for number in range(8):
            ctx.send(ctx.lp, 1, Token(number))

    @on(Token)
    def take(self, now: int, token: Token, ctx: Context) -> None:
        """Fail at the last."""
        self.left -= 1
        ctx.send((ctx.lp + 1) % ctx.n_lps, 1, Token(100 // self.left))
