"""Snapshots that were kept, by name or by SnapshotID, and what each shows. Over the contract, for every store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tidewarp.codec.bodies import SNAPSHOT, SnapshotBody
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import CodecError, NotFound

if TYPE_CHECKING:
    from tidewarp.store.contract import Store

__all__ = ["Item", "find_snapshot", "snapshot_items"]


class Item(NamedTuple):
    """Something visible at a snapshot, and the record that it came from: kind, domain (32 bytes) and number."""

    kind: int
    ref: Reference
    domain: bytes
    seq: int


def find_snapshot(store: Store, which: str | bytes) -> Snapshot:
    """The snapshot with this SnapshotID (32 bytes), or of this name.

    A name is that of a pin or else of the own domain's last record so named. An id may also be that of now, or stand in
    a record of another domain.

    Raises:
        NotFound: there is none.
    """
    found = _named(store, which) if isinstance(which, str) else _identified(store, which)
    if found is None:
        shown = which if isinstance(which, str) else which.hex()
        action = "tidewarp store snapshot DIR lists them; one of now is kept by tidewarp store snapshot DIR NAME"
        raise NotFound(f"snapshot {shown[:80]!r}", "none is kept here under this name or id", action)
    return found


def snapshot_items(store: Store, snapshot_id: bytes) -> Iterator[Item]:
    """As the contract of the store says."""
    rows = store.view(find_snapshot(store, snapshot_id)).artifacts()
    return (Item(row["kind"], row["ref"], row["domain"], row["seq"]) for row in rows)


def _named(store: Store, name: str) -> Snapshot | None:
    pinned = store.pins().get(name)
    if isinstance(pinned, Snapshot):
        return pinned
    said = (_said(record.body) for record in store.journal.read(kinds={SNAPSHOT}))
    named = [body.snapshot for body in said if body is not None and body.name == name]
    return named[-1] if named else None


def _identified(store: Store, snapshot_id: bytes) -> Snapshot | None:
    return next((one for one in _known(store) if one.id() == snapshot_id), None)


def _known(store: Store) -> Iterator[Snapshot]:
    yield store.snapshot()
    yield from (one for one in store.pins().values() if isinstance(one, Snapshot))
    for domain in store.domains():
        for header, _, body in store.records(domain.id):
            said = _said(body) if header.kind == SNAPSHOT and body is not None else None
            if said is not None:
                yield said.snapshot


def _said(body: bytes) -> SnapshotBody | None:
    """What a record says; nothing where it is of no form that its kind has, as an unpublished one may be."""
    try:
        return SnapshotBody.from_bytes(body)
    except CodecError:
        return None
