"""From a run to a receipt that another machine checks: as a file, and as records that another site pulls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from plant import MODEL, NEW

from tidewarp.codec import DIGEST
from tidewarp.codec.dsse import verified_statement
from tidewarp.codec.receipts import Receipt
from tidewarp.codec.records import domain_of
from tidewarp.codec.references import Reference
from tidewarp.federation.bundle import Bundle
from tidewarp.store import Entry, open_store
from tidewarp.twin.model import find_model

pytestmark = pytest.mark.proof("a run is checked by anybody from one file, and who claims a wrong one is named")

ROOT = Path(__file__).parents[2]
OTHER = MODEL.replace("change.new)", "change.new + 1)")


@pytest.fixture
def begun(plant, run):
    """A run with its journal j.tw; what the command said of it."""
    return run(*NEW).done()


@pytest.fixture
def proven(begun, run):
    """The bundle of its receipt."""
    made = run("verify", "j.tw", "--receipt", "j.bundle", "--json").done()
    assert made["replayed"] == made["digest"] == begun["digest"]
    return made


def elsewhere(*names):
    """A folder that has these files alone."""
    folder = Path("elsewhere")
    folder.mkdir()
    for name in names:
        shutil.copy(name, folder)
    return folder


def test_a_run_is_checked_on_another_machine(proven, begun, child):
    """With the bundle and the model: no journal, no data, no key."""
    folder = elsewhere("j.bundle", "model.py")
    checked = child("store", "verify", "--bundle", "j.bundle", "--model", "model.py", "--json", cwd=folder).done()
    assert (checked["ok"], checked["receipt"], checked["same"]) == (True, proven["receipt"], 1)
    (journal,) = checked["journaled"]
    assert journal == {
        "what": "input",
        "domain": proven["domain"],
        "seq": begun["journal_records"],
        "head": begun["head"],
    }
    assert sorted(one.name for one in folder.iterdir()) == ["j.bundle", "model.py"]


def test_the_text_names_the_journal(proven, begun, run):
    """Whose it is, and how far it goes: what a person compares with what he was told."""
    out = run("store", "verify", "--bundle", "j.bundle", "--model", "model.py").out
    assert "executed     1: 1 came out the same\n" in out
    assert (
        f"it ran on records 1 to {begun['journal_records']} of domain {proven['domain']}, head {begun['head']}\n" in out
    )


def test_the_receipt_is_signed_by_the_key_of_the_journal(proven, begun, run):
    """And the journal itself is as it was."""
    bundle = Bundle.from_bytes(Path("j.bundle").read_bytes())
    signer = bundle.statement().signer(bundle.computation().key)
    assert domain_of(signer).hex() == proven["domain"]
    assert run("verify", "j.tw", "--json").done()["head"] == begun["head"]
    assert run("replay", "j.tw", "--json").done()["equal"]


def test_no_code_is_run_that_nobody_has_named(proven, run):
    """It is unavailable then: exit 1, and what to do."""
    checked = run("store", "verify", "--bundle", "j.bundle", "--json")
    assert (checked.code, checked.document["unavailable"], checked.document["reexecuted"]) == (1, 1, 0)
    assert "no code is run that came with data" in checked.document["first_bad"]["rule"]
    assert "--model" in checked.document["first_bad"]["action"]
    Path("other.py").write_text(OTHER)
    assert run("store", "verify", "--bundle", "j.bundle", "--model", "other.py", "--json").document["unavailable"] == 1


def test_a_file_with_another_digest_is_not_run(proven, run):
    """It is hashed first; the answer names the file, what it has and what is asked for."""
    asked = find_model("model.py").digest
    Path("other.py").write_text("open('trace', 'w').close()\n" + OTHER)
    checked = run("store", "verify", "--bundle", "j.bundle", "--model", "other.py", "--json")
    assert (checked.code, checked.document["unavailable"], checked.document["reexecuted"]) == (1, 1, 0)
    first = checked.document["first_bad"]
    assert f"other.py has model digest {find_model('other.py').digest}, the receipt asks for {asked}" in first["rule"]
    assert "--model" in first["action"]
    assert not Path("trace").exists()
    run("store", "verify", "--bundle", "j.bundle", "--model", "absent.py", "--json").refusal(2)


def test_the_model_comes_along_to_be_read(proven, run, child):
    """Its files are those of its digest; named after that, they run."""
    folder = elsewhere("j.bundle")
    options = ("store", "verify", "--bundle", "j.bundle", "--json")
    first = child(*options, "--model-files", "theirs", cwd=folder)
    assert (first.code, first.document["unavailable"]) == (1, 1)
    assert (folder / "theirs" / "model.py").read_text() == MODEL
    assert child(*options, "--model", "theirs/model.py", cwd=folder).done()["same"] == 1
    child(*options, "--model-files", "theirs", cwd=folder).refusal(2)
    run("store", "init", "A", "--json").done()
    run("store", "verify", "A", "--model-files", "theirs", "--json").refusal(2)


def test_a_changed_bundle_is_refused(proven, run):
    """One bit of it, in the middle; a piece of it; something else."""
    whole = Path("j.bundle").read_bytes()
    half = len(whole) // 2
    for data in (whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :], whole[:half], b"something else"):
        Path("bad.bundle").write_bytes(data)
        checked = run("store", "verify", "--bundle", "bad.bundle", "--model", "model.py", "--json")
        assert (checked.code, checked.document["ok"], checked.document["reexecuted"]) == (1, False, 0)
        assert checked.document["first_bad"]["where"].startswith("bundle bad.bundle")
    run("store", "verify", "--bundle", "absent", "--json").refusal(2)
    run("store", "verify", "--json").refusal(2)
    run("store", "verify", ".", "--bundle", "j.bundle", "--json").refusal(2)


def test_a_model_that_changed_gives_another_digest(begun, run):
    """A receipt of it is made, since it says the truth; that it is not the run of the journal is said by exit 1."""
    Path("other.py").write_text(OTHER)
    made = run("verify", "j.tw", "--receipt", "j.bundle", "--model", "other.py", "--json")
    assert (made.code, made.document["ok"]) == (1, False)
    assert made.document["replayed"] != begun["digest"]
    text = run("verify", "j.tw", "--receipt", "k.bundle", "--model", "other.py").out
    assert "which is DIFFERENT" in text
    assert run("store", "verify", "--bundle", "j.bundle", "--model", "other.py", "--json").done()["same"] == 1


def test_a_run_that_was_killed_has_a_receipt(begun, run):
    """Of all that its journal holds; there is no digest to compare it with, though an earlier life has left one."""
    with open_store("j.tw") as store:
        mark = next(store.journal.read(kinds={DIGEST}))
        store.journal.append([Entry(DIGEST, mark.body)])
    made = run("verify", "j.tw", "--receipt", "j.bundle", "--json").done()
    assert (made["replayed"], made["equal"]) == (begun["digest"], None)
    assert run("store", "verify", "--bundle", "j.bundle", "--model", "model.py", "--json").done()["same"] == 1


def test_a_receipt_is_somebodys_word(begun, run):
    """Without a key there is none, nor over a file that is there."""
    Path("j.tw.key").rename("kept.key")
    assert "its key is not beside it" in run("verify", "j.tw", "--receipt", "j.bundle", "--json").refusal(2)
    assert not Path("j.bundle").exists()
    run("store", "init", "A", "--json").done()
    made = run("verify", "j.tw", "--receipt", "j.bundle", "--store", "A", "--json").done()
    checked = run("store", "verify", "--bundle", "j.bundle", "--model", "model.py", "--json").done()
    assert [one["what"] for one in checked["journaled"]] == ["receipt"]
    assert made["receipt"] == checked["receipt"]
    assert "j.bundle" in run("verify", "j.tw", "--receipt", "j.bundle", "--store", "A", "--json").refusal(2)
    again = run("verify", "j.tw", "--receipt", "again.bundle", "--store", "A", "--json").done()
    assert again["receipt"] == made["receipt"]
    assert Path("again.bundle").read_bytes() == Path("j.bundle").read_bytes()
    assert "--receipt" in run("verify", "j.tw", "--store", "A", "--json").refusal(2)


def test_another_site_pulls_the_run_and_makes_it_again(place, run, start):
    """A factory runs at site A; its journal, under its receipt, comes to site B, and anybody checks what B hands on."""
    shutil.copy(ROOT / "examples" / "factory.py", "model.py")
    assert run("run", "model.py", "--journal", "j.tw", "--until", "2d", "--json").code == 0
    for name in "AB":
        run("store", "init", name, "--json").done()
    made = run("verify", "j.tw", "--receipt", "j.bundle", "--store", "A", "--json").done()
    server = start("peer", "serve", "A", "--port", 0)
    url = server.process.stdout.readline().split()[1]
    assert run("peer", "pull", "B", url, "--json").done()["records"] > 0
    checked = run("store", "verify", "B", "--reexecute", 10, "--model", "model.py", "--json").done()
    assert (checked["receipts"], checked["reexecuted"], checked["same"]) == (1, 1, 1)
    without = run("store", "verify", "B", "--reexecute", 10, "--json").done()
    assert (without["reexecuted"], without["unavailable"]) == (0, 1)
    assert made["receipt"] in without["first_unavailable"]
    assert "--model FILE.py" in run("store", "verify", "B", "--reexecute", 10).out
    out = run("store", "verify", "B", "--reexecute", 10, "--model", "model.py").out
    assert out.endswith("executed     1: 1 came out the same\n")
    relayed = (
        "program",
        "export",
        "--store",
        "B",
        made["receipt"],
        "--format",
        "bundle",
        "-o",
        "from-b.bundle",
        "--json",
    )
    run(*relayed).done()
    checked = run("store", "verify", "--bundle", "from-b.bundle", "--model", "model.py", "--json").done()
    with open_store("A", read_only=True) as store:
        assert [one["domain"] for one in checked["journaled"]] == [store.domain.hex()]


SOURCE = {"inputs": ["a"], "nodes": {"h": {"op": "pel.bytes.hash.asl1/1", "in": ["a"]}}, "outputs": ["h"]}


@pytest.fixture
def hashed(place, run):
    """A store A with a run of a program in it."""
    run("store", "init", "A", "--json").done()
    Path("hash.json").write_text(json.dumps(SOURCE))
    Path("a").write_text("hello")
    ref = run("store", "put", "A", "a", "--json").done()["ref"]
    program = run("program", "build", "hash.json", "--store", "A", "--json").done()["program_ref"]
    return run("program", "run", "--store", "A", program, ref, "--json").done()


def test_receipts_of_a_store_are_executed(hashed, run):
    """As many as are asked for; a wrong one is told with all who stand for it, and ends with 1."""
    checked = run("store", "verify", "A", "--reexecute", 10, "--json").done()
    assert (checked["reexecuted"], checked["same"], checked["different"]) == (1, 1, 0)
    with open_store("A") as store:
        receipt = Receipt.from_bytes(store.get(Reference.parse(hashed["receipt_ref"])))
        wrong = store.put(b"wrong")
        domain, key = store.domain.hex(), bytes.fromhex(hashed["computation_key"])
        forged = store.put_receipt(receipt._replace(output=wrong, signature=None).to_bytes(), key, [wrong])
    found = run("store", "verify", "A", "--reexecute", 10, "--json")
    assert (found.code, found.document["same"], found.document["different"]) == (1, 1, 1)
    text = run("store", "verify", "A", "--reexecute", 10).out
    assert "executed     2: 1 came out the same" in text
    with open_store("A") as store:
        store.tombstone(Reference.parse(hashed["receipt_ref"]))
    found = run("store", "verify", "A", "--reexecute", 10, "--seed", 3, "--json").document
    assert (found["reexecuted"], found["different"]) == (1, 1)
    assert forged.hex() != hashed["receipt_ref"]
    where = found["first_bad"]["where"]
    assert where.startswith(f"receipt {forged.hex()}, domain {domain}, executor ")
    assert where.endswith("(by name alone, unsigned)")


def test_who_signs_a_wrong_receipt_is_named_by_his_signature(hashed, run):
    """A name alone binds nobody: anybody can write another's."""
    with open_store("A") as store:
        receipt = Receipt.from_bytes(store.get(Reference.parse(hashed["receipt_ref"])))
        wrong, key = store.put(b"wrong"), bytes.fromhex(hashed["computation_key"])
        lie = receipt._replace(output=wrong).signed(key, Path("A/keys/root.key").read_bytes())
        store.put_receipt(lie.to_bytes(), key, [wrong])
    found = run("store", "verify", "A", "--reexecute", 10, "--json").document
    assert found["first_bad"]["where"].endswith("(by its signature)")
    assert found["first_bad"]["rule"].startswith(f"different: it claims {wrong.hex()}, and executed here it gives")


def test_a_receipt_is_exported_in_three_forms(hashed, run):
    """A bundle is checked by its own command; an envelope by the key of the store; provenance is JSON."""
    ref = hashed["receipt_ref"]
    for form in ("bundle", "dsse", "prov"):
        made = run("program", "export", "--store", "A", ref, "--format", form, "-o", f"out.{form}", "--json").done()
        assert made["path"] == f"out.{form}"
        assert len(bytes.fromhex(made["sha256"])) == 32
    checked = run("store", "verify", "--bundle", "out.bundle", "--json").done()
    assert (checked["receipt"], checked["same"]) == (ref, 1)
    (signed,) = checked["journaled"]
    with open_store("A", read_only=True) as store:
        (own,) = store.domains()
    assert (signed["what"], signed["domain"]) == ("receipt", own.id.hex())
    statement = verified_statement(Path("out.dsse").read_bytes(), [own.key])
    assert statement.predicate["reference"] == ref
    assert f"tw:run-{ref}" in json.loads(Path("out.prov").read_text())["activity"]
    run("program", "export", "--store", "A", ref, "--format", "prov", "-o", "out.prov", "--json").refusal(2)
    run("program", "export", "--store", "A", ref[:-4] + "0000", "--format", "prov", "-o", "x", "--json").refusal(2)
    run("program", "export", "--store", "A", ref, "--format", "zip", "-o", "x", "--json").refusal(2)


def test_what_is_no_receipt_has_no_bundle(hashed, run):
    """Exit 2: it is said what it is."""
    line = run(
        "program", "export", "--store", "A", hashed["output_refs"][0], "--format", "bundle", "-o", "x", "--json"
    ).refusal(2)
    assert "no receipt" in line
    assert not Path("x").exists()
