"""`tidewarp verify` finds whatever was changed in a journal, and names where. The journal is that of a real run."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from plant import records, write_plant

from tampering import FIRST, attacker, dump, flip_all, random_flips
from tidewarp.cli import main
from tidewarp.codec import (
    RecordHeader,
    genesis,
    pack_document,
    record_hash,
    split_timed_body,
    timed_body,
    unpack_document,
)

pytestmark = pytest.mark.proof("a change anywhere in a journal is found, its place named")
by_the_head = pytest.mark.proof("what is cut off or forged is found by a head kept elsewhere")

NAMED = ("record ", "table ", "tables ", "page")
TABLES = ("domain", "log", "source_cursor", "meta")
ROWS = "time,value\n1,1\n2,x\n3,2\n"  # two inputs and a dead letter
IS_NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
STEP = 1 if IS_NIGHTLY else 7  # bits of a text or of bytes: 7 reaches every byte, and every place in a byte


def chance() -> tuple[int, random.Random]:
    """Other flips each night, the same ones by day; and the seed that repeats them."""
    seed = random.randrange(1 << 32) if IS_NIGHTLY else 2026
    return seed, random.Random(seed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed journal: two inputs, a dead letter, a mark, a cursor. Nobody changes it."""
    folder = tmp_path_factory.mktemp("tamper")
    with contextlib.chdir(folder):
        write_plant(ROWS)
        assert main(["run", "model.py", "--journal", "j.tw"]) == 0
    with attacker(folder / "j.tw"):  # from now on one file
        pass
    return folder / "j.tw"


@pytest.fixture
def journal(made: Path, place: Path) -> Path:
    """A copy to spoil, in the working directory."""
    return Path(shutil.copy(made, "j.tw"))


@pytest.fixture
def db(journal: Path) -> Iterator[sqlite3.Connection]:
    """An attacker's connection to the copy."""
    with attacker(journal) as connection:
        yield connection


def test_the_untouched_journal_is_whole(journal, run):
    """What the other tests spoil has all that can be spoilt; `run` and `verify` say the same head."""
    kinds = {row["kind"] for row in run("log", journal, "--json").done()["records"]}
    assert {"open", "input", "dead", "ended", "mark", "stop", "released"} <= kinds
    verified = run("verify", journal, "--json").done()
    assert (verified["ok"], verified["first_bad"], verified["inputs"], verified["marks"]) == (True, None, 2, 1)
    assert verified["records"] == records(journal)


def test_run_prints_the_head_that_verify_finds(place, run):
    """For people and for programs: the same 64 digits."""
    write_plant()
    shown = run("run", "model.py", "--journal", "j.tw")
    (head,) = [line.split()[1] for line in shown.out.splitlines() if line.startswith("head ")]
    again = run("run", "model.py", "--journal", "j.tw", "--resume", "--json").done()["head"]
    assert again != head
    assert run("verify", "j.tw", "--json").done()["head"] == again
    for kept in (head, again):
        assert run("verify", "j.tw", "--head", kept, "--json").done()["head_seq"] is not None
    text = run("verify", "j.tw", "--head", head)
    assert (text.code, text.err) == (0, "")
    assert "nothing before it is missing" in text.out


@pytest.mark.parametrize("seq", range(1, 9))
def test_every_bit_of_a_record(made, db, run, seq, record_property):
    """Each bit of each column of `log`: the record is named; where its number is gone, the gap or the surplus.

    By day each seventh one; `tests/store/test_store_tamper.py` goes the same way without the command.
    """
    assert records(made) == 8
    tried = Counter()
    for column in flip_all(db, "log", "id", FIRST + seq, STEP):
        line = run("verify", "j.tw").refusal(1)
        if column == "id":
            assert "record " in line or "table log" in line, line
        else:
            assert f"j.tw: record {seq}: " in line, line
        tried[column] += 1
    assert tried.keys() == {"id", "kind", "flags", "hlc", "prev", "body", "body_hash", "hash", "body_state", "time"}
    assert tried["prev"] == tried["hash"] == tried["body_hash"] == 2 + len(range(0, 256, STEP))
    assert min(tried.values()) >= 60 // STEP
    record_property("trials", tried.total())
    run("verify", "j.tw", "--json").done()


@pytest.mark.parametrize(
    ("table", "key", "columns"),
    [
        ("domain", "no", {"no", "id", "status", "size", "head"}),
        ("meta", "name", {"name", "value"}),
        ("source_cursor", "source", {"source", "cursor"}),
    ],
)
def test_every_bit_of_the_other_tables(db, run, table, key, columns, record_property):
    """Identity, size, head, key, cursors: the table is named, or the record that is missing from the size."""
    tried = Counter()
    for (row_key,) in db.execute(f"SELECT {key} FROM {table}").fetchall():
        for column in flip_all(db, table, key, row_key):
            line = run("verify", "j.tw").refusal(1)
            named = table in line or (column == "size" and ("record " in line or "table log" in line))
            assert named, (column, line)
            tried[column] += 1
    assert tried.keys() == columns
    record_property("trials", tried.total())
    run("verify", "j.tw", "--json").done()


def test_random_flips_of_the_raw_file(made, journal, run, record_property):
    """200 bits, three of four in bytes that are used: exit 1 with record, table or page, or it means nothing."""
    expected = dump(made, TABLES)
    seed, draw = chance()
    found = 0
    for n, (at, flipped) in enumerate(random_flips(made.read_bytes(), draw, 200)):
        journal.write_bytes(flipped)
        ended = run("verify", journal)
        if ended.code == 0:
            assert dump(journal, TABLES) == expected, (seed, n, at)
        else:
            line = ended.refusal(1)
            assert any(name in line for name in NAMED), (seed, n, at, line)
            found += 1
        for extra in ("-wal", "-shm"):
            Path(f"{journal}{extra}").unlink(missing_ok=True)
    assert found > 100
    record_property("trials", n + 1)


SWAPS = {
    "whole rows": "id",
    "bodies": "body",
    "hashes": "hash",
    "bodies with their hashes": "body, body_hash",
    "all but the number": "kind, flags, hlc, prev, body, body_hash, hash, body_state, time",
}


@pytest.mark.parametrize("columns", SWAPS.values(), ids=SWAPS)
@pytest.mark.parametrize(("one", "other"), [(1, 2), (3, 4), (2, 7)])
def test_records_that_change_places(db, run, columns, one, other):
    """Two records, or parts of them, in each other's place: the first of the two is named."""
    first, second = FIRST + one, FIRST + other
    if columns == "id":
        for old, new in ((first, 0), (second, first), (0, second)):
            db.execute("UPDATE log SET id = ? WHERE id = ?", (new, old))
    else:
        values = [db.execute(f"SELECT {columns} FROM log WHERE id = ?", (row,)).fetchone() for row in (first, second)]
        places = ", ".join("?" * len(values[0]))
        for row, value in zip((second, first), values, strict=True):
            db.execute(f"UPDATE log SET ({columns}) = ({places}) WHERE id = ?", (*value, row))
    assert f"record {one}: " in run("verify", "j.tw").refusal(1)
    bad = run("verify", "j.tw", "--json")
    assert (bad.code, bad.err, bad.document["ok"], bad.document["first_bad"]["seq"]) == (1, "", False, one)


def cut(db: sqlite3.Connection, size: int) -> None:
    """Take the records behind ``size`` away and let the domain say that there were never more."""
    db.execute("DELETE FROM log WHERE id > ?", (FIRST + size,))
    db.execute("DELETE FROM span WHERE seq > ?", (size,))
    db.execute("UPDATE domain SET size = ?, head = (SELECT hash FROM log WHERE id = ?)", (size, FIRST + size))


@by_the_head
@pytest.mark.parametrize("size", [7, 5, 4, 3])
def test_a_tail_that_was_cut_off_is_found_by_the_head_alone(made, db, run, size):
    """Nothing in the file can tell that there was more; the head that was kept elsewhere does."""
    head = run("verify", made, "--json").done()["head"]
    cut(db, size)
    verified = run("verify", "j.tw", "--json").done()
    assert (verified["records"], verified["head_seq"]) == (size, None)
    line = run("verify", "j.tw", "--head", head).refusal(1)
    assert head in line
    assert "gone or replaced" in line
    assert run("verify", "j.tw", "--head", verified["head"], "--json").done()["head_seq"] == size


@pytest.mark.parametrize("size", [2, 1])
def test_a_cursor_ahead_of_the_records_is_found_without_a_head(db, run, size):
    """Cut behind what the cursor still counts: resuming would lose these inputs, so it is no matter of the head."""
    cut(db, size)
    assert "table source_cursor, source 'data'" in run("verify", "j.tw").refusal(1)


@by_the_head
def test_a_journal_without_records_is_found_by_the_head(made, db, run):
    """All records gone, cursors too, and the domain as on the first day."""
    head = run("verify", made, "--json").done()["head"]
    genesis = db.execute("SELECT prev FROM log WHERE id = ?", (FIRST + 1,)).fetchone()[0]
    for table in ("log", "span", "source_cursor"):
        db.execute(f"DELETE FROM {table}")
    db.execute("UPDATE domain SET size = 0, head = ?", (genesis,))
    assert run("verify", "j.tw", "--json").done()["records"] == 0
    assert "gone or replaced" in run("verify", "j.tw", "--head", head).refusal(1)


KILLED = """
import os, signal
import tidewarp as tw

class Deadly:
    '''Readings, one a second; where there is a file "armed", its process is killed once 20 more are durable.'''
    name, kind = "deadly", "deadly"
    def describe(self): return {"kind": self.kind}
    def paths(self): return ["a.t"]
    def first_event_ns(self): return None
    def decoder(self, epoch_ns): return self
    def decode(self, raw):
        from tidewarp.connect.contract import Update
        return Update(raw.offset * 10**9, (("a.t", raw.offset),))
    async def open(self, positions): self.at = self.end = positions.get(0, 0)
    async def read(self, limit):
        from tidewarp.connect.contract import Raw
        first, self.at = self.at + 1, self.at + limit
        return [Raw(0, n, b"") for n in range(first, self.at + 1)]
    async def confirm(self, positions):
        if positions[0] >= self.end + 20 and os.path.exists("armed"): os.kill(os.getpid(), signal.SIGKILL)
    async def close(self): pass

def build(twin):
    twin.variable("a.t", int)
    twin.connect(Deadly())
"""


@pytest.fixture
def killed(run, child) -> tuple[str, str, int, int]:
    """(head of an orderly first life, head after the second, records of both): the second was killed, its -wal lives."""
    Path("model.py").write_text(KILLED)
    first = run("run", "model.py", "--journal", "live.tw", "--journal-batch", 2, "--until", 10, "--json").done()
    Path("armed").touch()
    dead = child("run", "model.py", "--journal", "live.tw", "--journal-batch", 2, "--resume", "--json")
    assert (dead.code, dead.out) == (-signal.SIGKILL, "")
    assert Path("live.tw-wal").stat().st_size > 10_000
    Path("whole").mkdir()
    copy_journal("live.tw", "whole/j.tw")
    whole = run("verify", "whole/j.tw", "--json").done()
    assert whole["inputs"] >= first["inputs"] + 20
    assert whole["digest"] == first["digest"]  # of the last stop in order
    return first["head"], whole["head"], first["journal_records"], whole["records"]


def copy_journal(source: str, target: str, *, shm: bool = True) -> None:
    for extra in ("", "-wal", "-shm")[: 3 if shm else 2]:
        shutil.copy(source + extra, target + extra)


@by_the_head
def test_a_damaged_wal_is_found_by_the_head_alone(killed, run, record_property):
    """Cut, emptied, removed or spoilt: SQLite ends at the last whole transaction, and only the head kept knows."""
    first_head, head, first_records, records_of_all = killed
    wal = Path("live.tw-wal").read_bytes()
    assert run("verify", "whole/j.tw", "--head", head, "--json").done()["head_seq"] == records_of_all
    spoilt = {
        "removed": None,
        "emptied": b"",
        "half": wal[: len(wal) // 2],
        "last byte": wal[:-1],
        "last frame": wal[: -(4096 + 24)],
        "header zeroed": bytes(32) + wal[32:],
        "first frame zeroed": wal[:32] + bytes(4120) + wal[32 + 4120 :],
        "middle zeroed": wal[: len(wal) // 2] + bytes(4120) + wal[len(wal) // 2 + 4120 :],
    }
    lost = 0
    for n, (name, data) in enumerate(spoilt.items()):
        copy_journal("live.tw", "j.tw", shm=n % 2 == 0)
        Path("j.tw-wal").unlink()
        if data is not None:
            Path("j.tw-wal").write_bytes(data)
        alone = run("verify", "j.tw", "--json").done()
        assert first_records <= alone["records"] < records_of_all, name
        assert "gone or replaced" in run("verify", "j.tw", "--head", head).refusal(1), name
        assert run("verify", "j.tw", "--head", first_head, "--json").done()["head_seq"] == first_records, name
        lost += records_of_all - alone["records"]
        for extra in ("-wal", "-shm"):
            Path(f"j.tw{extra}").unlink(missing_ok=True)
    assert lost > len(spoilt)
    record_property("trials", len(spoilt))


@by_the_head
def test_random_flips_of_a_wal(killed, run, record_property):
    """Whatever bit it is: with the head, `verify` ends with 0 only if every record is still there."""
    _, head, _, records_of_all = killed
    wal = Path("live.tw-wal").read_bytes()
    seed, draw = chance()
    found = 0
    for n, (_, flipped) in enumerate(random_flips(wal, draw, 60)):
        copy_journal("live.tw", "j.tw", shm=n % 2 == 0)
        Path("j.tw-wal").write_bytes(flipped)
        ended = run("verify", "j.tw", "--head", head)
        if ended.code == 0:
            assert run("verify", "j.tw", "--json").done()["records"] == records_of_all, (seed, n)
        else:
            ended.refusal(1)
            found += 1
        for extra in ("-wal", "-shm"):
            Path(f"j.tw{extra}").unlink(missing_ok=True)
    assert found > 30
    record_property("trials", n + 1)


def variants(value: Any) -> Iterator[Any]:
    """``value`` with one of its parts gone or of another kind, for every part."""
    if isinstance(value, dict):
        for key in value:
            yield {name: part for name, part in value.items() if name != key}
            for changed in variants(value[key]):
                yield {**value, key: changed}
        yield {**value, "more": 1}
    elif isinstance(value, list):
        for n, part in enumerate(value):
            yield value[:n] + value[n + 1 :]
            for changed in variants(part):
                yield [*value[:n], changed, *value[n + 1 :]]
    elif isinstance(value, bytes):
        yield from (value[:-1], value + b"\0", value[::-1], bytes(len(value)))
    for other in (None, -1, 2**63 - 1, "x", [], {}):
        if type(other) is not type(value) or (other != value and isinstance(value, int | str)):
            yield other


def make_chain_anew(db: sqlite3.Connection) -> None:
    """All hashes, as who has the program can make them; of how far inputs reach, that nobody said it."""
    db.execute("UPDATE span SET level = 64, last = NULL")
    (domain,) = db.execute("SELECT id FROM domain").fetchone()
    last = genesis(domain)
    for row, kind, flags, hlc, body in db.execute("SELECT id, kind, flags, hlc, body FROM log ORDER BY id").fetchall():
        prev, body_hash = last, sha256(body).digest()
        last = record_hash(RecordHeader(domain, row - FIRST, kind, flags, hlc, prev, len(body), body_hash).to_bytes())
        db.execute("UPDATE log SET prev = ?, body_hash = ?, hash = ? WHERE id = ?", (prev, body_hash, last, row))
    db.execute("UPDATE domain SET head = ?", (last,))


@by_the_head
@pytest.mark.parametrize("seq", range(1, 9))
def test_a_forger_who_makes_the_chain_anew(made, db, run, seq, record_property):
    """What contradicts the other records is named by record; what does not, by the head kept elsewhere."""
    head = run("verify", made, "--json").done()["head"]
    (body,) = db.execute("SELECT body FROM log WHERE id = ?", (FIRST + seq,)).fetchone()
    tick, data = split_timed_body(body)
    document = unpack_document(data)
    found = passed = 0
    for value in variants(document.value):
        forged = timed_body(tick, pack_document(document.schema, document.version, value))
        if forged == body:
            continue
        db.execute("UPDATE log SET body = ? WHERE id = ?", (forged, FIRST + seq))
        make_chain_anew(db)
        ended = run("verify", "j.tw")
        if ended.code:
            line = ended.refusal(1)
            assert "record " in line or "source_cursor" in line, (value, line)
            found += 1
        else:
            assert "gone or replaced" in run("verify", "j.tw", "--head", head).refusal(1), value
            passed += 1
    assert found or document.schema in ("tw.released", "tw.open"), document
    record_property("trials", found + passed)
    db.execute("UPDATE log SET body = ? WHERE id = ?", (body, FIRST + seq))
    make_chain_anew(db)
    assert run("verify", "j.tw", "--head", head, "--json").done()["head"] == head


@pytest.mark.parametrize(
    ("seq", "part", "value"),
    [
        (3, "values", struct.pack(">dd", 1.0, 2.5)),
        (3, "ticks", struct.pack(">qq", 10**9, 2 * 10**9)),
        (6, "inputs", bytes(32)),
    ],
)
def test_a_forged_input_contradicts_the_next_mark(db, run, seq, part, value):
    """The chain of records holds; the chain of inputs that the mark names does not."""
    (body,) = db.execute("SELECT body FROM log WHERE id = ?", (FIRST + seq,)).fetchone()
    tick, data = split_timed_body(body)
    schema, version, document, _ = unpack_document(data)
    assert document[part] != value
    forged = timed_body(tick, pack_document(schema, version, {**document, part: value}))
    db.execute("UPDATE log SET body = ? WHERE id = ?", (forged, FIRST + seq))
    make_chain_anew(db)
    line = run("verify", "j.tw").refusal(1)
    assert "record 6: " in line
    assert "chain of inputs" in line


def test_verify_changes_no_byte(journal, run):
    """Neither of a whole journal nor of a bad one, and it needs no key and no lock."""
    before = journal.read_bytes()
    run("verify", journal, "--json").done()
    assert journal.read_bytes() == before
    spoilt = before[:5000] + b"\xff" + before[5001:]
    journal.write_bytes(spoilt)
    run("verify", journal)
    assert journal.read_bytes() == spoilt
    assert not {"j.tw.key", "j.tw.lock"} & {*os.listdir()}
