"""Entries of Redis streams are given until they are confirmed, whatever is killed; Pub/Sub says what it loses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from live_servers import through

from tidewarp.connect import sources
from tidewarp.connect.backends.redis import RedisStreamSource
from tidewarp.connect.contract import HEAD_BYTES, MESSAGE_BYTES_MAX, Gap, Raw, Source, Update
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import OperatorError
from tidewarp.testing.readings import positions
from tidewarp.testing.redelivery import RedeliveryConformance, drained, fresh, one_life
from tidewarp.testing.servers.base import free_port
from tidewarp.testing.servers.redis import RedisServer
from tidewarp.testing.suites import perform

PASSWORD = "canary-77e1"
SECOND = 10**9


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


def message(n: int) -> bytes:
    return json.dumps({"path": "line.value", "value": n, "time": 1_000 + n}).encode()


def add(client: Any, stream: str, first: int, end: int) -> list[str]:
    return [client.xadd(stream, {"payload": message(n)}).decode() for n in range(first, end)]


def values(raws: list[Raw]) -> list[Any]:
    decoder = JsonMessages(0)
    return [decoder.decode(raw).changes[0][1] for raw in raws]


class TestRedisStreamSource(RedeliveryConformance):
    messages = (
        (1_000 * SECOND, {"line.value": 0}),
        (1_002 * SECOND, {"line.value": 2}),
        None,
        (1_001 * SECOND, {"line.value": "1"}),
        (1_003 * SECOND, {"line.text": "é"}),
    )
    secrets = (PASSWORD,)

    @pytest.fixture(autouse=True)
    def given(self, server: RedisServer, client: Any) -> None:
        self.server, self.client = server, client

    def create(self, folder: Path) -> Source:
        stream = f"stream {folder}"
        if not self.client.exists(stream):
            for n in (0, 2):
                self.client.xadd(stream, {"payload": message(n)})
            self.client.xadd(stream, {"payload": b"\xff"})
            self.client.xadd(stream, {"path": "line.value", "value": "1", "time": "1970-01-01T00:16:41Z"})
            self.client.xadd(stream, {"path": "line.text", "value": "é", "time": "1970-01-01T00:16:43Z"})
        return sources.redis_stream(self.server.url, stream, group="g")

    def create_broken(self, folder: Path) -> Source:
        return sources.redis_stream(self.server.url.replace(PASSWORD, "wrong"), "s", group="g")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"redis://:{PASSWORD}@127.0.0.1:1/x?nothing={PASSWORD}", "redis://127.0.0.1:1"),
        (f"nonsense://:{PASSWORD}@127.0.0.1", "nonsense://127.0.0.1"),
        (f"redis://:{PASSWORD}@127.0.0.1:port", "a Redis URL"),
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(
    require: Callable[[str], None], url: str, told: str
) -> None:
    """OperatorError, whose text and chain show no secret."""
    require("redis")
    with pytest.raises(OperatorError) as caught:
        perform(one_life(sources.redis_stream(url, "s", group="g"), 1))
    assert told in str(caught.value)
    assert PASSWORD not in f"{caught.value}{caught.value.__cause__}"


def test_an_outage_at_start_may_pass(require: Callable[[str], None], tmp_path: Path) -> None:
    """Refused at start it is a ConnectionError, and the same object opens when the server is there (14)."""
    require("redis")
    server = RedisServer(tmp_path / "redis")
    server.port = free_port()
    source = sources.redis_stream(server.url, "s", group="g")
    with pytest.raises(ConnectionError):
        perform(one_life(source, 1))
    tmp_path.joinpath("redis").mkdir()
    with server:
        import redis

        with redis.Redis.from_url(server.url) as client:
            add(client, "s", 0, 3)
        assert values(perform(one_life(source, 3))) == [0, 1, 2]


def test_nothing_confirmed_is_given_again_and_everything_else_is(server: RedisServer, client: Any) -> None:
    """Offsets go on, ids are the entries': what was read and not confirmed comes first, under its id."""
    ids = add(client, "s", 0, 6)

    async def lives() -> None:
        source = sources.redis_stream(server.url, "s", group="g")
        await source.open({})
        raws = await drained(source, 4)
        assert [(raw.offset, raw.id) for raw in raws] == [*enumerate(ids[:4])]
        assert raws[0].time_ns == int(ids[0].split("-")[0]) * 10**6
        await source.confirm({0: 1})
        await source.close()
        later = sources.redis_stream(server.url, "s", group="g")
        await later.open({0: 3})
        again = await drained(later, 4)
        assert [(raw.offset, raw.id) for raw in again] == [*enumerate(ids[2:], start=4)]
        await later.confirm(positions(again))
        await later.close()
        assert client.xpending("s", "g")["pending"] == 0

    perform(lives())


def test_a_confirmation_that_failed_is_made_up_by_the_next(server: RedisServer, client: Any) -> None:
    """An outage in between: OSError, and the next confirmation acknowledges both."""
    add(client, "s", 0, 6)

    async def life() -> None:
        source = sources.redis_stream(server.url, "s", group="g")
        await source.open({})
        await drained(source, 6)
        server.kill()
        with pytest.raises(OSError):
            await source.confirm({0: 3})
        server.start()
        await source.confirm({0: 4})
        await source.close()

    perform(life())
    client.connection_pool.disconnect()
    assert client.xpending("s", "g")["pending"] == 1


def test_streams_are_partitions_and_their_ids_differ(server: RedisServer, client: Any) -> None:
    """Two streams with one entry id are two messages."""
    for stream in ("a", "b"):
        for n in range(5):
            client.xadd(stream, {"payload": message(n)}, id=f"7-{n}")
    raws = perform(one_life(sources.redis_stream(server.url, ["a", "b"], group="g"), 10))
    assert len({raw.id for raw in raws}) == 10
    assert {raw.partition for raw in raws} == {0, 1}
    assert [raw.id for raw in raws if raw.partition == 1] == [f"1/7-{n}" for n in range(5)]


def test_a_message_that_is_too_long_keeps_its_head_and_its_hash(server: RedisServer, client: Any) -> None:
    client.xadd("s", {"payload": b"x" * (MESSAGE_BYTES_MAX + 1)})
    [raw] = perform(one_life(sources.redis_stream(server.url, "s", group="g"), 1))
    assert (len(raw.payload), len(raw.sha256 or b"")) == (HEAD_BYTES, 32)


def test_an_entry_deleted_while_it_was_pending_is_not_passed_over(server: RedisServer, client: Any) -> None:
    """It comes under its id without bytes: a duplicate, or a dead letter that people see."""
    ids = add(client, "s", 0, 3)
    perform(one_life(sources.redis_stream(server.url, "s", group="g"), 3))
    client.xdel("s", ids[1])
    raws = perform(one_life(sources.redis_stream(server.url, "s", group="g"), 3))
    assert [(raw.id, bool(raw.payload)) for raw in raws] == [(ids[0], True), (ids[1], False), (ids[2], True)]


@pytest.mark.parametrize("loss", ["group", "stream", "trimmed", "trimmed to nothing", "deleted"])
def test_what_is_gone_is_a_gap_that_can_be_accepted(server: RedisServer, client: Any, loss: str) -> None:
    """Entries that the group was never given, or the group itself: Gap; accepted, it goes on with what is left."""
    ids = add(client, "s", 0, 10)

    async def lives() -> list[Raw]:
        source = sources.redis_stream(server.url, "s", group="g")
        await source.open({})
        await source.confirm(positions(await drained(source, 4)))
        await source.close()
        match loss:
            case "group":
                client.xgroup_destroy("s", "g")
            case "stream":
                client.delete("s")
                add(client, "s", 20, 22)
            case "trimmed":
                client.xtrim("s", maxlen=3, approximate=False)
            case "trimmed to nothing":
                client.xtrim("s", maxlen=0, approximate=False)
                add(client, "s", 20, 22)
            case "deleted":
                client.xdel("s", ids[7])
        with pytest.raises(Gap) as caught:
            await source.open({0: 3})
        gap = caught.value
        assert gap.first == 4
        assert gap.end == {"trimmed": 7, "trimmed to nothing": 10}.get(loss, 4), "how many, where Redis knows"
        gone = (
            f"stream 's' group 'g': the stream or its group is gone, with what was not read: {gap.rule}; {gap.action}"
        )
        assert str(gap).endswith(gone) == (loss in ("group", "stream")), "then nobody knows how many, and why is told"
        source.accept(gap)
        await source.open({0: max(3, gap.end - 1)})
        left = {"group": 10, "trimmed": 3, "deleted": 5}.get(loss, 2)
        raws = await drained(source, left)
        await source.close()
        await source.open(positions(raws))  # it is not reported again
        await source.close()
        return raws

    raws = perform(lives())
    assert values(raws) == {
        "group": [*range(10)],
        "trimmed": [7, 8, 9],
        "deleted": [4, 5, 6, 8, 9],
    }.get(loss, [20, 21])


def test_trimming_what_was_given_is_no_gap(server: RedisServer, client: Any) -> None:
    """Also of a stream that had been trimmed before the group was made."""
    add(client, "s", 0, 10)
    client.xtrim("s", maxlen=6, approximate=False)
    raws = perform(one_life(sources.redis_stream(server.url, "s", group="g"), 5, confirm=True))
    client.xtrim("s", maxlen=1, approximate=False)
    more = perform(one_life(sources.redis_stream(server.url, "s", group="g"), 1, positions(raws)))
    assert values(raws + more) == [4, 5, 6, 7, 8, 9]


def test_a_server_killed_under_load_loses_nothing(server: RedisServer, client: Any) -> None:
    """SIGKILL and restart, twice, while entries are read and confirmed: each is admitted once, in order (18)."""
    for first in range(0, 400, 50):
        add(client, "s", first, first + 50)
    source = sources.redis_stream(server.url, "s", group="g")
    assert values(perform(through(server, source, 400, [60, 200]))) == [*range(400)]


def test_a_silent_server_is_a_timeout_and_not_for_ever(server: RedisServer, client: Any) -> None:
    """SIGSTOP: open and read raise an OSError; when it goes on, all is there."""
    add(client, "s", 0, 3)
    source = sources.redis_stream(f"{server.url}?socket_timeout=0.2&socket_connect_timeout=0.2", "s", group="g")

    async def life() -> list[Raw]:
        await source.open({})
        server.pause()
        try:
            with pytest.raises(OSError):
                await source.read(1)
            await source.close()
            with pytest.raises(OSError):
                await source.open({})
        finally:
            server.proceed()
        return await one_life(source, 3)

    assert values(perform(life())) == [0, 1, 2]


def test_the_group_vanishes_while_it_is_read(server: RedisServer, client: Any) -> None:
    """The read fails as an outage would; opened again it is a Gap."""
    add(client, "s", 0, 1)

    async def life() -> None:
        source = sources.redis_stream(server.url, "s", group="g")
        await source.open({})
        raws = await drained(source, 1)
        client.delete("s")
        with pytest.raises(ConnectionError):
            await source.read(1)
        with pytest.raises(Gap):
            await source.open(positions(raws))
        await source.close()

    perform(life())


def test_a_decoder_of_the_users_is_used(server: RedisServer) -> None:
    class Own:
        def decode(self, raw: Raw) -> Update:
            return Update(None, (("p", raw.payload.decode()),))

    source = sources.redis_stream(server.url, "s", group="g", decoder=Own())
    assert source.decoder(0).decode(Raw(0, 0, b"x")) == Update(None, (("p", "x"),))
    mapped = sources.redis_stream(server.url, "s", group="g", map={"t": "line.t"})
    assert mapped.decoder(0).decode(Raw(0, 0, b'{"t":1}')).changes == (("line.t", 1),)


# ---------------------------------------------------------------------- Pub/Sub
def test_pubsub_gives_what_is_published_while_it_listens(server: RedisServer, client: Any) -> None:
    """In order, over all channels, with ascending offsets."""

    async def life() -> list[Raw]:
        source = sources.redis_pubsub(server.url, ["a", "b"])
        await source.open({})
        for n in range(50):
            client.publish("ab"[n % 2], message(n))
        raws = await drained(source, 50)
        await source.close()
        return raws

    raws = perform(life())
    assert values(raws) == [*range(50)]
    assert [raw.offset for raw in raws] == [*range(50)]


def test_pubsub_states_each_connection_behind_the_first_as_a_gap(server: RedisServer, client: Any) -> None:
    """A resumed journal, and a connection that was lost; accepted once, it holds for that connection."""

    async def life() -> None:
        source = sources.redis_pubsub(server.url, "a")
        assert not source.replayable
        with pytest.raises(Gap) as caught:
            await source.open({0: 4})
        assert caught.value.first == 5
        source.accept(caught.value)
        await source.open({0: 4})
        client.publish("a", message(1))
        [raw] = await source.read(9)
        assert raw.offset == 5
        client.publish("a", message(2))
        await asyncio.to_thread(lambda: (server.kill(), server.start()))
        assert values(list(await source.read(9))) == [2], "what had arrived is still given"
        with pytest.raises(ConnectionError):
            await source.read(9)
        await source.close()
        with pytest.raises(Gap):
            await source.open({})
        await source.close()

    perform(life())


def test_pubsub_keeps_an_accepted_gap_until_it_listens(require: Callable[[str], None], server: RedisServer) -> None:
    """Refused connections in between do not report it again (14)."""
    source = sources.redis_pubsub(f"redis://127.0.0.1:{free_port()}", "a")

    async def life() -> None:
        with pytest.raises(Gap) as caught:
            await source.open({0: 1})
        source.accept(caught.value)
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await source.open({0: 1})
        await source.close()

    perform(life())


def test_pubsub_counts_what_does_not_fit(server: RedisServer, client: Any) -> None:
    """The newest ``buffer`` are kept, the others counted, and their offsets stay empty."""

    async def life() -> None:
        source = sources.redis_pubsub(server.url, "a", buffer=3)
        await source.open({})
        for n in range(10):
            client.publish("a", message(n))
        while source.dropped < 7:
            await asyncio.sleep(0)
        raws = await source.read(9)
        assert [raw.offset for raw in raws] == values(list(raws)) == [7, 8, 9]
        await source.close()

    perform(life())


def test_pubsub_notices_a_silent_server(server: RedisServer) -> None:
    """SIGSTOP: it asks, and without an answer the read raises."""

    async def life() -> None:
        source = sources.redis_pubsub(f"{server.url}?socket_timeout=0.1", "a")
        await source.open({})
        server.pause()
        try:
            with pytest.raises(ConnectionError):
                await source.read(1)
        finally:
            server.proceed()
        await source.close()

    perform(life())


def test_pubsub_can_be_closed_at_any_time(server: RedisServer) -> None:
    """Before open, while it reads, and twice; it describes itself without secrets."""

    async def life() -> None:
        source = sources.redis_pubsub(server.url, "a")
        await source.close()
        await source.open({})
        task = asyncio.ensure_future(source.read(1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await source.close()
        await source.close()
        assert PASSWORD not in f"{source.describe()}{source!r}"

    perform(life())


def test_fresh_drops_what_was_admitted() -> None:
    """The tests' own model of the gate."""
    raws = [Raw(0, n, b"", id=str(n)) for n in range(3)]
    assert [raw.id for raw in fresh([*raws, *raws], raws[:1])] == ["1", "2"]


def test_a_cancellation_that_the_driver_forgets_ends_the_read_all_the_same(require: Callable[[str], None]) -> None:
    """As wait_for of Python 3.11 does with one that comes together with the answer."""
    require("redis")
    source = RedisStreamSource("redis://127.0.0.1:1", "s", group="g")
    asked: list[int] = []

    async def xreadgroup(*words: Any, **options: Any) -> None:
        asked.append(len(asked))
        if asked == [0]:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return
        pytest.fail("it asks again")

    async def life() -> bool:
        source._client = SimpleNamespace(xreadgroup=xreadgroup)
        task = asyncio.ensure_future(source.read(1))
        while not asked:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert perform(life())


def test_a_burst_leaves_reading_its_turn(require: Callable[[str], None]) -> None:
    """Where more has come already the driver gives no turn to others: the listener does."""
    require("redis")

    class Burst:
        """2,000 messages that are there already, then silence."""

        left = 2_000

        async def get_message(self, timeout: float) -> dict[str, Any] | None:
            if self.left == 0:
                await asyncio.Event().wait()
            self.left -= 1
            return {"type": "message", "data": message(self.left)}

        async def aclose(self) -> None:
            return

    async def life() -> None:
        source = sources.redis_pubsub("redis://localhost", "a", buffer=128)
        source._listening = asyncio.create_task(source._listen(Burst(), 1.0))
        read = 0
        while read < 2_000 - source.dropped:
            read += len(await source.read(512))
        assert source.counts() == {"dropped": 0}
        await source.close()

    perform(life())
