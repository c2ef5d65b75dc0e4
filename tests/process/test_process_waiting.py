"""Waiting for changes: every present waiter wakes exactly once, nobody else does."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
import simpy
from simpy.events import Event

from tidewarp.process import Change, DynamicValue, Environment

Model = Generator[Event, Any, None]
SECOND = 10**9


@pytest.fixture
def env() -> Environment:
    return Environment()


@pytest.fixture
def value(env: Environment) -> DynamicValue:
    return env.registry.declare("v", int, 0)


def at(env: Environment, time_s: float, action: Callable[[], object]) -> None:
    def process() -> Model:
        yield env.timeout(time_s)
        action()

    env.process(process())


@pytest.mark.parametrize("waiters", [1, 3, 1_000])
def test_predecessor_5_every_waiter_wakes_exactly_once_per_change(
    env: Environment, value: DynamicValue, waiters: int
) -> None:
    """Predecessors: three waiters, one change, one woken."""
    woken: list[tuple[int, Change]] = []

    def wait(number: int) -> Model:
        change = yield value.wait_for_change()
        woken.append((number, change))

    for number in range(waiters):
        env.process(wait(number))
    at(env, 1.5, lambda: value.update(7))
    at(env, 2, lambda: value.update(8))
    env.run_slice(10 * SECOND)
    change = Change("v", 0, 7, 1, 1_500_000_000, f"process:{waiters}:process")
    assert woken == [(number, change) for number in range(waiters)]


def test_predecessor_5_an_old_change_wakes_nobody(env: Environment, value: DynamicValue) -> None:
    """A waiter that comes after the change, even within the instant, waits for the next one."""
    woken: list[int] = []

    def late() -> Model:
        yield env.timeout(2)
        change = yield value.wait_for_change()
        woken.append(change.new)

    env.process(late())
    at(env, 1, lambda: value.update(7))
    env.run_slice(5 * SECOND)
    assert woken == []
    at(env, 1, lambda: value.update(8))
    env.run_slice(9 * SECOND)
    assert woken == [8]


def test_predecessor_5_an_abandoned_wait_swallows_nothing_and_leaves_nothing(
    env: Environment, value: DynamicValue
) -> None:
    """`wait | timeout` that timed out takes its callback away; the next change reaches those who wait then."""
    woken: list[int] = []

    def impatient() -> Model:
        for _ in range(10_000):
            yield value.wait_for_change() | env.timeout(0.0001)
        change = yield value.wait_for_change()
        woken.append(change.new)

    env.process(impatient())
    env.run_slice(5 * SECOND)
    callbacks = value.wait_for_change().callbacks
    assert callbacks is not None
    assert len(callbacks) == 1
    at(env, 1, lambda: value.update(1))
    env.run_slice(10 * SECOND)
    assert woken == [1]


def test_an_interrupted_waiter_leaves_the_others_alone(env: Environment, value: DynamicValue) -> None:
    """The interrupt takes one callback off the shared event."""
    log: list[str] = []

    def wait(name: str) -> Model:
        try:
            yield value.wait_for_change()
            log.append(f"{name} woken")
        except simpy.Interrupt:
            log.append(f"{name} interrupted")

    first = env.process(wait("first"))
    env.process(wait("second"))
    at(env, 1, first.interrupt)
    at(env, 2, lambda: value.update(1))
    env.run_slice(5 * SECOND)
    assert log == ["first interrupted", "second woken"]


def test_two_changes_in_an_instant_wake_once_with_the_first_and_since_gives_the_second(
    env: Environment, value: DynamicValue
) -> None:
    """Whoever loops with `since` misses no newest value."""
    seen: list[Change] = []

    def follow() -> Model:
        version = 0
        while True:
            change = yield value.wait_for_change(since=version)
            version = change.version
            seen.append(change)

    def both() -> None:
        value.update(1)
        value.update(2)

    env.process(follow())
    at(env, 1, both)
    env.run_slice(5 * SECOND)
    assert [(change.old, change.new, change.version) for change in seen] == [(0, 1, 1), (1, 2, 2)]


def test_since_triggers_at_once_only_if_the_value_is_newer(env: Environment, value: DynamicValue) -> None:
    """At the present version it is the shared event; the last change has the tick of its moment."""
    at(env, 1, lambda: value.update(4))
    env.run_slice(3 * SECOND)
    newer = value.wait_for_change(since=0)
    assert newer.value == Change("v", 0, 4, 1, SECOND, "process:0:process")
    shared = value.wait_for_change(since=1)
    assert not shared.triggered
    assert shared is value.wait_for_change()


def test_a_held_event_that_nobody_waited_on_still_triggers(env: Environment, value: DynamicValue) -> None:
    """An event taken before the change and yielded after it does not block for ever."""
    woken: list[int] = []

    def model() -> Model:
        change = value.wait_for_change()
        yield env.timeout(5)
        woken.append((yield change).new)

    env.process(model())
    at(env, 1, lambda: value.update(3))
    env.run_slice(10 * SECOND)
    assert woken == [3]


def test_an_equal_value_wakes_nobody(env: Environment, value: DynamicValue) -> None:
    """Equal value = no change, also through a cast."""
    waiting = value.wait_for_change()
    value.update("0")
    value.update(0.0)
    assert not waiting.triggered
