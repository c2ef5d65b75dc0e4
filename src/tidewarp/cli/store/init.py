"""`tidewarp store init`: an empty store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.places import SIZE_MAX, STORE, read_key_file, store_argument
from tidewarp.codec.bodies import SNAPSHOT, SnapshotBody
from tidewarp.codec.records import PUBLISHED
from tidewarp.errors import OperatorError, StoreFull
from tidewarp.federation.shell.site import open_site
from tidewarp.store import Entry, open_store
from tidewarp.store.schema import APPLICATION_ID
from tidewarp.store.shards import SHARDS_MAX

__all__ = ["command"]

_INLINE_MAX = 1 << 20  # of a payload that stands in the row of its artifact
_HEADER_BYTES = 100  # of a database of SQLite
SUCCESSOR = "successor of"
"""How the name of a successor's first record, a SNAPSHOT, begins; the old domain follows."""


@click.command()
@store_argument
@click.option(
    "--quota", "quota_bytes", metavar="B", type=click.IntRange(1, SIZE_MAX), help="Bytes of payload that it may hold."
)
@click.option(
    "--inline-max",
    metavar="B",
    type=click.IntRange(0, _INLINE_MAX),
    help="Bytes of the largest payload inside the database; larger ones are split into blocks. Default: 131072.",
)
@click.option(
    "--shards",
    metavar="N",
    type=click.IntRange(1, SHARDS_MAX),
    default=1,
    show_default=True,
    help="Divide its records into so many ranges, each of which can be read by itself.",
)
@click.option(
    "--key-file",
    metavar="F",
    type=click.Path(path_type=Path, readable=False),
    help="The private key of its domain, 32 bytes. Default: a new one. Two stores with one key are a fork.",
)
@click.option(
    "--successor",
    "old_place",
    metavar="OLD",
    type=STORE,
    help="Go on for the store OLD, of which two copies were written to: name its domain, and what both have.",
)
@json_option
def command(
    place: Path,
    quota_bytes: int | None,
    inline_max: int | None,
    shards: int,
    key_file: Path | None,
    old_place: Path | None,
    as_json: bool,
) -> int:
    """Make the store DIR: a directory, or one file if DIR ends in .tw.

    It gets a private key, and its public key the domain under which its records are known everywhere. Nothing that is
    there is overwritten: where a store stands already, or something else, this ends with 2.
    """
    first = None if old_place is None else _succession(old_place)
    seed = None if key_file is None else read_key_file(key_file)
    _refuse_a_store(place)
    is_new = place.suffix != ".tw" and not place.exists()
    if is_new:
        place.mkdir()
    document: dict[str, Any] | None = None
    try:
        with open_store(
            place, create=True, key=seed, quota_bytes=quota_bytes, inline_max=inline_max, shards=shards
        ) as store:
            (own,) = store.domains()
            document = {"domain": own.id, "public_key": own.key, "path": place.resolve()}
            if first is not None:
                store.journal.append([first])
    except OperatorError as error:
        if is_new and not any(place.iterdir()):
            place.rmdir()
        if document is None and isinstance(error, StoreFull):
            action = (
                "make room, and give the same command again: there is no store yet, and what was begun is used then"
            )
            raise StoreFull(error.value, error.rule, action) from None
        if document is None:
            raise
        made = f"the store is made: domain {document['domain'].hex()}, public key {document['public_key'].hex()}"
        raise type(error)(error.value, f"{error.rule}, but {made}", error.action) from None
    emit(document, as_json, _render)
    return 0


def _succession(old_place: Path) -> Entry:
    """The record by which a store says whose successor it is: the common prefix of the old domain, under its name."""
    with open_site(old_place, read_only=True) as site:
        name = f"{SUCCESSOR} {site.store.domain.hex()}"
        return Entry(SNAPSHOT, SnapshotBody(site.common_prefix(), name).to_bytes(), PUBLISHED)


def _refuse_a_store(place: Path) -> None:
    try:
        open_store(place, read_only=True).close()
    except OperatorError:  # of a folder with other things in it, making a store there says so
        if not place.exists() or place.is_dir() or (place.is_file() and not _is_foreign(place)):
            return
        rule = "something else stands here, and nothing is overwritten"
        raise OperatorError(str(place), rule, "name another place, one where nothing is") from None
    raise OperatorError(str(place), "it is a store already; nothing was changed", "use it, or name another place")


def _is_foreign(file: Path) -> bool:
    """Whether it is no database of ours, of which a creation that was cut short may have left no table, or no byte: F.tw.

    Where a database file says whose it is: https://www.sqlite.org/fileformat.html, section 1.3.
    """
    with file.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    schema_cookie, application = (int.from_bytes(head[at : at + 4], "big") for at in (40, 68))
    is_database = len(head) == _HEADER_BYTES and head.startswith(b"SQLite format 3\0")
    if not head:
        return file.suffix != ".tw"
    return not (is_database and (application == APPLICATION_ID or not (application or schema_cookie)))


def _render(document: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"store      {document['path']}",
            f"domain     {document['domain'].hex()}",
            f"public key {document['public_key'].hex()}",
        ]
    )
