"""What the tests of connectors to servers share: the suite of sources that give again, a proxy that cuts, kills."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
import warnings
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from tidewarp.codec import pack
from tidewarp.connect.contract import Decoder, Output, Raw, Sink, Source
from tidewarp.observe import on_stage
from tidewarp.testing.readings import by_partition, live, positions
from tidewarp.testing.servers.base import HOST, Server
from tidewarp.testing.sinks import RUN
from tidewarp.testing.sources import SourceConformance
from tidewarp.testing.suites import made, perform


class RedeliverySuite(SourceConformance):
    """The suite, for a source that gives again what was not confirmed and names each message: seen as the gate sees it."""

    waits = True
    test_a_twin_runs_on_it_is_replayed_and_resumed = None  # a server forgets what was confirmed: no second run over it

    def _all(
        self, folder: Path, done: Sequence[Raw] = (), *, limit: int = 1_000, epoch_ns: int = 0, confirming: bool = False
    ) -> tuple[list[Raw], Decoder]:
        left = len(self.messages) if len(done) < len(self.messages) else 0
        source = self.create(made(folder))
        raws, decoder = perform(
            live(source, positions(done), limit, left=left, epoch_ns=epoch_ns, confirming=confirming)
        )
        return fresh(raws, done), decoder

    def test_it_can_be_closed_while_it_reads(self, tmp_path: Path) -> None:
        """A read under way is cancelled, confirmed beside it; what was not confirmed is given again."""
        raws, _ = self._all(tmp_path)

        async def life() -> list[Raw]:
            source = self.create(tmp_path)
            await source.open(positions(raws))
            again = await drained(source, len(raws))
            task = asyncio.ensure_future(source.read(1))
            for _ in range(20):
                await asyncio.sleep(0)
            await source.confirm(positions(again[:1]))
            assert not task.done(), "behind the last message it waits"
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await source.close()
            return await one_life(self.create(tmp_path), len(raws) - 1, positions(again))

        assert [raw.id for raw in perform(life())] == [raw.id for raw in raws[1:]]


def fresh(raws: Sequence[Raw], done: Sequence[Raw]) -> list[Raw]:
    """What a gate that has ``done`` admits of ``raws``, under the offsets that they would have if nothing had come twice."""
    known = {raw.id for raw in done}
    last = positions(done)
    kept = []
    for raw in raws:
        if raw.id not in known:
            known.add(raw.id)
            last[raw.partition] = last.get(raw.partition, -1) + 1
            kept.append(raw._replace(offset=last[raw.partition]))
    return kept


async def drained(source: Source, count: int) -> list[Raw]:
    """The next ``count`` messages."""
    raws: list[Raw] = []
    while len(raws) < count:
        raws += await source.read(count - len(raws))
    return raws


async def one_life(source: Source, count: int, behind: Any = None, confirm: bool = False) -> list[Raw]:
    """Open, read so many, perhaps confirm them, close."""
    try:
        await source.open(behind or {})
        raws = await drained(source, count)
        if confirm:
            await source.confirm(positions(raws))
    finally:
        await source.close()
    return raws


async def through(server: Server, source: Source, count: int, kill_at: Sequence[int]) -> list[Raw]:
    """All of ``count`` messages as a gate admits them, the server being killed when so many are there."""
    admitted: list[Raw] = []
    last: dict[int, int] = {}
    kills = [*kill_at]
    outage: asyncio.Future[Any] | None = None
    await source.open(last)
    while len(admitted) < count:
        if kills and len(admitted) >= kills[0]:
            kills.pop(0)
            outage = asyncio.ensure_future(asyncio.to_thread(lambda: (server.kill(), server.start())))
        try:
            some = await source.read(7)
            last.update(positions(some))
            known = {raw.id for raw in admitted}
            admitted += [raw for raw in some if raw.id not in known]
            await source.confirm(last)
        except OSError:
            assert outage is not None, "an error without an outage"
            await outage
            await source.close()
            await source.open(last)
    await source.close()
    assert not kills
    return admitted


def outputs(first: int, end: int) -> list[Output]:
    """Outputs whose value is ``{"value": n}``."""
    return [Output(f"{n:016x}-{0:08x}", n * 10**9, "key", pack({"value": n}), "", "", n) for n in range(first, end)]


async def deliver(
    sink: Sink, end: int, batch: int = 7, outage: Callable[[int], Awaitable[Any] | None] = lambda at: None
) -> None:
    """What an outbox does: write up to ``end``, and behind an error open again and go on above what is held."""
    waiting: Awaitable[Any] | None = None
    at = held_of(await sink.open(RUN))
    while at < end:
        waiting = outage(at) or waiting
        try:
            assert await sink.write(outputs(at, min(at + batch, end))) == []
            at = min(at + batch, end)
        except OSError:
            if waiting is not None:
                await waiting
            await sink.close()
            at = held_of(await sink.open(RUN))
    await sink.close()


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


__all__ = [
    "Proxy",
    "RedeliverySuite",
    "by_partition",
    "deliver",
    "drained",
    "fresh",
    "held_of",
    "killed_at_random",
    "one_life",
    "outputs",
    "through",
]
