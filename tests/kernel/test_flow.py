"""Backpressure: when events are shed, and when they are taken again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.errors import RangeError
from tidewarp.kernel.flow import BackpressureController


def test_what_is_offered_to_a_full_queue_is_shed_and_counted():
    """The depth is compared with the maximum; all offers and all sheds are counted."""
    control = BackpressureController(3)
    assert [control.should_accept(depth) for depth in (0, 2, 3, 4)] == [True, True, False, False]
    assert (control.total_offered, control.rejected_count, control.rejection_rate) == (4, 2, 0.5)
    assert control.is_backpressured


def test_pressure_stays_until_half_is_drained_for_the_cooldown():
    """Above half the clock of the cooldown starts anew."""
    control = BackpressureController(10, cooldown_ns=100)
    assert not control.should_accept(10, now_ns=0)
    assert not control.should_accept(6, now_ns=500)
    assert not control.should_accept(5, now_ns=1000)
    assert not control.should_accept(6, now_ns=1050)
    assert not control.should_accept(5, now_ns=1060)
    assert not control.should_accept(5, now_ns=1159)
    assert control.should_accept(5, now_ns=1160)
    assert not control.is_backpressured


def test_pressure_ends_when_the_queue_is_empty_or_nobody_knows_the_time():
    """Virtual time stands still in an empty queue, so a cooldown could latch for ever."""
    control = BackpressureController(10, cooldown_ns=100)
    assert not control.should_accept(10, now_ns=7)
    assert control.should_accept(0, now_ns=7)
    assert not control.should_accept(10)
    assert control.should_accept(5)


def test_the_rate_is_that_of_the_last_thousand_offers():
    """Sheds of long ago do not count for ever, as they do in a ratio over all offers."""
    control = BackpressureController(1)
    for _ in range(500):
        assert not control.should_accept(1)
    for _ in range(1000):
        assert control.should_accept(0)
    assert control.rejection_rate == 0.0
    assert control.rejected_count / control.total_offered > 0.1  # what is published: pressed, with an empty queue
    assert not control.is_backpressured


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 60)), max_size=60))
def test_a_controller_agrees_with_its_rule(offers):
    """Against the rule written out: pressed from 8 on, until at most 4 for 100 ns, or empty."""
    control = BackpressureController(8, 100)
    now, pressed, calm = 0, False, None
    for depth, step in offers:
        now += step
        if depth >= 8:
            pressed, calm = True, None
        elif pressed and depth > 4:
            calm = None
        elif pressed:
            calm = now if calm is None else calm
            pressed = depth > 0 and now - calm < 100
        assert control.should_accept(depth, now_ns=now) == (not pressed)
        assert control.is_backpressured == pressed


@pytest.mark.parametrize("bad", [-1, 1.0, True])
def test_depths_and_times_are_whole_numbers(bad):
    """Each argument is checked."""
    for make in (
        lambda: BackpressureController(bad),
        lambda: BackpressureController(cooldown_ns=bad) if bad is not True else BackpressureController(True),
        lambda: BackpressureController().should_accept(bad),
        lambda: BackpressureController().should_accept(0, now_ns=bad),
    ):
        with pytest.raises(RangeError):
            make()
