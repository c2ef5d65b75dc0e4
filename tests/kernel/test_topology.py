"""Ranks, their hosts and their neurons."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.errors import RuleViolation
from tidewarp.kernel.topology import MPIRankMapping, MPITopology


def topology(*ranges: tuple[int, int], host: str = "") -> MPITopology:
    """Ranks 0, 1 … with these neurons."""
    made = MPITopology()
    for rank, span in enumerate(ranges):
        made.add_rank(MPIRankMapping(rank, host, neuron_range=span))
    return made


def test_a_mapping_counts_its_neurons() -> None:
    """A range ends before its end; no GPU is -1."""
    mapping = MPIRankMapping(2, "a", gpu_id=1, numa_node=0, neuron_range=(10, 25))
    assert mapping.neuron_count == 15
    assert MPIRankMapping(0) == MPIRankMapping(0, "", -1, 0, (0, 0))
    assert MPIRankMapping(0).neuron_count == 0


@pytest.mark.parametrize("span", [(5, 4), (-1, 3), (0.0, 1), (0, True)])
def test_a_reversed_range_is_refused(span: tuple[int, int]) -> None:
    """A range goes up, from 0 or above, in whole numbers."""
    with pytest.raises(RuleViolation, match="rank 1") as caught:
        MPIRankMapping(1, neuron_range=span)
    assert isinstance(caught.value, ValueError)
    assert str(span[0]) in str(caught.value)


@pytest.mark.parametrize("rank", [-1, True, "0"])
def test_a_rank_is_a_whole_number(rank: int) -> None:
    """From 0."""
    with pytest.raises(RuleViolation, match=repr(rank)):
        MPIRankMapping(rank)


def test_overlapping_ranges_are_refused_and_named() -> None:
    """Each neuron has one rank; the error names both."""
    made = topology((0, 10), (20, 30))
    for span in ((5, 6), (9, 20), (0, 40), (29, 31), (0, 10)):
        with pytest.raises(RuleViolation, match=r"rank 7 .* and rank [01] "):
            made.add_rank(MPIRankMapping(7, neuron_range=span))
    made.add_rank(MPIRankMapping(7, neuron_range=(10, 20)))
    assert made.total_neurons == 30
    assert made.num_ranks == 3


def test_a_rank_twice_is_refused() -> None:
    """Both mappings are named."""
    with pytest.raises(RuleViolation, match=r"rank 0 \(neurons 50 to 59\) and rank 0 \(neurons 0 to 9\)"):
        topology((0, 10)).add_rank(MPIRankMapping(0, neuron_range=(50, 60)))


def test_ranks_without_neurons_overlap_nobody() -> None:
    """A rank that only serves."""
    made = topology((0, 10), (5, 5), (0, 0), (10, 20))
    assert [made.rank_for_neuron(neuron) for neuron in (0, 5, 9, 10, 19, 20, -1)] == [0, 0, 0, 3, 3, None, None]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12))
def test_every_neuron_is_found_and_gaps_are_the_rest(spans: list[tuple[int, int]]) -> None:
    """Compared with a dict of all neurons."""
    made = MPITopology()
    holder: dict[int, int] = {}
    for rank, (first, count) in enumerate(spans):
        neurons = range(first, first + count)
        mapping = MPIRankMapping(rank, neuron_range=(first, first + count))
        if any(neuron in holder for neuron in neurons):
            with pytest.raises(RuleViolation, match="overlap"):
                made.add_rank(mapping)
        else:
            made.add_rank(mapping)
            holder |= dict.fromkeys(neurons, rank)
    assert [made.rank_for_neuron(neuron) for neuron in range(80)] == [holder.get(neuron) for neuron in range(80)]
    assert made.total_neurons == len(holder)
    for n in (0, 1, 30, 80):
        inside = [neuron for first, end in made.gaps(n) for neuron in range(first, end)]
        assert inside == [neuron for neuron in range(n) if neuron not in holder]
        assert all(first < end for first, end in made.gaps(n))


def test_neighbours_share_a_known_host() -> None:
    """A rank whose host is unknown is nobody's neighbour, not even another's of unknown host."""
    made = MPITopology()
    for rank, host in ((0, "a"), (1, ""), (2, "b"), (3, "a"), (4, ""), (5, "a")):
        made.add_rank(MPIRankMapping(rank, host))
    assert [made.co_located_ranks(rank) for rank in range(6)] == [[3, 5], [], [], [0, 5], [], [0, 3]]
    with pytest.raises(RuleViolation, match="rank 9"):
        made.co_located_ranks(9)


def test_ranks_given_at_once_are_checked_too() -> None:
    """The dict of ranks goes through the same checks."""
    with pytest.raises(RuleViolation, match="overlap"):
        MPITopology({0: MPIRankMapping(0, neuron_range=(0, 2)), 1: MPIRankMapping(1, neuron_range=(1, 3))})


class Job:
    """A communicator of three ranks, seen from one of them."""

    def allgather(self, sendobj: tuple[str, int, int, int], /) -> list[tuple[str, int, int, int]]:
        """What all gave."""
        return [("a", 4, 0, 0), sendobj, ("a", 6, -1, 1)]


def test_from_mpi_asks_every_rank() -> None:
    """Ranges follow each other in the order of ranks."""
    made = MPITopology.from_mpi(Job(), "b", 5)
    assert [mapping.neuron_range for mapping in made.ranks.values()] == [(0, 4), (4, 9), (9, 15)]
    assert made.ranks[2] == MPIRankMapping(2, "a", -1, 1, (9, 15))
    assert made.gaps(15) == []
    assert made.co_located_ranks(0) == [2]
    assert made.total_neurons == 15
