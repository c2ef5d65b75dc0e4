"""Containers: SimPy's order, a size that changes under way, and what a list of amounts says."""

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

from tidewarp.errors import ModelError, Removed, RuleViolation, UnknownPath
from tidewarp.process import DynamicContainer, Environment

Model = Generator[Event, Any, None]
SECOND = 10**9


def tank_model(env: simpy.Environment, tank: Any, seed: int) -> list[tuple[Any, ...]]:
    """Random amounts in and out, several at one instant."""
    draw = random.Random(seed)
    log: list[tuple[Any, ...]] = []

    def worker(number: int) -> Model:
        for turn in range(6):
            yield env.timeout(draw.choice([0, 0, 1, 0.5]))
            amount = draw.choice([1, 2, 2.5, 4])
            yield tank.put(amount) if (number + turn) % 2 else tank.get(amount)
            log.append((env.now, number, turn, tank.level, len(tank.put_queue), len(tank.get_queue)))

    for number in range(5):
        env.process(worker(number))
    return log


@given(st.integers(0, 2**32))
def test_a_container_is_that_of_simpy_event_for_event(seed: int) -> None:
    """Where nothing shrinks and nobody gives up, also within one instant."""
    plain, ours = simpy.Environment(), Environment()
    expected = tank_model(plain, simpy.Container(plain, 12, init=6), seed)
    plain.run(until=50)
    got = tank_model(ours, DynamicContainer(ours, "tank", 12, 6), seed)
    ours.run_slice(50 * SECOND)
    assert got == expected
    assert len(got) > 5


def test_predecessor_6_a_capacity_of_7_75_stays_7_75() -> None:
    """Predecessor: 7; and a raised max_cap was ignored. Here it counts at once, and both in one update are one change."""
    env = Environment()
    tank = DynamicContainer(env, "tank", 5.0)
    env.registry.update("tank.max_cap", 10)
    env.registry.update("tank.current_cap", "7.75")
    assert (tank.capacity, tank.max_capacity, env.registry.get_config("tank").current_cap) == (7.75, 10.0, 7.75)
    with pytest.raises(RuleViolation, match=r"at most max_cap 10.0; raise max_cap first, or set both"):
        env.registry.update("tank.current_cap", 50)
    env.registry.update_many({"tank.current_cap": 50, "tank.max_cap": 50})
    assert tank.capacity == env.registry.get("tank.current_cap").value == 50.0
    for wrong in (float("nan"), float("inf"), -1, "x", True, None):
        with pytest.raises(RuleViolation):
            env.registry.update("tank.current_cap", wrong)


def test_a_shrink_keeps_the_level_and_gets_are_never_held_up() -> None:
    """Puts wait in order until they fit; the first in line is not overtaken by a smaller one."""
    env = Environment()
    tank = DynamicContainer(env, "tank", 10, init=8)
    env.registry.update("tank.current_cap", 4)
    assert (tank.level, tank.overflow, tank.capacity) == (8.0, 4.0, 4.0)
    big, small = tank.put(3), tank.put(0.5)
    got = tank.get(6)
    assert (got.triggered, tank.level, big.triggered) == (True, 2.0, False)
    env.run_slice(SECOND)
    assert (tank.level, big.triggered, small.triggered, tank.overflow) == (2.0, False, False, 0.0)
    env.writable = True  # as while an input is applied
    env.registry.update("tank.current_cap", 5.5)
    assert (big.triggered, small.triggered, tank.level) == (True, True, 5.5)


@pytest.mark.parametrize("way", ["timeout", "interrupt", "failure", "close", "cancel"])
def test_who_leaves_lets_the_next_one_try(way: str) -> None:
    """SimPy leaves a put that fits waiting behind one that was withdrawn. Every way of leaving is alike."""
    env = Environment()
    tank = DynamicContainer(env, "tank", 10, init=8)
    failing = env.event()

    def impatient() -> Model:
        try:
            with tank.put(5) as put:
                if way == "cancel":
                    yield env.timeout(1)
                    put.cancel()
                yield put | env.timeout(1 if way == "timeout" else 50) | failing
        except (simpy.Interrupt, ValueError):
            pass

    generator = impatient()
    process = env.process(generator)
    env.run_slice(SECOND // 2)
    env.writable = True
    behind = tank.put(2)
    assert not behind.triggered
    if way == "interrupt":
        process.interrupt()
    elif way == "failure":
        failing.fail(ValueError("x"))
    elif way == "close":
        generator.close()
    env.run_slice(3 * SECOND)
    assert (behind.triggered, tank.level, tank.put_queue) == (True, 10.0, [])


def test_a_get_that_gives_up_lets_a_smaller_one_go() -> None:
    """The same on the other side."""
    env = Environment()
    tank = DynamicContainer(env, "tank", 10, init=2)
    greedy, modest = tank.get(5), tank.get(1)
    greedy.cancel()
    assert (modest.triggered, tank.level, tank.get_queue) == (True, 1.0, [])
    modest.cancel()  # too late: it has it
    assert tank.level == 1.0


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), True, "1", None])
def test_amounts_are_finite_and_above_0(wrong: Any) -> None:
    """SimPy takes NaN, and the level is NaN for ever."""
    tank = DynamicContainer(Environment(), "tank", 10, init=2)
    for call in (tank.put, tank.get):
        with pytest.raises(ModelError, match="a finite number > 0"):
            call(wrong)
    assert (tank.level, tank.put_queue, tank.get_queue) == (2.0, [], [])


def test_what_makes_no_sense_is_refused_before_a_path_is_declared() -> None:
    """Capacity 0 is legal."""
    env = Environment()
    for capacity, init in ((5, 6), (5, -1), (5, float("nan")), (5, True), (-1, 0), ("x", 0), (True, 0)):
        with pytest.raises(ModelError):
            DynamicContainer(env, "tank", capacity, init)  # type: ignore[arg-type]
    assert env.registry.paths() == []
    closed = DynamicContainer(env, "tank", 0)
    put = closed.put(1)
    assert (put.triggered, closed.max_capacity) == (False, 1.0)
    assert env.state()["resources"]["tank"] == {
        "capacity": 0.0, "getting": 0, "level": 0.0, "max_capacity": 1.0, "putting": 1,
    }  # fmt: skip


def test_removal_fails_who_waits_and_keeps_what_is_inside_readable() -> None:
    """Also a put that nobody waits for yet; the paths refuse updates and are free again."""
    env = Environment()
    tank = DynamicContainer(env, "tank", 5, init=4)
    seen: list[str] = []

    def waiter() -> Model:
        try:
            yield tank.get(5)
        except Removed as error:
            seen.append(error.value)

    env.process(waiter())
    put = tank.put(2)
    env.run(until=1)
    tank.remove()
    env.run(until=2)
    assert (seen, isinstance(put.value, Removed), tank.level) == (["DynamicContainer tank"], True, 4.0)
    for call in (lambda: tank.put(1), lambda: tank.get(1), tank.remove):
        with pytest.raises(Removed):
            call()
    with pytest.raises(UnknownPath):
        env.registry.update("tank.current_cap", 1)
    DynamicContainer(env, "tank", 7)


class TankMachine(RuleBasedStateMachine):
    """A container against two lists of amounts that are served from the front."""

    @initialize(capacity=st.integers(0, 6), init=st.integers(0, 6))
    def build(self, capacity: int, init: int) -> None:
        self.env = Environment()
        self.level, self.capacity = min(init, capacity), capacity
        self.tank = DynamicContainer(self.env, "t", capacity, self.level, 20)
        self.puts: list[Any] = []
        self.gets: list[Any] = []

    def settle(self) -> None:
        while self.env.peek() == self.env.now:
            self.env.step()
        served = True
        while served:
            served = False
            while self.puts and self.level + self.puts[0].amount <= self.capacity:
                self.level += self.puts.pop(0).amount
                served = True
            while self.gets and self.level >= self.gets[0].amount:
                self.level -= self.gets.pop(0).amount
                served = True

    @rule(amount=st.integers(1, 5), put=st.booleans())
    def use(self, amount: int, put: bool) -> None:
        (self.puts if put else self.gets).append(self.tank.put(amount) if put else self.tank.get(amount))
        self.settle()

    @precondition(lambda self: self.puts or self.gets)
    @rule(data=st.data())
    def renege(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from([*self.puts, *self.gets]))
        request.cancel()
        (self.puts if request in self.puts else self.gets).remove(request)
        self.settle()

    @rule(capacity=st.integers(0, 12))
    def resize(self, capacity: int) -> None:
        self.env.registry.update("t.current_cap", capacity)
        self.capacity = capacity
        self.settle()

    @invariant()
    def agrees(self) -> None:
        assert (self.tank.level, self.tank.capacity) == (self.level, self.capacity)
        assert (self.tank.put_queue, self.tank.get_queue) == (self.puts, self.gets)
        assert self.tank.overflow == max(0, self.level - self.capacity)
        assert not any(request.triggered for request in (*self.puts, *self.gets))


TestTankAgainstLists = TankMachine.TestCase
