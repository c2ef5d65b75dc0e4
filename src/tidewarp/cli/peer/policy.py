"""`tidewarp peer policy`: whose records count, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.places import STORE, store_argument
from tidewarp.federation.shell.site import open_site, read_policy

__all__ = ["command"]


@click.command()
@store_argument
@click.option("--use", "file", metavar="FILE.toml", type=STORE, help="Put this policy in force.")
@click.option(
    "--without-own-domain",
    "without_own",
    is_flag=True,
    help="With --use: also a policy under which nothing counts that this store wrote.",
)
@json_option
def command(place: Path, file: Path | None, without_own: bool, as_json: bool) -> int:
    """Print the policy that is in force in the store DIR, or adopt that of FILE.toml.

    Members of a federation agree on a state under one policy: give all of them the same file, and compare the hash.
    One that would let nothing count any more that this store wrote is refused, unless --without-own-domain is said.
    """
    with open_site(place, read_only=file is None) as site:
        changes = [] if file is None else site.adopt(read_policy(file), without_own=without_own)
        policy = site.policy
        document = {
            "policy_hash": None if policy is None else policy.hash,
            "changes": changes,
            "policy": None if policy is None else policy.to_toml(),
        }
    emit(document, as_json, _render if file is None else _render_changes)
    return 0


def _render(document: Mapping[str, Any]) -> str:
    if document["policy"] is None:
        return "# no policy is in force: whatever is pulled counts"
    return f"# policy {document['policy_hash'].hex()}\n{document['policy']}"


def _render_changes(document: Mapping[str, Any]) -> str:
    return "\n".join([f"policy {document['policy_hash'].hex()}", *(document["changes"] or ["nothing has changed"])])
