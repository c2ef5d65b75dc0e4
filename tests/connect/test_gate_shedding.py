"""A source that cannot wait: its queue lets messages go, counted, before they are inputs; block stays the default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from gate_driver import Driver, Plain, message, rule
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.connect.contract import Gap, Raw, Readings
from tidewarp.connect.gate import (
    Append,
    Appended,
    Arrived,
    Asked,
    Connected,
    Disconnected,
    Ended,
    Gate,
    Missing,
    Paused,
    Policy,
    Replayed,
    state,
)
from tidewarp.connect.gate.room import Room
from tidewarp.errors import OperatorError


def policy(full: str, *, queue: int = 4, batch: int = 2, **more: Any) -> Policy:
    return Policy(time="arrival", wait=False, full=full, queue=queue, batch=batch, **more)


def offsets(appends: Sequence[Append]) -> list[int]:
    return [one.offset for append in appends for one in append.inputs]


def arrive(driver: Driver, *numbers: int) -> list[Append]:
    return driver.arrive("s", *[message(n, 0, n % 100) for n in numbers])


@pytest.mark.parametrize(("full", "stay"), [("drop_oldest", [6, 7, 8, 9]), ("drop_newest", [2, 3, 4, 5])])
def test_of_too_many_the_oldest_or_the_newest_go(full: str, stay: list[int]) -> None:
    """While the clock stands: a batch is admitted, the queue is kept, the rest is counted, and reading goes on."""
    driver = Driver(s=policy(full))
    appends = arrive(driver, 0, 1)
    for first in (2, 4, 6, 8):
        assert driver.reads == {"s": 2}
        appends += arrive(driver, first, first + 1)
    assert offsets(appends) == [0, 1]
    assert driver.gate.sources.shed() == {"s": 4}
    driver.commit()
    for now in range(1, 9):
        driver.appends.clear()
        driver.handle(Asked(now))
        appends += driver.appends
        driver.commit()
    assert offsets(appends) == [0, 1, *stay]
    assert driver.gate.sources.shed() == {"s": 4}
    told = [append.shed for append in appends if append.shed is not None]
    assert sum(shed.counted["shed"] for shed in told) == 4
    assert appends[-1].positions == {0: 9}


def test_the_position_moves_with_the_neighbours_of_what_goes() -> None:
    """Not before: a crash must not lose what waits in front of it."""
    driver = Driver(s=policy("drop_newest", queue=2))
    arrive(driver, 0, 1)
    arrive(driver, 2, 3, 4, 5)  # 2 and 3 wait, 4 and 5 go
    assert [append.positions for append in driver.appends] == [{0: 1}]
    driver.commit()
    driver.handle(Asked(1))
    [inputs, shed] = driver.appends
    assert (inputs.positions, offsets([inputs])) == ({0: 3}, [2, 3])
    assert (shed.positions, shed.shed and shed.shed.positions) == ({0: 5}, {0: 5})


def test_a_life_that_reads_the_records_back_stands_where_the_first_one_stood() -> None:
    """Positions and counts; what went is not read again."""
    driver, second = Driver(s=policy("drop_oldest", queue=2)), Gate(rule)
    second.sources.register("s", policy("drop_oldest", queue=2))
    appends = [*arrive(driver, 0, 1), *arrive(driver, 2, 3), *arrive(driver, 4, 5, 6)]
    driver.commit()
    driver.handle(Asked(1))
    appends += driver.appends
    for append in appends:
        if append.inputs:
            second.handle(Replayed("s", append.admitted, append.inputs))
        if append.shed is not None:
            second.handle(Replayed("s", append.admitted, positions=append.shed.positions, shed=append.shed.counted))
    assert second.positions("s") == driver.gate.positions("s") == {0: 6}
    assert second.sources.shed() == driver.gate.sources.shed() == {"s": 3}


def test_what_waits_is_admitted_when_the_run_stops_and_when_the_source_ends() -> None:
    """Nothing that was not let go is lost."""
    for event in (Paused(), Ended("s")):
        driver = Driver(s=policy("drop_oldest"))
        arrive(driver, 0, 1)
        arrive(driver, 2, 3)
        arrive(driver, 4)
        driver.handle(event)
        assert offsets(driver.appends) == [0, 1, 2, 3, 4]


def test_after_an_outage_it_is_opened_behind_all_that_came() -> None:
    """Where offsets are counts, a message that comes then must not have the number of one that waits."""
    driver = Driver(s=policy("drop_newest"))
    arrive(driver, 0, 1)
    arrive(driver, *range(2, 9))
    driver.reads.clear()
    driver.handle(Disconnected("s", "reset", 1.0))
    assert driver.gate.positions("s") == {0: 8}
    driver.handle(Connected("s", Plain(), 0, 2.0))
    arrive(driver, 9)
    driver.handle(Paused())
    assert offsets(driver.appends) == [0, 1, 2, 3, 4, 5]


def test_a_gap_stands_behind_what_waits() -> None:
    """Its record moves the position over it, so what waits is admitted first."""
    driver = Driver(s=policy("drop_oldest", gap="accept"))
    arrive(driver, 0, 1)
    arrive(driver, 2, 3)
    driver.handle(Missing("s", Gap(0, 4, 10, "t"), 1.0))
    assert offsets(driver.appends) == [0, 1, 2, 3]
    assert driver.appends[-1].positions == {0: 9}


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB of payload, whatever their number."""
    monkeypatch.setattr(state, "QUEUE_BYTES_MAX", 40)
    driver = Driver(s=policy("drop_oldest", queue=1_000, batch=1))
    size = len(message(0, 0).payload)
    arrive(driver, *range(20))
    kept = 40 // size
    assert driver.gate.sources.shed() == {"s": 20 - kept}


def test_readings_are_not_let_go() -> None:
    """Columns are of recorded data, which waits: said where it happens."""
    driver = Driver(s=policy("drop_oldest"))
    with pytest.raises(OperatorError, match="only messages are let go"):
        driver.handle(Arrived("s", Readings(0, 0, [1], ["a"], [1])))


def test_block_is_the_default_and_reads_no_further() -> None:
    """Nothing is let go."""
    driver = Driver(s=policy("block"))
    arrive(driver, 0, 1)
    arrive(driver, 2, 3)
    assert driver.reads == {}
    assert (driver.gate.sources.shed(), Policy().full) == ({}, "block")


@given(
    st.lists(st.tuples(st.sampled_from(["put", "take"]), st.integers(0, 5)), max_size=60),
    st.integers(1, 6),
    st.booleans(),
)
def test_the_room_against_a_list(steps: list[tuple[str, int]], most: int, oldest: bool) -> None:
    """Order, number, and every message once: taken or counted as gone, with positions that pass over nothing that waits."""
    room, waiting = Room(most, 1 << 20, oldest=oldest), list[int]()
    came = put = taken = gone = 0
    model_gone = 0
    for step, n in steps:
        if step == "put":
            room.put([Raw(0, came + k, b"") for k in range(n)])
            for offset in range(came, came + n):
                if len(waiting) < most:
                    waiting.append(offset)
                elif oldest:
                    waiting = [*waiting[1:], offset]
                    model_gone += 1
                else:
                    model_gone += 1
            came += n
            put += n
            assert room.arrived.get(0, -1) == came - 1
        else:
            raws, passed = room.take(n)
            assert [raw.offset for raw in raws] == waiting[:n]
            del waiting[:n]
            taken += len(raws)
            gone += passed.count
            if waiting:
                assert passed.positions.get(0, -1) < waiting[0]
    raws, passed = room.take(1_000)
    assert [raw.offset for raw in raws] == waiting
    assert (gone + passed.count, taken + len(raws) + model_gone) == (model_gone, came)
    assert not room


@pytest.mark.parametrize("full", ["drop_oldest", "drop_newest"])
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=12), asks=st.lists(st.booleans(), min_size=12, max_size=12)
)
def test_every_message_is_an_input_or_counted_once(full: str, sizes: list[int], asks: list[bool]) -> None:
    """Whatever the batches and the clock; inputs ascend, and the last position is that of the last message."""
    driver = Driver(s=policy(full, queue=5, batch=3))
    appends: list[Append] = []
    first = now = 0
    for size, ask in zip(sizes, asks, strict=False):
        appends += arrive(driver, *range(first, first + size))
        first += size
        if ask:
            now += 1
            for append in driver.appends:
                driver.handle(Appended(append.ticket))
            driver.appends.clear()
            driver.handle(Asked(now))
            appends += driver.appends
    before = len(driver.appends)
    driver.handle(Paused())
    appends += driver.appends[before:]
    found = offsets(appends)
    assert found == sorted(set(found))
    shed = sum(append.shed.counted["shed"] for append in appends if append.shed is not None)
    assert (len(found) + shed, driver.gate.sources.shed()["s"]) == (first, shed)
    assert driver.gate.positions("s") == {0: first - 1}
    assert max(append.positions[0] for append in appends) == first - 1
