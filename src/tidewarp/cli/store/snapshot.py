"""`tidewarp store snapshot`: keep what is visible now under a name, and list what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.problem import escape
from tidewarp.cli.store.places import opened_store, store_argument
from tidewarp.cli.store.snapshots import kept_snapshots
from tidewarp.errors import OperatorError
from tidewarp.store import NAME_BYTES_MAX

__all__ = ["command"]


@click.command()
@store_argument
@click.argument("name", required=False)
@click.option("--remove", "is_removed", is_flag=True, help="Forget the snapshot NAME; records and bytes stay.")
@json_option
def command(place: Path, name: str | None, is_removed: bool, as_json: bool) -> int:
    """Keep a snapshot of the store DIR under NAME, or list those that are kept.

    A snapshot is how far each domain goes, in one hash: equal ids mean equal state. While it is kept, no collection drops
    bytes that were visible at it. Commands that read take its name, or its id, with --at.
    """
    if is_removed and name is None:
        raise OperatorError("--remove", "it takes the NAME of a snapshot", "see the names: tidewarp store snapshot DIR")
    if name is not None and not is_removed:
        _check_name(name)
    with opened_store(place, read_only=name is None) as store:
        if name is not None and is_removed:
            store.unpin(name)
        elif name is not None:
            store.pin(name, store.snapshot())
        shown = [
            {"name": one, "snapshot_id": what.id(), "policy_hash": what.policy_hash, "domains": len(what.vector)}
            for one, what in kept_snapshots(store).items()
        ]
    emit({"snapshots": shown}, as_json, _render)
    return 0


def _check_name(name: str) -> None:
    """Raise OperatorError unless it fits on one line of a terminal, and into a store."""
    if not (name.isprintable() and 1 <= len(name.encode()) <= NAME_BYTES_MAX):
        rule = f"a snapshot's name has 1 to {NAME_BYTES_MAX} bytes of UTF-8, no control characters"
        raise OperatorError(f"snapshot {name!r:.80}", rule, "choose another name")


def _render(document: Mapping[str, Any]) -> str:
    lines = [f"{one['snapshot_id'].hex()} {escape(one['name'])}" for one in document["snapshots"]]
    return "\n".join(lines) or "no snapshots"
