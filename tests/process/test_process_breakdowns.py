"""Units that fail: who loses one, what he is told, and what leaves nothing behind."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from simpy.events import Event

from tidewarp import units
from tidewarp.errors import ModelError, Removed, RuleViolation, UnknownPath
from tidewarp.process import Breakdown, DynamicPreemptiveResource, DynamicResource, Environment, Request

Model = Generator[Event, Any, None]
SECOND = 10**9


@pytest.fixture
def env() -> Environment:
    return Environment()


def job(env: Environment, machine: DynamicResource, log: list[Any], name: str, priority: int = 1) -> Model:
    """Hold a unit for 10 s."""
    try:
        with machine.request(priority) as place:
            yield place
            yield env.timeout(10)
            log.append((env.now, name, "done"))
    except simpy.Interrupt as interrupt:
        log.append((env.now, name, interrupt.cause))


def test_a_graceful_failure_lets_the_job_end(env: Environment) -> None:
    """The unit leaves when its job ends; nothing is granted before there is one; repair grants in the same instant."""
    machine = DynamicResource(env, "m", 2)
    log: list[Any] = []
    for name in "abc":
        env.process(job(env, machine, log, name))
    env.run(until=1)
    machine.fail()
    assert (machine.failed, machine.in_use, machine.over_capacity, machine.capacity, machine.free) == (1, 2, 1, 2, 0)
    env.run(until=10.5)
    assert [entry[1:] for entry in log] == [("a", "done"), ("b", "done")]
    assert (machine.in_use, machine.queue) == (1, [])
    machine.fail(2)  # more failures than units
    assert (machine.failed, machine.free) == (3, 0)
    machine.repair(3)
    assert machine.free == 1
    with pytest.raises(RuleViolation, match="only 0 failed; repair what has failed"):
        machine.repair()


def test_an_interrupting_failure_takes_free_units_first_then_the_youngest_of_the_least_important(
    env: Environment,
) -> None:
    """The cause says since when the unit was held and what was left of the timeout."""
    machine = DynamicResource(env, "m", 4)
    log: list[Any] = []
    env.process(job(env, machine, log, "old", 5))
    env.run(until=1)
    env.process(job(env, machine, log, "young", 5))
    env.process(job(env, machine, log, "urgent", 0))
    env.run(until=3)
    machine.fail(interrupt=True, cause="spindle")
    assert (machine.in_use, machine.over_capacity) == (3, 0)
    machine.fail(interrupt=True, cause="spindle")
    env.run(until=4)
    assert log == [(3, "young", Breakdown(machine, 1.0, 8.0, "spindle"))]
    machine.fail(2, interrupt=True)
    env.run(until=5)
    assert log[1:] == [(4, "old", Breakdown(machine, 0.0, 6.0)), (4, "urgent", Breakdown(machine, 1.0, 7.0))]
    assert (machine.in_use, machine.free, machine.failed) == (0, 0, 4)


def test_who_waits_for_something_else_has_no_remaining_time_and_who_fails_it_is_not_interrupted(
    env: Environment,
) -> None:
    """Also a request that was made outside of a process keeps its unit: there is nobody to tell."""
    machine = DynamicResource(env, "m", 3)
    outside = machine.request()
    log: list[Any] = []

    def waiter() -> Model:
        with machine.request() as place:
            yield place
            try:
                yield env.event() | env.timeout(9)
            except simpy.Interrupt as interrupt:
                log.append(interrupt.cause)

    def saboteur() -> Model:
        with machine.request(9) as place:
            yield place
            machine.fail(3, interrupt=True)
            yield env.timeout(1)
            log.append("not interrupted")

    env.process(waiter())
    env.process(saboteur())
    env.run_slice(2 * SECOND)
    assert log == [Breakdown(machine, 0.0, None), "not interrupted"]
    assert machine.users == [outside]


def test_an_alarm_from_outside_ends_no_process_that_does_not_expect_it(env: Environment) -> None:
    """``failed`` set by telemetry stops the granting; plain SimPy jobs run to their end."""
    machine = DynamicResource(env, "m", 1)
    log: list[Any] = []
    for name in "ab":
        env.process(job(env, machine, log, name))
    env.run(until=1)
    env.registry.update("m.failed", 1)
    env.run(until=30)
    assert log == [(10, "a", "done")]
    env.registry.update("m.failed", 0)
    env.run(until=50)
    assert log[1:] == [(40, "b", "done")]
    for wrong in (-1, 0.5, True, "x"):
        with pytest.raises(RuleViolation):
            env.registry.update("m.failed", wrong)


def test_an_urgent_request_may_preempt_as_soon_as_no_unit_is_too_many(env: Environment) -> None:
    """A repair brings what may be used up to the users: then who is first may preempt."""
    machine = DynamicPreemptiveResource(env, "m", 3)
    log: list[Any] = []
    for name in "abc":
        env.process(job(env, machine, log, name, 5))
    env.run(until=1)
    env.registry.update("m.current_cap", 2)
    urgent = machine.request(0)
    machine.fail(2, interrupt=True)
    assert (machine.over_capacity, urgent.triggered) == (1, False)
    machine.repair(1)
    env.run(until=2)
    assert (urgent.triggered, machine.in_use) == (True, 1)


@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, "1", None])
def test_units_are_whole_and_at_least_1(env: Environment, wrong: Any) -> None:
    """An error names the value and changes nothing."""
    machine = DynamicResource(env, "m", 1)
    for change in (machine.fail, machine.repair):
        with pytest.raises(ModelError, match="a whole number >= 1"):
            change(wrong)
    assert machine.failed == 0
    env.seal()
    with pytest.raises(ModelError, match="from outside the run"):
        machine.fail()


def test_removal_fails_who_waits_lets_holders_finish_and_refuses_updates(env: Environment) -> None:
    """A request that nobody waits for yet fails as well, without ending the run."""
    machine = DynamicResource(env, "m", 1)
    log: list[Any] = []

    def waiter() -> Model:
        try:
            with machine.request() as place:
                yield place
        except Removed as error:
            log.append(str(error))

    env.process(job(env, machine, log, "holder"))
    env.process(waiter())
    env.run(until=1)
    unseen = machine.request()
    env.run(until=3)
    machine.remove()
    env.run(until=20)
    assert machine.statistics[:4] == (20 * SECOND, 10 * SECOND, 3 * SECOND, 5 * SECOND)
    assert log == ["resource m: it was taken out of the model; use another one", (10, "holder", "done")]
    assert isinstance(unseen.value, Removed)
    assert (machine.in_use, machine.queue, machine.free) == (0, [], 0)
    for path in ("m.current_cap", "m.max_cap", "m.failed"):
        with pytest.raises(UnknownPath):
            env.registry.update(path, 1)
    for call in (machine.request, machine.fail, machine.repair, machine.remove):
        with pytest.raises(Removed):
            call()
    assert "m" not in env.state()["resources"]
    DynamicResource(env, "m", 2)  # the name is free again
    assert env.registry.get("m.current_cap").value == 2


def test_ten_thousand_requests_that_a_failure_or_an_interrupt_abandons_leave_nothing(env: Environment) -> None:
    """Reneging, interrupts while waiting and breakdowns: neither queue nor users keep one."""
    machine = DynamicResource(env, "m", 5)
    ends: list[str] = []

    def impatient(number: int) -> Model:
        try:
            with machine.request(number % 3) as place:
                yield place | env.timeout(1 + number % 7)
                yield env.timeout(100)
        except simpy.Interrupt as interrupt:
            ends.append(type(interrupt.cause).__name__)

    processes = [env.process(impatient(number)) for number in range(10_000)]
    env.run(until=0.5)
    assert len(machine.queue) == 9_995
    machine.fail(5, interrupt=True)
    for process in processes[5_000:]:
        process.interrupt("strike")
    env.run(until=200)
    assert (machine.queue, machine.users, machine.in_use) == ([], [], 0)
    assert (ends.count("Breakdown"), ends.count("str")) == (5, 5_000)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3)), max_size=12), st.integers(1, 2), st.floats(0.2, 4))
def test_statistics_are_the_sums_over_the_jobs_however_often_they_are_asked(
    jobs: list[tuple[float, float]], capacity: int, every: float
) -> None:
    """Use and waits in ticks, equal to what the jobs themselves saw; asking in between changes nothing."""
    env = Environment()
    machine = DynamicResource(env, "m", capacity)
    held: list[int] = []
    waits: list[int] = []

    def use(delay: float, hold: float) -> Model:
        yield env.timeout(delay)
        asked = env.tick
        with machine.request() as place:
            yield place
            waits.append(env.tick - asked)
            granted = env.tick
            yield env.timeout(hold)
        held.append(env.tick - granted)

    def ask() -> Model:
        while True:
            assert 0 <= machine.utilization <= 1
            yield env.timeout(every)

    for delay, hold in jobs:
        env.process(use(delay, hold))
    env.process(ask())
    env.run(until=50)
    found = machine.statistics
    assert (found.busy_ticks, found.wait_ticks, found.queue_ticks) == (sum(held), sum(waits), sum(waits))
    assert found.wait_ticks_max == max(waits, default=0)
    assert (found.ticks, found.capacity_ticks) == (units.ticks(50), capacity * units.ticks(50))
    assert machine.utilization == sum(held) / (capacity * units.ticks(50))


def test_requests_are_events_of_their_resource(env: Environment) -> None:
    """A request stays a SimPy event: conditions over several of them work, and a cancelled one is over."""
    machine = DynamicResource(env, "m", 2)
    seen: list[Any] = []

    def two() -> Model:
        first, second = machine.request(), machine.request()
        yield first & second
        third: Request = machine.request()
        third.cancel()
        seen.append((machine.in_use, machine.queue, third.triggered))

    env.process(two())
    env.run_slice(SECOND)
    assert seen == [(2, [], False)]
