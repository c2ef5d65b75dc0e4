"""The catalog over the tables of a file: ``log``, and the indices of edges and their ends."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tidewarp.codec.bodies import EDGE
from tidewarp.codec.references import Reference
from tidewarp.store.handle import Handle
from tidewarp.store.query.catalog import Position, Step
from tidewarp.store.query.row import Role
from tidewarp.store.shards import ShardMap

if TYPE_CHECKING:
    from tidewarp.store.contract import StoredRecord
    from tidewarp.store.domains import DomainTable
    from tidewarp.store.sharding import ShardTable

__all__ = ["STEPS_MAX", "TableCatalog"]

_SOURCE, _TARGET = 0, 1  # of the column ``node.role``
_NODES = 200  # whose steps are looked up at once
STEPS_MAX = 20_000
"""Steps in memory at once."""


class TableCatalog:
    """:class:`~tidewarp.store.query.catalog.Catalog` over a database."""

    def __init__(self, handle: Handle, domains: DomainTable, shards: ShardTable) -> None:
        self._handle = handle
        self._domains = domains
        self._shards = shards

    def records(self, domain: bytes, after: int = 0, limit: int | None = None) -> Iterator[StoredRecord]:
        """As the protocol says."""
        return self._domains.records(domain, after, limit)

    def records_at(self, domain: bytes, seqs: Iterable[int]) -> Iterator[StoredRecord]:
        """As the protocol says."""
        return self._domains.records_at(domain, seqs)

    def edges(self, type: int | None, node: Reference | None, role: Role, most: int) -> list[Position] | None:
        """As the protocol says: by the node, or else by the type."""
        values: list[object] = [] if node is None else [node.to_bytes()]
        if node is not None:
            found = "artifact AS one CROSS JOIN node ON node.node = one.no CROSS JOIN edge ON edge.edge = node.edge"
            where = "one.ref = ?" + ("" if role == "both" else f" AND node.role = {_role(role)}")
        elif type is not None:
            found, where = "edge", "1"
        else:
            return None
        if type is not None:
            where += " AND edge.type = ?"
            values.append(type)
        statement = (
            f"SELECT DISTINCT event.seq, domain.id FROM {found}"
            f" CROSS JOIN event ON event.artifact = edge.edge AND event.kind = {EDGE}"
            f" CROSS JOIN domain ON domain.no = event.domain WHERE {where} LIMIT ?"
        )
        rows = self._handle.select("run", statement, *values, most + 1)
        return None if len(rows) > most else [Position(*row) for row in rows]

    def shard_map(self) -> ShardMap:
        """As the protocol says."""
        return self._shards.map()

    def in_shard(self, shard_map: ShardMap, shard: int, domain: bytes, after: int, limit: int) -> list[int] | None:
        """As the protocol says."""
        return self._shards.seqs(shard_map, shard, self._domains.held(domain).no, after, limit)

    def steps(self, nodes: Sequence[Reference], direction: Role, types: frozenset[int] | None) -> Iterator[Step]:
        """As the protocol says."""
        sides = {"to": (_SOURCE,), "from": (_TARGET,), "both": (_SOURCE, _TARGET)}[direction]
        statements = [_steps_from(near, types) for near in sides]
        for start in range(0, len(nodes), _NODES):
            yield from self._steps(nodes[start : start + _NODES], statements)

    def _steps(self, nodes: Sequence[Reference], statements: Sequence[str]) -> Iterator[Step]:
        """In memory, where they are few; else those of fewer nodes at once; else those of one node in pages."""
        part = {node.to_bytes(): node for node in nodes}
        rows: list[tuple[bytes, bytes, bytes]] = []
        for statement in statements:
            some = f"{statement} AND one.ref IN ({','.join('?' * len(part))}) LIMIT ?"
            rows += self._handle.select("run", some, *part, STEPS_MAX + 1)
        if len(rows) <= STEPS_MAX:
            order = {node: place for place, node in enumerate(part)}
            for node, other, edge in sorted(rows, key=lambda row: (order[row[0]], *row[1:])):
                yield Step(part[node], Reference.from_bytes(other), Reference.from_bytes(edge))
        elif len(nodes) > 1:
            half = len(nodes) // 2
            yield from self._steps(nodes[:half], statements)
            yield from self._steps(nodes[half:], statements)
        else:
            yield from heapq.merge(*(self._pages(nodes[0], statement) for statement in statements))

    def _pages(self, node: Reference, statement: str) -> Iterator[Step]:
        page = f"{statement} AND one.ref = ? AND (other.ref, name.ref) > (?, ?) ORDER BY other.ref, name.ref LIMIT ?"
        other = edge = b""
        while rows := self._handle.select("run", page, node.to_bytes(), other, edge, STEPS_MAX):
            for _, other, edge in rows:
                yield Step(node, Reference.from_bytes(other), Reference.from_bytes(edge))


def _steps_from(near: int, types: frozenset[int] | None) -> str:
    """Rows (node, other, edge), from the ends of role ``near`` to those of the other role."""
    of_types = "" if types is None else f" AND edge.type IN ({','.join(str(int(one)) for one in sorted(types))})"
    return (
        "SELECT one.ref, other.ref, name.ref FROM artifact AS one"
        f" CROSS JOIN node AS near ON near.node = one.no AND near.role = {near}"
        f" CROSS JOIN edge ON edge.edge = near.edge{of_types}"
        f" CROSS JOIN node AS far ON far.edge = near.edge AND far.role = {_SOURCE + _TARGET - near}"
        " CROSS JOIN artifact AS other ON other.no = far.node"
        " CROSS JOIN artifact AS name ON name.no = near.edge WHERE 1"
    )


def _role(role: Role) -> int:
    return _SOURCE if role == "from" else _TARGET
