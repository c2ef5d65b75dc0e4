"""Sites that hand each other records: what federation does over HTTP, without it."""

from __future__ import annotations

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BatchItem
from tidewarp.codec.bodies import decode_body
from tidewarp.store import Store
from tidewarp.store.continuation import named_by


def hand_over(source: Store, target: Store, limit: int | None = None) -> int:
    """What ``target`` lacks of ``source``'s own domain, at most ``limit`` records, with the bytes; how many it got."""
    (own, *_) = source.domains()
    size = next((domain.size for domain in target.domains() if domain.id == own.id), 0)
    items = []
    for header, state, body in source.records(own.id, size, limit):
        ref = None if body is None else named_by(decode_body(header.kind, body))
        artifact = None if ref is None else Artifact(source.get(ref), source.info(ref).tag).to_bytes()
        items.append(BatchItem(header, state, body, artifact))
    if items:
        target.adopt(own.id, items, source.signed_head(), key=own.key)
    return len(items)
