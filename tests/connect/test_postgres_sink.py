"""PostgreSQL tables hold each output once, whoever was killed; a row that is refused costs no other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from live_servers import Kills, Proxy, deliver, held_of, killed_at_random, outputs

from tidewarp.codec import pack
from tidewarp.connect import sinks
from tidewarp.connect.backends import postgres as backend
from tidewarp.connect.contract import Output, Refused, Sink
from tidewarp.errors import OperatorError
from tidewarp.observe import on_stage
from tidewarp.testing.servers.base import free_port
from tidewarp.testing.servers.postgres import PostgresServer
from tidewarp.testing.sinks import RUN, SinkConformance
from tidewarp.testing.suites import SAFETY_S, perform


@pytest.fixture(scope="module")
def server(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    require("postgres")
    with PostgresServer(tmp_path_factory.mktemp("postgres"), fsync=True) as server:
        yield server


@pytest.fixture
def client(server: PostgresServer) -> Iterator[Any]:
    import psycopg

    with psycopg.connect(server.dsn, autocommit=True) as client:
        yield client
    with psycopg.connect(server.dsn, autocommit=True) as client:
        client.execute("DROP SCHEMA public CASCADE")
        client.execute("CREATE SCHEMA public")


@pytest.fixture
def table(client: Any) -> str:
    client.execute("CREATE TABLE simulation_data (n SERIAL, tw_id TEXT UNIQUE, value INT CHECK (value <> 1300))")
    return "simulation_data"


def numbers(server: PostgresServer, table: str = "simulation_data") -> list[Any]:
    import psycopg

    with psycopg.connect(server.dsn) as client:
        return [row[0] for row in client.execute(f'SELECT value FROM "{table}" ORDER BY n').fetchall()]


def valued(*values: Any) -> list[Output]:
    """Outputs of these values."""
    return [output._replace(value=pack(value)) for output, value in zip(outputs(0, len(values)), values, strict=True)]


def write(sink: Sink, batch: list[Output]) -> list[Refused]:
    """One life."""

    async def life() -> list[Refused]:
        try:
            await sink.open(RUN)
            return await sink.write(batch)
        finally:
            await sink.close()

    return perform(life())


def via(server: PostgresServer, proxy: Proxy) -> str:
    return f"{server.dsn.replace(f':{server.port}/', f':{proxy.port}/')}?sslmode=disable"


class TestPostgresSink(SinkConformance):
    refused = {"__table__": "nowhere"}  # noqa: RUF012
    test_a_write_that_was_torn_is_mended = None  # its target is no folder: killed in the middle below

    @pytest.fixture(autouse=True)
    def given(self, server: PostgresServer, client: Any) -> Iterator[None]:
        self.server, self.client = server, client
        with Proxy(server.port, b"INSERT INTO", deliver=False) as self.proxy:
            self.dsn = via(server, self.proxy)
            yield

    def create(self, folder: Path) -> Sink:
        self.client.execute(f'CREATE TABLE IF NOT EXISTS "{folder.name}" (n SERIAL, tw_id TEXT, value JSONB)')
        return sinks.postgres(self.dsn, folder.name, name=f"sink {folder.name}")

    def values(self, folder: Path) -> list[Any]:
        if self.client.execute("SELECT to_regclass(%s)", (f'"{folder.name}"',)).fetchone() == (None,):
            return []
        return numbers(self.server, folder.name)

    def failing(self, folder: Path) -> AbstractContextManager[object]:
        @contextmanager
        def cutting() -> Iterator[None]:
            self.proxy.armed = True
            yield
            assert not self.proxy.armed, "the connection was not cut"

        return cutting()

    def create_broken(self, folder: Path) -> Sink:
        return sinks.postgres(self.server.dsn, "a table that is not there")


def test_the_columns_of_a_row(server: PostgresServer, client: Any) -> None:
    """The value's keys that the table has, and the stamps, which win; what has no column is counted."""
    client.execute("""CREATE TABLE simulation_data (n SERIAL, sim_ts FLOAT8, timestamp TIMESTAMPTZ, event_id TEXT, path_id TEXT,
        tw_id TEXT, a INT, b TEXT, c JSONB, d INT[], value JSONB)""")
    said = {"a": 7, "b": {"x": 1}, "c": float("inf"), "d": [1, 2], "sim_ts": 99, "nowhere": 1, "neither": 2}
    sink = sinks.postgres(server.dsn)
    batch = valued(said, 1.5, {"b": 3}, [1], {"unknown": 1})
    assert write(sink, batch) == []
    rows = client.execute(
        "SELECT sim_ts, event_id, path_id, tw_id, a, b, c, d, value FROM simulation_data ORDER BY n"
    ).fetchall()
    assert rows == [
        (0.0, "key", None, batch[0].id, 7, '{"x":1}', None, [1, 2], None),
        (1.0, "key", None, batch[1].id, None, None, None, None, 1.5),
        (2.0, "key", None, batch[2].id, None, "3", None, None, None),
        (3.0, "key", None, batch[3].id, None, None, None, None, [1]),
        (4.0, "key", None, batch[4].id, None, None, None, None, {"unknown": 1}),
    ]
    assert (sink.left_out, sink.nonfinite) == (2, 1)
    [[epoch]] = client.execute("SELECT extract(epoch FROM timestamp)::bigint FROM simulation_data WHERE n = 2")
    assert epoch == RUN.epoch_ns // 10**9 + 1


def test_one_bad_row_of_twenty_costs_no_other(server: PostgresServer, client: Any, table: str) -> None:
    """Constraint, type, NUL, a key twice, each alone: refused with a reason, the others are held in order (18)."""
    values: list[Any] = [{"value": n} for n in range(20)]
    values[3], values[7], values[13], values[19] = (
        {"value": "x"},
        {"value": 2**40},
        {"value": 1300},
        {"value": "\0"},
    )
    refused = write(sinks.postgres(server.dsn), valued(*values))
    assert [int(one.id.split("-")[0], 16) for one in refused] == [3, 7, 13, 19]
    assert all(one.reason for one in refused)
    assert numbers(server) == [n for n in range(20) if n not in (3, 7, 13, 19)]


def test_columns_are_those_of_each_row(server: PostgresServer, client: Any) -> None:
    """Not those of the first row of a batch (18)."""
    client.execute("CREATE TABLE simulation_data (n SERIAL, a INT DEFAULT 5, b INT)")
    assert write(sinks.postgres(server.dsn), valued({"a": 1}, {"b": 2}, {"b": 3, "a": 4}, {"a": 6})) == []
    rows = client.execute("SELECT a, b FROM simulation_data ORDER BY n").fetchall()
    assert rows == [(1, None), (5, 2), (4, 3), (6, None)]


def test_a_constraint_that_is_checked_at_commit_refuses_one_row(server: PostgresServer, client: Any) -> None:
    """Deferred constraints are checked at once: at COMMIT nobody could say which row it was."""
    client.execute("""CREATE TABLE simulation_data (n SERIAL, value INT UNIQUE DEFERRABLE INITIALLY DEFERRED)""")
    refused = write(sinks.postgres(server.dsn), valued(1, 2, 1, 3))
    assert [one.id for one in refused] == [outputs(2, 3)[0].id]
    assert numbers(server) == [1, 2, 3]


def test_a_route_leads_to_another_table(server: PostgresServer, client: Any, table: str) -> None:
    """``__table__``, also with a schema and odd names; one that is not there, or no name, is refused."""
    client.execute('CREATE SCHEMA "s"')
    client.execute('CREATE TABLE s."b%s{}" (value INT, "c%s" INT)')
    sink = sinks.postgres(server.dsn)
    routes: list[Any] = ["s.b%s{}", "nowhere", 7, "", "a; DROP TABLE simulation_data", "x\0"]
    batch = valued(*({"__table__": route, "value": n, "c%s": n} for n, route in enumerate(routes)), {"value": 9})
    assert [one.id for one in write(sink, batch)] == [one.id for one in batch[1:-1]]
    assert client.execute('SELECT * FROM s."b%s{}"').fetchall() == [(0, 0)]
    assert numbers(server) == [9]
    client.execute("DROP SCHEMA s CASCADE")


@pytest.mark.parametrize("executed", [False, True])
def test_a_commit_whose_answer_was_lost_is_settled_by_the_table(
    server: PostgresServer, client: Any, table: str, executed: bool
) -> None:
    """Lost before or after the server executed it: opened again the sink knows, and holds each output once (18)."""

    async def life(proxy: Proxy) -> None:
        sink = sinks.postgres(via(server, proxy))
        await sink.open(RUN)
        await sink.write(outputs(0, 5))
        proxy.armed = True
        with pytest.raises(ConnectionError):
            await sink.write(outputs(5, 9))
        assert proxy.cuts == 1
        await sink.close()
        assert held_of(await sink.open(RUN)) == (9 if executed else 5)
        await sink.write(outputs(5, 12))  # also where the whole is offered again
        await sink.close()

    with Proxy(server.port, b"COMMIT\0", deliver=executed) as proxy:
        perform(life(proxy))
    assert numbers(server) == [*range(12)]


def test_a_commit_that_is_still_under_way_is_waited_for(server: PostgresServer, client: Any) -> None:
    """Another life's transaction is open: this one waits for its end, and then leaves out what that one delivered."""
    client.execute("CREATE TABLE simulation_data (n SERIAL, value INT)")
    first, second = sinks.postgres(server.dsn), sinks.postgres(server.dsn)
    opened, begun = threading.Event(), threading.Event()

    async def other_life() -> list[Refused]:
        await second.open(RUN)
        opened.set()
        begun.wait(SAFETY_S)
        refused = await second.write(outputs(0, 6))
        await second.close()
        return refused

    def while_it_is_open(_: str) -> None:
        on_stage(None)
        begun.set()
        while not client.execute("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchall():
            assert other.is_alive(), "it waited for nothing"

    async def life() -> None:
        await first.open(RUN)
        other.start()
        assert opened.wait(SAFETY_S)
        on_stage(while_it_is_open)
        try:
            await first.write(outputs(0, 4))
        finally:
            on_stage(None)
            await first.close()

    other = threading.Thread(target=lambda: perform(other_life()), daemon=True)
    perform(life())
    other.join(SAFETY_S)
    assert numbers(server) == [*range(6)]


def test_a_sink_killed_anywhere_is_exactly_once(
    require: Callable[[str], None], server: PostgresServer, client: Any, table: str
) -> None:
    """Its process is killed at and between the steps of its writes, a dozen times: each output once, in order."""
    require("fork")
    assert killed_at_random(lambda: sinks.postgres(server.dsn), 100, kills=12) == 12
    assert numbers(server) == [*range(100)]


def test_a_server_killed_under_load_holds_each_output_once(server: PostgresServer, client: Any, table: str) -> None:
    """SIGKILL of PostgreSQL in the middle of the writes, with fsync: nothing lost, nothing doubled (18)."""
    kills = Kills(server, [30, 90, 150])
    perform(deliver(sinks.postgres(server.dsn), 200, 5, kills))
    assert not kills.left
    assert numbers(server) == [*range(200)]


def test_an_outage_at_start_may_pass(require: Callable[[str], None]) -> None:
    """Refused at start it is a ConnectionError, which the host retries (14)."""
    require("postgres")
    sink = sinks.postgres(f"postgresql://u:p@127.0.0.1:{free_port()}/d")
    for _ in range(2):
        with pytest.raises(ConnectionError):
            write(sink, outputs(0, 1))


def test_a_silent_server_is_an_outage_and_not_for_ever(
    server: PostgresServer, client: Any, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP in the middle of a write: an OSError; when it goes on, each output is held once."""
    monkeypatch.setattr(backend, "_ANSWER_S", 0.2)

    async def life() -> None:
        sink = sinks.postgres(server.dsn)
        await sink.open(RUN)
        on_stage(lambda _: server.pause())
        try:
            with pytest.raises(OSError):
                await sink.write(outputs(0, 4))
        finally:
            on_stage(None)
            server.proceed()
        monkeypatch.undo()
        await deliver(sink, 8)

    perform(life())
    assert numbers(server) == [*range(8)]


def test_a_table_that_is_altered_meanwhile_loses_nothing(server: PostgresServer, client: Any) -> None:
    """A column goes: the write fails as an outage would, and opened again it takes the columns that there are."""
    client.execute("CREATE TABLE simulation_data (n SERIAL, value INT, b INT)")

    async def life() -> None:
        sink = sinks.postgres(server.dsn)
        await sink.open(RUN)
        await sink.write(valued({"value": 0, "b": 1}))
        client.execute("ALTER TABLE simulation_data DROP COLUMN b")
        batch = valued({}, {"value": 1, "b": 1})[1:]
        with pytest.raises(ConnectionError):
            await sink.write(batch)
        await sink.close()
        await sink.open(RUN)
        assert await sink.write(batch) == []
        await sink.close()

    perform(life())
    assert numbers(server) == [0, 1]


def test_what_the_user_may_not_do_is_the_operators(server: PostgresServer, client: Any, table: str) -> None:
    """No INSERT for this user: OperatorError, no dead letter, no secret in it."""
    write(sinks.postgres(server.dsn), outputs(0, 1))  # makes tidewarp_delivery
    client.execute("CREATE ROLE clerk LOGIN PASSWORD 'canary-clerk'")
    client.execute("GRANT USAGE ON SCHEMA public TO clerk")
    client.execute("GRANT SELECT ON simulation_data TO clerk")
    client.execute("GRANT ALL ON tidewarp_delivery TO clerk")
    sink = sinks.postgres(server.dsn.replace(f"tidewarp:{server.password}", "clerk:canary-clerk"))
    try:
        with pytest.raises(OperatorError, match="permission denied") as caught:
            write(sink, outputs(1, 2))
    finally:
        client.execute("DROP OWNED BY clerk")
        client.execute("DROP ROLE clerk")
    assert "canary" not in f"{caught.value}{caught.value.__cause__}{sink!r}"
    assert numbers(server) == [0]


def test_two_sinks_of_one_run_are_told_apart_by_their_names(server: PostgresServer, client: Any, table: str) -> None:
    client.execute("CREATE TABLE other (n SERIAL, value INT)")
    write(sinks.postgres(server.dsn, name="a"), outputs(0, 3))
    write(sinks.postgres(server.dsn, "other", name="b"), outputs(0, 2))
    assert (numbers(server), numbers(server, "other")) == ([0, 1, 2], [0, 1])
    held = client.execute("SELECT domain, sink, last_id FROM tidewarp_delivery ORDER BY sink").fetchall()
    assert held == [(RUN.domain, "a", outputs(2, 3)[0].id), (RUN.domain, "b", outputs(1, 2)[0].id)]
