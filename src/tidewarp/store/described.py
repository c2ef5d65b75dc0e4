"""What a store is on the disk: its format, what was chosen for it, the bytes of its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tidewarp.errors import OperatorError
from tidewarp.store.connection import DATABASE_ERRORS, connect_read_only, failure, is_sealed
from tidewarp.store.files import Place, locate
from tidewarp.store.schema import JOURNAL_FORMAT, Settings, check_format, read_settings

__all__ = ["Described", "Holding", "describe", "holdings"]


class Described(NamedTuple):
    """Format and settings; names of the upper layers with tables in it; ``file_bytes`` of all its files together."""

    format: int
    settings: Settings
    extensions: frozenset[str]
    file_bytes: int


class Holding(NamedTuple):
    """A row of an artifact as it stands, not believed: its name (bytes of a reference), tag, payload bytes, state."""

    name: bytes
    tag: int | None
    size: int | None
    state: int


def holdings(path: str | os.PathLike[str]) -> Iterator[Holding]:
    """The artifacts that the store at ``path`` has a row of, read as they come: for who counts them all. Raises as :func:`describe`."""
    place = locate(path, create=False, read_only=True)
    try:
        with closing(connect_read_only(place.database, immutable=is_sealed(place.database))) as db:
            if check_format(db, str(place.database)) != JOURNAL_FORMAT:
                for row in db.execute("SELECT ref, tag, size, state FROM artifact"):
                    yield Holding(*row)
    except DATABASE_ERRORS as error:
        raise failure(error, place.database, "table artifact") from error


def describe(path: str | os.PathLike[str]) -> Described:
    """The store at ``path``, which may be open elsewhere.

    Raises:
        OperatorError: missing, not permitted, no store.
        Corrupt, StoreFailed: it cannot be read.
    """
    place = locate(path, create=False, read_only=True)
    database = str(place.database)
    try:
        with closing(connect_read_only(place.database, immutable=is_sealed(place.database))) as db:
            version = check_format(db, database)
            settings = read_settings(db, database)
            rows = [] if version == JOURNAL_FORMAT else db.execute("SELECT name FROM extension").fetchall()
    except DATABASE_ERRORS as error:
        raise failure(error, place.database, "table meta") from error
    return Described(version, settings, frozenset(name for (name,) in rows), sum(map(_size, _files(place))))


def _files(place: Place) -> set[Path]:
    wal = [Path(f"{place.database}{suffix}") for suffix in ("-wal", "-shm")]
    blocks = [] if place.blocks is None else list(place.blocks.rglob("*"))
    return {place.database, place.key, place.lock, *wal, *blocks}


def _size(file: Path) -> int:
    """Of a file; 0 of one that has gone meanwhile, and of a folder."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OperatorError(str(file), f"cannot be read: {error.strerror}", "check its permissions") from None
