"""The figures of one store, each beside its reference: small and large puts, gets, the state hash, a collection.

Payloads and the key are made from fixed texts, so what is computed is the same on every machine. Stores, raw databases and
files are new in each round, and lie in the same folder: they wait for the same disk.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from hashlib import sha256, shake_128
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tidewarp.cli.bench.measure import Prepared, best_of
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.references import Reference
from tidewarp.errors import InternalError
from tidewarp.store import Store, open_store

__all__ = ["BATCH", "collect", "hash_state", "new_store", "payloads", "put_large", "put_small"]

Figures = dict[str, Any]

BATCH = 1_000
"""Artifacts that are put in one transaction."""

_SMALL_BYTES, _LARGE_BYTES = 1 << 10, 1 << 20
_PER_LARGE, _PER_SMALL, _PER_CANDIDATE = 2_000, 5, 10  # records to pull for each of these
_BUDGET_S = 0.05


def put_small(folder: Path, seconds: float, n: int) -> Figures:
    """How fast are payloads of 1 KiB put, a thousand in a transaction, and read back in another order?

    The reference is a table of names and payloads in SQLite, with the same transactions, the log and fsync of ours; it is given
    the names that ours computes, and gives back what it holds unseen, where ours hashes it.
    """
    data = payloads("small", max(1, n // _PER_SMALL), _SMALL_BYTES)
    batches = [[(one, None) for one in data[start : start + BATCH]] for start in range(0, len(data), BATCH)]
    refs = sorted(Artifact(one).reference() for one in data)
    named = [[(Artifact(one).reference().to_bytes(), one) for one, _ in batch] for batch in batches]
    with ExitStack() as ours_left, ExitStack() as raw_left:

        def ours() -> Prepared:
            store = new_store(ours_left, folder)

            def work() -> Store:
                for batch in batches:
                    store.put_many(batch)
                return store

            return work

        def raw() -> Prepared:
            db = _raw_database(raw_left, folder)

            def work() -> sqlite3.Connection:
                for batch in named:
                    db.execute("BEGIN IMMEDIATE")
                    db.executemany("INSERT INTO artifact VALUES (?, ?)", batch)
                    db.execute("COMMIT")
                return db

            return work

        best = best_of({"raw": raw, "ours": ours}, seconds)
        store, db = ours()(), raw()()
        read = best_of(
            {"raw": lambda: lambda: _read_raw(db, refs), "ours": lambda: lambda: _read(store, refs)}, seconds
        )
        if read["raw"].result != read["ours"].result:
            raise InternalError("get", "both read the same bytes", "look at what was put")
        digest = store.state_hash()
    return {
        "put_1k_batched_per_s": len(data) / best["ours"].seconds,
        "raw_sqlite_1k_per_s": len(data) / best["raw"].seconds,
        "put_1k_vs_sqlite": best["ours"].faster_than(best["raw"]),
        "get_1k_per_s": len(data) / read["ours"].seconds,
        "raw_sqlite_get_1k_per_s": len(data) / read["raw"].seconds,
        "get_1k_vs_sqlite": read["ours"].faster_than(read["raw"]),
        "digest": digest,
    }


def put_large(folder: Path, seconds: float, n: int) -> Figures:
    """How fast are payloads of 1 MiB put, each durable before the next begins?

    The reference writes each to a file, waits for the disk, and renames it.
    """
    data = payloads("large", max(1, n // _PER_LARGE), _LARGE_BYTES)
    with ExitStack() as ours_left, ExitStack() as files_left:

        def ours() -> Prepared:
            store = new_store(ours_left, folder)

            def work() -> Store:
                for one in data:
                    store.put(one)
                return store

            return work

        def files() -> Prepared:
            place = _new_folder(files_left, folder)

            def work() -> None:
                for number, one in enumerate(data):
                    with (place / "new").open("wb") as stream:
                        stream.write(one)
                        stream.flush()
                        os.fsync(stream.fileno())
                    (place / "new").rename(place / str(number))

            return work

        best = best_of({"files": files, "ours": ours}, seconds)
        store = ours()()
        digest = store.state_hash()
    return {
        "put_1m_per_s": len(data) / best["ours"].seconds,
        "files_fsync_1m_per_s": len(data) / best["files"].seconds,
        "put_1m_vs_files": best["ours"].faster_than(best["files"]),
        "digest": digest,
    }


def hash_state(folder: Path, seconds: float, n: int) -> Figures:
    """How long takes the state hash of ``n`` artifacts, of a view that is up to date, and from the records on?"""
    with ExitStack() as left, ExitStack() as readers:
        place = _new_folder(left, folder)
        store = left.enter_context(open_store(place, create=True, key=sha256(b"bench").digest()))
        data = payloads("row", n, 32)
        for start in range(0, n, BATCH):
            store.put_many((one, None) for one in data[start : start + BATCH])

        def anew() -> Prepared:
            readers.close()
            return readers.enter_context(open_store(place, read_only=True)).state_hash  # it has no view yet

        def again() -> Prepared:
            store.state_hash()
            return store.state_hash

        best = best_of({"anew": anew, "again": again}, seconds)
    return {
        "state_hash_100k_s": best["again"].seconds * 100_000 / n,
        "state_from_records_per_s": n / best["anew"].seconds,
        "digest": best["again"].result,
    }


def collect(folder: Path, seconds: float, n: int) -> Figures:
    """How fast are artifacts collected that a tombstone hides, and by how much does a collection overrun its budget?"""
    data = payloads("candidate", max(1, n // _PER_CANDIDATE), 256)
    with ExitStack() as left:

        def collected() -> Prepared:
            store = new_store(left, folder)
            refs = store.put_many((one, None) for one in data)
            with store.transaction():
                for ref in refs:
                    store.tombstone(ref)

            def work() -> tuple[int, float]:
                artifacts, overrun_s = 0, 0.0
                while True:
                    report = store.gc(_BUDGET_S)
                    artifacts += report.freed_artifacts
                    overrun_s = max(overrun_s, report.seconds - _BUDGET_S)
                    if report.complete:
                        return artifacts, overrun_s

            return work

        best = best_of({"ours": collected}, seconds)
    artifacts, overrun_s = best["ours"].result
    if artifacts != len(data):
        raise InternalError("gc", f"all {len(data)} are collected, and it were {artifacts}", "look at what keeps them")
    return {
        "gc_artifacts_per_s": artifacts / best["ours"].seconds,
        "gc_overrun_ms": 1e3 * overrun_s,
        "digest": artifacts.to_bytes(8, "big"),
    }


def payloads(name: str, number: int, size: int) -> list[bytes]:
    """So many payloads of ``size`` bytes, none of which can be compressed, the same on every machine."""
    return [shake_128(f"{name}/{one}".encode()).digest(size) for one in range(number)]


def new_store(left: ExitStack, folder: Path, name: str = "bench") -> Store:
    """An empty store in a folder of its own, with the key that ``name`` makes; what ``left`` held before is removed."""
    place = _new_folder(left, folder)
    return left.enter_context(open_store(place, create=True, key=sha256(name.encode()).digest()))


def _new_folder(left: ExitStack, folder: Path) -> Path:
    left.close()
    return Path(left.enter_context(TemporaryDirectory(dir=folder)))


def _raw_database(left: ExitStack, folder: Path) -> sqlite3.Connection:
    db = sqlite3.connect(_new_folder(left, folder) / "raw.db", isolation_level=None)
    left.enter_context(closing(db))
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE artifact (name BLOB PRIMARY KEY, bytes BLOB NOT NULL)")
    return db


def _read(store: Store, refs: Sequence[Reference]) -> int:
    return sum(len(store.get(ref)) for ref in refs)


def _read_raw(db: sqlite3.Connection, refs: Sequence[Reference]) -> int:
    statement = "SELECT bytes FROM artifact WHERE name = ?"
    return sum(len(db.execute(statement, (ref.to_bytes(),)).fetchone()[0]) for ref in refs)
