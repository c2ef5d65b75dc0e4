"""A source that is late as a rule is told from one that brings what had to wait; and nothing of it decides what is admitted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gate_driver import Driver, S, message

from tidewarp.connect.gate import Arrived, Asked, Policy
from tidewarp.connect.gate.lateness import Habit, Lateness

TENTH = S // 10


def heard(late: Callable[[int], int], times: int = 64, every: int = TENTH) -> Habit | None:
    """The habit of a source that was heard so many times; ``late(n)``: ticks."""
    lateness = Lateness()
    for n in range(times):
        lateness.note(n * every, late(n))
    return lateness.habit


@pytest.mark.parametrize(
    ("late", "habit"),
    [
        (lambda n: 7 * TENTH, (7 * TENTH, 7 * TENTH)),
        (lambda n: 7 * TENTH + n % 20, (7 * TENTH + 9, 7 * TENTH + 18)),
        (lambda n: 7 * TENTH if n < 63 else 3_600 * S, (7 * TENTH, 7 * TENTH)),
        (lambda n: 7 * TENTH * (n % 3 > 0), (7 * TENTH, 7 * TENTH)),
        (lambda n: 7 * TENTH * (n % 2), None),
        (lambda n: 0, None),
    ],
    ids=["always", "with jitter", "one very late", "two of three", "half of them", "never"],
)
def test_a_habit_is_what_most_slots_show(late: Callable[[int], int], habit: tuple[int, int] | None) -> None:
    """The median of those that were late, and what covers nearly all of them."""
    assert heard(late) == habit
    assert heard(late, times=63) is None, "too few to say"


@pytest.mark.parametrize("speed", [2, 5, 1_000])
def test_what_had_to_wait_is_no_habit(speed: int) -> None:
    """After an outage a broker brings an hour of messages at once: the lateness falls as it is read."""
    assert heard(lambda n: 3_600 * S - n * (speed - 1) * TENTH) is None
    assert heard(lambda n: 3_600 * S) is not None, "one whose clock is an hour behind stays there"


def test_what_comes_together_counts_once() -> None:
    """By its latest message: a repair is for all that came. A burst alone is no habit, however long it is."""
    lateness = Lateness()
    for n in range(1_000):
        lateness.note(S, n % 7)
    assert lateness.habit is None
    for n in range(1_000):
        lateness.note(S + n * 62_500_000 // 4, 5 * TENTH if n % 4 == 3 else 0)
    assert lateness.habit == (5 * TENTH, 5 * TENTH)


def hear(driver: Driver, n: int, behind: int) -> None:
    """The ``n``-th message, when virtual time stands at 10 s and as many tenths; it lies ``behind`` ticks below."""
    present = 10 * S + n * TENTH
    driver.handle(Asked(present))
    driver.reads.clear()
    driver.handle(Arrived("x", [message(n, present - behind)], now_s=n / 10, present=present))
    driver.commit()


@pytest.mark.parametrize("late", ["repair", "clamp", "drop"])
@pytest.mark.parametrize(("behind", "found"), [(S, True), (-TENTH, False)])
def test_the_gate_knows_the_habit_of_a_live_source(late: str, behind: int, found: bool) -> None:
    """Whatever becomes of its messages. By how much they lie below virtual time by the wall."""
    driver = Driver(x=Policy(time="payload", wait=False, late=late, horizon=5 * S if late == "repair" else 0))
    for n in range(70):
        hear(driver, n, behind)
    assert driver.gate.sources.habits() == ({"x": (S, S)} if found else {})
    assert driver.gate.sources.counts()["inputs"] == (0 if found and late == "drop" else 70)


def test_what_is_in_time_counts_too() -> None:
    """One message of three is late, for as long as it takes: that is no rule."""
    driver = Driver(x=Policy(time="payload", wait=False, late="clamp"))
    for n in range(200):
        hear(driver, n, S if n % 3 == 0 else 0)
    assert driver.gate.sources.counts()["clamped"] == 67
    assert driver.gate.sources.habits() == {}


@pytest.mark.parametrize("policy", [{"time": "arrival", "wait": False}, {"wait": True, "late": "clamp"}])
def test_who_cannot_be_late_or_is_waited_for_has_none(policy: dict[str, str]) -> None:
    """The first has no times, and for the other the remedy is ``disorder``."""
    driver = Driver(x=Policy(**policy))  # type: ignore[arg-type]  # of the right types
    hear(driver, 0, 0)
    for n in range(1, 70):
        hear(driver, n, 9 * S)
    assert driver.gate.sources.habits() == {}
