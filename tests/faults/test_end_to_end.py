"""Kafka drives the factory, its events land in PostgreSQL and Redis, and each of the four is killed at random moments."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kafka_plant import PARTITIONS, STEP_S, Message, messages

PLANT = Path(__file__).with_name("kafka_plant.py")


class Servers(NamedTuple):
    kafka: Any
    postgres: Any
    redis: Any


@pytest.fixture(scope="module")
def servers(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    for name in ("kafka", "postgres", "redis"):
        require(name)
    from tidewarp.testing.servers.kafka import KafkaServer
    from tidewarp.testing.servers.postgres import PostgresServer
    from tidewarp.testing.servers.redis import RedisServer

    folder = tmp_path_factory.mktemp("servers")
    folder.chmod(0o755)  # PostgreSQL runs as another user
    with ExitStack() as stack:
        yield Servers(
            stack.enter_context(KafkaServer(folder / "kafka")),
            stack.enter_context(PostgresServer(folder / "postgres", fsync=True)),
            stack.enter_context(RedisServer(folder / "redis")),
        )


class Site:
    """A journal, a table and a stream, and what a twin has put into them."""

    def __init__(self, servers: Servers, folder: Path, topic: str, name: str, end_s: float) -> None:
        import psycopg

        self.servers, self.name, self.stream = servers, name, f"{name}-events"
        self.journal = folder / f"{name}.tw"
        with psycopg.connect(servers.postgres.dsn, autocommit=True) as connection:
            connection.execute(f'CREATE TABLE "{name}" (n BIGSERIAL, tw_id TEXT, event_id TEXT, value JSONB)')
        self.command = [
            *(sys.executable, str(PLANT), str(self.journal), servers.kafka.bootstrap, topic, servers.postgres.dsn),
            *(name, servers.redis.url, self.stream, str(end_s)),
        ]

    def begin(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def rows(self) -> list[Any]:
        import psycopg

        with psycopg.connect(self.servers.postgres.dsn) as connection:
            found = connection.execute(f'SELECT tw_id, event_id FROM "{self.name}" ORDER BY n')
            return [tuple(row) for row in found.fetchall()]

    def entries(self) -> list[Any]:
        import redis

        client = redis.Redis.from_url(self.servers.redis.url)
        payloads = [json.loads(fields[b"payload"]) for _, fields in client.xrange(self.stream)]
        client.close()
        return [(one["id"], one["key"]) for one in payloads]


class Feed:
    """Sends messages and counts what the broker has acknowledged."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        from confluent_kafka import Producer

        self.topic, self.acknowledged, self.errors = topic, 0, [*()]
        settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "message.timeout.ms": 0, "log_level": 0}
        self.producer = Producer(settings)

    def send(self, some: list[Message]) -> None:
        for message in some:
            self.producer.produce(self.topic, message.payload, partition=message.partition, on_delivery=self._told)
            self.producer.poll(0)

    def _told(self, error: Any, message: Any) -> None:
        self.acknowledged += error is None
        if error is not None:
            self.errors.append(str(error))

    def flush(self) -> None:
        assert self.producer.flush(120) == 0


def topic_of(servers: Servers, name: str) -> str:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": servers.kafka.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result()
    return name


def outcome(process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """The summary of a life; None if it was killed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode in (0, -9), err.decode()
    return json.loads(out) if process.returncode == 0 else None


def storm(
    site: Site, feed: Feed, sent: list[Message], kills: int, draw: random.Random
) -> tuple[dict[str, Any], dict[str, int]]:
    """Feed the topic in parts, kill one of the four after each; the last life's summary, and the kills."""
    targets = ["kafka", "postgres", "redis", "twin"] * kills
    draw.shuffle(targets)
    parts = [sent[n * len(sent) // len(targets) : (n + 1) * len(sent) // len(targets)] for n in range(len(targets))]
    done = dict.fromkeys(targets, 0)
    process = site.begin()
    nobody = threading.Event()
    for target, part in zip(targets, parts, strict=True):
        feed.send(part)
        nobody.wait(draw.uniform(0.05, 0.8))  # a moment of real time: what is killed is at work
        if target == "twin":
            process.kill()
            early = outcome(process)
            done["twin"] += early is None
            if early is not None:
                return early, done
            process = site.begin()
        else:
            server = getattr(site.servers, target)
            server.kill()
            server.start()
            done[target] += 1
    feed.flush()
    last = outcome(process)
    assert last is not None
    return last, done


def check(servers: Servers, folder: Path, name: str, count: int, kills: int, seed: int) -> dict[str, Any]:
    sent = messages(count, seed)
    end_s = (count + 150) * STEP_S
    topic = topic_of(servers, f"{name}-readings")
    feed = Feed(servers.kafka.bootstrap, topic)
    stormy = Site(servers, folder, topic, f"{name}stormy", end_s)
    found, done = storm(stormy, feed, sent, kills, random.Random(seed))
    assert (feed.acknowledged, feed.errors) == (len(sent), []), "the broker took every message once"
    calm = Site(servers, folder, topic, f"{name}calm", end_s)
    expected = outcome(calm.begin())
    assert expected is not None
    counts = {what: (found[what], expected[what]) for what in ("digest", "inputs", "dead_letters", "outputs", "events")}
    assert all(one == other for one, other in counts.values()), counts
    for told in (Site.rows, Site.entries):
        ids = told(stormy)
        assert ids == told(calm), "every output, in order"
        assert len(ids) == len(set(ids)) == found["outputs"], "each once"
    return {"kills": done, "repaired": found["repaired"], "late": found["late"], **{k: v[0] for k, v in counts.items()}}


def test_kills_under_load_change_nothing(servers: Servers, tmp_path: Path) -> None:
    """Two kills of each: every input that the broker acknowledged is applied once, every output is present once."""
    report = check(servers, tmp_path, "few", 600, 2, seed=5)
    assert report["kills"] == {"kafka": 2, "postgres": 2, "redis": 2, "twin": 2}
    assert report["late"] > 0
    assert report["dead_letters"] > 0


@pytest.mark.nightly
def test_fifty_kills_of_each_change_nothing(servers: Servers, tmp_path: Path) -> None:
    """The same with 50 kills each, over two days of virtual time."""
    report = check(servers, tmp_path, "fifty", 6_000, 50, seed=6)
    print(json.dumps(report))
    assert min(report["kills"].values()) == 50
