"""Artifacts and the ends of edges as columns: what a filter needs, side by side in NumPy arrays.

They are a node's own affair: ids are ordinals in the order of first mention, from 1 (0: none), and are neither hashed nor
sent.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tidewarp.codec.references import Reference
from tidewarp.store.query.catalog import Position
from tidewarp.store.query.row import Condition, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Columns", "columns_of"]

_FROM, _TO = 1, 2  # bits of a role
_ROLES = {"from": _FROM, "to": _TO, "both": _FROM | _TO}


class Columns(NamedTuple):
    """Arrays of equal length n, in merge order of their records.

    A record that adds an artifact or a receipt has one element. One that adds an edge has one for each artifact at its
    ends, or one alone if it has none.
    """

    artifact_ids: NDArray[np.uint64]
    """The artifact; of an edge, the one at its end."""
    type_tags: NDArray[np.uint32]
    """The tag of what the record adds."""
    has_type_tag: NDArray[np.uint8]
    edge_ids: NDArray[np.uint64]
    edge_type_keys: NDArray[np.uint32]
    has_edge_type: NDArray[np.uint8]
    roles: NDArray[np.uint8]
    """1: the artifact is a source of the edge, 2: a target, 3: both."""
    seqs: NDArray[np.uint64]
    """Where the record stands, and by its place in ``domains`` who wrote it."""
    domain_ids: NDArray[np.uint32]
    ordinals: Mapping[Reference, int]
    """The ids of artifacts and edges."""
    domains: tuple[bytes, ...]

    def positions(self, condition: Condition) -> Iterator[Position]:
        """The records that meet a condition, in merge order, each once."""
        import numpy as np

        mask = np.ones(len(self.seqs), dtype=bool)
        tag, edge_type, node, role, origin = condition
        if tag is not None:
            mask &= (self.has_type_tag == 1) & (self.type_tags == tag)
        if edge_type is not None:
            mask &= (self.has_edge_type == 1) & (self.edge_type_keys == edge_type)
        if node is not None:
            mask &= (self.artifact_ids == self.ordinals.get(node, 0)) & ((self.roles & _ROLES[role]) != 0)
        if origin is not None:
            known = self.domains.index(origin) if origin in self.domains else len(self.domains)
            mask &= self.domain_ids == known
        last = None
        for at in np.flatnonzero(mask):
            found = Position(int(self.seqs[at]), self.domains[self.domain_ids[at]])
            if found != last:
                yield found
            last = found


def columns_of(rows: Iterable[Row], domains: tuple[bytes, ...]) -> Columns:
    """The columns of records' rows in merge order, written by ``domains``. Rows that add nothing are passed over."""
    import numpy as np

    columns = {name: array(code) for name, code in _CODES.items()}
    ordinals: dict[Reference, int] = {}
    numbers = {domain: number for number, domain in enumerate(domains)}

    def ordinal(ref: Any) -> int:
        return ordinals.setdefault(ref, len(ordinals) + 1)

    for row in rows:
        values = row.values
        ref, tag, edge_type = values["ref"], values["tag"], values["type"]
        if edge_type is not None:
            edge = ordinal(ref)
            ends = _ends(values) or {None: 0}
            elements = [(0 if end is None else ordinal(end), edge, bits) for end, bits in ends.items()]
        elif tag is not None or values["size"] is not None:
            elements = [(ordinal(ref), 0, 0)]
        else:
            continue
        seq, number = values["seq"], numbers[row.place[2] if row.place else b""]
        for artifact, edge, bits in elements:
            element = (
                artifact,
                tag or 0,
                tag is not None,
                edge,
                edge_type or 0,
                edge_type is not None,
                bits,
                seq,
                number,
            )
            for column, value in zip(columns.values(), element, strict=True):
                column.append(value)
    arrays: Any = [
        np.frombuffer(column, dtype=_DTYPES[code])
        for column, code in zip(columns.values(), _CODES.values(), strict=True)
    ]
    return Columns._make((*arrays, ordinals, domains))


_CODES = {
    "artifact_ids": "Q",
    "type_tags": "I",
    "has_type_tag": "B",
    "edge_ids": "Q",
    "edge_type_keys": "I",
    "has_edge_type": "B",
    "roles": "B",
    "seqs": "Q",
    "domain_ids": "I",
}
_DTYPES = {"Q": "u8", "I": "u4", "B": "u1"}


def _ends(values: Mapping[str, Any]) -> dict[Reference | None, int]:
    """The roles of each artifact at an end, sources first."""
    ends: dict[Reference | None, int] = {}
    for field, bit in (("sources", _FROM), ("targets", _TO)):
        for ref in values[field]:
            ends[ref] = ends.get(ref, 0) | bit
    return ends
