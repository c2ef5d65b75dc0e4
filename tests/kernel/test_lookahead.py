"""Null messages and lookaheads: promises never go back, and a cycle that could never move is refused."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from linked_models import linked, linked_models, partitions

from tidewarp.errors import RangeError, RuleViolation, ZeroLookahead
from tidewarp.kernel import Model
from tidewarp.kernel.lookahead import LookaheadConfig, NullMessageOptimizer, promises_between
from tidewarp.units import TICK_MAX
from tidewarp.worlds.phold import phold

times = st.integers(0, TICK_MAX)


@given(st.lists(times, min_size=1), times)
def test_a_null_message_never_goes_back(sent: list[int], lookahead: int) -> None:
    """Each promise is the time told and the lookahead; an earlier time than told is an error and changes nothing."""
    config = LookaheadConfig(0, lookahead)
    told = 0
    for now in sent:
        if now < told:
            with pytest.raises(ValueError, match="may not go back"):
                config.send_null_message(now)
        else:
            assert config.send_null_message(now) == min(now + lookahead, TICK_MAX)
            told = now
        assert config.last_null_message_ns == told


def test_the_bound_is_inclusive_for_the_clock() -> None:
    """A clock may stand at the bound; one nanosecond later something could still arrive behind it."""
    config = LookaheadConfig(3, lookahead_ns=1000)
    assert config.can_advance_to(1000)
    assert not config.can_advance_to(1001)
    assert config.send_null_message(500) == 1500
    assert config.can_advance_to(1500)


def test_the_bound_is_exclusive_for_events() -> None:
    """An event at the very bound waits: with key order something at that time could still come before it."""
    model = linked(2, {(0, 1): 5}, tokens=1)
    promises = promises_between(model, [0, 1])
    assert promises.safe_advance_time(1) == 5
    promises.broadcast_null(0, 10)
    assert promises.safe_advance_time(1) == 15


def test_a_node_waits_for_the_least_promise_of_the_others() -> None:
    """Its own promise does not count; the default lookahead holds for all pairs."""
    nodes = NullMessageOptimizer(3)
    assert [nodes.configs[node].lookahead_ns for node in range(3)] == [1000] * 3
    nodes.broadcast_null(0, 70)
    nodes.broadcast_null(1, 200)
    assert [nodes.safe_advance_time(node) for node in range(3)] == [1000, 1000, 1070]
    assert nodes.broadcast_null(2, 4000) == 5000
    assert nodes.safe_advance_time(0) == 1200


def test_a_pair_may_have_a_lookahead_of_its_own_or_no_channel() -> None:
    """Nobody waits for a node that never sends to it; a node that nobody sends to waits for nothing."""
    nodes = NullMessageOptimizer(3, default_lookahead_ns=10)
    nodes.set_lookahead(0, 2, 3)
    nodes.set_lookahead(1, 2, None)
    assert nodes.safe_advance_time(2) == 3
    nodes.set_lookahead(0, 2, None)
    assert nodes.safe_advance_time(2) == TICK_MAX
    assert NullMessageOptimizer(1).safe_advance_time(0) == TICK_MAX
    assert nodes.broadcast_null(0, 5) == 15


def test_promises_end_at_the_last_time() -> None:
    """No bound lies beyond int64."""
    nodes = NullMessageOptimizer(2, default_lookahead_ns=TICK_MAX)
    assert nodes.broadcast_null(0, TICK_MAX) == TICK_MAX
    assert nodes.safe_advance_time(1) == TICK_MAX


@pytest.mark.parametrize("bad", [True, 1.0, -1, 2**63, "1"])
def test_times_are_whole_nanoseconds(bad: int) -> None:
    """Bool, float, negative and over-large values raise ValueError with value and rule."""
    nodes = NullMessageOptimizer(2)
    for attempt in (
        lambda: LookaheadConfig(0, bad),
        lambda: LookaheadConfig(0, 1, bad),
        lambda: LookaheadConfig(0).can_advance_to(bad),
        lambda: LookaheadConfig(0).send_null_message(bad),
        lambda: NullMessageOptimizer(2, bad),
        lambda: nodes.set_lookahead(0, 1, bad),
        lambda: nodes.broadcast_null(0, bad),
    ):
        with pytest.raises(RangeError, match="whole number") as caught:
            attempt()
        assert isinstance(caught.value, ValueError)
        assert repr(bad) in str(caught.value)


def test_nodes_are_checked() -> None:
    """A node that does not exist, and a channel to oneself, are errors."""
    nodes = NullMessageOptimizer(2)
    for attempt in (
        lambda: nodes.safe_advance_time(2),
        lambda: nodes.broadcast_null(-1, 0),
        lambda: nodes.set_lookahead(0, 2, 1),
        lambda: nodes.set_lookahead(1, 1, 1),
    ):
        with pytest.raises(RuleViolation):
            attempt()
    with pytest.raises(RangeError):
        NullMessageOptimizer(0)


def test_require_progress_names_the_cycle() -> None:
    """Lookaheads that add up to 0 along a cycle could never let a node go on."""
    nodes = NullMessageOptimizer(4, default_lookahead_ns=7)
    nodes.require_progress()
    for src, dst in ((1, 2), (2, 3), (3, 1), (0, 1)):
        nodes.set_lookahead(src, dst, 0)
    with pytest.raises(ZeroLookahead) as caught:
        nodes.require_progress()
    assert caught.value.value == "node 1 -> node 2 -> node 3 -> node 1"
    nodes.set_lookahead(3, 1, 1)
    nodes.require_progress()
    assert nodes.zero_cycle() == []


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(lambda pair: pair[0] != pair[1])))
def test_a_zero_cycle_is_found_wherever_there_is_one(zeros: set[tuple[int, int]]) -> None:
    """Compared with the closure of all channels of lookahead 0."""
    nodes = NullMessageOptimizer(5, default_lookahead_ns=1)
    for src, dst in zeros:
        nodes.set_lookahead(src, dst, 0)
    reach = set(zeros)
    for _ in range(5):
        reach |= {(a, d) for a, b in reach for c, d in reach if b == c}
    cycle = nodes.zero_cycle()
    assert bool(cycle) == any((node, node) in reach for node in range(5))
    assert all(pair in zeros for pair in zip([*cycle[-1:], *cycle], cycle, strict=False))
    assert len(set(cycle)) == len(cycle)


@given(data=st.data(), model=linked_models())
def test_pes_promise_the_least_lookahead_of_what_crosses(data: st.DataObject, model: Model) -> None:
    """Per pair of PEs: the least over the links from one to the other; no link, no channel."""
    model.freeze()
    pe_of = data.draw(partitions(model.n_lps))
    ahead = model.tables["ahead"].reshape(8, 8)
    try:
        promises = promises_between(model, pe_of)
    except ZeroLookahead:
        assume(False)
    for src in range(promises.num_nodes):
        for dst in range(promises.num_nodes):
            if src == dst:
                continue
            crossing = [
                int(ahead[a, b])
                for a in range(model.n_lps)
                for b in range(model.n_lps)
                if (pe_of[a], pe_of[b]) == (src, dst) and (model.links is None or is_linked(model, a, b))
            ]
            assert promises.lookahead(src, dst) == min(crossing, default=None)


def is_linked(model: Model, src: int, dst: int) -> bool:
    """Whether a link was declared."""
    assert model.links is not None
    return dst in model.links.dst[model.links.first[src] : model.links.first[src + 1]]


def test_without_links_every_pair_has_the_models_lookahead() -> None:
    """And a model without lookahead is refused on two PEs, but not on one."""
    promises = promises_between(phold(lps=4), [0, 0, 1, 2])
    assert {promises.lookahead(a, b) for a in range(3) for b in range(3) if a != b} == {phold().lookahead}
    with pytest.raises(ZeroLookahead, match="PEs 0, 1 wait for each other"):
        promises_between(phold(lps=4, lookahead=0), [0, 0, 1, 1])
    promises_between(phold(lps=4, lookahead=0), [0, 0, 0, 0])
