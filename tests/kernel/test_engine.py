"""Sessions: advance, inputs, watermarks, outputs, publication, results, and options. With the reference inside."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Go, Letter, Unknown, opened, play, run, scripted

from tidewarp.errors import LateInput, ModelError, OperatorError, RangeError, UnhandledMessage, UnknownDestination
from tidewarp.kernel import Context, Engine, LogicalProcess, Model, Options, Published, Source, Status, i64, on
from tidewarp.observe import SilentProbe
from tidewarp.units import TICK_MAX, seconds
from tidewarp.worlds.phold import phold


class ManualClock:
    """Each look moves it on by a second."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        self.at += 1.0
        return self.at

    def wait(self, inbox: Any, timeout_s: float | None) -> None:
        raise AssertionError


def quiet(self: Any, now: int, go: Go, ctx: Context) -> None:
    self.n += 1


# --- advancing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [-1, TICK_MAX, 2**70, 1.0, True, "1", None])
def test_until_is_a_tick(until: Any) -> None:
    """0 to 2**63 - 2, so that what lies behind it is a tick too."""
    with opened(quiet) as engine, pytest.raises(OperatorError, match="whole number of ticks"):
        engine.advance(until)


def test_until_never_goes_back() -> None:
    """To the same tick it may: nothing happens."""
    with opened(quiet) as engine:
        engine.advance(50)
        assert engine.advance(50) is Status.DONE
        with pytest.raises(OperatorError, match="the run has been advanced to 50"):
            engine.advance(49)
        assert engine.gvt == 51


def test_a_run_to_the_end_of_time() -> None:
    """The last tick but one."""
    assert play(quiet, until=TICK_MAX - 1).committed == 1


def test_a_closed_engine_refuses() -> None:
    """Twice closed is closed."""
    with opened(quiet) as engine:
        engine.close()
        for use in (
            lambda: engine.advance(5),
            lambda: engine.inject(engine.model.sources[0], 0, 5, Go()),
            lambda: engine.image(),
        ):
            with pytest.raises(OperatorError, match="a closed engine"):
                use()


def test_wall_time_is_that_of_advancing() -> None:
    """Between two calls the clock does not count."""
    clock = ManualClock()
    with Engine(scripted(quiet), clock=clock, tier="python") as engine:
        engine.advance(5)
        clock.at += 1000.0
        engine.advance(10)
        assert engine.seconds == 2.0


def test_progress_is_told() -> None:
    """Committed events, after each advance."""

    class Hears(SilentProbe):
        def __init__(self) -> None:
            self.heard: list[float] = []

        def progress(self, done: float, total: float | None) -> None:
            self.heard.append(done)

    probe = Hears()
    with Engine(scripted(quiet), probe=probe, tier="python") as engine:
        engine.advance(5)
        engine.advance(20)
    assert probe.heard == [0, 1]


# --- inputs -------------------------------------------------------------------------------------------

INPUTS: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "an LP that is none": (UnknownDestination, "input for LP 3: LPs are 0 to 2", {"dst": 3}),
    "an LP below 0": (UnknownDestination, "LPs are 0 to 2", {"dst": -1}),
    "no message": (UnhandledMessage, "input int for s.0", {"message": 5}),
    "an unknown message": (UnhandledMessage, "input Unknown for s.0", {"message": Unknown(1)}),
    "a message not handled there": (UnhandledMessage, "for deaf", {"dst": 2, "message": Letter(1, [1, 2])}),
    "a field out of range": (RangeError, "input 'sensor': Letter.small = 256", {"message": Letter(256, [1, 2])}),
    "an array of another shape": (RangeError, "Letter.cells", {"message": Letter(1, [1])}),
    "before GVT": (LateInput, "input 'sensor' at tick 20", {"at": 20}),
    "before time": (LateInput, "GVT and its watermark stand at 21", {"at": -1}),
    "at no tick": (LateInput, "at tick 50.5", {"at": 50.5}),
    "at the end of time": (LateInput, "at tick 9223372036854775807", {"at": TICK_MAX}),
    "a count that is none": (OperatorError, "a source's count is a U64", {"seq": -1}),
    "a count too large": (OperatorError, "a source's count is a U64", {"seq": 2**64}),
    "another model's source": (ModelError, "a source comes from model.input", {"source": Source("other", 0)}),
}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_that_is_refused(name: str) -> None:
    """At once, with value, rule and action; the run goes on without it."""
    error, words, change = INPUTS[name]
    with opened(quiet) as engine:
        engine.advance(20)
        given_: dict[str, Any] = {
            "source": engine.model.sources[0],
            "dst": 0,
            "at": 50,
            "message": Go(),
        } | change
        with pytest.raises(error, match=re.escape(words)):
            engine.inject(given_["source"], given_["dst"], given_["at"], given_["message"], seq=given_.get("seq"))
        engine.advance(100)
        assert engine.ledger.committed == 1


def test_inputs_come_before_what_lps_send() -> None:
    """At one tick and LP, in the order of the sources, then of their counts: never of arrival."""
    seen: list[int] = []

    def script(self: Any, now: int, go: Go, ctx: Context) -> None:
        seen.append(go.step)
        if go.step == 0:
            ctx.send(0, 10, Go(99))

    with opened(script) as engine:
        (sensor,) = engine.model.sources
        engine.inject(sensor, 0, 20, Go(3), seq=7)
        engine.inject(sensor, 0, 20, Go(1), seq=5)
        engine.inject(sensor, 0, 20, Go(2), seq=6)
        engine.advance(100)
    assert seen == [0, 1, 2, 3, 99]


@given(st.permutations(range(6)))
def test_the_order_of_handing_over_does_not_matter(order: list[int]) -> None:
    """With counts of their own, inputs make one run."""
    digests = []
    for numbers in (range(6), order):
        with opened(lambda self, now, go, ctx: setattr(self, "n", self.n * 7 + go.step)) as engine:
            for number in numbers:
                engine.inject(engine.model.sources[0], number % 2, 10 + number // 2, Go(number), seq=number)
            engine.advance(100)
            digests.append(engine.digest())
    assert digests[0] == digests[1]


def test_inputs_are_counted_if_nobody_counts_them() -> None:
    """In the order of injection."""
    with opened(lambda self, now, go, ctx: setattr(self, "n", go.step)) as engine:
        for step in (5, 6):
            engine.inject(engine.model.sources[0], 0, 50, Go(step))
        engine.advance(100)
        assert engine.state(0)["n"] == 6


def test_an_input_s_array_is_the_run_s_own() -> None:
    """What its author does to it afterwards does not matter."""
    cells = [1, 2]
    with opened(quiet) as engine:
        engine.inject(engine.model.sources[0], 0, 50, Letter(3, cells))
        cells[0] = 9
        engine.advance(100)
        assert engine.state(0)["cells"] == [1, 2]


# --- watermarks ---------------------------------------------------------------------------------------


def test_a_watermark_holds_the_run() -> None:
    """What lies below it is committed, and nothing else; the status and ``stalls`` say who is waited for."""
    with opened(quiet) as engine:
        (sensor,) = engine.model.sources
        engine.watermark(sensor, 10)
        assert engine.advance(100) is Status.WAITING
        assert (engine.gvt, engine.ledger.committed) == (10, 0)
        assert engine.stalls() == ["waiting for the watermark of input 'sensor', which stands at tick 10"]
        with pytest.raises(OperatorError, match="only what lies below 10 is committed"):
            engine.digest()
        engine.inject(sensor, 1, 10, Go())
        engine.watermark(sensor, 11)
        assert engine.advance(100) is Status.WAITING
        assert engine.ledger.committed == 2
        engine.watermark(sensor, 101)
        assert engine.advance(100) is Status.DONE
        assert engine.stalls() == []


def test_no_input_comes_below_its_watermark() -> None:
    """Even where the run has not come so far."""
    with opened(quiet) as engine:
        (sensor,) = engine.model.sources
        engine.watermark(sensor, 50)
        with pytest.raises(LateInput, match="hold the watermark back"):
            engine.inject(sensor, 0, 49, Go())
        engine.inject(sensor, 0, 50, Go())


@pytest.mark.parametrize("tick", [49, -1, TICK_MAX + 1, 60.0, True])
def test_a_watermark_never_goes_back(tick: Any) -> None:
    """It is a promise."""
    with opened(quiet) as engine:
        (sensor,) = engine.model.sources
        engine.watermark(sensor, 50)
        with pytest.raises(OperatorError, match="it stands at 50 and never goes back"):
            engine.watermark(sensor, tick)
        engine.watermark(sensor, 50)


def test_a_source_that_has_ended_gives_nothing_more() -> None:
    """TICK_MAX is its last word: it holds nothing back, and no input follows."""
    with opened(quiet) as engine:
        (sensor,) = engine.model.sources
        engine.watermark(sensor, TICK_MAX)
        assert engine.advance(20) is Status.DONE
        with pytest.raises(LateInput):
            engine.inject(sensor, 0, 500, Go())
        with pytest.raises(OperatorError, match="never goes back"):
            engine.watermark(sensor, 500)


def test_a_silent_source_holds_nothing_back() -> None:
    """Who promises nothing is not waited for, and may still give inputs at or above GVT."""
    with opened(quiet) as engine:
        assert engine.advance(20) is Status.DONE
        engine.inject(engine.model.sources[0], 0, 21, Go())
        engine.watermark(engine.model.sources[0], 0)
        assert engine.advance(30) is Status.WAITING


# --- outputs ------------------------------------------------------------------------------------------


def emitting(self: Any, now: int, go: Go, ctx: Context) -> None:
    for number in range(go.step % 3):
        ctx.emit(Go(10 * go.step + number))
    ctx.send(ctx.lp, 1, Go(go.step + 1))


@pytest.mark.parametrize("most", [1, 2, 3, 1000])
def test_outputs_are_taken_in_key_order_and_none_twice(most: int) -> None:
    """Full: nothing more is committed until they are taken; then the run goes on as if nothing had been."""
    expected = play(emitting, until=60)
    taken = []
    fulls = 0
    with Engine(scripted(emitting), tier="python", outputs_max=most) as engine:
        while (status := engine.advance(60)) is Status.FULL:
            fulls += 1
            assert most <= len(engine.ledger.outputs) <= most + 1, "an event's outputs stay together"
            assert engine.gvt <= 60
            taken += engine.outputs()
            assert engine.outputs() == []
        assert status is Status.DONE
        taken += engine.outputs()
        assert engine.digest() == expected.digest
    assert taken == expected.outputs
    assert [output.id for output in taken] == sorted(output.id for output in taken)
    assert (fulls > 0) == (most < 1000)


def test_outputs_name_tick_and_lp() -> None:
    """The id is made of tick and place."""
    outputs = play(emitting, until=12).outputs
    assert [(output.id, output.tick, output.lp, output.message.step) for output in outputs] == [
        ("000000000000000b-00000000", 11, 0, 10),
        ("000000000000000c-00000000", 12, 0, 20),
        ("000000000000000c-00000001", 12, 0, 21),
    ]


# --- publication --------------------------------------------------------------------------------------


class Work(NamedTuple):
    n: i64


class Worker(LogicalProcess):
    """Adds 1 at every tick, and keeps what it hears."""

    heard: i64
    at: i64
    times: i64

    def start(self, ctx: Context) -> None:
        ctx.send(ctx.lp, 0, Work(0))

    @on(Work)
    def work(self, now: int, work: Work, ctx: Context) -> None:
        ctx.add("total")
        ctx.add("latest", now)
        ctx.send(ctx.lp, 1, Work(0))

    @on(Published)
    def hear(self, now: int, published: Published, ctx: Context) -> None:
        if published.accumulator == 0:
            self.heard, self.at, self.times = published.value, now, self.times + 1


def workers(every: int | None, lps: int = 2) -> Model:
    model = Model("workers", trace_interval=10)
    model.add(Worker, lps, path="worker")
    model.accumulator("total", publish_every=every)
    model.accumulator("latest", "max", publish_every=None if every is None else 3 * every)
    model.input("unused")
    return model


def test_an_accumulator_is_published_at_its_multiples() -> None:
    """With its value over all events before that tick, to every LP that listens, and at no other time."""
    result = run(workers(7), 24)
    assert [result.state(lp) for lp in range(2)] == [{"heard": 42, "at": 21, "times": 3}] * 2
    assert result.accumulators == {"total": 50, "latest": 24}
    assert result.committed == 50 + 2 * 3 + 2


@given(st.lists(st.integers(0, 40), max_size=5), st.integers(1, 9), st.lists(st.integers(0, 45), max_size=4))
def test_publication_does_not_depend_on_the_steps(stops: list[int], every: int, marks: list[int]) -> None:
    """Of ``advance``, of watermarks, or of a full ledger."""
    expected = run(workers(every), 40).digest
    with Engine(workers(every), tier="python") as engine:
        (source,) = engine.model.sources
        for stop, mark in zip([*sorted(stops), 40], [*sorted(marks), *[TICK_MAX] * 9], strict=False):
            engine.watermark(source, mark)
            engine.advance(stop)
        engine.watermark(source, TICK_MAX)
        assert engine.advance(40) is Status.DONE
        assert engine.digest() == expected


def test_nobody_listens_and_nothing_is_published() -> None:
    """An accumulator that is published costs nothing where no LP handles Published."""
    model = scripted(quiet)
    model.accumulator("heard_by_nobody", publish_every=1)
    assert run(model, 1000).committed == 1


# --- results and options ------------------------------------------------------------------------------


def test_what_a_run_came_to() -> None:
    """Counts, state, accumulators, statistics."""
    result = run(phold(lps=4), seconds(3))
    assert result.committed == result.stats.executed
    assert result.rolled_back == result.rollbacks == result.anti_messages == result.gvt_rounds == 0
    assert result.efficiency == 1.0
    assert result.events_per_s == result.committed / result.seconds
    assert sum(result.state(lp)["hits"] for lp in range(4)) == result.committed
    assert list(result.trace_digests) == sorted(result.trace_digests)
    with pytest.raises(ModelError, match="LPs are 0 to 3"):
        result.state(4)


def test_one_event_in_the_digest_is_seen_in_every_block_behind_it() -> None:
    """Runs that part at one event: the first block that differs says where."""

    def script(changed: int) -> Any:
        return lambda self, now, go, ctx: ctx.send(0, 30, Go(-1 if now == changed else go.step + 1))

    one, other = (play(script(changed), until=999).trace_digests for changed in (-1, 310))
    assert [block for block in one if one[block] != other[block]] == [3, 4, 5, 6, 7, 8, 9]


def test_three_runs_never_change() -> None:
    """Golden: what older releases computed. Another value here is a break of the contract, and needs a reason."""
    assert (
        run(phold(lps=8, seed=42), seconds(5)).digest
        == "73948bf8f6680eb9c7f60193afa77302a4c688f18ac425bad47ab4478d9946ab"
    )
    assert run(workers(7), 24).digest == "1df8f12e79f908305310675318f9f295faae6bc0de6068a26c39e9c0e0144aa4"
    assert (
        run(phold(lps=8, seed=42), seconds(5), digest="state").digest
        == "9c067c425c2426abe3019aa159cc41a4a6c00fadc92af9e05b73fa12a398bcd7"
    )


OPTIONS: dict[str, Any] = {
    "kernel": "parallel",
    "tier": "fast",
    "workers": 0,
    "transport": "tcp",
    "window": 0,
    "kps": 0,
    "batch": 2**20 + 1,
    "gvt_interval": 0,
    "partition": "random",
    "cancellation": "none",
    "memory_max_bytes": 0,
    "outputs_max": 0,
    "saving": "periodic",
    "digest": "md5",
    "schedule_seed": -1,
    "handler_timeout_s": 0.0,
    "slice_turns": 0,
    "ring": 3,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_breaks_its_rule(name: str) -> None:
    """At once, before anything runs; the error names the option."""
    with pytest.raises((OperatorError, ModelError), match=f"{name}|saving") as caught:
        Options(**{name: OPTIONS[name]})
    assert caught.value.rule
    assert caught.value.action


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in ("partition", "saving", "kernel")])
@pytest.mark.parametrize("value", [True, 1.5, "", (1,), float("nan"), 2**64])
def test_an_option_of_another_type(name: str, value: Any) -> None:
    """Never a TypeError of ours."""
    if (name, value) == ("handler_timeout_s", 1.5):
        assert Options(handler_timeout_s=value).handler_timeout_s == value
        return
    with pytest.raises((OperatorError, ModelError)):
        Options(**{name: value})


def test_an_unknown_option() -> None:
    """With the names that there are."""
    with pytest.raises(OperatorError, match="the options are kernel, tier, workers"):
        run(phold(lps=4), 5, worker=2)
    with pytest.raises(OperatorError, match="options come as one object or as keywords"):
        Engine(phold(lps=4), Options(), workers=1)


# --- inputs of one key, numbers of other types ------------------------------------------------------------


def test_two_inputs_never_share_a_key() -> None:
    """A given number is refused the second time, and the numbers counted by the engine go on behind it."""
    model = scripted(quiet)
    source = model.sources[0]
    with Engine(model, tier="python") as engine:
        engine.inject(source, 0, 5, Go(1), seq=7)
        with pytest.raises(OperatorError, match=r"seq 7.*given before.*different seq"):
            engine.inject(source, 0, 5, Go(2), seq=7)
        engine.inject(source, 0, 5, Go(3))
        engine.inject(source, 0, 6, Go(4), seq=7)
        assert engine.advance(10) is Status.DONE
        assert engine.state(0)["n"] >= 3


@pytest.mark.parametrize("dst", [1.0, "0", None, True])
def test_an_input_for_what_is_no_number_of_an_lp(dst: Any) -> None:
    model = scripted(quiet)
    source = model.sources[0]
    with Engine(model, tier="python") as engine, pytest.raises(UnknownDestination, match=re.escape(repr(dst))):
        engine.inject(source, dst, 5, Go(1))


@pytest.mark.parametrize("lp", [-1, -5, 99, 0.5, "lp", True])
def test_the_state_of_what_is_no_lp(lp: Any) -> None:
    with Engine(scripted(quiet), tier="python") as engine, pytest.raises(ModelError, match="LPs are 0 to"):
        engine.state(lp)
