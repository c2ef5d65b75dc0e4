"""A Redis stream holds each output once, in order, whoever was killed and whichever answer was lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from live_servers import Kills, Proxy, deliver, held_of, killed_at_random, outputs

from tidewarp.codec import pack
from tidewarp.connect import sinks
from tidewarp.connect.contract import Refused, Sink
from tidewarp.errors import OperatorError
from tidewarp.observe import on_stage
from tidewarp.testing.servers.base import free_port
from tidewarp.testing.servers.redis import RedisServer
from tidewarp.testing.sinks import RUN, SinkConformance
from tidewarp.testing.suites import perform

PASSWORD = "canary-77e1"


@pytest.fixture(scope="module")
def server(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    require("redis")
    with RedisServer(tmp_path_factory.mktemp("redis"), always=True, password=PASSWORD) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    import redis

    with redis.Redis.from_url(server.url) as client:
        yield client
        client.flushall()


def held(client: Any, stream: str = "simulation_data") -> list[Any]:
    """What the entries say, as JSON."""
    return [json.loads(fields[b"payload"]) for _, fields in client.xrange(stream)]


def numbers(client: Any) -> list[int]:
    return [one["value"]["value"] for one in held(client)]


def via(server: RedisServer, proxy: Proxy) -> str:
    return server.url.replace(f":{server.port}/", f":{proxy.port}/")


class TestRedisStreamSink(SinkConformance):
    refused = {"__stream__": "no stream"}  # noqa: RUF012
    test_a_write_that_was_torn_is_mended = None  # its target is no folder: killed in the middle below

    @pytest.fixture(autouse=True)
    def given(self, server: RedisServer, client: Any) -> Iterator[None]:
        client.set("no stream", "a text")
        self.client = client
        with Proxy(server.port, b"\r\nEXEC\r\n", deliver=False) as self.proxy:
            self.url = via(server, self.proxy)
            yield

    def create(self, folder: Path) -> Sink:
        return sinks.redis_stream(self.url, f"out {folder}", name=f"sink {folder}")

    def values(self, folder: Path) -> list[Any]:
        return [one["value"] for one in held(self.client, f"out {folder}")]

    def failing(self, folder: Path) -> AbstractContextManager[object]:
        @contextmanager
        def cutting() -> Iterator[None]:
            self.proxy.armed = True
            yield
            assert not self.proxy.armed, "the connection was not cut"

        return cutting()

    def create_broken(self, folder: Path) -> Sink:
        return sinks.redis_stream(self.url.replace(PASSWORD, "wrong"))


def test_an_entry_is_the_event_payload_and_the_key_holds_the_last_id(server: RedisServer, client: Any) -> None:
    """The published form: one field ``payload``, JSON; ``__stream__`` routes and is taken out."""
    sink = sinks.redis_stream(server.url, name="out")
    batch = outputs(0, 2)
    batch[1] = batch[1]._replace(value=pack({"__stream__": "other", "x": float("nan")}))

    async def life() -> None:
        assert await sink.open(RUN) == ""
        assert await sink.write(batch) == []
        await sink.close()

    perform(life())
    [one] = held(client)
    assert (one["id"], one["sim_ts"], one["value"], one["domain"]) == (batch[0].id, 0.0, {"value": 0}, RUN.domain)
    assert [other["value"] for other in held(client, "other")] == [{"x": None}]
    assert client.get(f"tidewarp:{RUN.domain}:out") == batch[1].id.encode()
    assert sink.nonfinite == 1


def test_a_route_that_is_no_name_is_refused(server: RedisServer, client: Any) -> None:
    """And costs no other output of the batch."""
    batch = outputs(0, 3)
    batch[1] = batch[1]._replace(value=pack({"__stream__": 7}))

    async def life() -> list[Refused]:
        sink = sinks.redis_stream(server.url)
        await sink.open(RUN)
        refused = await sink.write(batch)
        await sink.close()
        return refused

    assert [one.id for one in perform(life())] == [batch[1].id]
    assert numbers(client) == [0, 2]


@pytest.mark.parametrize("executed", [False, True])
def test_an_exec_whose_answer_was_lost_is_settled_by_the_key(server: RedisServer, client: Any, executed: bool) -> None:
    """Lost before or after Redis executed it: opened again the sink knows, and holds each output once (18)."""

    async def life(url: str, proxy: Proxy) -> None:
        sink = sinks.redis_stream(url)
        await sink.open(RUN)
        await sink.write(outputs(0, 5))
        proxy.armed = True
        with pytest.raises(ConnectionError):
            await sink.write(outputs(5, 9))
        assert proxy.cuts == 1
        await sink.close()
        at = held_of(await sink.open(RUN))
        assert at == (9 if executed else 5)
        await sink.write(outputs(5, 12))  # also where the whole is offered again
        await sink.close()

    with Proxy(server.port, b"\r\nEXEC\r\n", deliver=executed) as proxy:
        perform(life(via(server, proxy), proxy))
    assert numbers(client) == [*range(12)]


def test_an_exec_that_redis_reads_late_is_not_doubled(server: RedisServer, client: Any) -> None:
    """A silent server executes an abandoned EXEC when it goes on, perhaps behind the first look of the next connection."""

    async def life() -> None:
        sink = sinks.redis_stream(f"{server.url}?socket_timeout=0.1")
        await sink.open(RUN)
        on_stage(lambda _: server.pause())
        try:
            with pytest.raises(OSError):
                await sink.write(outputs(0, 4))
        finally:
            on_stage(None)
            server.proceed()
        await deliver(sink, 8)

    for _ in range(3):
        perform(life())
        assert numbers(client) == [*range(8)]
        client.flushall()


def test_another_writer_of_the_same_key_is_noticed(server: RedisServer, client: Any) -> None:
    """Between the look at the key and EXEC: nothing of the batch is held, the retry leaves out what is."""
    key = f"tidewarp:{RUN.domain}:redis_stream"
    last = outputs(1, 2)[0].id

    async def life() -> None:
        sink = sinks.redis_stream(server.url)
        await sink.open(RUN)
        on_stage(lambda _: client.set(key, last) and on_stage(None))
        try:
            with pytest.raises(ConnectionError):
                await sink.write(outputs(0, 4))
        finally:
            on_stage(None)
        assert numbers(client) == []
        await sink.write(outputs(0, 4))
        await sink.close()

    perform(life())
    assert numbers(client) == [2, 3]


def test_a_sink_killed_anywhere_is_exactly_once(
    require: Callable[[str], None], server: RedisServer, client: Any
) -> None:
    """Its process is killed at and between the steps of its writes, a dozen times: each output once, in order."""
    require("fork")
    assert killed_at_random(lambda: sinks.redis_stream(server.url), 150, kills=12) == 12
    assert numbers(client) == [*range(150)]


def test_a_server_killed_under_load_holds_each_output_once(server: RedisServer, client: Any) -> None:
    """SIGKILL of Redis in the middle of the writes, with appendfsync always: nothing lost, nothing doubled (18)."""
    kills = Kills(server, [30, 120, 200])
    perform(deliver(sinks.redis_stream(server.url), 300, 5, kills))
    assert not kills.left
    client.connection_pool.disconnect()
    assert numbers(client) == [*range(300)]


def test_an_outage_at_start_may_pass(require: Callable[[str], None], tmp_path: Path) -> None:
    """Refused at start it is a ConnectionError, and the same object opens when the server is there (14)."""
    require("redis")
    server = RedisServer(tmp_path)
    server.port = free_port()
    sink = sinks.redis_stream(server.url)
    with pytest.raises(ConnectionError):
        perform(deliver(sink, 1))
    with server:
        perform(deliver(sink, 3))


def test_what_redis_cannot_take_now_is_offered_again(server: RedisServer, client: Any) -> None:
    """Out of memory may pass: an OSError, nothing of the batch is held, and later all of it."""

    async def life() -> None:
        sink = sinks.redis_stream(server.url)
        await sink.open(RUN)
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(ConnectionError):
                await sink.write(outputs(0, 4))
        finally:
            client.config_set("maxmemory", "0")
        assert numbers(client) == []
        assert await sink.write(outputs(0, 4)) == []
        await sink.close()

    perform(life())
    assert numbers(client) == [*range(4)]


def test_what_the_user_may_not_do_is_the_operators(server: RedisServer, client: Any) -> None:
    """No permission for the stream: OperatorError, nothing held, no secret in it."""
    client.acl_setuser("clerk", enabled=True, passwords=[f"+{PASSWORD}"], keys=["tidewarp:*"], commands=["+@all"])
    url = server.url.replace("redis://:", "redis://clerk:")

    async def life() -> None:
        sink = sinks.redis_stream(url)
        await sink.open(RUN)
        with pytest.raises(OperatorError) as caught:
            await sink.write(outputs(0, 1))
        assert PASSWORD not in f"{caught.value}{sink!r}"
        assert await sink.open(RUN) == ""
        await sink.close()

    perform(life())
