"""Stores: SimPy's order with and without filters, equal priorities in order, a length that changes under way."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from simpy.events import Event

from tidewarp.errors import Removed, RuleViolation
from tidewarp.process import DynamicStore, Environment

Model = Generator[Event, Any, None]
SECOND = 10**9
KINDS: dict[str, tuple[Callable[[simpy.Environment], Any], bool]] = {
    "plain": (lambda env: simpy.Store(env, 3), False),
    "filter": (lambda env: simpy.FilterStore(env, 3), False),
    "priority": (lambda env: simpy.PriorityStore(env, 3), True),
}


def shelf_model(env: simpy.Environment, shelf: Any, seed: int, filtered: bool) -> list[tuple[Any, ...]]:
    """Items in and out, several at one instant; some give up."""
    draw = random.Random(seed)
    log: list[tuple[Any, ...]] = []

    def worker(number: int) -> Model:
        for turn in range(6):
            yield env.timeout(draw.choice([0, 0, 1, 0.5]))
            if (number + turn) % 2:
                request = shelf.put((draw.randrange(3), number, turn))
            elif filtered:
                wanted = draw.randrange(3)
                request = shelf.get(lambda item, wanted=wanted: item[0] == wanted)
            else:
                request = shelf.get()
            with request:
                result = yield request | env.timeout(draw.choice([1, 2.25]))
                log.append((env.now, number, turn, result.todict().get(request, "gave up")))
        log.append((env.now, len(shelf.items)))

    for number in range(5):
        env.process(worker(number))
    return log


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(seed=st.integers(0, 2**32))
def test_a_store_is_that_of_simpy_event_for_event(kind: str, seed: int) -> None:
    """Store, FilterStore and PriorityStore (with items of which no two are equal), also within one instant."""
    make, priority = KINDS[kind]
    plain, ours = simpy.Environment(), Environment()
    expected = shelf_model(plain, make(plain), seed, kind == "filter")
    plain.run(until=50)
    got = shelf_model(ours, DynamicStore(ours, "shelf", 3, priority), seed, kind == "filter")
    ours.run_slice(50 * SECOND)
    assert got == expected
    assert len(got) > 10


def test_equal_priorities_leave_in_the_order_in_which_they_came() -> None:
    """SimPy's heap gives them out in another order; an item with a priority need not be comparable."""
    env = Environment()
    shelf = DynamicStore(env, "shelf", 20, priority=True)
    for number in range(10):
        shelf.put(simpy.PriorityItem(number % 2, {"number": number}))
    taken = [shelf.get().value.item["number"] for _ in range(10)]
    assert taken == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]


def test_a_filter_takes_the_item_it_accepted_not_an_equal_one() -> None:
    """SimPy removes the first item that is equal: 1 instead of True."""
    env = Environment()
    shelf = DynamicStore(env, "shelf", 5)
    for item in (1, True, 1.0):
        shelf.put(item)
    got = shelf.get(lambda item: type(item) is float)
    assert (type(got.value), [type(item) for item in shelf.items]) == (float, [int, bool])


def test_a_shrink_keeps_all_items_and_puts_wait_in_order() -> None:
    """No get is held up; a grow lets as many in as fit, in the same instant."""
    env = Environment()
    shelf = DynamicStore(env, "shelf", 4, max_capacity=9)
    for item in "abcd":
        shelf.put(item)
    env.registry.update("shelf.current_cap", 1)
    waiting = [shelf.put(item) for item in "efg"]
    assert (shelf.items, shelf.capacity) == (["a", "b", "c", "d"], 1)
    assert [shelf.get().value for _ in range(3)] == ["a", "b", "c"]
    env.run(until=1)
    assert (shelf.items, [put.triggered for put in waiting]) == (["d"], [False] * 3)
    env.registry.update("shelf.current_cap", 3)
    assert (shelf.items, [put.triggered for put in waiting]) == (["d", "e", "f"], [True, True, False])
    env.registry.update("shelf.current_cap", 0)
    assert [shelf.get().value for _ in range(3)] == ["d", "e", "f"]
    for wrong in (7.75, -1, 10, None):
        with pytest.raises(RuleViolation):
            env.registry.update("shelf.current_cap", wrong)


def test_ten_thousand_abandoned_gets_and_puts_leave_nothing() -> None:
    """A get is withdrawn by the end of its block, and takes no item afterwards."""
    env = Environment()
    shelf = DynamicStore(env, "shelf", 1)
    gave_up = 0

    def impatient(number: int) -> Model:
        nonlocal gave_up
        yield env.timeout(number % 2)
        with shelf.put(number) if number % 2 else shelf.get(lambda item: False) as request:
            yield request | env.timeout(0.5)
            gave_up += not request.triggered

    for number in range(10_000):
        env.process(impatient(number))
    env.run(until=5)
    assert (gave_up, shelf.get_queue, shelf.put_queue, len(shelf.items)) == (9_999, [], [], 1)
    assert env.state()["resources"]["shelf"] == {
        "capacity": 1, "getting": 0, "items": 1, "max_capacity": 1, "putting": 0,
    }  # fmt: skip


def test_removal_fails_who_waits_and_keeps_the_items_readable() -> None:
    """Getters and putters alike."""
    env = Environment()
    shelf = DynamicStore(env, "shelf", 1)
    shelf.put("a")
    requests = [shelf.put("b"), shelf.get(lambda item: item == "z")]
    shelf.remove()
    env.run(until=1)
    assert [type(request.value) for request in requests] == [Removed, Removed]
    assert shelf.items == ["a"]
    for call in (lambda: shelf.put("c"), shelf.get, shelf.remove):
        with pytest.raises(Removed):
            call()
    assert env.registry.paths() == []
