"""`tidewarp store upgrade`: the journal of an earlier release as a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.places import STORE
from tidewarp.connect.documents import last_tick_of
from tidewarp.store.upgrading import upgrade

__all__ = ["command"]


@click.command()
@click.argument("old", metavar="OLD.tw", type=STORE)
@click.argument("new", metavar="NEW", type=STORE)
@json_option
def command(old: Path, new: Path, as_json: bool) -> int:
    """Copy a journal that an earlier release wrote (format 1) into a new store: NAME.tw, or a directory.

    Its records, hashes and identity are the same, and a twin goes on with either. OLD.tw is not changed. Go on with one of
    the two alone, and keep the other for the archive: they have one key, and to write to both is a fork.
    """
    with upgrade(old, new, last_tick_of=last_tick_of) as store:
        journal = store.journal
        document = {"path": new.resolve(), "domain": store.domain, "records": journal.size, "head": journal.head}
    emit(document, as_json, _render)
    return 0


def _render(document: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"store      {document['path']}",
            f"domain     {document['domain'].hex()}",
            f"records    {document['records']:,}",
            f"head       {document['head'].hex()}",
        ]
    )
