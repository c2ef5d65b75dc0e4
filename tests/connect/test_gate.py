"""The gate: what it stamps, orders and grants, and how far it reads. Over all interleavings: test_gate_machine.py."""

from __future__ import annotations

import pytest
from gate_driver import Driver, message, ticks_of

from tidewarp.codec import pack
from tidewarp.connect.contract import Input, Raw
from tidewarp.connect.gate import Appended, Grant, Passed, Paused, Policy, Replayed, state
from tidewarp.errors import InternalError, OperatorError


def test_a_message_becomes_an_input_of_declared_type() -> None:
    """Decoded, cast, stamped with its event time, rank and position: before anything is granted it is appended."""
    driver = Driver(x=Policy(), y=Policy())
    (append,) = driver.arrive("y", Raw(3, 7, pack([5, [["a", "12"], ["b", 1]]])))
    assert append.inputs == (Input(5, 2, 3, 7, (("a", 12), ("b", 1.0)), 5),)
    assert append.positions == {3: 7}
    assert (append.source, append.admitted, append.letters, append.moved) == ("y", 0, (), {})
    assert driver.granted == []


def test_nothing_is_granted_before_the_journal_holds_it() -> None:
    """The clock stays below what is on its way to the journal, even when a later batch is durable first."""
    driver = Driver(x=Policy())
    driver.arrive("x", message(0, 10), message(1, 20))
    driver.arrive("x", message(2, 30), message(3, 40))
    assert driver.ask() is None
    driver.handle(Appended(2))
    assert driver.ask() == Grant(10, ())
    driver.handle(Appended(1))
    grant = driver.ask()
    assert grant is not None
    assert (grant.floor, ticks_of(grant.inputs)) == (40, [10, 20, 30])


def test_inputs_are_granted_in_key_order_whatever_their_order_of_arrival() -> None:
    """(tick, rank, partition, offset) decides: equal times are no duplicates and arrival leaves no trace."""
    driver = Driver(x=Policy(disorder=100), y=Policy(disorder=100))
    driver.arrive("y", message(0, 7), message(1, 5), message(2, 5))
    driver.arrive("x", message(0, 5, partition=1), message(0, 5, partition=0), message(1, 6))
    driver.commit()
    driver.end("x")
    driver.end("y")
    driver.commit()
    driver.ask(driver.gate.end)
    keys = [(one.tick, one.rank, one.partition, one.offset) for one in driver.granted]
    assert keys == [(5, 1, 0, 0), (5, 1, 1, 0), (5, 2, 0, 1), (5, 2, 0, 2), (6, 1, 0, 1), (7, 2, 0, 0)]


def test_the_clock_stops_at_the_watermark() -> None:
    """Highest event time less the disorder bound, exclusive: a further event may still lie exactly there."""
    driver = Driver(x=Policy(disorder=3))
    driver.feed("x", 10, 20)
    grant = driver.ask()
    assert grant is not None
    assert (grant.floor, ticks_of(grant.inputs)) == (17, [10])
    driver.feed("x", 17, first=2)
    driver.end("x")
    driver.commit()
    driver.ask(driver.gate.end)
    assert ticks_of(driver.granted) == [10, 17, 20]
    assert driver.gate.sources.counts()["late"] == 1
    assert driver.gate.sources.counts()["clamped"] == 0


def test_the_slowest_source_holds_the_clock_until_it_has_ended_durably() -> None:
    """One that is silent holds it at 0, one that ended holds it no more: as soon as the journal says so."""
    driver = Driver(x=Policy(), y=Policy())
    driver.feed("x", 10, 50)
    assert driver.ask() is None
    driver.feed("y", 20)
    assert driver.ask() == Grant(20, (Input(10, 1, 0, 0, (("a", 1),), 10),))
    driver.arrive("y", message(1, 21))
    driver.end("y")
    assert [one.ended for one in driver.appends] == [False, True]
    driver.handle(Appended(driver.appends.pop(0).ticket))
    assert driver.ask() == Grant(21, (Input(20, 2, 0, 0, (("a", 1),), 20),)), "its end is not durable yet"
    driver.commit()
    grant = driver.ask()
    assert grant is not None
    assert (grant.floor, ticks_of(grant.inputs)) == (50, [21])


def test_the_slowest_partition_holds_the_clock_of_its_source() -> None:
    """A watermark is the lowest over the partitions."""
    driver = Driver(x=Policy())
    driver.arrive("x", message(0, 10, partition=0), message(0, 10, partition=1), message(1, 90, partition=0))
    driver.commit()
    assert driver.ask() == Grant(10, ())
    driver.feed("x", 30, first=1, partition=1)
    grant = driver.ask()
    assert grant is not None
    assert grant.floor == 30


def test_the_floor_goes_no_further_than_asked_and_never_back() -> None:
    """A lower limit than before gets nothing; the floor of a journal record that lies lower neither."""
    driver = Driver(x=Policy())
    driver.feed("x", 0, 100)
    assert driver.ask(40) == Grant(40, (Input(0, 1, 0, 0, (("a", 1),), 0),))
    assert driver.ask(30) is None
    driver.handle(Passed(20))
    driver.handle(Replayed("x", 10))
    assert driver.gate.floor == 40
    assert driver.gate.next_tick == 100


def test_without_sources_the_clock_goes_as_far_as_asked() -> None:
    """A model of its own needs no lease from anybody."""
    driver = Driver()
    assert driver.ask(50) == Grant(50, ())
    assert not driver.gate.sources
    assert not driver.gate.sources.finished


# ---------------------------------------------------------------------------- reading and bounds


def test_a_batch_is_split_at_its_bound() -> None:
    """Several appends, each with the position that it reaches."""
    driver = Driver(x=Policy(batch=2))
    assert driver.reads == {"x": 2}
    appends = driver.arrive("x", *[message(n, n) for n in range(5)])
    assert [[one.offset for one in append.inputs] for append in appends] == [[0, 1], [2, 3], [4]]
    assert [append.positions for append in appends] == [{0: 1}, {0: 3}, {0: 4}]
    assert [append.ticket for append in appends] == [1, 2, 3]


def test_a_source_that_does_not_hold_the_clock_is_read_at_most_a_batch_ahead() -> None:
    """The memory of a fast source is bounded by its batch, not by its queue."""
    driver = Driver(x=Policy(batch=3, queue=100), y=Policy())
    driver.feed("x", 10, 20)
    assert driver.reads["x"] == 3, "2 of a batch of 3 are there"
    driver.feed("x", 30, 40, 50, first=2)
    assert "x" not in driver.reads
    driver.ask()
    assert "x" not in driver.reads, "it is y that holds the clock"
    driver.feed("y", 35)
    driver.ask()
    assert driver.reads["x"] == 3, "10, 20 and 30 were granted"


def test_a_source_that_holds_the_clock_is_read_until_its_queue_is_full() -> None:
    """Its next message may be what lets the clock go on; no read asks for more than there is room for."""
    driver = Driver(x=Policy(batch=3, queue=8, disorder=100))
    driver.ask()
    limits = []
    offset = 0
    while "x" in driver.reads:
        limit = driver.reads["x"]
        limits.append(limit)
        driver.feed("x", *range(offset, offset + limit), first=offset)
        offset += limit
    assert limits == [3, 3, 2]


def test_a_full_queue_that_the_clock_waits_for_is_an_error_with_both_remedies() -> None:
    """It would never empty: the message names the queue and the disorder bound."""
    driver = Driver(x=Policy(queue=2, batch=2, disorder=100))
    driver.arrive("x", message(0, 1), message(1, 2))
    assert driver.ask() is None, "a commit is under way, which may still help"
    driver.commit()
    with pytest.raises(OperatorError, match=r"its queue holds 2 and .*raise connect\(queue=...\) or lower .*disorder"):
        driver.ask()


def test_a_queue_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of long messages is not read on while 64 MiB of them wait, and is again when they are granted."""
    monkeypatch.setattr(state, "QUEUE_BYTES_MAX", 20_000)
    long = "x" * 2_500  # counted as what its characters may need at most: 4 bytes each
    driver = Driver(x=Policy(batch=10), y=Policy())
    driver.ask()
    driver.arrive("x", message(0, 1, long, "any"), message(1, 2), message(2, 3, long, "any"))
    driver.commit()
    driver.ask()
    assert "x" not in driver.reads
    driver.feed("y", 2)
    driver.ask()
    assert driver.reads["x"] > 0, "the first of the two was granted"


def test_a_full_queue_of_another_source_is_no_deadlock() -> None:
    """It waits for the slow one, which is being read."""
    driver = Driver(x=Policy(queue=2, batch=2), y=Policy())
    driver.feed("x", 1, 2)
    assert driver.ask() is None
    assert "x" not in driver.reads
    driver.feed("y", 50)
    grant = driver.ask()
    assert grant is not None
    assert (grant.floor, driver.reads["x"]) == (2, 1)


def test_a_paused_gate_reads_no_further_until_it_is_asked_again() -> None:
    """What is under way is still admitted and journaled."""
    driver = Driver(x=Policy(batch=2))
    driver.handle(Paused())
    driver.feed("x", 1, 2)
    assert driver.reads == {}
    driver.ask()
    assert driver.reads == {"x": 2}


def test_an_empty_read_is_read_again() -> None:
    """Only None ends a source."""
    driver = Driver(x=Policy())
    assert driver.arrive("x") == []
    assert driver.reads == {"x": 8_192}


def test_an_ended_source_is_not_read_and_what_comes_after_it_is_our_fault() -> None:
    """The host connects it first."""
    driver = Driver(x=Policy())
    driver.end("x")
    driver.commit()
    assert driver.gate.sources.finished
    driver.ask(5)
    assert driver.reads == {}
    with pytest.raises(InternalError, match="only from a connected source"):
        driver.arrive("x", message(0, 9))
