"""A reader of changes: each of them, in order, whatever its process does meanwhile."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from simpy.events import Event
from simpy.exceptions import Interrupt

from tidewarp.connect.contract import Input
from tidewarp.errors import ModelError
from tidewarp.process import Change, Environment

S = 10**9
Process = Generator[Event, Any, None]


def one(tick: int, value: float, offset: int = 0) -> Input:
    return Input(tick, 1, 0, offset, (("a", value),), tick)


def plant(**options: Any) -> tuple[Environment, Any, list[Any]]:
    """An environment, the reader of its one value, and what a process that reads all has seen."""
    env = Environment()
    changes = env.registry.declare("a", float).changes(**options)
    seen: list[Any] = []
    return env, changes, seen


def read(env: Environment, changes: Any, seen: list[Any], pause: float = 0.0) -> Process:
    while True:
        change = yield changes.next()
        seen.append((env.now, change.new))
        if pause:
            yield env.timeout(pause)


def taken(env: Environment, changes: Any, count: int) -> list[Change]:
    """So many changes, read by a process."""
    found: list[Change] = []

    def take() -> Process:
        for _ in range(count):
            found.append((yield changes.next()))  # noqa: PERF401 - a generator may not yield in a comprehension

    env.writable = True
    env.process(take())
    env.run_slice(env.tick + S)
    return found


def test_sixty_changes_are_sixty_seen() -> None:
    """A predecessor's observer saw 23 of 60."""
    env, changes, seen = plant()
    env.process(read(env, changes, seen))
    env.run_slice(0)
    for n in range(60):
        env.run_slice(n * S)
        env.apply([one(n * S, n + 0.5)])
    env.run_slice(99 * S)
    assert seen == [(n, n + 0.5) for n in range(60)]


def test_several_at_one_instant_are_seen_one_by_one() -> None:
    """Where `wait_for_change` gives the first and the value is the last; what came before the process started included."""
    env, changes, seen = plant()
    env.apply([one(0, 1.0), one(0, 2.0, 1), one(0, 3.0, 2)])
    env.process(read(env, changes, seen))
    env.run_slice(5 * S)
    env.apply([one(5 * S, 4.0, 3), one(5 * S, 5.0, 4)])
    env.run_slice(9 * S)
    assert seen == [(0, 1.0), (0, 2.0), (0, 3.0), (5, 4.0), (5, 5.0)]


def test_a_change_says_what_it_was() -> None:
    """Path, old and new value, version, tick and cause are those of its own moment, however late it is read."""
    env, changes, _ = plant()
    env.apply([one(0, 1.0)])
    env.run_slice(2 * S)
    env.apply([one(2 * S, 7.0, 1)])
    assert taken(env, changes, 2) == [
        Change("a", None, 1.0, 1, 0, "1[0:0]"),
        Change("a", 1.0, 7.0, 2, 2 * S, "1[0:1]"),
    ]


def test_a_slow_reader_loses_nothing_up_to_its_capacity() -> None:
    """The changes wait in order."""
    env, changes, seen = plant(capacity=9)
    env.process(read(env, changes, seen, pause=10.0))
    for n in range(10):
        env.run_slice(n * S)
        env.apply([one(n * S, n + 1.0)])
    env.run_slice(200 * S)
    assert [value for _, value in seen] == [n + 1.0 for n in range(10)]


@pytest.mark.parametrize("abandon", ["timeout", "interrupt"])
def test_an_abandoned_wait_swallows_nothing(abandon: str) -> None:
    """The change that comes after it waits for the next call."""
    env, changes, seen = plant()

    def hasty() -> Process:
        try:
            yield changes.next() | env.timeout(1)
        except BaseException:
            seen.append("interrupted")
        yield env.timeout(5)
        seen.append((yield changes.next()).new)
        seen.append((yield changes.next()).new)

    process = env.process(hasty())
    env.run_slice(S // 2)
    if abandon == "interrupt":
        env.writable = True
        process.interrupt()
        env.writable = False
    env.run_slice(3 * S)
    env.apply([one(3 * S, 1.0)])
    env.run_slice(4 * S)
    env.apply([one(4 * S, 2.0, 1)])
    env.run_slice(9 * S)
    assert seen[-2:] == [1.0, 2.0]


@pytest.mark.parametrize("first", ["change", "interrupt"])
@pytest.mark.parametrize("is_race", [False, True])
@pytest.mark.parametrize("pause", [0, 1])
def test_a_wait_that_ends_at_the_instant_of_the_change_loses_nothing(pause: int, is_race: bool, first: str) -> None:
    """Interrupted or timed out before the event is processed: the change is that of the next call, at once or later."""
    env, changes, seen = plant()

    def watcher() -> Process:
        while True:
            try:
                found = yield changes.next() | env.timeout(5) if is_race else changes.next()
                seen.extend([part.new for part in found.values() if part] if is_race else [found.new])
            except Interrupt:
                seen.append(None)
                if pause:  # then the event is processed while nobody waits for it
                    yield env.timeout(pause)

    process = env.process(watcher())

    def other() -> Process:
        yield env.timeout(5)
        acts = [lambda: env.registry.update("a", 1.0), process.interrupt]
        for act in acts if first == "change" else reversed(acts):
            act()
        yield env.timeout(5)
        env.registry.update("a", 2.0)

    env.process(other())
    env.run_slice(30 * S)
    assert [new for new in seen if new is not None] == [1.0, 2.0]
    assert changes.dropped == 0


def test_a_change_that_was_handed_out_and_not_taken_waits() -> None:
    """It was there when it was asked for, and the process was interrupted before it came."""
    env, changes, seen = plant()

    def watcher() -> Process:
        yield env.timeout(6)
        for _ in range(3):
            try:
                seen.append((yield changes.next()).new)
            except Interrupt:
                seen.append("interrupted")

    process = env.process(watcher())

    def other() -> Process:
        yield env.timeout(5)
        env.registry.update("a", 1.0)
        yield env.timeout(1)
        process.interrupt()
        yield env.timeout(1)
        env.registry.update("a", 2.0)

    env.process(other())
    env.run_slice(30 * S)
    assert seen == ["interrupted", 1.0, 2.0]


def test_two_readers_do_not_share() -> None:
    """Each sees all; one that is closed sees no more and costs nothing."""
    env, first, seen = plant()
    second = env.registry.get("a").changes()
    closed = env.registry.get("a").changes(capacity=1)
    closed.close()
    for reader in (first, second):
        env.process(read(env, reader, seen))
    env.run_slice(S)
    env.apply([one(S, 1.0), one(S, 2.0, 1)])
    env.run_slice(2 * S)
    assert sorted(seen) == [(1, 1.0), (1, 1.0), (1, 2.0), (1, 2.0)]
    with pytest.raises(ModelError, match="closed"):
        closed.next()


def test_beyond_its_capacity_a_reader_says_so() -> None:
    """Unread changes are bounded; the message names the bound and the ways out."""
    env, changes, _ = plant(capacity=2)
    env.apply([one(0, 1.0)])
    env.run_slice(S)
    env.apply([one(S, n + 2.0, n) for n in range(2)])
    with pytest.raises(ModelError, match=r"3 unread changes of a: at most 2 wait; .*full='latest'"):
        changes.next()


def test_what_comes_at_one_instant_is_never_too_much() -> None:
    """Nobody could have read it in between: a reader that reads as they come gets all, at that instant and the next."""
    env, first, seen = plant(capacity=2)
    env.process(read(env, first, seen))
    env.run_slice(S)
    for at in (S, 2 * S):
        env.apply([one(at, at / S + n, n) for n in range(100)])
        env.run_slice(at + S)
    assert [value for _, value in seen] == [*(1.0 + n for n in range(100)), *(2.0 + n for n in range(100))]


def test_the_latest_are_kept_and_the_rest_counted() -> None:
    """For a reader to whom old news is none."""
    env, changes, _ = plant(capacity=2, full="latest")
    env.apply([one(0, n + 1.0, n) for n in range(5)])
    assert [change.new for change in taken(env, changes, 2)] == [4.0, 5.0]
    assert changes.dropped == 3
    assert not changes.next().triggered


@pytest.mark.parametrize("options", [{"capacity": 0}, {"capacity": 1.5}, {"full": "drop"}])
def test_a_reader_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    """Where it is made."""
    with pytest.raises(ModelError, match="at least 1 change"):
        plant(**options)
