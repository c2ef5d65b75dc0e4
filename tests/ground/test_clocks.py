"""The order of events, pacing as arithmetic, and the two clocks that a host can be handed."""

from __future__ import annotations

import ast
import math
import queue
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidewarp.clocks
from tidewarp.clocks import Clock, EventKey, Pacer, WallClock, input_key
from tidewarp.errors import InternalError, OperatorError, PeerError
from tidewarp.testing import ManualClock
from tidewarp.units import TICK_MAX

POSITION = st.tuples(
    st.integers(-TICK_MAX - 1, TICK_MAX),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**48 - 1),
)
FACTORS = st.floats(1e-3, 1e3)
WALLS = st.floats(0.0, 1e6)
WEEK_S = 604_800.0

# --- key ------------------------------------------------------------------------------------------


def test_keys_compare_field_by_field():
    """Time, generation, destination, source, count: in this order, and an earlier field decides."""
    rising = [
        EventKey(1, 9, 9, 9, 9),
        EventKey(2, 0, 9, 9, 9),
        EventKey(2, 1, 0, 9, 9),
        EventKey(2, 1, 1, -5, 9),
        EventKey(2, 1, 1, 0, 0),
        EventKey(2, 1, 1, 0, 1),
    ]
    assert sorted(rising[i] for i in (3, 0, 5, 1, 4, 2)) == rising
    assert EventKey._fields == ("time", "generation", "dst", "src", "src_seq")


def test_an_input_key_is_the_written_form():
    """src = rank - 2**31, src_seq = partition << 48 | offset, generation 0."""
    assert input_key(5, 1, 2, 3) == EventKey(5, 0, 0, 1 - 2**31, (2 << 48) + 3)
    assert input_key(5, 0, 0, 0, dst=7) == EventKey(5, 0, 7, -(2**31), 0)
    assert input_key(TICK_MAX, 2**31 - 1, 2**16 - 1, 2**48 - 1) == EventKey(TICK_MAX, 0, 0, -1, 2**64 - 1)
    assert input_key(-TICK_MAX - 1, 0, 0, 0).time == -(2**63)


@given(st.lists(POSITION, max_size=20))
def test_inputs_sort_by_tick_rank_partition_and_offset(positions):
    """The key keeps the order of positions and tells any two apart: arrival is not in it."""
    assert sorted(positions, key=lambda position: input_key(*position)) == sorted(positions)
    assert len({input_key(*position) for position in positions}) == len(set(positions))


@given(POSITION, st.integers(0, 2**40), st.integers(0, 2**64 - 1))
def test_an_input_precedes_what_an_lp_sends(position, lp, seq):
    """At one tick and destination every external source is below every LP."""
    assert input_key(*position) < EventKey(position[0], 0, 0, lp, seq)


@pytest.mark.parametrize(
    ("position", "error"),
    [
        ((0, 1, -1, 0), PeerError),
        ((0, 1, 2**16, 0), PeerError),
        ((0, 1, 0, -1), PeerError),
        ((0, 1, 0, 2**48), PeerError),
        ((0, -1, 0, 0), InternalError),
        ((0, 2**31, 0, 0), InternalError),
        ((2**63, 1, 0, 0), InternalError),
        ((-(2**63) - 1, 1, 0, 0), InternalError),
    ],
)
def test_a_position_that_does_not_fit_is_refused(position, error):
    """A number too large would run into its neighbour field and silently change the order."""
    with pytest.raises(error):
        input_key(*position)


# --- pacing ---------------------------------------------------------------------------------------


NO_FACTORS = [-1.0, -1e-300, math.nan, math.inf, -math.inf, "1", b"1", None, True, 1j, [1], 10**400, 10**5000]


@pytest.mark.parametrize("factor", NO_FACTORS, ids=range(len(NO_FACTORS)))
def test_a_bad_factor_is_refused(factor):
    """Construction and change both refuse, and a refused change leaves the pacer as it was."""
    with pytest.raises(OperatorError, match="factor"):
        Pacer(factor)
    pacer = Pacer(2.0)
    pacer.start(0.0, 0.0)
    with pytest.raises(OperatorError, match="factor"):
        pacer.set_factor(factor, 1.0)
    assert (pacer.factor, pacer.deadline(3.0)) == (2.0, 6.0)


def test_on_time_at_factor_2_is_no_lag():
    """Predecessor's fault 9: 2 s were reported for a simulation that was on time at factor 2."""
    pacer = Pacer(2.0)
    pacer.start(1000.0, 0.0)
    assert pacer.lag(1004.0, 2.0) == 0.0


def test_being_late_at_factor_a_tenth_is_seen():
    """Predecessor's fault 9: 0 was reported for a simulation that was 1.06 s late at factor 0.1."""
    pacer = Pacer(0.1)
    pacer.start(1000.0, 0.0)
    assert pacer.lag(1002.06, 10.0) == pytest.approx(1.06)


@pytest.mark.parametrize("start_s", [-WEEK_S, 0.0, WEEK_S])
@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0, 2.0])
def test_the_start_time_is_not_lag(start_s, factor):
    """Predecessor's fault 9: an epoch a week ago was reported as 604,800 s of lag."""
    pacer = Pacer(factor)
    pacer.start(50.0, start_s)
    assert pacer.lag(50.0, start_s) == 0.0
    assert pacer.lag(51.0, start_s) == (1.0 if factor else 0.0)


@given(FACTORS, WALLS, st.floats(-1e6, 1e6), st.floats(0.0, 1e4))
def test_virtual_and_deadline_are_inverse(factor, wall_s, virtual_s, later_s):
    """A virtual time is reached at its deadline, and there its lag is 0."""
    pacer = Pacer(factor)
    pacer.start(wall_s, virtual_s)
    due_s = pacer.deadline(virtual_s + later_s)
    assert pacer.virtual(due_s) == pytest.approx(virtual_s + later_s, abs=1e-5)
    assert pacer.lag(due_s, virtual_s + later_s) == pytest.approx(0.0, abs=1e-6)
    assert pacer.lag(due_s + 3.0, virtual_s + later_s) == pytest.approx(3.0, abs=1e-6)


def test_ahead_is_not_negative_lag():
    """A simulation ahead of the wall waits; it is not early by a negative lag."""
    pacer = Pacer(1.0)
    pacer.start(0.0, 0.0)
    assert pacer.lag(5.0, 9.0) == 0.0


def test_full_speed_knows_no_deadline():
    """At factor 0 everything is due, nothing is late, and the wall bounds nothing."""
    pacer = Pacer(0)
    pacer.start(100.0, 0.0)
    assert (pacer.virtual(1e9), pacer.deadline(1e9), pacer.lag(1e9, 0.0)) == (math.inf, -math.inf, 0.0)


@given(FACTORS, FACTORS, WALLS, st.floats(0.0, 1e4), st.floats(0.0, 1e3))
def test_a_new_factor_does_not_make_time_jump(old, new, wall_s, run_s, more_s):
    """Virtual time is the same before and after, what is due now stays due now, and then the new rate counts."""
    pacer = Pacer(old)
    pacer.start(wall_s, 7.0)
    now_s = wall_s + run_s
    before = pacer.virtual(now_s)
    pacer.set_factor(new, now_s)
    assert pacer.virtual(now_s) == before
    assert pacer.deadline(before) == now_s
    assert pacer.lag(now_s, before) == 0.0
    assert pacer.deadline(before + more_s) == pytest.approx(now_s + new * more_s)


def test_what_is_behind_stays_behind_at_a_new_factor():
    """Three virtual seconds behind are three after the change, counted in wall seconds of the new factor."""
    pacer = Pacer(1.0)
    pacer.start(0.0, 0.0)
    assert pacer.lag(10.0, 7.0) == 3.0
    pacer.set_factor(2.0, 10.0)
    assert pacer.lag(10.0, 7.0) == 6.0


def test_full_speed_goes_live_where_the_simulation_stands():
    """Leaving factor 0 needs the simulation's time, and from there on runs at the new rate without lag."""
    pacer = Pacer(0.0)
    pacer.start(100.0, 0.0)
    with pytest.raises(OperatorError, match="virtual_s"):
        pacer.set_factor(1.0, 130.0)
    assert pacer.factor == 0.0
    pacer.set_factor(1.0, 130.0, virtual_s=5000.0)
    assert pacer.lag(130.0, 5000.0) == 0.0
    assert pacer.deadline(5002.0) == 132.0
    pacer.set_factor(0.0, 131.0)
    pacer.set_factor(0.0, 132.0)
    assert pacer.deadline(1e12) == -math.inf


def test_a_given_time_forgives_what_was_behind():
    """With ``virtual_s`` the new anchor is there, whatever the old pace said."""
    pacer = Pacer(1.0)
    pacer.start(0.0, 0.0)
    pacer.set_factor(1.0, 10.0, virtual_s=7.0)
    assert pacer.lag(10.0, 7.0) == 0.0
    assert pacer.deadline(8.0) == 11.0


@given(FACTORS, WALLS, st.floats(0.0, 100.0), st.floats(0.0, 1e5), st.floats(0.0, 100.0))
def test_a_pause_moves_every_deadline_by_its_length(factor, wall_s, run_s, pause_s, virtual_s):
    """While paused nothing is due and nothing gets later; after it, lag is what it was."""
    pacer = Pacer(factor)
    pacer.start(wall_s, 0.0)
    at_s = wall_s + run_s
    lag_s, reached_s, due_s = pacer.lag(at_s, 1.0), pacer.virtual(at_s), pacer.deadline(virtual_s)
    pacer.pause(at_s)
    pacer.pause(at_s + pause_s / 2)
    assert pacer.paused
    assert pacer.deadline(virtual_s) == math.inf
    assert (pacer.lag(at_s + pause_s, 1.0), pacer.virtual(at_s + pause_s)) == (lag_s, reached_s)
    pacer.resume(at_s + pause_s)
    assert not pacer.paused
    assert pacer.lag(at_s + pause_s, 1.0) == pytest.approx(lag_s, abs=1e-6)
    assert pacer.virtual(at_s + pause_s) == pytest.approx(reached_s, abs=1e-5)
    assert pacer.deadline(virtual_s) == pytest.approx(due_s + pause_s, abs=1e-6)


def test_resume_without_pause_changes_nothing():
    """A second resume does not move the anchor."""
    pacer = Pacer(1.0)
    pacer.start(10.0, 0.0)
    pacer.resume(99.0)
    assert pacer.deadline(5.0) == 15.0


def test_the_factor_can_change_in_a_pause():
    """Virtual time stands still through it and goes on at the new rate."""
    pacer = Pacer(1.0)
    pacer.start(0.0, 0.0)
    pacer.pause(10.0)
    pacer.set_factor(2.0, 50.0)
    assert pacer.paused
    assert pacer.virtual(60.0) == 10.0
    pacer.resume(100.0)
    assert pacer.virtual(100.0) == 10.0
    assert pacer.deadline(11.0) == 102.0


def test_a_pause_holds_full_speed_too():
    """At factor 0 nothing is due in a pause; afterwards everything is again."""
    pacer = Pacer(0.0)
    pacer.start(0.0, 0.0)
    pacer.pause(1.0)
    assert pacer.deadline(0.0) == math.inf
    pacer.resume(2.0)
    assert pacer.deadline(1e9) == -math.inf


def test_nothing_is_due_before_the_start():
    """An unstarted pacer stands still; starting sets both anchors and ends any pause."""
    pacer = Pacer(1.0)
    assert pacer.paused
    assert (pacer.virtual(1e6), pacer.deadline(0.0), pacer.lag(1e6, 0.0)) == (0.0, math.inf, 0.0)
    pacer.start(5.0, 1.0)
    assert not pacer.paused
    assert pacer.deadline(2.0) == 6.0


# --- clocks of hosts ------------------------------------------------------------------------------


class RecordingInbox(queue.SimpleQueue):
    """Empty; remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[float | None] = []

    def get(self, block: bool = True, timeout: float | None = None) -> str:
        self.asked.append(timeout)
        if timeout is None:
            return "came at last"
        raise queue.Empty


@pytest.fixture(params=[WallClock, ManualClock])
def clock(request) -> Clock:
    """Either clock: both keep the same protocol."""
    return request.param()


@pytest.mark.parametrize("timeout_s", [None, 0.0, -1.0, 1e6, math.inf])
def test_a_queued_item_comes_at_once(clock, timeout_s):
    """Whatever the timeout, what is there is returned, oldest first, and costs no time on a manual clock."""
    inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
    inbox.put("first")
    inbox.put("second")
    before_s = clock.now()
    assert [clock.wait(inbox, timeout_s), clock.wait(inbox, timeout_s)] == ["first", "second"]
    assert clock.now() - before_s < 1e5


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_a_timeout_of_nothing_does_not_wait(clock, timeout_s):
    """A deadline that has passed only looks, and never moves time back."""
    before_s = clock.now()
    assert clock.wait(queue.SimpleQueue(), timeout_s) is None
    assert clock.now() >= before_s


def test_the_wall_clock_reads_the_host():
    """Monotonic seconds, between two readings of the host's own."""
    before_s = time.monotonic()
    assert before_s <= WallClock().now() <= time.monotonic()


@pytest.mark.parametrize(
    ("timeout_s", "asked"), [(0.25, 0.25), (-3.0, 0.0), (None, None), (math.inf, None), (threading.TIMEOUT_MAX, None)]
)
def test_the_wall_clock_waits_as_long_as_it_is_told(timeout_s, asked):
    """The timeout reaches the queue; none, infinity and more than the host can count block until an item comes."""
    inbox = RecordingInbox()
    assert WallClock().wait(inbox, timeout_s) == (None if asked is not None else "came at last")
    assert inbox.asked == [asked]


def test_the_manual_clock_jumps_to_the_deadline():
    """Waiting takes no time of the host; the calendar moves with the seconds."""
    clock = ManualClock(start_s=100.0, unix_ns=5)
    assert (clock.now(), clock.unix_ns()) == (100.0, 5)
    assert clock.wait(queue.SimpleQueue(), 604_800.5) is None
    assert (clock.now(), clock.unix_ns()) == (604_900.5, 604_800_500_000_005)
    clock.advance(0.5)
    assert (clock.now(), clock.unix_ns()) == (604_901.0, 604_801_000_000_005)


@pytest.mark.parametrize("timeout_s", [None, math.inf])
def test_the_manual_clock_blocks_for_an_item_without_a_timeout(timeout_s):
    """With no deadline to jump to it waits for the item, and time stands."""
    clock = ManualClock(start_s=3.0)
    inbox = RecordingInbox()
    assert clock.wait(inbox, timeout_s) == "came at last"
    assert (inbox.asked, clock.now()) == ([None], 3.0)


@pytest.mark.parametrize("s", [-1e-9, math.nan])
def test_the_manual_clock_never_goes_back(s):
    """It keeps the promise of ``now``."""
    with pytest.raises(OperatorError):
        ManualClock().advance(s)


# --- the ring -------------------------------------------------------------------------------------


def imported(path: Path) -> set[str]:
    """Top names that a module imports when it runs: what stands under TYPE_CHECKING is not among them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_only_the_wall_module_knows_host_time_and_threads():
    """The rest of the layer computes: no clock, queue, thread, randomness or socket."""
    folder = Path(tidewarp.clocks.__file__).parent
    host = {"time", "datetime", "queue", "threading", "asyncio", "random", "socket", "selectors", "os", "sys"}
    found = {path.name: imported(path) & host for path in sorted(folder.glob("*.py"))}
    assert found.pop("wall.py") == {"queue", "threading", "time"}
    assert {name for name, forbidden in found.items() if forbidden} == set()
