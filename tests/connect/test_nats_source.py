"""A JetStream stream as a source: the journal says where it goes on, whatever its consumer, server or stream went through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tidewarp.connect import sources
from tidewarp.connect.backends.nats import NatsSource
from tidewarp.connect.contract import HEAD_BYTES, MESSAGE_BYTES_MAX, Gap, Raw
from tidewarp.errors import OperatorError
from tidewarp.testing.servers.nats import NatsServer
from tidewarp.testing.sources import SourceConformance
from tidewarp.testing.suites import perform

S = 10**9
SECRET = "hunter2"


@pytest.fixture(scope="module")
def server(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    require("nats")
    with NatsServer(tmp_path_factory.mktemp("nats"), user="twin", password=SECRET, max_payload=8 << 20) as one:
        yield one


def message(n: int, **fields: Any) -> bytes:
    return json.dumps({"path": "line.value", "value": n, "time": n, **fields}).encode()


async def with_stream(server: NatsServer, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    import nats

    connection = await nats.connect(server.url)
    try:
        return await work(connection.jetstream())
    finally:
        await connection.close()


def made(server: NatsServer, name: str, payloads: list[bytes], subject: str = "a", **config: Any) -> None:
    """A stream of this name that takes NAME.>, with these messages."""

    async def work(stream: Any) -> None:
        await stream.add_stream(name=name, subjects=[f"{name}.>"], **config)
        for payload in payloads:
            await stream.publish(f"{name}.{subject}", payload)

    perform(with_stream(server, work))


def published(server: NatsServer, name: str, payloads: list[bytes], subject: str = "a", **headers: str) -> None:
    async def work(stream: Any) -> None:
        for payload in payloads:
            await stream.publish(f"{name}.{subject}", payload, headers=headers)

    perform(with_stream(server, work))


def consumer(server: NatsServer, name: str) -> Any:
    async def work(stream: Any) -> Any:
        return await stream.consumer_info(name, "twin")

    return perform(with_stream(server, work))


def source(server: NatsServer, stream: str, **options: Any) -> NatsSource:
    return NatsSource(server.url, stream, durable="twin", **options)


async def some(one: NatsSource, count: int, limit: int = 100) -> list[Raw]:
    raws: list[Raw] = []
    while len(raws) < count:
        raws += await one.read(limit)
    return raws


def life(one: NatsSource, positions: Mapping[int, int], count: int, *, confirm: int | None = None) -> list[Raw]:
    """Open, read ``count`` messages, confirm up to the offset ``confirm``, close."""

    async def run() -> list[Raw]:
        try:
            await one.open(positions)
            raws = await some(one, count)
            if confirm is not None:
                await one.confirm({raws[0].partition: confirm})
            return raws
        finally:
            await one.close()

    return perform(run())


class TestNatsSource(SourceConformance):
    """What every source has to keep; below, what is the stream's own."""

    messages = (
        (10 * S, {"line.value": 1.5}),
        None,
        (12 * S, {"line.value": 3}),
        (11 * S, {"line.value": 4, "line.mode": "é"}),
        (13 * S, {"line.value": 5}),
    )
    waits = True
    secrets = (SECRET,)
    bodies = (
        b'{"path":"line.value","value":1.5,"time":10}',
        b"no JSON",
        b'{"path":"line.value","value":3,"time":12}',
        '{"set":{"line.value":4,"line.mode":"é"},"time":11}'.encode(),
        b'{"path":"line.value","value":5,"time":13}',
    )

    @pytest.fixture(autouse=True)
    def _serve(self, server: NatsServer) -> None:
        self.server = server
        self.streams: dict[Path, str] = {}

    def create(self, folder: Path) -> NatsSource:
        name = sha256(str(folder).encode()).hexdigest()[:16]
        if folder not in self.streams:
            made(self.server, name, [*self.bodies])
            self.streams[folder] = name
        return source(self.server, name, name="readings")

    def create_broken(self, folder: Path) -> NatsSource:
        return source(self.server, "none")


def test_offset_is_the_sequence_and_the_time_that_of_the_server(server: NatsServer) -> None:
    """So the journaled position is a place in the stream, and event time may be the time of the record."""
    made(server, "places", [message(n) for n in range(3)])
    published(server, "places", [message(3)], **{"tw-id": "abc:1"})
    raws = life(source(server, "places"), {}, 4)
    assert [(raw.offset, raw.payload) for raw in raws] == [(n + 1, message(n)) for n in range(4)]
    assert all(one.time_ns < other.time_ns for one, other in pairwise(raws))  # type: ignore[operator]
    assert [raw.cause for raw in raws] == ["", "", "", "abc:1"]
    assert sources.nats is NatsSource


def test_it_goes_on_behind_the_journal_whatever_was_acknowledged(server: NatsServer) -> None:
    """Journaled and not acknowledged: not given again. Acknowledged and not journaled, by another life: given again."""
    made(server, "behind", [message(n) for n in range(6)])
    first = life(source(server, "behind"), {}, 6, confirm=5)
    partition = first[0].partition
    for behind in (6, 4, 0):
        published(server, "behind", [message(9)])
        raws = life(source(server, "behind"), {partition: behind} if behind else {}, 1)
        assert raws[0].offset == behind + 1


def test_what_is_journaled_is_acknowledged(server: NatsServer) -> None:
    """confirm() moves the floor that lag tools look at, and no message is acknowledged before."""
    made(server, "acks", [message(n) for n in range(5)])
    (*_, last) = life(source(server, "acks"), {}, 5, confirm=0)
    assert consumer(server, "acks").num_ack_pending == 5
    life(source(server, "acks"), {}, 5, confirm=3)
    found = consumer(server, "acks")
    assert (found.num_ack_pending, found.ack_floor.stream_seq) == (2, 3)
    published(server, "acks", [message(5)])
    life(source(server, "acks"), {last.partition: 5}, 1, confirm=6)
    assert consumer(server, "acks").num_ack_pending == 0


@pytest.mark.parametrize("retention", ["workqueue", "interest"])
def test_a_stream_that_forgets_what_is_acknowledged_loses_nothing_else(server: NatsServer, retention: str) -> None:
    """A crash between the journal and the acknowledgement: the rest comes once, and the stream is empty at the end."""
    name = f"forgets-{retention}"
    made(server, name, [], retention=retention)

    async def run() -> list[int]:
        one = source(server, name)
        await one.open({})  # interest begins
        await with_stream(server, lambda stream: publish(stream))
        raws = await some(one, 5)
        await one.close()  # nothing was acknowledged
        one = source(server, name)
        await one.open({raws[0].partition: 3})
        rest = await some(one, 2)
        await one.confirm({raws[0].partition: 5})
        await one.close()
        return [raw.offset for raw in rest]

    async def publish(stream: Any) -> None:
        for n in range(5):
            await stream.publish(f"{name}.a", message(n))

    assert perform(run()) == [4, 5]
    left = perform(with_stream(server, lambda stream: stream.stream_info(name)))
    assert left.state.messages == 0


def test_a_sequence_that_retention_has_removed_is_a_gap(server: NatsServer) -> None:
    """It names what is missing; behind it, as the operator accepts, the source goes on."""
    made(server, "removed", [message(n) for n in range(8)], max_msgs=4)
    partition = life(source(server, "removed"), {}, 4)[0].partition
    one = source(server, "removed")
    with pytest.raises(Gap) as caught:
        life(one, {partition: 2}, 1)
    assert (caught.value.partition, caught.value.first, caught.value.end) == (partition, 3, 5)
    one.accept(caught.value)
    assert [raw.offset for raw in life(one, {partition: 4}, 4)] == [5, 6, 7, 8]


@pytest.mark.parametrize("count", [1, 9])
def test_a_stream_that_was_made_anew_is_a_gap(server: NatsServer, count: int) -> None:
    """Also where its sequences have grown past the journaled one; once accepted, the new one is read from its beginning."""
    name = f"anew-{count}"
    made(server, name, [message(n) for n in range(5)])
    old = life(source(server, name), {}, 5)[-1]
    perform(with_stream(server, lambda stream: stream.delete_stream(name)))
    made(server, name, [message(n) for n in range(count)])
    one = source(server, name)
    with pytest.raises(Gap, match="anew") as caught:
        life(one, {old.partition: 5}, 1)
    one.accept(caught.value)
    accepted = {old.partition: 5, caught.value.partition: caught.value.end - 1}  # as the gate does
    raws = life(one, accepted, count)
    assert [raw.offset for raw in raws] == [*range(1, count + 1)]
    assert raws[0].partition != old.partition
    later = {old.partition: 5, raws[0].partition: count - 1}
    assert [raw.offset for raw in life(source(server, name), later, 1)] == [count]


def test_a_stream_deleted_while_it_is_read_is_noticed(server: NatsServer) -> None:
    """The read ends with an error that a retry may mend; the retry finds that there is no stream."""
    made(server, "deleted", [message(0)])

    async def run() -> None:
        one = source(server, "deleted")
        await one.open({})
        await some(one, 1)
        waiting = asyncio.ensure_future(one.read(1))
        await asyncio.sleep(0)
        await with_stream(server, lambda stream: stream.delete_stream("deleted"))
        with pytest.raises(ConnectionError):
            await waiting
        with pytest.raises(OperatorError, match="no stream"):
            await one.open({})
        await one.close()

    perform(run())


def test_a_message_that_gets_lost_on_its_way_is_noticed(server: NatsServer) -> None:
    """The consumer counts what it delivers: where one is missing the connection is given up, and the next has them all."""
    made(server, "lost", [message(n) for n in range(5)])

    async def run() -> None:
        one = source(server, "lost")
        await one.open({})
        await one.read(1)
        await with_stream(server, lambda stream: stream.stream_info("lost"))  # the other four have come
        one._arrived.get_nowait()
        with pytest.raises(ConnectionError, match="1 messages got lost"):
            await some(one, 4)
        await one.close()

    perform(run())
    assert [raw.offset for raw in life(source(server, "lost"), {}, 5)] == [1, 2, 3, 4, 5]


def test_only_the_subjects_that_were_named(server: NatsServer) -> None:
    """One subject, or a wildcard; several are refused where the server has only one filter."""
    made(server, "subjects", [message(0)], "a.x")
    published(server, "subjects", [message(1)], "b.x")
    published(server, "subjects", [message(2)], "a.y")
    raws = life(source(server, "subjects", subjects="subjects.a.*"), {}, 2)
    assert [raw.offset for raw in raws] == [1, 3]
    with pytest.raises(OperatorError, match=r"2\.10"):
        life(source(server, "subjects", subjects=["subjects.a.x", "subjects.b.x"]), {}, 2)


def test_a_message_too_long_for_the_journal_keeps_its_place(server: NatsServer) -> None:
    """Poison in the middle: its head and its digest, and the message behind it."""
    long = b"x" * (MESSAGE_BYTES_MAX + 1)
    made(server, "long", [message(0), long, message(2)])
    first, second, third = life(source(server, "long"), {}, 3)
    assert (second.payload, second.sha256) == (long[:HEAD_BYTES], sha256(long).digest())
    assert (first.payload, third.payload) == (message(0), message(2))


def test_a_slow_reader_holds_a_bounded_number_of_messages(server: NatsServer) -> None:
    """While nobody reads, no more wait here than one pull asks for."""
    made(server, "many", [message(n) for n in range(600)])

    async def run() -> tuple[list[int], int]:
        one = source(server, "many")
        await one.open({})
        raws = [*await one.read(1)]
        await with_stream(server, lambda stream: stream.stream_info("many"))  # all that was pulled has come
        waiting = one._arrived.qsize()
        raws += await some(one, 599, limit=7)
        await one.close()
        return [raw.offset for raw in raws], waiting

    offsets, waiting = perform(run())
    assert offsets == [*range(1, 601)]
    assert waiting <= 256


def test_a_server_that_is_killed_loses_and_doubles_nothing(require: Callable[[str], None], tmp_path: Path) -> None:
    """SIGKILL while it is read: the waiting read ends, opening fails until it is back, and every sequence comes once."""
    require("nats")
    with NatsServer(tmp_path / "server") as server:
        made(server, "killed", [message(n) for n in range(300)])

        async def run() -> list[int]:
            one = source(server, "killed")
            await one.open({})
            raws: list[Raw] = []
            while len(raws) < 100:
                raws += await one.read(100 - len(raws))
            partition = raws[0].partition
            await one.confirm({partition: 40})
            server.kill()
            with pytest.raises(ConnectionError):
                await some(one, 1_000)  # what had come, and then no more
            await one.confirm({partition: 100})  # too late, and no error
            await one.close()
            with pytest.raises(OSError):
                await one.open({partition: 100})
            await one.close()
            server.start()
            await one.open({partition: 100})
            raws += await some(one, 200, limit=50)
            await one.close()
            return [raw.offset for raw in raws]

        assert perform(run()) == [*range(1, 301)]
