"""Edges by slot: those that differ in their payload alone stand side by side, or the latest of them is shown."""

from __future__ import annotations

from collections.abc import Iterator

from tidewarp.codec.edges import Edge
from tidewarp.store.fold.visibility import Visibility

__all__ = ["Slots"]


class Slots:
    """Every edge that was added, whether it is visible or not. ``latest`` are the types whose slots show one edge."""

    def __init__(self, latest: frozenset[int]) -> None:
        self._latest = latest
        self._edges: dict[bytes, dict[bytes, Edge]] = {}  # slot key: edges by encoded reference

    def add(self, ref: bytes, edge: Edge) -> None:
        """Note an edge under its encoded reference."""
        self._edges.setdefault(edge.slot_key(), {})[ref] = edge

    def shown(self, slot: bytes, visibility: Visibility) -> list[tuple[bytes, Edge]]:
        """Reference and edge of what the slot shows, in merge order: at most one for a type of ``latest``."""
        edges = self._edges.get(slot, {})
        # The place of an edge is that of its greatest live add. No domain writes two records of one seq, so seq and
        # domain decide the merge order of adds.
        places = [(max(visibility.live(ref)), ref) for ref in edges if ref in visibility.visible]
        shown = [(ref, edges[ref]) for _, ref in sorted(places)]
        return shown[-1:] if shown and shown[0][1].type in self._latest else shown

    def winners(self, visibility: Visibility) -> Iterator[tuple[bytes, bytes]]:
        """Slot key and reference of the edge shown, for each slot of a type of ``latest`` that shows one."""
        for slot, edges in self._edges.items():
            if next(iter(edges.values())).type in self._latest:
                for ref, _ in self.shown(slot, visibility):
                    yield slot, ref
