"""An attacker's hand in a closed journal: flips its bits, one by one or by chance, and says all that a file holds."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FIRST = 1 << 44  # row of record n: FIRST + n


@contextlib.contextmanager
def attacker(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that leaves one file, without a write-ahead log, and waits for no disk."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        for name, value in (("synchronous", "OFF"), ("journal_mode", "DELETE"), ("journal_mode", "MEMORY")):
            db.execute(f"PRAGMA {name} = {value}")
        yield db
    finally:
        db.close()


def flips(value: Any, step: int = 1) -> Iterator[Any]:
    """``value`` with bits flipped one by one: all 64 of an integer, each ``step``-th of a text or of bytes.

    These are also made longer and shorter. A NULL becomes 0.
    """
    if value is None:
        yield 0
    elif isinstance(value, int):
        for bit in range(64):
            flipped = (value & (1 << 64) - 1) ^ 1 << bit
            yield flipped - (1 << 64) if flipped >> 63 else flipped
    else:
        data = value.encode() if isinstance(value, str) else value
        yield from (flipped_at(data, at) for at in range(0, 8 * len(data), step))
        yield data + b"\0"
        yield from [data[:-1]] if data else []


def flipped_at(data: bytes, bit: int) -> bytes:
    """``data`` with one of its bits flipped."""
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def flip_all(db: sqlite3.Connection, table: str, key: str, row_key: object, step: int = 1) -> Iterator[str]:
    """Flip every bit (of texts and bytes each ``step``-th) of one row: each time its column, and then put back."""
    columns = [(name, kind) for _, name, kind, *_ in db.execute(f"PRAGMA table_info({table})")]
    row = db.execute(f"SELECT * FROM {table} WHERE {key} = ?", (row_key,)).fetchone()
    for (column, kind), value in zip(columns, row, strict=True):
        place = "CAST(? AS TEXT)" if kind == "TEXT" else "?"
        for flipped in flips(value, step):
            try:
                db.execute(f"UPDATE {table} SET {column} = {place} WHERE {key} = ?", (flipped, row_key))
            except sqlite3.IntegrityError:  # the number of another row
                continue
            yield column
            # By the changed key, in the form that it was given.
            back = flipped if column == key else row_key
            place_of_key = place if column == key else "?"
            done = db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = {place_of_key}", (value, back))
            assert done.rowcount == 1


def random_flips(whole: bytes, chance: random.Random, count: int) -> Iterator[tuple[int, bytes]]:
    """``count`` times (byte, ``whole`` with a bit of it flipped): three of four in bytes that are not 0."""
    used = [at for at, byte in enumerate(whole) if byte]
    for n in range(count):
        at = chance.choice(used) if n % 4 else chance.randrange(len(whole))
        yield at, flipped_at(whole, 8 * at + chance.randrange(8))


def dump(path: Path, tables: Sequence[str]) -> list[object]:
    """What a journal file says: its identity, and every row of ``tables`` with the types of its values."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        rows: list[object] = [
            db.execute(f"PRAGMA {name}").fetchall() for name in ("application_id", "user_version", "encoding")
        ]
        rows.append(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall())
        for table in tables:
            columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
            shown = ", ".join(f"{one}, typeof({one})" for one in columns)
            rows.append(db.execute(f"SELECT {shown} FROM {table} ORDER BY 1").fetchall())
        return rows
    finally:
        db.close()


def make_former(path: Path) -> None:
    """Make a store that is a journal alone a file of format 1, as release 0.1.0 wrote it."""
    kept = ("domain", "log", "source_cursor", "meta", "log_time")
    with attacker(path) as db:
        made = db.execute("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type").fetchall()
        for kind, name in made:
            if name not in kept:
                db.execute(f"DROP {kind} {name}")
        db.execute("UPDATE meta SET value = x'00000001' WHERE name = 'format'")
        db.execute("PRAGMA user_version = 1")
