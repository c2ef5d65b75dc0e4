"""Another domain, as a store gets to see it: records, signed heads and artifacts, made by its private key."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from tidewarp.codec import PUBLISHED, RecordHeader, genesis, record_hash
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, WITHHELD, BatchItem
from tidewarp.codec.bodies import ARTIFACT, ArtifactBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.heads import SignedHead, sign_head
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.records import domain_of
from tidewarp.codec.references import Reference
from tidewarp.store.contract import Entry, Store

__all__ = ["Site"]


class Site:
    """Another domain, as records and heads that a store may adopt. ``seed`` is its private key (32 bytes)."""

    def __init__(self, seed: bytes = bytes(range(32))) -> None:
        self.key = public_key_of(seed)
        self.domain = domain_of(self.key)
        self.items: list[BatchItem] = []
        self._seed = seed

    def write(self, kind: int, body: bytes, *, flags: int = PUBLISHED, artifact: Artifact | None = None) -> BatchItem:
        """The next record; its body is withheld if it is not published."""
        prev = record_hash(self.items[-1].header.to_bytes()) if self.items else genesis(self.domain)
        entry = Entry(kind, body, flags)
        header = _header(self.domain, len(self.items) + 1, entry, prev)
        data = None if artifact is None else artifact.to_bytes()
        item = BatchItem(header, BODY, body, data) if flags else BatchItem(header, WITHHELD, None, None)
        self.items.append(item)
        return item

    def put(self, payload: bytes, tag: int | None = None, *, carry: bool = True) -> Reference:
        """A record that adds an artifact, whose bytes come with it, or do not."""
        artifact = Artifact(payload, tag)
        ref = artifact.reference()
        body = ArtifactBody(ref, tag, len(payload)).to_bytes()
        self.write(ARTIFACT, body, artifact=artifact if carry else None)
        return ref

    def head(self, size: int | None = None) -> SignedHead:
        """The signed head of the first ``size`` records; None: of all."""
        items = self.items[:size]
        frontier = Frontier()
        frontier.extend([record_hash(one.header.to_bytes()) for one in items])
        last = record_hash(items[-1].header.to_bytes()) if items else genesis(self.domain)
        return sign_head(self.domain, len(items), frontier.root(), last, "site", self._seed)

    def give(self, store: Store, first: int = 0, last: int | None = None, **options: Any) -> object:
        """Let ``store`` adopt the items from ``first`` (from 0) on, under the head of all."""
        return store.adopt(self.domain, self.items[first:last], self.head(), key=self.key, **options)


def _header(domain: bytes, seq: int, entry: Entry, prev: bytes) -> RecordHeader:
    body = entry.body
    return RecordHeader(domain, seq, entry.kind, entry.flags, 0, prev, len(body), sha256(body).digest())
