"""Where outputs go. Each factory returns a :class:`~tidewarp.connect.contract.Sink` that is opened only when live.

jsonl("events.jsonl")      one JSON object a line, each output once, also after a crash
console()                  one line each on standard output, at least once
memory()                   mappings in a list, for tests and notebooks
kafka("host:9092")         messages of Kafka topics, once
redis_stream(url)          entries of Redis streams, once
postgres(dsn)              rows of PostgreSQL tables, once
nats(servers, "events.line-a", stream="EVENTS")   messages of a JetStream stream, once
mqtt(host, 1883, "events")     messages of a topic of an MQTT broker, at least once
parquet("outputs/")            an Arrow dataset of Parquet files, once
"""

from __future__ import annotations

from tidewarp.connect.backends.console import ConsoleSink as console
from tidewarp.connect.backends.jsonl import JsonlSink as jsonl
from tidewarp.connect.backends.kafka_sink import KafkaSink as kafka
from tidewarp.connect.backends.memory import MemorySink as memory
from tidewarp.connect.backends.mqtt_sink import MqttSink as mqtt
from tidewarp.connect.backends.nats_sink import NatsSink as nats
from tidewarp.connect.backends.parquet_sink import ParquetSink as parquet
from tidewarp.connect.backends.postgres_sink import PostgresSink as postgres
from tidewarp.connect.backends.redis_sink import RedisStreamSink as redis_stream

__all__ = ["console", "jsonl", "kafka", "memory", "mqtt", "nats", "parquet", "postgres", "redis_stream"]
