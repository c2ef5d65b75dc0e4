"""Authors: domains that write records, for tests of what records come to. Bodies in, records out; all of it kept."""

from __future__ import annotations

import hashlib

from tidewarp.codec import PUBLISHED, Record, RecordHeader, domain_of, genesis, record_hash
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.bodies import ArtifactBody, Body, EdgeBody
from tidewarp.codec.edges import Edge
from tidewarp.codec.references import Reference


class Author:
    """One domain. ``head`` and ``size`` are those of the branch that it writes; ``records`` are those of all branches."""

    def __init__(self, number: int) -> None:
        self.domain = domain_of(bytes([number]) * 32)
        self.head = genesis(self.domain)
        self.size = 0
        self.records: list[Record] = []

    def write(self, body: Body, flags: int = PUBLISHED) -> Record:
        """The next record, which says ``body``."""
        return self.write_bytes(body.kind, body.to_bytes(), flags)

    def write_bytes(self, kind: int, body: bytes, flags: int = PUBLISHED) -> Record:
        """The next record, of any kind."""
        self.size += 1
        digest = hashlib.sha256(body).digest()
        header = RecordHeader(self.domain, self.size, kind, flags, 0, self.head, len(body), digest)
        self.head = hash_of(header)
        self.records.append(Record(header, body))
        return self.records[-1]

    def rewind(self, place: int) -> None:
        """Go on behind the ``place``-th record written, as one does whose disk was restored from a backup."""
        self.size = self.records[place - 1].seq if place else 0
        self.head = hash_of(self.records[place - 1]) if place else genesis(self.domain)

    def branch(self) -> list[Record]:
        """The records of the branch that it writes, from the first."""
        by_hash = {hash_of(record): record for record in self.records}
        found, head = [], self.head
        while head in by_hash:
            found.append(by_hash[head])
            head = by_hash[head].header.prev
        return found[::-1]

    def put(self, text: str) -> Reference:
        """Add an untagged artifact."""
        self.write(added(text))
        return name_of(text)

    def link(self, source: str, target: str, payload: str, type: int = 1) -> Reference:
        """Add an edge between two artifacts."""
        body = EdgeBody(edge(source, target, payload, type))
        self.write(body)
        return body.ref


def name_of(text: str) -> Reference:
    """The reference of an untagged artifact."""
    return Artifact(text.encode()).reference()


def added(text: str, tag: int | None = None) -> ArtifactBody:
    """The body that adds an artifact."""
    data = text.encode()
    return ArtifactBody(Artifact(data, tag).reference(), tag, len(data))


def edge(source: str, target: str, payload: str, type: int = 1) -> Edge:
    """An edge between two artifacts; those that differ in the payload share a slot."""
    return Edge(type, (name_of(source),), (name_of(target),), name_of(payload))


def hash_of(record: Record | RecordHeader) -> bytes:
    """Its record hash."""
    header = record.header if isinstance(record, Record) else record
    return record_hash(header.to_bytes())
