"""`tidewarp program request`: ask for a run that any site may execute."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.program.operations import registry_of
from tidewarp.cli.program.requests import described
from tidewarp.cli.store.places import STORE, opened_store
from tidewarp.cli.store.references import find_reference
from tidewarp.codec.artifacts import TAG_REQUEST
from tidewarp.codec.references import Reference
from tidewarp.codec.requests import RequestInput, RequestOutput, RunRequest
from tidewarp.errors import OperatorError
from tidewarp.programs.requests import RequestBoard, submit
from tidewarp.programs.runs import read_program
from tidewarp.store import Store
from tidewarp.store.fold import View

__all__ = ["command"]

_OUTPUT = re.compile(r"([^:]+):([0-9]{1,9})")


@click.command()
@click.option("--store", "place", metavar="DIR", type=STORE, required=True, help="Where the request is kept.")
@click.argument("program", metavar="PROGRAM_REF")
@click.argument("inputs", metavar="[INPUT]...", nargs=-1)
@click.option("--params", metavar="REF", help="The params of the run, an artifact too.")
@json_option
def command(place: Path, program: str, inputs: tuple[str, ...], params: str | None, as_json: bool) -> int:
    """Ask for a run of a program on INPUTs, and print the reference of the request.

    An INPUT is an artifact, or REQUEST_REF:N, output N (from 0) of a run that was asked for. What is not here yet is named
    by its whole reference: the run waits for it. What is asked for already is not asked for again. The site whose turn
    it is executes it: tidewarp program work.
    """
    with opened_store(place) as store:
        view = store.view(scope="all")
        request = RunRequest(
            _program(store, view, program),
            tuple([_input(store, view, text) for text in inputs]),
            None if params is None else find_reference(view, params, absent=True, store=store),
        )
        before = store.journal.size
        ref = submit(store, request)
        is_new = store.journal.size > before
        store.signed_head()  # for a server beside, which cannot sign
        state = RequestBoard(store, registry_of()).state(ref)
    emit({**described(state), "new": is_new}, as_json, _render)
    return 0


def _program(store: Store, view: View, text: str) -> Reference:
    """A program by its reference; one that is here has to be one."""
    ref = find_reference(view, text, absent=True, store=store)
    if all(store.has([ref])):
        read_program(store, ref)
    return ref


def _input(store: Store, view: View, text: str) -> RequestInput:
    output = _OUTPUT.fullmatch(text)
    ref = find_reference(view, text if output is None else output[1], absent=True, store=store)
    is_here = all(store.has([ref]))
    is_request = is_here and store.info(ref).tag == TAG_REQUEST
    if output is None:
        if is_request:
            rule = "this is a request, and no output of it"
            raise OperatorError(f"input {text[:80]}", rule, f"name its first output: {text[:80]}:0")
        return ref
    if is_here and not is_request:
        raise OperatorError(f"input {text[:80]}", "this is no request, so it has no outputs", "leave :N out")
    number = int(output[2])
    if is_request:
        _check_number(store, RunRequest.from_bytes(store.get(ref)).program, number, text)
    return RequestOutput(ref, number)


def _check_number(store: Store, program: Reference, number: int, text: str) -> None:
    """Refuse an output that the program, if it is here, does not have: nobody would ever see it."""
    if all(store.has([program])):
        outputs = len(read_program(store, program).roots)
        if number >= outputs:
            rule = f"its program has {outputs} outputs, counted from 0"
            raise OperatorError(f"input {text[:80]}", rule, "name one of these")


def _render(document: Mapping[str, Any]) -> str:
    return str(document["request_ref"])
