"""Logical clocks: Lamport's law, vector clocks against the true causal order, and stamps near wall time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.clocks.logical import HybridClock, HybridTime, LamportClock, VectorClock, checked_int
from tidewarp.errors import RangeError
from tidewarp.units import TICK_MAX

NODES = 4
HISTORY = st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=40)


def clock_of(counts, node=0):
    clock = VectorClock(node, len(counts))
    clock.clock[:] = counts
    return clock


# --- Lamport --------------------------------------------------------------------------------------


def test_a_lamport_clock_counts_ticks_sends_and_receipts():
    """A local event and a send add one; a receipt is one above both clocks."""
    clock = LamportClock()
    assert (clock.time, clock.tick(), clock.send(), clock.receive(7), clock.receive(3)) == (0, 1, 2, 8, 9)
    assert clock.time == 9


@given(st.lists(st.one_of(st.just("tick"), st.just("send"), st.integers(0, 10**9))))
def test_a_lamport_clock_never_decreases(calls):
    """Every call returns a greater stamp than all before, and than the stamp received."""
    clock = LamportClock()
    last = 0
    for call in calls:
        stamp = clock.receive(call) if isinstance(call, int) else getattr(clock, call)()
        assert stamp == clock.time > last
        assert not isinstance(call, int) or stamp > call
        last = stamp


# --- vector clocks --------------------------------------------------------------------------------


def test_a_vector_clock_counts_at_its_own_place():
    """int64 zeros first; tick and send add one there and return copies."""
    clock = VectorClock(1, 3)
    assert clock.clock.dtype == np.int64
    sent = clock.send()
    assert sent.tolist() == [0, 1, 0]
    assert clock.tick().tolist() == [0, 2, 0]
    assert sent.tolist() == [0, 1, 0]


def test_receive_merges_in_place():
    """The array of counts stays the same object: no copy per receipt but the one returned."""
    clock = VectorClock(1, 3)
    counts = clock.clock
    returned = clock.receive(np.array([5, 0, 2]))
    assert clock.clock is counts
    assert returned.tolist() == counts.tolist() == [5, 1, 2]
    assert returned is not counts


def test_equal_clocks_are_neither_before_nor_concurrent():
    """They are one point in time."""
    a, b = clock_of([1, 2]), clock_of([1, 2])
    assert not a.happened_before(b)
    assert not a.concurrent_with(b)
    assert not a.concurrent_with(np.array([1, 2]))


def test_other_may_be_a_clock_or_an_array():
    """Both forms of one clock are compared alike."""
    a = clock_of([1, 2])
    for later in (clock_of([1, 3]), np.array([1, 3]), [1, 3]):
        assert a.happened_before(later)
        assert not a.concurrent_with(later)
    for aside in (clock_of([2, 1]), np.array([2, 1])):
        assert a.concurrent_with(aside)
        assert not a.happened_before(aside)


@given(HISTORY)
def test_vector_clocks_know_the_causal_order(history):
    """Each (src, dst) is a message sent and received at once: one event is before another exactly if a path leads there."""
    clocks = [VectorClock(node, NODES) for node in range(NODES)]
    stamps, reaches, latest = [], [], [frozenset()] * NODES
    for src, dst in history:
        for node, stamp, extra in (
            (src, clocks[src].send(), frozenset()),
            (dst, None, None),
        ):
            if stamp is None:
                stamp, extra = clocks[dst].receive(stamps[-1]), reaches[-1]
            reaches.append(latest[node] | extra | {len(stamps)})
            stamps.append(stamp)
            latest[node] = reaches[-1]
    for i, a in enumerate(stamps):
        for j, b in enumerate(stamps):
            before = i != j and i in reaches[j]
            after = i != j and j in reaches[i]
            assert clock_of(a).happened_before(b) == before
            assert clock_of(a).concurrent_with(b) == (i != j and not before and not after)


@pytest.mark.parametrize(
    "other", [np.array([1]), np.array([1, 2, 3]), np.array([1.0, 2.0]), [[1, 2]], np.array([-1, 0])]
)
def test_another_shape_or_kind_is_refused(other):
    """Counts of other nodes cannot be compared with these."""
    clock = VectorClock(0, 2)
    for method in (clock.happened_before, clock.concurrent_with, clock.receive):
        with pytest.raises(RangeError):
            method(other)
    assert clock.clock.tolist() == [0, 0]


# --- hybrid ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 100)), max_size=40))
def test_hybrid_stamps_rise_along_causes_and_stay_near_the_wall(history):
    """A receipt is above the send; no stamp's wall part is ahead of the furthest wall clock seen."""
    clocks = [HybridClock() for _ in range(3)]
    walls = [0, 0, 0]
    for src, dst, step in history:
        walls[src] += step
        before = clocks[dst].last
        sent = clocks[src].tick(walls[src])
        received = clocks[dst].receive(walls[dst], sent)
        assert received > sent
        assert received > before
        assert walls[dst] <= received.wall_ns <= max(walls)


def test_a_hybrid_clock_follows_the_wall_and_counts_when_it_stands():
    """A later wall time starts the count anew; a standing or falling one raises it."""
    clock = HybridClock()
    assert [clock.tick(5), clock.tick(5), clock.tick(3), clock.tick(6)] == [(5, 0), (5, 1), (5, 2), (6, 0)]
    assert clock.receive(6, HybridTime(9, 4)) == (9, 5)


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [True, np.True_, 1.0, np.float64(1.0), -1, TICK_MAX + 1, "1", None])
def test_only_whole_numbers_in_range_are_times(value):
    """bool, float, negative and over-large values are ValueErrors that show value and rule."""
    with pytest.raises(ValueError, match=r"0 to 9223372036854775807") as caught:
        checked_int("virtual_time_ns", value)
    assert repr(value) in str(caught.value)
    with pytest.raises(ValueError, match="remote_time"):
        LamportClock().receive(value)


def test_numpy_integers_are_whole_numbers():
    """They come out of every array; what is kept is an int."""
    assert type(checked_int("x", np.int32(5))) is int
    assert LamportClock().receive(np.uint64(4)) == 5


@pytest.mark.parametrize(("node", "nodes"), [(0, 0), (2, 2), (-1, 2), (True, 2), (0, 1.0)])
def test_a_vector_clock_has_a_node_of_its_own(node, nodes):
    """The number of nodes is at least 1 and the own one is among them."""
    with pytest.raises(RangeError):
        VectorClock(node, nodes)
