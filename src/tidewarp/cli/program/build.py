"""`tidewarp program build`: a program of its source."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.program.operations import registry_of
from tidewarp.cli.store.places import STORE, opened_store
from tidewarp.codec.artifacts import TAG_PROGRAM
from tidewarp.codec.programs import PARAMS_BYTES_MAX, Program
from tidewarp.errors import ProgramRefused
from tidewarp.programs import build_program
from tidewarp.store.files import open_regular

__all__ = ["command"]

_SOURCE_BYTES_MAX = 64 << 20
_ACTION = "correct the source"


@click.command()
@click.argument("file", metavar="FILE.json", type=click.Path(path_type=Path, readable=False))
@click.option("--store", "place", metavar="DIR", type=STORE, required=True, help="Where the program is kept.")
@json_option
def command(file: Path, place: Path, as_json: bool) -> int:
    """Make the program whose nodes FILE.json has, keep it in a store, and print its reference.

    Sources of one graph are one program with one reference, whatever names they use and in whatever order.
    """
    program = build_program(
        _read_source(file), registry_of(), read_file=lambda name: _read_constant(file.parent / name)
    )
    with opened_store(place) as store:
        ref = store.put(program.to_bytes(), tag=TAG_PROGRAM)
        store.signed_head()  # for a server beside, which cannot sign
    emit(_described(ref.hex(), program), as_json, _render)
    return 0


def _described(ref: str, program: Program) -> dict[str, Any]:
    return {
        "program_ref": ref,
        "nodes": len(program.nodes),
        "inputs": program.externals,
        "outputs": len(program.roots),
    }


def _read_source(file: Path) -> Mapping[str, Any]:
    with BufferedReader(open_regular(file)) as stream:
        data = stream.read(_SOURCE_BYTES_MAX + 1)
    if len(data) > _SOURCE_BYTES_MAX:
        raise ProgramRefused(str(file), f"a source has at most {_SOURCE_BYTES_MAX} bytes", "keep constants in files")
    try:
        source = json.loads(data, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProgramRefused(str(file), f"it is no JSON: {error}", _ACTION) from None
    if not isinstance(source, dict):
        raise ProgramRefused(str(file), "a source is an object", _ACTION)
    return source


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As ``dict``, but a key that stands there twice would silently lose a node."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r:.80} stands twice in one object")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _read_constant(file: Path) -> bytes:
    try:
        opened = open_regular(file)
    except ValueError:
        raise ProgramRefused(f"file {str(file)!r:.80}", "this is no name of a file", _ACTION) from None
    with BufferedReader(opened) as stream:
        return stream.read(PARAMS_BYTES_MAX + 1)  # one more is too many, and the program says so


def _render(document: Mapping[str, Any]) -> str:
    return str(document["program_ref"])
