"""The same model on SimPy and on our environment, event for event."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Generator
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from simpy.core import EmptySchedule
from simpy.events import Event

from tidewarp.process import Environment

Model = Generator[Event, Any, Any]
Trace = list[tuple[Any, ...]]


def busy_model(env: simpy.Environment, trace: Trace, delays: list[float]) -> None:
    """Timeouts, conditions, interrupts, failures, sub-processes, a resource and a store, all noting what they see."""
    machine = simpy.PriorityResource(env, 2)
    store = simpy.Store(env, 3)

    def note(*what: Any) -> None:
        trace.append((repr(env.now), *what))

    def child(number: int, delay: float) -> Model:
        yield env.timeout(delay, value=number)
        if number % 4 == 3:
            raise ValueError(f"child {number}")
        return number * 10

    def worker(number: int) -> Model:
        for turn in range(3):
            delay = delays[(number + turn) % len(delays)]
            try:
                with machine.request(priority=number % 3) as request:
                    result = yield request | env.timeout(delay + 1)
                    note(number, turn, request in result, len(machine.queue))
                    got = yield env.process(child(number + turn, delay))
                    note(number, "child", got)
                yield store.put((number, turn)) | env.timeout(2)
            except ValueError as error:
                note(number, "failed", str(error), repr(error.__cause__))
            except simpy.Interrupt as interrupt:
                note(number, "interrupted", interrupt.cause)

    def collector() -> Model:
        while True:
            item = yield store.get()
            note("got", item)
            both = yield env.timeout(delays[0]) & env.timeout(delays[-1])
            note("both", len(both.todict()))

    workers = [env.process(worker(number)) for number in range(5)]

    def saboteur() -> Model:
        for number, delay in enumerate(delays):
            yield env.timeout(delay)
            victim = workers[number % len(workers)]
            if victim.is_alive:
                victim.interrupt(number)
            failing = env.event()
            failing.fail(KeyError(number))
            try:
                yield env.any_of([failing, env.timeout(1)])
            except KeyError as error:
                note("caught", str(error))

    env.process(collector())
    env.process(saboteur())
    note("all", env.all_of(workers).triggered)


def traced(env: simpy.Environment, trace: Trace) -> Callable[[], None]:
    """`env.step` that notes time, priority, sequence and kind of each event, as SimPy's guide to monitoring does."""
    step = env.step

    def noting() -> None:
        if env._queue:
            time, priority, sequence, event = env._queue[0]
            trace.append((repr(time), priority, sequence, type(event).__name__))
        step()

    return noting


def crashing(drive: Callable[[], object], trace: Trace) -> None:
    """Drive the model; the failure that nobody handled, if there is one, belongs to the trace."""
    try:
        drive()
    except ValueError as error:
        trace.append(("crash", repr(error), repr(error.__cause__)))


DELAYS = st.lists(st.sampled_from([0, 0.5, 1, 1.0, 2, 0.1, 3.7]), min_size=1, max_size=6)


@given(DELAYS)
def test_events_have_the_order_the_numbers_and_the_effects_of_simpy(delays: list[float]) -> None:
    """Time, priority, sequence number and kind of every event, and all that the model sees, are equal."""
    traces: list[Trace] = []
    for env in (simpy.Environment(), Environment()):
        trace: Trace = []
        busy_model(env, trace, delays)
        env.step = traced(env, trace)  # type: ignore[method-assign]
        crashing(lambda env=env: env.run(until=40), trace)  # type: ignore[misc]
        traces.append(trace)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 20


@given(DELAYS, st.integers(1, 50))
def test_run_step_and_slices_give_what_simpy_gives(delays: list[float], budget: int) -> None:
    """The written-out loop is SimPy's step; events counts what SimPy processed."""
    reference: Trace = []
    env = simpy.Environment()
    busy_model(env, reference, delays)
    events = 0

    def counted() -> None:
        nonlocal events
        while env.peek() < 40:
            events += 1
            env.step()

    crashing(counted, reference)

    def stepped(ours: Environment) -> None:
        while ours.peek() < 40:
            ours.step()

    def sliced(ours: Environment) -> None:
        while ours.run_slice(40 * 10**9, budget) == "budget":
            pass

    def ran(ours: Environment) -> None:
        ours.run(until=40)

    for drive in (stepped, sliced, ran):
        trace: Trace = []
        ours = Environment()
        busy_model(ours, trace, delays)
        crashing(lambda drive=drive, ours=ours: drive(ours), trace)  # type: ignore[misc]
        assert trace == reference
        assert ours.events == events


def test_an_unhandled_failure_and_an_unhandled_interrupt_look_like_simpys() -> None:
    """Type, arguments and cause of what run() raises are equal."""

    def failing(env: simpy.Environment) -> Model:
        yield env.timeout(1)
        raise LookupError("a", 1)

    def interrupted(env: simpy.Environment) -> Model:
        env.process(saboteur(env, env.active_process))
        yield env.timeout(5)

    def saboteur(env: simpy.Environment, victim: Any) -> Model:
        yield env.timeout(1)
        victim.interrupt("why")

    for model in (failing, interrupted):
        seen = []
        for env in (simpy.Environment(), Environment()):
            env.process(model(env))
            with pytest.raises((LookupError, simpy.Interrupt)) as caught:
                env.run()
            seen.append((caught.type, caught.value.args, repr(caught.value.__cause__), env.now, len(env._queue)))
        assert seen[0] == seen[1]


def failing_twice(env: simpy.Environment, seen: list[float]) -> None:
    """Two processes that fail at 1 s, in one instant, and one that notes the times 1 and 2 s."""

    def failing(what: str) -> Model:
        yield env.timeout(1)
        raise LookupError(what)

    def ticking() -> Model:
        for _ in range(2):
            yield env.timeout(1)
            seen.append(env.now)

    env.process(failing("first"))
    env.process(failing("second"))
    env.process(ticking())


def frames(error: BaseException) -> list[tuple[str, str]]:
    """File and function of each frame of the traceback."""
    return [(frame.filename, frame.name) for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("until", [None, 1.5, "event"])
def test_a_failure_has_the_traceback_of_simpy_and_leaves_the_environment_as_simpy_does(until: Any) -> None:
    """Frames, time, queue and sequence numbers are equal, failure after failure; then the run goes on."""
    seen = []
    for env in (simpy.Environment(), Environment()):
        times: list[float] = []
        failing_twice(env, times)
        end = env.timeout(1.5) if until == "event" else until
        story: list[Any] = [times]
        for what in ("first", "second"):
            with pytest.raises(LookupError, match=what) as caught:
                env.run(end)
            queue = sorted((at, priority, number, type(event)) for at, priority, number, event in env._queue)
            story.append((frames(caught.value), env.now, queue))
            assert caught.traceback[-1].name == "step"
        for _ in range(3):  # the ends of the failed runs are still there, and stop one run each
            env.run()
        assert times == [1, 2]
        seen.append(story)
    assert seen[0] == seen[1]


def test_events_and_writable_are_right_around_a_failure_of_run() -> None:
    """The failed event counts once; the registry is closed as before the run; the next run is a usual one."""
    env = Environment()
    seen: list[float] = []
    failing_twice(env, seen)
    env.seal()
    done = []
    for _ in range(2):
        with pytest.raises(LookupError):
            env.run()
        done.append((env.events, env.writable, env.step == Environment.step.__get__(env)))
    env.run()
    # Three starts and three timeouts, then the ends of the two that fail. What is left: a timeout and an end.
    assert done == [(7, False, True), (8, False, True)]
    assert (env.events, env.writable) == (10, False)


@pytest.mark.parametrize("drive", [lambda env: env.run(), lambda env: env.run_slice(2 * 10**9)])
def test_an_error_that_cannot_be_made_again_is_raised_itself(drive: Callable[[Environment], object]) -> None:
    """JSONDecodeError takes other arguments than it keeps: SimPy's copy of it is a TypeError that hides the text."""
    env = Environment()

    def reading() -> Model:
        yield env.timeout(1)
        json.loads("{")

    env.process(reading())
    with pytest.raises(json.JSONDecodeError, match="Expecting property name"):
        drive(env)
    assert (env.now, env.events, env.step) == (1, 3, Environment.step.__get__(env))


def test_a_step_of_ones_own_raises_at_once() -> None:
    """Called directly, step processes one event, and raises what that event's failure is."""
    for env in (simpy.Environment(), Environment()):
        env.event().fail(LookupError("lost"))
        later = env.timeout(1)
        with pytest.raises(LookupError, match="lost"):
            env.step()
        assert not later.processed
        env.step()
        assert later.processed
        with pytest.raises(EmptySchedule):
            env.step()


def test_a_tracer_gets_each_event_and_each_failure() -> None:
    """`step` replaced before a run is called once per event; a failure passes through it and leaves it in place."""
    for env in (simpy.Environment(), Environment()):
        failing_twice(env, [])
        calls: list[float] = []

        def tracer(env: simpy.Environment = env, step: Callable[[], None] = env.step, calls: Any = calls) -> None:
            calls.append(env.peek())
            step()

        env.step = tracer  # type: ignore[method-assign]
        for _ in range(2):
            with pytest.raises(LookupError):
                env.run()
        env.run()
        assert env.step is tracer
        assert calls == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, float("inf")]


def test_run_processes_all_events_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hot loop is the one that runs: nothing comes to the way for single events."""
    monkeypatch.setattr(Environment, "_process_one", lambda env: pytest.fail("a single event"))
    env = Environment()
    seen: list[float] = []
    failing_twice(env, seen)
    for _ in range(2):
        with pytest.raises(LookupError):
            env.run()
    env.run(5)
    assert (seen, env.now) == ([1, 2], 5)


def test_run_until_an_event_returns_its_value_and_goes_on_later() -> None:
    """The callbacks behind the stop are not lost, and the event is counted once."""
    for env in (simpy.Environment(), Environment()):
        seen: list[str] = []
        event = env.timeout(1, value="v")
        assert event.callbacks is not None
        assert env.run(until=event) == "v"
        assert env.now == 1

        later = env.timeout(1)
        assert later.callbacks is not None
        env.run(until=1.5)
        later.callbacks.append(lambda _, seen=seen: seen.append("before"))  # type: ignore[misc]
        stop = env.timeout(0.5, value="w")
        assert env.run(until=stop) == "w"
        env.run()
        assert seen == ["before"]
        with pytest.raises(RuntimeError, match='"until" event was not triggered'):
            env.run(until=env.event())
        with pytest.raises(ValueError, match="must be greater"):
            env.run(until=env.now)


def test_an_infinite_timeout_is_an_event_like_any_other() -> None:
    """As in SimPy, run() without end reaches it."""
    for env in (simpy.Environment(), Environment()):
        event = env.timeout(float("inf"))
        env.run()
        assert event.processed


def test_subclasses_keep_their_overrides() -> None:
    """A subclass that overrides event constructors, step or schedule gets its own, also in run()."""

    class Traced(Environment):
        steps = 0
        scheduled = 0

        def step(self) -> None:
            self.steps += 1
            super().step()

        def schedule(self, *args: Any, **keywords: Any) -> None:
            self.scheduled += 1
            super().schedule(*args, **keywords)

    env = Traced()
    env.timeout(1)
    env.run(until=3)
    assert (env.steps, env.scheduled, env.events) == (2, 3, 1)
