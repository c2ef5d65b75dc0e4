"""`tidewarp store gc`: drop bytes that nobody needs any more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.places import store_argument
from tidewarp.cli.values import WallSeconds
from tidewarp.federation.shell.site import open_site

__all__ = ["command"]


@click.command()
@store_argument
@click.option("--budget-s", metavar="S", type=WallSeconds(), required=True, help="Stop after so many wall seconds.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and keep it.")
@json_option
def command(place: Path, budget_s: float, dry_run: bool, as_json: bool) -> int:
    """Drop the bytes of what is hidden in the store DIR; every record stays.

    Bytes go if no domain that counts shows the artifact, no pin and no name keeps it, nothing visible needs it, and every
    peer has shown that it knows: see tidewarp peer status. Pull from a peer, and it is asked. What does not fit into the
    budget waits for the next call, which goes on from there.
    """
    with open_site(place, read_only=dry_run) as site:  # for the policy: it says who counts
        report = site.store.gc(budget_s, [site.awaited()], dry_run)
    emit(report._asdict(), as_json, _render)
    return 0


def _render(document: Mapping[str, Any]) -> str:
    freed = f"freed {document['freed_artifacts']:,} artifacts, {document['freed_bytes']:,} bytes"
    kept = ", ".join(f"{number:,} {reason}" for reason, number in sorted(document["kept"].items()))
    lines = [freed, f"kept  {kept or 'none'}"]
    if not document["complete"]:
        lines.append(f"left  {document['remaining']:,}: call it again")
    return "\n".join(lines)
