"""``tidewarp store gc`` and ``tidewarp store fsck``, as their users call them."""

from __future__ import annotations

import signal
import socket
import sqlite3
from pathlib import Path

import pytest
from writing import put

from tidewarp.codec.batches import BatchItem
from tidewarp.codec.references import Reference
from tidewarp.store import open_store

PLACES = ("A", "A.tw")  # a directory, and one file
GC_KEYS = ["freed_bytes", "freed_artifacts", "kept", "remaining", "seconds", "complete"]
FSCK_KEYS = ["clean", "checked", "problems", "unanswered", "seconds"]


@pytest.fixture(params=PLACES)
def store(request, run):
    """The name of a store that holds two files, in both forms."""
    run("store", "init", request.param, "--json").done()
    for text in ("kept", "gone"):
        put(run, request.param, text)
    return request.param


def hide(run, place, text):
    ref = Reference.parse(put(run, place, text))
    with open_store(place) as opened:
        opened.tombstone(ref)
    return ref.hex()


def change(place, statement, *values):
    file = Path(place, "store.db") if Path(place).is_dir() else Path(place)
    db = sqlite3.connect(file, isolation_level=None)
    assert db.execute(statement, values).rowcount > 0
    db.close()


# --- gc


def test_what_is_hidden_goes_and_what_is_visible_stays(store, run):
    ref = hide(run, store, "gone")
    dry = run("store", "gc", store, "--budget-s", 5, "--dry-run", "--json").done()
    assert [*dry] == GC_KEYS
    assert (dry["freed_bytes"], dry["freed_artifacts"]) == (4, 1)
    with open_store(store, read_only=True) as opened:
        assert opened.get(Reference.parse(ref)) == b"gone"
    report = run("store", "gc", store, "--budget-s", 5, "--json").done()
    assert report | {"seconds": 0} == dry | {"seconds": 0}
    assert (report["kept"], report["remaining"], report["complete"]) == ({}, 0, True)
    assert run("store", "get", store, ref, "--include-hidden").refusal(2)
    assert run("store", "get", store, put(run, store, "kept")).out == "kept"
    assert run("store", "verify", store, "--json").done()["ok"]
    assert run("store", "fsck", store, "--json").done()["clean"]


def test_what_is_pinned_stays_and_is_told(store, run):
    ref = hide(run, store, "gone")
    with open_store(store) as opened:
        opened.pin("mine", Reference.parse(ref))
    ended = run("store", "gc", store, "--budget-s", "0.5")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "freed 0 artifacts, 0 bytes\nkept  1 pinned\n"


def test_a_budget_of_nothing_leaves_everything(store, run):
    hide(run, store, "gone")
    ended = run("store", "gc", store, "--budget-s", 0)
    assert ended.out.endswith("left  1: call it again\n")
    report = run("store", "gc", store, "--budget-s", 0, "--json").done()
    assert (report["remaining"], report["complete"]) == (1, False)


def test_the_policy_in_force_says_who_counts(run):
    """What a domain shows that the policy does not name, keeps nothing."""
    for place in "AB":
        run("store", "init", place, "--json").done()
    put(run, "A", "shared")
    hide(run, "B", "shared")
    with open_store("A") as theirs, open_store("B") as ours:
        head = theirs.signed_head()
        (record,) = theirs.records(theirs.domain)
        assert head is not None
        key = theirs.domains()[0].key
        ours.adopt(theirs.domain, [BatchItem(*record, None)], head, key=key)
        own = ours.domains()[0].key
    assert run("store", "gc", "B", "--budget-s", 5, "--json").done()["kept"] == {"visible": 1}
    words = ["--key", own.hex(), "--url", "http://127.0.0.1:1", "--role", "produce", "--json"]
    run("peer", "trust", "B", "me", *words).done()
    assert run("store", "gc", "B", "--budget-s", 5, "--json").done()["freed_artifacts"] == 1


@pytest.mark.parametrize("budget", ["-1", "x", "", "nan", "inf", "1e308"])
def test_a_budget_is_a_number_of_seconds(store, run, budget):
    run("store", "gc", store, "--budget-s", budget).refusal(2)


def test_a_budget_has_to_be_given(store, run):
    run("store", "gc", store).refusal(2)


@pytest.mark.parametrize("command", [["gc", "--budget-s", "1"], ["fsck"]])
def test_there_has_to_be_a_store(run, command):
    name, *options = command
    run("store", name, "nowhere", *options).refusal(2)


# --- fsck


def test_a_whole_store_is_clean(store, run):
    document = run("store", "fsck", store, "--json").done()
    assert [*document] == FSCK_KEYS
    assert document["clean"]
    assert document["problems"] == []
    assert document["checked"]["records"] == 2
    ended = run("store", "fsck", store)
    assert ended.code == 0
    assert ended.out.startswith("clean  2 records")


def test_what_follows_from_records_is_made_anew(store, run):
    change(store, "DELETE FROM event")
    ended = run("store", "fsck", store, "--json")
    assert ended.code == 1
    (problem,) = ended.document["problems"]
    assert [*problem] == ["kind", "where", "rule", "repaired"]
    assert (problem["kind"], problem["repaired"]) == ("event", False)
    assert "wrong  event: table event" in run("store", "fsck", store).out
    ended = run("store", "fsck", store, "--repair", "--json")
    assert ended.code == 0
    assert [one["repaired"] for one in ended.document["problems"]] == [True]
    assert run("store", "fsck", store, "--json").done()["problems"] == []


def test_a_bad_record_is_never_mended(store, run):
    change(store, "UPDATE log SET body = zeroblob(8) WHERE id & 1")
    for options in ([], ["--repair"]):
        ended = run("store", "fsck", store, *options, "--json")
        assert ended.code == 1
        assert "record" in {one["kind"] for one in ended.document["problems"]}


def test_a_store_that_cannot_be_opened_is_bad(store, run):
    change(store, "UPDATE domain SET id = zeroblob(32)")
    ended = run("store", "fsck", store, "--json")
    assert ended.code == 1
    assert [one["kind"] for one in ended.document["problems"]] == ["store"]
    assert "it cannot be opened" in run("store", "fsck", store).out


@pytest.fixture
def peer(start):
    """``peer("A")``: a process that serves the store, and its address."""

    def call(place):
        living = start("peer", "serve", place, "--port", 0)
        line = living.process.stdout.readline()
        assert line.startswith("serving "), line
        return living, line.removeprefix("serving ").strip()

    return call


@pytest.mark.proof("what is damaged at one site comes back from another")
@pytest.mark.parametrize("size", [5, 300_000])
def test_damaged_bytes_come_back_from_a_peer(run, peer, size):
    for place in "AB":
        run("store", "init", place, "--json").done()
    ref = put(run, "A", "x" * size)
    living, url = peer("A")
    run("peer", "pull", "B", url, "--json").done()
    if size == 5:
        change("B", "UPDATE artifact SET bytes = ?", b"xxxyx")
    else:
        (block,) = [one for one in Path("B", "blobs").glob("??/*") if one.is_file()]
        block.write_bytes(b"y" * size)
    assert run("store", "fsck", "B", "--json").code == 1
    assert run("store", "fsck", "B", "--repair", "--json").code == 1
    ended = run("store", "fsck", "B", "--repair", "--from", url, "--json")
    assert ended.code == 0, ended
    assert [one["repaired"] for one in ended.document["problems"]] == [True]
    assert ended.document["unanswered"] == []
    assert run("store", "get", "B", ref).out == "x" * size
    assert run("store", "fsck", "B", "--json").done()["problems"] == []
    assert living.send(signal.SIGTERM).code == 0


def test_a_peer_that_does_not_answer_is_told(store, run):
    change(store, "UPDATE artifact SET bytes = ? WHERE bytes = ?", b"konq", b"gone")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    ended = run("store", "fsck", store, "--repair", "--from", url, "--json")
    assert ended.code == 1
    (fault,) = ended.document["unanswered"]
    assert fault.startswith(url)
    assert f"no answer from {url}" in run("store", "fsck", store, "--repair", "--from", url).out


def test_nothing_is_fetched_but_to_repair(store, run):
    assert "--repair" in run("store", "fsck", store, "--from", "http://127.0.0.1:1").refusal(2)
    run("store", "fsck", store, "--repair", "--from", "nonsense").refusal(2)


def test_a_note_of_a_peer_that_goes_beyond_what_is_here_is_found(run, peer):
    for place in "AB":
        run("store", "init", place, "--json").done()
    put(run, "A", "text")
    living, url = peer("A")
    run("peer", "pull", "B", url, "--json").done()
    assert run("store", "fsck", "B", "--json").done()["clean"]
    change("B", "UPDATE federation_cursor SET seq = 9")
    ended = run("store", "fsck", "B", "--json")
    assert ended.code == 1
    assert [one["kind"] for one in ended.document["problems"]] == ["cursor"]
    living.send(signal.SIGTERM)
