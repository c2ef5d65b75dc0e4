"""`tidewarp store get`: the bytes that a reference names."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.files import write_new
from tidewarp.cli.frame import emit, emit_bytes, json_option
from tidewarp.cli.store.places import SIZE_MAX, opened_store, store_argument
from tidewarp.cli.store.references import find_reference
from tidewarp.cli.store.snapshots import at_option, snapshot_at
from tidewarp.codec.artifacts import artifact_head
from tidewarp.codec.references import Reference
from tidewarp.errors import Corrupt, OperatorError
from tidewarp.store import Store

__all__ = ["command"]

_PIECE_BYTES = 1 << 20


@click.command()
@store_argument
@click.argument("text", metavar="REF")
@click.option("-o", "out", metavar="FILE", type=click.Path(path_type=Path, readable=False), help="Write to a new file.")
@click.option("--offset", metavar="N", type=click.IntRange(0, SIZE_MAX), default=0, help="Leave out the first N bytes.")
@click.option("--length", metavar="N", type=click.IntRange(0, SIZE_MAX), help="At most N bytes.")
@click.option("--include-hidden", is_flag=True, help="Also what a tombstone hides.")
@at_option
@json_option
def command(
    place: Path,
    text: str,
    out: Path | None,
    offset: int,
    length: int | None,
    include_hidden: bool,
    at: str | None,
    as_json: bool,
) -> int:
    """Write the bytes of the artifact REF of the store DIR to standard output.

    The first 12 digits of a reference, or more, will do where one reference alone begins so. All bytes are hashed
    before the first of them is given; ends with 1 if they are not what was put, and nothing was written. FILE may be -,
    which is standard output.
    """
    if out is not None and str(out) == "-":
        out = None
    if as_json and out is None:
        raise OperatorError("--json", "bytes and an object do not fit on one standard output", "give -o FILE too")
    with opened_store(place, read_only=True) as store:
        ref = find_reference(store.view(snapshot_at(store, at), scope="all"), text, hidden=include_hidden, store=store)
        if out is None:
            deque(_pieces(store, ref, offset, length), maxlen=0)  # what went to a pipe cannot be taken back
            emit_bytes(_pieces(store, ref, offset, length))
            return 0
        document = {"ref": ref.hex(), "size": write_new(out, _pieces(store, ref, offset, length)), "path": out}
    emit(document, as_json, _render)
    return 0


def _pieces(store: Store, ref: Reference, offset: int, length: int | None) -> Iterator[bytes]:
    info = store.info(ref)
    is_whole = not offset and (length is None or length >= info.size)
    left = info.size if length is None else length
    digest = sha256(artifact_head(info.size, info.tag))
    with store.open(ref) as stream:
        stream.seek(offset)
        while piece := stream.read(min(left, _PIECE_BYTES)):
            left -= len(piece)
            if is_whole:
                digest.update(piece)
            yield piece
    if is_whole and digest.digest() != ref.digest:
        raise Corrupt(ref.hex(), "its bytes do not have its name", "put the same file again, or pull it from a peer")


def _render(document: Mapping[str, Any]) -> str:
    return f"{document['size']:,} bytes in {document['path']}"
