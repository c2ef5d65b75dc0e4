"""Kafka topics as a sink: a transaction holds a batch and its last id, so each output is there once, whoever is killed when."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import kafka_driver as kafka
import pytest

from tidewarp.codec import pack
from tidewarp.connect import sinks
from tidewarp.connect.contract import Output, RunIdentity
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.testing.faults import armed, raising
from tidewarp.testing.servers.kafka import USER, KafkaServer
from tidewarp.testing.sinks import RUN, SinkConformance, output, outputs
from tidewarp.testing.suites import perform


def make(server: KafkaServer, topic: str, **options: Any) -> Any:
    return sinks.kafka(server.bootstrap, event_topic=topic, telemetry_topic=topic, **options)


def live(sink: Any, *batches: Sequence[Output], run: RunIdentity = RUN) -> tuple[str | None, list[Any]]:
    """One life: the batches as they are; what open told, and what was refused."""

    async def life() -> tuple[str | None, list[Any]]:
        refused: list[Any] = []
        try:
            told = await sink.open(run)
            for batch in batches:
                refused += await sink.write(batch)
        finally:
            await sink.close()
        return told, refused

    return perform(life())


def values(server: KafkaServer, *topics: str, run: RunIdentity = RUN) -> list[Any]:
    records = [json.loads(message.value()) for message in kafka.held(server, *topics)]
    return [record["value"] for record in records if record["domain"] == run.domain]


class _Suite(SinkConformance):
    refused = "y" * 1_500_000
    test_a_write_that_was_torn_is_mended = None  # a topic cannot be copied; the kills below do it
    delivery = "once"

    @pytest.fixture(autouse=True)
    def _broker(self, kafka_broker: KafkaServer) -> None:
        self.server = kafka_broker
        self.topics: dict[Path, str] = {}

    def create(self, folder: Path) -> Any:
        topic = self.topics.setdefault(folder, "") or kafka.new_topic(self.server)
        self.topics[folder] = topic
        return make(self.server, topic, delivery=self.delivery, name=topic, config={"message.max.bytes": 1_200_000})

    def create_broken(self, folder: Path) -> Any:
        return make(self.server, "there.is.no.such.topic", delivery=self.delivery)

    def values(self, folder: Path) -> list[Any]:
        if folder not in self.topics:
            return []
        return [json.loads(one.value())["value"] for one in kafka.held(self.server, self.topics[folder])]

    def failing(self, folder: Path) -> AbstractContextManager[object]:
        return armed("release.inside", raising(ConnectionError("lost in the middle of a transaction")), arrival=100)


class TestKafkaSink(_Suite):
    """What every sink has to keep, by transactions."""


class TestKafkaSinkAtLeastOnce(_Suite):
    """What every sink has to keep, with delivery reports alone."""

    delivery = "at_least_once"
    test_the_outputs_of_another_run_are_no_outputs_of_this_one = (
        None  # who delivers at least once promises nothing here
    )


# ---------------------------------------------------------------------- messages
def test_a_message_says_whose_and_which_it_is(kafka_broker: KafkaServer) -> None:
    """Key = the output's key, header tw-id = its id, value = JSON without stream_type; telemetry goes to its own topic."""
    events, telemetry = kafka.new_topic(kafka_broker), kafka.new_topic(kafka_broker)
    sink = sinks.kafka(kafka_broker.bootstrap, event_topic=events, telemetry_topic=telemetry)
    live(sink, [output(0)._replace(key="lathe"), output(1)._replace(key="line.temperature", stream="telemetry")])
    event, reading = kafka.held(kafka_broker, events)[0], kafka.held(kafka_broker, telemetry)[0]
    assert (event.key(), event.headers()) == (b"lathe", [("tw-id", output(0).id.encode())])
    assert (reading.key(), reading.headers()) == (b"line.temperature", [("tw-id", output(1).id.encode())])
    record = json.loads(event.value())
    assert (record["id"], record["value"], record["domain"]) == (output(0).id, 0, RUN.domain)
    assert "stream_type" not in record


def test_a_router_chooses_drops_and_may_fail(kafka_broker: KafkaServer) -> None:
    """It sees stream_type; None drops; one that raises, or names no topic, costs the record its topic and nothing else."""
    usual, other = kafka.new_topic(kafka_broker), kafka.new_topic(kafka_broker)

    def route(record: Mapping[str, Any]) -> Any:
        answers = {0: other if record["stream_type"] == "event" else usual, 1: None, 2: "no topic!", 3: 7}
        return answers[record["value"]] if record["value"] < 4 else record["value"].get("topic")

    sink = make(kafka_broker, usual, router=route)
    assert live(sink, outputs(0, 5))[1] == []
    assert (values(kafka_broker, other), values(kafka_broker, usual)) == ([0], [2, 3, 4])
    assert (sink.dropped, sink.misrouted) == (1, 3)
    assert live(make(kafka_broker, usual, router=route))[0] == output(4).id


def test_what_is_dropped_moves_the_last_id_too(kafka_broker: KafkaServer) -> None:
    """A batch of which nothing is sent is not offered again."""
    topic = kafka.new_topic(kafka_broker)
    live(make(kafka_broker, topic, router=lambda record: None, name=topic), outputs(0, 3))
    assert live(make(kafka_broker, topic, name=topic))[0] == output(2).id
    assert values(kafka_broker, topic) == []


def test_each_topic_has_its_serializer_and_a_refusal_costs_one_record(kafka_broker: KafkaServer) -> None:
    """It is given topic and record; what it raises about a record makes it a Refused, an OSError may pass."""
    topic, other = kafka.new_topic(kafka_broker), kafka.new_topic(kafka_broker)

    class Odd:
        def serialize(self, topic: str, record: Mapping[str, Any]) -> bytes:
            assert "stream_type" not in record
            if record["value"] == 3:
                raise ValueError("3 is not odd enough")
            return f"{topic}:{record['value']}".encode()

    def route(record: Mapping[str, Any]) -> str:
        return other if record["value"] % 2 else topic

    sink = make(kafka_broker, topic, router=route, serializers={other: Odd()})
    _, refused = live(sink, outputs(0, 6))
    assert [one.id for one in refused] == [output(3).id]
    assert "odd enough" in refused[0].reason
    assert [one.value() for one in kafka.held(kafka_broker, other)] == [f"{other}:{n}".encode() for n in (1, 5)]
    assert values(kafka_broker, topic) == [0, 2, 4]

    class Down:
        def serialize(self, topic: str, record: Mapping[str, Any]) -> bytes:
            raise ConnectionError("the registry does not answer")

    with pytest.raises(ConnectionError, match="registry"):
        live(make(kafka_broker, topic, default=Down()), outputs(6, 7))


@pytest.mark.parametrize("delivery", ["once", "at_least_once"])
def test_what_the_broker_refuses_costs_no_other(kafka_broker: KafkaServer, delivery: str) -> None:
    """It refuses sets of records; the one that is too long for the topic is found, all others are held in order."""
    topic = kafka.new_topic(kafka_broker, max_message_bytes=20_000)
    noise = "".join(chr(33 + n * n * 7_919 % 5_003 % 90 + n % 4) for n in range(60_000))
    batch = [one._replace(value=pack(noise)) if n in (1, 4) else one for n, one in enumerate(outputs(0, 6))]
    sink = make(kafka_broker, topic, delivery=delivery, name=topic, config={"compression.type": "none"})
    _, refused = live(sink, batch)
    assert [one.id for one in refused] == [output(1).id, output(4).id]
    assert "too large" in refused[0].reason
    held = values(kafka_broker, topic)
    assert (held if delivery == "once" else sorted(set(held))) == [0, 2, 3, 5]


def test_a_topic_that_is_not_there_ends_the_run_with_its_name(kafka_broker: KafkaServer) -> None:
    """Only the operator can make it: nothing is dropped for it, and nothing of its batch is held."""
    topic = kafka.new_topic(kafka_broker)
    sink = make(kafka_broker, topic, router=lambda record: "not.there" if record["value"] == 2 else topic)
    with pytest.raises(OperatorError, match=r"not\.there"):
        live(sink, outputs(0, 3))
    assert values(kafka_broker, topic) == []


# ---------------------------------------------------------------------- lives
def test_a_second_life_fences_the_first(kafka_broker: KafkaServer) -> None:
    """The old one's open transaction is taken back; it can write no more, and is told why; the new one goes on."""
    topic = kafka.new_topic(kafka_broker)
    old, new = (make(kafka_broker, topic, name=topic) for _ in range(2))

    async def lives() -> None:
        try:
            await old.open(RUN)
            await old.write(outputs(0, 3))
            assert await new.open(RUN) == output(2).id
            with pytest.raises(OSError):
                await old.write(outputs(3, 6))
            with pytest.raises(OperatorError, match="another process"):
                await old.open(RUN)
            await new.write(outputs(3, 6))
        finally:
            await old.close()
            await new.close()

    perform(lives())
    assert values(kafka_broker, topic) == [*range(6)]


def test_a_transaction_that_the_broker_ended_is_no_other_life(kafka_broker: KafkaServer) -> None:
    """Fenced, and nobody has opened the sink since: it may be opened again, and goes on."""
    from confluent_kafka import Producer

    topic = kafka.new_topic(kafka_broker)
    sink = make(kafka_broker, topic, name=topic)

    async def life() -> None:
        try:
            await sink.open(RUN)
            await sink.write(outputs(0, 3))
            name = f"tidewarp/{RUN.domain}/{topic}"
            Producer(kafka.client(kafka_broker, transactional_id=name)).init_transactions(kafka.ENOUGH_S)
            with pytest.raises(OSError):
                await sink.write(outputs(3, 6))
            assert await sink.open(RUN) == output(2).id
            await sink.write(outputs(3, 6))
        finally:
            await sink.close()

    perform(life())
    assert values(kafka_broker, topic) == [*range(6)]


def test_the_last_id_is_not_hidden_by_a_transaction_of_another(
    kafka_broker: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as one is open below it on the progress topic, open() raises an OSError; it never tells an older id."""
    from confluent_kafka import Producer

    from tidewarp.connect.backends import kafka_progress

    topic = kafka.new_topic(kafka_broker)
    sink = make(kafka_broker, topic, name=topic)
    live(sink, outputs(0, 3))
    other = Producer(kafka.client(kafka_broker, transactional_id=f"other-{topic}"))
    other.init_transactions(kafka.ENOUGH_S)
    monkeypatch.setattr(kafka_progress, "_POLLS", 5)

    async def life() -> None:
        try:
            await sink.open(RUN)
            other.begin_transaction()
            other.produce(kafka_progress.PROGRESS_TOPIC, b"{}", b"other")
            assert other.flush(kafka.ENOUGH_S) == 0
            await sink.write(outputs(3, 6))
        finally:
            await sink.close()

    perform(life())
    with pytest.raises(TimeoutError):
        live(make(kafka_broker, topic, name=topic))
    other.abort_transaction(kafka.ENOUGH_S)
    assert live(make(kafka_broker, topic, name=topic))[0] == output(5).id


def test_the_progress_topic_is_compacted(kafka_broker: KafkaServer) -> None:
    """It is made with the settings that keep reading it short."""
    from confluent_kafka.admin import AdminClient, ConfigResource

    from tidewarp.connect.backends.kafka_progress import PROGRESS_TOPIC

    live(make(kafka_broker, kafka.new_topic(kafka_broker)))
    resource, admin = ConfigResource(ConfigResource.Type.TOPIC, PROGRESS_TOPIC), AdminClient(kafka.client(kafka_broker))
    found = admin.describe_configs([resource])[resource].result(kafka.ENOUGH_S)
    assert found["cleanup.policy"].value == "compact"
    assert int(found["segment.bytes"].value) <= 16 << 20


_CHILD = """
import asyncio, sys
from tidewarp.connect import sinks
from tidewarp.testing.faults import armed, die
from tidewarp.testing.sinks import RUN, outputs

async def life(bootstrap, topic, arrival, end):
    sink = sinks.kafka(bootstrap, event_topic=topic, telemetry_topic=topic, name=topic)
    held = await sink.open(RUN)
    left = [one for one in outputs(0, end) if one.id > held]
    print("open", flush=True)
    with armed("release.inside", die, arrival=arrival):
        for first in range(0, len(left), 7):
            await sink.write(left[first:first + 7])
            print(left[first].id, flush=True)
    await sink.close()

bootstrap, topic, arrival, end = sys.argv[1:]
asyncio.run(life(bootstrap, topic, int(arrival), int(end)))
"""


def test_killed_at_any_step_of_a_write_each_output_is_there_once(kafka_broker: KafkaServer) -> None:
    """SIGKILL between two records, before the commit, and where it happens to be; each next life goes on from what is held."""
    topic = kafka.new_topic(kafka_broker)
    end = 140

    def begin(arrival: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _CHILD, kafka_broker.bootstrap, topic, str(arrival), str(end)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    killed = 0
    for arrival in (4, 8, 19):  # of 7 records and one commit in each write
        with begin(arrival) as child:
            child.communicate(timeout=60)
        killed += child.returncode == -9
    for lines in (1, 3):  # behind so many writes: in the middle of the next, wherever that is
        with begin(10**9) as child:
            assert child.stdout is not None
            for _ in range(lines):
                child.stdout.readline()
            child.kill()
        killed += 1
    assert killed == 5
    before = values(kafka_broker, topic)
    assert before == [*range(len(before))]
    assert 0 < len(before) <= end
    told, _ = live(make(kafka_broker, topic, name=topic))
    assert told == output(len(before) - 1).id, "what it tells is what is there"
    with begin(10**9) as child:
        child.communicate(timeout=60)
    assert child.returncode == 0
    assert values(kafka_broker, topic) == [*range(end)]


# ---------------------------------------------------------------------- refusals and secrets
@pytest.mark.parametrize(
    "wrong",
    [
        {"delivery": "twice"},
        {"event_topic": "a b"},
        {"telemetry_topic": ""},
        {"config": {"transactional.id": "mine"}},
        {"config": {"enable.idempotence": False}},
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    """With value, rule and next action."""
    with pytest.raises(OperatorError) as told:
        sinks.kafka("localhost:1", **wrong)
    assert told.value.action


def test_a_wrong_password_says_so_and_shows_none(kafka_broker: KafkaServer) -> None:
    """An OperatorError at once, without what was given."""
    sasl = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN", "sasl.username": USER}
    sink = sinks.kafka(kafka_broker.sasl_bootstrap, config={**sasl, "sasl.password": "hunter2"})
    with pytest.raises(OperatorError) as told:
        live(sink)
    assert "hunter2" not in f"{told.value} {sink!r} {sink._cluster!r}"


def test_without_the_package_the_error_is_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a sink needs no package; opening it does."""
    sink = sinks.kafka("localhost:1")
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tidewarp\[kafka\]'"):
        live(sink)
