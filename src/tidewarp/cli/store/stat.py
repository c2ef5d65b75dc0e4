"""`tidewarp store stat`: what is in a store, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.ledger import find_ledger
from tidewarp.cli.store.places import opened_store, store_argument
from tidewarp.cli.store.snapshots import at_option, snapshot_at
from tidewarp.codec.artifacts import TAG_EDGE, TAG_RECEIPT
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import Corrupt, Erased, Withheld
from tidewarp.store import Store
from tidewarp.store.described import Holding, describe, holdings
from tidewarp.store.fold import View
from tidewarp.store.schema import HERE, QUARANTINED

__all__ = ["command"]


@click.command()
@store_argument
@at_option
@json_option
def command(place: Path, at: str | None, as_json: bool) -> int:
    """Count what is in the store DIR: artifacts that are visible and hidden, their bytes, records, domains.

    With --at artifacts, edges, receipts, records and domains are those of the snapshot; which bytes are here, what is on disk
    and what is open, is counted as it is now.
    """
    with opened_store(place, read_only=True) as store:
        document = _counted(store, place, snapshot_at(store, at))
        ledger = find_ledger(store, place)
        conflicts = [] if ledger is None else ledger.conflicts()
        quarantined = [] if ledger is None else ledger.quarantined()
    on_disk = describe(place)
    document |= {
        "file_bytes": on_disk.file_bytes,
        "quota_bytes": on_disk.settings.quota_bytes,
        "shards": on_disk.settings.shard_map.count,
        "format": on_disk.format,
        "conflicts_open": sum(one.state == "open" for one in conflicts),
        "quarantine_bytes": document["quarantine_bytes"] + sum(len(one.data) for one in quarantined),
    }
    emit(document, as_json, _render)
    return 0


def _counted(store: Store, place: Path, snapshot: Snapshot | None) -> dict[str, Any]:
    view = store.view(snapshot, scope="all")
    published = store.view(snapshot, scope="published")
    visible = {ref.to_bytes() for ref in view.visible()}
    hidden = {ref.to_bytes() for ref in view.hidden()}
    tags: Counter[int | None] = Counter()
    size = damaged = 0
    lacking: list[Holding] = []
    for one in holdings(place):
        if one.state == QUARANTINED:
            damaged += one.size or 0
        if one.name in visible:
            tags[one.tag] += 1
        if one.state == HERE and (one.name in visible or one.name in hidden):
            size += one.size or 0
        elif one.state != HERE and _is_awaited(store, published, one):
            lacking.append(one)
    sizes = [one.size for one in store.domains()] if snapshot is None else [seq for _, seq, _ in snapshot.vector]
    return {
        "artifacts": len(visible),
        "hidden": len(hidden),
        "bytes": size,
        "withheld": len(lacking),
        "withheld_bytes": sum(one.size or 0 for one in lacking),
        "edges": tags[TAG_EDGE],
        "receipts": tags[TAG_RECEIPT],
        "records": sum(sizes),
        "domains": len(sizes),
        "quarantine_bytes": damaged,
    }


def _is_awaited(store: Store, published: View, one: Holding) -> bool:
    """Whether everybody may have the bytes of an artifact, as the view of what is published says, and they are not here."""
    ref = Reference.from_bytes(one.name)
    if not published.is_visible(ref):
        return False
    try:
        return store.info(ref).state == "withheld"
    except Withheld:
        return True
    except (Corrupt, Erased):
        return False


def _withheld(document: Mapping[str, Any]) -> str:
    counted = f"{document['withheld']:,} artifacts, {document['withheld_bytes']:,} bytes that have not come"
    return f"withheld  {counted}: tidewarp store fsck DIR --repair --from URL"


def _render(document: Mapping[str, Any]) -> str:
    quota = document["quota_bytes"]
    return "\n".join(
        [
            f"artifacts {document['artifacts']:,} visible, {document['hidden']:,} hidden",
            f"edges     {document['edges']:,}",
            f"receipts  {document['receipts']:,}",
            f"bytes     {document['bytes']:,}" + ("" if quota is None else f" of {quota:,}"),
            f"on disk   {document['file_bytes']:,}",
            f"records   {document['records']:,} in {document['domains']:,} domains",
            f"format    {document['format']}",
        ]
        + ([f"shards    {document['shards']:,}"] if document["shards"] > 1 else [])
        + ([_withheld(document)] if document["withheld"] else [])
        + ([f"conflicts {document['conflicts_open']:,} open"] if document["conflicts_open"] else [])
        + (
            [f"aside     {document['quarantine_bytes']:,} bytes, refused or damaged"]
            if document["quarantine_bytes"]
            else []
        )
    )
