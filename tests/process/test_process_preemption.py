"""Preemption as SimPy has it, and every way in which a resource can change against a list."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simpy.events import Event

from tidewarp.errors import ModelError, RuleViolation
from tidewarp.process import DynamicPreemptiveResource, DynamicResource, Environment, Request

Model = Generator[Event, Any, None]
SECOND = 10**9


def preemptive_model(env: simpy.Environment, machine: Any, seed: int) -> list[tuple[Any, ...]]:
    """Jobs of three priorities, of which the middle one waits politely; some give up, some return after a preemption."""
    draw = random.Random(seed)
    log: list[tuple[Any, ...]] = []

    def worker(number: int) -> Model:
        priority = number % 3
        for turn in range(4):
            yield env.timeout(draw.uniform(0, 4))
            began = env.now
            try:
                with machine.request(priority=priority, preempt=priority != 1) as place:
                    result = yield place | env.timeout(draw.uniform(1, 5))
                    log.append((env.now, number, turn, place in result))
                    if place in result:
                        yield env.timeout(draw.uniform(0.5, 3))
                log.append((env.now, number, turn, "done"))
            except simpy.Interrupt as interrupt:
                cause = interrupt.cause
                log.append((env.now, number, turn, cause.usage_since, cause.by is None, cause.resource is machine))
                assert cause.usage_since >= began

    for number in range(7):
        env.process(worker(number))
    return log


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_preemption_is_that_of_simpy_event_for_event(seed: int, capacity: int) -> None:
    """Grants, waits that were given up, preemptions with their causes, and ends: at equal times in equal order."""
    plain, ours = simpy.Environment(), Environment()
    expected = preemptive_model(plain, simpy.PreemptiveResource(plain, capacity), seed)
    plain.run(until=60)
    machine = DynamicPreemptiveResource(ours, "machine", capacity)
    got = preemptive_model(ours, machine, seed)
    ours.run_slice(60 * SECOND)
    assert got == expected
    assert (machine.in_use, machine.queue) == (0, [])


def test_random_models_do_preempt() -> None:
    """The comparison above would be worth little if nobody lost a unit."""
    env = Environment()
    log = preemptive_model(env, DynamicPreemptiveResource(env, "machine", 2), 7)
    env.run_slice(60 * SECOND)
    assert sum(len(entry) == 6 for entry in log) > 3


def test_equal_priority_never_preempts_and_nobody_preempts_himself() -> None:
    """SimPy lets a request preempt one of the same priority and time that is polite; here it waits."""
    env = Environment()
    machine = DynamicPreemptiveResource(env, "machine", 1)
    polite = machine.request(1, preempt=False)
    equal = machine.request(1)
    assert (machine.users, machine.queue) == ([polite], [equal])
    more = machine.request(0, preempt=False)
    assert machine.queue == [more, equal]
    machine.release(polite)
    assert machine.users == [more]
    for request in (more, equal):
        machine.release(request)
    seen: list[bool] = []

    def greedy() -> Model:
        with machine.request(5) as first, machine.request(1) as second:
            yield first
            seen.extend((first.triggered, second.triggered))

    env.process(greedy())
    env.run_slice(SECOND)
    assert (seen, machine.in_use, machine.queue) == ([True, False], 0, [])
    for call in (lambda: machine.request("1"), lambda: machine.request(1.0, preempt=False)):  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="a priority is an int"):
            call()


def test_nothing_preempts_while_more_units_are_in_use_than_may_be() -> None:
    """After a shrink the important one waits until the unit that it would get may be used at all."""
    env = Environment()
    machine = DynamicPreemptiveResource(env, "machine", 3)
    users = [machine.request(5) for _ in range(3)]
    env.registry.update("machine.current_cap", 1)
    urgent = machine.request(0)
    assert (machine.users, urgent.triggered) == (users, False)
    machine.release(users[0])
    assert not urgent.triggered
    machine.release(users[1])
    assert machine.users == [urgent]
    env.registry.update("machine.current_cap", 0)
    machine.request(-1)
    assert machine.users == [urgent]


class Job:
    """One process at the resource, and what the model says of it."""

    def __init__(self, number: int, priority: int, preempt: bool, stop: Event) -> None:
        self.number, self.priority, self.preempt, self.stop = number, priority, preempt, stop
        self.asked = stop.env.now
        self.place: Request | None = None

    def __repr__(self) -> str:
        return f"job {self.number}"


class ResourceMachine(RuleBasedStateMachine):
    """A resource against two lists: who holds, in order of grant; who waits, by priority and arrival."""

    @initialize(capacity=st.integers(0, 3), preemptive=st.booleans())
    def build(self, capacity: int, preemptive: bool) -> None:
        self.env = Environment()
        self.preemptive = preemptive
        self.resource = (DynamicPreemptiveResource if preemptive else DynamicResource)(self.env, "r", capacity, 5)
        self.capacity, self.failed, self.most = capacity, 0, 5
        self.users: list[Job] = []
        self.waiting: list[Job] = []
        self.jobs: list[Job] = []
        self.gone: list[Job] = []
        self.expected: list[tuple[str, int]] = []
        self.log: list[tuple[str, int]] = []
        self.busy = self.queued = self.available = 0

    @property
    def limit(self) -> int:
        return max(0, self.capacity - self.failed)

    def work(self, job: Job) -> Model:
        keywords = {"preempt": job.preempt} if self.preemptive else {}
        try:
            with self.resource.request(job.priority, **keywords) as job.place:
                yield job.place | job.stop
                if not job.stop.triggered:
                    self.log.append(("granted", job.number))
                    yield job.stop
        except simpy.Interrupt as interrupt:
            self.log.append((type(interrupt.cause).__name__, job.number))

    def settle(self) -> None:
        """Let events happen, and compare what the processes saw."""
        while self.env.peek() == self.env.now:
            self.env.step()
        assert sorted(self.log) == sorted(self.expected)
        self.log.clear()
        self.expected.clear()

    def lose(self, job: Job, why: str) -> None:
        self.users.remove(job)
        self.gone.append(job)
        if ("granted", job.number) in self.expected:
            self.expected.remove(("granted", job.number))  # it never saw it
        self.expected.append((why, job.number))

    def grant(self) -> None:
        self.waiting.sort(key=lambda job: (job.priority, job.number))
        while self.waiting:
            first = self.waiting[0]
            if len(self.users) >= self.limit:
                victim = max(self.users, key=lambda job: (job.priority, job.asked, not job.preempt), default=first)
                may = self.preemptive and first.preempt and len(self.users) == self.limit
                if not may or victim.priority <= first.priority:
                    return
                self.lose(victim, "Preempted")
            self.users.append(self.waiting.pop(0))
            self.expected.append(("granted", first.number))

    def break_down(self, units: int) -> None:
        for _ in range(min(units, max(0, len(self.users) - self.limit))):
            self.lose(max(reversed(self.users), key=lambda job: job.priority), "Breakdown")

    @rule(priority=st.integers(0, 2), preempt=st.booleans())
    def request(self, priority: int, preempt: bool) -> None:
        job = Job(len(self.jobs), priority, preempt, self.env.event())
        self.jobs.append(job)
        self.env.process(self.work(job))
        self.waiting.append(job)
        self.grant()
        self.settle()

    @precondition(lambda self: self.users or self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Release what was granted, renege from what was not."""
        job = data.draw(st.sampled_from([*self.users, *self.waiting]))
        job.stop.succeed()
        (self.users if job in self.users else self.waiting).remove(job)
        self.gone.append(job)
        self.grant()
        self.settle()

    @rule(units=st.integers(1, 3), interrupt=st.booleans())
    def fail(self, units: int, interrupt: bool) -> None:
        self.resource.fail(units, interrupt=interrupt)
        self.failed += units
        if interrupt:
            self.break_down(units)
        self.grant()
        self.settle()

    @rule(units=st.integers(1, 3))
    def repair(self, units: int) -> None:
        if units > self.failed:
            with pytest.raises(RuleViolation, match=f"only {self.failed} failed"):
                self.resource.repair(units)
            return
        self.resource.repair(units)
        self.failed -= units
        self.grant()
        self.settle()

    @rule(current=st.integers(0, 6), failed=st.integers(0, 3), most=st.integers(0, 6))
    def update(self, current: int, failed: int, most: int) -> None:
        """From outside: an alarm interrupts nobody who has not said that he heeds it."""
        changes = {"r.max_cap": most, "r.failed": failed, "r.current_cap": current}
        if current > most:
            with pytest.raises(RuleViolation):
                self.env.registry.update_many(changes)
            return
        self.env.registry.update_many(changes)
        self.capacity, self.failed, self.most = current, failed, most
        self.grant()
        self.settle()

    @rule(ticks=st.integers(1, 3 * SECOND))
    def wait(self, ticks: int) -> None:
        before = self.env.tick
        self.env.run(until=self.env.now + ticks / SECOND)
        passed = self.env.tick - before
        self.busy += passed * len(self.users)
        self.queued += passed * len(self.waiting)
        self.available += passed * self.limit

    @invariant()
    def agrees(self) -> None:
        resource = self.resource
        assert resource.users == [job.place for job in self.users]
        assert resource.queue == [job.place for job in self.waiting]
        assert (resource.in_use, resource.failed) == (len(self.users), self.failed)
        assert (resource.capacity, resource.max_capacity) == (self.capacity, self.most)
        assert resource.free == max(0, self.limit - len(self.users))
        assert resource.over_capacity == max(0, len(self.users) - self.limit)
        assert not (self.waiting and len(self.users) < self.limit)
        assert len(self.users) + len(self.waiting) + len(self.gone) == len(self.jobs)
        found = resource.statistics
        assert (found.busy_ticks, found.queue_ticks, found.capacity_ticks) == (self.busy, self.queued, self.available)


TestResourceAgainstList = ResourceMachine.TestCase
