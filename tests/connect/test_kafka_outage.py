"""The broker is killed, restarted, frozen, or not there at all: source and sink lose nothing, double nothing, hang nowhere."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kafka_driver as kafka
import pytest

from tidewarp.connect import KafkaAdmin, Raw, sinks, sources
from tidewarp.testing.faults import armed
from tidewarp.testing.servers.base import HOST, free_port
from tidewarp.testing.servers.kafka import KafkaServer
from tidewarp.testing.sinks import RUN, output, outputs
from tidewarp.testing.suites import perform
from tidewarp.twin import Twin, open_twin, replay


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], None]) -> Iterator[KafkaServer]:
    """A broker that the tests may harm; each leaves it running."""
    require("kafka")
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as one:
        yield one


def make_source(server: KafkaServer, topic: str) -> Any:
    return sources.kafka(topic, bootstrap_servers=server.bootstrap, group_id=topic, config=kafka.QUICK)


def make_sink(server: KafkaServer, topic: str, **options: Any) -> Any:
    return sinks.kafka(server.bootstrap, event_topic=topic, telemetry_topic=topic, name=topic, **options)


def values(server: KafkaServer, topic: str) -> list[Any]:
    return [json.loads(message.value())["value"] for message in kafka.held(server, topic)]


async def patiently(attempt: Callable[[], Any]) -> Any:
    """As the host does, without its pauses: again, as long as an OSError says that it may pass."""
    while True:
        try:
            return await attempt()
        except OSError:
            await asyncio.sleep(0)


def test_nobody_there_at_the_start_is_what_may_pass(require: Callable[[str], None]) -> None:
    """Source and sink say OSError, which the host retries for ever; the admin too."""
    require("kafka")
    nowhere = f"{HOST}:{free_port()}"
    source = sources.kafka("a", bootstrap_servers=nowhere, group_id="g")
    sink = sinks.kafka(nowhere)

    async def run() -> None:
        for _ in range(2):
            with pytest.raises(OSError):
                await source.open({})
            await source.close()
        with pytest.raises(OSError):
            await sink.open(RUN)
        await sink.close()

    perform(run())
    with pytest.raises(OSError):
        KafkaAdmin(nowhere).create_topics([{"name": "a"}])


async def deliver(sink: Any, end: int) -> None:
    """One attempt of a host: open it, and write what it does not hold. A broker that is back may still refuse."""
    try:
        told = await sink.open(RUN)
        await sink.write([one for one in outputs(0, end) if one.id > (told or "")])
    except OSError:
        await sink.close()
        raise


def test_a_broker_that_is_killed_and_comes_back_costs_nothing(server: KafkaServer) -> None:
    """SIGKILL of the broker in the middle of a transaction and of a read; on the same port with its data, all goes on."""
    read_from, write_to = kafka.new_topic(server), kafka.new_topic(server)
    kafka.send(server, read_from, b"0", b"1", b"2")
    source, sink = make_source(server, read_from), make_sink(server, write_to)

    async def for_ever(source: Any) -> None:
        while True:
            await source.read(1)

    async def before() -> None:
        await source.open({})
        await source.read(1)
        assert await sink.open(RUN) == ""
        await sink.write(outputs(0, 3))
        with armed("release.inside", server.kill, arrival=2), pytest.raises(OSError):
            await sink.write(outputs(3, 9))
        with pytest.raises(OSError):
            await for_ever(source)
        await source.close()
        await sink.close()

    async def after() -> None:
        found: list[Raw] = []

        async def read_on() -> None:
            try:
                await source.open({0: len(found)})
                while len(found) < 3:
                    found.extend(await source.read(1) or ())
            except OSError:
                await source.close()
                raise

        await patiently(read_on)
        assert [(raw.offset, raw.payload) for raw in found] == [(1, b"1"), (2, b"2"), (3, b"3")]
        told = await patiently(lambda: sink.open(RUN))
        assert told in (output(2).id, output(8).id)
        await sink.close()
        await patiently(lambda: deliver(sink, 12))
        await source.close()
        await sink.close()

    perform(before())
    server.start()
    kafka.send(server, read_from, b"3")
    perform(after())
    assert values(server, write_to) == [*range(12)]


@pytest.mark.parametrize("delivery", ["once", "at_least_once"])
def test_a_frozen_broker_ends_a_write_and_not_the_sink(server: KafkaServer, delivery: str) -> None:
    """It keeps its connections and answers nothing: write raises an OSError, close returns, the next life goes on."""
    topic = kafka.new_topic(server)
    sink = make_sink(server, topic, delivery=delivery)

    async def frozen() -> None:
        await sink.open(RUN)
        await sink.write(outputs(0, 3))
        with armed("release.inside", server.pause, arrival=2):
            try:
                with pytest.raises(OSError):
                    await sink.write(outputs(3, 6))
                await sink.close()
            finally:
                server.proceed()

    async def thawed() -> None:
        await patiently(lambda: deliver(sink, 6))
        await sink.close()

    perform(frozen())
    perform(thawed())
    held = values(server, topic)
    assert (held if delivery == "once" else sorted(set(held))) == [*range(6)]


def test_a_frozen_broker_does_not_hold_a_source_that_closes(server: KafkaServer) -> None:
    """With a commit under way, which is never answered: close returns all the same, and the next life reads on."""
    topic = kafka.new_topic(server)
    kafka.send(server, topic, b"0", b"1")
    source = make_source(server, topic)

    async def frozen() -> None:
        await source.open({})
        await source.read(1)
        server.pause()
        try:
            await source.confirm({0: 0})
            await source.close()
        finally:
            server.proceed()

    async def thawed() -> Any:
        try:
            await source.open({0: 0})
            return await source.read(1)
        finally:
            await source.close()

    perform(frozen())
    assert [raw.payload for raw in perform(patiently(thawed))] == [b"1"]


def test_a_twin_between_two_topics_survives_its_broker(server: KafkaServer, tmp_path: Path) -> None:
    """Killed while the twin runs and back again: every message is one input, every output is there once, the replay is equal."""
    read_from, write_to, half, end = kafka.new_topic(server), kafka.new_topic(server), 20, 60
    reached = {half: threading.Event(), end: threading.Event()}

    def build(twin: Twin) -> None:
        changes = twin.variable("line.n", int).changes()

        def follow() -> Any:
            for _ in range(end):
                change = yield changes.next()
                twin.publish_event("n", change.new)
                if twin.live and change.new in reached:
                    reached[change.new].set()

        twin.process(follow())
        twin.connect(make_source(server, read_from))
        twin.sink(make_sink(server, write_to), batch=5)

    def publish(first: int, last: int) -> None:
        messages = (json.dumps({"path": "line.n", "value": n}).encode() for n in range(first, last + 1))
        kafka.send(server, read_from, *messages)

    with open_twin(tmp_path / "a.tw", build, factor=1) as twin, ThreadPoolExecutor(1) as thread:
        running = thread.submit(twin.run)
        try:
            publish(1, half)
            assert reached[half].wait(60)
            server.kill()
            server.start()
            publish(half + 1, end)
            assert reached[end].wait(60)
        finally:
            twin.stop()
            summary = running.result(60)
    assert values(server, write_to) == [*range(1, end + 1)]
    assert summary.inputs == end
    assert replay(tmp_path / "a.tw", build).equal
