"""`tidewarp store digest`: what two stores compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.places import opened_store, store_argument
from tidewarp.cli.store.snapshots import at_option, snapshot_at
from tidewarp.store.fold import View

__all__ = ["command"]


@click.command()
@store_argument
@click.option(
    "--scope",
    type=click.Choice(["published", "all"]),
    default="published",
    show_default=True,
    help="all: with what is internal here, which no other site can know.",
)
@at_option
@json_option
def command(place: Path, scope: Literal["published", "all"], at: str | None, as_json: bool) -> int:
    """Print the state hash of the store DIR: one hash of everything that is visible, hidden or in conflict there.

    Two stores that hold the same records, in whatever order these came, have the same one.
    """
    with opened_store(place, read_only=True) as store:
        view = store.view(snapshot_at(store, at), scope=scope)
        document = {
            "state_hash": view.state_hash(),
            "snapshot_id": view.snapshot().id(),
            "policy_hash": view.admission.policy_hash,
            "scope": scope,
            "domains": {head.domain.hex(): _standing(view, head.domain, head.seq, head.hash) for head in view.heads()},
        }
    emit(document, as_json, _render)
    return 0


def _standing(view: View, domain: bytes, seq: int, head: bytes) -> dict[str, Any]:
    status = view.status(domain)
    return {"seq": seq, "head": head, "status": None if status is None else status.name.lower()}


def _render(document: Mapping[str, Any]) -> str:
    lines = [
        f"state hash  {document['state_hash'].hex()} ({document['scope']})",
        f"snapshot    {document['snapshot_id'].hex()}",
        f"policy      {document['policy_hash'].hex() if any(document['policy_hash']) else 'none'}",
    ]
    lines += [f"domain {name} {one['status']}, {one['seq']:,} records" for name, one in document["domains"].items()]
    return "\n".join(lines)
