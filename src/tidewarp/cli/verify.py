"""`tidewarp verify`: check a journal without running its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.progress import ProgressBar
from tidewarp.errors import Corrupt
from tidewarp.twin import verify

__all__ = ["command"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--head", metavar="HEX", help="A head that was kept elsewhere; finds records that were cut off.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def command(file: Path, head: str | None, quiet: bool, as_json: bool) -> int:
    """Check the journal FILE: every stored byte, the chain, cursors and the marks' inputs. Runs no model.

    Ends with 1 and the first bad record, page or table if something is not what was written. A journal without
    records has nothing wrong in it; --head tells one that was never begun from one that was emptied.
    """
    with ProgressBar("verifying", quiet=quiet) as bar:
        try:
            verified = verify(file, head=head, probe=bar)
        except Corrupt as error:
            if not as_json:
                raise
            bad = {"seq": error.seq, "where": error.value, "rule": error.rule, "action": error.action}
            emit({"ok": False, "first_bad": bad, "exit": error.exit_code}, as_json, str)
            return error.exit_code
    emit({"ok": True, "first_bad": None, **asdict(verified)}, as_json, _render)
    return 0


def _render(document: Mapping[str, Any]) -> str:
    found = f"{document['records']:,} records, {document['inputs']:,} inputs, {document['marks']} marks"
    lines = [
        f"ok           {found}"
        if document["records"]
        else "empty        no records: no run was begun, or all were removed",
        f"head         {document['head']}",
        f"domain       {document['domain']}",
        f"digest       {document['digest'] or 'none: the run was not ended in order'}",
    ]
    if document["key_fault"] is not None:
        lines.append(f"key          {document['key_fault']}: this journal can be read here, and not be continued")
    if document["head_seq"] is not None:
        lines.append(f"head given   is that of record {document['head_seq']}: nothing before it is missing")
    return "\n".join(lines)
