"""Which rank runs where, and which neurons (LPs) it holds."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tidewarp.errors import RuleViolation

__all__ = ["Communicator", "MPIRankMapping", "MPITopology"]


class Communicator(Protocol):
    """What :meth:`MPITopology.from_mpi` needs of an mpi4py communicator."""

    def allgather(self, sendobj: tuple[str, int, int, int], /) -> Sequence[tuple[str, int, int, int]]:
        """What every rank gave, in the order of ranks; blocks until all have."""


@dataclass(frozen=True)
class MPIRankMapping:
    """One rank: its host, GPU and NUMA node (-1: unknown or none), and its neurons, ``first`` to ``end`` - 1.

    Raises:
        RuleViolation: a negative rank, a range that is reversed or begins below 0 (also a ValueError).
    """

    rank: int
    hostname: str = ""
    gpu_id: int = -1
    numa_node: int = 0
    neuron_range: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        first, end = self.neuron_range
        if any(type(number) is not int for number in (self.rank, first, end)) or self.rank < 0:
            raise RuleViolation(
                f"rank {self.rank!r} with neurons {first!r} to {end!r}", "these are whole numbers >= 0", "correct them"
            )
        if not 0 <= first <= end:
            raise RuleViolation(
                f"rank {self.rank} with neurons from {first} to below {end}",
                "a range begins at 0 or above and ends at its beginning or above",
                "swap its ends, or correct them",
            )

    @property
    def neuron_count(self) -> int:
        """How many neurons this rank holds."""
        return self.neuron_range[1] - self.neuron_range[0]


@dataclass
class MPITopology:
    """The ranks of a run. No neuron has two ranks, no rank is added twice; gaps are allowed, and :meth:`gaps` names them."""

    ranks: dict[int, MPIRankMapping] = field(default_factory=dict)
    _filled: list[tuple[int, int, int]] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        given, self.ranks = self.ranks, {}
        for mapping in given.values():
            self.add_rank(mapping)

    def add_rank(self, mapping: MPIRankMapping) -> None:
        """Add a rank.

        Raises:
            RuleViolation: the rank is there already, or its neurons overlap those of another; it names both (also a
                ValueError).
        """
        if mapping.rank in self.ranks:
            raise RuleViolation(
                f"{_described(mapping)} and {_described(self.ranks[mapping.rank])}",
                "a rank is added once",
                "number it anew",
            )
        first, end = mapping.neuron_range
        if first < end:
            at = bisect_right(self._filled, (first, end, -1))
            for other_first, other_end, rank in self._filled[max(at - 1, 0) : at + 1]:
                if first < other_end and other_first < end:
                    raise RuleViolation(
                        f"{_described(mapping)} and {_described(self.ranks[rank])}",
                        "their ranges overlap",
                        "give each neuron one rank",
                    )
            insort(self._filled, (first, end, mapping.rank))
        self.ranks[mapping.rank] = mapping

    @property
    def num_ranks(self) -> int:
        """How many ranks there are."""
        return len(self.ranks)

    @property
    def total_neurons(self) -> int:
        """How many neurons all ranks hold."""
        return sum(mapping.neuron_count for mapping in self.ranks.values())

    def rank_for_neuron(self, neuron_id: int) -> int | None:
        """The rank that holds a neuron; None where none does."""
        at = bisect_right(self._filled, neuron_id, key=_first) - 1
        return self._filled[at][2] if at >= 0 and neuron_id < self._filled[at][1] else None

    def co_located_ranks(self, rank: int) -> list[int]:
        """The other ranks on the same host, ascending; none for a rank whose host is unknown (``""``).

        Raises:
            RuleViolation: no such rank (also a ValueError).
        """
        if rank not in self.ranks:
            raise RuleViolation(f"rank {rank!r}", f"the ranks are {sorted(self.ranks)}", "correct the number")
        host = self.ranks[rank].hostname
        return sorted(other for other, m in self.ranks.items() if host and other != rank and m.hostname == host)

    def gaps(self, n: int) -> list[tuple[int, int]]:
        """The ranges (first, end) of neurons 0 to ``n`` - 1 that no rank holds, ascending."""
        found = []
        at = 0
        for first, end, _ in [*self._filled, (n, n, -1)]:
            if at < min(first, n):
                found.append((at, min(first, n)))
            at = max(at, end)
        return found

    @classmethod
    def from_mpi(
        cls, comm: Communicator, hostname: str = "", neurons: int = 0, *, gpu_id: int = -1, numa_node: int = 0
    ) -> MPITopology:
        """The topology of a running job: every rank says where it runs and how many neurons it holds.

        Ranges follow each other in the order of ranks. Collective: it blocks until all ranks of ``comm`` have called.

        Raises:
            RuleViolation: a negative number of neurons (also a ValueError).
        """
        topology = cls()
        first = 0
        for rank, (host, count, gpu, node) in enumerate(comm.allgather((hostname, neurons, gpu_id, numa_node))):
            topology.add_rank(MPIRankMapping(rank, host, gpu, node, (first, first + count)))
            first += count
        return topology


def _first(filled: tuple[int, int, int]) -> int:
    return filled[0]


def _described(mapping: MPIRankMapping) -> str:
    first, end = mapping.neuron_range
    return f"rank {mapping.rank} (neurons {first} to {end - 1})" if first < end else f"rank {mapping.rank} (no neurons)"
