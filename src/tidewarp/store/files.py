"""The files of a store: its database, its key (the identity), its lock (the one writer), its blocks.

NAME.tw    one file, the database; NAME.tw.key and NAME.tw.lock beside it; blocks in the database
DIR/       store.db, keys/root.key, lock, blobs/ab/cd… (a block, by its name)

A key that the domain has declared, and that signs in the place of the root key, lies beside it: keys/signing.key, or
NAME.tw.signing.key.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import ClassVar, NamedTuple

from tidewarp.codec import domain_of
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.errors import OperatorError, StoreFull, StoreLocked

__all__ = [
    "Place",
    "keep_signing_seed",
    "key_fault",
    "locate",
    "no_journal",
    "open_regular",
    "read_seed",
    "refuse_foreign",
    "refuse_shell",
    "require_key",
    "root_seed",
    "signing_seed",
    "sync_folder",
    "writer_lock",
]

_SEED_BYTES = 32
_MAGIC = b"SQLite format 3\0"  # how every database file of SQLite begins
_DATABASE = "store.db"
_OWN_NAMES = frozenset({_DATABASE, f"{_DATABASE}-wal", f"{_DATABASE}-shm", "keys", "lock", "blobs"})


class Place(NamedTuple):
    """Where the parts of a store lie. ``name`` is what errors call it; ``blocks`` is None where the database has them."""

    name: Path
    database: Path
    key: Path
    lock: Path
    blocks: Path | None

    @property
    def signing_key(self) -> Path:
        """Where the key lies that signs in the place of the root key."""
        return self.key.with_name("signing.key" if self.blocks is not None else f"{self.database.name}.signing.key")


class _LockFile:
    """An open lock file. A forked child shares the lock with its parent, which it would outlive in there."""

    held: ClassVar[set[_LockFile]] = set()

    def __init__(self, name: str) -> None:
        self.descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.held.add(self)

    def close(self) -> None:
        """Let go; in a child this leaves the parent's lock as it is."""
        if self in self.held:  # a second close would hit whatever file has the number by then
            self.held.discard(self)
            os.close(self.descriptor)

    @classmethod
    def close_all(cls) -> None:
        """Let go of all."""
        for lock in list(cls.held):
            lock.close()


os.register_at_fork(after_in_child=_LockFile.close_all)


def locate(path: str | os.PathLike[str], *, create: bool, read_only: bool) -> Place:
    """The parts of the store at ``path``, behind links, so that two names of one store have one key and one lock.

    A directory that is there is a store, or becomes one if it is empty; every other name is that of one file. The database
    of a directory is no store of its own: under its own name it would have another key, another lock, and no blocks.

    Raises:
        OperatorError: missing and not to be created, neither a store nor empty, the database of a directory, or not
            permitted.
    """
    folder = _folder_of(path)
    if folder is None:
        file = _resolve(path, create=create, read_only=read_only)
        if file.name == _DATABASE:
            rule = "a file of this name is the database in a store's folder, and no store of its own"
            raise OperatorError(str(path), rule, f"name the folder: {file.parent}")
        return _beside(file)
    place = _within(folder)
    try:
        is_store = place.database.exists()
        others = [] if is_store else sorted({one.name for one in folder.iterdir()} - _OWN_NAMES)
    except OSError as error:
        raise OperatorError(str(path), f"cannot be read: {error.strerror}", "check its permissions") from None
    if not is_store and (others or not create):
        rule = f"there is no {_DATABASE} in it" + (f", but {others[0]!r:.80}" if others else "")
        raise OperatorError(str(path), rule, "name a store, or an empty directory to begin one in")
    return place._replace(database=_resolve(place.database, create=create, read_only=read_only))


def _folder_of(path: str | os.PathLike[str]) -> Path | None:
    try:
        folder = Path(os.path.realpath(path))
        return folder if folder.is_dir() else None
    except (OSError, ValueError):
        return None  # what is wrong with the name is said of it as that of a file


def _beside(file: Path) -> Place:
    return Place(file, file, Path(f"{file}.key"), Path(f"{file}.lock"), None)


def _within(folder: Path) -> Place:
    return Place(folder, folder / _DATABASE, folder / "keys" / "root.key", folder / "lock", folder / "blobs")


def _resolve(path: str | os.PathLike[str], *, create: bool, read_only: bool) -> Path:
    """The file itself behind links. Raises OperatorError as :func:`locate`."""
    try:
        file = Path(os.path.realpath(path))
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        if not create:
            action = "check the name; tidewarp store init makes a store, tidewarp run begins a journal"
            raise OperatorError(str(path), "there is no such journal or store", action) from None
        if not file.parent.is_dir():
            raise OperatorError(str(path), "its directory does not exist", f"mkdir -p {file.parent}") from None
        return file
    except (OSError, ValueError) as error:
        raise OperatorError(str(path), f"cannot be reached: {error}", "check name and permissions") from None
    if not stat.S_ISREG(mode):
        raise OperatorError(str(path), "a journal is a regular file", "give the path of a .tw file")
    if not os.access(file, os.R_OK if read_only else os.R_OK | os.W_OK):
        wanted = "read" if read_only else "written"
        raise OperatorError(
            str(path), f"may not be {wanted} by this user", "change its permissions, or open it read-only"
        )
    return file


def open_regular(file: Path) -> FileIO:
    """A regular file, to be read without a buffer. Of a pipe or a device nothing is read, and nobody waits for one.

    Raises:
        OSError: it cannot be opened; IsADirectoryError, or ENXIO of all else that is no regular file.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else a pipe waits for who writes it
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return FileIO(descriptor)
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    raise OSError(errno.ENXIO, "it is no regular file", str(file))


@contextmanager
def writer_lock(place: Place) -> Iterator[None]:
    """Be the one writer of a store. The lock ends with the process, whatever its end; the lock file stays.

    Raises:
        StoreLocked: somebody else is; names the pid.
        OperatorError, StoreFull: the lock file cannot be written.
    """
    try:
        lock = _LockFile(str(place.lock))
    except OSError as error:
        raise _unwritable(place.lock, "a writer needs it", error) from None
    try:
        _lock(lock.descriptor, place)
        yield
    finally:
        lock.close()


def _lock(descriptor: int, place: Place) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        action = "wait until it ends, or stop it (a server beside which others write: tidewarp peer serve --read-only)"
        raise StoreLocked(str(place.name), f"process {pid} writes this journal", action) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except OSError as error:
        raise _unwritable(place.lock, "a writer names itself in it", error) from None


def _unwritable(file: Path, purpose: str, error: OSError) -> OperatorError:
    """What it means that a file beside the database cannot be written."""
    rule = f"{purpose}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(str(file), rule, "make room")
    return OperatorError(str(file), rule, "make its folder writable, or open the journal read-only")


def no_journal(file: Path, reason: object) -> OperatorError:
    """The error for a file that is no database."""
    action = "give the path of a .tw file; if it was one, restore it from a copy"
    return OperatorError(f"{file}: page 1", f"this is not a tidewarp journal: {reason}", action)


def refuse_foreign(place: Place) -> None:
    """Refuse a file that is there and no database, before a lock is put beside it.

    Raises:
        OperatorError: it is not empty, and does not begin as a database does; or it cannot be read.
    """
    file = place.database
    try:
        with open(file, "rb") as stream:
            begins = stream.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise OperatorError(str(file), f"cannot be read: {error.strerror}", "check its permissions") from None
    if begins not in (b"", _MAGIC):
        raise no_journal(file, "it does not begin as a database")


def refuse_shell(place: Place) -> None:
    """Refuse a file of pages without tables and without a key: a creation that was cut short has left its key.

    Raises:
        OperatorError: it is what is left of a journal that was copied without its -wal file after a kill.
    """
    file = place.database
    if file.stat().st_size and not place.key.exists():
        raise OperatorError(
            str(file),
            "it has no tables, and no key beside it: so looks a journal that was killed and copied without its -wal file",
            f"copy {file.name}-wal and {place.key.name} too, or name a new file",
        )


def root_seed(place: Place, given: bytes | None = None) -> bytes:
    """The Ed25519 seed (32 bytes) of a store that has no records yet; made if it is missing. Durable on return.

    It is written before the database, so no store exists whose identity could be lost by a crash. A seed that an
    earlier, interrupted creation left is used again; half a seed has signed nothing and is replaced.

    Args:
        place: of the store.
        given: the seed to use in place of a new one.

    Raises:
        OperatorError, StoreFull: the key file cannot be read or written, or is not the one given.
    """
    file = place.key
    if given is not None and len(given) != _SEED_BYTES:
        raise OperatorError(f"key of {len(given)} bytes", f"a key has {_SEED_BYTES} bytes", "give the Ed25519 seed")
    try:
        if not file.parent.exists():
            file.parent.mkdir(mode=0o700)
            sync_folder(file.parent)
        if file.exists():
            with open_regular(file) as stream:
                seed = stream.read(_SEED_BYTES + 1)
            if len(seed) == _SEED_BYTES and given in (None, seed):
                return seed
            if len(seed) >= _SEED_BYTES:
                rule = (
                    "another key lies there"
                    if len(seed) == _SEED_BYTES
                    else f"a key has {_SEED_BYTES} bytes, this file has more"
                )
                raise OperatorError(str(file), rule, "move it away")
            file.unlink()
        return _write_seed(file, given)
    except OSError as error:
        raise _unwritable(file, "a journal needs its key", error) from None


def key_fault(path: str | os.PathLike[str], domain: bytes) -> str | None:
    """What is wrong with the key of the store at ``path`` of ``domain`` (32 bytes); None if it is that domain's."""
    folder = _folder_of(path)
    return _fault(_beside(Path(os.path.realpath(path))) if folder is None else _within(folder), domain)


def require_key(place: Place, domain: bytes) -> None:
    """Raise OperatorError unless the key of ``domain`` is beside its journal: nobody else goes on with it."""
    fault = _fault(place, domain)
    if fault is not None:
        raise OperatorError(
            str(place.key),
            f"{fault}, and a journal is continued with its own key",
            "put the key back beside the journal; without it the journal can be read, replayed and verified",
        )


def read_seed(place: Place) -> bytes:
    """The seed of a store that is open for writing. Raises OperatorError: it cannot be read any more."""
    try:
        with open_regular(place.key) as stream:
            return stream.read(_SEED_BYTES + 1)
    except OSError as error:
        raise OperatorError(str(place.key), f"the key cannot be read: {error.strerror}", "put it back") from None


def signing_seed(place: Place) -> bytes | None:
    """The seed (32 bytes) of the key that signs in the place of the root key; None: there is none.

    Raises:
        OperatorError: it cannot be read, or is damaged.
    """
    file = place.signing_key
    try:
        with open_regular(file) as stream:
            seed = stream.read(_SEED_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OperatorError(str(file), f"the key cannot be read: {error.strerror}", "check its permissions") from None
    if len(seed) != _SEED_BYTES:
        rule = f"a key has {_SEED_BYTES} bytes"
        raise OperatorError(str(file), rule, "put it back, or move it away: the root key signs then")
    return seed


def keep_signing_seed(place: Place, seed: bytes | None) -> None:
    """Let the key of ``seed`` (32 bytes) sign in the place of the root key; None: no key does. Durable on return.

    Raises:
        OperatorError, StoreFull: the file cannot be written or removed.
    """
    file = place.signing_key
    draft = file.with_name(f"{file.name}.new")
    try:
        if seed is None:
            file.unlink(missing_ok=True)
        else:
            draft.unlink(missing_ok=True)
            _write_seed(draft, seed)
            draft.replace(file)
        sync_folder(file)
    except OSError as error:
        raise _unwritable(file, "a domain signs with it", error) from None


def _fault(place: Place, domain: bytes) -> str | None:
    try:
        with open_regular(place.key) as stream:
            seed = stream.read(_SEED_BYTES + 1)
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if len(seed) != _SEED_BYTES:
        return f"it is damaged: a key has {_SEED_BYTES} bytes"
    return None if domain_of(public_key_of(seed)) == domain else "it is the key of another journal"


def _write_seed(file: Path, given: bytes | None) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    seed = Ed25519PrivateKey.generate().private_bytes_raw() if given is None else given
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(seed)
        stream.flush()
        os.fsync(descriptor)
    sync_folder(file)
    return seed


def sync_folder(file: Path) -> None:
    """Make the name of ``file`` durable."""
    descriptor = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
