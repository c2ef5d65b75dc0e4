"""dynamic-des programs on real brokers and databases: the article's Kafka and Avro samples, and the other connectors."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from tidewarp.compat.dynamic_des import (
    CapacityConfig,
    DynamicRealtimeEnvironment,
    DynamicResource,
    KafkaAdminConnector,
    KafkaEgress,
    KafkaIngress,
    ParquetStorageEgress,
    PostgresEgress,
    PostgresIngress,
    RedisEgress,
    RedisIngress,
    SimParameter,
)
from tidewarp.compat.dynamic_des.connectors.egress.kafka import ConfluentAvroSerializer
from tidewarp.compat.dynamic_des.connectors.ingress.kafka import ConfluentAvroDeserializer
from tidewarp.testing.servers.kafka import KafkaServer
from tidewarp.testing.servers.postgres import PostgresServer
from tidewarp.testing.servers.redis import RedisServer

LATHE = "Line_A.resources.lathe.current_cap"
QUICK = {"session_timeout_ms": 1_000, "heartbeat_interval_ms": 200}
ENOUGH_S = 20.0


def a_line(factor: float = 0.01) -> tuple[DynamicRealtimeEnvironment, DynamicResource]:
    """A line that tells each capacity as an event and as telemetry."""
    env = DynamicRealtimeEnvironment(factor=factor)
    env.registry.register_sim_parameter(SimParameter("Line_A", resources={"lathe": CapacityConfig(1, 5)}))
    res = DynamicResource(env, "Line_A", "lathe")

    def tell() -> Any:
        while True:
            env.publish_telemetry("Line_A.lathe.capacity", res.capacity)
            env.publish_event("lathe", {"path_id": "Line_A.service.lathe", "status": "resized", "to": res.capacity})
            yield env.registry.get(LATHE).wait_for_change()

    env.process(tell())
    return env, res


def until_capacity(env: DynamicRealtimeEnvironment, wanted: int) -> None:
    """Run until the lathe has that many units."""
    env.run(until=env.registry.get(LATHE).wait_until(lambda value: value == wanted))


def consumed(server: KafkaServer, **least: int) -> dict[str, list[Any]]:
    """Key and value of the messages of topics (written with underscores), in order of offset: so many at least of each."""
    from confluent_kafka import Consumer, TopicPartition

    wanted = {topic.replace("_", "-"): count for topic, count in least.items()}
    consumer = Consumer(
        {"bootstrap.servers": server.bootstrap, "group.id": "look", "isolation.level": "read_committed"}
    )
    found: dict[str, list[Any]] = {topic: [] for topic in wanted}
    try:
        consumer.assign([TopicPartition(topic, 0, 0) for topic in wanted])
        for _ in range(int(ENOUGH_S / 0.1)):
            for message in consumer.consume(100, 0.1):
                assert message.error() is None
                found[message.topic()].append((message.key(), message.value()))
            if all(len(found[topic]) >= count for topic, count in wanted.items()):
                break
    finally:
        consumer.close()
    return found


def test_the_second_sample_of_the_article(kafka_broker: KafkaServer) -> None:
    """Its two connectors: an update that is sent reaches the model, outputs reach their topics in the published form."""
    admin = KafkaAdminConnector(kafka_broker.bootstrap)
    topics = [
        {"name": name, "partitions": 1, "replication": 1} for name in ("factory-config", "sim-vitals", "sim-events")
    ]
    assert admin.create_topics(topics) == dict.fromkeys(("factory-config", "sim-vitals", "sim-events"), "created")
    assert set(admin.create_topics(topics).values()) == {"exists"}

    env, res = a_line()
    ingress = KafkaIngress(
        topic="factory-config",
        bootstrap_servers=kafka_broker.bootstrap,
        **QUICK,
    )
    egress = KafkaEgress(
        telemetry_topic="sim-vitals",
        event_topic="sim-events",
        bootstrap_servers=kafka_broker.bootstrap,
    )
    env.setup_ingress([ingress])
    env.setup_egress([egress])
    stop = threading.Event()

    def send() -> None:  # again until it is heard: it reads what comes after its start
        while not stop.is_set():
            asyncio.run(admin.send_config("factory-config", LATHE, 4))
            stop.wait(0.1)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        until_capacity(env, 4)
    finally:
        stop.set()
        sender.join()
        env.teardown()
    assert res.capacity == 4
    found = consumed(kafka_broker, sim_vitals=2, sim_events=2)
    vitals = [json.loads(value) for _, value in found["sim-vitals"]]
    assert [(key, list(json.loads(value))) for key, value in found["sim-vitals"]] == [
        (b"Line_A.lathe.capacity", ["sim_ts", "timestamp", "path_id", "value"])
    ] * len(vitals)
    assert [one["value"] for one in vitals][:2] == [1, 4]
    assert [json.loads(value)["value"]["to"] for _, value in found["sim-events"]][:2] == [1, 4]

    async def collect() -> None:
        task = asyncio.ensure_future(admin.collect_data(["sim-vitals", "sim-events"], auto_offset_reset="earliest"))
        while not (admin.get_state() and admin.get_vitals()) and not task.done():
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(collect())
    assert admin.get_vitals()["Line_A.lathe.capacity"] in (1, 4)
    assert [*admin.get_state()["Line_A"]["lathe"]["lathe"]] == ["resized"]
    assert admin.malformed == 0


def test_the_third_sample_of_the_article(kafka_broker: KafkaServer) -> None:
    """Its router fails for telemetry, its model has no event_type, its schema is that of the value: all reach a topic."""
    pydantic = pytest.importorskip("dataclasses_avroschema.pydantic", reason="pip install 'tidewarp[avro]'")

    class MLPrediction(pydantic.AvroBaseModel):
        """High-velocity ML payload"""

        task_id: str = Field(...)
        confidence: float = Field(...)

        class Meta:
            namespace = "com.dynamic_des.ml"
            schema_name = "PredictionEvent"

    class Typed(MLPrediction):
        event_type: str = "prediction"

    def ml_topic_router(data: dict) -> str:
        if data.get("value", {}).get("event_type") == "prediction":
            return "ml-predictions"
        return "sim-lifecycle"

    KafkaAdminConnector(kafka_broker.bootstrap).create_topics(
        [{"name": name} for name in ("ml-predictions", "sim-lifecycle", "sim-telemetry")]
    )
    serializer = ConfluentAvroSerializer(registry_url="mock://third", schema_str=MLPrediction.avro_schema())
    egress = KafkaEgress(
        bootstrap_servers=kafka_broker.bootstrap,
        topic_router=ml_topic_router,
        topic_serializers={"ml-predictions": serializer},
    )
    env = DynamicRealtimeEnvironment(factor=0)
    env.setup_egress([egress])
    env.publish_event("p", Typed(task_id="7", confidence=0.5))
    env.publish_event("plain", MLPrediction(task_id="8", confidence=0.25))
    env.publish_telemetry("Line_A.temperature", 71.5)
    env.teardown()
    found = consumed(kafka_broker, ml_predictions=1, sim_lifecycle=1, sim_telemetry=1)
    [(key, payload)] = found["ml-predictions"]
    reader = ConfluentAvroDeserializer("mock://third")
    reader._made = serializer._client()  # of a registry in memory each client has its own
    assert (key, reader.deserialize("ml-predictions", payload)) == (b"p", {"task_id": "7", "confidence": 0.5})
    assert [json.loads(value)["value"] for _, value in found["sim-lifecycle"]] == [{"task_id": "8", "confidence": 0.25}]
    assert [json.loads(value)["value"] for _, value in found["sim-telemetry"]] == [71.5]


def test_serializers_of_the_users_own_get_the_published_record(kafka_broker: KafkaServer) -> None:
    """test_kafka_egress_pluggable_serializers: by topic, and JSON for all others."""

    class Mine:
        def serialize(self, topic: str, data: Any) -> bytes:
            return f"{topic}:{sorted(data)}".encode()

    KafkaAdminConnector(kafka_broker.bootstrap).create_topics([{"name": "own"}, {"name": "vitals"}])
    env = DynamicRealtimeEnvironment(factor=0)
    env.setup_egress([KafkaEgress(kafka_broker.bootstrap, "vitals", "own", topic_serializers={"own": Mine()})])
    env.publish_event("123", "avro_data")
    env.publish_telemetry("Line_A", 5)
    env.teardown()
    found = consumed(kafka_broker, own=1, vitals=1)
    assert found["own"] == [(b"123", b"own:['key', 'sim_ts', 'timestamp', 'value']")]
    assert json.loads(found["vitals"][0][1])["value"] == 5


def test_redis_in_and_out(require: Callable[[str], None], tmp_path: Path) -> None:
    """A message of a channel changes the model, its outputs are entries of the stream, also with a password as keyword."""
    require("redis")
    import redis

    with RedisServer(tmp_path, password="canary") as server, redis.Redis.from_url(server.url) as client:
        url = server.url.replace(":canary@", "")
        env, _ = a_line()
        env.setup_ingress([RedisIngress(url, "params", password="canary")])
        env.setup_egress([RedisEgress(url, "out", password="canary")])
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                client.publish("params", json.dumps({"param_path": LATHE, "param_value": 3}))
                stop.wait(0.02)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            until_capacity(env, 3)
        finally:
            stop.set()
            sender.join()
            env.teardown()
        entries: Any = client.xrange("out")
        records = [json.loads(fields[b"payload"]) for _, fields in entries]
    assert [one["value"] for one in records if one["stream_type"] == "telemetry"][:2] == [1, 3]
    assert {"path_id", "value", "sim_ts", "timestamp", "stream_type"} <= records[0].keys()


def test_postgres_in_and_out(require: Callable[[str], None], tmp_path: Path) -> None:
    """A row changes the model and is marked; outputs are rows of the table that has their columns."""
    require("postgres")
    import psycopg

    with PostgresServer(tmp_path / "pg") as server, psycopg.connect(server.dsn, autocommit=True) as database:
        database.execute("CREATE TABLE simulation_data (event_id TEXT, path_id TEXT, status TEXT, value JSONB)")
        env, _ = a_line()
        ingress = PostgresIngress(server.dsn, poll_interval=0.05, min_size=1)
        env.setup_ingress([ingress])
        env.setup_egress([PostgresEgress(server.dsn)])
        database.execute(
            "CREATE TABLE simulation_params (id SERIAL PRIMARY KEY, param_path TEXT NOT NULL, param_value TEXT NOT NULL,"
            " is_applied BOOLEAN DEFAULT FALSE, created_at TIMESTAMPTZ DEFAULT now())"
        )
        database.execute("INSERT INTO simulation_params (param_path, param_value) VALUES (%s, '2')", (LATHE,))
        until_capacity(env, 2)
        env.teardown()
        rows = database.execute("SELECT event_id, path_id, status, value FROM simulation_data").fetchall()
        marks = database.execute("SELECT is_applied FROM simulation_params").fetchall()
    assert (None, "Line_A.lathe.capacity", None, 1) in rows
    assert ("lathe", "Line_A.service.lathe", "resized", None) in rows or ("lathe", None, "resized", None) in rows
    assert marks == [(True,)]


def test_parquet_widens_what_drifts(tmp_path: Path) -> None:
    """test_parquet_storage_schema_drift: floats, then whole numbers, in one column of floats; no row is lost."""
    dataset = pytest.importorskip("pyarrow.dataset", reason="pip install 'tidewarp[parquet]'")
    env = DynamicRealtimeEnvironment(factor=0)
    env.setup_egress([ParquetStorageEgress(path_router=lambda record: str(tmp_path / "metrics"))], batch_size=2)
    for value in (98.6, 104.2, 99, 105):
        env.publish_telemetry("temperature", value)
    env.teardown()
    table = dataset.dataset(str(tmp_path / "metrics"), format="parquet").to_table()
    assert str(table.schema.field("value").type) == "double"
    assert sorted(table.column("value").to_pylist()) == [98.6, 99.0, 104.2, 105.0]
