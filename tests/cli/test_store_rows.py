"""Each command of stores and programs has the options and the keys that are promised, and ends with the code for it."""

from __future__ import annotations

import json
from pathlib import Path

COUNTED = "artifacts hidden bytes file_bytes edges receipts records domains quota_bytes shards format conflicts_open"
EXECUTED = "reexecuted same different incomparable unavailable first_bad"
CHECKED = f"ok records artifacts receipts {EXECUTED}"
RAN = "result_ref receipt_ref output_refs trace_ref status computation_key reused"
JOIN = {"inputs": ["a", "b"], "nodes": {"j": {"op": "pel.bytes.concat/1", "in": ["a", "b"]}}, "outputs": ["j"]}


def test_every_command_has_its_keys_and_ends_with_0(run):
    """What is done as a user does it, one after the other; each answer has at least the keys of its row."""

    def done(keys, *words):
        document = run(*words, "--json").done()
        assert set(keys.split()) <= document.keys(), words
        return document

    Path("hello").write_bytes(b"hello")
    Path("join.json").write_text(json.dumps(JOIN))
    done("domain public_key path", "store", "init", "A", "--shards", 2, "--inline-max", 100, "--quota", 10_000)
    one = done("ref size tag new seq", "store", "put", "A", "hello", "--tag", 7, "--internal")
    two = done("ref size tag new seq", "store", "put", "A", "hello")
    done("ref size path", "store", "get", "A", two["ref"], "-o", "copy", "--offset", 1, "--length", 2)
    assert Path("copy").read_bytes() == b"el"
    done(f"{COUNTED} quarantine_bytes", "store", "stat", "A")
    done("state_hash snapshot_id policy_hash scope domains", "store", "digest", "A", "--scope", "all")
    done("clean checked problems seconds", "store", "fsck", "A", "--repair")
    kept = done(
        "freed_bytes freed_artifacts kept remaining seconds complete", "store", "gc", "A", "--budget-s", 1, "--dry-run"
    )
    assert kept["kept"] == {}
    program = done("program_ref nodes inputs outputs", "program", "build", "join.json", "--store", "A")["program_ref"]
    options = ("--trace", "--reproducible", "--salt", "T", "--force")
    ran = done(RAN, "program", "run", "--store", "A", program, two["ref"], two["ref"], *options)
    for form in ("dsse", "prov", "bundle"):
        words = ("program", "export", "--store", "A", ran["receipt_ref"], "--format", form, "-o", f"run.{form}")
        done("path sha256", *words)
    done(CHECKED, "store", "verify", "A", "--reexecute", 1, "--seed", 3)
    done(CHECKED, "store", "verify", "--bundle", "run.bundle")
    words = ("--domain", done("domains", "store", "digest", "A")["domains"].popitem()[0][:12], "--merge")
    (record,) = done("records", "store", "log", "A", *words, "--after", 0, "--limit", 1, "--kind", "artifact")[
        "records"
    ]
    assert record["seq"] == one["seq"]
    assert done("conflicts", "store", "conflicts", "A", "--all")["conflicts"] == []
    assert done("snapshots", "store", "snapshot", "A", "monday")["snapshots"]


def test_what_cannot_be_done_ends_with_its_code(run):
    """1 a check failed, 2 bad input: one line, and an object that says the same."""
    Path("hello").write_bytes(b"hello")
    Path("bad.json").write_text(json.dumps(JOIN | {"outputs": ["k"]}))
    Path("folder").mkdir()
    Path("folder/mine").touch()
    run("store", "init", "A", "--json").done()
    ref = run("store", "put", "A", "hello", "--json").done()["ref"]
    for words in (
        ("store", "init", "folder"),
        ("store", "put", "A", "nowhere"),
        ("store", "get", "A", f"0001{64 * '0'}"),
        ("store", "get", "A", "../../hello"),
        ("store", "log", "A", "--domain", "zz"),
        ("store", "conflicts", "A", "--resolve", 12 * "0", "--choose", 12 * "0"),
        ("program", "build", "bad.json", "--store", "A"),
        ("program", "run", "--store", "A", ref, ref),
        ("program", "export", "--store", "A", ref, "--format", "dsse", "-o", "out"),
    ):
        run(*words, "--json").refusal(2)
    Path("broken").write_bytes(b"TWB1")
    assert run("store", "verify", "--bundle", "broken", "--json").code == 1
