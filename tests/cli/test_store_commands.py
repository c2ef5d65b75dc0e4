"""``tidewarp store``: every command as its users call it, with its keys, its exit codes and its error lines."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from plant import NEW, RESUMED, write_plant

import tidewarp
from tampering import make_former
from tidewarp.cli import main
from tidewarp.store import open_store

HELLO = "00011f1d4ea728bc4c10bbc8211c7644aa950b6296c9b3e70d263e4ae6fc83e895e4"  # of the golden vectors
TAGGED = "00010787fcffb75b664053034fa428477b15841d66c21f5ba8f0ef8dbe817411ef71"  # "hello" under tag 7
EMPTY = "00013e7077fd2f66d689e0cee6a7cf5b37bf2dca7c979af356d0a31cbc5c85605c7d"
GOLDEN_SEED = bytes(range(32))
GOLDEN_DOMAIN = "f85c1b613fdead143ee067460a998cc27b380699846afc4f38ce79022e304f9e"
BLOCK = 8 << 20
SOURCE = str(Path(tidewarp.__file__).parents[1])
OLD_JOURNAL = Path(__file__).parents[1] / "golden" / "live-0.1.0.tw.gz"
PLACES = ("A", "A.tw")  # a directory, and one file


@pytest.fixture(params=PLACES)
def store(request, run):
    """The name of an empty store, in both forms."""
    run("store", "init", request.param, "--json").done()
    return request.param


@pytest.fixture
def hello(store):
    """The same with the file ``hello`` in it."""
    Path("hello").write_bytes(b"hello")
    return store


def raw(*argv: object) -> subprocess.CompletedProcess[bytes]:
    """A command whose output is bytes."""
    words = [sys.executable, "-W", "error", "-m", "tidewarp", *map(str, argv)]
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE}
    return subprocess.run(words, env=variables, capture_output=True, timeout=120, check=False)


def got(monkeypatch: pytest.MonkeyPatch, *argv: object) -> tuple[int, bytes]:
    """Exit code and bytes of ``store get`` in this process."""
    with monkeypatch.context() as patch:
        buffer = io.BytesIO()
        patch.setattr(sys, "stdout", io.TextIOWrapper(buffer, write_through=True))
        code = main(["store", "get", *map(str, argv)])
        return code, buffer.getvalue()


def hide(place, text, **options):
    with open_store(place) as opened:
        (ref,) = [one for one in opened.view(scope="all").visible() if one.hex() == text]
        opened.tombstone(ref, **options)


# --- init


@pytest.mark.parametrize("name", PLACES)
def test_init_makes_an_empty_store_with_an_identity(run, name):
    """A directory, or one file; two of them are two domains, and both are named by their public key."""
    made = run("store", "init", name, "--json").done()
    assert {*made} == {"domain", "public_key", "path"}
    assert made["path"] == str(Path(name).resolve())
    key = bytes.fromhex(made["public_key"])
    assert made["domain"] == hashlib.sha256(b"TWDOM1" + key).hexdigest()
    assert run("store", "init", f"other{name}", "--json").done()["domain"] != made["domain"]
    assert run("store", "stat", name, "--json").done()["records"] == 0
    keys = [file for file in Path().rglob("*key*") if file.is_file()]
    assert keys
    assert {file.stat().st_mode & 0o777 for file in keys} == {0o600}


def test_init_takes_a_key_that_is_given(run):
    """The domain follows from the key; another length is no key."""
    Path("seed").write_bytes(GOLDEN_SEED)
    assert run("store", "init", "A", "--key-file", "seed", "--json").done()["domain"] == GOLDEN_DOMAIN
    for seed in (b"", GOLDEN_SEED[:-1], GOLDEN_SEED + b"\n"):
        Path("seed").write_bytes(seed)
        assert "32 bytes" in run("store", "init", "B", "--key-file", "seed", "--json").refusal(2)
        assert not Path("B").exists()
    assert "none" in run("store", "init", "B", "--key-file", "none", "--json").refusal(2)


def test_init_overwrites_nothing(run):
    """A store, a folder with something in it, a file, a path without its folder: exit 2, and all is as before."""
    run("store", "init", "A", "--json").done()
    run("store", "init", "A.tw", "--json").done()
    Path("folder").mkdir()
    Path("folder/note").write_text("mine")
    Path("file.tw").write_text("mine")
    before = {file: file.read_bytes() for file in sorted(Path().rglob("*")) if file.is_file()}
    for place in ("A", "A.tw"):
        assert "store already" in run("store", "init", place, "--json").refusal(2)
    for place in ("folder", "no/such/A", "no/such/A.tw"):
        run("store", "init", place, "--json").refusal(2)
    assert run("store", "init", "file.tw", "--json").code in (1, 2)  # no database at all is damage
    assert {file: file.read_bytes() for file in before} == before
    assert not Path("no").exists()


def test_init_in_an_empty_folder(run):
    """Somebody may have made it already."""
    Path("A").mkdir()
    run("store", "init", "A", "--json").done()
    assert run("store", "stat", "A", "--json").done()["domains"] == 1


# --- put and get


def test_what_is_put_is_got_by_its_reference(hello, run):
    """The reference is that of the published vectors; the second put records nothing."""
    first = run("store", "put", hello, "hello", "--json").done()
    assert first == {"ref": HELLO, "size": 5, "tag": None, "new": True, "seq": 1}
    assert run("store", "put", hello, "hello", "--json").done() == {**first, "new": False, "seq": None}
    assert run("store", "put", hello, "hello", "--tag", "0x7", "--json").done() == {
        "ref": TAGGED,
        "size": 5,
        "tag": 7,
        "new": True,
        "seq": 2,
    }
    assert run("store", "put", hello, "hello").out == HELLO + "\n"
    got = raw("store", "get", hello, HELLO)
    assert (got.returncode, got.stdout, got.stderr) == (0, b"hello", b"")
    assert run("store", "get", hello, HELLO, "-o", "copy", "--json").done() == {"ref": HELLO, "size": 5, "path": "copy"}
    assert Path("copy").read_bytes() == b"hello"
    assert run("store", "get", hello, TAGGED, "-o", "tagged").out == "5 bytes in tagged\n"


def test_standard_input_and_nothing_at_all(hello, run, monkeypatch):
    """``-`` is read to its end; the empty artifact is one like any other."""

    class Standard:
        buffer = io.BytesIO(b"hello")

    monkeypatch.setattr(sys, "stdin", Standard)
    assert run("store", "put", hello, "-", "--json").done()["ref"] == HELLO
    monkeypatch.setattr(sys, "stdin", None)
    run("store", "put", hello, "-", "--json").refusal(2)
    Path("empty").write_bytes(b"")
    assert run("store", "put", hello, "empty", "--json").done()["ref"] == EMPTY
    got = raw("store", "get", hello, EMPTY)
    assert (got.returncode, got.stdout) == (0, b"")


@pytest.mark.parametrize("tag", ["-1", "4294967296", "seven", "", "1.0"])
def test_a_tag_is_a_number_of_32_bits(hello, run, tag):
    """Anything else is refused before a byte is read."""
    run("store", "put", hello, "hello", f"--tag={tag}", "--json").refusal(2)


def test_every_byte_comes_back_as_it_was(hello, run, monkeypatch):
    """All 256 values, line ends among them; larger than a row; larger than a block and no multiple of it."""
    pattern = bytes(range(256))
    for size in (256, 200_000, BLOCK + 12_345):
        data = (pattern * (size // 256 + 1))[:size]
        Path("data").write_bytes(data)
        ref = run("store", "put", hello, "data", "--json").done()["ref"]
        assert raw("store", "get", hello, ref).stdout == data
        for offset, length in ((0, 10), (size - 3, 100), (size // 2, 1_000), (size, 5), (size + 9, 5), (7, 0)):
            words = ("--offset", offset, "--length", length)
            assert got(monkeypatch, hello, ref, *words) == (0, data[offset : offset + length])
        assert got(monkeypatch, hello, ref, "--offset", 5) == (0, data[5:])


def test_a_reference_may_be_shortened(hello, run):
    """To its first 12 digits or more, where one alone begins so."""
    run("store", "put", hello, "hello", "--json").done()
    assert run("store", "get", hello, HELLO[:12]).out == "hello"
    assert run("store", "get", hello, HELLO[:67]).out == "hello"
    assert "12" in run("store", "get", hello, HELLO[:11]).refusal(2)
    assert "begins so" in run("store", "get", hello, "0001" + "0" * 8).refusal(2)


def test_an_ambiguous_beginning_is_refused(run, monkeypatch):
    """The error names what it may mean."""
    run("store", "init", "A", "--json").done()
    with open_store("A") as opened:
        refs = sorted(ref.hex() for ref in opened.put_many([(b"%d" % n, None) for n in range(300)]))
    monkeypatch.setattr("tidewarp.cli.store.references.PREFIX_DIGITS_MIN", 5)
    shared = next(one[:5] for one, other in itertools.pairwise(refs) if one[:5] == other[:5])
    line = run("store", "get", "A", shared).refusal(2)
    assert "begin so" in line
    assert next(ref for ref in refs if ref.startswith(shared)) in line


@pytest.mark.parametrize(
    "text",
    ["../../../etc/passwd", "", "0001", HELLO.upper(), HELLO + "0", "0" * 68, "0x" + HELLO[2:], "é" * 68, "g" * 20],
)
def test_what_is_no_reference_is_refused_before_it_is_looked_up(hello, run, text):
    """Exit 2 and a rule; no path, no other writing of it."""
    run("store", "put", hello, "hello", "--json").done()
    run("store", "get", hello, text).refusal(2)


def test_what_is_not_there_is_said(hello, run):
    """An unknown reference, a store that is none, a file that is missing."""
    assert TAGGED in run("store", "get", hello, TAGGED, "-o", "copy", "--json").refusal(2)
    assert not Path("copy").exists()
    run("store", "get", "nowhere", HELLO).refusal(2)
    run("store", "put", "nowhere", "hello", "--json").refusal(2)
    run("store", "put", hello, "nothing", "--json").refusal(2)
    run("store", "put", hello, ".", "--json").refusal(2)
    assert run("store", "stat", hello, "--json").done()["records"] == 0


def test_what_is_hidden_is_got_on_request(hello, run):
    """A tombstone hides, and drops nothing."""
    run("store", "put", hello, "hello", "--json").done()
    hide(hello, HELLO)
    assert "tombstone" in run("store", "get", hello, HELLO).refusal(2)
    assert "tombstone" in run("store", "get", hello, HELLO[:12]).refusal(2)
    assert run("store", "get", hello, HELLO[:12], "--include-hidden").out == "hello"
    again = run("store", "put", hello, "hello", "--json").done()
    assert (again["new"], again["seq"]) == (True, 3)
    assert run("store", "get", hello, HELLO).out == "hello"


def test_a_file_is_never_overwritten_and_an_object_never_mixed_with_bytes(hello, run):
    """-o names a new file; --json needs one."""
    run("store", "put", hello, "hello", "--json").done()
    Path("mine").write_text("mine")
    run("store", "get", hello, HELLO, "-o", "mine").refusal(2)
    assert Path("mine").read_text() == "mine"
    run("store", "get", hello, HELLO, "-o", "no/such/file").refusal(2)
    assert "error: mine/file: " in run("store", "get", hello, HELLO, "-o", "mine/file").refusal(2)
    assert "-o FILE" in run("store", "get", hello, HELLO, "--json").refusal(2)
    assert "-o FILE" in run("store", "get", hello, HELLO, "-o", "-", "--json").refusal(2)
    assert raw("store", "get", hello, HELLO, "-o", "-").stdout == b"hello"
    assert not Path("-").exists()


def test_a_damaged_artifact_is_found_and_not_delivered(run):
    """Exit 1, and the file that was asked for is not there; putting it again mends it."""
    run("store", "init", "A", "--json").done()
    Path("data").write_bytes(bytes(200_000))
    ref = run("store", "put", "A", "data", "--json").done()["ref"]
    (block,) = [file for file in Path("A/blobs").rglob("*") if file.is_file()]
    block.write_bytes(bytes(199_999) + b"\1")
    run("store", "get", "A", ref, "-o", "copy", "--json").refusal(1)
    assert not Path("copy").exists()
    assert list(Path().glob(".copy*")) == []
    verified = run("store", "verify", "A", "--json")
    assert (verified.code, verified.document["ok"]) == (1, False)
    assert ref in verified.document["first_bad"]["where"]
    assert run("store", "put", "A", "data", "--json").done()["new"] is False
    assert run("store", "get", "A", ref, "-o", "copy", "--json").done()["size"] == 200_000
    run("store", "verify", "A", "--json").done()


@pytest.mark.parametrize("part", [(), ("--offset", 1), ("--offset", BLOCK - 1, "--length", 2)])
def test_nothing_of_a_damaged_artifact_reaches_a_pipe(run, part):
    """Its first block is whole, and yet not a byte of it is given: what went to a pipe cannot be taken back."""
    run("store", "init", "A", "--json").done()
    Path("data").write_bytes(bytes(BLOCK) + b"the end")
    ref = run("store", "put", "A", "data", "--json").done()["ref"]
    assert raw("store", "get", "A", ref, *part).returncode == 0
    (block,) = [file for file in Path("A/blobs").rglob("*") if file.is_file() and file.stat().st_size < BLOCK]
    block.write_bytes(b"the fnd")
    ended = raw("store", "get", "A", ref, *part)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.count(ref.encode()) == 1


def test_the_blocks_of_another_artifact_are_not_delivered_for_its_own(run):
    """Each has the name of a block; the whole has not that of the artifact."""
    run("store", "init", "A.tw", "--inline-max", 4, "--json").done()
    for text in ("hello", "world"):
        Path(text).write_text(text)
        run("store", "put", "A.tw", text, "--json").done()
    db = sqlite3.connect("A.tw", isolation_level=None)
    db.execute("UPDATE extent SET artifact = artifact + 10")
    assert db.execute("UPDATE extent SET artifact = 13 - artifact").rowcount == 2
    db.close()
    run("store", "get", "A.tw", HELLO, "-o", "copy", "--json").refusal(1)
    assert not Path("copy").exists()


def test_a_quota_is_kept(run):
    """By the size, before a byte is written; what is there can be put again."""
    run("store", "init", "A", "--quota", 10, "--json").done()
    Path("hello").write_bytes(b"hello")
    Path("world").write_bytes(b"world!")
    run("store", "put", "A", "hello", "--json").done()
    assert "quota" in run("store", "put", "A", "world", "--json").refusal(1)
    assert run("store", "put", "A", "hello", "--json").done()["new"] is False
    assert run("store", "stat", "A", "--json").done()["quota_bytes"] == 10


@pytest.mark.parametrize("name", ["A", "A.tw"])
def test_a_quota_is_chosen_anew(run, name):
    """As the message of a full store says; of fewer bytes than are there, nothing goes."""
    run("store", "init", name, "--quota", 10, "--json").done()
    Path("hello").write_bytes(b"hello")
    Path("world").write_bytes(b"world!")
    run("store", "put", name, "hello", "--json").done()
    assert "tidewarp store quota DIR BYTES" in run("store", "put", name, "world", "--json").refusal(1)
    assert run("store", "quota", name, "--json").done() == {"quota_bytes": 10}
    assert run("store", "quota", name, 11).out == "quota 11 bytes\n"
    run("store", "put", name, "world", "--json").done()
    assert run("store", "quota", name, 4, "--json").done() == {"quota_bytes": 4}
    assert run("store", "get", name, HELLO).out == "hello"
    Path("more").write_bytes(b"!")
    assert "room for 0" in run("store", "put", name, "more", "--json").refusal(1)
    assert run("store", "quota", name, "--none").out == "quota none\n"
    run("store", "put", name, "more", "--json").done()
    assert run("store", "stat", name, "--json").done()["quota_bytes"] is None
    assert run("store", "verify", name, "--json").done()["ok"]
    assert "leave one of the two out" in run("store", "quota", name, 5, "--none", "--json").refusal(2)


@pytest.mark.parametrize("name", ["notes.txt", "notes.tw"])
def test_a_file_that_is_no_store_is_left_alone(run, name):
    """Whoever opens it to write is refused before a lock is put beside it."""
    Path(name).write_text("what was said on Monday")
    before = sorted(Path().iterdir())
    assert name in run("store", "init", name, "--json").refusal(2)
    assert "this is not a tidewarp journal" in run("store", "quota", name, 5, "--json").refusal(2)
    assert sorted(Path().iterdir()) == before
    assert Path(name).read_text() == "what was said on Monday"


def test_the_bound_of_a_row_is_chosen(run):
    """A larger payload stands in blocks beside the database."""
    run("store", "init", "A", "--inline-max", 4, "--json").done()
    Path("hello").write_bytes(b"hello")
    run("store", "put", "A", "hello", "--json").done()
    assert len([file for file in Path("A/blobs").rglob("*") if file.is_file()]) == 1
    assert run("store", "get", "A", HELLO).out == "hello"


def test_bytes_for_somebody_who_does_not_take_them(run):
    """A reader that has gone (141), a full disk (2), no standard output at all (0): one line at most, no traceback."""
    run("store", "init", "A", "--json").done()
    Path("data").write_bytes(bytes(4 << 20))
    ref = run("store", "put", "A", "data", "--json").done()["ref"]
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE}
    get = f"'{sys.executable}' -W error -m tidewarp store get A {ref}"
    for command, code, said in (
        (f"{get} | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}", 141, ""),
        (f"{get} > /dev/full", 2, "standard output"),
        (f"{get} >&-", 0, ""),
    ):
        ended = subprocess.run(
            ["bash", "-c", command], env=variables, capture_output=True, text=True, timeout=60, check=False
        )
        assert (ended.returncode, ended.stdout) == (code, ""), ended
        assert said in ended.stderr
        assert ended.stderr.count("\n") == bool(said)


# --- stat, digest, log


def test_stat_counts(hello, run):
    """Visible and hidden apart; bytes of payload and of files."""
    run("store", "put", hello, "hello", "--json").done()
    run("store", "put", hello, "hello", "--tag", 7, "--json").done()
    hide(hello, TAGGED)
    counted = run("store", "stat", hello, "--json").done()
    files = sum(file.stat().st_size for file in Path().glob(f"{hello}*") if file.is_file())
    files += sum(file.stat().st_size for file in Path(hello).rglob("*") if file.is_file())
    assert counted == {
        "artifacts": 1,
        "hidden": 1,
        "bytes": 10,
        "withheld": 0,
        "withheld_bytes": 0,
        "file_bytes": files,
        "edges": 0,
        "receipts": 0,
        "records": 3,
        "domains": 1,
        "quota_bytes": None,
        "format": 2,
        "shards": 1,
        "conflicts_open": 0,
        "quarantine_bytes": 0,
    }
    assert "1 visible, 1 hidden" in run("store", "stat", hello).out


def test_the_digest_is_that_of_the_visible_state(hello, run):
    """Internal records are part of the wider scope alone; the order in which things were put is part of neither."""
    empty = run("store", "digest", hello, "--json").done()
    assert {*empty} == {"state_hash", "snapshot_id", "policy_hash", "scope", "domains"}
    assert (empty["scope"], empty["domains"], empty["policy_hash"]) == ("published", {}, "00" * 32)
    run("store", "put", hello, "hello", "--json").done()
    published = run("store", "digest", hello, "--json").done()
    assert published["state_hash"] != empty["state_hash"]
    ((domain, standing),) = published["domains"].items()
    (record,) = run("store", "log", hello, "--json").done()["records"]
    assert standing == {"seq": 1, "head": record["hash"], "status": "live"}
    assert domain == record["domain"]
    Path("secret").write_text("secret")
    run("store", "put", hello, "secret", "--internal", "--json").done()
    inside = run("store", "digest", hello, "--scope", "all", "--json").done()
    assert inside["scope"] == "all"
    assert inside["state_hash"] != run("store", "digest", hello, "--json").done()["state_hash"]
    assert published["state_hash"] in {empty["state_hash"], published["state_hash"]}
    assert run("store", "digest", hello).out.startswith("state hash  ")


def test_the_log_marks_what_has_no_effect(hello, run):
    """A tombstone that acts on others takes the role curate, which nobody has here; one of the own adds takes none."""
    run("store", "put", hello, "hello", "--json").done()
    hide(hello, HELLO, scope="federation")
    hide(hello, HELLO)
    marked = [one["no_effect"] for one in run("store", "log", hello, "--json").done()["records"]]
    assert marked == [None, "without the role curate", None]
    lines = run("store", "log", hello).out.splitlines()
    assert ["no effect: without the role curate" in line for line in lines] == [False, True, False]


def test_counts_at_a_snapshot(hello, run):
    """What came later, or was hidden later, is not counted, or not yet hidden."""
    run("store", "put", hello, "hello", "--json").done()
    run("store", "snapshot", hello, "monday", "--json").done()
    run("store", "put", hello, "hello", "--tag", 7, "--json").done()
    hide(hello, HELLO)
    then = run("store", "stat", hello, "--at", "monday", "--json").done()
    now = run("store", "stat", hello, "--json").done()
    assert (then["artifacts"], then["hidden"], then["records"]) == (1, 0, 1)
    assert (now["artifacts"], now["hidden"]) == (1, 1)
    assert now["records"] > 2
    assert then["file_bytes"] == now["file_bytes"]


def test_the_log_shows_every_record_as_it_is_chained(hello, run):
    """A header's fields, its body in digits, what it names; by domain, number and kind."""
    run("store", "put", hello, "hello", "--json").done()
    run("store", "put", hello, "hello", "--tag", 7, "--internal", "--json").done()
    hide(hello, HELLO)
    shown = run("store", "log", hello, "--json").done()
    records = shown["records"]
    assert (shown["count"], shown["more"]) == (3, False)
    assert [(one["seq"], one["kind"], one["published"], one["ref"]) for one in records] == [
        (1, "artifact", True, HELLO),
        (2, "artifact", False, TAGGED),
        (3, "tombstone", True, HELLO),
    ]
    assert [one["prev"] for one in records[1:]] == [one["hash"] for one in records[:-1]]
    for one in records:
        body = bytes.fromhex(one["body"])
        assert (len(body), hashlib.sha256(body).hexdigest()) == (one["body_size"], one["body_hash"])
        header = b"FR1\1" + bytes.fromhex(one["domain"]) + one["seq"].to_bytes(8, "big")
        header += bytes([{"artifact": 2, "tombstone": 16}[one["kind"]], one["published"]]) + one["hlc"].to_bytes(
            8, "big"
        )
        header += bytes.fromhex(one["prev"]) + len(body).to_bytes(4, "big") + hashlib.sha256(body).digest()
        assert hashlib.sha256(b"\0" + header).hexdigest() == one["hash"]
    domain = records[0]["domain"]
    for options, seqs in (
        (("--after", 1), [2, 3]),
        (("--limit", 2), [1, 2]),
        (("--kind", "tombstone"), [3]),
        (("--kind", "0x02"), [1, 2]),
        (("--domain", domain), [1, 2, 3]),
        (("--domain", domain[:8], "--kind", 2, "--limit", 1), [1]),
        (("--merge",), [1, 2, 3]),
    ):
        found = run("store", "log", hello, *options, "--json").done()
        assert [one["seq"] for one in found["records"]] == seqs, options
        assert found["more"] is ("--limit" in options)
    text = run("store", "log", hello, "--limit", 2).out
    assert "internal" in text
    assert "more" in text
    assert run("store", "log", hello, "--after", 9).out == "no such records\n"
    run("store", "log", hello, "--domain", "ff" * 32, "--json").refusal(2)
    run("store", "log", hello, "--kind", "thing", "--json").refusal(2)
    run("store", "log", hello, "--kind", "256", "--json").refusal(2)


# --- verify


def test_verify_reads_everything(hello, run):
    """And says how much that was."""
    run("store", "put", hello, "hello", "--json").done()
    verified = run("store", "verify", hello, "--json").done()
    executed = dict.fromkeys(["reexecuted", "same", "different", "incomparable", "unavailable", "overruled"], 0)
    assert verified == {
        "ok": True,
        "records": 1,
        "artifacts": 1,
        "receipts": 0,
        **executed,
        "first_unavailable": None,
        "bad": 0,
        "first_bad": None,
    }
    assert run("store", "verify", hello).out == "ok           1 records, 1 artifacts, 0 receipts\n"


def test_verify_names_the_record_that_is_not_what_was_written(run):
    """Exit 1, the number of the record, no traceback; a person reads the same."""
    run("store", "init", "A.tw", "--json").done()
    for text in ("one", "two", "three"):
        Path(text).write_text(text)
        run("store", "put", "A.tw", text, "--json").done()
    db = sqlite3.connect("A.tw")
    (body,) = db.execute("SELECT body FROM log ORDER BY id LIMIT 1 OFFSET 1").fetchone()
    db.execute("UPDATE log SET body = ? WHERE body = ?", (body[:-1] + b"\x09", body))
    db.commit()
    db.close()
    found = run("store", "verify", "A.tw", "--json")
    assert (found.code, found.document["ok"], found.document["first_bad"]["seq"]) == (1, False, 2)
    told = run("store", "verify", "A.tw")
    assert told.code == 1
    assert "record 2" in told.out


def test_verify_says_that_the_name_of_an_artifact_is_damaged(run):
    """One bit of it in its row, published or not: exit 1, what mends it, and then all is well."""
    run("store", "init", "A.tw", "--json").done()
    for options in ([], ["--internal"]):
        Path("more").write_text(f"more {options}")
        ref = run("store", "put", "A.tw", "more", *options, "--json").done()["ref"]
        db = sqlite3.connect("A.tw")
        db.execute(f"UPDATE artifact SET ref = x'{ref[:-1]}{int(ref[-1], 16) ^ 1:x}' WHERE ref = x'{ref}'")
        db.commit()
        db.close()
        ended = run("store", "verify", "A.tw", "--json")
        assert (ended.code, ended.document["bad"]) == (1, 1)
        assert ended.document["first_bad"]["where"] == f"artifact {ref}"
        told = run("store", "verify", "A.tw")
        assert told.code == 1
        assert "tidewarp store fsck DIR --repair" in told.out
        run("store", "fsck", "A.tw", "--repair", "--json").done()
        assert run("store", "verify", "A.tw", "--json").done()["ok"]


# --- a journal of a twin is a store too


def test_the_journal_of_a_twin_is_a_store(place, run):
    """What a run has journaled is counted, hashed and verified like anything else; artifacts go beside it."""
    write_plant()
    run(*NEW).done()
    counted = run("store", "stat", "j.tw", "--json").done()
    assert (counted["artifacts"], counted["domains"]) == (0, 1)
    assert counted["records"] > 1
    kinds = {one["kind"] for one in run("store", "log", "j.tw", "--json").done()["records"]}
    assert "input" in kinds
    before = run("replay", "j.tw", "--json").done()
    for name in ("model.py", "data.csv", "out.jsonl"):
        run("store", "put", "j.tw", name, "--json").done()
    assert run("store", "verify", "j.tw", "--json").done()["artifacts"] == 3
    after = run("replay", "j.tw", "--json").done()
    told = {"wall_s", "speed_x"}
    assert {key: after[key] for key in after.keys() - told} == {key: before[key] for key in before.keys() - told}
    assert after["equal"]
    run("verify", "j.tw", "--json").done()
    assert run(*RESUMED).done()["inputs"] == 5


def test_a_journal_of_an_earlier_release_stays_what_it_is(place, run):
    """It is no store: every command says so, ends with 2, and changes no byte."""
    before = gzip.decompress(OLD_JOURNAL.read_bytes())
    Path("old.tw").write_bytes(before)
    for words in (
        ("store", "stat", "old.tw"),
        ("store", "digest", "old.tw"),
        ("store", "log", "old.tw"),
        ("store", "verify", "old.tw"),
        ("store", "get", "old.tw", HELLO, "-o", "copy"),
        ("peer", "serve", "old.tw", "--port", 0, "--read-only"),
    ):
        line = run(*words, "--json").refusal(2)
        assert line.split(": ")[1].endswith("old.tw"), line  # the file first, and not what was asked of it
        assert "format 1" in line
    assert "store already" in run("store", "init", "old.tw", "--json").refusal(2)
    assert Path("old.tw").read_bytes() == before
    run("verify", "old.tw", "--json").done()


def test_a_journal_of_an_earlier_release_becomes_a_store(place, run):
    """By a copy, in which the run goes on with its digest, and whose receipt others can have; the key has to be there."""
    write_plant()
    begun = run(*NEW).done()
    Path("key").write_bytes(Path("j.tw.key").read_bytes())
    make_former(Path("j.tw"))
    assert "tidewarp store upgrade" in run("store", "put", "j.tw", "model.py", "--json").refusal(2)
    assert "model.py" in run("store", "upgrade", "model.py", "n.tw", "--json").refusal(2)
    before = Path("j.tw").read_bytes()
    Path("j.tw.key").unlink()
    assert "j.tw.key" in run("store", "upgrade", "j.tw", "n.tw", "--json").refusal(2)
    Path("key").rename("j.tw.key")
    made = run("store", "upgrade", "j.tw", "n.tw", "--json").done()
    assert (made["records"], made["head"]) == (begun["journal_records"], begun["head"])
    assert run("store", "upgrade", "j.tw", "folder").out.startswith("store ")
    assert Path("j.tw").read_bytes() == before
    for place in ("n.tw", "folder"):
        run("store", "put", place, "model.py", "--json").done()
        assert run("store", "verify", place, "--json").done()["ok"]
        assert run("verify", place, "--json").done()["digest"] == begun["digest"]
        assert run("replay", place, "--model", "model.py", "--json").done()["equal"]
    assert run("run", "model.py", "--journal", "n.tw", "--resume", "--json").done()["digest"] == begun["digest"]
    assert "store already" in run("store", "upgrade", "n.tw", "m.tw", "--json").refusal(2)


def test_a_store_that_somebody_writes(hello, run):
    """Readers stand beside him; a second writer is told his process."""
    with open_store(hello):
        line = run("store", "put", hello, "hello", "--json").refusal(2)
        assert str(os.getpid()) in line
        run("store", "stat", hello, "--json").done()
        run("store", "verify", hello, "--json").done()
    assert json.loads(run("store", "put", hello, "hello", "--json").out)["new"]


# --- snapshots


def test_a_store_is_read_as_it_was(hello, run):
    """By name or id: the digest, the log and the bytes of then; what came later is not there, what was hidden later is."""
    run("store", "put", hello, "hello", "--json").done()
    before = run("store", "digest", hello, "--json").done()
    (kept,) = run("store", "snapshot", hello, "monday", "--json").done()["snapshots"]
    assert (kept["name"], kept["snapshot_id"], kept["domains"]) == ("monday", before["snapshot_id"], 1)
    hide(hello, HELLO)
    run("store", "put", hello, "hello", "--tag", 7, "--json").done()
    after = run("store", "digest", hello, "--json").done()
    assert after["state_hash"] != before["state_hash"]
    for at in ("monday", kept["snapshot_id"], kept["snapshot_id"][:12]):
        assert run("store", "digest", hello, "--at", at, "--json").done() == before
        assert run("store", "log", hello, "--at", at, "--json").done()["count"] == 1
        assert raw("store", "get", hello, HELLO, "--at", at).stdout == b"hello"
        run("store", "get", hello, TAGGED, "--at", at).refusal(2)
    run("store", "get", hello, HELLO).refusal(2)
    assert run("store", "digest", hello, "--at", after["snapshot_id"], "--json").done() == after, (
        "that of now has an id too"
    )
    assert run("store", "snapshot", hello).out == f"{kept['snapshot_id']} monday\n"
    for at in ("tuesday", "0" * 12, kept["snapshot_id"][:11], ""):
        assert "tidewarp store snapshot DIR" in run("store", "digest", hello, "--at", at, "--json").refusal(2)
    assert run("store", "snapshot", hello, "monday", "--remove", "--json").done() == {"snapshots": []}
    run("store", "snapshot", hello, "monday", "--remove").refusal(2)
    run("store", "snapshot", hello, "--remove").refusal(2)
