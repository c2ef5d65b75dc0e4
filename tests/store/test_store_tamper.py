"""Whatever is changed in a closed journal is found, and named."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tampering import FIRST, attacker, dump, flip_all, random_flips
from tidewarp.codec import CHECKPOINT, DIGEST, INPUT, PUBLISHED, record_hash, timed_body
from tidewarp.errors import Corrupt
from tidewarp.store import Entry, check_file, open_store

pytestmark = pytest.mark.proof("a change anywhere in a journal is found, its place named")

RECORDS = 5
TABLES = ("domain", "log", "meta")  # cursors are told apart
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short records, three of them timed, and two cursors. Closed; nobody changes it. The same bytes each time."""
    path = tmp_path_factory.mktemp("tamper") / "j.tw"
    Path(f"{path}.key").write_bytes(bytes(range(32)))  # or a seeded flip would hit another place in each run
    with open_store(path, create=True) as store:
        store.journal.append([Entry(INPUT, timed_body(5, b"a")), Entry(0x80, b""), Entry(DIGEST, timed_body(-1, b"b"))])
        store.journal.append(
            [Entry(CHECKPOINT, timed_body(7, b"c"), PUBLISHED), Entry(0x02, b"d")], cursors={"s": b"1", "t": b"2"}
        )
    return path


@pytest.fixture
def copy(journal: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(journal, tmp_path / "c.tw"))


def execute(path: Path, *statements: str) -> None:
    with attacker(path) as db:
        for statement in statements:
            db.execute(statement)


def cursor_bytes(path: Path) -> list[bytes]:
    """Names and values of the cursors, in order."""
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        rows = db.execute("SELECT CAST(source AS BLOB), cursor FROM source_cursor ORDER BY source").fetchall()
        return [part for row in rows for part in row]
    finally:
        db.close()


def bits_apart(one: list[bytes], other: list[bytes]) -> int | None:
    """In how many bits two lists of parts differ; None where their shapes do."""
    if [len(part) for part in one] != [len(part) for part in other]:
        return None
    return sum((x ^ y).bit_count() for x, y in zip(b"".join(one), b"".join(other), strict=True))


# Every bit, through the command, is the affair of tests/cli/test_tamper.py; 7 bits apart reaches every byte, and
# every place in a byte.
STEP = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 7


def test_an_untouched_file_is_whole(journal: Path) -> None:
    with open_store(journal, read_only=True) as store:
        assert check_file(journal) == (RECORDS, store.journal.head, store.journal.domain)


def checked_flips(path: Path, table: str, key: str, where: str = "1") -> Iterator[tuple[str, Corrupt | None]]:
    """Flip, check, put back: (column, what was raised)."""
    with attacker(path) as db:
        for (row_key,) in db.execute(f"SELECT {key} FROM {table} WHERE {where} ORDER BY {key}").fetchall():
            for column in flip_all(db, table, key, row_key, STEP):
                raised = None
                try:
                    check_file(path)
                except Corrupt as error:
                    raised = error
                yield column, raised


@pytest.mark.parametrize("seq", range(1, RECORDS + 1))
def test_every_bit_of_a_record_is_covered(copy: Path, seq: int, record_property: Record) -> None:
    """Each bit of each column, flipped: found, with the record (or, where its number is gone, the gap) named."""
    tried: Counter[str] = Counter()
    for column, raised in checked_flips(copy, "log", "id", f"id = {FIRST + seq}"):
        assert raised is not None, column
        if column != "id":
            assert raised.seq == seq, (column, str(raised))
            assert f"record {seq}" in str(raised)
        else:
            assert raised.seq is not None
            assert raised.seq <= seq
        tried[column] += 1
    assert tried.keys() == {"id", "kind", "flags", "hlc", "prev", "body", "body_hash", "hash", "body_state", "time"}
    assert tried.total() > 3 * 256 // STEP + 4 * 64
    record_property("trials", tried.total())
    assert check_file(copy).records == RECORDS


@pytest.mark.parametrize(("table", "key"), [("domain", "no"), ("meta", "name")])
def test_every_bit_of_the_identity_is_covered(copy: Path, table: str, key: str, record_property: Record) -> None:
    """Number, id, status, size and head of the domain; names and values of meta. The table is named."""
    tried: Counter[str] = Counter()
    for column, raised in checked_flips(copy, table, key):
        assert raised is not None, column
        assert table in str(raised) or raised.seq is not None or "beyond the size" in str(raised)
        tried[column] += 1
    assert tried.keys() == ({"no", "id", "status", "size", "head"} if table == "domain" else {"name", "value"})
    record_property("trials", tried.total())
    assert check_file(copy).records == RECORDS


def test_a_cursor_that_cannot_be_read_is_found(copy: Path) -> None:
    """Its meaning is the business of others; its text and type are not. ``cursors()`` says the same."""
    execute(copy, "UPDATE source_cursor SET source = CAST(x'ff' AS TEXT) WHERE source = 's'")
    with pytest.raises(Corrupt, match="source_cursor"):
        check_file(copy)
    with open_store(copy, read_only=True) as store, pytest.raises(Corrupt, match="source_cursor"):
        store.journal.cursors()


@pytest.mark.parametrize(
    "statements",
    [
        ["PRAGMA application_id = 1"],
        ["PRAGMA user_version = 3"],
        ["PRAGMA user_version = 1"],
        ["CREATE TABLE other (a)"],
        ["CREATE INDEX other ON log (kind)"],
        ["DROP INDEX log_time"],
        ["DELETE FROM meta WHERE name = 'format'"],
        ["INSERT INTO meta VALUES ('more', x'00')"],
        ["DELETE FROM domain"],
        ["INSERT INTO domain VALUES (2, x'00', 0, 0, x'00')"],
        ["DELETE FROM log"],
        ["DELETE FROM log WHERE id = (1 << 44) + 1"],
        ["DELETE FROM log WHERE id = (1 << 44) + 3"],
        ["DELETE FROM log WHERE id = (1 << 44) + 5"],
        [
            "INSERT INTO log SELECT (1 << 44) + 6, kind, flags, hlc, prev, body, body_hash, hash, body_state, time FROM log WHERE id = (1 << 44) + 5"
        ],
        [
            "INSERT INTO log SELECT 1, kind, flags, hlc, prev, body, body_hash, hash, body_state, time FROM log WHERE id = (1 << 44) + 5"
        ],
        [
            "INSERT INTO log SELECT (2 << 44) + 1, kind, flags, hlc, prev, body, body_hash, hash, body_state, time FROM log WHERE id = (1 << 44) + 5"
        ],
        # two whole records change places
        [
            "UPDATE log SET id = 0 WHERE id = (1 << 44) + 2",
            "UPDATE log SET id = (1 << 44) + 2 WHERE id = (1 << 44) + 3",
            "UPDATE log SET id = (1 << 44) + 3 WHERE id = 0",
        ],
    ],
)
def test_rows_more_less_or_elsewhere(copy: Path, statements: list[str]) -> None:
    execute(copy, *statements)
    with pytest.raises(Corrupt):
        check_file(copy)


def test_a_journal_under_another_key_is_another(copy: Path) -> None:
    """The records of one domain cannot be shown as those of another: key, domain and first hash hang together."""
    execute(copy, "UPDATE meta SET value = zeroblob(32) WHERE name = 'root_public_key'")
    with pytest.raises(Corrupt, match="meta and domain"):
        check_file(copy)


def test_a_record_rewritten_with_its_right_hash_breaks_the_next(copy: Path) -> None:
    """Whoever changes a body, and its hashes, leaves a record that the next one does not name."""
    with open_store(copy, read_only=True) as store:
        (old,) = store.journal.read(after=1, limit=1)
    body = b"forged"
    header = old.header._replace(body_len=len(body), body_hash=hashlib.sha256(body).digest())
    values = (body, header.body_hash, record_hash(header.to_bytes()))
    with attacker(copy) as db:
        db.execute("UPDATE log SET body = ?, body_hash = ?, hash = ? WHERE id = (1 << 44) + 2", values)
    with pytest.raises(Corrupt, match="record 3: it does not follow") as caught:
        check_file(copy)
    assert caught.value.seq == 3
    with open_store(copy, read_only=True) as store:
        with pytest.raises(Corrupt, match="record 3: it does not follow"):
            list(store.journal.read())
        with pytest.raises(Corrupt, match="record 3: it does not follow"):
            list(store.journal.read(after=2))


def test_a_cut_tail_is_a_shorter_journal_with_another_head(journal: Path, copy: Path) -> None:
    """What the file cannot know: that there was more. The head tells whoever has seen it."""
    whole = check_file(journal)
    execute(
        copy,
        "DELETE FROM log WHERE id > (1 << 44) + 3",
        "UPDATE domain SET size = 3, head = (SELECT hash FROM log WHERE id = (1 << 44) + 3)",
    )
    cut = check_file(copy)
    assert (cut.records, cut.domain) == (3, whole.domain)
    assert cut.head != whole.head


def test_reading_finds_what_the_check_finds(copy: Path) -> None:
    """read() gives the records before the bad one, then raises with its number; also where a filter leaves its body out."""
    execute(copy, "UPDATE log SET hlc = 1 WHERE id = (1 << 44) + 3")
    with open_store(copy, read_only=True) as store:
        for kinds, before in ((None, [1, 2]), ({0x80, 0x02}, [2]), (set(), [])):
            begun = store.journal.read(kinds=kinds)
            assert [next(begun).seq for _ in before] == before
            with pytest.raises(Corrupt, match="record 3") as caught:
                next(begun)
            assert caught.value.seq == 3
        with pytest.raises(Corrupt, match="record 3"):
            list(store.journal.read(after=3))
        assert [one.seq for one in store.journal.read(after=4)] == [5]


@pytest.mark.parametrize(
    ("after", "statement", "seq"),
    [
        (0, "DELETE FROM log WHERE id = (1 << 44) + 3", 3),
        (3, "DELETE FROM log WHERE id = (1 << 44) + 3", 3),
        (0, "DELETE FROM log WHERE id = (1 << 44) + 5", 5),
        (0, "UPDATE domain SET head = zeroblob(32)", 5),
        (0, "UPDATE log SET body = x'65' WHERE id = (1 << 44) + 5", 5),
        (0, "UPDATE log SET time = 6 WHERE id = (1 << 44) + 1", 1),
    ],
)
def test_reading_notices_gaps_heads_bodies_and_times(copy: Path, after: int, statement: str, seq: int) -> None:
    execute(copy, statement)
    with open_store(copy, read_only=True) as store, pytest.raises(Corrupt) as caught:
        list(store.journal.read(after=after))
    assert caught.value.seq == seq


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_bit_of_the_file_is_found_or_means_nothing(
    journal: Path, tmp_path: Path, part: int, record_property: Record
) -> None:
    """200 bits, seeded, most of them of bytes in use: Corrupt and the place named, or every row is what it was.

    The one exception is the bit of a cursor itself, which nothing in the file repeats: see the test below.
    """
    expected, cursors = dump(journal, TABLES), cursor_bytes(journal)
    found = 0
    path = tmp_path / "f.tw"
    for n, (at, flipped) in enumerate(random_flips(journal.read_bytes(), random.Random(part), 50), 1):
        path.write_bytes(flipped)
        try:
            check_file(path)
        except Corrupt as error:
            found += any(word in error.value.removeprefix(str(path)) for word in ("record", "page", "table"))
            continue
        assert dump(path, TABLES) == expected, (n, at)
        assert bits_apart(cursor_bytes(path), cursors) in (0, 1), (n, at)
    assert found > 20
    record_property("trials", n)


def test_a_changed_cursor_is_left_to_the_layer_that_knows_its_records(copy: Path) -> None:
    """The limit of this check: a readable cursor with another value passes, and ``cursors()`` hands it out."""
    execute(copy, "UPDATE source_cursor SET cursor = x'b1' WHERE source = 's'")
    assert check_file(copy).records == RECORDS
    with open_store(copy, read_only=True) as store:
        assert store.journal.cursors() == {"s": b"\xb1", "t": b"2"}


def test_a_cut_or_overwritten_file_is_corrupt(journal: Path, tmp_path: Path) -> None:
    whole = journal.read_bytes()
    path = tmp_path / "f.tw"
    for data in (b"", whole[:50], whole[:4096], whole[: len(whole) // 2], b"\0" * len(whole), whole[4096:]):
        path.write_bytes(data)
        with pytest.raises(Corrupt, match=r"page|table|record"):
            check_file(path)


def test_each_page_may_be_lost(journal: Path, tmp_path: Path) -> None:
    """A page that reads as zeros, as after a lost write: found."""
    whole = journal.read_bytes()
    path = tmp_path / "f.tw"
    for at in range(0, len(whole), 4096):
        path.write_bytes(whole[:at] + bytes(4096) + whole[at + 4096 :])
        with pytest.raises(Corrupt):
            check_file(path)
