"""PostgreSQL: how its connectors reach it, and a table of parameters as a source."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec

from tidewarp.connect.contract import Decoder, Raw, Source
from tidewarp.connect.received import Decoding, chosen_decoder, received
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.units import Duration, in_seconds, ticks

__all__ = ["PostgresSource", "connected", "driver", "identifier", "quoted", "translated", "within"]

_ANSWER_S = 10.0  # for an answer of the server
_LOADED, _ROWS = 0, 1  # partitions: at equal times the loaded state is applied first
_DENIED = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "no password supplied",
    "permission denied",
)
_FETCH = 1_000  # rows in one answer, at most
_NOT_OURS = {"42501", "42710", "XX000"}  # no privilege; made by another at the same time
_NAME_MAX = 63  # characters of ASCII; PostgreSQL cuts what is longer
_RETRIED = {"40001", "40P01", "55P03", "57014"}  # serialization, deadlock, lock, cancelled

_MAKE = """
CREATE TABLE IF NOT EXISTS {table} (
    id BIGSERIAL PRIMARY KEY,
    param_path TEXT NOT NULL,
    param_value TEXT NOT NULL,
    is_applied BOOLEAN DEFAULT FALSE,
    created_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP
)
"""
_NOTIFY = """
CREATE OR REPLACE FUNCTION tidewarp_notify() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify(TG_ARGV[0], ''); RETURN NULL; END $$
"""
_HAS_TRIGGER = "SELECT FROM pg_trigger WHERE tgrelid = to_regclass(%(name)s) AND tgname = %(trigger_name)s"
_TRIGGER = (
    "CREATE TRIGGER {trigger} AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION tidewarp_notify({channel})"
)
_COLUMNS = """
id, param_path, to_json(param_value)::text, CASE WHEN isfinite(created_at::timestamptz)
THEN (extract(epoch FROM created_at::timestamptz) * 1000000)::bigint END
"""
_NEW = "SELECT {columns} FROM {table} WHERE is_applied IS NOT TRUE AND id <> ALL(%(given)s) ORDER BY id LIMIT %(limit)s"
_LAST = """
SELECT {columns} FROM {table} WHERE id IN (SELECT max(id) FROM {table} WHERE is_applied GROUP BY param_path) ORDER BY id
"""
_APPLIED = "UPDATE {table} SET is_applied = TRUE WHERE id = ANY(%(done)s)"


def driver(what: str) -> Any:
    """The package psycopg. Raises MissingExtra."""
    try:
        import psycopg
    except ImportError:
        raise MissingExtra(what, "it needs psycopg", "pip install 'tidewarp[postgres]'") from None
    return psycopg


def identifier(*names: str) -> Any:
    """A qualified name as part of a statement that is executed with parameters, in which a percent sign is doubled."""
    from psycopg import sql

    return sql.Identifier(*(name.replace("%", "%%") for name in names))


def quoted(table: str) -> str:
    """``table`` or ``schema.table`` as a text that PostgreSQL reads as that name."""
    from psycopg import sql

    return sql.Identifier(*table.split(".")).as_string(None)


async def connected(dsn: str, what: str) -> Any:
    """A connection in autocommit, which closes itself in the server when this side is silent within a transaction.

    Raises:
        MissingExtra: no driver.
        OperatorError: the DSN, or what it names, or its credentials.
        ConnectionError: anything else, which may pass.
    """
    psycopg = driver(what)
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.Error:  # its text may hold the password
        rule = "it is no connection string"
        raise OperatorError(
            f"the dsn of the {what}", rule, "give postgresql://user:password@host:port/database"
        ) from None
    parts.setdefault("connect_timeout", max(2, int(_ANSWER_S)))
    with translated(what):
        connection = await psycopg.AsyncConnection.connect(**parts, autocommit=True)
        try:
            async with within(connection):
                await connection.execute("SET idle_in_transaction_session_timeout = '60s'")
                await connection.execute("SET lock_timeout = '5s'")
        except BaseException:
            await connection.close()
            raise
    return connection


@asynccontextmanager
async def within(connection: Any) -> AsyncIterator[None]:
    """Cut the connection if the block takes longer than 10 s: by itself the driver waits for ever for a server that is silent."""
    alarm = asyncio.get_running_loop().call_later(_ANSWER_S, _cut, connection)
    try:
        yield
    finally:
        alarm.cancel()


def _cut(connection: Any) -> None:
    if connection.closed:
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as peer:
        try:
            peer.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is cut already


@contextmanager
def translated(target: str) -> Iterator[None]:
    """The driver's errors as ours: ConnectionError for what may pass, OperatorError for what only people can mend."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        if (lost and not any(words in text for words in _DENIED)) or error.sqlstate in _RETRIED:
            raise ConnectionError(f"{target}: {text}") from error
        raise OperatorError(target, text, "correct the table, the columns, the user or what it may do") from error


class PostgresSource(Source):
    """Rows of a table of parameters: ``id, param_path, param_value, is_applied, created_at``. It is made if it is not there.

    A row with ``is_applied`` not true is a message ``{"path": param_path, "value": param_value}``: a text that is JSON is that
    value, any other text is itself, columns of another type give what ``to_json`` makes of them. Rows are found by
    their state, never by the highest id, because ids are given before a commit and not by it. ``is_applied`` becomes true when the
    journal has the row. Until then it is given again to the next life, and the gate drops what it had: a message is
    known by the row's id and ``created_at``, so insert a row to repeat a value, do not reset one.

    A journal that has nothing of the table yet is first given the last applied value of each path (the applied row with the highest
    id), as partition 0; rows are partition 1.

    Args:
        dsn: ``postgresql://user:password@host:port/database`` or ``host=… dbname=…``.
        table: ``table`` or ``schema.table``.
        channel: LISTEN on it, so that a row is seen at once; the table gets a trigger that notifies it, where the user may make
            one. None: a row is seen within ``poll``.
        poll: seconds (or text such as "500 ms") between two looks at the table, with a channel too, in case a notification was lost.
        load_applied: begin with the last applied values.
        decoder: in place of JSON: a decoder, or a callable, bytes -> mapping.
        name: in the journal and in all counts.
    """

    kind = "postgres"
    clock = "wall"

    def __init__(
        self,
        dsn: str,
        table: str = "simulation_params",
        *,
        channel: str | None = None,
        poll: Duration = 2.0,
        load_applied: bool = True,
        decoder: Decoding | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name if name is not None else self.kind
        self._dsn, self._table, self._channel = dsn, table, channel
        self._poll_s, self._load_applied = in_seconds(ticks(poll)), load_applied
        self._decoding = decoder
        self._connection: Any = None  # of read
        self._marking: Any = None  # of confirm, which must not wait for read
        self._next = {_LOADED: 0, _ROWS: 0}
        self._loaded: deque[Raw] | None = None
        self._given: dict[int, Any] = {}  # offset -> id of a row that is not marked, in order
        if self._poll_s <= 0:
            raise OperatorError(f"poll {poll!r}", "it is longer than nothing", "give seconds")

    def describe(self) -> dict[str, Any]:
        """The table, and whether its applied values are loaded."""
        return {"kind": self.kind, "table": self._table, "load_applied": self._load_applied}

    def decoder(self, epoch_ns: int) -> Decoder:
        """The user's, or JSON."""
        return chosen_decoder(self._decoding, None, epoch_ns)

    async def open(self, positions: Mapping[int, int]) -> None:
        """Connect; make the table where there is none; load the applied values if nothing of the rows is journaled."""
        await self.close()
        self._connection = await connected(self._dsn, self._target)
        self._marking = await connected(self._dsn, self._target)
        self._next = {partition: positions.get(partition, -1) + 1 for partition in (_LOADED, _ROWS)}
        self._given = {}
        await self._prepare()
        # Loaded values that the journal has are given again, and dropped by their ids: so a crash among them loses none.
        self._loaded = deque()
        if self._load_applied and _ROWS not in positions:
            self._loaded.extend(self._raw(_LOADED, row) for row in await self._perform(self._connection, _LAST))

    async def read(self, limit: int) -> Sequence[Raw]:
        """The loaded values, then rows that are not applied. Waits for a notification, or ``poll`` seconds, and looks again."""
        if self._connection is None or self._loaded is None:
            raise OperatorError(f"source {self.name!r}", "it is closed", "open it first")
        if self._loaded:
            return [self._loaded.popleft() for _ in range(min(limit, len(self._loaded)))]
        while not (rows := await self._new(min(limit, _FETCH))):
            await self._wait()
        some = []
        for row in rows:
            self._given[self._next[_ROWS]] = row[0]
            some.append(self._raw(_ROWS, row))
        return some

    async def confirm(self, positions: Mapping[int, int]) -> None:
        """Set ``is_applied``. What could not be told, a later call tells again."""
        done = [offset for offset in self._given if offset <= positions.get(_ROWS, -1)]
        if not done or self._marking is None:
            return
        if self._marking.closed:
            self._marking = await connected(self._dsn, self._target)
        await self._perform(self._marking, _APPLIED, done=[self._given[offset] for offset in done])
        for offset in done:
            self._given.pop(offset, None)

    async def close(self) -> None:
        """Disconnect."""
        connections = self._connection, self._marking
        self._connection = self._marking = self._loaded = None
        for connection in connections:
            if connection is not None:
                await connection.close()

    # ------------------------------------------------------------------ how it is done
    @property
    def _target(self) -> str:
        return f"postgres source {self.name!r} table {self._table}"

    async def _prepare(self) -> None:
        """The table, and the trigger that notifies the channel: what exists stays as it is."""
        found = await self._perform(self._connection, "SELECT to_regclass(%(name)s)")
        if found == [(None,)]:
            await self._perform(self._connection, _MAKE)
        if self._channel is None:
            return
        await self._perform(self._connection, "LISTEN {listened}")
        if await self._perform(self._connection, _HAS_TRIGGER):
            return
        try:
            await self._perform(self._connection, _NOTIFY)
            await self._perform(self._connection, _TRIGGER)
        except OperatorError as error:  # whoever owns the table may notify; the poll finds all rows
            if getattr(error.__cause__, "sqlstate", None) not in _NOT_OURS:
                raise

    async def _new(self, limit: int) -> list[Any]:
        return await self._perform(self._connection, _NEW, given=[*self._given.values()], limit=limit)

    async def _perform(self, connection: Any, statement: str, **values: Any) -> list[Any]:
        """The rows of a statement. Cancelled, it cuts the connection: the driver would first ask the server to cancel, too."""
        task = asyncio.ensure_future(self._execute(connection, statement, values))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            _cut(connection)
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def _execute(self, connection: Any, statement: str, values: Mapping[str, Any]) -> list[Any]:
        from psycopg import sql

        trigger = f"tidewarp_notify_{self._channel}"[:_NAME_MAX]
        composed = sql.SQL(statement).format(
            table=identifier(*self._table.split(".")),
            columns=sql.SQL(_COLUMNS),
            trigger=identifier(trigger),
            listened=identifier(self._channel or "-"),
            channel=sql.Literal((self._channel or "").replace("%", "%%")),
        )
        named = {"name": quoted(self._table), "trigger_name": trigger, **values}
        with translated(self._target):
            async with within(connection):
                cursor = await connection.execute(composed, named)
                return await cursor.fetchall() if cursor.description else []

    async def _wait(self) -> None:
        if self._channel is None:
            await asyncio.sleep(self._poll_s)
            return
        with translated(self._target):
            async for _ in self._connection.notifies(timeout=self._poll_s, stop_after=1):
                continue

    def _raw(self, partition: int, row: Sequence[Any]) -> Raw:
        number, path, value, created_us = row
        offset = self._next[partition]
        self._next[partition] += 1
        payload = b'{"path":%s,"value":%s}' % (msgspec.json.encode(path), _json(value))
        name = f"{number}@{created_us}" if partition == _ROWS else f"applied {number}@{created_us}"
        time_ns = None if created_us is None else created_us * 1_000
        return received(partition, offset, payload, id=name, time_ns=time_ns)


def _json(value: str | None) -> bytes:
    """The value of a row: ``to_json`` of its column, or, where that is a text which is JSON itself, that."""
    if value is None:
        return b"null"
    if value.startswith('"'):
        text = msgspec.json.decode(value)
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return value.encode()
        return str(text).encode()
    return value.encode()
