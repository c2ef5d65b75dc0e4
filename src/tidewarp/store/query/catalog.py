"""What a plan is run over: the records of a store and, where it has them, indices. And the plainest one: records alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tidewarp.codec.bodies import EDGE
from tidewarp.codec.references import Reference
from tidewarp.store.query.row import Role, row_of_record
from tidewarp.store.shards import ShardMap

if TYPE_CHECKING:
    from tidewarp.store.contract import StoredRecord

__all__ = ["Catalog", "Position", "RecordCatalog", "Step"]


class Position(NamedTuple):
    """A record: its number, and the domain (32 bytes) that wrote it. They sort in merge order where kinds are adds."""

    seq: int
    domain: bytes


class Step(NamedTuple):
    """From a node over an edge to another node."""

    node: Reference
    other: Reference
    edge: Reference


class Catalog(Protocol):
    """It knows nothing of views: what it finds may be hidden, or behind the view's heads."""

    def records(self, domain: bytes, after: int = 0, limit: int | None = None) -> Iterator[StoredRecord]:
        """The records of a domain behind ``after``, at most ``limit``. Raises Corrupt."""

    def records_at(self, domain: bytes, seqs: Iterable[int]) -> Iterator[StoredRecord]:
        """The records of a domain with these numbers, in the order given. Raises Corrupt."""

    def edges(self, type: int | None, node: Reference | None, role: Role, most: int) -> list[Position] | None:
        """Where records stand that add an edge of this type, with this node at an end of that role; in no order.

        None: there is no index, or there are more than ``most``; then all records have to be looked at.
        """

    def shard_map(self) -> ShardMap:
        """How the store is divided at this moment."""

    def in_shard(self, shard_map: ShardMap, shard: int, domain: bytes, after: int, limit: int) -> list[int] | None:
        """The next records of a domain in a shard, behind ``after``, at most ``limit``, ascending.

        None: there is no index by this map, or there is one by another map meanwhile.
        """

    def steps(self, nodes: Sequence[Reference], direction: Role, types: frozenset[int] | None) -> Iterator[Step]:
        """The steps from these nodes over all edges of these types.

        Node by node in the order given; of one node by ``other`` and then by ``edge``, in byte order. A step may come twice.
        """


class RecordCatalog:
    """A :class:`Catalog` without an index. For a store in memory, and to test the others against.

    Args:
        domains: all that there are.
        records: as the catalog's.
        shard_map: as the catalog's.
    """

    def __init__(
        self,
        domains: Callable[[], Iterable[bytes]],
        records: Callable[[bytes, int, int | None], Iterator[StoredRecord]],
        shard_map: Callable[[], ShardMap],
    ) -> None:
        self._domains = domains
        self._records = records
        self._shard_map = shard_map

    def records(self, domain: bytes, after: int = 0, limit: int | None = None) -> Iterator[StoredRecord]:
        """As the protocol says."""
        return self._records(domain, after, limit)

    def records_at(self, domain: bytes, seqs: Iterable[int]) -> Iterator[StoredRecord]:
        """As the protocol says."""
        for seq in seqs:
            yield from self._records(domain, seq - 1, 1)

    def edges(self, type: int | None, node: Reference | None, role: Role, most: int) -> list[Position] | None:
        """As the protocol says: there is no index."""
        return None

    def shard_map(self) -> ShardMap:
        """As the protocol says."""
        return self._shard_map()

    def in_shard(self, shard_map: ShardMap, shard: int, domain: bytes, after: int, limit: int) -> list[int] | None:
        """As the protocol says: there is no index."""
        return None

    def steps(self, nodes: Sequence[Reference], direction: Role, types: frozenset[int] | None) -> Iterator[Step]:
        """As the protocol says, by looking at every record."""
        order = {node: place for place, node in enumerate(nodes)}
        found: list[Step] = []
        for domain in self._domains():
            for record in self._records(domain, 0, None):
                if record.header.kind == EDGE:
                    values = row_of_record(record).values
                    if values["ref"] is not None and (types is None or values["type"] in types):
                        found += _steps_over(order, direction, values)
        return iter(sorted(found, key=lambda step: (order[step.node], step.other, step.edge)))


def _steps_over(nodes: Collection[Reference], direction: Role, values: Mapping[str, Any]) -> Iterator[Step]:
    edge, sources, targets = values["ref"], values["sources"], values["targets"]
    if direction != "from":
        yield from (Step(node, other, edge) for node in sources if node in nodes for other in targets)
    if direction != "to":
        yield from (Step(node, other, edge) for node in targets if node in nodes for other in sources)
