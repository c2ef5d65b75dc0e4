"""A topic of an MQTT broker gets each output at least once, in order, and write() returns when the broker has it."""

from __future__ import annotations

import asyncio
import gc
import json
import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tidewarp.codec import pack
from tidewarp.connect import sinks
from tidewarp.connect.backends.mqtt_client import Client
from tidewarp.connect.backends.mqtt_sink import MqttSink
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.testing import armed, raising
from tidewarp.testing.servers.base import HOST
from tidewarp.testing.servers.mosquitto import MosquittoServer
from tidewarp.testing.sinks import RUN, SinkConformance, output, outputs
from tidewarp.testing.suites import SAFETY_S, perform

SECRET = "hunter2"
LOGIN = {"username": "twin", "password": SECRET}
PACKET_BYTES_MAX = 200_000
UNBOUNDED = ("max_queued_messages 0", "max_inflight_messages 0", "autosave_on_changes false")  # saves at its end


@pytest.fixture(scope="module")
def server(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[MosquittoServer]:
    require("mosquitto")
    settings = (*UNBOUNDED, f"max_packet_size {PACKET_BYTES_MAX}")
    folder = tmp_path_factory.mktemp("mosquitto")
    with MosquittoServer(folder, user="twin", password=SECRET, settings=settings) as one:
        yield one


class Subscriber:
    """What a topic gets, in paho's own thread."""

    def __init__(self, server: MosquittoServer, topic: str) -> None:
        import paho.mqtt.client as mqtt

        self.messages: list[Any] = []
        self._topic, self._markers, self._count = topic, queue.SimpleQueue[bytes](), 0
        ready = queue.SimpleQueue[int]()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.username_pw_set("twin", SECRET)
        self._client.on_subscribe = lambda *_: ready.put(1)
        self._client.on_message = self._take
        self._client.connect(HOST, server.port)
        self._client.loop_start()
        self._client.subscribe([(topic, 1), (f"{topic}/marker", 1)])
        ready.get(timeout=SAFETY_S)

    def _take(self, client: Any, userdata: Any, message: Any) -> None:
        if message.topic == self._topic:
            self.messages.append(message)
        else:
            self._markers.put(message.payload)

    def values(self) -> list[Any]:
        """All that was acknowledged before: a marker behind it has come."""
        self._count += 1
        self._client.publish(f"{self._topic}/marker", str(self._count), 1)
        assert self._markers.get(timeout=SAFETY_S) == str(self._count).encode()
        return [json.loads(one.payload)["value"] for one in self.messages]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class TestMqttSink(SinkConformance):
    """What every sink has to keep; below, what is the broker's own."""

    refused = "x" * PACKET_BYTES_MAX
    test_a_write_that_was_torn_is_mended = None  # no copy of a folder is a broker
    test_the_outputs_of_another_run_are_no_outputs_of_this_one = None  # it delivers at least once

    @pytest.fixture(autouse=True)
    def _serve(self, server: MosquittoServer) -> Iterator[None]:
        self.server = server
        self.topics: dict[Path, Subscriber] = {}
        yield
        for one in self.topics.values():
            one.close()

    def create(self, folder: Path) -> MqttSink:
        topic = sha256(str(folder).encode()).hexdigest()[:16]
        if folder not in self.topics:
            self.topics[folder] = Subscriber(self.server, topic)
        return MqttSink(HOST, self.server.port, topic, **LOGIN)

    def create_broken(self, folder: Path) -> MqttSink:
        return MqttSink(HOST, self.server.port, "a", username="twin", password="wrong")

    def values(self, folder: Path) -> list[Any]:
        return self.topics[folder].values()

    def failing(self, folder: Path) -> AbstractContextManager[object]:
        return armed("release.inside", raising(ConnectionError("lost")), arrival=100)


def test_a_message_says_which_output_it_is(server: MosquittoServer) -> None:
    """A receiver drops by tw-id what it has had."""

    async def run() -> list[Any]:
        subscriber = Subscriber(server, "said")
        sink = MqttSink(HOST, server.port, "said", **LOGIN)
        assert await sink.open(RUN) is None, "nobody can tell what a broker has passed on"
        await sink.write([output(0)._replace(value=pack({"n": float("nan")})), output(1)])
        await sink.close()
        subscriber.values()
        subscriber.close()
        assert sink.nonfinite == 1
        return subscriber.messages

    first, second = perform(run())
    assert first.properties.UserProperty == [("tw-id", output(0).id)]
    assert second.properties.UserProperty == [("tw-id", output(1).id)]
    assert json.loads(first.payload)["value"] == {"n": None}
    assert (MqttSink(HOST, 1, "a").name, MqttSink.delivery, sinks.mqtt) == ("mqtt", "at_least_once", MqttSink)


def test_a_broker_that_is_killed_in_the_middle_of_a_batch(require: Callable[[str], None], tmp_path: Path) -> None:
    """The write fails, opening fails until it is back, and then the whole batch is sent again: nothing is left out."""
    require("mosquitto")
    with MosquittoServer(tmp_path / "server", settings=UNBOUNDED) as server:

        async def run() -> list[Any]:
            sink = MqttSink(HOST, server.port, "killed")
            await sink.open(RUN)
            with armed("release.inside", server.kill, arrival=60), pytest.raises(OSError):
                await sink.write(outputs(0, 200))
            await sink.close()
            with pytest.raises(OSError):
                await sink.open(RUN)
            await sink.close()
            server.start()
            subscriber = Subscriber(server, "killed")
            await sink.open(RUN)
            assert await sink.write(outputs(0, 200)) == []
            await sink.close()
            found = subscriber.values()
            subscriber.close()
            return found

        assert perform(run()) == [*range(200)]


def test_a_write_that_fails_gives_the_connection_up(server: MosquittoServer) -> None:
    """What of it is still under way here must not be sent behind what the next write sends."""

    async def run() -> bool:
        sink = MqttSink(HOST, server.port, "given-up", **LOGIN)
        await sink.open(RUN)
        with armed("release.inside", raising(TimeoutError("no answer")), arrival=3), pytest.raises(TimeoutError):
            await sink.write(outputs(0, 5))
        connected = sink._client.is_connected
        assert await sink.write(outputs(0, 5)) == []
        await sink.close()
        return connected

    assert not perform(run())


def test_a_slow_broker_is_waited_for(require: Callable[[str], None], tmp_path: Path) -> None:
    """Paused in the middle of a batch it answers when it goes on, and the write is over then."""
    require("mosquitto")
    with MosquittoServer(tmp_path / "server", settings=UNBOUNDED) as server:

        async def run() -> list[Any]:
            subscriber = Subscriber(server, "slow")
            sink = MqttSink(HOST, server.port, "slow")
            await sink.open(RUN)
            with armed("release.inside", server.pause, arrival=50):
                writing = asyncio.ensure_future(sink.write(outputs(0, 100)))
                for _ in range(100):
                    await asyncio.sleep(0)
            assert not writing.done()
            server.proceed()
            assert await writing == []
            await sink.close()
            found = subscriber.values()
            subscriber.close()
            return found

        assert perform(run()) == [*range(100)]


@pytest.mark.parametrize(("topic", "qos"), [("a/#", 1), ("", 1), ("a", 0)])
def test_what_cannot_be_published_to_is_an_error(topic: str, qos: int) -> None:
    """Wildcards are for subscribers, and QoS 0 is answered by nobody."""
    with pytest.raises(OperatorError):
        MqttSink(HOST, 1, topic, qos=qos)


def test_no_secret_is_shown(server: MosquittoServer) -> None:
    """Not by an error, nor by repr()."""

    async def run() -> None:
        sink = MqttSink(HOST, server.port, "a", username="nobody", password=SECRET)
        try:
            await sink.open(RUN)
        finally:
            await sink.close()

    with pytest.raises(OperatorError) as caught:
        perform(run())
    assert SECRET not in repr(caught.value) + str(caught.value) + repr(MqttSink(HOST, 1, "a", **LOGIN))


def test_a_missing_package_is_named_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the sink is opened: a replay needs it not."""
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    sink = MqttSink(HOST, 1, "a")
    with pytest.raises(MissingExtra, match=r"tidewarp\[mqtt\]"):
        perform(sink.open(RUN))
    perform(sink.close())


def test_a_connection_that_is_lost_under_a_batch_leaves_no_complaint() -> None:
    """asyncio would print that nobody has asked for what it had gathered."""
    complaints: list[Any] = []

    async def life() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        client = Client("mqtt sink", "localhost", 1)
        client._lost = loop.create_future()
        client._lost.set_result((1, "gone"))
        with pytest.raises(ConnectionError, match="gone"):
            await client.acknowledged([loop.create_future(), loop.create_future()])
        gc.collect()

    perform(life())
    assert complaints == []
