"""A snapshot that a record names is one that ``--at`` finds."""

from __future__ import annotations

from tidewarp.store import open_store


def test_a_command_reads_at_a_snapshot_that_the_journal_names(run):
    run("store", "init", "A", "--json").done()
    with open_store("A") as store:
        store.put(b"one")
        monday = store.snapshot("monday")
        before = store.view(monday).state_hash()
        store.put(b"two")
    for which in ("monday", monday.id().hex()):
        found = run("store", "digest", "A", "--at", which, "--json").done()
        assert (found["snapshot_id"], found["state_hash"]) == (monday.id().hex(), before.hex())
    assert "none is kept here under this name or id" in run("store", "digest", "A", "--at", "tuesday").refusal(2)
