"""Indices of records: which of them add, hide, lift or erase an artifact, and the ends of edges.

They answer without reading ``log``, and can be made anew from it. A body that is none of its kind says nothing: only an
unpublished one gets here.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType

from tidewarp.codec.artifacts import TAG_EDGE
from tidewarp.codec.bodies import (
    EDGE,
    ArtifactBody,
    EdgeBody,
    ReceiptBody,
)
from tidewarp.codec.edges import Edge
from tidewarp.codec.references import Reference, encode_references
from tidewarp.store.artifacts import ArtifactTable, Content
from tidewarp.store.chain import Linked
from tidewarp.store.handle import Handle
from tidewarp.store.inserting import insert_rows
from tidewarp.store.journal import OpenTransaction
from tidewarp.store.rows import OWN
from tidewarp.store.speaking import shows
from tidewarp.store.subjects import INDEXED, Told, told

__all__ = ["RecordIndex"]

_SOURCE, _TARGET = 0, 1  # roles of an artifact at an edge
_NOTHING: Mapping[Reference, int] = MappingProxyType({})


class RecordIndex:
    """``event``, ``edge``, ``node`` and ``receipt``."""

    def __init__(self, handle: Handle, artifacts: ArtifactTable) -> None:
        self._handle = handle
        self._artifacts = artifacts

    def write_own(self, transaction: OpenTransaction, linked: Sequence[Linked]) -> None:
        """Index new records of the own domain, in their transaction."""
        records = (one.record for one in linked if one.kind in INDEXED)
        found = [one for one in (told(*record) for record in records) if one is not None]
        if found:
            self.write(transaction, OWN, found)

    def write(
        self, transaction: OpenTransaction, no: int, found: Sequence[Told], kept: Mapping[Reference, int] = _NOTHING
    ) -> None:
        """Index records of domain ``no``, in order. ``kept``: the numbers of artifacts whose bytes are here, or not wanted."""
        db = transaction.db
        others = [one for one in found if not isinstance(one.body, ArtifactBody)]  # few
        edges = [_content(ref, body.edge) for _, ref, body in others if isinstance(body, EdgeBody) and ref not in kept]
        if edges:
            self._artifacts.keep(transaction, edges)
        lacking = self._artifacts.numbers(db, [one.ref for one in found if one.ref not in kept])
        numbers = {**kept, **lacking} if lacking else kept
        events = ((numbers[ref], no, header.seq, header.kind, header.flags) for header, ref, _ in found)
        self.write_events(db, events)
        bodies = [(lacking[ref], body) for _, ref, body in found if ref in lacking and isinstance(body, ArtifactBody)]
        self._artifacts.describe(db, ((no, body.tag, body.size) for no, body in bodies))
        named = [(*body.edge.sources, *body.edge.targets) for _, _, body in others if isinstance(body, EdgeBody)]
        ends = self._artifacts.numbers(db, chain.from_iterable(named))
        for header, ref, body in others:
            if isinstance(body, EdgeBody):
                self._write_edge(db, numbers[ref], body.edge, ends)
            elif isinstance(body, ReceiptBody):
                outputs = hashlib.sha256(encode_references(body.outputs)).digest()
                row = (body.key, no, header.seq, numbers[ref], outputs)
                db.execute("INSERT INTO receipt VALUES (?, ?, ?, ?, ?)", row)

    def write_events(self, db: sqlite3.Connection, events: Iterable[tuple[int, int, int, int, int]]) -> None:
        """Note events: number of the artifact, number of the domain, seq, kind, flags."""
        insert_rows(db, "event", "?, ?, ?, ?, ?", events)

    def cut_back(self, db: sqlite3.Connection, no: int, size: int) -> None:
        """Forget the records of domain ``no`` behind the first ``size``, and the edges that none of the others adds."""
        added = f"SELECT artifact FROM event WHERE kind = {EDGE}"
        cut = [edge for (edge,) in db.execute(f"{added} AND domain = ? AND seq > ?", (no, size))]
        for table in ("event", "receipt"):
            db.execute(f"DELETE FROM {table} WHERE domain = ? AND seq > ?", (no, size))
        for edge in cut:
            if not db.execute(f"{added} AND artifact = ?", (edge,)).fetchone():
                db.execute("DELETE FROM edge WHERE edge = ?", (edge,))
                db.execute("DELETE FROM node WHERE edge = ?", (edge,))

    def shown(self, db: sqlite3.Connection, artifacts: Sequence[int], *, publish: bool) -> set[int]:
        """Which of these artifacts the own domain shows; to others, if they are to be published."""
        found: dict[int, list[tuple[int, int]]] = {}
        for start in range(0, len(artifacts), 500):
            part = artifacts[start : start + 500]
            statement = (
                f"SELECT artifact, kind, flags FROM event WHERE artifact IN ({','.join('?' * len(part))})"
                f" AND domain = {OWN} ORDER BY artifact, seq"
            )
            for artifact, kind, flags in db.execute(statement, part):
                found.setdefault(artifact, []).append((kind, flags))
        return {artifact for artifact, events in found.items() if shows(events, publish=publish)}

    def events(self, ref: Reference) -> list[tuple[int, int, int, int]]:
        """Domain number, seq, kind and flags of the records that speak of an artifact, domain by domain in order."""
        statement = (
            "SELECT domain, seq, kind, event.flags FROM event JOIN artifact ON artifact.no = event.artifact"
            " WHERE ref = ? ORDER BY domain, seq"
        )
        return self._handle.select("events", statement, ref.to_bytes())

    def edges(self, type: int | None, source: Reference | None, target: Reference | None) -> list[Reference]:
        """As the contract of the store says, without the edges themselves."""
        statement = "SELECT ref FROM edge JOIN artifact ON artifact.no = edge.edge WHERE 1"
        values: list[object] = []
        if type is not None:
            statement += " AND edge.type = ?"
            values.append(type)
        for role, end in ((_SOURCE, source), (_TARGET, target)):
            if end is not None:
                statement += (
                    " AND edge.edge IN (SELECT node.edge FROM node JOIN artifact AS end ON end.no = node.node"
                    f" WHERE end.ref = ? AND node.role = {role})"
                )
                values.append(end.to_bytes())
        rows = self._handle.select("edges", f"{statement} ORDER BY ref", *values)
        return [Reference.from_bytes(ref) for (ref,) in rows]

    def _write_edge(self, db: sqlite3.Connection, no: int, edge: Edge, numbers: Mapping[Reference, int]) -> None:
        """Note an edge; ``numbers`` are those of its ends, and of others."""
        added = db.execute("INSERT OR IGNORE INTO edge VALUES (?, ?, ?)", (no, edge.type, edge.slot_key()))
        if not added.rowcount:
            return  # another record has added it before
        lists = ((_SOURCE, edge.sources), (_TARGET, edge.targets))
        rows = ((numbers[ref], no, role, position) for role, refs in lists for position, ref in enumerate(refs))
        db.executemany("INSERT INTO node VALUES (?, ?, ?, ?)", rows)


def _content(ref: Reference, edge: Edge) -> Content:
    data = edge.to_bytes()
    return Content(ref, TAG_EDGE, len(data), data)
