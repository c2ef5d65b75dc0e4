"""`tidewarp verify`: check a journal without running its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tidewarp import twin
from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.progress import ProgressBar
from tidewarp.errors import Corrupt, OperatorError
from tidewarp.twin import verify

__all__ = ["command"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--head", metavar="HEX", help="A head that was kept elsewhere; finds records that were cut off.")
@click.option("--replay-cuts", is_flag=True, help="Make the run again from each of its cuts to the next, and compare.")
@click.option(
    "--receipt",
    "out",
    metavar="BUNDLE",
    type=click.Path(path_type=Path, readable=False),
    help="Make the run again, and write its receipt to a new file, with all that others need to check it.",
)
@click.option(
    "--store",
    "place",
    metavar="DIR",
    type=click.Path(path_type=Path, readable=False),
    help="With --receipt: a store that signs and keeps it.",
)
@click.option("--model", help="With these: the model, FILE.py[:function]. Default: as recorded, beside FILE.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def command(
    file: Path,
    head: str | None,
    replay_cuts: bool,
    out: Path | None,
    place: Path | None,
    model: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Check the journal FILE: every stored byte, the chain, cursors and the marks' inputs.

    Runs no model without --replay-cuts or --receipt. What the latter wrote is checked, on any machine that has the model,
    with: tidewarp store verify --bundle BUNDLE --model FILE.py

    Ends with 1 and the first bad record, page or table if something is not what was written. A journal without
    records has nothing wrong in it; --head tells one that was never begun from one that was emptied.
    """
    if place is not None and out is None:
        raise OperatorError("--store", "it keeps a receipt, and none is asked for", "give --receipt BUNDLE too")
    with ProgressBar("verifying", quiet=quiet) as bar:
        try:
            verified = verify(file, head=head, probe=bar)
        except Corrupt as error:
            if not as_json:
                raise
            bad = {"seq": error.seq, "where": error.value, "rule": error.rule, "action": error.action}
            emit({"ok": False, "first_bad": bad, "exit": error.exit_code}, as_json, str)
            return error.exit_code
    document = {"ok": True, "first_bad": None, **asdict(verified)}
    if replay_cuts:
        with ProgressBar("replaying", quiet=quiet) as bar:
            found = twin.replay_cuts(file, None if model is None else twin.load_model(model), probe=bar)
        document |= {
            "ok": found.first_difference is None,
            "cuts": found.cuts,
            "first_difference": found.first_difference,
        }
    if out is not None:
        from tidewarp.cli.receipt import write_receipt  # programs and exchange: who checks bytes needs neither

        document |= write_receipt(file, out, model=model, place=place)
        document["ok"] = document["ok"] and document["equal"] is not False
    emit(document, as_json, _render)
    return 0 if document["ok"] else 1


def _render(document: Mapping[str, Any]) -> str:
    found = f"{document['records']:,} records, {document['inputs']:,} inputs, {document['marks']} marks"
    lines = [
        f"{'ok ' if document['ok'] else 'bad'}          {found}"
        if document["records"]
        else "empty        no records: no run was begun, or all were removed",
        f"head         {document['head']}",
        f"domain       {document['domain']}",
        f"digest       {document['digest'] or 'none: the run was not ended in order'}",
    ]
    if document["key_fault"] is not None:
        lines.append(f"key          {document['key_fault']}: this journal can be read here, and not be continued")
    if "cuts" in document:
        lines.append(f"cuts         {document['cuts']} replayed")
        first = document["first_difference"]
        if first is not None:
            place = f"record {first.get('cut', first.get('mark'))}"
            lines.append(f"first difference: {', '.join(first['parts'])} at tick {first['tick']}, {place}")
    if "receipt" in document:
        is_other = document["equal"] is False
        lines.append(f"replayed     {document['replayed']}{', which is DIFFERENT' if is_other else ''}")
        lines.append(f"receipt      {document['receipt']} in {document['bundle']}")
    if document["head_seq"] is not None:
        lines.append(f"head given   is that of record {document['head_seq']}: nothing before it is missing")
    return "\n".join(lines)
