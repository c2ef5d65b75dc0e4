"""Time Warp on threads commits what the sequential engine of the Python tier commits, however it is executed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewarp.errors import HandlerError, LateInput, PoolExhausted
from tidewarp.kernel import Context, Engine, LogicalProcess, Model, Status, i64, on, run
from tidewarp.testing.kernel import check_parity
from tidewarp.testing.planted import interleaved
from tidewarp.units import seconds
from tidewarp.worlds.hurt import CLASSES, Case, Late, Mixer, Token, hurt
from tidewarp.worlds.phold import phold

slow = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def no_thread_is_left(require: Callable[[str], None]) -> Iterator[None]:
    """No thread may outlive its engine."""
    require("numba")
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tidewarp-pe")]


def compiled(**more: Any) -> dict[str, Any]:
    """Keywords of a compiled optimistic run."""
    return {"kernel": "optimistic", "tier": "compiled", **more}


def validate(engine: Engine) -> None:
    """No slot and no chunk is lost."""
    engine._kernel.validate()  # type: ignore[attr-defined]


OPTIONS = st.fixed_dictionaries(
    {
        "workers": st.integers(1, 4),
        "kps": st.sampled_from([None, 1, 3, 16]),
        "window": st.sampled_from(["auto", "lookahead", 1, 3, 20, 2**40]),
        "batch": st.sampled_from([1, 8, 64]),
        "gvt_interval": st.sampled_from([1, 4, 16]),
        "ring": st.sampled_from([2, 8, 4096]),
        "slice_turns": st.sampled_from([3, 1000]),
        "cancellation": st.sampled_from(["aggressive", "lazy"]),
        "saving": st.sampled_from([None, "copy", "delta", "periodic:2", "periodic:7"]),
        "outputs_max": st.sampled_from([3, 2**20]),
        "digest": st.just("events"),
    }
)
MODELS = st.builds(
    hurt,
    st.sampled_from(CLASSES),
    st.sampled_from([2, 4]),
    population=st.sampled_from([1, 4]),
    lookahead=st.sampled_from([0, 0, 2]),
    spread=st.sampled_from([2, 4]),
    remote=st.sampled_from([0.1, 0.6, 1.0]),
    emit=st.sampled_from([0.0, 0.2]),
    links=st.sampled_from(["none", "some"]),
    seed=st.integers(0, 2**64 - 1),
)
LATE = st.lists(st.builds(Late, st.integers(0, 20), st.integers(0, 1), st.integers(0, 2**64 - 1)), max_size=4)


@slow
@given(model=MODELS, options=OPTIONS, late=LATE)
def test_every_configuration_gives_the_sequential_digest(
    model: Model, options: dict[str, Any], late: list[Late]
) -> None:
    """Ties, zero delays, late inputs, outputs, accumulators; threads, in any order."""
    options["workers"] = min(options["workers"], model.n_lps)
    check_parity(Case(model, 20, late, {}), **compiled(**options))


@slow
@given(model=MODELS, options=OPTIONS, late=LATE, seed=st.integers(0, 2**32))
def test_every_schedule_gives_the_sequential_digest(
    model: Model, options: dict[str, Any], late: list[Late], seed: int
) -> None:
    """The same with turns in an order that repeats."""
    options["workers"] = min(options["workers"], model.n_lps)
    with interleaved(seed):
        check_parity(Case(model, 20, late, {}), **compiled(**options))


@pytest.mark.parametrize("cancellation", ["aggressive", "lazy"])
def test_no_slot_is_lost(cancellation: str) -> None:
    """After each advance every slot is free, pending, executed, a stub or waits to leave."""
    model = hurt([Mixer], 4, population=4, remote=0.6, emit=0.2, seed=3)
    options = compiled(workers=3, kps=2, ring=8, window=2**40, cancellation=cancellation)
    with interleaved(5), Engine(model, **options) as engine:
        for until in range(0, 24, 3):
            engine.advance(until)
            validate(engine)
        assert engine.stats().rolled_back > 0
        engine.image()
        validate(engine)


def test_an_image_at_any_tick_is_the_sequential_one() -> None:
    """What lies beyond GVT is undone before the state is told."""
    model = hurt([Mixer], 4, population=4, remote=0.6, seed=9)
    with Engine(model, **compiled(workers=2, window=2**40)) as engine, Engine(model, tier="python") as reference:
        for until in (3, 4, 11, 20):
            assert engine.advance(until) is Status.DONE
            reference.advance(until)
            assert engine.image() == reference.image()
            assert [engine.state(lp) for lp in range(model.n_lps)] == [reference.state(lp) for lp in range(model.n_lps)]


def test_a_run_goes_on_beyond_a_source_that_lags() -> None:
    """What a watermark holds back is executed, not committed, and undone when an input comes below it."""
    model = hurt([Mixer], 4, population=4, remote=0.6, seed=1)
    source = model.sources[0]
    with Engine(model, **compiled(workers=2, window=2**40)) as engine:
        engine.watermark(source, 5)
        assert engine.advance(20) is Status.WAITING
        assert engine.gvt <= 5
        engine.inject(source, 0, 6, Token(7), seq=0)
        engine.watermark(source, 2**63 - 1)
        assert engine.advance(20) is Status.DONE
        assert engine.stats().rolled_back > 0
        with pytest.raises(LateInput):
            engine.inject(source, 0, 6, Token(7), seq=1)
        digest = engine.digest()
    with Engine(model, tier="python") as reference:
        reference.inject(source, 0, 6, Token(7), seq=0)
        reference.advance(20)
        assert reference.digest() == digest


def test_a_window_of_the_lookahead_never_rolls_back() -> None:
    """Then it is conservative execution."""
    model = phold(lps=16, population=4)
    result = run(model, seconds(10), **compiled(workers=3, window="lookahead"))
    assert result.rolled_back == 0
    assert result.digest == run(model, seconds(10), tier="python").digest


def test_more_workers_than_cores_and_unequal_blocks() -> None:
    """The digest knows nothing of the partition."""
    model = phold(lps=23, population=2)
    expected = run(model, seconds(5), tier="python").digest
    assert run(model, seconds(5), **compiled(workers=8)).digest == expected
    partition = [0] * 20 + [1, 0, 2]
    assert run(model, seconds(5), **compiled(workers=3, partition=partition)).digest == expected


class Careful(LogicalProcess, speculative=False):
    """Runs only what is final."""

    hits: i64
    last: i64

    @on(Token)
    def take(self, now: int, token: Token, ctx: Context) -> None:
        """Note that times never go back, and answer at once."""
        if now < self.last:
            self.hits += 1_000_000
        self.last = now
        self.hits += 1
        ctx.send((ctx.lp + 1) % ctx.n_lps, ctx.below(3), Token(token.value))


class Eager(Careful, speculative=True):
    """The same, executed ahead."""

    def start(self, ctx: Context) -> None:
        """Two tokens each."""
        ctx.send(ctx.lp, 1, Token(1))
        ctx.send(ctx.lp, 2, Token(2))


def test_lps_that_do_not_speculate_are_never_undone() -> None:
    """They wait until GVT has settled on their events, zero delays included, and nobody waits for ever."""
    model = Model("careful")
    model.add(Careful, 3, path="careful")
    model.add(Eager, 5, path="eager")
    expected = run(model, 60, tier="python").digest
    for partition in ([0, 1, 2, 0, 1, 2, 0, 1], [0, 0, 0, 1, 1, 1, 2, 2]):
        options = compiled(workers=3, partition=partition, window=2**40)
        with interleaved(3):
            assert run(model, 60, **options).digest == expected
        assert run(model, 60, **options).digest == expected


class Fragile(LogicalProcess):
    """Divides by what it counts down."""

    left: i64
    hits: i64

    def start(self, ctx: Context) -> None:
        """The first token."""
        ctx.send(ctx.lp, 1 + ctx.lp, Token(0))

    @on(Token)
    def take(self, now: int, token: Token, ctx: Context) -> None:
        """Fail at the tenth token."""
        self.left -= 1
        self.hits += 100 // self.left
        ctx.add("hits")
        ctx.emit(Token(now))
        ctx.send((ctx.lp + 1) % ctx.n_lps, 1, Token(token.value + 1))


@pytest.mark.parametrize("digest", ["events", "state"])
def test_an_error_comes_after_what_precedes_it(digest: str) -> None:
    """Text, committed events, outputs and accumulators are those of the sequential run."""
    model = Model("fragile")
    model.add(Fragile, 4, path="lp", init={"left": [9, 7, 9, 9]})
    model.accumulator("hits")
    told = []
    for options in ({"tier": "python"}, compiled(workers=1), compiled(workers=3, window=2**40)):
        with Engine(model, digest=digest, **options) as engine:
            with pytest.raises(HandlerError) as caught:
                engine.advance(100)
            with pytest.raises(HandlerError):
                engine.advance(100)
            told.append((str(caught.value), engine.ledger.committed, engine.outputs(), engine.ledger.accumulators))
    assert told[0] == told[1] == told[2]


def test_an_exhausted_pool_names_the_bound_that_does() -> None:
    """A run at that bound, and at twice that bound, commits the same; below it the error comes at once or on the way."""
    model = phold(lps=32, population=4, lookahead=seconds(0.01))
    expected = run(model, seconds(8), tier="python").digest
    bound = 1000
    for _ in range(20):
        try:
            result = run(model, seconds(8), **compiled(workers=2, memory_max_bytes=bound))
        except PoolExhausted as error:
            bound = int(str(error).rsplit("memory_max_bytes=", 1)[1].split()[0])
        else:
            break
    assert result.digest == expected
    doubled = run(model, seconds(8), **compiled(workers=2, memory_max_bytes=2 * bound))
    assert doubled.digest == expected
    assert doubled.stats.pool_bytes <= 2 * bound


@pytest.mark.parametrize("seed", range(6))
def test_a_bound_of_memory_gives_the_same_digest(seed: int) -> None:
    """With cancelback, at bounds from hardly enough to comfortable, in schedules that repeat."""
    model = phold(lps=24, population=4, remote=0.5, lookahead=seconds(0.01))
    expected = run(model, seconds(4), tier="python").digest
    bound = 30_000 + 3_000 * seed
    with interleaved(seed):
        result = run(model, seconds(4), **compiled(workers=3, memory_max_bytes=bound, window=2**62, kps=2))
    assert result.digest == expected
    assert result.stats.pool_bytes <= bound


class Divider(LogicalProcess):
    n: i64

    def start(self, ctx: Context) -> None:
        ctx.send(ctx.lp, 1, Token(0))

    @on(Token)
    def divide(self, now: int, token: Token, ctx: Context) -> None:
        self.n = 1 // (self.n * 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_last_event_ends_the_run(workers: int) -> None:
    """Its event was final before it ran, so no new GVT tells of it."""
    model = Model("dividers", lookahead=1)
    model.add(Divider, 2, path="divider")
    with pytest.raises(HandlerError, match=r"divider\.0 at \(1, .*ZeroDivisionError"):
        run(model, until=10, **compiled(workers=workers))


class Hop(NamedTuple):
    """From one to another."""

    number: i64


class Brittle(LogicalProcess, saving="periodic:3"):
    """One of them fails from tick 5 on, whenever it is executed."""

    hops: i64

    def start(self, ctx: Context) -> None:
        """Begin."""
        ctx.send(ctx.lp, 1 + ctx.lp, Hop(0))

    @on(Hop)
    def hop(self, now: int, hop: Hop, ctx: Context) -> None:
        """On, and sometimes to somebody else too."""
        self.hops += 1
        ctx.send((ctx.lp + 3) % ctx.n_lps, 2 + ctx.below(3), Hop(hop.number + 1))
        if ctx.below(3) == 0:
            ctx.send((ctx.lp + 1) % ctx.n_lps, 5, Hop(0))
        if now >= 5 and ctx.lp == 4:
            raise ValueError("brittle")


def test_a_failed_event_whose_row_was_not_saved_can_be_undone() -> None:
    """With periodic saving most rows are not; the next execution must find one all the same."""
    model = Model("brittle", lookahead=2)
    model.add(Brittle, 6, path="one")
    for seed in range(40):
        with interleaved(seed, 3), pytest.raises(HandlerError, match=r"one.4 at \(5, 0, 4, 4, 0\)"):
            run(model, 80, **compiled(workers=3, window=2**50, kps=3, batch=1 + seed % 8))


class Busy(LogicalProcess):
    """Has an event at each tick."""

    def start(self, ctx: Context) -> None:
        """The first."""
        if ctx.lp == 0:
            ctx.send(ctx.lp, 1, Hop(0))

    @on(Hop)
    def hop(self, now: int, hop: Hop, ctx: Context) -> None:
        """The next."""
        ctx.send(ctx.lp, 1, Hop(hop.number + 1))


def test_a_pe_without_events_does_not_hold_the_commits_of_the_others_back() -> None:
    """What is committed leaves while the run goes on, though one PE has nothing to tell."""
    from tidewarp.kernel.shell.compiled import load_kernel

    merger = load_kernel("merge").Merger
    model = Model("uneven", lookahead=5, trace_interval=10)
    model.add(Busy, 2, path="busy")
    original, most = merger.add, 0

    def add(self: Any, *given: Any) -> None:
        nonlocal most
        original(self, *given)
        most = max(most, sum(map(len, self._logs)))

    with interleaved(1, 3), pytest.MonkeyPatch.context() as patch:
        patch.setattr(merger, "add", add)
        result = run(model, 5000, **compiled(workers=2, slice_turns=3))
    assert result.committed == 5000
    assert 0 < most < 20
