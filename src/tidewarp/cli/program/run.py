"""`tidewarp program run`: run a program over artifacts of a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.program.operations import models_option, registry_of
from tidewarp.cli.store.places import STORE, opened_store
from tidewarp.cli.store.references import find_reference, find_references
from tidewarp.clocks.wall import WallClock
from tidewarp.codec.receipts import Executor
from tidewarp.codec.results import Status
from tidewarp.programs.runs import run
from tidewarp.store import Store
from tidewarp.store.files import locate, read_seed

__all__ = ["command", "executor_of"]

_NAME_DIGITS = 16  # of the domain, which is the name of an executor until people give it one


@click.command()
@click.option("--store", "place", metavar="DIR", type=STORE, required=True, help="Where everything is kept.")
@click.argument("program", metavar="PROGRAM_REF")
@click.argument("inputs", metavar="[INPUT_REF]...", nargs=-1)
@click.option("--params", metavar="REF", help="The params of the run, an artifact too.")
@click.option("--trace", is_flag=True, help="Keep what each node did.")
@click.option("--reproducible", is_flag=True, help="A receipt without times, so that it has the same reference again.")
@click.option("--salt", metavar="T", default="", help="Another computation of the same, to disown an earlier result.")
@click.option("--force", is_flag=True, help="Execute, although a result is accepted already.")
@models_option
@json_option
def command(
    place: Path,
    program: str,
    inputs: tuple[str, ...],
    params: str | None,
    trace: bool,
    reproducible: bool,
    salt: str,
    force: bool,
    models: tuple[str, ...],
    as_json: bool,
) -> int:
    """Run a program on artifacts, and keep its outputs, its result and a receipt.

    A run whose result is accepted is not made again. Ends with 1 if the program fails, which is a result too: it is kept
    with its receipt, and would be the same elsewhere.
    """
    with opened_store(place) as store:
        view = store.view(scope="all")
        done = run(
            store,
            find_reference(view, program, store=store),
            find_references(view, inputs, store),
            params=None if params is None else find_reference(view, params, store=store),
            registry=registry_of(models),
            executor=executor_of(store),
            seed=read_seed(locate(place, create=False, read_only=True)),
            now=None if reproducible else WallClock().unix_ns,
            trace=trace,
            salt=salt.encode(),
            force=force,
        )
        store.signed_head()  # for a server beside, which cannot sign
    document = {
        "result_ref": done.result.hex(),
        "receipt_ref": done.receipt.hex(),
        "output_refs": [ref.hex() for ref in done.outputs],
        "trace_ref": None if done.trace is None else done.trace.hex(),
        "status": int(done.status),
        "computation_key": done.key,
        "reused": done.reused,
    }
    emit(document, as_json, _render)
    return 0 if done.status is Status.OK else 1


def executor_of(store: Store) -> Executor:
    """Who executes at the site of ``store``: its key, and a name for people."""
    (own, *_) = store.domains()
    return Executor(own.key, own.id.hex()[:_NAME_DIGITS])


def _render(document: Mapping[str, Any]) -> str:
    status = Status(document["status"])
    lines = [
        f"status  {status.name} {'(an earlier run)' if document['reused'] else ''}".rstrip(),
        *(f"output  {ref}" for ref in document["output_refs"]),
        f"result  {document['result_ref']}",
        f"receipt {document['receipt_ref']}",
    ]
    if document["trace_ref"] is not None:
        lines.append(f"trace   {document['trace_ref']}")
    return "\n".join(lines)
