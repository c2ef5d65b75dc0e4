"""Topics of an MQTT broker as a source: acknowledged when journaled, sent again until then, and a lost session is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tidewarp.connect import sources
from tidewarp.connect.backends import mqtt as backend
from tidewarp.connect.backends.mqtt import MqttSource
from tidewarp.connect.backends.mqtt_client import Client
from tidewarp.connect.contract import HEAD_BYTES, MESSAGE_BYTES_MAX, Gap, Raw, Undecodable
from tidewarp.errors import OperatorError
from tidewarp.testing.servers.base import HOST
from tidewarp.testing.servers.mosquitto import MosquittoServer
from tidewarp.testing.sources import SourceConformance
from tidewarp.testing.suites import perform

S = 10**9
SECRET = "hunter2"
LOGIN = {"username": "twin", "password": SECRET}


@pytest.fixture(scope="module")
def server(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[MosquittoServer]:
    require("mosquitto")
    with MosquittoServer(tmp_path_factory.mktemp("mosquitto"), user="twin", password=SECRET) as one:
        yield one


def message(n: int, **fields: Any) -> bytes:
    return json.dumps({"path": "line.value", "value": n, "time": n, **fields}).encode()


async def publish(server: MosquittoServer, topic: str, payloads: Sequence[bytes], qos: int = 1, **named: str) -> None:
    client = Client("test", HOST, server.port, **LOGIN)
    await client.connect(clean_start=True)
    futures = [client.publish(topic, payload, qos, named) for payload in payloads]
    marker = client.publish("marker", b"", 1, {})  # nobody acknowledges what has QoS 0
    await client.acknowledged([*futures, marker] if qos else [marker])
    await client.close()


def source(server: MosquittoServer, topic: str, **options: Any) -> MqttSource:
    return MqttSource(HOST, server.port, topic, **{**LOGIN, "client_id": f"of {topic}", **options})


async def some(one: MqttSource, count: int, limit: int = 100) -> list[Raw]:
    raws: list[Raw] = []
    while len(raws) < count:
        raws += await one.read(limit)
    return raws


async def life(one: MqttSource, behind: int, count: int, *, confirm: int | None = None) -> list[Raw]:
    """Open, read ``count`` messages, confirm up to the offset ``confirm``, close."""
    try:
        await one.open({0: behind} if behind else {})
        raws = await some(one, count)
        if confirm is not None:
            await one.confirm({0: confirm})
        return raws
    finally:
        await one.close()


def values(raws: Sequence[Raw]) -> list[int]:
    return [json.loads(raw.payload)["value"] for raw in raws]


class TestMqttSource(SourceConformance):
    """What every source has to keep, but for what needs messages with numbers; below, what is the broker's own."""

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
        b'{"path":"line.value","value":1.5,"time":10,"id":1}',
        b"no JSON",
        b'{"path":"line.value","value":3,"time":12,"id":2}',
        '{"set":{"line.value":4,"line.mode":"é"},"time":11,"id":3}'.encode(),
        b'{"path":"line.value","value":5,"time":13,"id":4}',
    )

    # A broker sends again what was not confirmed, and nothing that was: where its reader stands is not the journal's to say.
    test_it_goes_on_behind_any_position = None
    test_it_can_be_closed_while_it_reads = None

    @pytest.fixture(autouse=True)
    def _serve(self, server: MosquittoServer) -> None:
        self.server = server
        self.topics: set[Path] = set()

    def create(self, folder: Path) -> MqttSource:
        topic = sha256(str(folder).encode()).hexdigest()[:16]
        if folder not in self.topics:
            self.topics.add(folder)

            async def fill() -> None:
                one = source(self.server, topic)
                await one.open({})
                await publish(self.server, topic, self.bodies)
                await one.close()

            perform(fill())
        return source(self.server, topic)

    def create_broken(self, folder: Path) -> MqttSource:
        return source(self.server, "a", password="wrong")


def test_what_was_not_confirmed_comes_again_and_only_that(server: MosquittoServer) -> None:
    """In the order of the broker, under offsets that go on; its id, if it has one, says that it was there."""

    async def run() -> list[list[int]]:
        one = source(server, "again")
        await one.open({})
        await publish(server, "again", [message(n) for n in range(6)])
        first = await some(one, 6)
        await one.confirm({0: 2})
        await one.close()
        second = await life(source(server, "again"), 6, 4, confirm=8)
        third = await life(source(server, "again"), 10, 2, confirm=12)
        await publish(server, "again", [message(9)])
        return (
            [*map(values, (first, second, third))],
            [raw.offset for raw in second],
            values(await life(source(server, "again"), 12, 1, confirm=13)),
        )

    lives, offsets, last = perform(run())
    assert lives == [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5], [4, 5]]
    assert offsets == [7, 8, 9, 10]
    assert last == [9]
    assert sources.mqtt is MqttSource


def test_it_can_be_cancelled_while_it_waits(server: MosquittoServer) -> None:
    """confirm() is served meanwhile, and what comes afterwards is there for the next life."""

    async def run() -> list[int]:
        one = source(server, "waits")
        await one.open({})
        await publish(server, "waits", [message(0)])
        await some(one, 1)
        waiting = asyncio.ensure_future(one.read(1))
        await asyncio.sleep(0)
        await one.confirm({0: 1})
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        await one.close()
        await one.close()
        await publish(server, "waits", [message(1)])
        return values(await life(one, 1, 1))

    assert perform(run()) == [1]


def test_no_more_is_sent_than_waits_for_the_journal(server: MosquittoServer) -> None:
    """The broker holds back what lies beyond the window of unacknowledged messages, and sends it after a confirm."""

    async def run() -> tuple[int, list[int]]:
        one = source(server, "window")
        await one.open({})
        await publish(server, "window", [message(n) for n in range(60)])
        raws = await some(one, 1)
        await publish(server, "window", [])  # a round trip: what was to be sent has been sent
        waiting = one._arrived.qsize()
        while len(raws) < 60:
            await one.confirm({0: raws[-1].offset})
            raws += await one.read(7)
        await one.confirm({0: 60})
        await one.close()
        return waiting, values(raws)

    waiting, found = perform(run())
    assert found == [*range(60)]
    assert waiting < 20, "max_inflight_messages of the broker, which is the lower of the two bounds"


def test_messages_that_nobody_acknowledges_are_dropped_and_counted(
    server: MosquittoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QoS 0 has no window: what does not fit is dropped, and no message of QoS 1 is."""
    monkeypatch.setattr(backend, "_UNASKED_MAX", 10)

    async def run() -> tuple[list[int], int]:
        one = source(server, "unasked")
        await one.open({})
        await publish(server, "unasked", [message(n) for n in range(30)], qos=0)
        await publish(server, "unasked", [message(30)])
        while one._arrived.qsize() < 11:
            await asyncio.sleep(0)
        raws = await some(one, 11)
        await one.confirm({0: 11})
        await one.close()
        return values(raws), one.dropped

    assert perform(run()) == ([*range(10), 30], 20)


def test_a_session_that_the_broker_has_lost_is_a_gap_until_it_is_accepted(server: MosquittoServer) -> None:
    """Each open says so, not the first alone; a fresh journal has nothing to miss."""

    async def run() -> list[int]:
        one = source(server, "session")
        for _ in range(2):
            with pytest.raises(Gap, match="no session") as caught:
                await one.open({0: 7})
            await one.close()
        assert (caught.value.partition, caught.value.first, caught.value.end) == (0, 8, 8)
        one.accept(caught.value)
        await one.open({0: 7})
        await one.close()
        await publish(server, "session", [message(1)])
        raws = await life(source(server, "session"), 7, 1)  # now there is one
        assert raws[0].offset == 8
        return values(raws)

    assert perform(run()) == [1]


def test_a_cause_comes_from_the_sink_of_another_twin(server: MosquittoServer) -> None:
    """The user property tw-id; one that is no id is left out, and poison in the middle costs no other message."""
    long = b"x" * (MESSAGE_BYTES_MAX + 1)

    async def run() -> list[Raw]:
        one = source(server, "cause")
        await one.open({})
        await publish(server, "cause", [message(0)], **{"tw-id": "00-01"})
        await publish(server, "cause", [long], **{"tw-id": "x" * 300})
        await publish(server, "cause", [message(2)])
        raws = await some(one, 3)
        await one.close()
        return raws

    first, second, third = perform(run())
    assert [raw.cause for raw in (first, second, third)] == ["00-01", "", ""]
    assert (second.payload, second.sha256) == (long[:HEAD_BYTES], sha256(long).digest())
    assert values([third]) == [2]


def test_another_client_with_its_name_ends_the_connection(server: MosquittoServer) -> None:
    """Two twins with one client_id would throw each other out for ever."""

    async def run() -> None:
        one, other = source(server, "name"), source(server, "name")
        await one.open({})
        waiting = asyncio.ensure_future(one.read(1))
        await asyncio.sleep(0)
        await other.open({})
        with pytest.raises(ConnectionError):  # this broker does not say why; one that does is heard
            await waiting
        await one.close()
        waiting = asyncio.ensure_future(other.read(1))
        await asyncio.sleep(0)
        other._client._hear_lost(other._client._paho, SimpleNamespace(value=142))
        with pytest.raises(OperatorError, match="another client"):
            await waiting
        await other.close()

    perform(run())


@pytest.mark.parametrize(
    ("options", "said"), [({"qos": 2}, "qos=2"), ({"topic": "a#"}, "topics"), ({"topic": ""}, "topics")]
)
def test_what_no_retry_can_mend_is_an_error(server: MosquittoServer, options: Mapping[str, Any], said: str) -> None:
    """QoS 2 would lose what was handed over and not journaled; a filter has to be one."""

    async def run() -> None:
        one = source(server, **{"topic": "fine", **options})
        try:
            await one.open({})
        finally:
            await one.close()

    with pytest.raises(OperatorError, match=said) as caught:
        perform(run())
    assert SECRET not in str(caught.value)


def test_a_broker_that_is_killed_is_an_outage_and_nothing_is_lost(
    require: Callable[[str], None], tmp_path: Path
) -> None:
    """SIGKILL while it is read: the waiting read ends, opening fails until it is back, and it sends on."""
    require("mosquitto")
    with MosquittoServer(tmp_path / "server") as server:

        async def run() -> list[int]:
            one = MqttSource(HOST, server.port, "killed")
            await one.open({})
            client = Client("test", HOST, server.port)
            await client.connect(clean_start=True)
            await client.acknowledged([client.publish("killed", message(n), 1, {}) for n in range(10)])
            raws = await some(one, 10)
            await one.confirm({0: 4})
            await one._client.subscribe(["marker"], 1)  # a round trip: the broker has the acknowledgements
            server.stop()  # it saves; a killed one may have lost the last acknowledgements
            server.start()
            await client.close()
            with pytest.raises(ConnectionError):
                await one.read(1)
            await one.confirm({0: 10})  # too late, and no error
            await one.close()
            server.kill()
            with pytest.raises(OSError):
                await one.open({0: 10})
            await one.close()
            server.start()
            raws = await life(one, 10, 6)
            return values(raws)

        assert perform(run()) == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"71.5", {"value": 71.5}),
        (b" true ", {"value": True}),
        (b'"on"', {"value": "on"}),
        (b"on", {"value": "on"}),
        (b"", {"value": ""}),
        (b'5,"time":3', {"value": '5,"time":3'}),
        (b"\xff", {"value": "\ufffd"}),
        (b"[1, 2]", {"value": [1, 2]}),
        (b'{"a": 1}', {"value": {"a": 1}}),
        (b' {"value": 3, "time": 7, "id": "x"} ', {"value": 3, "time": 7, "id": "x"}),
        (b'{"value": 3, "path": "else.where"}', {"value": 3}),
    ],
)
def test_a_topic_names_the_path_and_the_payload_is_the_value(
    require: Callable[[str], None], payload: bytes, expected: dict[str, Any]
) -> None:
    """JSON, or else text; an object with a value brings its time and id. The path is the topic's, whatever is sent."""
    require("mosquitto")
    one = MqttSource(HOST, 1, {"plant/line/temperature": "line.temperature", "plant/+/+": "{1}.{2}"})
    for topic, path in (("plant/line/temperature", "line.temperature"), ("plant/press/speed", "press.speed")):
        raw = one._raw(SimpleNamespace(topic=topic, payload=payload, qos=0, properties=None))
        update = one.decoder(0).decode(raw)
        assert update.changes == ((path, expected["value"]),)
        assert update.tick == (expected["time"] * S if "time" in expected else None)
        assert update.id == expected.get("id", "")
    assert one.paths() == ["line.temperature"]
    assert one.describe()["topics"] == {"plant/line/temperature": "line.temperature", "plant/+/+": "{1}.{2}"}


@pytest.mark.parametrize(
    ("topics", "topic", "payload"),
    [
        ({"a/#": "{3}.x"}, "a/b", b"1"),
        ({"a/#": "{name}"}, "a/b", b"1"),
        ({"a/#": "x"}, "b", b"1"),
        ({"a/#": "x"}, "a", b"[" * 100_000),
        ({"a/#": "x"}, "a", b"1" * (MESSAGE_BYTES_MAX + 1)),
    ],
    ids=["a level that is not there", "no number of a level", "another topic", "too deep", "too long"],
)
def test_what_a_topic_cannot_name_is_a_dead_letter(
    require: Callable[[str], None], topics: dict[str, str], topic: str, payload: bytes
) -> None:
    """And not the end of the run; a payload that is no JSON is text, however odd."""
    require("mosquitto")
    one = MqttSource(HOST, 1, topics)
    raw = one._raw(SimpleNamespace(topic=topic, payload=payload, qos=0, properties=None))
    if payload.startswith(b"["):
        assert one.decoder(0).decode(raw).changes == (("x", payload.decode()),)
        return
    with pytest.raises(Undecodable):
        one.decoder(0).decode(raw)


@pytest.mark.parametrize("more", [{"map": {"a": "b"}}, {"decoder": json.loads}])
def test_a_topic_that_names_its_path_needs_nothing_else(more: dict[str, Any]) -> None:
    """A map or a decoder beside it would contradict it."""
    with pytest.raises(OperatorError, match="leaves nothing"):
        MqttSource(HOST, 1, {"a": "b"}, **more)


def test_topics_with_paths_arrive_from_the_broker(server: MosquittoServer) -> None:
    """The filters are subscribed to, and each message knows its topic."""

    async def run() -> list[Any]:
        one = source(server, {"plant/+/level": "{1}.level"}, client_id="paths")  # type: ignore[arg-type]
        await one.open({})
        await publish(server, "plant/tank/level", [b"7"])
        await publish(server, "plant/silo/level", [b"8"])
        raws = await some(one, 2)
        await one.close()
        return [one.decoder(0).decode(raw).changes[0] for raw in raws]

    assert perform(run()) == [("tank.level", 7), ("silo.level", 8)]
