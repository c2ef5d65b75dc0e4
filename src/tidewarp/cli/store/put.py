"""`tidewarp store put`: keep a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.places import opened_store, store_argument
from tidewarp.clocks import WallClock
from tidewarp.errors import OperatorError

__all__ = ["command"]

_TAG_MAX = (1 << 32) - 1


def _tag(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A number of 32 bits, in decimal digits or as 0x…"""
    if value is None:
        return None
    try:
        tag = int(value, 0)
    except ValueError:
        tag = -1
    if not 0 <= tag <= _TAG_MAX:
        raise click.BadParameter(f"{value!r:.80} is no number from 0 to {_TAG_MAX:#x}", ctx, param)
    return tag


@click.command()
@store_argument
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, readable=False))
@click.option("--tag", metavar="T", callback=_tag, help="Type of the payload, a number; part of the reference.")
@click.option("--internal", is_flag=True, help="Peers may know that it is there, and not what it is.")
@click.option("--stamp", is_flag=True, help="Let its record say when it was written; tidewarp store log shows it.")
@json_option
def command(place: Path, file: Path, tag: int | None, internal: bool, stamp: bool, as_json: bool) -> int:
    """Keep FILE (- is standard input) in the store DIR, and print its reference.

    The reference is a hash of tag and bytes: it is the same everywhere. What the store shows already is not recorded
    again. The bytes are on the disk when the reference is printed.
    """
    with opened_store(place, clock=WallClock() if stamp else None) as store:
        before = store.journal.size
        ref = store.put(_standard_input() if str(file) == "-" else file, tag=tag, publish=not internal)
        info = store.info(ref)
        seq = store.journal.size
        store.signed_head()  # for a server beside, which cannot sign
    is_new = seq > before
    document = {"ref": ref.hex(), "size": info.size, "tag": info.tag, "new": is_new, "seq": seq if is_new else None}
    emit(document, as_json, _render)
    return 0


def _standard_input() -> BinaryIO:
    if sys.stdin is None:  # closed by whoever started the process
        raise OperatorError("-", "there is no standard input", "name a file")
    return sys.stdin.buffer


def _render(document: Mapping[str, Any]) -> str:
    return str(document["ref"])
