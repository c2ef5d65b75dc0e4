"""The plant of the end-to-end test: a Kafka topic drives the factory line, its events go to PostgreSQL and Redis.

python kafka_plant.py JOURNAL BOOTSTRAP TOPIC DSN TABLE REDIS_URL STREAM END_S    one life of the twin, until virtual time END_S
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict
from typing import Any, NamedTuple

import tidewarp as tw
from tidewarp.worlds import factory

EPOCH_S = 1_767_225_600  # 2026-01-01
STEP_S = 30
PARTITIONS = 4
DISORDER_S = 120
PATH = "line.furnace.temperature"


class Message(NamedTuple):
    """One reading on its way to the topic."""

    partition: int
    payload: bytes


def messages(count: int, seed: int) -> list[Message]:
    """Readings every 30 s over four partitions: out of order within the bound, 1 % late beyond it, 2 % sent twice, 1 % unfit."""
    draw = random.Random(seed)
    found: list[tuple[float, Message]] = []
    for k in range(count):
        at = EPOCH_S + k * STEP_S
        heat = 106.0 if k % 700 > 690 else 70.0 + 20 * draw.random()
        body: dict[str, Any] = {"path": PATH, "value": heat, "time": at, "id": f"r{k}"}
        if draw.random() < 0.01:
            body["value"] = "hot"
        delay = draw.uniform(0, DISORDER_S) if draw.random() > 0.01 else draw.uniform(600, 3_000)
        sent = Message(k % PARTITIONS, json.dumps(body).encode())
        found.append((at + delay, sent))
        if draw.random() < 0.02:
            found.append((at + delay + 5, sent))
    last = [json.dumps({"path": PATH, "value": 70.0, "time": EPOCH_S + (count + 200) * STEP_S})] * PARTITIONS
    return [sent for _, sent in sorted(found)] + [Message(p, text.encode()) for p, text in enumerate(last)]


def build_of(bootstrap: str, topic: str, dsn: str, table: str, url: str, stream: str) -> tw.Build:
    """The twin between these servers."""

    def build(twin: tw.Twin) -> None:
        factory.line(twin)
        quick = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 500}
        source = tw.sources.kafka(topic, bootstrap_servers=bootstrap, group_id=table, config=quick, name="readings")
        twin.connect(source, time="payload", wait=True, idle="30 d", late="repair", disorder=DISORDER_S, horizon="1 h")
        twin.sink(tw.sinks.postgres(dsn, table), retry=(0.1, 1.0))
        twin.sink(tw.sinks.redis_stream(url, stream), retry=(0.1, 1.0))

    return build


def main(arguments: list[str]) -> None:
    journal, bootstrap, topic, dsn, table, url, stream, end_s = arguments
    build = build_of(bootstrap, topic, dsn, table, url, stream)
    with tw.open(journal, build, factor=0, epoch="2026-01-01T00:00:00Z") as twin:
        print(json.dumps(asdict(twin.run(until=float(end_s)))))


if __name__ == "__main__":
    main(sys.argv[1:])
