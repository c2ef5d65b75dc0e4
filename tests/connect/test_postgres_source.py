"""Rows of the parameter table are given until they are confirmed, by their state and never by the highest id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_servers import through

from tidewarp.connect import sources
from tidewarp.connect.backends import postgres as backend
from tidewarp.connect.contract import HEAD_BYTES, MESSAGE_BYTES_MAX, Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import OperatorError
from tidewarp.testing.readings import positions
from tidewarp.testing.redelivery import RedeliveryConformance, drained, fresh, one_life
from tidewarp.testing.servers.base import free_port
from tidewarp.testing.servers.postgres import PostgresServer
from tidewarp.testing.suites import perform

POLL_S = 0.02


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


def create_table(client: Any, name: str = "simulation_params", type: str = "TEXT") -> None:
    """As published by other systems."""
    client.execute(f"""CREATE TABLE "{name}" (id SERIAL PRIMARY KEY, param_path VARCHAR(255) NOT NULL,
        param_value {type}, is_applied BOOLEAN DEFAULT FALSE, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)""")


def add(client: Any, first: int, end: int, table: str = "simulation_params") -> None:
    with client.cursor() as cursor:
        values = [("line.value", str(n)) for n in range(first, end)]
        cursor.executemany(f'INSERT INTO "{table}" (param_path, param_value) VALUES (%s, %s)', values)


def applied(client: Any) -> list[int]:
    return [row[0] for row in client.execute("SELECT id FROM simulation_params WHERE is_applied ORDER BY id")]


def values(raws: list[Raw]) -> list[Any]:
    decoder = JsonMessages(0)
    return [decoder.decode(raw).changes[0][1] for raw in raws]


def source_of(server: PostgresServer, **options: Any) -> Source:
    return sources.postgres(server.dsn, **{"poll": POLL_S, **options})


class TimedValues:
    """A decoder of the user's: the value is an object that says when, too."""

    def __init__(self) -> None:
        self._messages = JsonMessages(0)

    def decode(self, raw: Raw) -> Any:
        update = self._messages.decode(raw)
        [(path, value)] = update.changes
        whole = value if isinstance(value, dict) else {}
        return self._messages.update({"path": path, **whole})


class TestPostgresSource(RedeliveryConformance):
    messages = (
        (1_000 * 10**9, {"line.value": 0.5}),
        (1_002 * 10**9, {"line.value": "2"}),
        None,
        (1_001 * 10**9, {"line.value": [1]}),
        (1_003 * 10**9, {"line.text": "é"}),
    )
    secrets = (PostgresServer.password,)
    test_the_decoder_is_pure = None  # the user's: it has no epoch

    @pytest.fixture(autouse=True)
    def given(self, server: PostgresServer, client: Any) -> None:
        self.server, self.client = server, client

    def create(self, folder: Path) -> Source:
        table = f"t {folder.name}"
        if self.client.execute("SELECT to_regclass(%s)", (f'"{table}"',)).fetchone() == (None,):
            create_table(self.client, table)
            for said in self.messages:
                path, value = ("line.value", None) if said is None else next(iter(said[1].items()))
                text = "no JSON" if said is None else json.dumps({"value": value, "time": said[0] // 10**9})
                self.client.execute(f'INSERT INTO "{table}" (param_path, param_value) VALUES (%s, %s)', (path, text))
        return source_of(self.server, table=table, decoder=TimedValues())

    def create_broken(self, folder: Path) -> Source:
        return sources.postgres(self.server.dsn.replace(PostgresServer.password, "wrong"))


@pytest.mark.parametrize("dsn", ["postgresql://u:canary-x@[::1", "host=localhost password=canary-x nonsense=canary-x"])
def test_a_dsn_that_is_none_is_refused_without_its_password(require: Callable[[str], None], dsn: str) -> None:
    """OperatorError, whose text and chain show no secret."""
    require("postgres")
    with pytest.raises(OperatorError) as caught:
        perform(one_life(sources.postgres(dsn), 1))
    assert "canary" not in f"{caught.value}{caught.value.__cause__}"


def test_an_outage_at_start_may_pass(require: Callable[[str], None]) -> None:
    """Refused at start it is a ConnectionError, which the host retries (14)."""
    require("postgres")
    source = sources.postgres(f"postgresql://u:p@127.0.0.1:{free_port()}/d")
    for _ in range(2):
        with pytest.raises(ConnectionError):
            perform(one_life(source, 1))


def test_the_table_is_made_where_there_is_none(server: PostgresServer, client: Any) -> None:
    """With the published columns; what exists stays as it is."""

    async def life() -> list[Raw]:
        source = source_of(server)
        await source.open({})
        await source.close()
        add(client, 0, 2)
        return await one_life(source, 2)

    assert values(perform(life())) == [0, 1]


@pytest.mark.parametrize(
    ("type", "given", "meant"),
    [
        ("TEXT", "1.5", 1.5),
        ("TEXT", "true", True),
        ("TEXT", '{"a": [1, null]}', {"a": [1, None]}),
        ("TEXT", "auto", "auto"),
        ("TEXT", '"auto"', "auto"),
        ("TEXT", "NaN", "NaN"),
        ("TEXT", "", ""),
        ("TEXT", None, None),
        ("JSONB", '{"a": 1}', {"a": 1}),
        ("JSONB", '"x"', "x"),
        ("DOUBLE PRECISION", "2.25", 2.25),
        ("DOUBLE PRECISION", "NaN", "NaN"),
        ("BOOLEAN", "false", False),
    ],
)
def test_a_value_is_what_its_column_says(
    server: PostgresServer, client: Any, type: str, given: Any, meant: Any
) -> None:
    """A text that is JSON is that value, any other text itself; other columns as to_json makes them."""
    create_table(client, type=type)
    client.execute("INSERT INTO simulation_params (param_path, param_value) VALUES ('p', %s)", (given,))
    [value] = values(perform(one_life(source_of(server), 1)))
    assert value == meant
    assert isinstance(value, bool) == isinstance(meant, bool)


def test_a_value_that_is_too_long_keeps_its_head_and_its_hash(server: PostgresServer, client: Any) -> None:
    create_table(client)
    client.execute(
        "INSERT INTO simulation_params (param_path, param_value) VALUES ('p', repeat('x', %s))", (MESSAGE_BYTES_MAX,)
    )
    [raw] = perform(one_life(source_of(server), 1))
    assert (len(raw.payload), len(raw.sha256 or b"")) == (HEAD_BYTES, 32)


def test_a_row_is_applied_when_it_is_confirmed_and_not_before(server: PostgresServer, client: Any) -> None:
    """Marked before that, a crash loses it: 17. Not confirmed, the next life is given it again, under its id."""
    create_table(client)
    add(client, 0, 6)

    async def lives() -> None:
        source = source_of(server)
        await source.open({})
        raws = await drained(source, 4)
        assert [raw.partition for raw in raws] == [1] * 4
        assert raws[0].time_ns is not None
        assert applied(client) == []
        await source.confirm({1: 1})
        assert applied(client) == [1, 2]
        await source.close()
        later = source_of(server)
        await later.open({1: 3})
        again = await drained(later, 4)
        assert [raw.id for raw in again[:2]] == [raw.id for raw in raws[2:]]
        assert [raw.offset for raw in again] == [4, 5, 6, 7]
        assert values(again) == [2, 3, 4, 5]
        await later.confirm(positions(again))
        await later.close()
        assert applied(client) == [1, 2, 3, 4, 5, 6]

    perform(lives())


def test_a_confirmation_that_failed_is_made_up_by_the_next(server: PostgresServer, client: Any) -> None:
    """An outage in between: OSError, and the next confirmation marks both."""
    import psycopg

    create_table(client)
    add(client, 0, 6)

    async def life() -> None:
        source = source_of(server)
        await source.open({})
        await drained(source, 6)
        server.kill()
        with pytest.raises(OSError):
            await source.confirm({1: 3})
        server.start()
        await source.confirm({1: 4})
        await source.close()

    perform(life())
    with psycopg.connect(server.dsn, autocommit=True) as later:
        assert applied(later) == [1, 2, 3, 4, 5]


def test_an_id_that_is_committed_late_is_not_passed_over(server: PostgresServer, client: Any) -> None:
    """Ids are given before the commit: a lower one may appear behind a higher one that was read and confirmed."""
    import psycopg

    create_table(client)

    async def life() -> None:
        source = source_of(server)
        await source.open({})
        with psycopg.connect(server.dsn) as slow:
            slow.execute("INSERT INTO simulation_params (param_path, param_value) VALUES ('line.value', '0')")
            add(client, 1, 2)
            raws = await drained(source, 1)
            assert values(raws) == [1]
            await source.confirm(positions(raws))
            slow.commit()
        assert values(await drained(source, 1)) == [0]
        await source.close()

    perform(life())


def test_a_fresh_journal_begins_with_the_last_applied_values(server: PostgresServer, client: Any) -> None:
    """Of each path, before any row; under ids of their own, so that a crash among them loses and doubles none (17)."""
    create_table(client)
    add(client, 0, 3)
    client.execute("INSERT INTO simulation_params (param_path, param_value) VALUES ('other', '7'), ('new', '8')")
    client.execute("UPDATE simulation_params SET is_applied = TRUE WHERE param_path <> 'new'")

    async def lives() -> None:
        source = source_of(server)
        await source.open({})
        first = await source.read(1)
        await source.close()
        await source.open(positions(first))
        raws = await drained(source, 3)
        assert values(fresh([*first, *raws], [])) == [2, 7, 8]
        assert [raw.partition for raw in raws] == [0, 0, 1]
        await source.confirm(positions(raws))
        assert applied(client) == [1, 2, 3, 4, 5]
        await source.close()
        await source.open(positions(raws))
        add(client, 20, 21)
        assert values(await drained(source, 1)) == [20], "a journal that has rows is given no applied values"
        await source.close()
        without = source_of(server, load_applied=False)
        assert values(await one_life(without, 1)) == [20]

    perform(lives())


def test_a_table_that_was_emptied_and_counts_from_one_again_gives_new_messages(
    server: PostgresServer, client: Any
) -> None:
    """The same row id is another message: its creation time tells."""
    create_table(client)
    add(client, 0, 2)
    old = perform(one_life(source_of(server), 2, confirm=True))
    client.execute("TRUNCATE simulation_params RESTART IDENTITY")
    add(client, 5, 7)
    new = perform(one_life(source_of(server), 2, positions(old)))
    assert values(fresh(new, old)) == [5, 6]


def test_a_notification_ends_the_wait(server: PostgresServer, client: Any) -> None:
    """With a channel the trigger is made, and a row is given without a poll; a second source finds it there."""

    async def life() -> None:
        source = source_of(server, channel="params", poll="1 h")
        await source.open({})
        for n in range(3):
            task = asyncio.ensure_future(source.read(5))
            await asyncio.sleep(0)
            await asyncio.to_thread(add, client, n, n + 1)
            assert values(list(await task)) == [n]
        second = source_of(server, channel="params", poll="1 h")
        await second.open({})
        await second.close()
        await source.close()

    perform(life())


def test_a_lost_notification_costs_a_poll_and_no_row(server: PostgresServer, client: Any) -> None:
    """Rows of somebody whose trigger is missing are found by polling."""

    async def life() -> None:
        source = source_of(server, channel="params")
        await source.open({})
        client.execute("DROP TRIGGER tidewarp_notify_params ON simulation_params")
        task = asyncio.ensure_future(source.read(5))
        await asyncio.sleep(0)
        add(client, 0, 1)
        assert values(list(await task)) == [0]
        await source.close()

    perform(life())


def test_who_may_make_no_trigger_polls(server: PostgresServer, client: Any) -> None:
    """A user with nothing but the table's SELECT and UPDATE."""
    create_table(client)
    client.execute("CREATE ROLE clerk LOGIN PASSWORD 'canary-clerk'")
    client.execute("GRANT USAGE ON SCHEMA public TO clerk")
    client.execute("GRANT SELECT, UPDATE ON simulation_params TO clerk")
    add(client, 0, 2)
    dsn = server.dsn.replace(f"tidewarp:{server.password}", "clerk:canary-clerk")
    try:
        raws = perform(one_life(sources.postgres(dsn, channel="params", poll=POLL_S), 2, confirm=True))
    finally:
        client.execute("DROP OWNED BY clerk")
        client.execute("DROP ROLE clerk")
    assert values(raws) == [0, 1]
    assert applied(client) == [1, 2]


@pytest.mark.parametrize("channel", [None, "params"])
def test_a_server_killed_under_load_loses_nothing(server: PostgresServer, client: Any, channel: str | None) -> None:
    """SIGKILL and restart, twice, while rows are read and confirmed: each is admitted once, in order (18)."""
    create_table(client)
    add(client, 0, 200)
    source = source_of(server, channel=channel)
    assert values(perform(through(server, source, 200, [40, 120]))) == [*range(200)]


def test_a_silent_server_is_an_outage_and_not_for_ever(
    server: PostgresServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP: open and read raise an OSError; when it goes on, all is there."""
    create_table(client)
    monkeypatch.setattr(backend, "_ANSWER_S", 0.2)

    async def life() -> None:
        source = source_of(server)
        await source.open({})
        add(client, 0, 3)
        server.pause()
        try:
            with pytest.raises(OSError):
                await source.read(5)
            await source.close()
            with pytest.raises(OSError):
                await source.open({})
        finally:
            server.proceed()
        monkeypatch.undo()
        assert values(await one_life(source, 3)) == [0, 1, 2]

    perform(life())


def test_a_read_of_a_silent_server_can_be_cancelled(
    server: PostgresServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lets CancelledError pass, whatever the driver meets meanwhile."""
    monkeypatch.setattr(backend, "_ANSWER_S", 0.3)

    async def life() -> None:
        source = source_of(server)
        await source.open({})
        server.pause()
        try:
            task = asyncio.ensure_future(source.read(5))
            for _ in range(5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        finally:
            server.proceed()
        assert task.cancelled()
        await source.close()

    perform(life())


def test_a_table_that_is_none_of_ours_is_refused(server: PostgresServer, client: Any) -> None:
    """A column is missing: OperatorError that names it."""
    client.execute("CREATE TABLE simulation_params (id INT, param_path TEXT)")
    with pytest.raises(OperatorError, match="param_value"):
        perform(one_life(source_of(server), 1))


def test_names_are_quoted(server: PostgresServer, client: Any) -> None:
    """A table and a channel of any name, also with quotes and braces."""
    name = 'a"b{c}%s'
    raws: list[Raw] = []

    async def life() -> None:
        source = source_of(server, table=name, channel=name)
        await source.open({})
        add_to = 'INSERT INTO "a""b{c}%%s" (param_path, param_value) VALUES (%s, %s)'
        client.execute(add_to, ("p", "1"))
        raws.extend(await drained(source, 1))
        await source.confirm(positions(raws))
        await source.close()

    perform(life())
    assert values(raws) == [1]
