"""`tidewarp program requests`: how far the runs are that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.program.operations import models_option, registry_of
from tidewarp.cli.store.places import STORE, opened_store
from tidewarp.cli.store.references import find_references
from tidewarp.programs.requests import RequestBoard, RequestState

__all__ = ["command", "described"]

_DIGITS = 16  # of a reference, where several stand in a line


@click.command()
@click.option("--store", "place", metavar="DIR", type=STORE, required=True, help="Where the requests are.")
@click.argument("requests", metavar="[REQUEST_REF]...", nargs=-1)
@models_option
@json_option
def command(place: Path, requests: tuple[str, ...], models: tuple[str, ...], as_json: bool) -> int:
    """Say of each request in the store DIR, or of those named, how far it is, and what it came to or waits for.

    It is waiting, ready, done, or failed, since its program fails on these inputs; divergent, where two results contradict
    each other and a verdict is missing; blocked, where another run has failed that it hangs on; elsewhere, where an
    operation is not here (of a replay: --model names its model); or invalid.
    """
    with opened_store(place, read_only=True) as store:
        board = RequestBoard(store, registry_of(models))
        wanted = find_references(store.view(scope="all"), requests, store)
        states = [board.state(ref) for ref in wanted] if wanted else board.states()
    emit({"requests": [described(one) for one in states]}, as_json, _render)
    return 0


def described(state: RequestState) -> dict[str, Any]:
    """Where a request stands, as a document."""
    return {
        "request_ref": state.request.hex(),
        "stage": state.stage.value,
        "computation_key": state.key,
        "output_refs": None if state.outputs is None else [ref.hex() for ref in state.outputs],
        "waits_for": [ref.hex() for ref in state.waits_for],
    }


def _render(document: Mapping[str, Any]) -> str:
    return "\n".join(map(_line, document["requests"])) or "no requests"


def _line(one: Mapping[str, Any]) -> str:
    named = one["output_refs"] or one["waits_for"]
    what = ", ".join(named) if one["output_refs"] else ", ".join(ref[:_DIGITS] for ref in named)
    return f"{one['request_ref'][:_DIGITS]} {one['stage']:9} {what}".rstrip()
