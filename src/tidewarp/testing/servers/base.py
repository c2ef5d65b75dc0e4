"""A real server as a child process: on loopback, on a port that the system gave, in a folder of its own."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tidewarp.clocks import WallClock
from tidewarp.errors import MissingExtra, OperatorError

__all__ = ["HOST", "Server", "free_port", "program"]

HOST = "127.0.0.1"
_READY_S = 60.0  # a broker on a busy machine
_POLL_S = 0.02
_STOP_S = 20.0
_TAIL_BYTES = 2_000  # of a server's log, for the error that it did not start
# It holds the reading end of a pipe. The end of the pipe is the end of the process that started the server, however that
# came: SIGKILL lets nobody tidy up. (The kernel's PR_SET_PDEATHSIG heeds the end of the *thread* that started a child.)
_GUARD = ("/bin/sh", "-c", 'read -r _; kill -KILL "$1"', "guard")
_guards: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked child: it must not hold the other end open when its parent is killed."""
    for guard in _guards:
        if guard.stdin is not None:
            guard.stdin.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def program(name: str, remedy: str, *folders: str) -> str:
    """The path of an installed program, also from ``folders`` outside of PATH. MissingExtra with the ``remedy`` if there is none."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", *folders])
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingExtra(f"server {name}", "it is not installed", remedy)
    return found


class Server:
    """One server. Subclass it: :meth:`prepare`, :meth:`command`, :meth:`answers`. A context manager that starts and stops it.

    It keeps its port and its folder from one :meth:`start` to the next, so that :meth:`kill` and :meth:`start` are an outage.
    It does not outlive the process that started it, even one that is killed.
    """

    name = "server"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------------ what a subclass says
    def prepare(self) -> None:
        """Make in the folder what the server needs, once."""

    def command(self) -> Sequence[str]:
        """The command that serves :data:`HOST`, ``self.port``."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Variables of the process."""
        return os.environ

    def options(self) -> Mapping[str, Any]:
        """Further arguments of Popen, such as ``user``."""
        return {}

    def answers(self) -> bool:
        """Is it this process that serves the port? It is asked until it does: OSError and False are "not yet"."""
        raise NotImplementedError

    # ------------------------------------------------------------------ life
    @property
    def pid(self) -> int:
        """Of the child process. Raises OperatorError if there is none."""
        if self._process is None:
            raise OperatorError(f"{self.name} in {self.folder}", "it does not run", "start() it")
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Is there a living child process?"""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it answers. The first time another port is tried where somebody took this one."""
        if self.port:
            self._start()
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(3):
            self.port = free_port()
            if attempt == 0:
                self.prepare()
            try:
                self._start()
            except OperatorError:
                if attempt == 2:
                    raise
            else:
                break
        return self

    def _start(self) -> None:
        self.kill()  # what may be left of a life that ended by itself
        log = self.folder / f"{self.name}.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self.command()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment(),
                start_new_session=True,
                **self.options(),
            )
        self._guard = subprocess.Popen(
            [*_GUARD, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the one that it watches
        )
        _guards.add(self._guard)
        clock, nothing = WallClock(), queue.SimpleQueue[None]()
        until_s = clock.now() + _READY_S
        while clock.now() < until_s and self._process.poll() is None:
            try:
                if self.answers():
                    return
            except OSError:
                pass  # it is not up yet
            clock.wait(nothing, _POLL_S)
        code = self._process.poll()
        self.kill()
        tail = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        rule = f"it answers within {_READY_S:g} s" if code is None else f"it ended with code {code}"
        raise OperatorError(f"{self.name} on port {self.port}", rule, f"read {log}: {tail}")

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order, within 20 s or by force. Safe to call twice."""
        self._end(self.stop_signal)

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing. On return it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # the signal may reach a busy process late

    def proceed(self) -> None:
        """Go on after :meth:`pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        guard, self._guard = self._guard, None
        if guard is not None:
            with guard:  # waits, and closes the pipe
                guard.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
