"""`tidewarp store conflicts`: what contradicts what, and a choice between it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.places import store_argument
from tidewarp.errors import OperatorError
from tidewarp.federation.conflicts import Contested, conflicts, find, find_choice, resolve
from tidewarp.federation.shell.site import Site, open_site

__all__ = ["command"]


@click.command()
@store_argument
@click.option("--all", "is_all", is_flag=True, help="Also those that are resolved.")
@click.option("--resolve", "prefix", metavar="ID", help="Settle this one; 12 digits of its id are enough.")
@click.option("--choose", "choice", metavar="HASH", help="The record, or the result, that counts.")
@json_option
def command(place: Path, is_all: bool, prefix: str | None, choice: str | None, as_json: bool) -> int:
    """List the conflicts that the store DIR knows of, or settle one.

    A fork (two records of one domain at one place) is settled by the one domain with the role resolve, two results of
    one computation by a domain with the role audit. The choice is a record: it takes effect wherever it is pulled.

    The proof of a fork is an artifact, the two headers and what was signed over both: anybody can check it, and has it with
    tidewarp store get.
    """
    if (prefix is None) != (choice is None):
        raise OperatorError("--resolve, --choose", "they go together", "give an ID and one of its HASHes")
    with open_site(place, read_only=prefix is None) as site:
        if prefix is not None and choice is not None:
            contested = find(_found(site), prefix)
            resolve(site.store, contested, find_choice(contested, choice), site.policy)
            site.settle()
        found = _found(site)
    shown = [one for one in found if is_all or one.state == "open" or (prefix and one.id.hex().startswith(prefix))]
    emit({"conflicts": [_document(one) for one in shown]}, as_json, _render)
    return 0


def _found(site: Site) -> list[Contested]:
    return conflicts(site.store, site.ledger, site.policy)


def _document(one: Contested) -> dict[str, Any]:
    choices = [
        {"hash": each.hash, "held": each.held, "outputs": [ref.hex() for ref in each.outputs]} for each in one.choices
    ]
    return {
        **one._asdict(),
        "subject": one.subject or None,
        "evidence": None if one.evidence is None else one.evidence.hex(),
        "first_seen": one.first_seen or None,
        "choices": choices,
    }


def _render(document: Mapping[str, Any]) -> str:
    lines = []
    for one in document["conflicts"]:
        subject = "" if one["subject"] is None else f" {one['subject'].hex()}"
        lines.append(f"{one['kind']} {one['id'].hex()} {one['state']}")
        lines.append(f" {subject} {one['rule']}".rstrip())
        for each in one["choices"]:
            marks = [*(["held here"] if each["held"] else []), *(["chosen"] if each["hash"] == one["chosen"] else [])]
            lines.append(f"  {each['hash'].hex()} {', '.join(marks)}".rstrip())
        if one["evidence"] is not None:
            lines.append(f"  proof {one['evidence']}")
    return "\n".join(lines) or "no conflicts"
