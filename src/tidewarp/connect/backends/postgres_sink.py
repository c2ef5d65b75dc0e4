"""Outputs as rows of PostgreSQL tables, each of them once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from tidewarp.connect.backends.postgres import connected, driver, identifier, quoted, translated, within
from tidewarp.connect.contract import Observation, Output, Refused, RunIdentity, Sink
from tidewarp.connect.payload import event_payload, nonfinite, observation_payload
from tidewarp.errors import OperatorError
from tidewarp.observe import stage

__all__ = ["PostgresSink"]

_ROUTE = "__table__"
_ALTERED = {"42P01", "42703"}  # no such table, no such column: they were there when the columns were read
_NO_PRIVILEGE = "42501"
_LIMIT = "54"  # class of errors: a row that is too large for an index, too many columns
_TABLES_MAX = 10_000  # whose columns are remembered
_PROGRESS = """
CREATE TABLE IF NOT EXISTS tidewarp_delivery (
    domain TEXT, sink TEXT, last_id TEXT NOT NULL, PRIMARY KEY (domain, sink)
)
"""
_BEGUN = "INSERT INTO tidewarp_delivery VALUES (%s, %s, '') ON CONFLICT DO NOTHING"
_HELD = "SELECT last_id FROM tidewarp_delivery WHERE domain = %s AND sink = %s FOR UPDATE"
_MOVED = "UPDATE tidewarp_delivery SET last_id = %s WHERE domain = %s AND sink = %s"
_COLUMNS = """
SELECT a.attname, t.typname, t.typcategory::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
"""


class _Row(NamedTuple):
    id: str
    table: str
    columns: tuple[str, ...]
    values: tuple[Any, ...]


class _Unfit(Exception):
    """A record that its table has no place for."""


class PostgresSink(Sink):
    """Inserts one row for each output. The tables are the user's; the sink makes one, ``tidewarp_delivery``, for itself.

    A row has those of these columns that its table has: of a value that is an object, its keys; of any other value, ``value``; and
    ``sim_ts`` (seconds of virtual time), ``timestamp``, ``event_id`` (key of an event), ``path_id`` (path of a
    telemetry value) and ``tw_id`` (id of the output), which win over keys of the same name. Keys without a column are left out and
    counted in ``left_out``; a value of which nothing would be left is refused. A column of type json or jsonb takes
    any value, a text column the JSON of what is no text. A value ``{"__table__": "other", …}`` goes to the table
    ``other`` (or ``schema.other``).

    How "once" is reached: rows and the id of the last output, in ``tidewarp_delivery (domain, sink, last_id)``, are one transaction. It
    begins by locking that row and leaves out what it says is held. So where a connection is lost in the middle of COMMIT, the next
    transaction waits until the server has settled it. A row that the server refuses costs no other: savepoints are halved
    around it.

    Args:
        dsn: ``postgresql://user:password@host:port/database`` or ``host=… dbname=…``.
        table: where outputs go, ``table`` or ``schema.table``.
        name: in the journal, in all counts and in ``tidewarp_delivery``.
    """

    kind = "postgres"
    delivery = "once"
    takes_early = False  # the user's columns need not have a place for retractions

    def __init__(self, dsn: str, table: str = "simulation_data", *, name: str | None = None) -> None:
        self.name = name if name is not None else self.kind
        self.left_out = 0  # keys without a column
        self.nonfinite = 0  # numbers within JSON that became null
        self._dsn, self._table = dsn, table
        self._run = RunIdentity("", 0)
        self._connection: Any = None
        self._columns: dict[str, Mapping[str, tuple[str, str]]] = {}  # table -> column -> name and category of its type

    def counts(self) -> dict[str, int]:
        """Numbers within JSON that became null, and keys without a column."""
        return {"nonfinite": self.nonfinite, "left_out": self.left_out}

    async def open(self, run: RunIdentity) -> str | None:
        """Connect; the id in ``tidewarp_delivery``, after the server has settled what an earlier life left half-way.

        Raises OperatorError if the table is not there.
        """
        self._run = run
        connection = await self._connected()
        with translated(self._target):
            async with within(connection):
                if not await self._columns_of(connection, self._table):
                    action = "create it with the columns that you want, such as tw_id TEXT, value JSONB"
                    raise OperatorError(self._target, "there is no such table", action)
                held = await (await connection.execute(_HELD, self._who)).fetchone()
        return str(held[0])

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """One transaction."""
        if self._connection is None:
            raise OperatorError(f"sink {self.name!r}", "it is closed", "open it first")
        connection = await self._connected()
        refused: list[Refused] = []
        with translated(self._target):
            async with within(connection), connection.transaction():
                held = await (await connection.execute(_HELD, self._who)).fetchone()
                if held is None:
                    raise ConnectionError(f"{self._target}: its row of tidewarp_delivery is gone")
                # What is only checked at COMMIT could not be told from the others there.
                await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                fresh = [output for output in batch if output.id > held[0]]
                rows = [row async for row in self._rows(connection, fresh, refused)]
                for _, some in groupby(rows, key=lambda row: (row.table, row.columns)):
                    await self._insert(connection, [*some], refused)
                if fresh:
                    await connection.execute(_MOVED, (fresh[-1].id, *self._who))
                stage("release.inside")
        stage("release.inside")  # PostgreSQL holds them, nobody knows
        return sorted(refused)

    async def observe(self, rows: Sequence[Observation]) -> None:
        """Insert a row for each into ``table``, with its ``path_id`` and no ``tw_id``."""
        connection = self._connection
        if connection is None or connection.closed:
            raise ConnectionError(f"{self._target}: not connected")
        refused: list[Refused] = []
        with translated(self._target):
            async with within(connection), connection.transaction():
                columns = await self._columns_of(connection, self._table)
                records = [self._record(observation_payload(row, self._run), self._table, columns) for row in rows]
                made = [_Row("", self._table, tuple(record), tuple(record.values())) for record in records]
                for _, some in groupby(made, key=lambda row: row.columns):
                    await self._insert(connection, [*some], refused)
        if refused:
            raise _Unfit(refused[0].reason)

    async def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        self._columns.clear()
        if connection is not None:
            await connection.close()

    # ------------------------------------------------------------------ how it is done
    @property
    def _target(self) -> str:
        return f"postgres sink {self.name!r} table {self._table}"

    @property
    def _who(self) -> tuple[str, str]:
        return self._run.domain, self.name

    async def _connected(self) -> Any:
        """The connection, a new one where it was lost."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        await self.close()
        connection = self._connection = await connected(self._dsn, self._target)
        psycopg = driver(self._target)
        with translated(self._target):
            async with within(connection):
                # Whatever the defaults of the server: durable when acknowledged, and a row that was locked is read as it became.
                if (await (await connection.execute("SHOW synchronous_commit")).fetchone())[0] == "off":
                    await connection.execute("SET synchronous_commit = on")
                await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
                if (await (await connection.execute("SELECT to_regclass('tidewarp_delivery')")).fetchone())[0] is None:
                    try:
                        await connection.execute(_PROGRESS)
                    except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable) as error:
                        raise ConnectionError(f"{self._target}: another sink makes tidewarp_delivery") from error
                await connection.execute(_BEGUN, self._who)
        return connection

    async def _columns_of(self, connection: Any, table: str) -> Mapping[str, tuple[str, str]]:
        """Of a table, empty if there is none; remembered until the connection is closed or a row is refused."""
        if table not in self._columns:
            if len(self._columns) >= _TABLES_MAX:
                self._columns.clear()
            found = await connection.execute(_COLUMNS, (quoted(table),))
            self._columns[table] = {name: (kind, category) for name, kind, category in await found.fetchall()}
        return self._columns[table]

    async def _rows(self, connection: Any, outputs: Sequence[Output], refused: list[Refused]) -> Any:
        for output in outputs:
            payload = {**event_payload(output, self._run), "id": output.id}
            value = payload.get("value")
            table = value.pop(_ROUTE, self._table) if isinstance(value, dict) else self._table
            try:
                if not isinstance(table, str) or not all(table.split(".")) or "\0" in table:
                    raise _Unfit(f"{_ROUTE} {table!r:.80} is no name of a table")
                columns = await self._columns_of(connection, table)
                if not columns:
                    raise _Unfit(f"there is no table {table}; create it")
                record = self._record(payload, table, columns)
            except _Unfit as unfit:
                refused.append(Refused(output.id, str(unfit)))
                self._columns.pop(str(table), None)
                continue
            yield _Row(output.id, table, tuple(record), tuple(record.values()))

    def _record(self, payload: Mapping[str, Any], table: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Column -> value of one output, or of one observation, which has no id."""
        value = payload.get("value")
        whole = {"value": value}
        taken = value if isinstance(value, dict) and not (value and value.keys().isdisjoint(columns)) else whole
        if taken and taken.keys().isdisjoint(columns):
            raise _Unfit(f"table {table} has no column value, and none of the value's keys; add one")
        self.left_out += len(taken.keys() - columns.keys())
        stamped = {
            **taken,
            "sim_ts": payload.get("sim_ts"),
            "timestamp": payload.get("timestamp"),
            "event_id": payload.get("key"),
            "path_id": payload.get("path_id"),
            "tw_id": payload.get("id"),
        }
        return {name: self._fitted(one, *columns[name]) for name, one in stamped.items() if name in columns}

    def _fitted(self, value: Any, type: str, category: str) -> Any:
        """What the driver is given for a column of this type."""
        if type in ("json", "jsonb") and value is not None:
            return self._json(value)
        if value is None or isinstance(value, str | bytes):
            return value
        if category == "S" or isinstance(value, dict) or (isinstance(value, list) and category != "A"):
            return self._json(value)
        return value

    def _json(self, value: Any) -> str:
        self.nonfinite += nonfinite(value)
        return msgspec.json.encode(value).decode()

    async def _insert(self, connection: Any, rows: Sequence[_Row], refused: list[Refused]) -> None:
        """Rows of one table and one set of columns, but for those that the server refuses for good."""
        psycopg = driver(self._target)
        from psycopg import sql

        first = rows[0]
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            identifier(*first.table.split(".")),
            sql.SQL(", ").join(map(identifier, first.columns)),
            sql.SQL(", ").join([sql.Placeholder()] * len(first.columns)),
        )
        try:
            async with connection.transaction(), connection.cursor() as cursor:
                await cursor.executemany(statement, [row.values for row in rows])
        except psycopg.Error as error:
            if error.sqlstate in _ALTERED:
                raise ConnectionError(f"{self._target}: somebody alters table {first.table}: {error}") from error
            if not _is_for_good(error):
                raise
            if len(rows) == 1:
                refused.append(Refused(first.id, " ".join(str(error).split())))
                return
            half = len(rows) // 2
            await self._insert(connection, rows[:half], refused)
            await self._insert(connection, rows[half:], refused)


def _is_for_good(error: Any) -> bool:
    """Would the server refuse this record whenever it is offered?"""
    import psycopg

    if error.sqlstate == _NO_PRIVILEGE:
        return False
    kinds = psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.NotSupportedError
    return isinstance(error, kinds) or str(error.sqlstate).startswith(_LIMIT)
