"""Blocks: the payload of a large artifact in pieces of 8 MiB, each named by the digest that it has as an untagged artifact.

So an artifact of one block and no tag has its block's name, and is hashed once. A block is durable before anything refers
to it: a crash leaves blocks that nobody refers to, never references without their blocks. In a directory a block is a file,
``ab/cd…`` after the digits of its name: written as a *draft*, ``new-0``, while it is hashed, then renamed, and fsynced together
with the folder that it is in. A crash may leave the draft. In a store that is one file a block is a row of ``block``,
committed by itself. A block that does not have its name is written anew by the next put of the same bytes.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from hashlib import sha256
from io import FileIO
from itertools import count
from pathlib import Path
from typing import NamedTuple, Protocol

from tidewarp import observe
from tidewarp.codec.artifacts import artifact_head
from tidewarp.errors import Corrupt, InternalError, OperatorError, StoreFailed, StoreFull
from tidewarp.store.arrivals import Arrivals
from tidewarp.store.files import open_regular, sync_folder
from tidewarp.store.handle import Handle
from tidewarp.store.journal import OpenTransaction
from tidewarp.store.meanwhile import meanwhile

__all__ = ["BLOCK_BYTES", "BlockFiles", "BlockRows", "Blocks", "Extent", "block_name"]

BLOCK_BYTES = 8 << 20

_NAMES = 256  # of rows, that are read at once
_DRAFT = re.compile("new-[0-9]+")


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

    def drop_drafts(self) -> int:
        """Remove what is left of puts that a crash has ended; how many bytes it had. Raises as :meth:`drop`."""


class BlockFiles:
    """Blocks as files below ``folder``."""

    def __init__(self, folder: Path, handle: Handle, arrivals: Arrivals | None = None) -> None:
        self._folder = folder
        self._handle = handle
        self._arrivals = arrivals or Arrivals()
        self._turn = threading.Lock()  # of who makes a block: nobody takes for it what is not durable, and may go again
        self._has_folders = False
        self._drafts: set[Path] = set()  # that threads of this process are writing
        self._drafting = threading.Lock()

    def write(self, data: bytes) -> bytes:
        """As the contract says. It is hashed while another thread writes it."""
        with self._failures(self._folder), self._draft() as draft:
            error = None
            try:
                with meanwhile(partial(draft.write, data)):
                    name = block_name(data)
            except OSError as met:
                error = met
            file = self._file(name)
            self._arrivals.add(name)
            with self._failures(file), self._turn:
                if not self._keep(file, name):
                    if error is not None:
                        raise error  # else there is no room, and none is needed
                    draft.become(file)
        observe.stage("block.after")
        return name

    def read(self, name: bytes) -> bytes:
        """As the contract says."""
        try:
            with open_regular(self._file(name)) as stream:
                data = _read_bounded(stream)
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

    def drop_drafts(self) -> int:
        """As the contract says."""
        size = 0
        with self._drafting:
            for draft in self._left():
                with self._failures(draft):
                    size += draft.stat().st_size
                    draft.unlink()
        return size

    def drafts(self) -> list[Path]:
        """The drafts that nobody in this process is writing."""
        with self._drafting:
            return self._left()

    def strays(self) -> list[Path]:
        """The files that are neither blocks nor drafts by their names."""
        found = []
        for folder in self._entries(self._folder):
            inside = self._folder / folder
            if _is_draft(inside):
                continue
            if not inside.is_dir():
                found.append(inside)
                continue
            found += [inside / rest for rest in self._entries(inside) if _name_of(folder + rest) is None]
        return found

    def _left(self) -> list[Path]:
        """As :meth:`drafts`; nobody may begin one meanwhile, nor end it."""
        found = (self._folder / one for one in self._entries(self._folder))
        return [one for one in found if _is_draft(one) and one not in self._drafts]

    def _entries(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            rule = f"a folder of blocks cannot be read: {error.strerror}"
            raise OperatorError(str(folder), rule, "make it readable") from error

    @contextmanager
    def _draft(self) -> Iterator[_Draft]:
        """A draft that nobody else writes. Unless it has become a block, nothing is left of it."""
        if not self._has_folders:
            with self._turn:
                self._make_folders()
        with self._drafting:
            file = next(one for n in count() if (one := self._folder / f"new-{n}") not in self._drafts)
            self._drafts.add(file)
        draft = _Draft(file)
        try:
            yield draft
        finally:
            try:
                draft.discard()
            finally:
                with self._drafting:
                    self._drafts.discard(file)

    def _keep(self, file: Path, name: bytes) -> bool:
        """Is the block there? Then it is durable: the life that wrote it may have ended before it was."""
        try:
            with open_regular(file) as stream:
                if block_name(_read_bounded(stream)) != name:
                    return False
                _make_durable(stream, file)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ENXIO:  # no regular file
                return False
            raise
        return True

    def _make_folders(self) -> None:
        """Make all folders that blocks lie in, durably: once in a life, as the one that made them may have ended too soon."""
        self._folder.mkdir(exist_ok=True)
        there = set(self._entries(self._folder))
        for digits in (f"{number:02x}" for number in range(256)):
            if digits not in there:
                (self._folder / digits).mkdir(exist_ok=True)
        sync_folder(self._folder / "00")
        sync_folder(self._folder)
        self._has_folders = True

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
        name = block_name(data)
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

    def drop_drafts(self) -> int:
        """As the contract says: a row is there or not."""
        return 0


def block_name(data: bytes) -> bytes:
    """The name of a block: the digest that it has as an artifact without a tag."""
    digest = sha256(artifact_head(len(data)))
    digest.update(data)
    return digest.digest()


def _name_of(digits: str) -> bytes | None:
    """The name that 64 lower-case hexadecimal digits are; None of anything else."""
    if len(digits) != 64 or any(one not in "0123456789abcdef" for one in digits):
        return None
    return bytes.fromhex(digits)


class _Draft:
    """A file on its way to become a block."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream: FileIO | None = None

    def write(self, data: bytes) -> None:
        """Make it, of ``data``, in place of what a crash has left there. The disk begins to write it. Raises OSError."""
        self._file.unlink(missing_ok=True)
        self._stream = stream = open(self._file, "xb", buffering=0)
        half = len(data) // 2
        _write_all(stream, memoryview(data)[:half])
        observe.stage("block.inside")
        _write_all(stream, memoryview(data)[half:])

    def become(self, file: Path) -> None:
        """Be the block ``file``, durably, or nothing. Raises OSError."""
        if self._stream is None:
            raise InternalError("become", "this draft was not written", "report this")
        self._file = self._file.rename(file)
        observe.stage("block.named")
        _make_durable(self._stream, file)
        self._stream.close()
        self._stream = None

    def discard(self) -> None:
        """Remove what is there, unless it has become a block: a full disk needs the room. Raises OSError."""
        if self._stream is not None:
            self._stream.close()
            self._file.unlink(missing_ok=True)


def _is_draft(file: Path) -> bool:
    return _DRAFT.fullmatch(file.name) is not None and file.is_file()


def _write_all(stream: FileIO, data: memoryview) -> None:
    """Write all of it, and let the disk begin at once, where the system can: whoever waits for it later waits less.

    Linux begins to write what it is advised to drop, and keeps what is not written yet.
    """
    start, size = stream.tell(), len(data)
    while data:
        data = data[stream.write(data) :]
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(stream.fileno(), start, size, os.POSIX_FADV_DONTNEED)


def _make_durable(stream: FileIO, file: Path) -> None:
    """Wait for the disk to have the bytes of a file and its name: at once, since a file system commits both together."""
    with meanwhile(partial(sync_folder, file)):
        os.fsync(stream.fileno())
        observe.stage("block.durable")


def _read_bounded(stream: FileIO) -> bytes:
    """At most one byte more than a block has, whatever lies there."""
    parts = []
    left = BLOCK_BYTES + 1
    while left and (part := stream.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _checked(name: bytes, data: bytes) -> bytes:
    if block_name(data) != name:
        raise _broken(name, "its bytes do not have its name")
    return data


def _broken(name: bytes, rule: str) -> Corrupt:
    return Corrupt(f"block {name.hex()}", rule, "put the same artifact again: it writes the block anew")
