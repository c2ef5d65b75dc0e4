"""Mutable resources: order, shrink and grow in progress, reneging, and a comparison with a list."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import simpy
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simpy.events import Event

from tidewarp.errors import ModelError, RuleViolation
from tidewarp.process import DynamicResource, Environment, Request

Model = Generator[Event, Any, None]
SECOND = 10**9


@pytest.fixture
def env() -> Environment:
    return Environment()


@pytest.fixture
def lathe(env: Environment) -> DynamicResource:
    return DynamicResource(env, "lathe", 1, 10)


def test_predecessor_8_equal_priorities_are_served_in_order(env: Environment, lathe: DynamicResource) -> None:
    """Predecessor: 0,2,6,5,7,4,1,3. A lower number goes first."""
    served: list[int] = []

    def job(number: int, priority: int) -> Model:
        with lathe.request(priority) as request:
            yield request
            served.append(number)
            yield env.timeout(1)

    for number, priority in enumerate([1, 1, 1, 0, 1, 2, 0, 1]):
        env.process(job(number, priority))
    env.run_slice(100 * SECOND)
    assert served == [0, 3, 6, 1, 2, 4, 7, 5]


def test_predecessor_7_shrink_touches_no_work_and_grants_nothing_until_below(env: Environment) -> None:
    """Predecessor: in_use -3 after 5 to 0, and a grant while 5 were busy against a capacity of 2."""
    oven = DynamicResource(env, "oven", 5)
    granted = [oven.request() for _ in range(5)]
    waiting = oven.request()
    env.registry.update("oven.current_cap", 0)
    assert (oven.in_use, oven.over_capacity, oven.free, oven.capacity) == (5, 5, 0, 0)
    env.registry.update("oven.current_cap", 2)
    for left in (4, 3, 2):
        oven.release(granted.pop())
        assert (oven.in_use, oven.over_capacity, waiting.triggered) == (left, left - 2, False)
    oven.release(granted.pop())
    assert (oven.in_use, waiting.triggered, oven.users) == (2, True, [*granted, waiting])
    env.registry.update("oven.current_cap", 0)
    for request in (*granted, waiting, waiting):
        oven.release(request)
    assert (oven.in_use, oven.free) == (0, 0)


def test_grow_grants_in_the_same_instant_in_order(env: Environment, lathe: DynamicResource) -> None:
    """Two more units at t = 3: two more jobs start at t = 3."""
    started: list[tuple[int, float]] = []

    def job(number: int) -> Model:
        with lathe.request() as request:
            yield request
            started.append((number, env.now))
            yield env.timeout(10)

    def grow() -> Model:
        yield env.timeout(3)
        env.registry.update("lathe.current_cap", 3)

    for number in range(5):
        env.process(job(number))
    env.process(grow())
    env.run_slice(9 * SECOND)
    assert started == [(0, 0), (1, 3), (2, 3)]


def test_capacity_0_is_legal_and_capacities_are_whole_and_ordered(env: Environment) -> None:
    """Without max_capacity more than at the start has to be asked for, at least 1 is possible."""
    closed = DynamicResource(env, "closed", 0)
    request = closed.request()
    assert (closed.max_capacity, closed.queue) == (1, [request])
    env.registry.update("closed.current_cap", 1)
    assert request.triggered
    for capacity, most in ((-1, None), (7.75, None), (3, 2), (None, None), (True, None), (1, -1)):
        with pytest.raises(RuleViolation):
            DynamicResource(env, "bad", capacity, most)  # type: ignore[arg-type]
    assert env.registry.paths("bad") == []


@pytest.mark.parametrize(
    ("capacity", "most", "told"),
    [
        (-1, None, "value -1 for r.current_cap: at least 0; send a value in the range"),
        (7.75, None, "value 7.75 for r.current_cap: not a whole number; send a whole number"),
        (1, -1, "value -1 for r.max_cap: at least 0; send a value in the range"),
        (3, 2, "value 3 for r.current_cap: at most max_cap 2; begin with less, or with a greater max_cap"),
        (None, None, "capacity None of r: a number, unless a SimParameter has registered one; give a number"),
    ],
)
def test_the_error_of_a_capacity_says_what_helps(env: Environment, capacity: Any, most: Any, told: str) -> None:
    """Its rule comes with the resource: nobody is told to declare the path otherwise, at the start or later."""
    with pytest.raises(RuleViolation) as caught:
        DynamicResource(env, "r", capacity, most)
    assert str(caught.value) == told
    if "send" in told:
        DynamicResource(env, "r", 1)
        with pytest.raises(RuleViolation) as caught:
            env.registry.update("r.current_cap" if most is None else "r.max_cap", capacity if most is None else most)
        assert str(caught.value) == told


def test_predecessor_20_ten_thousand_abandoned_requests_leave_nothing(env: Environment, lathe: DynamicResource) -> None:
    """Predecessor: 9,990 of 10,000 stayed in the queue. Leaving the block before the grant withdraws the request."""
    reneged = 0

    def impatient(number: int) -> Model:
        nonlocal reneged
        with lathe.request(number % 7) as request:
            result = yield request | env.timeout(1)
            if request in result:
                yield env.timeout(1_000)
            else:
                reneged += 1

    for number in range(10_000):
        env.process(impatient(number))
    env.run_slice(SECOND // 2)
    assert len(lathe.queue) == 9_999
    env.run_slice(5 * SECOND)
    assert (reneged, lathe.queue, lathe.in_use) == (9_999, [], 1)
    assert env.state()["resources"]["lathe"] == {"capacity": 1, "in_use": 1, "max_capacity": 10, "waiting": 0}


@pytest.mark.parametrize("way", ["interrupt", "failure", "close", "cancel"])
def test_every_way_of_leaving_while_waiting_withdraws_the_request(
    env: Environment, lathe: DynamicResource, way: str
) -> None:
    """An interrupt, a failed condition, a closed generator and cancel() behave alike."""
    lathe.request()
    failing = env.event()

    def waiter() -> Model:
        try:
            with lathe.request() as request:
                if way == "cancel":
                    yield env.timeout(1)
                    request.cancel()
                yield request & failing
        except (simpy.Interrupt, ValueError):
            pass

    generator = waiter()
    process = env.process(generator)
    env.run_slice(SECOND // 2)
    assert len(lathe.queue) == 1
    if way == "interrupt":
        process.interrupt()
    elif way == "failure":
        failing.fail(ValueError("x"))
    elif way == "close":
        generator.close()
    env.run_slice(3 * SECOND)
    assert (lathe.queue, lathe.in_use) == ([], 1)


def test_a_grant_that_nobody_sees_any_more_is_given_back(env: Environment, lathe: DynamicResource) -> None:
    """Granted and timed out in one instant: leaving the block releases."""
    log: list[str] = []

    def holder() -> Model:
        with lathe.request() as request:
            yield request
            yield env.timeout(1)

    def waiter() -> Model:
        with lathe.request() as request:
            result = yield env.timeout(1) | request
            log.append("granted" if request in result else "timeout")

    env.process(waiter())
    env.process(holder())
    env.process(waiter())
    env.run_slice(5 * SECOND)
    assert len(log) == 2
    assert (lathe.in_use, lathe.queue) == (0, [])


def test_release_without_argument_gives_back_the_oldest_grant_of_the_process(env: Environment) -> None:
    """With nothing held it says so; another process's grant is never taken."""
    oven = DynamicResource(env, "oven", 3)
    other = oven.request()
    log: list[list[Request]] = []

    def model() -> Model:
        first, second = oven.request(), oven.request()
        yield first & second
        yield oven.release()
        log.append(oven.users)
        assert log[0] == [other, second]
        oven.release()
        with pytest.raises(ModelError, match="by model: it holds no unit"):
            oven.release()

    env.process(model())
    env.run_slice(SECOND)
    assert oven.users == [other]
    with pytest.raises(ModelError, match="by nobody"):
        oven.release()


def test_release_of_a_foreign_or_finished_request(env: Environment, lathe: DynamicResource) -> None:
    """Over already: nothing happens, as in SimPy; of another resource: an error."""
    request = lathe.request()
    lathe.release(request)
    lathe.release(request)
    assert (lathe.in_use, lathe.free) == (0, 1)
    with pytest.raises(ModelError, match="this is oven"):
        DynamicResource(env, "oven", 1).release(request)
    for priority in (1.5, "1", None, True):
        with pytest.raises(ModelError, match="a priority is an int"):
            lathe.request(priority)  # type: ignore[arg-type]


class ResourceMachine(RuleBasedStateMachine):
    """A resource against two lists: who holds, in order of grant; who waits, in order of (priority, arrival)."""

    @initialize(capacity=st.integers(0, 4), most=st.integers(4, 6))
    def build(self, capacity: int, most: int) -> None:
        self.env = Environment()
        self.resource = DynamicResource(self.env, "r", capacity, most)
        self.capacity, self.most = capacity, most
        self.users: list[Request] = []
        self.waiting: list[tuple[int, int, Request]] = []
        self.made: list[Request] = []
        self.over: set[int] = set()
        self.woken: list[Request] = []

    def settle(self) -> None:
        self.waiting.sort(key=lambda entry: entry[:2])
        while self.waiting and len(self.users) < self.capacity:
            self.users.append(self.waiting.pop(0)[2])

    @rule(priority=st.integers(-1, 2))
    def request(self, priority: int) -> None:
        request = self.resource.request(priority)
        assert request.callbacks is not None
        request.callbacks.append(self.woken.append)  # type: ignore[arg-type]
        self.waiting.append((priority, len(self.made), request))
        self.made.append(request)
        self.settle()

    @precondition(lambda self: self.made)
    @rule(data=st.data(), how=st.sampled_from(["release", "exit", "cancel"]))
    def leave(self, data: st.DataObject, how: str) -> None:
        """Release, renege or do either twice: any request ever made may be left again."""
        number = data.draw(st.integers(0, len(self.made) - 1))
        request = self.made[number]
        if how == "cancel":
            request.cancel()
        elif how == "exit":
            request.__exit__(None, None, None)
        else:
            self.resource.release(request)
        if how != "cancel" or request not in self.users:
            self.over.add(number)
            self.users = [user for user in self.users if user is not request]
            self.waiting = [entry for entry in self.waiting if entry[2] is not request]
        self.settle()

    @rule(current=st.integers(-1, 7))
    def set_current(self, current: int) -> None:
        if 0 <= current <= self.most:
            self.env.registry.update("r.current_cap", current)
            self.capacity = current
            self.settle()
        else:
            with pytest.raises(RuleViolation):
                self.env.registry.update("r.current_cap", current)

    @rule(current=st.integers(0, 7), most=st.integers(0, 7))
    def set_both(self, current: int, most: int) -> None:
        changes = {"r.max_cap": most, "r.current_cap": current}
        if current <= most:
            self.env.registry.update_many(changes)
            self.capacity, self.most = current, most
            self.settle()
        else:
            with pytest.raises(RuleViolation):
                self.env.registry.update_many(changes)

    @rule()
    def let_events_happen(self) -> None:
        while self.env.peek() == self.env.now:
            self.env.step()

    @invariant()
    def agrees(self) -> None:
        resource = self.resource
        assert resource.users == self.users
        assert resource.queue == [entry[2] for entry in self.waiting]
        assert resource.in_use == len(self.users) >= 0
        assert resource.free == max(0, self.capacity - len(self.users))
        assert resource.over_capacity == max(0, len(self.users) - self.capacity)
        assert (resource.capacity, resource.max_capacity) == (self.capacity, self.most)
        assert not (self.waiting and len(self.users) < self.capacity)
        assert len(self.users) + len(self.waiting) + len(self.over) == len(self.made)
        assert len(self.woken) == len(set(map(id, self.woken)))


TestResourceAgainstList = ResourceMachine.TestCase
