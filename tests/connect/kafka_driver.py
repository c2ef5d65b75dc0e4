"""What the tests of the Kafka connectors share: topics that nobody has used, and a way to look into them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tidewarp.testing.servers.kafka import KafkaServer

QUICK: Mapping[str, Any] = {"session.timeout.ms": 1_000, "heartbeat.interval.ms": 200}
ENOUGH_S = 20.0

_numbers = itertools.count()
_quiet = logging.getLogger("tests.kafka")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


def client(server: KafkaServer, **settings: Any) -> dict[str, Any]:
    """Settings of a client of the tests; dots are written as underscores."""
    return {
        "bootstrap.servers": server.bootstrap,
        "logger": _quiet,
        **{key.replace("_", "."): value for key, value in settings.items()},
    }


def new_topic(server: KafkaServer, partitions: int = 1, name: str = "", **config: Any) -> str:
    """A topic that nobody has used; its settings with dots written as underscores."""
    from confluent_kafka.admin import AdminClient, NewTopic

    name = name or f"t{next(_numbers)}"
    settings = {key.replace("_", "."): str(value) for key, value in config.items()}
    admin = AdminClient(client(server))
    admin.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result(ENOUGH_S)
    return name


def send(
    server: KafkaServer,
    topic: str,
    *values: bytes | None,
    partition: int = 0,
    settings: Mapping[str, Any] = {},
    **message: Any,
) -> None:
    """Publish, in order, with these settings of the producer."""
    from confluent_kafka import Producer

    producer = Producer(client(server, linger_ms=0, **settings))
    reports: list[Any] = []
    for value in values:
        producer.produce(
            topic, value, partition=partition, on_delivery=lambda error, _: reports.append(error), **message
        )
    assert producer.flush(ENOUGH_S) == 0
    assert reports == [None] * len(values)


def held(server: KafkaServer, *topics: str, isolation: str = "read_committed") -> list[Any]:
    """All messages that a consumer of these topics can see, partition by partition."""
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    settings = {
        "group_id": "looking",
        "enable_auto_commit": False,
        "enable_partition_eof": True,
        "fetch_wait_max_ms": 10,
    }
    consumer = Consumer(client(server, isolation_level=isolation, **settings))
    try:
        parts = [
            TopicPartition(topic, number, 0)
            for topic in topics
            for number in consumer.list_topics(topic, timeout=ENOUGH_S).topics[topic].partitions
        ]
        consumer.assign(parts)
        found, left = list[Any](), {(part.topic, part.partition) for part in parts}
        while left:
            message = consumer.poll(ENOUGH_S)
            assert message is not None, f"no end of {left}"
            if message.error() is None:
                found.append(message)
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                left.discard((message.topic(), message.partition()))
    finally:
        consumer.close()
    return sorted(found, key=lambda one: (one.topic(), one.partition(), one.offset()))


def committed(server: KafkaServer, group: str, topic: str, partitions: Sequence[int] = (0,)) -> dict[int, int]:
    """What a group has committed: partition -> offset, none where it has not."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(client(server, group_id=group))
    try:
        found = consumer.committed([TopicPartition(topic, number) for number in partitions], timeout=ENOUGH_S)
    finally:
        consumer.close()
    return {one.partition: one.offset for one in found if one.offset >= 0}
