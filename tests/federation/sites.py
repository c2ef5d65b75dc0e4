"""Sites in processes of their own, and wires between them that can be cut: what the tests of real peers are made of."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import tidewarp.errors

SOURCES = str(Path(tidewarp.errors.__file__).parents[1])

SITE = """
import hashlib, json, os, signal, sys

from tidewarp import observe
from tidewarp.codec.references import Reference
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.shell import pull, serve
from tidewarp.store import open_store


class Steps:
    # Counts the statements that write, and the stages of blocks; the process dies before that of a given number.
    def __init__(self):
        self.seen, self.last = 0, None

    def step(self, what):
        self.seen += 1
        if self.seen == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self, last):
        self.seen, self.last = 0, last


def payload(text, times):
    # What is long is noise: on its way it cannot be packed.
    return text.encode() if times == 1 else hashlib.shake_256(text.encode()).digest(len(text) * times)


def answer(store, steps, command, *rest):
    if command == "put":
        return [store.put(payload(text, int(times))).hex() for text, times in rest]
    if command == "get":
        return store.get(Reference.parse(*rest)).hex()
    if command == "tombstone":
        store.tombstone(Reference.parse(*rest))
    elif command == "arm":
        steps.arm(*rest)
    elif command == "pull":
        report = pull(store, *rest)
        return {name: getattr(report, name) for name in ("records", "conflicts", "incomplete", "answered")}
    elif command == "steps":
        return steps.seen
    elif command == "state":
        return store.state_hash().hex()
    elif command == "held":
        sizes = {one.id: one.size for one in store.domains() if one.size}
        return {one.hex(): [store.hash_at(one, n).hex() for n in range(1, sizes[one] + 1)] for one in sizes}
    elif command == "cursors":
        return {one.hex(): [seq, hash.hex()] for one, (seq, hash) in ledger_of(store).cursors(*rest).items()}
    else:
        raise SystemExit(f"no command {command}")


with open_store(sys.argv[1], create=True) as store, serve(store) as server:
    steps = Steps()
    store._db.set_trace_callback(steps.step)
    observe.on_stage(steps.step)
    print(json.dumps([store.domain.hex(), server.url]), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(store, steps, *json.loads(line))), flush=True)
    observe.on_stage(None)
    store._db.set_trace_callback(None)
"""


class Killed(Exception):
    """The process of a site ended by SIGKILL before it answered."""


class Site:
    """A process that holds a store, serves it, and pulls when it is told to: a command is a line of JSON, so is its answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SITE, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": SOURCES},
            text=True,
        )
        self.domain, self.url = self._answer()

    def __call__(self, *command: Any) -> Any:
        """What the site answers to ``command``. Raises Killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._process.kill()
        assert self._ended() == -signal.SIGKILL

    def close(self) -> None:
        """Let it close its store and end, if it is not dead."""
        if self._process.returncode is None:
            assert self._ended() == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._ended() == -signal.SIGKILL
            raise Killed
        return json.loads(line)

    def _ended(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        status = self._process.wait()
        self._process.stdout.close()
        return status


class Wire:
    """A port of loopback that leads to a site, whatever port that has now: it counts requests, and can be cut.

    ``let`` is how many bytes of answers it lets through before it breaks of itself; None: all. While it is cut, each
    connection is ended as soon as it is made.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.answered = 0
        """Bytes of answers so far."""
        self.let: int | None = None
        self.is_cut = False
        self._target = ("", 0)
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def lead_to(self, url: str) -> None:
        """Connections from here on go to the server at ``url``."""
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._target = (host, int(port))

    def cut(self) -> None:
        """End all connections, and each new one."""
        self.is_cut = True
        self._end_all()

    def heal(self, let: int | None = None) -> None:
        """Let everything through, or so many bytes."""
        self._end_all()
        self.is_cut, self.let, self.answered, self.requests = False, let, 0, 0

    def close(self) -> None:
        """End all connections and all threads."""
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._end_all()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self, run: Any, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is shut
            while True:
                near, _ = self._listener.accept()
                try:
                    if self.is_cut:
                        raise ConnectionRefusedError
                    far = socket.create_connection(self._target)
                except ConnectionRefusedError:
                    near.close()
                    continue
                with self._lock:
                    self._ends |= {near, far}
                self._start(self._join, near, far)

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._pass_on, args=(far, near, False))
        back.start()
        self._pass_on(near, far, True)
        back.join()
        with self._lock:
            self._ends -= {near, far}
        near.close()
        far.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_question: bool) -> None:
        tail = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_question:
                    self.requests += (tail + data).count(b" HTTP/1.1\r\n")
                    tail = data[-10:]  # one byte less than what is counted
                elif self.let is not None and self.answered + len(data) > self.let:
                    sink.sendall(data[: self.let - self.answered])
                    self.answered = self.let
                    break
                else:
                    self.answered += len(data)
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):  # it was ended already
                one.shutdown(socket.SHUT_RDWR)

    def _end_all(self) -> None:
        with self._lock:
            for one in self._ends:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wired(*paths: Path) -> Iterator[tuple[list[Site], list[Wire]]]:
    """A site at each path, and a wire that leads to each."""
    with contextlib.ExitStack() as stack:
        sites = [stack.enter_context(Site(one)) for one in paths]
        wires = [stack.enter_context(Wire()) for _ in paths]
        for site, wire in zip(sites, wires, strict=True):
            wire.lead_to(site.url)
        yield sites, wires
