"""`tidewarp redeliver`: outputs that a sink lacks, made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.progress import ProgressBar
from tidewarp.errors import MissingExtra
from tidewarp.twin import load_model, redeliver

__all__ = ["command"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--sink", required=True, metavar="NAME", help="Which of the model's sinks.")
@click.option("--model", help="The model, as for `tidewarp replay`.")
@click.option("--accept-model", is_flag=True, help="Although the model's files changed since the journal was begun.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def command(file: Path, sink: str, model: str | None, accept_model: bool, quiet: bool, as_json: bool) -> int:
    """Send a sink the outputs of the journal FILE above the last one that it holds, made again by replay.

    Ends with 3 if the sink cannot be reached, also if that happens on the way.
    """
    build = None if model is None else load_model(model)
    with ProgressBar("replaying", quiet=quiet) as bar:
        result = redeliver(file, sink, build, accept_model=accept_model, probe=bar)
    emit(asdict(result), as_json, _render)
    return MissingExtra.exit_code if result.left else 0


def _render(document: Mapping[str, Any]) -> str:
    lines = [
        f"done    {document['done']:,}",
        f"left    {document['left']:,}",
        f"skipped {document['skipped']:,} held already",
    ]
    if document["dead"]:
        lines.append(f"dead    {document['dead']:,} refused for good")
    if document["reason"]:
        lines.append(f"reason  {document['reason']}")
    lines.append(f"last id {document['last_id'] or 'none'}")
    return "\n".join(lines)
