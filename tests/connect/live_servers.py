"""What the tests of connectors to servers share: an outage amid reading or writing, a proxy that cuts, kills."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Sequence

from tidewarp.codec import pack
from tidewarp.connect.contract import Output, Raw, Sink, Source
from tidewarp.observe import on_stage
from tidewarp.testing.readings import positions
from tidewarp.testing.servers.base import HOST, Server
from tidewarp.testing.sinks import RUN


class Kills:
    """Kills a server and starts it again, amid the work of another, whenever so much of that is done.

    One outage is over before the next begins: on a busy machine the work may be faster than a kill.
    """

    def __init__(self, server: Server, at: Sequence[int]) -> None:
        self.left = [*at]
        self._server = server
        self._outage: asyncio.Future[None] | None = None

    async def look(self, done: int) -> None:
        """Is it time?"""
        if self.left and done >= self.left[0]:
            self.left.pop(0)
            await self.over()
            self._outage = asyncio.ensure_future(asyncio.to_thread(self._restart))

    async def over(self) -> None:
        """Wait until the server is there."""
        if self._outage is not None:
            await self._outage

    def _restart(self) -> None:
        self._server.kill()
        self._server.start()


async def through(server: Server, source: Source, count: int, kill_at: Sequence[int]) -> list[Raw]:
    """All of ``count`` messages as a gate admits them, the server being killed when so many are there."""
    admitted: list[Raw] = []
    last: dict[int, int] = {}
    kills = Kills(server, kill_at)
    await source.open(last)
    while len(admitted) < count:
        await kills.look(len(admitted))
        try:
            some = await source.read(7)
            last.update(positions(some))
            known = {raw.id for raw in admitted}
            admitted += [raw for raw in some if raw.id not in known]
            await source.confirm(last)
        except OSError:
            assert len(kills.left) < len(kill_at), "an error without an outage"
            await kills.over()
            await source.close()
            await source.open(last)
    await source.close()
    await kills.over()
    assert not kills.left
    return admitted


def outputs(first: int, end: int) -> list[Output]:
    """Outputs whose value is ``{"value": n}``."""
    return [Output(f"{n:016x}-{0:08x}", n * 10**9, "key", pack({"value": n}), "", "", n) for n in range(first, end)]


async def deliver(sink: Sink, end: int, batch: int = 7, kills: Kills | None = None) -> None:
    """What an outbox does: write up to ``end``, and behind an error open again and go on above what is held."""
    at = held_of(await sink.open(RUN))
    while at < end:
        if kills is not None:
            await kills.look(at)
        try:
            assert await sink.write(outputs(at, min(at + batch, end))) == []
            at = min(at + batch, end)
        except OSError:
            if kills is not None:
                await kills.over()
            await sink.close()
            at = held_of(await sink.open(RUN))
    await sink.close()
    if kills is not None:
        await kills.over()


def held_of(last: str | None) -> int:
    """How many of :func:`outputs` a sink says that it holds."""
    return int(last.split("-")[0], 16) + 1 if last else 0


def killed_at_random(create: Callable[[], Sink], end: int, kills: int) -> int:
    """Lives of a sink in processes of their own, killed at or behind a random stage of a write. How many were killed."""
    draw = random.Random(5)
    killed = 0
    while True:
        target, by_itself = draw.randrange(1, 9), draw.random() < 0.5
        told, tell = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # other tests' threads: the child uses none of their locks
            child = os.fork()
        if child == 0:
            _live_and_die(create, end, tell, target if by_itself and killed < kills else 0)
        os.close(tell)
        if not by_itself and killed < kills:
            arrived = 0
            while arrived < target and (part := os.read(told, target - arrived)):
                arrived += len(part)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(told)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "a life that nobody killed raised an error"
            return killed
        killed += 1


def _live_and_die(create: Callable[[], Sink], end: int, tell: int, target: int) -> None:
    arrivals = 0

    def hear(_: str) -> None:
        nonlocal arrivals
        arrivals += 1
        if arrivals == target:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(tell, b".")

    code = 1
    try:
        on_stage(hear)
        asyncio.run(deliver(create(), end, 3))
        code = 0
    finally:
        os._exit(code)


class Proxy:
    """Between a connector and its server: it cuts the connection at the first message to the server that holds ``at``.

    ``deliver`` says whether the server still gets that message, so that only its answer is lost.
    """

    def __init__(self, port: int, at: bytes, deliver: bool) -> None:
        self._port, self._at, self._deliver = port, at, deliver
        self.armed = False
        self.cuts = 0
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((HOST, self._port))
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            while part := _received(client):
                if not (self.armed and self._at in part.upper()):
                    server.sendall(part)
                    continue
                self.armed = False
                self.cuts += 1
                client.shutdown(socket.SHUT_RDWR)  # first: no answer may pass
                if self._deliver:
                    server.sendall(part)
                    server.shutdown(socket.SHUT_WR)
                else:
                    _shut(server)
                return
            _shut(server)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        while part := _received(server):
            try:
                client.sendall(part)
            except OSError:
                return
        _shut(client)


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(1 << 16)
    except OSError:
        return b""


def _shut(peer: socket.socket) -> None:
    try:
        peer.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


__all__ = ["Proxy", "deliver", "held_of", "killed_at_random", "outputs", "through"]
