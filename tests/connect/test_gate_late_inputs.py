"""The gate knows again what it has had, and treats what comes too late as the policy of its source says."""

from __future__ import annotations

import pytest
from gate_driver import Driver, Plain, S, message, rule

from tidewarp.connect.contract import Input, Raw
from tidewarp.connect.gate import Connected, Gate, Passed, Policy, Replayed
from tidewarp.errors import OperatorError


def test_an_offset_that_is_known_is_skipped_and_counted() -> None:
    """Admitted or buried, in this life or an earlier one, per partition."""
    driver = Driver(x=Policy())
    driver.handle(Replayed("x", 0, [Input(1, 1, 1, 5, (("a", 1),), 1)]))
    assert driver.arrive("x", message(5, 1, partition=1), message(4, 1, partition=1)) == []
    (append,) = driver.arrive("x", message(5, 1), Raw(0, 6, b"garbage"), message(6, 2), message(5, 1))
    assert [one.offset for one in append.inputs] == [5]
    assert driver.gate.sources.counts()["duplicates"] == 4
    assert driver.gate.positions("x") == {0: 6, 1: 5}


def test_late_is_what_lies_below_the_highest_time_seen_in_its_partition() -> None:
    """Equal is not late, and another partition's time says nothing. Predecessor: the older event won."""
    driver = Driver(x=Policy(disorder=100))
    driver.feed("x", 50, 50, 20, 49, 50)
    driver.feed("x", 30, 60, partition=1)
    assert driver.gate.sources.counts()["late"] == 2
    driver.end("x")
    driver.commit()
    driver.ask(driver.gate.end)
    assert [(one.tick, one.offset) for one in driver.granted] == [
        (20, 2),
        (30, 0),
        (49, 3),
        (50, 0),
        (50, 1),
        (50, 4),
        (60, 1),
    ]


def test_too_late_stops_the_run_and_names_the_bound_that_would_do() -> None:
    """The default: nothing is changed or lost in silence; the number in the message is exact."""
    driver = Driver(x=Policy(disorder=5 * S))
    first, late = 1_234_567_890_123_456_789, 1_234_567_000_123_456_780
    with pytest.raises(OperatorError, match=r"message 1: event time .* disorder of at least 890\.000000009 s if both "):
        driver.arrive("x", message(0, first), message(1, late))
    driver = Driver(x=Policy(disorder=890_000_000_009))
    driver.arrive("x", message(0, first), message(1, late))
    assert driver.gate.sources.counts()["late"] == 1


def test_too_late_does_not_depend_on_the_clock() -> None:
    """By the messages before it alone: asked or not, durable or not, in one batch or in two."""
    for asked in (False, True):
        driver = Driver(x=Policy(late="clamp", disorder=2))
        driver.feed("x", 10)
        if asked:
            driver.ask()
        (append,) = driver.arrive("x", message(1, 7), message(2, 8))
        assert [(one.tick, one.event_tick) for one in append.inputs] == [(8, 7), (8, 8)]


def test_a_clamped_input_keeps_its_event_time_and_is_applied_at_the_present() -> None:
    """It is late and clamped, and does not move the watermark."""
    driver = Driver(x=Policy(late="clamp"))
    driver.feed("x", 10, 30)
    driver.ask()
    driver.feed("x", 5, 30, first=2)
    driver.end("x")
    driver.commit()
    driver.ask(driver.gate.end)
    assert [(one.tick, one.event_tick, one.offset) for one in driver.granted] == [
        (10, 10, 0),
        (30, 30, 1),
        (30, 5, 2),
        (30, 30, 3),
    ]
    counts = driver.gate.sources.counts()
    assert (counts["inputs"], counts["late"], counts["clamped"], counts["dropped"]) == (4, 1, 1, 0)


def test_a_dropped_input_is_a_dead_letter() -> None:
    """Journaled with the rule `late`, counted as late and as dropped, never granted."""
    driver = Driver(x=Policy(late="drop"))
    driver.feed("x", 30)
    (append,) = driver.arrive("x", message(1, 29), message(2, 31))
    assert [(one.offset, one.rule) for one in append.letters] == [(1, "late")]
    assert [one.tick for one in append.inputs] == [31]
    counts = driver.gate.sources.counts()
    assert (counts["late"], counts["dropped"], counts["clamped"], counts["inputs"]) == (1, 1, 0, 2)
    again = Gate(rule)
    again.sources.register("x", Policy(late="drop"))
    again.handle(Replayed("x", 0, dead={"late": 1}, positions={0: 1}))
    counts = again.sources.counts()
    assert (counts["late"], counts["dropped"], again.sources.dead()) == (1, 1, {"late": 1})


def test_an_event_before_the_epoch_is_too_late_and_the_message_says_why() -> None:
    """No disorder bound would help."""
    with pytest.raises(OperatorError, match="begin a new journal with an earlier --epoch"):
        Driver(x=Policy(disorder=S)).arrive("x", message(0, -1))
    driver = Driver(x=Policy(late="clamp"))
    (append,) = driver.arrive("x", message(0, -7))
    assert [(one.tick, one.event_tick) for one in append.inputs] == [(0, -7)]


def test_an_input_behind_a_clock_that_has_passed_an_ended_source_is_applied_before_the_end() -> None:
    """A list that has grown between runs: its new entry is clamped to the floor, and the end lies behind it."""
    driver = Driver(x=Policy(late="clamp"))
    driver.handle(Replayed("x", 0, [Input(10, 1, 0, 0, (("a", 1),), 10)]))
    driver.handle(Replayed("x", 0, ended=True))
    driver.handle(Passed(500))
    driver.handle(Connected("x", Plain()))
    assert not driver.gate.sources.finished
    driver.feed("x", 20, first=1)
    driver.end("x")
    driver.commit()
    assert driver.gate.sources.finished
    assert driver.gate.end == 501
    driver.ask(driver.gate.end)
    assert [(one.tick, one.event_tick) for one in driver.granted] == [(10, 10), (500, 20)]


def test_an_input_behind_a_clock_that_has_passed_stops_without_a_wrong_advice() -> None:
    """The bound is kept, so another bound would not help."""
    driver = Driver(x=Policy())
    driver.handle(Replayed("x", 0, ended=True))
    driver.handle(Passed(500 * S))
    driver.handle(Connected("x", Plain()))
    with pytest.raises(OperatorError, match=r"the clock stands at 500\.000 s already; connect with late='clamp'"):
        driver.arrive("x", message(0, 20))


def test_a_partition_that_shows_itself_late_does_not_move_the_bound_back() -> None:
    """Else the same message would be too late or not, by how far the clock happens to be."""
    for asked in (False, True):
        driver = Driver(x=Policy(disorder=10, late="clamp"))
        driver.feed("x", 100)
        if asked:
            driver.ask()
        driver.feed("x", 90, partition=1)
        (append,) = driver.arrive("x", message(1, 85))
        assert [one.tick for one in append.inputs] == [90]
