"""The lines of a file as messages: their numbers are their offsets, and none is longer in memory than a message may be."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, cast

from tidewarp.connect.contract import HEAD_BYTES, MESSAGE_BYTES_MAX, Raw
from tidewarp.errors import OperatorError

__all__ = ["DAMAGED", "LineReader", "Place", "open_lines", "read_lines"]

DAMAGED = (OSError, EOFError, zlib.error)
"""What reading a file, gzip or not, may raise."""

_READ_BYTES = 16 << 20  # after so many a read is complete, whatever its limit: 8,192 lines may have 8 GiB
_POLL_S = 0.05  # a file does not say that it has grown
_raw = partial(tuple.__new__, Raw)  # without a call in Python for each line


@dataclass
class Place:
    """How far a file that is still growing has been read: number of lines, and bytes."""

    row: int = 0
    at: int = 0


class LineReader:
    """The lines of ``file`` behind number ``after``; begins where the file stands. ``follow``: waits where it ends.

    A file that is followed is read to its last line end: a line that is being written is no line yet.
    """

    def __init__(self, path: Path, file: IO[bytes], after: int, follow: bool) -> None:
        self._path, self._file, self._after = path, file, after
        self._place = Place(0, file.tell()) if follow else None
        self._lines = read_lines(file, after, self._place)

    async def read(self, limit: int) -> list[Raw] | None:
        """The next lines; None at the end of a file that is not followed. OperatorError where it cannot be read on."""
        while not (raws := self._some(limit)):
            if self._place is None:
                return None
            await asyncio.sleep(_POLL_S)
            self._refuse_another(self._place)
            self._lines = read_lines(self._file, self._after, self._place)
        return raws

    def _some(self, limit: int) -> list[Raw]:
        raws: list[Raw] = []
        room = _READ_BYTES
        try:
            for raw in islice(self._lines, limit):
                raws.append(raw)
                room -= len(raw.payload)
                if room <= 0:
                    break
        except DAMAGED as error:
            raise OperatorError(str(self._path), f"cannot be read on: {error}", "repair it, then --resume") from error
        return raws

    def _refuse_another(self, place: Place) -> None:
        """Its rest would be lost in silence where it was cut, or another file has taken its name."""
        found = os.fstat(self._file.fileno())
        try:
            same = os.path.samestat(found, self._path.stat())
        except FileNotFoundError:
            same = False
        if not same or found.st_size < place.at:
            rule = f"it was {'cut' if same else 'replaced, or removed,'} while it is followed"
            raise OperatorError(str(self._path), rule, "follow a file that only grows; restore it, then --resume")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_lines(path: Path, kind: str, follow: bool) -> IO[bytes]:
    """A regular file, unpacked where its name ends in ``.gz``. OperatorError for anything else."""
    if follow and path.suffix == ".gz":
        raise OperatorError(str(path), "a compressed file is not followed: it ends in the middle", "unpack it")
    if path.is_dir():
        raise OperatorError(str(path), f"a {kind} source reads a file, this is a directory", "name the file in it")
    if path.exists() and not path.is_file():
        raise OperatorError(str(path), f"a {kind} source reads a regular file", "write it to a file first")
    try:
        return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OperatorError(str(path), reason, "check the path and its permissions") from error


def read_lines(file: IO[bytes], after: int = 0, place: Place | None = None) -> Iterator[Raw]:
    """Lines behind number ``after``, but for the blank ones.

    With a ``place`` the file may grow: reading begins there, ends before a line that has no line end yet, and moves the
    place behind every line that it gives; to go on, call it again.
    """
    row = 0
    if place is not None:
        row = place.row
        file.seek(place.at)
    while line := file.readline(MESSAGE_BYTES_MAX + 2):  # and its line end
        body, size, digest = line.rstrip(b"\r\n"), len(line), None
        if len(body) > MESSAGE_BYTES_MAX:
            digest, size = _skip(file, line)
        elif place is not None and not line.endswith(b"\n"):
            break
        if size == 0 and place is not None:
            break
        row += 1
        if place is not None:
            place.row, place.at = row, place.at + size
        if row <= after:
            continue
        if digest is not None:
            yield Raw(0, row, line[:HEAD_BYTES], digest)
        elif body:
            yield _raw((0, row, body, None, None, "", ""))
    if row < after:
        rule = f"it has {row} rows, and {after} were read before"
        raise OperatorError(str(getattr(file, "name", "the file")), rule, "bring the whole file back, then --resume")


def _skip(file: IO[bytes], line: bytes) -> tuple[bytes, int]:
    """Pass over the rest of an over-long line: SHA-256 of all of it but its line end, and its bytes; 0 if it has no end."""
    digest, size = sha256(), 0
    while line and not line.endswith(b"\n"):
        digest.update(line)
        size += len(line)
        line = file.readline(MESSAGE_BYTES_MAX)
    digest.update(line.rstrip(b"\r\n"))
    return digest.digest(), size + len(line) if line else 0
