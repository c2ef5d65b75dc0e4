"""Sinks that take observations: beside the outputs, without an id, and without any influence on "once"."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kafka_driver as kafka

from tidewarp.connect import sinks
from tidewarp.connect.contract import Observation, Output, RunIdentity, Sink
from tidewarp.testing.servers.kafka import KafkaServer
from tidewarp.testing.servers.postgres import PostgresServer
from tidewarp.testing.servers.redis import RedisServer
from tidewarp.testing.sinks import RUN, outputs
from tidewarp.testing.suites import perform

ROWS = [
    Observation(2 * 10**9, "system.simulation.lag_seconds", 0.5),
    Observation(2 * 10**9, "system.outbox.a.state", "open"),
]


def live(sink: Sink, batch: list[Output], run: RunIdentity = RUN) -> Any:
    """One life: observed before, between and behind what it writes; what open told."""

    async def life() -> Any:
        try:
            held = await sink.open(run)
            for part in (batch[:1], batch[1:]):
                await sink.observe(ROWS)  # type: ignore[attr-defined]  # these have it
                await sink.write(part)
            await sink.observe(ROWS)  # type: ignore[attr-defined]
            return held
        finally:
            await sink.close()

    return perform(life())


def test_the_console_prints_them_as_such() -> None:
    """With time, path and value."""
    stream = io.StringIO()
    live(sinks.console(stream=stream), outputs(0, 2))
    lines = stream.getvalue().splitlines()
    assert [line[:5] for line in lines] == ["[OBS]"] * 2 + ["[EVT]"] + ["[OBS]"] * 2 + ["[EVT]"] + ["[OBS]"] * 2
    assert lines[0].endswith("system.simulation.lag_seconds 0.5")


def test_a_redis_stream_has_them_between_its_outputs(require: Callable[[str], None], tmp_path: Path) -> None:
    """As telemetry without an id; what is held is told by the outputs alone, in the form of the run."""
    require("redis")
    import redis

    run = RUN._replace(form=lambda record: {"name": record.get("path_id", "-"), "value": record["value"]})
    with RedisServer(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        live(sinks.redis_stream(server.url), outputs(0, 2), run)
        assert live(sinks.redis_stream(server.url), outputs(0, 2), run) == outputs(0, 2)[-1].id
        held = [json.loads(fields[b"payload"]) for _, fields in client.xrange("simulation_data")]
    assert {"name": "system.simulation.lag_seconds", "value": 0.5} in held
    assert len(held) == 2 + 2 * 6
    assert all(one.keys() == {"name", "value"} for one in held)


def test_a_table_has_a_row_for_each(require: Callable[[str], None], tmp_path: Path) -> None:
    """With its path, and no id; a table that has no place for them loses no output."""
    require("postgres")
    import psycopg

    with PostgresServer(tmp_path) as server, psycopg.connect(server.dsn, autocommit=True) as client:
        client.execute("CREATE TABLE simulation_data (tw_id TEXT UNIQUE, path_id TEXT, value JSONB)")
        live(sinks.postgres(server.dsn), outputs(0, 2))
        rows = client.execute("SELECT tw_id, path_id, value FROM simulation_data").fetchall()
    assert [row for row in rows if row[0] is None][:2] == [
        (None, "system.simulation.lag_seconds", 0.5),
        (None, "system.outbox.a.state", "open"),
    ]
    assert [row[0] for row in rows if row[0]] == [output.id for output in outputs(0, 2)]


def test_a_topic_has_them_beside_its_transactions(kafka_broker: KafkaServer) -> None:
    """Keyed by path, without the header of an output; each output is there once all the same."""
    topic = kafka.new_topic(kafka_broker)
    topics = {"event_topic": topic, "telemetry_topic": topic}

    async def life() -> Any:
        sink = sinks.kafka(kafka_broker.bootstrap, **topics)
        try:
            await sink.open(RUN)
            await sink.observe(ROWS)
            await sink.write(outputs(0, 2))
            sink._observer.flush(5)
        finally:
            await sink.close()

    perform(life())
    messages = kafka.held(kafka_broker, topic)
    seen = [message for message in messages if not message.headers()]
    assert [message.key() for message in seen] == [row.path.encode() for row in ROWS]
    assert "id" not in json.loads(seen[0].value())
    assert len(messages) == 4


def test_what_no_sink_takes_is_counted(tmp_path: Path) -> None:
    """One that fails, or is busy, costs nobody anything."""
    import tidewarp as tw

    class Broken(Sink):
        name, kind, delivery = "broken", "broken", "at_least_once"

        async def open(self, run: RunIdentity) -> None: ...
        async def write(self, batch: Any) -> list[Any]:
            return []

        async def observe(self, rows: Any) -> None:
            raise ValueError("no")

    def build(twin: tw.Twin) -> None:
        def tick() -> Any:
            while True:
                twin.publish_event("n", 1)
                yield twin.env.timeout(1)

        twin.process(tick())
        twin.sink(Broken(), observe=True)

    with tw.open(tmp_path / "a.tw", build, observe=0.02) as twin:
        summary = twin.run(until=10, factor=0.02)
    told = summary.sinks["broken"]
    assert (told["sent"], told["retried"], told["state"]) == (10, 0, "open")
    assert told["unobserved"] > 0
