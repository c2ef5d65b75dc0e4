"""Slices, inputs, outputs and the state of an environment."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simpy.events import Event

from tidewarp import codec
from tidewarp.connect.contract import Input, Refusal
from tidewarp.errors import InstantOverrun, InternalError, ModelError
from tidewarp.process import DynamicResource, Environment
from tidewarp.process import environment as environment_module
from tidewarp.process import outputs as outputs_module

Model = Generator[Event, Any, None]
SECOND = 10**9


def given_input(tick: int, *changes: tuple[str, object], offset: int = 0) -> Input:
    return Input(tick, 1, 0, offset, changes, tick)


def ticking(env: Environment, times: list[float]) -> list[float]:
    """A model that notes each of its wake-ups, two events per instant."""
    seen: list[float] = []

    def note(_: Event) -> None:
        seen.append(env.now)

    for time_s in times:
        for _ in range(2):
            event = env.timeout(time_s)
            assert event.callbacks is not None
            event.callbacks.append(note)
    return seen


def test_a_slice_ends_before_its_limit_with_the_clock_on_it() -> None:
    """The limit is exclusive; "empty" moves the clock too; it never goes back."""
    env = Environment()
    seen = ticking(env, [1, 2, 3])
    assert env.run_slice(2 * SECOND) == "limit"
    assert (seen, env.now, env.tick, env.events) == ([1, 1], 2.0, 2 * SECOND, 2)
    assert env.run_slice(SECOND) == "limit"
    assert env.now == 2.0
    assert env.run_slice(9 * SECOND) == "empty"
    assert (seen, env.now, env.events) == ([1, 1, 2, 2, 3, 3], 9.0, 6)


def test_a_budget_ends_at_the_end_of_an_instant() -> None:
    """One event of budget still gives both events of the first instant, and the clock stays there."""
    env = Environment()
    seen = ticking(env, [1, 2])
    assert env.run_slice(9 * SECOND, 1) == "budget"
    assert (seen, env.now) == ([1, 1], 1)
    assert env.run_slice(9 * SECOND, 2) == "empty"
    with pytest.raises(InternalError):
        env.run_slice(SECOND, 0)


def test_a_slice_schedules_nothing_of_its_own() -> None:
    """The sequence numbers of the model's events do not depend on slices."""
    env = Environment()
    ticking(env, [5])
    for second in range(1, 5):
        env.run_slice(second * SECOND)
    env.timeout(0)
    assert sorted(entry[2] for entry in env._queue) == [0, 1, 2]


def test_a_failed_event_ends_the_slice_as_in_simpy() -> None:
    """The copy of the failure is raised with its cause; the count includes the event; the clock stands there."""
    env = Environment()

    def model() -> Model:
        yield env.timeout(1)
        raise LookupError("lost")

    env.process(model())
    with pytest.raises(LookupError, match="lost") as caught:
        env.run_slice(9 * SECOND)
    assert isinstance(caught.value.__cause__, LookupError)
    assert (env.now, env.events, env.writable) == (1, 3, False)


@pytest.mark.parametrize("run", [lambda env: env.run_slice(9 * SECOND), lambda env: env.run(9)])
def test_a_model_that_never_lets_time_pass_is_reported(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[Environment], object]
) -> None:
    """InstantOverrun names the time and the process; as many events as allowed are fine."""
    monkeypatch.setattr(environment_module, "INSTANT_EVENTS_MAX", 100)
    env = Environment()

    def busy(count: int) -> Model:
        yield env.timeout(1.25)
        for _ in range(count):
            yield env.timeout(0)

    env.process(busy(98))  # its timeout, 98 more, its end
    run(env)

    def hot_loop() -> Model:
        yield env.timeout(1.25)
        while True:
            yield env.timeout(0)

    env = Environment()
    env.process(hot_loop())
    with pytest.raises(
        InstantOverrun,
        match=r"100 events at 1\.25 s, the last of process hot_loop \(test_process_environment\.py:\d+\)",
    ):
        run(env)


def test_the_limit_of_an_instant_counts_from_its_first_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand instants of two events are no overrun at a limit of 100, in one slice."""
    monkeypatch.setattr(environment_module, "INSTANT_EVENTS_MAX", 100)
    env = Environment()
    ticking(env, [float(second) for second in range(1_000)])
    assert env.run_slice(2_000 * SECOND) == "empty"


def test_a_stop_of_run_inside_a_slice_is_ignored_and_loses_no_callback() -> None:
    """`run(until=event)` that was given up leaves its callback; a slice goes on behind it."""
    env = Environment()
    seen: list[str] = []
    event = env.event()
    with pytest.raises(RuntimeError):
        env.run(until=event)
    assert event.callbacks is not None
    event.callbacks.append(lambda _: seen.append("after"))
    env.timeout(1).callbacks.append(lambda _: event.succeed())
    assert env.run_slice(9 * SECOND) == "empty"
    assert (seen, env.events) == (["after"], 2)


def test_a_slice_with_a_budget_ends_when_it_has_published_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the instant: outputs wait in memory until their slice ends, so they are bounded like events."""
    monkeypatch.setattr(environment_module, "SLICE_OUTPUTS_MAX", 5)
    env = Environment()

    def talk() -> Generator[Event, Any, None]:
        while True:
            yield env.timeout(1)
            for _ in range(3):
                env.publish_event("word", env.now)

    env.process(talk())
    assert env.run_slice(100 * SECOND, 1_000_000) == "budget"
    assert (env.now, len(env.drain())) == (2, 6)
    for _ in range(3):  # also where nobody takes them: each slice goes on
        assert env.run_slice(100 * SECOND, 1_000_000) == "budget"
    assert (env.now, len(env.drain())) == (8, 18)
    assert env.run_slice(100 * SECOND) == "limit", "without a budget there is no bound"


def test_a_budget_does_not_end_at_a_stop_in_the_middle_of_an_instant() -> None:
    """Spent by the first of three events, with a stop in the second: the third still belongs to the slice."""
    env = Environment()
    seen: list[float] = []
    env.timeout(1)
    stop = env.event()
    with pytest.raises(RuntimeError):
        env.run(until=stop)
    env.timeout(1).callbacks.append(lambda _: stop.succeed())
    env.timeout(1).callbacks.append(lambda _: seen.append(env.now))
    env.timeout(1)
    assert env.run_slice(9 * SECOND, 2) == "empty"
    assert seen == [2]


def test_inputs_are_applied_at_their_tick_before_the_events_of_that_time() -> None:
    """The clock is the absolute time of the tick; a model that wakes then sees the new value."""
    env = Environment()
    value = env.registry.declare("x", float, 0.0)
    seen: list[tuple[float, float]] = []

    def model() -> Model:
        for _ in range(2):
            yield env.timeout(1.5)
            seen.append((env.now, value.value))

    env.process(model())
    env.run_slice(1_500_000_000)
    assert env.apply([given_input(1_500_000_000, ("x", 4))]) == []
    env.run_slice(2_000_000_000)
    env.apply([given_input(2_999_999_999, ("x", "5.5"))])
    assert env.tick == 2_999_999_999
    env.run_slice(9 * SECOND)
    assert seen == [(1.5, 4.0), (3.0, 5.5)]


def test_inputs_out_of_time_are_our_fault() -> None:
    """Never into the past, never over an unprocessed event, never two ticks in one call."""
    env = Environment()
    env.registry.declare("x", int)
    env.timeout(2)
    assert env.apply([]) == []
    assert not env.sealed
    env.run_slice(SECOND)
    for inputs in (
        [given_input(SECOND - 1, ("x", 1))],
        [given_input(2 * SECOND + 1, ("x", 1))],
        [given_input(SECOND, ("x", 1)), given_input(SECOND + 1, ("x", 1))],
    ):
        with pytest.raises(InternalError):
            env.apply(inputs)
    assert env.registry.get("x").value is None


def test_a_refused_input_is_returned_and_published_and_changes_nothing() -> None:
    """The others of the call are applied; the refusal is an output of the run."""
    env = Environment()
    env.registry.declare("x", int, 0)
    DynamicResource(env, "r", 2, 5)
    good = given_input(SECOND, ("x", 1))
    bad = given_input(SECOND, ("x", 2), ("r.current_cap", 50), offset=7)
    gone = given_input(SECOND, ("y", 2), offset=8)
    refusals = env.apply([good, bad, gone])
    assert [(refusal.input, refusal.path) for refusal in refusals] == [(bad, "r.current_cap"), (gone, "y")]
    assert isinstance(refusals[0], Refusal)
    assert refusals[0].reason.startswith("value 50 for r.current_cap: at most max_cap 5; raise max_cap first")
    assert env.registry.values() == {"r.current_cap": 2, "r.failed": 0, "r.max_cap": 5, "x": 1}
    first, second = env.drain()
    assert (first.id, first.key, second.id) == (
        f"{SECOND:016x}-00000000",
        "system.input.refused",
        f"{SECOND:016x}-00000001",
    )
    assert codec.unpack(first.value) == {
        "path": "r.current_cap", "reason": refusals[0].reason, "rank": 1, "partition": 0, "offset": 7,
    }  # fmt: skip


def test_an_applied_capacity_grants_at_the_tick_of_the_input() -> None:
    """Whoever waits starts when the capacity comes, not at the next event."""
    env = Environment()
    closed = DynamicResource(env, "r", 0)
    started: list[float] = []

    def job() -> Model:
        with closed.request() as request:
            yield request
            started.append(env.now)

    env.process(job())
    env.run_slice(2 * SECOND)
    env.apply([given_input(2 * SECOND, ("r.current_cap", 1))])
    env.run_slice(3 * SECOND)
    assert started == [2.0]


def test_output_ids_ascend_and_restart_with_each_tick() -> None:
    """Times closer than 1 ns share a tick, and go on counting."""
    env = Environment()
    ids: list[str] = []

    def model() -> Model:
        ids.append(env.publish_event("a", 1))
        ids.append(env.publish_event("a", 2))
        yield env.timeout(1e-10)
        ids.append(env.publish_event("a", 3))
        yield env.timeout(2)
        ids.append(env.publish_event("b", 4))

    env.process(model())
    env.run_slice(9 * SECOND)
    assert ids == [f"{0:016x}-{n:08x}" for n in range(3)] + [f"{2 * SECOND:016x}-{0:08x}"]
    outputs = env.drain()
    assert [output.id for output in outputs] == ids == sorted(ids)
    assert [(output.tick, output.key, output.event) for output in outputs][2:] == [(0, "a", 2), (2 * SECOND, "b", 3)]
    assert env.drain() == []


def test_a_value_is_encoded_at_publication() -> None:
    """Later changes of the object do not reach the sink."""
    env = Environment()
    value = {"n": [1]}
    env.publish_event("k", value)
    value["n"].append(2)
    assert codec.unpack(env.drain()[0].value) == {"n": [1]}


def test_predecessor_19_a_value_that_cannot_be_encoded_is_noted_and_counted() -> None:
    """Predecessors: publishing an object that is not JSON killed the run."""

    class Part:
        pass

    env = Environment()
    ids = [env.publish_event("k", value) for value in (Part(), {"part": Part()}, {1: 2}, "\ud800", 2**70)]
    outputs = env.drain()
    assert [output.id for output in outputs] == ids
    assert env.undeliverable == 5
    notes = [codec.unpack(output.value) for output in outputs]
    assert [note["undeliverable"] for note in notes] == ["Part", "dict", "dict", "str", "int"]
    assert notes[1]["reason"] == "value['part']: no canonical form"
    assert all(note["reason"] for note in notes)


@pytest.mark.parametrize("key", ["", "a" * 256, "é", "a\n", "\x7f", 7, None, b"a"])
def test_a_bad_key_is_the_models_error(key: object) -> None:
    """It takes no id and publishes nothing."""
    env = Environment()
    with pytest.raises(ModelError, match="printable ASCII"):
        env.publish_event(key, 1)  # type: ignore[arg-type]
    assert env.publish_event("a" * 255, 1).endswith("-00000000")


def test_outputs_of_one_tick_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that publishes without end is reported before it fills the memory."""
    monkeypatch.setattr(outputs_module, "OUTPUTS_MAX", 3)
    env = Environment()
    for _ in range(3):
        env.publish_event("k", 1)
    with pytest.raises(InstantOverrun):
        env.publish_event("k", 1)


def test_a_live_process_is_held_whatever_the_collector_does() -> None:
    """A process that waits for an event nobody holds stays; with plain SimPy its `finally` ran when memory said so."""
    env = Environment()
    closed: list[bool] = []

    def forgotten() -> Model:
        try:
            yield env.event()
        finally:
            closed.append(True)

    def ending() -> Model:
        yield env.timeout(1)

    env.process(forgotten())
    ended = weakref.ref(env.process(ending()))
    env.run_slice(SECOND // 2)
    gc.collect()
    assert closed == []
    assert ended() is not None
    env.run_slice(5 * SECOND)
    gc.collect()
    assert closed == []
    assert ended() is None


def test_streams_are_kept_by_name_and_counted_in_the_state() -> None:
    """Another consumer shifts nothing; another seed gives other numbers."""
    one, two, other = Environment(seed=5), Environment(seed=5), Environment(seed=6)
    two.stream("b").random()
    drawn = [one.stream("a").random() for _ in range(3)]
    assert drawn == [two.stream("a").random() for _ in range(3)] != [other.stream("a").random() for _ in range(3)]
    assert two.state()["streams"] == {"a": 3, "b": 1}


def test_the_state_is_sorted_and_packable() -> None:
    """Order of declaration has no influence on the bytes."""

    def built(names: list[str]) -> Environment:
        env = Environment(1.5, seed=1)
        for name in names:
            env.registry.declare(f"v.{name}", None, {"z": 1, "a": [name[:0], None]})
            DynamicResource(env, f"r.{name}", 1).request()
            env.stream(name).random()
        env.registry.update("v.x", "new")
        return env

    one, two = built(["x", "y"]), built(["y", "x"])
    assert one.state() == two.state()
    assert codec.pack(one.state()) == codec.pack(two.state())
    assert list(one.state()["resources"]) == ["r.x", "r.y"]
    assert (one.state()["tick"], one.state()["events"]) == (1_500_000_000, 0)
    assert one.state()["registry"]["v.x"] == ["new", 1]


@pytest.mark.parametrize("initial", [-1, float("nan"), float("inf")])
def test_time_begins_at_zero_or_later(initial: float) -> None:
    """A tick before the epoch has no output id; NaN would stop the order of events."""
    with pytest.raises(ModelError):
        Environment(initial)
    with pytest.raises(ValueError, match="Negative delay"):
        Environment().timeout(float("nan"))


def plant(env: Environment) -> None:
    """Random work on a resource whose capacity inputs change, woken by a variable that inputs set."""
    mill = DynamicResource(env, "mill", 1, 3)
    mode = env.registry.declare("mode", int, 0)

    def job(number: int) -> Model:
        with mill.request(number % 2) as request:
            result = yield request | env.timeout(2)
            if request in result:
                yield env.timeout(round(env.stream("work").random(), 1))
        env.publish_event("job", [number, request in result, mill.in_use, len(mill.queue), mode.value])

    def arrivals() -> Model:
        for number in range(12):
            yield env.timeout(round(env.stream("gap").random(), 1))
            env.process(job(number))

    def follow() -> Model:
        while True:
            change = yield mode.wait_for_change()
            env.publish_event("mode", list(change))

    env.process(arrivals())
    env.process(follow())


INPUTS = [
    given_input(400_000_000, ("mode", 1)),
    given_input(SECOND, ("mill.current_cap", 3)),
    given_input(SECOND, ("mode", 2), ("mill.current_cap", 9), offset=1),
    given_input(2_500_000_000, ("mill.current_cap", 0), ("mode", 3)),
    given_input(3_100_000_000, ("mill.current_cap", 2)),
]


def driven(slices: list[tuple[int, int | None]]) -> tuple[list[Any], dict[str, Any]]:
    """The outputs and the final state of the plant, fed with INPUTS, in slices of (ticks, budget)."""
    env = Environment(seed=3)
    plant(env)
    outputs: list[Any] = []
    turns = itertools.cycle(slices or [(30 * SECOND, None)])
    at = 0
    for end in sorted({one.tick for one in INPUTS} | {30 * SECOND}):
        while at < end:
            width, budget = next(turns)
            goal = min(end, at + width)
            if env.run_slice(goal, budget) != "budget":
                at = goal
            outputs += env.drain()
        env.apply([one for one in INPUTS if one.tick == end])
    return [*outputs, *env.drain()], env.state()


@given(st.lists(st.tuples(st.integers(SECOND // 50, 3 * SECOND), st.none() | st.integers(1, 20)), max_size=5))
def test_slice_limits_and_budgets_have_no_influence(slices: list[tuple[int, int | None]]) -> None:
    """Whatever limits and budgets a host chooses: equal outputs, ids, event counters and final state."""
    reference = driven([])
    assert len(reference[0]) == 15  # 12 jobs, 2 changes of mode, 1 refusal
    assert driven(slices) == reference
