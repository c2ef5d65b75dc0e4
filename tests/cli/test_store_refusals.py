"""``tidewarp store`` and ``tidewarp program`` where they cannot do what was asked: the line names what is wrong, and what helps."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from tidewarp.errors import StoreFull
from tidewarp.store import open_store, opening
from tidewarp.store.blocks import BLOCK_BYTES

pytestmark = pytest.mark.proof("senseless options are refused before anything is begun")

HUGE = "9" * 41
HASH = {"inputs": ["x"], "nodes": {"h": {"op": "pel.bytes.concat/1", "in": ["x", "x"]}}, "outputs": ["h"]}


@pytest.fixture
def store(run):
    """The name of an empty store."""
    run("store", "init", "A", "--json").done()
    return "A"


def put(run, data: bytes) -> str:
    """The reference of ``data`` in the store A."""
    Path("data").write_bytes(data)
    ref: str = run("store", "put", "A", "data", "--json").done()["ref"]
    return ref


def tree() -> list[str]:
    """Everything that is in the working directory."""
    return sorted(map(str, Path().rglob("*")))


# --- numbers


def test_a_number_that_nothing_can_have(store, run):
    """It is the user's, not ours: exit 2."""
    ref = put(run, b"hello")
    for words in (
        ("log", store, "--limit", HUGE),
        ("log", store, "--after", HUGE),
        ("get", store, ref, "-o", "out", "--offset", HUGE),
        ("get", store, ref, "-o", "out", "--length", HUGE),
    ):
        assert HUGE in run("store", *words, "--json").refusal(2)
    largest = (1 << 63) - 1
    assert run("store", "log", store, "--limit", largest, "--json").done()["count"] == 1
    assert run("store", "log", store, "--after", largest, "--json").done()["count"] == 0
    run("store", "get", store, ref, "--offset", largest, "--length", largest, "-o", "out", "--json").done()
    assert Path("out").read_bytes() == b""


@pytest.mark.parametrize("name", ["new", "new.tw"])
def test_a_quota_that_no_disk_has_leaves_nothing_behind(run, name):
    """No folder, no key, no lock: by the command and by the library."""
    Path("empty").mkdir()
    before = tree()
    assert HUGE in run("store", "init", name, "--quota", HUGE, "--json").refusal(2)
    for numbers in ({"quota_bytes": 1 << 64}, {"quota_bytes": -1}, {"inline_max": 1 << 32}):
        for place in ("empty", "new.tw", ":memory:"):
            with pytest.raises(Exception, match="a number of bytes from 0 to") as caught:
                open_store(place, create=True, **numbers)
            assert caught.type.__name__ == "OperatorError"
    assert tree() == before


# --- files that are no files


def test_what_cannot_be_put(store, run):
    """A directory, a device, a file that cannot be read where it begins: each with what is to be done."""
    assert "it is a directory" in run("store", "put", store, ".", "--json").refusal(2)
    assert "standard input, whose name is -" in run("store", "put", store, "/dev/null", "--json").refusal(2)
    if Path("/proc/self/mem").exists():
        assert "/proc/self/mem: cannot be read" in run("store", "put", store, "/proc/self/mem", "--json").refusal(2)
    assert run("store", "stat", store, "--json").done()["records"] == 0


def test_nobody_waits_for_a_pipe(store, run):
    """As a bundle, and in the place of a block; the block is written anew by the same bytes."""
    os.mkfifo("pipe")
    assert "pipe: it is no regular file" in run("store", "verify", "--bundle", "pipe", "--json").refusal(2)
    assert "Is a directory" in run("store", "verify", "--bundle", ".", "--json").refusal(2)
    ref = put(run, b"\1" * (BLOCK_BYTES + 1))
    first = max(
        (file for file in Path(store, "blobs").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
    )
    first.unlink()
    os.mkfifo(first)
    assert "it is no regular file" in run("store", "get", store, ref, "-o", "out", "--json").refusal(1)
    checked = run("store", "fsck", store, "--json")
    assert (checked.code, [one["kind"] for one in checked.document["problems"]]) == (1, ["block"])
    assert run("store", "verify", store, "--json").code == 1
    assert put(run, b"\1" * (BLOCK_BYTES + 1)) == ref
    assert run("store", "fsck", store, "--json").done()["clean"]
    key = Path(store, "keys", "root.key")
    key.unlink()
    os.mkfifo(key)
    assert "it is no regular file" in run("store", "put", store, "data", "--json").refusal(2)


def test_nobody_waits_for_a_pipe_where_a_text_is_read(store, run):
    """A program, a constant of it, a policy, peers.toml, a certificate, a key."""
    os.mkfifo("pipe", 0o600)
    node = {"op": "pel.bytes.const/1", "params": {"file": "pipe"}}
    Path("constant.json").write_text(json.dumps({"inputs": [], "nodes": {"c": node}, "outputs": ["c"]}))
    words = [
        ("program", "build", "pipe", "--store", store),
        ("program", "build", "constant.json", "--store", store),
        ("peer", "policy", store, "--use", "pipe"),
        ("peer", "serve", store, "--port", 0, "--tls", "pipe"),
        ("store", "init", "new", "--key-file", "pipe"),
    ]
    for one in words:
        assert "pipe: " in run(*one, "--json").refusal(2)
    os.mkfifo(Path(store, "peers.toml"))
    assert "it is no regular file" in run("peer", "status", store, "--json").refusal(2)


def test_an_error_in_what_is_known_of_peers_names_file_and_peer(store, run):
    """There may be hundreds in it."""
    file = Path(store, "peers.toml")
    for text, said in (("[peers.a]\nkey = 5", "peer 'a': domain None"), ("[quotas]\nx = 1", "quota of domain 'x'")):
        file.write_text(text)
        assert f"{file}: {said}" in run("peer", "status", store, "--json").refusal(2)


@pytest.mark.parametrize("command", ["pull", "push", "plan"])
def test_an_address_that_no_host_has(store, run, command):
    """It is the user's: nothing internal is told, and no port is taken that was not named."""
    for url in ("http://" + "a" * 300 + ":1", "http://exa mple:1", "http://h:0", "http://h:1#f", "http://h:1\n"):
        assert "the address of a peer is" in run("peer", command, store, url, "--json").refusal(2)
    assert "--tls goes with https" in run("peer", command, store, "http://h:1", "--tls", "x", "--json").refusal(2)


@pytest.mark.parametrize("option", ["--every", "--grace"])
def test_seconds_that_no_worker_waits(store, run, option):
    """No number, one that never ends, one before now."""
    for text in ("inf", "1e308", "nan", "-1"):
        run("program", "work", "--store", store, "--once", option, text, "--json").refusal(2)


def test_a_disk_that_is_full_when_a_new_store_is_closed(run, monkeypatch):
    """The store is there: its domain and key are told, and it goes on as soon as there is room."""
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode, full.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"

    def refuse(self):
        leave(self)
        raise full

    leave = opening.OpenedStore._leave
    with monkeypatch.context() as disk:
        disk.setattr(opening.OpenedStore, "_leave", refuse)
        line = run("store", "init", "F.tw", "--json").refusal(1)
    assert "the store is made" in line
    assert "nothing of this was written" not in line
    with open_store("F.tw", read_only=True) as made:
        (own,) = made.domains()
        assert own.id.hex() in line
        assert own.key.hex() in line


@pytest.mark.parametrize("name", ["F.tw", "F"])
def test_a_disk_that_is_full_before_there_is_a_new_store(run, monkeypatch, name):
    """What was begun is left, and the same command goes on with it."""

    def refuse(*_):
        raise StoreFull("F: opening it", "database or disk is full", "make room; nothing of this was written")

    with monkeypatch.context() as disk:
        disk.setattr(opening, "create_tables", refuse)
        assert "the same command again" in run("store", "init", name, "--json").refusal(1)
    assert tree()
    run("store", "init", name, "--json").done()


def test_a_name_of_a_snapshot_is_one_line(store, run):
    """Refused before it is kept; one that is kept already is escaped, and can be removed."""
    for name in ("", "a" * 1_025, "a\nb", "\a", "\u202e"):
        assert "a snapshot's name has" in run("store", "snapshot", store, name, "--json").refusal(2)
    with open_store(store) as opened:
        opened.pin("a\nb", opened.snapshot())
    assert run("store", "snapshot", store).out.endswith(" a\\nb\n")
    assert "snapshot DIR lists them" in run("store", "snapshot", store, "nope", "--remove", "--json").refusal(2)
    run("store", "snapshot", store, "a\nb", "--remove", "--json").done()


# --- next actions


def test_a_store_that_is_not_there(run):
    """The next thing to do makes one."""
    for command in ("stat", "log", "digest", "fsck", "verify"):
        assert "nosuch: there is no such journal or store" in run("store", command, "nosuch", "--json").refusal(2)
    assert "tidewarp store init" in run("store", "stat", "nosuch").refusal(2)


def test_init_says_that_something_else_stands_there(run):
    """A text, a pipe, a database of somebody else: as it was, and nothing beside it.

    An empty F.tw may become a store, and so may what a creation that was cut short has left.
    """
    Path("text").write_text("mine")
    Path("letters.tw").write_text("mine" * 100)
    os.mkfifo("pipe")
    other = sqlite3.connect("other.db")
    other.execute("CREATE TABLE t (a)")
    other.close()
    sqlite3.connect("blank.db").execute("PRAGMA user_version = 0").connection.close()
    before = tree()
    Path("empty").touch()
    before = tree()
    for name in ("text", "letters.tw", "pipe", "other.db", "empty"):
        assert f"{name}: something else stands here" in run("store", "init", name, "--json").refusal(2)
    assert tree() == before
    Path("empty.tw").touch()
    run("store", "init", "empty.tw", "--json").done()
    Path("blank.db.key").write_bytes(bytes(32))
    run("store", "init", "blank.db", "--json").done()


def test_only_a_receipt_is_exported(store, run):
    """Of a program, and of a plain artifact, it is said what they are."""
    plain = put(run, b"hello")
    Path("p.json").write_text(json.dumps(HASH))
    program = run("program", "build", "--store", store, "p.json", "--json").done()["program_ref"]
    for form in ("bundle", "dsse", "prov"):
        words = ("--format", form, "-o", "out", "--json")
        line = run("program", "export", "--store", store, program, *words).refusal(2)
        assert "this is a program, no receipt; tidewarp program run makes a receipt" in line
        assert "without a tag, no receipt" in run("program", "export", "--store", store, plain, *words).refusal(2)
    assert not Path("out").exists()


def test_a_store_that_another_process_writes(store, run):
    """Who wants to write cannot open it read-only instead: it is waited for, or stopped."""
    Path("data").write_bytes(b"hello")
    with open_store(store):
        for words in (
            ("store", "put", store, "data"),
            ("store", "gc", store, "--budget-s", 1),
            ("peer", "pull", store, "http://127.0.0.1:1"),
        ):
            line = run(*words, "--json").refusal(2)
            assert f"process {os.getpid()} writes this journal; wait until it ends, or stop it" in line


def test_a_model_that_nothing_would_run(store, run):
    """Without --reexecute a store runs no program, so a model that is named was meant otherwise."""
    assert "--reexecute" in run("store", "verify", store, "--model", "nosuch.py", "--json").refusal(2)
    assert "nosuch.py" in run("store", "verify", store, "--model", "nosuch.py", "--reexecute", 1, "--json").refusal(2)
