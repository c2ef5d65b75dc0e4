"""PostgreSQL as a child process, in a cluster of its own. Never as root: then it is ``postgres``, or ``nobody``."""

from __future__ import annotations

import os
import pwd
import queue
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tidewarp.clocks import WallClock
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.testing.servers.base import HOST, Server, program

__all__ = ["PostgresServer"]

_REMEDY = "apt-get install postgresql"
_PASSWORD = "canary-5f0c"
_POLL_S = 0.02
_ORPHANS_S = 20.0  # how long a backend may take to notice that its postmaster is dead


class PostgresServer(Server):
    """A PostgreSQL whose superuser ``tidewarp`` has a password and whose database is ``postgres``.

    Args:
        folder: of its log and, unless started by root, of its cluster. Root's is in a temporary folder that the server's user
            can reach; it is removed when the ``with`` block ends.
        fsync: also survive a crash of the machine; off by default, because tests wait for it. Say True to test crashes.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # the mode "fast"
    password = _PASSWORD

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        super().__init__(folder)
        self._fsync = fsync
        self._data = folder / "data"
        self._home: Path | None = None  # of root's cluster, outside of `folder`
        self._owner: pwd.struct_passwd | None = None

    @property
    def dsn(self) -> str:
        """Connection URL, with the password."""
        return f"postgresql://tidewarp:{_PASSWORD}@{HOST}:{self.port}/postgres"

    def options(self) -> dict[str, Any]:
        """The user that it runs as."""
        if self._owner is None:
            return {}
        return {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": [], "cwd": "/"}

    def prepare(self) -> None:
        """Make the cluster."""
        home = self.folder
        if os.geteuid() == 0:
            self._owner = _unprivileged()
            self._home = home = Path(tempfile.mkdtemp(prefix="tidewarp-postgres-"))
            os.chown(home, self._owner.pw_uid, self._owner.pw_gid)
            self._data = home / "data"
        secret = home / "password"
        secret.write_text(f"{_PASSWORD}\n")
        words = ["-D", str(self._data), "-U", "tidewarp", "-A", "scram-sha-256", f"--pwfile={secret}"]
        words += ["--no-sync", "--encoding=UTF8", "--no-locale"]
        done = subprocess.run([_program("initdb"), *words], capture_output=True, **self.options())
        if done.returncode != 0:
            tail = (done.stdout + done.stderr)[-2_000:].decode(errors="replace")
            raise OperatorError(f"initdb in {self._data}", f"it ended with code {done.returncode}", f"read: {tail}")

    def command(self) -> Sequence[str]:
        """On TCP alone."""
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "fsync": "on" if self._fsync else "off",
            "shared_buffers": "16MB",
            "max_connections": "40",
        }
        words = [word for name, text in settings.items() for word in ("-c", f"{name}={text}")]
        return [_program("postgres"), "-D", str(self._data), "-p", str(self.port), *words]

    def answers(self) -> bool:
        """Its data directory is ours."""
        try:
            import psycopg
        except ImportError:
            raise MissingExtra(
                "server postgres", "it is asked with psycopg", "pip install 'tidewarp[postgres]'"
            ) from None
        try:
            with psycopg.connect(self.dsn, connect_timeout=5, autocommit=True) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and Path(row[0]).resolve() == self._data.resolve()

    # ------------------------------------------------------------------ its processes
    def pause(self) -> None:
        """SIGSTOP for the postmaster, which then makes no more children, and for all of them."""
        super().pause()
        children = self._children()
        for child in children:
            _send(child, signal.SIGSTOP)
        clock, nothing = WallClock(), queue.SimpleQueue[None]()
        while not all(map(_has_stopped, children)):
            clock.wait(nothing, _POLL_S)

    def proceed(self) -> None:
        """Go on after :meth:`pause`."""
        for child in self._children():
            _send(child, signal.SIGCONT)
        super().proceed()

    def _children(self) -> set[int]:
        return {pid for pid, parent in _processes().items() if parent == self.pid} if self.runs else set()

    def _end(self, how: signal.Signals) -> None:
        """Wait for its orphans too: as long as one lives, no other postmaster starts on their shared memory."""
        children = self._children()
        for child in children:
            _send(child, signal.SIGCONT)
        super()._end(how)
        clock, nothing = WallClock(), queue.SimpleQueue[None]()
        until_s = clock.now() + _ORPHANS_S
        while children := children & _processes().keys():
            if clock.now() > until_s:
                for child in children:
                    _send(child, signal.SIGKILL)
            clock.wait(nothing, _POLL_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._home is not None:
            shutil.rmtree(self._home)


def _program(name: str) -> str:
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True
    )
    return program(name, _REMEDY, *map(str, versions))


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise MissingExtra("server postgres", "root must not run it", "run the tests as another user")


def _processes() -> dict[int, int]:
    """Living process -> its parent."""
    return {pid: parent for pid, parent, _ in _listed()}


def _has_stopped(pid: int) -> bool:
    return all(state.startswith("T") for other, _, state in _listed() if other == pid)


def _listed() -> Iterator[tuple[int, int, str]]:
    """Process, parent, state. A zombie holds nothing any more."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    for pid, parent, state, *_ in (line.split() for line in listed.stdout.splitlines()):
        if not state.startswith("Z"):
            yield int(pid), int(parent), state


def _send(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return  # it has ended by itself
