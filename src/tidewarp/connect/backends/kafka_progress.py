"""What Kafka holds of a sink: its last id, in a compacted topic, written by the transaction that writes the outputs.

The record of a sink has the key ``{domain}/{sink}`` and the value ``{"id": last, "life": n}``: ``life`` counts how often the
sink was opened, by which one that the broker fenced knows whether another has taken its place.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tidewarp.connect.backends.kafka_client import Cluster
from tidewarp.errors import OperatorError

__all__ = ["PROGRESS_TOPIC", "Progress", "make_topic", "read_progress"]

PROGRESS_TOPIC: Final = "tidewarp-progress"
"""Where all sinks of a cluster keep what they have delivered."""

_SETTINGS = {
    "cleanup.policy": "compact",
    "segment.bytes": str(
        16 << 20
    ),  # only older segments are compacted: so much is read, at most, beside the compacted part
    "segment.ms": str(3_600_000),
    "min.cleanable.dirty.ratio": "0.1",
}
_ASK_S = 5.0
_POLL_S, _POLLS = 0.1, 80


class Progress(msgspec.Struct, frozen=True, order=True):
    """What the topic says of one sink."""

    id: str = ""  # of the last output that is held
    life: int = 0


def make_topic(cluster: Cluster, client: Any) -> None:
    """Create the topic, unless it is there."""
    driver = cluster.driver()
    try:
        if PROGRESS_TOPIC not in client.list_topics(timeout=_ASK_S).topics:
            wanted = driver.admin.NewTopic(PROGRESS_TOPIC, 1, -1, config=_SETTINGS)
            admin = cluster.admin()  # held until it has answered: its end is that of its questions
            admin.create_topics([wanted])[PROGRESS_TOPIC].result(_ASK_S)
    except driver.KafkaException as error:
        if error.args[0].code() != driver.KafkaError.TOPIC_ALREADY_EXISTS:
            raise cluster.translated(error.args[0]) from None


def read_progress(cluster: Cluster, key: bytes) -> Progress:
    """The highest record of ``key``; the caller's own transaction must have ended.

    A transaction of another sink that is open, or was killed a moment ago, hides what is behind it: the end is therefore that
    of all records, and TimeoutError says that it was not reached.
    """
    driver = cluster.driver()
    consumer = cluster.consumer(
        {
            "group.id": PROGRESS_TOPIC,  # the driver asks for one; it joins none and commits nothing
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,  # the end is told by a fetch that brings nothing
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    try:
        cluster.reach(consumer)
        left = _ends(
            cluster, [driver.TopicPartition(PROGRESS_TOPIC, n) for n in cluster.partitions(consumer, PROGRESS_TOPIC)]
        )
        consumer.assign([driver.TopicPartition(PROGRESS_TOPIC, n, 0) for n in left])
        found = Progress()
        for _ in range(_POLLS):
            while left and (message := consumer.poll(_POLL_S)) is not None:
                error = message.error()
                if error is None:
                    if message.key() == key:
                        found = max(found, _parsed(cluster, message.value()))
                elif error.code() != driver.KafkaError._PARTITION_EOF:
                    raise cluster.translated(error)
                elif message.offset() >= left.get(message.partition(), 0):
                    left.pop(message.partition(), None)
            if not left:
                return found
    except driver.KafkaException as error:
        raise cluster.translated(error.args[0]) from None
    finally:
        consumer.close()
    raise TimeoutError(f"{cluster.target}: a transaction on {PROGRESS_TOPIC} is open")


def _ends(cluster: Cluster, places: list[Any]) -> dict[int, int]:
    """Partition -> end of all its records, those of open transactions too."""
    driver, admin = cluster.driver(), cluster.admin()
    asked = admin.list_offsets(
        {place: driver.admin.OffsetSpec.latest() for place in places},
        isolation_level=driver.IsolationLevel.READ_UNCOMMITTED,
        request_timeout=_ASK_S,
    )
    return {place.partition: future.result(_ASK_S).offset for place, future in asked.items()}


def _parsed(cluster: Cluster, value: bytes | None) -> Progress:
    try:
        return msgspec.json.decode(value or b"", type=Progress)
    except (msgspec.DecodeError, UnicodeDecodeError):
        told = f"{cluster.target}, topic {PROGRESS_TOPIC}: {value!r:.60}"
        raise OperatorError(told, "another program has written into it", "give tidewarp a topic of its own") from None
