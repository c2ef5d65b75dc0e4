"""Where inputs come from. Each factory returns a :class:`~tidewarp.connect.contract.Source` that is opened only when live.

csv(path, time="timestamp", map={"value": "line.temperature"})     rows of a file, by event time
jsonl("readings.jsonl")    lines of a file; follow=True: while it grows
parquet(path, time="timestamp", map={"value": "line.temperature"})     cells of Parquet files
python(messages)      what an async iterator of the program yields
schedule([(0, "line.speed", 1.0), ("8h", "line.speed", 0.5)])      a list, relative to the twin's epoch
kafka("config", bootstrap_servers="host:9092", group_id="line-a")    messages of Kafka topics
redis_stream(url, "config", group="line-a")     entries of Redis streams; redis_pubsub(url, "config"): where an outage is a gap
postgres(dsn, table="simulation_params")        rows of a table of parameters
nats(servers, "READINGS", durable="line-a")      messages of a JetStream stream
mqtt(host, 1883, "line/#")     messages of an MQTT broker; a repetition is known by its field id alone
"""

from __future__ import annotations

from tidewarp.connect.backends.csv import CsvSource as csv
from tidewarp.connect.backends.jsonl_source import JsonlSource as jsonl
from tidewarp.connect.backends.kafka import KafkaSource as kafka
from tidewarp.connect.backends.mqtt import MqttSource as mqtt
from tidewarp.connect.backends.nats import NatsSource as nats
from tidewarp.connect.backends.parquet import ParquetSource as parquet
from tidewarp.connect.backends.postgres import PostgresSource as postgres
from tidewarp.connect.backends.python import PythonSource as python
from tidewarp.connect.backends.redis import RedisStreamSource as redis_stream
from tidewarp.connect.backends.redis_pubsub import RedisPubSubSource as redis_pubsub
from tidewarp.connect.backends.schedule import ScheduleSource as schedule

__all__ = [
    "csv",
    "jsonl",
    "kafka",
    "mqtt",
    "nats",
    "parquet",
    "postgres",
    "python",
    "redis_pubsub",
    "redis_stream",
    "schedule",
]
