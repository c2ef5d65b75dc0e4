"""Which fork snapshots are kept, and which outputs wait: the two pure parts of the forked host."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.connect import Output
from tidewarp.twin import withheld
from tidewarp.twin.snapshots import SNAPSHOTS_MAX, Due, Snapshots
from tidewarp.twin.withheld import Withheld


@dataclass
class Shot:
    at: int


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=200), st.integers(0, 50_000))
def test_there_is_always_one_at_or_below_gvt_and_never_too_many(steps: list[int], horizon: int) -> None:
    """However the run advances: the newest is kept, few are, and one is old enough for every repair from the first on."""
    snapshots: Snapshots[Shot] = Snapshots()
    at = 0
    ended: list[int] = []
    for step in steps:
        at += step
        gvt = max(steps[0], at - horizon)
        ended += [shot.at for shot in snapshots.add(Shot(at), gvt)]
        kept = [shot.at for shot in snapshots]
        assert kept == sorted(kept)
        assert kept[-1] == at
        assert len(kept) <= SNAPSHOTS_MAX
        assert kept[0] <= gvt
        assert not set(kept) & set(ended)
        assert sum(tick <= gvt for tick in kept) == 1 or kept[1] > gvt


def test_they_lie_the_closer_the_nearer_they_are_to_the_present() -> None:
    """After 10,000 even steps within the horizon each gap is at most a share of its age: as on a scale of logarithms."""
    snapshots: Snapshots[Shot] = Snapshots()
    for at in range(10_000):
        snapshots.add(Shot(at), 0)
    kept = [shot.at for shot in snapshots]
    assert len(kept) == SNAPSHOTS_MAX
    assert kept[0] == 0
    assert all(after - before <= 3 * (10_000 - after) for before, after in pairwise(kept[:-1]))


def test_a_late_input_ends_the_younger_ones() -> None:
    """What stands above its tick is given back; at its tick nothing has happened yet, so that one stays."""
    snapshots: Snapshots[Shot] = Snapshots()
    for at in (10, 20, 30):
        snapshots.add(Shot(at), 0)
    assert [shot.at for shot in snapshots.drop_above(20)] == [30]
    assert [shot.at for shot in snapshots] == [10, 20]


def test_snapshots_take_a_fixed_share_of_the_time() -> None:
    """The first is due at once; the next when the run has taken fifteen times what that one cost."""
    due = Due()
    assert due.is_due
    due.taken(0.002)
    due.spend(0.029)
    assert not due.is_due
    due.spend(0.002)
    assert due.is_due


def test_where_repairs_are_frequent_snapshots_are_too() -> None:
    """One that costs 2 ms and a repair each 4 ms: the next is due after sqrt(2 * 2 * 4) = 4 ms, not after 30."""
    due = Due()
    for _ in range(10):
        due.spend(0.004)
        due.repaired()
    due.taken(0.002)
    due.spend(0.0038)
    assert not due.is_due
    due.spend(0.0008)
    assert due.is_due


def output(tick: int, n: int, size: int = 1) -> Output:
    return Output(f"{tick:016x}-{n:08x}", tick, "key", bytes(size), "", "", 0)


@given(
    ticks=st.lists(st.integers(0, 50), max_size=40).map(sorted),
    moves=st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=8),
)
def test_outputs_wait_in_order_until_gvt_passes_them(ticks: list[int], moves: list[tuple[bool, int]]) -> None:
    """As a list of them would: what leaves lies below GVT, what is made anew takes the place of what was there."""
    waiting, model = Withheld(), [output(tick, n) for n, tick in enumerate(ticks)]
    waiting.hold(model)
    for leaves, tick in moves:
        if leaves:
            assert waiting.leave(tick) == [one for one in model if one.tick < tick]
            model = [one for one in model if one.tick >= tick]
        else:
            anew = [output(tick + k, k) for k in range(3)]
            waiting.replace(f"{tick:016x}", anew)
            model = [*(one for one in model if one.tick < tick), *anew]
        assert list(waiting) == model
        assert waiting.first_tick == (model[0].tick if model else None)
        assert waiting._bytes == len(model)


@pytest.mark.parametrize(("count", "size"), [(11, 1), (4, 300)])
def test_too_many_outputs_ask_for_relief(monkeypatch: pytest.MonkeyPatch, count: int, size: int) -> None:
    """By number or by bytes: the GVT that they ask for lets the oldest half go."""
    monkeypatch.setattr(withheld, "COUNT_MAX", 10)
    monkeypatch.setattr(withheld, "BYTES_MAX", 1_000)
    waiting = Withheld()
    waiting.hold([output(tick, 0, size) for tick in range(count - 1)])
    assert waiting.relief is None
    waiting.hold([output(count - 1, 0, size)])
    assert waiting.relief == count // 2 + 1
    assert len(waiting.leave(count // 2 + 1)) == count // 2 + 1
    assert waiting.relief is None
