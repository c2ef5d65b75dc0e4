"""A twin between Redis and PostgreSQL: killed under it, both, it applies each message once and delivers each output once."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.testing import armed
from tidewarp.testing.servers.postgres import PostgresServer
from tidewarp.testing.servers.redis import RedisServer

EPOCH = "2026-01-01T00:00:00Z"
EPOCH_S = 1_767_225_600
COUNT = 60


@pytest.fixture
def servers(require: Callable[[str], None], tmp_path: Path) -> Iterator[tuple[RedisServer, PostgresServer]]:
    require("redis")
    require("postgres")
    with RedisServer(tmp_path / "redis", always=True) as redis, PostgresServer(tmp_path / "pg", fsync=True) as postgres:
        yield redis, postgres


def fill(redis_url: str, dsn: str) -> None:
    """A message a second for each source; the last of each is behind the end."""
    import psycopg
    import redis

    with redis.Redis.from_url(redis_url) as client, psycopg.connect(dsn) as database:
        database.execute("CREATE TABLE simulation_data (n SERIAL, tw_id TEXT, value JSONB)")
        database.execute("""CREATE TABLE simulation_params (id SERIAL PRIMARY KEY, param_path TEXT, param_value TEXT,
            is_applied BOOLEAN DEFAULT FALSE, created_at TIMESTAMPTZ)""")
        for n in range(COUNT + 1):
            said = {"path": "a.value", "value": n, "time": EPOCH_S + n}
            client.xadd("config", {"payload": json.dumps(said)})
            row = ("b.value", str(n), EPOCH_S + n)
            database.execute(
                "INSERT INTO simulation_params (param_path, param_value, created_at) VALUES (%s, %s, to_timestamp(%s))",
                row,
            )


def build_of(redis_url: str, dsn: str) -> tw.Build:
    """Two variables, each set by one source, each change told to both sinks."""

    def build(twin: tw.Twin) -> None:
        def tell(path: str, changes: Any) -> Generator[Any, Any, None]:
            while True:
                change = yield changes.next()
                twin.publish_event(path, [path, change.new])

        for path in ("a.value", "b.value"):
            twin.process(tell(path, twin.variable(path, int).changes()))
        waiting: dict[str, Any] = {"wait": True, "idle": "30 d", "late": "stop"}
        twin.connect(tw.sources.redis_stream(redis_url, "config", group="g"), time="payload", **waiting)
        twin.connect(tw.sources.postgres(dsn, poll=0.02), time="record", **waiting)
        twin.sink(tw.sinks.postgres(dsn), retry=(0.05, 0.2))
        twin.sink(tw.sinks.redis_stream(redis_url), retry=(0.05, 0.2))

    return build


def test_both_servers_are_killed_under_a_twin(servers: tuple[RedisServer, PostgresServer], tmp_path: Path) -> None:
    """In the middle of a run, which is stopped, resumed and replayed: each message once, each output once, in order."""
    import psycopg
    import redis

    redis_server, postgres_server = servers
    fill(redis_server.url, postgres_server.dsn)
    build = build_of(redis_server.url, postgres_server.dsn)

    def outage() -> None:
        for server in servers:
            server.kill()
            server.start()

    for until_s, stage in ((COUNT // 2, "journal.after"), (COUNT, "release.inside")):
        with armed(stage, outage, arrival=2) as arrivals:
            with tw.open(tmp_path / "a.tw", build, factor=0, epoch=EPOCH, batch=7) as twin:
                summary = twin.run(until=until_s)
            assert arrivals[stage] >= 2, "no outage"
    assert summary.dead_letters == 0
    assert tw.replay(tmp_path / "a.tw", build).equal
    with psycopg.connect(postgres_server.dsn) as database:
        rows = [row[0] for row in database.execute("SELECT value FROM simulation_data ORDER BY n")]
    with redis.Redis.from_url(redis_server.url) as client:
        entries = [json.loads(fields[b"payload"])["value"] for _, fields in client.xrange("simulation_data")]
    assert rows == entries
    for path in ("a.value", "b.value"):
        assert [value for name, value in rows if name == path] == [*range(COUNT)]
