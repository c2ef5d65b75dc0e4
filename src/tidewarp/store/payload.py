"""Payloads on their way in: bytes, a file or a stream, of a size that is known before the first byte is kept."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tidewarp.codec.artifacts import TAG_EVIDENCE, TAG_POLICY
from tidewarp.errors import OperatorError, PeerError, QuotaExceeded, StoreFull

__all__ = ["Payload", "artifact_payload", "check_room", "opened", "payload_of", "reserve_of"]

_CHUNK_BYTES = 1 << 20
_GOVERNING_TAGS = frozenset({TAG_POLICY, TAG_EVIDENCE})
_RESERVE_BYTES = 1 << 20
_SPOOL_BYTES = 1 << 20  # of a stream, kept in memory before it goes to a file


class Payload:
    """``size`` bytes that can be read once, from the place where ``stream`` stands; ``name`` is for errors."""

    def __init__(self, stream: BinaryIO, size: int, name: str) -> None:
        self.size = size
        self._stream = stream
        self._name = name

    def pieces(self, size: int) -> Iterator[bytes]:
        """All of it, in pieces of ``size`` bytes, the last one shorter.

        Raises:
            OperatorError: there are fewer bytes, or more, than were declared.
        """
        left = self.size
        while left:
            piece = self._read(min(size, left))
            left -= len(piece)
            yield piece
        if self._part(1):
            raise self._changed("more")

    def whole(self) -> bytes:
        """All of it at once, for what is small. Raises OperatorError as :meth:`pieces`."""
        return b"".join(self.pieces(max(self.size, 1)))

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._part(min(size, _CHUNK_BYTES))
            if not part:
                raise self._changed("fewer")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _part(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise OperatorError(self._name, f"cannot be read: {error.strerror}", "check the file") from error

    def _changed(self, how: str) -> OperatorError:
        rule = f"it has {how} bytes than the {self.size} that it had or declared"
        return OperatorError(self._name, rule, "put a file that nobody writes meanwhile")


@contextmanager
def opened(source: bytes | Path | BinaryIO, room: int | None, folder: Path | None) -> Iterator[Payload]:
    """The payload of ``source``, of which no byte has been kept yet.

    ``room`` are the bytes that a quota leaves (None: no bound), ``folder`` is where a stream is spooled (None: where the
    system has its temporary files).

    Raises:
        QuotaExceeded: it is larger than ``room``.
        OperatorError: it cannot be read, or is no regular file.
    """
    if isinstance(source, bytes):
        check_room(len(source), room, "these bytes")
        yield payload_of(source)
    elif isinstance(source, Path):
        with _opened_file(source) as stream:
            size = os.fstat(stream.fileno()).st_size
            check_room(size, room, str(source))
            yield Payload(stream, size, str(source))
    else:
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, dir=None if folder is None else str(folder)) as spool:
            size = 0
            while piece := _read_stream(source):
                size += len(piece)
                check_room(size, room, "the stream so far")
                try:
                    spool.write(piece)
                except OSError as error:
                    rule = f"a temporary file for it cannot be written: {error.strerror}"
                    raise StoreFull(
                        "the stream", rule, "make room; nothing was written, the store stays usable"
                    ) from error
            spool.seek(0)
            yield Payload(spool, size, "the stream")  # type: ignore[arg-type] # a BinaryIO in all that is used here


def _opened_file(file: Path) -> BinaryIO:
    try:
        mode = os.stat(file).st_mode  # asked first: to open a pipe waits for who writes it
        stream = open(file, "rb") if stat.S_ISREG(mode) else None
    except (OSError, ValueError) as error:
        raise OperatorError(str(file), f"cannot be read: {error}", "check name and permissions") from None
    if stat.S_ISDIR(mode):
        raise OperatorError(str(file), "it is a directory, and an artifact is one file", "name a file in it")
    if stream is None:
        action = "give it as a stream: on the command line, as standard input, whose name is -"
        raise OperatorError(str(file), "it is no regular file, and nothing else has a size", action)
    return stream


def _read_stream(stream: BinaryIO) -> bytes:
    try:
        return stream.read(_CHUNK_BYTES)
    except OSError as error:
        raise OperatorError("the stream", f"cannot be read: {error}", "check where it comes from") from error


def payload_of(data: bytes) -> Payload:
    """Bytes that are here."""
    return Payload(io.BytesIO(data), len(data), "these bytes")


def reserve_of(tags: Iterable[int | None]) -> int:
    """Bytes beyond a quota that artifacts with these tags may take: a full store can still be governed.

    Policies and evidence of forks have 1 MiB; together with anything else they have none.
    """
    return _RESERVE_BYTES if {*tags} <= _GOVERNING_TAGS else 0


def check_room(size: int, room: int | None, name: str) -> None:
    """Raise QuotaExceeded if ``size`` bytes more are more than there is room for."""
    if room is not None and size > room:
        raise QuotaExceeded(
            f"{name}: {size} bytes",
            f"the quota of the store leaves room for {max(room, 0)}",
            "raise it: tidewarp store quota DIR BYTES; or drop what is hidden: tidewarp store gc DIR --budget-s S; nothing was written",
        )


def artifact_payload(stream: BinaryIO, name: str) -> tuple[Payload, int | None]:
    """Payload and tag of ArtifactBytes that begin where ``stream`` stands; only their head has been read.

    Raises:
        PeerError: they do not begin as an artifact does.
    """
    flag = stream.read(1)
    rest = stream.read(12 if flag == b"\1" else 8)
    if flag not in (b"\0", b"\1") or len(rest) != (12 if flag == b"\1" else 8):
        action = "do not take it; ask another peer"
        raise PeerError(f"{name}: {(flag + rest).hex()}", "an artifact begins with a flag, a tag and its size", action)
    tag = int.from_bytes(rest[:-8], "big") if flag == b"\1" else None
    return Payload(stream, int.from_bytes(rest[-8:], "big"), name), tag
