"""The gate takes over from its journal: floors, ranks, and a source that has grown after its end."""

from __future__ import annotations

import pytest
from gate_driver import Driver, Plain, S, message, rule, ticks_of

from tidewarp.connect.contract import Input
from tidewarp.connect.gate import Append, Arrived, Connected, Gate, Passed, Policy, Replayed
from tidewarp.errors import InternalError, OperatorError


def test_the_floors_of_the_journal_take_the_place_of_the_watermarks() -> None:
    """Each record grants what lies below its floor, with all that came before it."""
    driver = Driver(x=Policy())
    one, two, three = [Input(tick, 1, 0, n, (("a", 1),), tick) for n, tick in enumerate((10, 20, 30))]
    driver.handle(Replayed("x", 0, [two, one]))
    assert driver.granted == []
    driver.handle(Replayed("x", 15, [three]))
    assert driver.granted == [one]
    driver.handle(Passed(25))
    assert driver.granted == [one, two]
    assert (driver.gate.floor, driver.gate.next_tick, driver.gate.end) == (25, 30, 31)


def test_a_record_below_the_floor_is_our_fault() -> None:
    """No journal of ours holds one."""
    driver = Driver(x=Policy())
    driver.handle(Passed(25))
    with pytest.raises(InternalError, match="the floor was 25"):
        driver.handle(Replayed("x", 25, [Input(24, 1, 0, 0, (("a", 1),), 24)]))


def test_names_are_unique_and_ranks_follow_the_order_of_connect() -> None:
    """Rank 0 is for the program itself; a source of the journal that the model lacks is the operator's affair."""
    gate = Gate(rule)
    assert [gate.sources.register(name, Policy()) for name in ("x", "y")] == [1, 2]
    assert (gate.sources.rank("y"), gate.positions("y")) == (2, {})
    with pytest.raises(OperatorError, match="a name of its own"):
        gate.sources.register("x", Policy())
    with pytest.raises(OperatorError, match="the model does not connect it"):
        gate.sources.rank("z")


@pytest.mark.parametrize(("other", "reached"), [(None, 100 * S + 1), (60 * S, 60 * S)])
def test_a_source_that_has_grown_after_its_end_brings_nothing_below_what_the_clock_may_have_passed(
    other: int | None, reached: int
) -> None:
    """A killed life may have let outputs leave up to where the durable end allowed it; the journal's floor is older."""
    gate = Gate(rule)
    gate.sources.register("x", Policy(disorder=90 * S, late="clamp"))
    inputs = (Input(0, 1, 0, 0, (("a", 1),), 0), Input(100 * S, 1, 0, 1, (("a", 2),), 100 * S))
    gate.handle(Replayed("x", 0, inputs))
    if other is not None:
        gate.sources.register("y", Policy())
        gate.handle(Replayed("y", 0, (Input(other, 2, 0, 0, (("a", 1),), other),)))
    gate.handle(Replayed("x", 0, ended=True))
    gate.reopen("x")
    gate.handle(Connected("x", Plain()))
    (append,) = [one for one in gate.handle(Arrived("x", [message(2, 50 * S)])) if isinstance(one, Append)]
    assert (gate.floor, ticks_of(append.inputs), gate.sources.counts()["clamped"]) == (0, [reached], 1)
