"""``tidewarp program``: from the source of a program to a receipt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tidewarp.codec.receipts import Executor, Receipt
from tidewarp.codec.references import Reference
from tidewarp.store import open_store

CONCAT = "000174bd794f0511eb37b451cc0dad1463254ced5e52b30ce1e6db25f2283ccf11d7"  # of the golden vectors
HELLO = "00011f1d4ea728bc4c10bbc8211c7644aa950b6296c9b3e70d263e4ae6fc83e895e4"
WORLD = "00011867a5314f7ba867ee3b862a4c257e8d2d9dd8e170faa5c6f383871102051fe7"
OUTPUT = "0001ead6041675e4a26533f8d8f18f8730ab1feb0e7de090a1e4c0d323d37d7dbbd6"
KEY = "3ed9aea89d20f842378e20c6b5fec2fa3e6a5b73eae75d3c1679a750adaa9b2d"
KEY_SWAPPED = "427c861599e4988ba878a0968e515c5b5f2192ccbe13600a32ca05245423c614"
RESULT = "0001362fe0749bb3705595c19d19a1f4785623698305e829b658f551a7b8b3a7c470"
TRACE = "00018a40f1ba9cd26d5aefe3d7b7c24ea28602dd3668e330f8d481e03878d30ec6e2"

SOURCE = {"inputs": ["a", "b"], "nodes": {"j": {"op": "pel.bytes.concat/1", "in": ["a", "b"]}}, "outputs": ["j"]}
SLICE = {
    "inputs": ["x"],
    "nodes": {"s": {"op": "pel.bytes.slice/1", "in": ["x"], "params": {"offset": 3, "length": 5}}},
    "outputs": ["s"],
}
PARAMS = {"inputs": [], "nodes": {"p": {"op": "pel.bytes.params/1"}}, "outputs": ["p", "p"]}


def write(source, name="concat.json"):
    Path(name).write_text(json.dumps(source))


@pytest.fixture
def store(run):
    """A store with "hello" and " world", and the program that joins two."""
    run("store", "init", "A", "--json").done()
    for name, text in (("hello", "hello"), ("world", " world")):
        Path(name).write_text(text)
        run("store", "put", "A", name, "--json").done()
    write(SOURCE)
    run("program", "build", "concat.json", "--store", "A", "--json").done()
    return "A"


def records(run):
    return run("store", "stat", "A", "--json").done()["records"]


# --- build


def test_a_program_has_one_reference_whatever_its_source_looks_like(store, run):
    """That of the published vectors; a second building records nothing."""
    before = records(run)
    built = run("program", "build", "concat.json", "--store", "A", "--json").done()
    assert built == {"program_ref": CONCAT, "nodes": 1, "inputs": 2, "outputs": 1}
    nodes = {"second": SOURCE["nodes"]["j"], "first": SOURCE["nodes"]["j"]}
    write({"outputs": ["first"], "nodes": {"first": nodes["first"]}, "inputs": ["a", "b"]}, "other.json")
    assert run("program", "build", "other.json", "--store", "A").out == CONCAT + "\n"
    assert records(run) == before


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({**SOURCE, "outputs": ["k"]}, "'k'"),
        ({**SOURCE, "nodes": {"j": {"op": "pel.bytes.join/1", "in": ["a", "b"]}}}, "node 'j'"),
        ({**SOURCE, "nodes": {"j": {"op": "pel.bytes.concat/1", "in": ["j"]}}}, "node 'j'"),
        ({**SOURCE, "nodes": {**SOURCE["nodes"], "k": {"op": "pel.bytes.params/1"}}}, "node 'k'"),
        ([], "object"),
        (3, "object"),
        ({}, "nodes"),
    ],
)
def test_a_source_that_is_no_program_is_refused_with_its_node(store, run, source, said):
    """Exit 2 and the rule; nothing is kept."""
    before = records(run)
    write(source, "bad.json")
    assert said in run("program", "build", "bad.json", "--store", "A", "--json").refusal(2)
    assert records(run) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"nodes": NaN}', "no JSON"),
        ('{"nodes": {"j": {}, "j": {}}, "outputs": []}', "'j' stands twice"),
        ("\xff", "no JSON"),
    ],
)
def test_a_file_that_is_no_json_is_refused(store, run, text, said):
    """Nor one in which a node would silently replace another."""
    Path("bad.json").write_bytes(text.encode("latin-1"))
    assert said in run("program", "build", "bad.json", "--store", "A", "--json").refusal(2)


def test_constants_are_read_beside_their_source(run):
    """Relative to it, whatever the working directory; a file that is missing is named, one that is too long is too long."""
    run("store", "init", "A", "--json").done()
    Path("deep").mkdir()
    Path("deep/greeting").write_text("hello")
    node = {"op": "pel.bytes.const/1", "params": {"file": "greeting"}}
    source = {"nodes": {"c": node}, "outputs": ["c"]}
    write(source, "deep/c.json")
    built = run("program", "build", "deep/c.json", "--store", "A", "--json").done()
    done = run("program", "run", "--store", "A", built["program_ref"], "--json").done()
    assert done["output_refs"] == [HELLO]
    Path("deep/greeting").unlink()
    assert "greeting" in run("program", "build", "deep/c.json", "--store", "A", "--json").refusal(2)
    Path("deep/greeting").write_bytes(bytes((1 << 20) + 1))
    assert "node 'c'" in run("program", "build", "deep/c.json", "--store", "A", "--json").refusal(2)
    for name in ("a\0b", "\ud800"):
        node["params"]["file"] = name
        write(source, "deep/c.json")
        assert "no name of a file" in run("program", "build", "deep/c.json", "--store", "A", "--json").refusal(2)


# --- run


def test_a_run_gives_the_published_output_result_and_key(store, run):
    """And keeps them: they are got from the store."""
    done = run("program", "run", "--store", "A", CONCAT, HELLO, WORLD, "--trace", "--json").done()
    receipt = done.pop("receipt_ref")
    assert done == {
        "result_ref": RESULT,
        "output_refs": [OUTPUT],
        "trace_ref": TRACE,
        "status": 0,
        "computation_key": KEY,
        "reused": False,
    }
    assert run("store", "get", "A", OUTPUT).out == "hello world"
    for ref in (RESULT, TRACE, receipt):
        run("store", "get", "A", ref, "-o", ref, "--json").done()
    counted = run("store", "stat", "A", "--json").done()
    assert counted["receipts"] == 1
    assert run("store", "verify", "A", "--json").done()["receipts"] == 1


def test_the_receipt_is_signed_by_the_store(store, run):
    """Over the computation, with the key that its executor names."""
    done = run("program", "run", "--store", "A", CONCAT, HELLO, WORLD, "--json").done()
    with open_store("A", read_only=True) as opened:
        receipt = Receipt.from_bytes(opened.get(Reference.parse(done["receipt_ref"])))
        (executor,) = [Executor.from_bytes(opened.get(ref)) for ref in receipt.executors]
        (own,) = opened.domains()
    assert receipt.signer(bytes.fromhex(KEY)) == executor.public_key == own.key


def test_what_was_accepted_is_not_executed_again(store, run):
    """Not one record more; --force and a salt execute."""
    first = run("program", "run", "--store", "A", CONCAT[:16], HELLO[:12], WORLD[:12], "--json").done()
    before = records(run)
    again = run("program", "run", "--store", "A", CONCAT, HELLO, WORLD, "--json").done()
    assert again == {**first, "reused": True}
    assert records(run) == before
    assert "(an earlier run)" in run("program", "run", "--store", "A", CONCAT, HELLO, WORLD).out
    forced = run("program", "run", "--store", "A", CONCAT, HELLO, WORLD, "--force", "--json").done()
    assert (forced["reused"], forced["result_ref"]) == (False, RESULT)
    salted = run("program", "run", "--store", "A", CONCAT, HELLO, WORLD, "--salt", "pepper", "--json").done()
    assert (salted["reused"], salted["result_ref"]) == (False, RESULT)
    assert salted["computation_key"] != KEY
    assert run("store", "verify", "A", "--json").done()["ok"]


def test_the_order_of_inputs_counts(store, run):
    """The predecessor took concat(a, b) and concat(b, a) for one."""
    run("program", "run", "--store", "A", CONCAT, HELLO, WORLD, "--json").done()
    swapped = run("program", "run", "--store", "A", CONCAT, WORLD, HELLO, "--json").done()
    assert (swapped["computation_key"], swapped["reused"]) == (KEY_SWAPPED, False)
    assert run("store", "get", "A", swapped["output_refs"][0]).out == " worldhello"
    twice = run("program", "run", "--store", "A", CONCAT, HELLO, HELLO, "--json").done()
    assert run("store", "get", "A", twice["output_refs"][0]).out == "hellohello"


def test_a_reproducible_receipt_has_no_times(store, run):
    """So it has the same reference each time; another has its own."""
    words = ("program", "run", "--store", "A", CONCAT, HELLO, WORLD, "--reproducible", "--json")
    first = run(*words).done()["receipt_ref"]
    assert run(*words, "--force").done()["receipt_ref"] == first
    timed = run("program", "run", "--store", "A", CONCAT, HELLO, WORLD, "--force", "--json").done()
    assert timed["receipt_ref"] != first


def test_a_program_that_fails_has_a_result_too(store, run):
    """Exit 1 and its status; it is kept, has a receipt, and is reused."""
    write(SLICE, "slice.json")
    ref = run("program", "build", "slice.json", "--store", "A", "--json").done()["program_ref"]
    failed = run("program", "run", "--store", "A", ref, HELLO, "--json")
    assert (failed.code, failed.err) == (1, "")
    assert (failed.document["status"], failed.document["output_refs"]) == (4, [])
    run("store", "get", "A", failed.document["result_ref"], "-o", "result", "--json").done()
    again = run("program", "run", "--store", "A", ref, HELLO, "--json")
    assert (again.code, again.document) == (1, {**failed.document, "reused": True})
    assert "RUNTIME" in run("program", "run", "--store", "A", ref, HELLO).out
    invalid = run("program", "run", "--store", "A", ref, HELLO, WORLD, "--json")
    assert (invalid.code, invalid.document["status"]) == (1, 3)
    assert run("store", "verify", "A", "--json").done()["receipts"] == 2


def test_params_and_more_than_one_output(store, run):
    """The params of the run are an artifact; a receipt of two outputs names the result."""
    write(PARAMS, "params.json")
    ref = run("program", "build", "params.json", "--store", "A", "--json").done()["program_ref"]
    done = run("program", "run", "--store", "A", ref, "--params", HELLO, "--json").done()
    assert done["output_refs"] == [HELLO, HELLO]
    assert run("program", "run", "--store", "A", ref, "--params", HELLO, "--json").done() == {**done, "reused": True}
    assert run("program", "run", "--store", "A", ref, "--json").document["status"] == 3
    assert run("store", "verify", "A", "--json").done()["ok"]


def test_what_is_no_program_and_what_is_not_there(store, run):
    """Exit 2 with the reference."""
    before = records(run)
    assert HELLO in run("program", "run", "--store", "A", HELLO, WORLD, "--json").refusal(2)
    assert OUTPUT in run("program", "run", "--store", "A", CONCAT, HELLO, OUTPUT, "--json").refusal(2)
    assert OUTPUT in run("program", "run", "--store", "A", CONCAT, HELLO, WORLD, "--params", OUTPUT, "--json").refusal(
        2
    )
    Path("lie").write_bytes(b"\0\1lie")
    lie = run("store", "put", "A", "lie", "--tag", "0x101", "--json").done()["ref"]
    assert lie in run("program", "run", "--store", "A", lie, "--json").refusal(2)
    assert records(run) == before + 1
