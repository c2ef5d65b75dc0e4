"""`tidewarp store stat`: what is in a store, counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.ledger import find_ledger
from tidewarp.cli.store.places import opened_store, store_argument
from tidewarp.codec.artifacts import TAG_EDGE, TAG_RECEIPT
from tidewarp.codec.references import Reference
from tidewarp.errors import Withheld
from tidewarp.store import Store
from tidewarp.store.contract import ArtifactInfo
from tidewarp.store.described import describe

__all__ = ["command"]


@click.command()
@store_argument
@json_option
def command(place: Path, as_json: bool) -> int:
    """Count what is in the store DIR: artifacts that are visible and hidden, their bytes, records, domains."""
    with opened_store(place, read_only=True) as store:
        document = _counted(store)
        ledger = find_ledger(store, place)
        conflicts = [] if ledger is None else ledger.conflicts()
        quarantined = [] if ledger is None else ledger.quarantined()
    on_disk = describe(place)
    document |= {
        "file_bytes": on_disk.file_bytes,
        "quota_bytes": on_disk.settings.quota_bytes,
        "format": on_disk.format,
        "conflicts_open": sum(one.state == "open" for one in conflicts),
        "quarantine_bytes": sum(len(one.data) for one in quarantined),
    }
    emit(document, as_json, _render)
    return 0


def _counted(store: Store) -> dict[str, Any]:
    view = store.view(scope="all")
    visible, hidden = view.visible(), view.hidden()
    infos = [info for ref in visible if (info := _info(store, ref)) is not None]
    held = [*infos, *(info for ref in hidden if (info := _info(store, ref)) is not None)]
    tags = [info.tag for info in infos]
    shown = store.view(scope="published").visible()
    lacking = [ref for ref, is_here in zip(shown, store.has(shown), strict=True) if not is_here]
    withheld = [info for ref in lacking if (info := _info(store, ref)) is None or info.state == "withheld"]
    domains = store.domains()
    return {
        "artifacts": len(visible),
        "hidden": len(hidden),
        "bytes": sum(info.size for info in held if info.state == "here"),
        "withheld": len(withheld),
        "withheld_bytes": sum(info.size for info in withheld if info is not None),
        "edges": tags.count(TAG_EDGE),
        "receipts": tags.count(TAG_RECEIPT),
        "records": sum(domain.size for domain in domains),
        "domains": len(domains),
    }


def _withheld(document: Mapping[str, Any]) -> str:
    counted = f"{document['withheld']:,} artifacts, {document['withheld_bytes']:,} bytes that have not come"
    return f"withheld  {counted}: tidewarp store fsck DIR --repair --from URL"


def _info(store: Store, ref: Reference) -> ArtifactInfo | None:
    """What is known of an artifact; None where no record says its size, and its bytes are not here."""
    try:
        return store.info(ref)
    except Withheld:
        return None


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
        + ([_withheld(document)] if document["withheld"] else [])
        + ([f"conflicts {document['conflicts_open']:,} open"] if document["conflicts_open"] else [])
        + ([f"refused   {document['quarantine_bytes']:,} bytes are kept"] if document["quarantine_bytes"] else [])
    )
