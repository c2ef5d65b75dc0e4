"""Outputs to Kafka."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tidewarp.compat.dynamic_des.connectors.egress.base import extract_dict
from tidewarp.compat.dynamic_des.connectors.egress.network import NetworkEgress
from tidewarp.compat.dynamic_des.connectors.keywords import kafka_config
from tidewarp.connect import serializers
from tidewarp.connect.contract import Sink
from tidewarp.connect.sinks import kafka

__all__ = [
    "ConfluentAvroSerializer",
    "GlueAvroSerializer",
    "JsonSerializer",
    "KafkaEgress",
    "MessageSerializer",
    "extract_dict",
]


class MessageSerializer(Protocol):
    """What makes the bytes of a message."""

    def serialize(self, topic: str, data: Any) -> bytes:
        """The bytes of a record. A ValueError or TypeError refuses this record alone."""


class JsonSerializer(serializers.Json):
    """JSON in UTF-8."""

    def serialize(self, topic: str, data: Any) -> bytes:
        """The bytes of ``data``, a mapping or a pydantic model."""
        return super().serialize(topic, extract_dict(data))


class ConfluentAvroSerializer(serializers.ConfluentAvro):
    """Avro with a Confluent registry; writes the ``value`` of a record where the schema fits that and not the record."""

    def __init__(self, registry_url: str, schema_str: str, **registry_kwargs: Any) -> None:
        super().__init__(registry_url, schema_str, **registry_kwargs)

    def serialize(self, topic: str, data: Any) -> bytes:
        """As :class:`tidewarp.connect.serializers.ConfluentAvro`; of a pydantic model its fields."""
        return super().serialize(topic, extract_dict(data))


class GlueAvroSerializer(serializers.GlueAvro):
    """Avro with an AWS Glue registry, likewise; ``boto3_kwargs`` are those of ``boto3.client``."""

    def __init__(self, registry_name: str, schema_str: str, **boto3_kwargs: Any) -> None:
        super().__init__(registry_name, schema_str, **{"region_name": "us-east-1", **boto3_kwargs})

    def serialize(self, topic: str, data: Any) -> bytes:
        """As :class:`tidewarp.connect.serializers.GlueAvro`; of a pydantic model its fields."""
        return super().serialize(topic, extract_dict(data))


class KafkaEgress(NetworkEgress):
    """Messages to two topics, or to those that a router names; keywords are those of an aiokafka producer.

    The router gets the record with its ``stream_type``, a serializer without. A router that raises is not asked further for
    that record, which goes to its usual topic.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        telemetry_topic: str = "sim-telemetry",
        event_topic: str = "sim-events",
        topic_router: Callable[[dict[str, Any]], str | None] | None = None,
        topic_serializers: Mapping[str, MessageSerializer] | None = None,
        default_serializer: MessageSerializer | None = None,
        **kwargs: Any,
    ) -> None:
        self.telemetry_topic, self.event_topic, self.topic_router = telemetry_topic, event_topic, topic_router
        self.topic_serializers = dict(topic_serializers or {})
        self.default_serializer = default_serializer or JsonSerializer()
        self.producer_config = {"bootstrap_servers": bootstrap_servers, **kwargs}
        self._servers, self._config = bootstrap_servers, kafka_config("KafkaEgress", kwargs)

    def sink(self, name: str) -> Sink:
        """A Kafka sink, which delivers once."""
        router = self.topic_router
        return kafka(
            self._servers,
            telemetry_topic=self.telemetry_topic,
            event_topic=self.event_topic,
            router=None if router is None else lambda record: router(dict(record)),
            serializers=self.topic_serializers,
            default=self.default_serializer,
            config={key: value for key, value in self._config.items() if key != "acks"},  # all of them, always
            name=name,
        )
