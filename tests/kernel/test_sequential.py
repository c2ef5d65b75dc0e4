"""The sequential reference: key order, and nothing else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Go, Letter, opened, play, run, scripted

from tidewarp.errors import HandlerError, ModelError, RangeError
from tidewarp.kernel import Context, Engine, LogicalProcess, Model, Status, i64, on, sequential
from tidewarp.kernel.objects import initial_image
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold

SEEN: list[tuple[int, ...]] = []


class Tick(NamedTuple):
    life: i64


class Recorder(LogicalProcess):
    """Writes down the key of everything it gets, and sends on by chance."""

    n: i64

    def start(self, ctx: Context) -> None:
        for _ in range(4):
            ctx.send(ctx.below(ctx.n_lps), ctx.below(3), Tick(6))

    @on(Tick)
    def take(self, now: int, tick: Tick, ctx: Context) -> None:
        self.n += 1
        SEEN.append((now, ctx.generation, ctx.lp))
        if tick.life:
            ctx.send(ctx.below(ctx.n_lps), ctx.below(3), Tick(tick.life - 1))


@given(st.integers(0, 2**64 - 1), st.integers(1, 5))
def test_events_are_executed_in_key_order(seed: int, lps: int) -> None:
    """Time, then generation, then destination; ties included."""
    SEEN.clear()
    model = Model("recorder", seed=seed)
    model.add(Recorder, lps, path="r")
    result = run(model, 100)
    assert all(earlier <= later for earlier, later in pairwise(SEEN))
    assert len(SEEN) == result.committed == 4 * lps * 7


def test_ties_go_by_destination_source_and_count() -> None:
    """The whole key decides, never the order of sending."""
    seen: list[Any] = []

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        if go.step == 0:
            ctx.send(1, 5, Go(1))
            ctx.send(0, 5, Go(2))
            ctx.send(0, 5, Go(3))
        else:
            seen.append(go.step)

    play(script)
    assert seen == [2, 3, 1]


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 20), max_size=6))
def test_a_run_in_parts_is_the_same_run(seed: int, stops: list[int]) -> None:
    """However often it is stopped, between any two ticks."""
    whole = run(phold(lps=6, population=3, lookahead=0, mean=2, seed=seed), 20)
    with Engine(phold(lps=6, population=3, lookahead=0, mean=2, seed=seed), tier="python") as engine:
        for stop in [*sorted(stops), 20]:
            assert engine.advance(stop) is Status.DONE
            assert engine.gvt == stop + 1
        assert engine.digest() == whole.digest
        assert engine.image() == whole.image


@given(st.integers(0, 2**64 - 1), st.integers(0, 20))
def test_a_run_goes_on_from_an_image(seed: int, stop: int) -> None:
    """The image is the whole state, hidden words and pending events included."""
    model = phold(lps=4, population=3, lookahead=0, mean=2, seed=seed)
    with Engine(model, tier="python") as engine:
        engine.advance(stop)
        middle = engine.image()
        engine.advance(20)
        end = engine.image()
    with Engine(phold(lps=4, population=3, lookahead=0, mean=2, seed=seed), image=middle, tier="python") as engine:
        engine.advance(20)
        assert engine.image() == end


def test_until_is_inclusive() -> None:
    """An event at it is executed; one behind it stays pending, initial ones too."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        self.n += 1
        ctx.send(0, 1, Go())

    with opened(script) as engine:
        engine.advance(9)
        assert (engine.ledger.committed, engine.state(0)["n"]) == (0, 0)
        engine.advance(10)
        assert (engine.ledger.committed, engine.state(0)["n"]) == (1, 1)
        engine.advance(12)
        assert (engine.ledger.committed, engine.state(0)["n"]) == (3, 3)


def test_batches_for_the_ledger_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many events are handed over at once is nobody's affair."""
    expected = run(phold(lps=4), seconds(5)).digest
    monkeypatch.setattr(sequential, "BATCH", 3)
    assert run(phold(lps=4), seconds(5)).digest == expected


@pytest.mark.parametrize("step", [1, 2, 5000])
def test_everything_before_a_failure_is_committed(step: int) -> None:
    """And nothing of it or behind it; the engine stays failed, with the same error."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        self.n += 1
        ctx.emit(go)
        ctx.add("count")
        if go.step == step:
            raise RuntimeError("on purpose")
        ctx.send(0, 1, Go(go.step + 1))

    with opened(script) as engine:
        with pytest.raises(HandlerError, match="RuntimeError: on purpose") as first:
            engine.advance(20_000)
        assert engine.ledger.committed == step
        assert len(engine.outputs()) == step
        assert engine.ledger.accumulators[0] == step
        with pytest.raises(HandlerError) as second:
            engine.advance(20_000)
        assert first.value is second.value


def test_a_message_out_of_range_fails_where_it_is_sent() -> None:
    """Everything before that event is committed, count and chain alike."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        ctx.send(0, 5, Letter(300 if go.step == 5 else 3, [1, 2]))
        if go.step < 20:
            ctx.send(0, 1, Go(go.step + 1))

    with opened(script) as engine:
        with pytest.raises(RangeError, match=r"Letter\.small = 300"):
            engine.advance(100)
        assert engine.ledger.committed == engine.ledger.events.count == 6  # five, and the letter of the first
        with pytest.raises(RangeError):
            engine.advance(100)


def test_an_output_out_of_range_takes_its_event_along() -> None:
    """The event is not committed either."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        ctx.emit(Go(2**63 if go.step == 3 else go.step))
        ctx.send(0, 1, Go(go.step + 1))

    with opened(script) as engine:
        with pytest.raises(RangeError):
            engine.advance(100)
        assert (engine.ledger.committed, len(engine.outputs())) == (3, 3)


def test_a_field_out_of_range_is_named_when_the_state_is_packed() -> None:
    """In the Python tier a row has no bytes before somebody asks for them."""

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        self.n = 2**63

    with opened(script) as engine:
        engine.advance(100)
        with pytest.raises(RangeError, match=r"s\.0: Scripted\.n = 9223372036854775808"):
            engine.digest()


STARTS: dict[str, tuple[Any, str]] = {
    "emits": (lambda ctx: ctx.emit(Tick(1)), "it may draw and send, not emit or add"),
    "adds": (lambda ctx: ctx.add("x"), "it may draw and send, not emit or add"),
    "raises": (lambda ctx: 1 // 0, "ZeroDivisionError"),
    "sends to nobody": (lambda ctx: ctx.send(5, 1, Tick(1)), "sends to LP 5"),
}
ACT: list[Any] = [None]


class Starter(Recorder):
    def start(self, ctx: Context) -> None:
        ACT[0](ctx)


@pytest.mark.parametrize("name", STARTS)
def test_a_start_that_must_not_be(name: str) -> None:
    """Refused before the run, naming the LP."""
    ACT[0], words = STARTS[name]
    model = Model("starter")
    model.add(Starter, 1, path="r")
    model.accumulator("x")
    with pytest.raises(ModelError, match=words):
        run(model, 10)


def test_start_draws_and_counts() -> None:
    """What it drew and sent is part of the state: the handler goes on behind it."""
    model = Model("recorder", seed=5)
    model.add(Recorder, 2, path="r")
    image = initial_image(model)
    hidden = [image.rows[0][at : at + 16] for at in (0, 24)]
    assert [int.from_bytes(words[8:], "big") for words in hidden] == [4, 4]
    assert all(int.from_bytes(words[:8], "big") >= 8 for words in hidden)


def test_a_model_with_nothing_to_do() -> None:
    """Ends at once, with a digest."""
    model = Model("idle")
    model.add(Starter, 1, path="r")
    ACT[0] = lambda ctx: None
    result = run(model, 10**18)
    assert result.committed == 0
    assert result.digest is not None
    assert result.efficiency == 1.0


def test_two_runs_of_one_model_are_equal() -> None:
    """A model holds no state of a run."""
    model = phold(lps=4)
    assert run(model, seconds(3)).digest == run(model, seconds(3)).digest
    assert run(scripted(lambda *_: None), 10).committed == 1
