"""The files beside a journal: NAME.tw.key (its identity) and NAME.tw.lock (its one writer)."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tidewarp.codec import domain_of
from tidewarp.errors import OperatorError, StoreFull, StoreLocked

__all__ = ["key_fault", "public_key_of", "require_key", "resolve", "root_seed", "sync_folder", "writer_lock"]

_SEED_BYTES = 32


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


def resolve(path: str | os.PathLike[str], *, create: bool, read_only: bool) -> Path:
    """The file itself behind links, so that two names of one journal have one key and one lock.

    Raises:
        OperatorError: missing and not to be created, no regular file, or not permitted.
    """
    try:
        file = Path(os.path.realpath(path))
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        if not create:
            raise OperatorError(
                str(path), "there is no such journal", "check the name; tidewarp run begins one"
            ) from None
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


@contextmanager
def writer_lock(path: Path) -> Iterator[None]:
    """Be the one writer of ``path``. The lock ends with the process, whatever its end; the lock file stays.

    Raises:
        StoreLocked: somebody else is; names the pid.
        OperatorError, StoreFull: the lock file cannot be written.
    """
    name = f"{path}.lock"
    try:
        lock = _LockFile(name)
    except OSError as error:
        raise _unwritable(name, "a writer needs it", error) from None
    try:
        _lock(lock.descriptor, path)
        yield
    finally:
        lock.close()


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        raise StoreLocked(
            str(path), f"process {pid} writes this journal", "stop that process, or open the journal read-only"
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except OSError as error:
        raise _unwritable(f"{path}.lock", "a writer names itself in it", error) from None


def _unwritable(name: str, purpose: str, error: OSError) -> OperatorError:
    """What it means that a file beside the journal cannot be written."""
    rule = f"{purpose}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(name, rule, "make room")
    return OperatorError(name, rule, "make its folder writable, or open the journal read-only")


def refuse_shell(path: Path) -> None:
    """Refuse a file of pages without tables and without a key: a creation that was cut short has left its key.

    Raises:
        OperatorError: it is what is left of a journal that was copied without its -wal file after a kill.
    """
    if path.stat().st_size and not Path(f"{path}.key").exists():
        raise OperatorError(
            str(path),
            "it has no tables, and no key beside it: so looks a journal that was killed and copied without its -wal file",
            f"copy {path.name}-wal and {path.name}.key too, or name a new file",
        )


def root_seed(path: Path) -> bytes:
    """The Ed25519 seed (32 bytes) beside a journal that has no records yet; made if it is missing. Durable on return.

    It is written before the database, so no journal exists whose identity could be lost by a crash. A seed that an
    earlier, interrupted creation left is used again; half a seed has signed nothing and is replaced.

    Raises:
        OperatorError, StoreFull: the key file cannot be read or written.
    """
    file = Path(f"{path}.key")
    try:
        if file.exists():
            seed = file.read_bytes()
            if len(seed) == _SEED_BYTES:
                return seed
            if len(seed) > _SEED_BYTES:
                raise OperatorError(str(file), f"a key has {_SEED_BYTES} bytes, not {len(seed)}", "move it away")
            file.unlink()
        return _new_seed(file)
    except OSError as error:
        raise _unwritable(str(file), "a journal needs its key", error) from None


def key_fault(path: str | os.PathLike[str], domain: bytes) -> str | None:
    """What is wrong with the key beside the journal ``path`` of ``domain`` (32 bytes); None if it is that domain's."""
    try:
        with open(f"{os.path.realpath(path)}.key", "rb") as stream:
            seed = stream.read(_SEED_BYTES + 1)
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if len(seed) != _SEED_BYTES:
        return f"it is damaged: a key has {_SEED_BYTES} bytes"
    return None if domain_of(public_key_of(seed)) == domain else "it is the key of another journal"


def require_key(path: Path, domain: bytes) -> None:
    """Raise OperatorError unless the key of ``domain`` is beside its journal: nobody else goes on with it."""
    fault = key_fault(path, domain)
    if fault is not None:
        raise OperatorError(
            f"{path}.key",
            f"{fault}, and a journal is continued with its own key",
            "put the key back beside the journal; without it the journal can be read, replayed and verified",
        )


def _new_seed(file: Path) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    seed = Ed25519PrivateKey.generate().private_bytes_raw()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(seed)
        stream.flush()
        os.fsync(descriptor)
    sync_folder(file)
    return seed


def public_key_of(seed: bytes) -> bytes:
    """The Ed25519 public key (32 bytes) of a seed."""
    # Imported here because it takes 30 ms, and a reader does not need it.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sync_folder(file: Path) -> None:
    """Make the name of ``file`` durable."""
    descriptor = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
