"""`tidewarp redrive`: dead letters again as inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.progress import ProgressBar
from tidewarp.twin import load_model, open_recorded

__all__ = ["command"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--source", required=True, metavar="NAME", help="Whose dead letters.")
@click.option("--model", help="The model, as for `tidewarp replay`.")
@click.option("--accept-model", is_flag=True, help="Although the model's files changed since the journal was begun.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def command(file: Path, source: str, model: str | None, accept_model: bool, quiet: bool, as_json: bool) -> int:
    """Admit the dead letters of a source of the journal FILE again, once the model has changed.

    Those that fit now become inputs at the time where the journal ends, and `tidewarp run --resume` goes on with them.
    The others stay dead letters. Nothing is driven twice.
    """
    build = None if model is None else load_model(model)
    with (
        ProgressBar("recovering", quiet=quiet) as bar,
        open_recorded(file, build, accept_model=accept_model, probe=bar) as twin,
    ):
        done = twin.redrive(source)
    emit(asdict(done), as_json, _render)
    return 0


def _render(document: Mapping[str, Any]) -> str:
    left = ", ".join(f"{rule} {count}" for rule, count in document["rules"].items())
    return f"done {document['done']:,}\nleft {document['left']:,}" + (f" ({left})" if left else "")
