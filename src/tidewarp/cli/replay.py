"""`tidewarp replay`: run a journal again and compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.progress import ProgressBar
from tidewarp.cli.values import parse_time
from tidewarp.twin import load_model, replay

__all__ = ["command"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--model", help="The model, FILE.py[:function]. Default: the path that the journal recorded, beside FILE."
)
@click.option("--until", help="Virtual time to stop at: 8h, seconds, or an ISO time.")
@click.option(
    "--guard", is_flag=True, help="End at the model's first look at the host's clock or own random number. Slow."
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def command(file: Path, model: str | None, until: str | None, guard: bool, quiet: bool, as_json: bool) -> int:
    """Run the journal FILE again, without its sources and sinks, and compare every mark and the digest.

    Ends with 1 if something came out differently; the first difference is named.
    """
    build = None if model is None else load_model(model)
    end = None if until is None else parse_time(until)
    with ProgressBar("replaying", quiet=quiet) as bar:
        result = replay(file, build, until=end, guard=guard, probe=bar)
    emit(result.document(), as_json, _render)
    return 1 if result.equal is False else 0


def _render(document: Mapping[str, Any]) -> str:
    verdict = {
        True: "equal",
        False: "DIFFERENT",
        None: "no digest was recorded here: killed, ended by an error of its model, or short of the end",
    }
    lines = [
        f"digest       {document['digest']}",
        f"recorded     {document['recorded'] or 'none'}",
        f"verdict      {verdict[document['equal']]} ({document['marks']} marks compared)",
        f"inputs       {document['inputs']:,}",
        f"outputs      {document['outputs']:,}",
        f"virtual time {document['virtual_time_s']:,.3f} s in {document['wall_s']:.2f} s ({document['speed_x']:,.0f}x)",
    ]
    if document["first_difference"] is not None:
        first = document["first_difference"]
        lines.append(f"first difference: {', '.join(first['parts'])} at tick {first['tick']}, record {first['mark']}")
    if document["model_changed"]:
        lines.append(f"model files that differ from the journal's: {', '.join(document['model_changed'])}")
    return "\n".join(lines)
