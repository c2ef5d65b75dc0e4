"""Blocks: the payload of a large artifact in pieces of 8 MiB, each named by the SHA-256 of its bytes.

A block is durable before anything refers to it: a crash leaves blocks that nobody names, never names without their
blocks. In a directory a block is a file, ``ab/cd…`` after the digits of its name: written under a temporary name,
fsynced, renamed, its directory fsynced. In a store that is one file it is a row of ``block``, committed by itself. A
block that no longer hashes to its name is written anew by the next put of the same bytes.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import NamedTuple, Protocol

from tidewarp import observe
from tidewarp.errors import Corrupt, InternalError, OperatorError, StoreFailed, StoreFull
from tidewarp.store.arrivals import Arrivals
from tidewarp.store.files import open_regular, sync_folder
from tidewarp.store.handle import Handle
from tidewarp.store.journal import OpenTransaction

__all__ = ["BLOCK_BYTES", "BlockFiles", "BlockRows", "Blocks", "Extent"]

BLOCK_BYTES = 8 << 20

_NAMES = 256  # of rows, that are read at once
_INCOMING = "incoming"  # folder of temporary files: no name of a block, which begins with two digits


class Extent(NamedTuple):
    """A piece of a payload: which block (32 bytes), from which byte of the payload on, how many bytes."""

    block: bytes
    offset: int
    length: int


class Blocks(Protocol):
    """Where the blocks of a store are."""

    def write(self, data: bytes) -> bytes:
        """Keep ``data``, at most 8 MiB; returns its name once it is durable, or part of the open transaction.

        Raises:
            StoreFull: no room; nothing refers to what is there of it.
            StoreFailed: an I/O error; the handle refuses everything from here on.
        """

    def read(self, name: bytes) -> bytes:
        """The bytes of a block, which hash to its name.

        Raises:
            Corrupt: it is missing, or what is there does not have its name.
        """

    def names(self, after: bytes = b"") -> Iterator[bytes]:
        """The names of all blocks behind ``after``, ascending."""

    def drop(self, name: bytes) -> int:
        """Remove a block; how many bytes it had, 0 if it was not there. Of rows: in the open transaction.

        Raises:
            StoreFailed, OperatorError: as :meth:`write`.
        """


class BlockFiles:
    """Blocks as files below ``folder``."""

    def __init__(self, folder: Path, handle: Handle, arrivals: Arrivals | None = None) -> None:
        self._folder = folder
        self._handle = handle
        self._arrivals = arrivals or Arrivals()

    def prepare(self) -> None:
        """Make the folders, and drop what an earlier life did not finish. For the one writer, before its first write."""
        incoming = self._folder / _INCOMING
        with self._failures(incoming):
            if not incoming.is_dir():
                incoming.mkdir(parents=True)
                sync_folder(incoming)
                sync_folder(self._folder)
            for left in incoming.iterdir():
                left.unlink()

    def write(self, data: bytes) -> bytes:
        """As the contract says."""
        name = sha256(data).digest()
        self._arrivals.add(name)
        file = self._file(name)
        with self._failures(file):
            if self._holds(file, name):
                sync_folder(file)  # the life that renamed it may have ended before it did this
                return name
            temporary = self._write_temporary(data)
            if not file.parent.is_dir():
                file.parent.mkdir()
                sync_folder(file.parent)
            os.replace(temporary, file)
            sync_folder(file)
        observe.stage("block.after")
        return name

    def read(self, name: bytes) -> bytes:
        """As the contract says."""
        try:
            data = _read_bounded(self._file(name))
        except FileNotFoundError:
            raise _broken(name, "it is missing") from None
        except OSError as error:
            raise _broken(name, f"it cannot be read: {error.strerror}") from error
        return _checked(name, data)

    def names(self, after: bytes = b"") -> Iterator[bytes]:
        """As the contract says."""
        for folder in self._entries(self._folder):
            if len(folder) == 2 and folder >= after.hex()[:2]:
                for rest in self._entries(self._folder / folder):
                    name = _name_of(folder + rest)
                    if name is not None and name > after:
                        yield name

    def drop(self, name: bytes) -> int:
        """As the contract says."""
        file = self._file(name)
        with self._failures(file):
            try:
                size = file.stat().st_size
                file.unlink()
            except FileNotFoundError:
                return 0
        return size

    def strays(self) -> list[Path]:
        """The files that are no blocks: temporary ones, and those that nobody here has named."""
        found = []
        for folder in self._entries(self._folder):
            inside = self._folder / folder
            if not inside.is_dir():
                found.append(inside)
                continue
            found += [inside / rest for rest in self._entries(inside) if _name_of(folder + rest) is None]
        return found

    def is_temporary(self, file: Path) -> bool:
        """Whether it is of a block that was never finished."""
        return file.parent == self._folder / _INCOMING

    def _entries(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            rule = f"a folder of blocks cannot be read: {error.strerror}"
            raise OperatorError(str(folder), rule, "make it readable") from error

    def _write_temporary(self, data: bytes) -> str:
        descriptor, temporary = tempfile.mkstemp(dir=self._folder / _INCOMING)
        try:
            with open(descriptor, "wb", buffering=0) as stream:
                half = len(data) // 2
                _write_all(stream, data[:half])
                observe.stage("block.inside")
                _write_all(stream, data[half:])
                os.fchmod(stream.fileno(), 0o644)
                os.fsync(stream.fileno())
            observe.stage("block.durable")
        except BaseException:
            os.unlink(temporary)  # a full disk needs the room
            raise
        return temporary

    def _holds(self, file: Path, name: bytes) -> bool:
        try:
            return sha256(_read_bounded(file)).digest() == name
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ENXIO:  # no regular file: what is renamed over it takes its place
                return False
            raise

    def _file(self, name: bytes) -> Path:
        digits = name.hex()
        return self._folder / digits[:2] / digits[2:]

    @contextmanager
    def _failures(self, file: Path) -> Iterator[None]:
        """What an OSError in here means: no room; not allowed; else nobody knows what the disk holds."""
        try:
            yield
        except OSError as error:
            rule = f"a block cannot be written: {error.strerror}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
                raise StoreFull(str(file), rule, "make room; nothing refers to it, the store stays usable") from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise OperatorError(str(file), rule, "make the folder of the store writable") from error
            self._handle.failed = StoreFailed(str(file), rule, "check the disk, open the store again and verify it")
            raise self._handle.failed from error


class BlockRows:
    """Blocks as rows of ``block``, for a store that is one file.

    ``begin`` opens a transaction of the store; None: it is only read.
    """

    def __init__(
        self,
        handle: Handle,
        begin: Callable[[str], AbstractContextManager[OpenTransaction]] | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self._handle = handle
        self._begin = begin
        self._arrivals = arrivals or Arrivals()

    def write(self, data: bytes) -> bytes:
        """As the contract says."""
        if self._begin is None:
            raise InternalError("write", "these blocks are only read", "open the store for writing")
        name = sha256(data).digest()
        self._arrivals.add(name)
        with self._begin("put") as transaction:
            rows = transaction.db.execute("SELECT bytes FROM block WHERE name = ?", (name,)).fetchall()
            if not rows:
                transaction.db.execute("INSERT INTO block (name, bytes) VALUES (?, ?)", (name, data))
            elif rows[0][0] != data:
                transaction.db.execute("UPDATE block SET bytes = ? WHERE name = ?", (data, name))
        return name

    def read(self, name: bytes) -> bytes:
        """As the contract says."""
        rows = self._handle.select("get", "SELECT bytes FROM block WHERE name = ?", name)
        if not rows:
            raise _broken(name, "it is missing")
        return _checked(name, rows[0][0])

    def names(self, after: bytes = b"") -> Iterator[bytes]:
        """As the contract says."""
        statement = f"SELECT name FROM block WHERE name > ? ORDER BY name LIMIT {_NAMES}"
        while rows := self._handle.select("gc", statement, after):
            yield from (name for (name,) in rows)
            after = rows[-1][0]

    def drop(self, name: bytes) -> int:
        """As the contract says."""
        if self._begin is None:
            raise InternalError("drop", "these blocks are only read", "open the store for writing")
        with self._begin("gc") as transaction:
            rows = transaction.db.execute("SELECT length(bytes) FROM block WHERE name = ?", (name,)).fetchall()
            transaction.db.execute("DELETE FROM block WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else 0


def _name_of(digits: str) -> bytes | None:
    """The name that 64 lower-case hexadecimal digits are; None of anything else."""
    if len(digits) != 64 or any(one not in "0123456789abcdef" for one in digits):
        return None
    return bytes.fromhex(digits)


def _write_all(stream: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]


def _read_bounded(file: Path) -> bytes:
    """At most one byte more than a block has, whatever lies there."""
    with open_regular(file) as stream:
        parts = []
        left = BLOCK_BYTES + 1
        while left and (part := stream.read(left)):
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


def _checked(name: bytes, data: bytes) -> bytes:
    if sha256(data).digest() != name:
        raise _broken(name, "its bytes do not have its name")
    return data


def _broken(name: bytes, rule: str) -> Corrupt:
    return Corrupt(f"block {name.hex()}", rule, "put the same artifact again: it writes the block anew")
