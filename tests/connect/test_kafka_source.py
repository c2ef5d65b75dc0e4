"""Kafka topics as a source: the journal says where each partition goes on, whatever the group, its members or the topic do."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import kafka_driver as kafka
import pytest

from tidewarp.connect import sources
from tidewarp.connect.contract import HEAD_BYTES, MESSAGE_BYTES_MAX, Gap, Raw, Undecodable, Update
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.testing.servers.kafka import PASSWORD, USER, KafkaServer
from tidewarp.testing.sources import SourceConformance
from tidewarp.testing.suites import perform

S = 10**9


def make(server: KafkaServer, topics: str | Sequence[str], group: str = "", **options: Any) -> Any:
    config = {**kafka.QUICK, **options.pop("config", {})}
    first = topics if isinstance(topics, str) else topics[0]
    servers = options.pop("bootstrap_servers", server.bootstrap)
    return sources.kafka(
        topics, bootstrap_servers=servers, group_id=group or f"group-{first}", config=config, **options
    )


async def some(source: Any, count: int, limit: int = 100) -> list[Raw]:
    raws: list[Raw] = []
    while len(raws) < count:
        raws += await source.read(limit)
    return raws


def life(
    source: Any,
    positions: Mapping[int, int],
    work: Callable[[], Awaitable[Any]],
) -> Any:
    """What ``work`` returns between open and close."""

    async def run() -> Any:
        try:
            await source.open(positions)
            return await work()
        finally:
            await source.close()

    return perform(run())


def read(source: Any, positions: Mapping[int, int], count: int) -> list[tuple[int, int, bytes]]:
    raws = life(source, positions, lambda: some(source, count))
    return sorted((raw.partition, raw.offset, raw.payload) for raw in raws)


class TestKafkaSource(SourceConformance):
    """What every source has to keep, over two partitions."""

    messages = (
        (10 * S, {"line.value": 1.5}),
        None,
        (12 * S, {"line.value": 3}),
        (11 * S, {"line.value": 4, "line.mode": "é"}),
        (13 * S, {"line.value": 5}),
    )
    waits = True
    secrets = ("hunter2", USER)

    @pytest.fixture(autouse=True)
    def _broker(self, kafka_broker: KafkaServer) -> None:
        self.server = kafka_broker
        self.topics: dict[Path, str] = {}

    def create(self, folder: Path) -> Any:
        if folder not in self.topics:
            topic = self.topics[folder] = kafka.new_topic(self.server, 2)
            for n, one in enumerate(self.messages):
                message = b"broken" if one is None else json.dumps({"set": one[1], "time": one[0] // S}).encode()
                kafka.send(self.server, topic, message, partition=n % 2)
        secret = {"sasl.password": "hunter2", "sasl.username": USER}
        return make(self.server, self.topics[folder], config=secret, name="readings")

    def create_broken(self, folder: Path) -> Any:
        return make(self.server, "there.is.no.such.topic")


# ---------------------------------------------------------------------- where it begins
def test_the_journal_decides_and_not_the_group(kafka_broker: KafkaServer) -> None:
    """The group's commits move no reader: it begins behind the journaled offsets, and where there is none at the earliest."""
    topic = kafka.new_topic(kafka_broker, 2)
    for partition in (0, 1):
        kafka.send(kafka_broker, topic, b"a", b"b", b"c", partition=partition)
    source = make(kafka_broker, topic)

    async def take() -> None:
        await some(source, 6)
        await source.confirm({0: 2, 1: 2})

    life(source, {}, take)
    assert kafka.committed(kafka_broker, f"group-{topic}", topic, (0, 1)) == {0: 3, 1: 3}
    assert read(source, {0: 1}, 4) == [(0, 2, b"c"), (1, 0, b"a"), (1, 1, b"b"), (1, 2, b"c")]


def test_nothing_is_committed_before_it_is_confirmed(kafka_broker: KafkaServer) -> None:
    """Messages that were read, and even a close, commit nothing; confirm commits what it is told and no more."""
    topic = kafka.new_topic(kafka_broker)
    kafka.send(kafka_broker, topic, b"a", b"b", b"c")
    source = make(kafka_broker, topic)
    assert len(read(source, {}, 3)) == 3
    assert kafka.committed(kafka_broker, f"group-{topic}", topic) == {}

    async def take() -> None:
        await some(source, 3)
        await source.confirm({0: 1})

    life(source, {}, take)
    assert kafka.committed(kafka_broker, f"group-{topic}", topic) == {0: 2}
    assert source.commits_failed == 0


def test_latest_skips_what_was_there_and_nothing_that_came_since(kafka_broker: KafkaServer) -> None:
    """A first life that was killed before it journaled anything: the next begins where the first did, not at a later end."""
    topic = kafka.new_topic(kafka_broker, 2)
    kafka.send(kafka_broker, topic, b"old")
    source = make(kafka_broker, topic, start="latest")

    async def nothing() -> None:
        return

    life(source, {}, nothing)
    kafka.send(kafka_broker, topic, b"a", b"b")
    kafka.send(kafka_broker, topic, b"c", partition=1)
    assert read(source, {}, 3) == [(0, 1, b"a"), (0, 2, b"b"), (1, 0, b"c")]
    assert read(source, {0: 1}, 2) == [(0, 2, b"b"), (1, 0, b"c")]


def test_latest_takes_a_partition_that_came_later_from_its_beginning(kafka_broker: KafkaServer) -> None:
    """Only what was there at the very first start is skipped."""
    from confluent_kafka.admin import AdminClient, NewPartitions

    topic = kafka.new_topic(kafka_broker)
    kafka.send(kafka_broker, topic, b"old")
    source = make(kafka_broker, topic, start="latest")

    async def nothing() -> None:
        return

    life(source, {}, nothing)
    admin = AdminClient(kafka.client(kafka_broker))
    admin.create_partitions([NewPartitions(topic, 2)])[topic].result(kafka.ENOUGH_S)
    kafka.send(kafka_broker, topic, b"a", b"b", partition=1)
    kafka.send(kafka_broker, topic, b"c")
    assert read(source, {}, 3) == [(0, 1, b"c"), (1, 0, b"a"), (1, 1, b"b")]


def test_partitions_of_several_topics_have_numbers_of_their_own(kafka_broker: KafkaServer) -> None:
    """Partition = place of the topic * 4,096 + Kafka's number; each topic has its decoder, JSON where none is given."""
    topics = [kafka.new_topic(kafka_broker, 2) for _ in range(2)]
    kafka.send(kafka_broker, topics[0], b'{"path": "a.b", "value": 1}', partition=1)
    kafka.send(kafka_broker, topics[1], b"7", partition=1)
    source = make(kafka_broker, topics, decoders={topics[1]: lambda payload: {"path": "a.c", "value": int(payload)}})

    async def meanings() -> Any:
        decoder = source.decoder(0)
        return {raw.partition: decoder.decode(raw) for raw in await some(source, 2)}

    assert life(source, {}, meanings) == {1: Update(None, (("a.b", 1),)), 4_097: Update(None, (("a.c", 7),))}
    assert read(source, {1: 0}, 1) == [(4_097, 0, b"7")]
    assert source.describe()["topics"] == topics


# ---------------------------------------------------------------------- messages
def test_time_cause_and_length_of_a_message_are_kept(kafka_broker: KafkaServer) -> None:
    """The broker's timestamp in ns, the header tw-id as cause, of a long message head and digest, no value as no bytes."""
    topic = kafka.new_topic(kafka_broker, max_message_bytes=4 << 20, retention_ms=-1)
    long = bytes(range(256)) * (MESSAGE_BYTES_MAX // 256) + b"!"
    kafka.send(kafka_broker, topic, b"x", timestamp=1_386_018_900_123, headers={"other": b"1", "tw-id": b"0a-01"})
    kafka.send(kafka_broker, topic, None, headers={"tw-id": b"\xff\0"})
    producer_settings = {"message_max_bytes": 4 << 20}
    kafka.send(kafka_broker, topic, long, settings=producer_settings)
    source = make(kafka_broker, topic)
    raws = life(source, {}, lambda: some(source, 3))
    assert (raws[0].time_ns, raws[0].cause, raws[0].payload) == (1_386_018_900_123 * 10**6, "0a-01", b"x")
    assert (raws[1].cause, raws[1].payload) == ("", b"")
    assert (raws[2].payload, raws[2].sha256) == (long[:HEAD_BYTES], hashlib.sha256(long).digest())
    with pytest.raises(Undecodable):
        source.decoder(0).decode(raws[2])


def test_messages_of_aborted_transactions_are_not_seen(kafka_broker: KafkaServer) -> None:
    """read_committed: what its producer took back is no input."""
    from confluent_kafka import Producer

    topic = kafka.new_topic(kafka_broker)
    producer = Producer(kafka.client(kafka_broker, transactional_id=topic))
    producer.init_transactions(kafka.ENOUGH_S)
    for value, end in ((b"no", producer.abort_transaction), (b"yes", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value)
        assert producer.flush(kafka.ENOUGH_S) == 0
        end(kafka.ENOUGH_S)
    assert [payload for *_, payload in read(make(kafka_broker, topic), {}, 1)] == [b"yes"]


# ---------------------------------------------------------------------- group
@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_partitions_move_between_two_twins_of_a_group(kafka_broker: KafkaServer, strategy: str) -> None:
    """Each partition is one twin's; back from the other it is read on behind what was handed on, whatever lay in a buffer."""
    topic = kafka.new_topic(kafka_broker, 2)
    for partition in (0, 1):
        kafka.send(kafka_broker, topic, b"a", b"b", b"c", partition=partition)
    config = {"partition.assignment.strategy": strategy}
    first, second = (make(kafka_broker, topic, name=name, config=config) for name in ("first", "second"))

    async def run() -> None:
        handed: list[Raw] = []

        async def read_on(end: Callable[[], bool]) -> None:
            while not end():
                handed.extend(await first.read(1))

        try:
            await first.open({})
            handed.extend(await first.read(1))
            reading = asyncio.ensure_future(read_on(lambda: False))
            await second.open({})
            theirs = await some(second, 3)
            moved = theirs[0].partition
            assert [(raw.partition, raw.payload) for raw in theirs] == [(moved, b"a"), (moved, b"b"), (moved, b"c")]
            await second.close()
            kafka.send(kafka_broker, topic, b"d", partition=moved)
            while (moved, 3) not in {(raw.partition, raw.offset) for raw in handed}:
                await asyncio.sleep(0.05)
            reading.cancel()
            await asyncio.wait([reading])
            for number in (0, 1):
                offsets = [raw.offset for raw in handed if raw.partition == number]
                assert offsets == [*range(4 if number == moved else 3)], "nothing twice, nothing left out"
        finally:
            await first.close()
            await second.close()

    perform(run())


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_what_was_read_of_a_revoked_partition_is_forgotten(kafka_broker: KafkaServer, strategy: str) -> None:
    """It lies in the buffer and was not handed on: the partition's new owner gives it, and nobody else does."""
    topic = kafka.new_topic(kafka_broker, 2)
    for partition in (0, 1):
        kafka.send(kafka_broker, topic, b"a", b"b", b"c", partition=partition)
    config = {"partition.assignment.strategy": strategy}
    first, second = (make(kafka_broker, topic, name=name, config=config) for name in ("first", "second"))

    async def run() -> tuple[list[Raw], list[Raw]]:
        try:
            await first.open({})
            while len(first._buffer) < 6:
                await first._do(lambda: first._poll(100))
            opening = asyncio.ensure_future(second.open({}))
            while not opening.done():
                await first._do(first._poll)
            await opening
            return await some(first, 3), await some(second, 3)
        finally:
            await first.close()
            await second.close()

    ours, theirs = perform(run())
    parts = [{raw.partition for raw in raws} for raws in (ours, theirs)]
    assert sorted(map(len, parts)) == [1, 1]
    assert parts[0] != parts[1]
    assert [raw.offset for raw in ours] == [raw.offset for raw in theirs] == [0, 1, 2]


def test_a_source_that_nobody_reads_stays_in_its_group(kafka_broker: KafkaServer) -> None:
    """It is paused and polls on: the group, which drops who does not poll, keeps it, and the next read has all in order."""
    topic = kafka.new_topic(kafka_broker)
    source = make(kafka_broker, topic, config={"max.poll.interval.ms": 2_000, "session.timeout.ms": 1_500})
    kafka.send(kafka_broker, topic, b"a")

    async def slow() -> list[Raw]:
        raws = await some(source, 1)
        while not source._is_paused:
            await asyncio.sleep(0.05)
        kafka.send(kafka_broker, topic, *(b"%d" % n for n in range(500)))
        seen = source._polls_idle
        while source._polls_idle < seen + 4:  # one a second: longer than the group waits for a poll
            await asyncio.sleep(0.05)
        assert not source._buffer, "paused: what nobody asked for stays at the broker"
        return raws + await some(source, 500)

    raws = life(source, {}, slow)
    assert [raw.offset for raw in raws] == [*range(501)]


# ---------------------------------------------------------------------- gaps
def test_what_the_broker_has_deleted_is_a_gap(kafka_broker: KafkaServer) -> None:
    """The offset behind the journal's is below the broker's first: open says from where to where, and goes on once accepted."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    topic = kafka.new_topic(kafka_broker)
    kafka.send(kafka_broker, topic, *(b"%d" % n for n in range(10)))
    place = TopicPartition(topic, 0, 6)
    admin = AdminClient(kafka.client(kafka_broker))
    admin.delete_records([place])[place].result(kafka.ENOUGH_S)
    source = make(kafka_broker, topic)
    with pytest.raises(Gap) as told:
        read(source, {0: 2}, 1)
    gap = told.value
    assert (gap.partition, gap.first, gap.end) == (0, 3, 6)
    source.accept(gap)
    assert read(source, {0: gap.end - 1}, 4)[0] == (0, 6, b"6")
    assert read(source, {}, 4)[0] == (0, 6, b"6"), "without a position there is no gap: it begins at the earliest"


def test_a_topic_that_was_made_anew_is_a_gap(kafka_broker: KafkaServer) -> None:
    """It ends below what was read: behind the accepted gap its offsets ascend all the same, also in every later life."""
    from confluent_kafka.admin import AdminClient

    topic = kafka.new_topic(kafka_broker)
    kafka.send(kafka_broker, topic, *(b"%d" % n for n in range(5)))
    source = make(kafka_broker, topic)
    last = read(source, {}, 5)[-1][1]
    admin = AdminClient(kafka.client(kafka_broker))
    admin.delete_topics([topic])[topic].result(kafka.ENOUGH_S)
    kafka.new_topic(kafka_broker, name=topic)
    kafka.send(kafka_broker, topic, b"new", b"newer")
    with pytest.raises(Gap, match="made anew") as told:
        read(source, {0: last}, 1)
    behind = told.value.end - 1
    assert behind >= last
    fresh = read(source, {0: behind}, 2)
    assert [(offset > last, payload) for _, offset, payload in fresh] == [(True, b"new"), (True, b"newer")]
    assert read(source, {0: fresh[0][1]}, 1) == fresh[1:]


def test_a_topic_that_was_made_anew_and_filled_past_the_journal_is_a_gap(kafka_broker: KafkaServer) -> None:
    """Its offsets say nothing: its id does. Accepted, each of its partitions is read from the beginning, once."""
    from confluent_kafka.admin import AdminClient

    topic = kafka.new_topic(kafka_broker)
    kafka.send(kafka_broker, topic, *(b"%d" % n for n in range(5)))
    source = make(kafka_broker, topic)
    last = read(source, {}, 5)[-1][1]
    identity, older = source.identity(), {0: last}
    assert set(identity) == {4_095}
    assert read(source, {**identity, 0: last - 1}, 1)[0][2] == b"4", "it is the same topic"
    admin = AdminClient(kafka.client(kafka_broker))
    admin.delete_topics([topic])[topic].result(kafka.ENOUGH_S)
    kafka.new_topic(kafka_broker, name=topic)
    kafka.send(kafka_broker, topic, *(b"new %d" % n for n in range(9)))
    assert read(source, older, 1)[0][2] == b"new 5", "an older journal does not know which topic it read"
    with pytest.raises(Gap, match="made anew") as told:
        read(source, {**identity, 0: last}, 1)
    assert told.value.first == told.value.end, "nobody knows how many"
    with pytest.raises(Gap):
        read(source, {**identity, 0: last}, 1)
    source.accept(told.value)
    fresh = read(source, {**identity, 0: last}, 9)
    assert [payload for _, _, payload in fresh] == [b"new %d" % n for n in range(9)]
    assert fresh[0][1] > last
    assert source.identity()[4_095] > identity[4_095]
    later = make(kafka_broker, topic)
    assert read(later, {**source.identity(), 0: fresh[6][1]}, 2) == fresh[7:]


def test_without_a_topic_id_nothing_is_compared(kafka_broker: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a broker that gives none the journal keeps what it has."""
    topic = kafka.new_topic(kafka_broker)
    kafka.send(kafka_broker, topic, b"a", b"b")
    monkeypatch.setattr("tidewarp.connect.backends.kafka_client.Cluster.topic_id", lambda *_: None)
    source = make(kafka_broker, topic)
    assert (read(source, {}, 2)[-1][2], source.identity()) == (b"b", {})
    assert read(source, {4_095: 7, 0: 0}, 1) == [(0, 1, b"b")]
    assert source.identity() == {4_095: 7}


# ---------------------------------------------------------------------- refusals and secrets
def test_sasl_opens_the_listener_and_a_wrong_password_says_so(kafka_broker: KafkaServer) -> None:
    """SASL/PLAIN with the right password reads; a wrong one is an OperatorError at once, and no error shows a password."""
    topic = kafka.new_topic(kafka_broker)
    kafka.send(kafka_broker, topic, b"a")
    sasl = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN", "sasl.username": USER}
    options: dict[str, Any] = {"bootstrap_servers": kafka_broker.sasl_bootstrap}
    good = make(kafka_broker, topic, config={**sasl, "sasl.password": PASSWORD}, **options)
    assert read(good, {}, 1) == [(0, 0, b"a")]
    bad = make(kafka_broker, topic, config={**sasl, "sasl.password": "hunter2"}, **options)
    with pytest.raises(OperatorError) as told:
        read(bad, {}, 1)
    shown = f"{told.value} {bad.describe()} {bad!r} {bad._cluster!r} {good.describe()}"
    assert "hunter2" not in shown
    assert PASSWORD not in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"topics": []},
        {"topics": ["a b"]},
        {"topics": ["a", "a"]},
        {"topics": [f"t{n}" for n in range(17)]},
        {"group_id": ""},
        {"start": "now"},
        {"decoders": {"b": json.loads}},
        {"bootstrap_servers": ""},
        {"config": {"enable.auto.commit": True}},
        {"config": {"isolation.level": "read_uncommitted"}},
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    """With value, rule and next action."""
    with pytest.raises(OperatorError) as told:
        sources.kafka(**{"topics": "a", "bootstrap_servers": "localhost:1", "group_id": "g", **wrong})
    assert told.value.value
    assert told.value.action


def test_an_unknown_setting_is_named_and_no_secret_beside_it() -> None:
    """librdkafka refuses it; the error names the setting and not the values."""
    pytest.importorskip("confluent_kafka", reason="pip install 'tidewarp[kafka]'")
    config = {"sasl.password": "hunter2", "fetch.wait": "hunter2"}
    source = sources.kafka("a", bootstrap_servers="localhost:1", group_id="g", config=config)
    with pytest.raises(OperatorError, match=r"fetch\.wait") as told:
        read(source, {}, 1)
    assert "hunter2" not in str(told.value)


def test_without_the_package_the_error_is_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a source needs no package; opening it does."""
    import sys

    source = sources.kafka("a", bootstrap_servers="localhost:1", group_id="g")
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tidewarp\[kafka\]'"):
        read(source, {}, 1)
