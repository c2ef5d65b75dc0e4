"""The tables of a store's database, their identity, and the check of one row.

Format 1, a journal alone:

    domain         no (1: the own one), id, status (0 live), size, head
    log            id = no << 44 | seq, the header's fields, body, hash, body_state, time
    source_cursor  position of each source, in the transaction of what was read from it
    meta           format version (U32), root public key

Format 2, which new files get, has these too:

    meta           also: quota (U64), inline_max (U32), where they were set; shards (a byte for each bound), of several
    shard          id of a record -> number of its shard; empty if there is one
    stub           id of a record whose body is not here (body_state 1 withheld, 2 erased), length of the body
    artifact       no, ref, tag, size, state (0 its bytes are here, 1 not, 2 damaged), bytes of small ones
    extent         the payload of a large one: (artifact, idx) -> block, offset in the payload, length
    block          the blocks themselves, in a store that is one file; else they lie in files named by their hash
    span           (level, tick, seq) -> last tick: the ticks that each INPUT record of the own domain speaks of
    event          (artifact, domain, seq) -> kind, flags: what adds, lifts, hides or erases it
    edge, node     (edge) -> type, slot; (node, edge, role, position): the ends of edges, found from both sides
    receipt        (key, domain, seq) -> receipt, SHA-256 of its outputs
    link           (artifact, source): the bytes of ``source`` name the artifact
    pin            name -> kind (0 artifact, 1 snapshot), reference or SnapshotBytes
    gc_state       name -> how far a collection has come
    orphan         names of blocks that nothing named when a collection looked, on their way out
    tree, tile     Merkle frontier of each domain as it was last written, roots of full tiles
    note           what is known of a domain's signer: root public key, last signed head of what is held
    earlier_note   (domain, size) -> a signed head that the last one leans on
    extension      tables of an upper layer: name, version, statements that made them

Format 2 changes no table of format 1, so that a journal is read and written by the same statements in both. What is
known of a domain beside its size and head has rows of its own, because each commit writes the row of the domain anew.
``time`` repeats the tick at the start of a timed body, for its index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from tidewarp.codec import domain_of, genesis
from tidewarp.errors import OperatorError
from tidewarp.store.connection import bad, pragma
from tidewarp.store.rows import OWN, SEQ_BITS
from tidewarp.store.shards import UNDIVIDED, ShardMap

__all__ = [
    "ABSENT",
    "APPLICATION_ID",
    "DDL_SEPARATOR",
    "DOMAINS_MAX",
    "FORMAT",
    "HERE",
    "JOURNAL_FORMAT",
    "LIVE",
    "NAMING",
    "PAGE_BYTES",
    "QUARANTINED",
    "SHARDS",
    "UNSET",
    "DomainRow",
    "Settings",
    "check_format",
    "check_schema",
    "check_settings",
    "create_tables",
    "find_domain",
    "read_domain",
    "read_domains",
    "read_key",
    "read_settings",
    "write_quota",
]

APPLICATION_ID = 0x5457_4A01  # "TWJ", 1
FORMAT = 2
"""Of new files."""

JOURNAL_FORMAT = 1
"""Of files that are a journal and nothing else. They stay what they are: read, and written on, for ever."""

PAGE_BYTES = 8_192
"""Of the database of a new directory, where payloads are many: seven rows with 1 KiB fill one, and SQLite's own 4,096 leave
a quarter empty. A store in one file, the journal of a twin, keeps those: an empty one has 40 pages, a commit writes five."""

DOMAINS_MAX = 1_001
"""The own domain, and as many as an open store takes in."""

HERE, ABSENT, QUARANTINED = 0, 1, 2
"""States of an artifact: its bytes are in this store; a record alone names it; they are here and damaged, put aside."""

LIVE = 0
"""The one status of a domain so far."""

NAMING = "kind = 18 OR kind BETWEEN 49 AND 80 OR (body_state != 0 AND flags = 1)"
"""Rows of ``log`` that bear on what may be collected, and that no ``event`` tells of: erasures, pointers and other
records that name artifacts, and published records whose bodies are not here."""

SHARDS = "shards"
"""The name in ``meta`` of the shard map's bytes, where there are several shards."""

DDL_SEPARATOR = ";\n"
"""Between the statements of an extension in its row."""

_SETTINGS = {"quota": 8, "inline_max": 4}  # names in meta that need not be there, and the bytes of their numbers

_TABLES = (
    (
        "CREATE TABLE domain (no INTEGER PRIMARY KEY, id BLOB NOT NULL, status INTEGER NOT NULL, size INTEGER NOT NULL,"
        " head BLOB NOT NULL) STRICT"
    ),
    (
        "CREATE TABLE log (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, flags INTEGER NOT NULL, hlc INTEGER NOT NULL,"
        " prev BLOB NOT NULL, body BLOB NOT NULL, body_hash BLOB NOT NULL, hash BLOB NOT NULL,"
        " body_state INTEGER NOT NULL, time INTEGER) STRICT"
    ),
    "CREATE INDEX log_time ON log (time) WHERE kind BETWEEN 32 AND 35",
    "CREATE TABLE source_cursor (source TEXT PRIMARY KEY NOT NULL, cursor BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
)

_STORE_TABLES = (
    "CREATE TABLE stub (id INTEGER PRIMARY KEY, body_len INTEGER NOT NULL) STRICT",
    (
        "CREATE TABLE span (level INTEGER NOT NULL, tick INTEGER NOT NULL, seq INTEGER NOT NULL, last INTEGER,"
        " PRIMARY KEY (level, tick, seq)) STRICT, WITHOUT ROWID"
    ),
    (
        "CREATE TABLE artifact (no INTEGER PRIMARY KEY, ref BLOB NOT NULL UNIQUE, tag INTEGER, size INTEGER,"
        " state INTEGER NOT NULL, bytes BLOB) STRICT"
    ),
    (
        "CREATE TABLE extent (artifact INTEGER NOT NULL, idx INTEGER NOT NULL, block BLOB NOT NULL,"
        " offset INTEGER NOT NULL, length INTEGER NOT NULL, PRIMARY KEY (artifact, idx)) STRICT, WITHOUT ROWID"
    ),
    "CREATE TABLE block (no INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, bytes BLOB NOT NULL) STRICT",
    (
        "CREATE TABLE event (artifact INTEGER NOT NULL, domain INTEGER NOT NULL, seq INTEGER NOT NULL,"
        " kind INTEGER NOT NULL, flags INTEGER NOT NULL, PRIMARY KEY (artifact, domain, seq)) STRICT, WITHOUT ROWID"
    ),
    "CREATE TABLE edge (edge INTEGER PRIMARY KEY, type INTEGER NOT NULL, slot BLOB NOT NULL) STRICT",
    "CREATE INDEX edge_type ON edge (type)",
    (
        "CREATE TABLE node (node INTEGER NOT NULL, edge INTEGER NOT NULL, role INTEGER NOT NULL,"
        " position INTEGER NOT NULL, PRIMARY KEY (node, edge, role, position)) STRICT, WITHOUT ROWID"
    ),
    "CREATE INDEX node_edge ON node (edge, role)",
    (
        "CREATE TABLE receipt (key BLOB NOT NULL, domain INTEGER NOT NULL, seq INTEGER NOT NULL,"
        " receipt INTEGER NOT NULL, outputs_hash BLOB NOT NULL, PRIMARY KEY (key, domain, seq)) STRICT, WITHOUT ROWID"
    ),
    # What a collection of garbage begins with: it reads these, and not the store.
    "CREATE INDEX event_hiding ON event (artifact) WHERE kind IN (16, 18)",
    f"CREATE INDEX log_naming ON log (id) WHERE {NAMING}",
    "CREATE INDEX extent_block ON extent (block)",
    (
        "CREATE TABLE link (artifact INTEGER NOT NULL, source INTEGER NOT NULL, PRIMARY KEY (artifact, source))"
        " STRICT, WITHOUT ROWID"
    ),
    "CREATE TABLE pin (name TEXT PRIMARY KEY NOT NULL, kind INTEGER NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE gc_state (name TEXT PRIMARY KEY NOT NULL, place BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE orphan (block BLOB PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE tree (no INTEGER PRIMARY KEY, frontier BLOB NOT NULL) STRICT",
    (
        "CREATE TABLE tile (no INTEGER NOT NULL, idx INTEGER NOT NULL, root BLOB NOT NULL,"
        " PRIMARY KEY (no, idx)) STRICT, WITHOUT ROWID"
    ),
    "CREATE TABLE shard (id INTEGER PRIMARY KEY, no INTEGER NOT NULL) STRICT",
    "CREATE INDEX shard_no ON shard (no, id)",
    "CREATE TABLE note (no INTEGER PRIMARY KEY, key BLOB NOT NULL, note TEXT) STRICT",
    (
        "CREATE TABLE earlier_note (no INTEGER NOT NULL, size INTEGER NOT NULL, note TEXT NOT NULL,"
        " PRIMARY KEY (no, size)) STRICT, WITHOUT ROWID"
    ),
    (
        "CREATE TABLE extension (name TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, ddl TEXT NOT NULL)"
        " STRICT, WITHOUT ROWID"
    ),
)


class Settings(NamedTuple):
    """What was chosen for a store: bytes that it may hold (None: no bound) and, for ever, that a row may; its shards."""

    quota_bytes: int | None = None
    inline_max: int | None = None
    shard_map: ShardMap = UNDIVIDED


UNSET = Settings()
"""The defaults."""


def check_settings(settings: Settings) -> None:
    """Raise OperatorError unless each number fits the bytes that ``meta`` has for it; called before anything is made."""
    for name, number in _numbers(settings):
        most = (1 << 8 * _SETTINGS[name]) - 1
        if number is not None and not 0 <= number <= most:
            rule = f"a number of bytes from 0 to {most}"
            raise OperatorError(f"{name} {number}"[:80], rule, "give one that a disk can have")


class DomainRow(NamedTuple):
    """A domain of the store: its number, its id (32 bytes), how many records are here, the hash of the last."""

    no: int
    id: bytes
    size: int
    head: bytes


def create_tables(db: sqlite3.Connection, root_public_key: bytes, settings: Settings = UNSET) -> None:
    """Make an empty database a store of this key. All or nothing; raises DATABASE_ERRORS of ``connection``."""
    domain = domain_of(root_public_key)
    db.execute("BEGIN IMMEDIATE")
    for statement in (*_TABLES, *_STORE_TABLES):
        db.execute(statement)
    db.execute("INSERT INTO domain VALUES (?, ?, ?, 0, ?)", (OWN, domain, LIVE, genesis(domain)))
    meta = _meta(root_public_key, FORMAT)
    for name, number in _numbers(settings):
        if number is not None:
            meta[name] = number.to_bytes(_SETTINGS[name], "big")
    if settings.shard_map.count > 1:
        meta[SHARDS] = settings.shard_map.to_bytes()
    db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("COMMIT")


def check_format(db: sqlite3.Connection, path: str) -> int:
    """The format of the file. Raises OperatorError unless it says that it is ours, of a format that is known."""
    if pragma(db, "application_id") != APPLICATION_ID:
        raise OperatorError(path, "this database is not a tidewarp journal", "give the path of a .tw file")
    version: int = pragma(db, "user_version")
    if version not in (JOURNAL_FORMAT, FORMAT):
        raise OperatorError(
            path,
            f"its format is {version}, this release reads {JOURNAL_FORMAT} and {FORMAT}",
            "use the release that wrote it, or a newer one",
        )
    return version


def check_schema(db: sqlite3.Connection, path: str) -> None:
    """Raise Corrupt unless the tables are exactly ours: a trigger or a view of somebody else would run unseen.

    Beside them there may be tables and indices that ``extension`` names, made by the statements that stand there.
    """
    version = pragma(db, "user_version")
    found = _schema_of(db)
    expected = _expected_schema(version)
    if found == expected:
        return
    foreign = found - expected
    if version == JOURNAL_FORMAT or not expected <= found:
        raise bad(path, "table sqlite_master", "its tables are not those of a journal")
    extensions = db.execute("SELECT name, version, ddl FROM extension").fetchall()
    names = tuple(f"{name}_" for name, _, _ in extensions)
    for kind, name, table, _ in foreign:
        if kind not in ("table", "index") or not str(table).startswith(names):
            raise bad(path, "table sqlite_master", f"the {kind} {name!r:.80} is nobody's")
    for name, number, ddl in extensions:
        made = {sql for _, _, table, sql in foreign if sql is not None and str(table).startswith(f"{name}_")}
        if number < 1 or made != set(filter(None, ddl.split(DDL_SEPARATOR))):
            rule = "its version is none, or its statements are not those of its tables in sqlite_master"
            raise bad(path, f"row {name!r:.80} of table extension", rule)


def read_domain(db: sqlite3.Connection, path: str) -> DomainRow:
    """The store's own domain, which belongs to the key in ``meta``. Raises Corrupt, whichever of the domains is wrong."""
    return read_domains(db, path)[0]


def read_domains(db: sqlite3.Connection, path: str) -> list[DomainRow]:
    """All domains by number, the own one first. Raises Corrupt."""
    version = pragma(db, "user_version")
    meta = _read_meta(db, path)
    key = meta["root_public_key"]
    rows = db.execute(f"SELECT no, id, status, size, head FROM domain ORDER BY no LIMIT {DOMAINS_MAX + 1}").fetchall()
    if not rows or rows[0][:3] != (OWN, domain_of(key), LIVE):
        raise bad(path, "tables meta and domain", "the first domain is that of the root public key")
    if len(rows) > (1 if version == JOURNAL_FORMAT else DOMAINS_MAX):
        raise bad(path, "table domain", "it holds more domains than a store of this format has")
    domains = [_domain(path, *row) for row in rows]
    if len({one.id for one in domains}) != len(domains) or domains[-1].no != len(domains):
        raise bad(path, "table domain", "domains have one row each, and are numbered from 1")
    return domains


def find_domain(db: sqlite3.Connection, path: str, domain: bytes) -> DomainRow | None:
    """One of the domains; None if it is not here. Raises Corrupt."""
    rows = db.execute("SELECT no, id, status, size, head FROM domain WHERE id = ? LIMIT 2", (domain,)).fetchall()
    if len(rows) > 1:
        raise bad(path, "table domain", "a domain has two rows")
    return _domain(path, *rows[0]) if rows else None


def read_settings(db: sqlite3.Connection, path: str) -> Settings:
    """What ``meta`` says beside format and key. Raises Corrupt."""
    meta = _read_meta(db, path)
    quota, inline_max = (int.from_bytes(meta[name], "big") if name in meta else None for name in _SETTINGS)
    return Settings(quota, inline_max, ShardMap.from_bytes(meta.get(SHARDS, b"")))


def write_quota(db: sqlite3.Connection, quota_bytes: int | None) -> None:
    """Choose anew how many bytes the store may hold, a number that :func:`check_settings` has passed; None: no bound."""
    db.execute("DELETE FROM meta WHERE name = 'quota'")
    if quota_bytes is not None:
        db.execute("INSERT INTO meta VALUES ('quota', ?)", (quota_bytes.to_bytes(_SETTINGS["quota"], "big"),))


def read_key(db: sqlite3.Connection, path: str) -> bytes:
    """The store's root public key, 32 bytes. Raises Corrupt."""
    return _read_meta(db, path)["root_public_key"]


def _read_meta(db: sqlite3.Connection, path: str) -> dict[str, bytes]:
    version = pragma(db, "user_version")
    meta: dict[str, Any] = dict(db.execute("SELECT name, value FROM meta").fetchall())
    key = meta.get("root_public_key")
    if not isinstance(key, bytes) or len(key) != 32 or not _meta(key, version).items() <= meta.items():
        raise bad(path, "table meta", "it holds the format version and the root public key")
    for name in meta.keys() - _meta(key, version).keys():
        if version == JOURNAL_FORMAT or not _is_setting(name, meta[name]):
            raise bad(path, "table meta", f"{name!r:.40} is no setting of this format, or not of its form")
    return meta


def _is_setting(name: str, value: object) -> bool:
    if name != SHARDS:
        return isinstance(value, bytes) and len(value) == _SETTINGS.get(name)
    return isinstance(value, bytes) and bool(value) and value[0] > 0 and sorted(set(value)) == list(value)


def _numbers(settings: Settings) -> Iterator[tuple[str, int | None]]:
    """The settings that are numbers, by their names in ``meta``."""
    return zip(_SETTINGS, (settings.quota_bytes, settings.inline_max), strict=True)


def _domain(path: str, no: Any, domain: Any, status: Any, size: Any, head: Any) -> DomainRow:
    if not isinstance(domain, bytes) or len(domain) != 32 or status != LIVE or not isinstance(no, int):
        raise bad(path, "table domain", "an id has 32 bytes, a status is 0")
    if not isinstance(size, int) or not 0 <= size < 1 << SEQ_BITS or not isinstance(head, bytes) or len(head) != 32:
        raise bad(path, "table domain", "size or head is out of range")
    if not size and head != genesis(domain):
        raise bad(path, "table domain", "the head of an empty journal is the genesis hash of its domain")
    return DomainRow(no, domain, size, head)


def _meta(root_public_key: bytes, version: int) -> dict[str, bytes]:
    return {"format": version.to_bytes(4, "big"), "root_public_key": root_public_key}


def _schema_of(db: sqlite3.Connection) -> frozenset[tuple[str | None, ...]]:
    return frozenset(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall())


@cache
def _expected_schema(version: int) -> frozenset[tuple[str | None, ...]]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in (*_TABLES, *(() if version == JOURNAL_FORMAT else _STORE_TABLES)):
            db.execute(statement)
        return _schema_of(db)
    finally:
        db.close()
