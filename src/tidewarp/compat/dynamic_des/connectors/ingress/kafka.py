"""Updates from Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from tidewarp.clocks import WallClock
from tidewarp.compat.dynamic_des.connectors.ingress.network import NetworkIngress
from tidewarp.compat.dynamic_des.connectors.keywords import kafka_config
from tidewarp.connect.contract import Source
from tidewarp.connect.serializers import ConfluentAvro, GlueAvro
from tidewarp.connect.sources import kafka
from tidewarp.errors import OperatorError

__all__ = [
    "ConfluentAvroDeserializer",
    "GlueAvroDeserializer",
    "JsonDeserializer",
    "KafkaIngress",
    "MessageDeserializer",
]

_OURS = ("auto.offset.reset", "group.id")


class MessageDeserializer(Protocol):
    """What makes ``{"path_id": …, "value": …}`` of the bytes of a message."""

    def deserialize(self, topic: str, payload: bytes) -> Any:
        """The mapping. What it raises makes the message a dead letter."""


class JsonDeserializer:
    """JSON in UTF-8."""

    def deserialize(self, topic: str, payload: bytes) -> Any:
        """The object that ``payload`` is."""
        return json.loads(payload)


class ConfluentAvroDeserializer(ConfluentAvro):
    """Avro with a Confluent registry; ``config`` as its client takes it."""

    def __init__(self, registry_url: str, **registry_kwargs: Any) -> None:
        super().__init__(registry_url, **registry_kwargs)

    def deserialize(self, topic: str, payload: bytes) -> Any:
        """The record that ``payload`` holds."""
        return self.parse(payload)


class GlueAvroDeserializer(GlueAvro):
    """Avro with an AWS Glue registry; ``boto3_kwargs`` are those of ``boto3.client``."""

    def __init__(self, registry_name: str, **boto3_kwargs: Any) -> None:
        super().__init__(registry_name, **{"region_name": "us-east-1", **boto3_kwargs})

    def deserialize(self, topic: str, payload: bytes) -> Any:
        """The record that ``payload`` holds."""
        return self.parse(payload)


class KafkaIngress(NetworkIngress):
    """Messages ``{"path_id": …, "value": …}`` of ``topic``; keywords are those of an aiokafka consumer.

    Where nothing is said (``auto_offset_reset``), the first start reads what comes from then on. With a journal every later
    start goes on behind what it has, and needs no group for it; without one, every start is the first.
    """

    policy: ClassVar[dict[str, Any]] = {"time": "arrival"}

    def __init__(
        self,
        topic: str,
        bootstrap_servers: str,
        topic_deserializers: Mapping[str, MessageDeserializer] | None = None,
        default_deserializer: MessageDeserializer | None = None,
        **kwargs: Any,
    ) -> None:
        self.topic, self.bootstrap_servers, self.kwargs = topic, bootstrap_servers, kwargs
        self.topic_deserializers = dict(topic_deserializers or {})
        self.default_deserializer = default_deserializer
        self._config = kafka_config("KafkaIngress", kwargs)
        if self._config.get("auto.offset.reset", "latest") not in ("latest", "earliest"):
            value = f"KafkaIngress: auto_offset_reset={kwargs['auto_offset_reset']!r}"
            raise OperatorError(value, "it is 'latest' or 'earliest'", "give one of them")

    def source(self, name: str, *, keeps: bool) -> Source:
        """A Kafka source."""
        group = self._config.get("group.id") or f"dynamic-des-{self.topic}"
        if not keeps and "group.id" not in self._config:  # the place of an earlier life is nobody's business
            group += f"-{WallClock().unix_ns()}"
        chosen = self.topic_deserializers.get(self.topic, self.default_deserializer)
        return kafka(
            self.topic,
            bootstrap_servers=self.bootstrap_servers,
            group_id=group,
            config={key: value for key, value in self._config.items() if key not in _OURS},
            decoders={} if chosen is None else {self.topic: _parser(self.topic, chosen)},
            start=self._config.get("auto.offset.reset", "latest"),
            name=name,
        )


def _parser(topic: str, deserializer: MessageDeserializer) -> Any:
    if isinstance(deserializer, ConfluentAvro | GlueAvro):
        return deserializer.parse
    parse: Callable[[bytes], Any] = lambda payload: deserializer.deserialize(topic, payload)  # noqa: E731
    return parse
