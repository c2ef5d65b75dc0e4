"""Receipts in the words of others, read back by what others use."""

from __future__ import annotations

import base64
import json
from hashlib import sha256

import pytest

from tidewarp.codec.artifacts import TAG_PROGRAM, Artifact
from tidewarp.codec.dsse import RECEIPT_PREDICATE, Envelope, verified_statement
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import DERIVES, DESCRIBES, Edge
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.receipts import Executor, Receipt
from tidewarp.errors import PeerError
from tidewarp.federation.bundle import bundle_of
from tidewarp.federation.exports import export_dsse, export_prov
from tidewarp.programs import OperationRegistry
from tidewarp.programs.runs import run
from tidewarp.store import MemoryStore

SEED = bytes(range(32))
KEY = public_key_of(SEED)
CONCAT = Program.of(2, [Node("pel.bytes.concat", 1, (External(0), External(1)))], [Output(0)])
HELLO, WORLD = Artifact(b"hello").reference(), Artifact(b" world", 7).reference()
BOTH = Artifact(b"hello world").reference()
SECOND_NS = 10**9


def bundle(inputs=(HELLO, WORLD), **options):
    """That of a run of ``CONCAT``."""
    store = MemoryStore(seed=SEED)
    store.put_many([(b"hello", None), (b" world", 7)])
    program = store.put(CONCAT.to_bytes(), tag=TAG_PROGRAM)
    executor = Executor(KEY, "site \N{SNOWMAN}")
    done = run(store, program, inputs, registry=OperationRegistry.kernel(), executor=executor, **options)
    return bundle_of(store, done.receipt)


def test_a_statement_is_about_the_outputs_and_holds_the_receipt():
    """Signed by the key that is given, over the very bytes that are parsed."""
    made = bundle()
    data = export_dsse(made, SEED)
    statement = verified_statement(data, [KEY])
    assert statement.predicate_type == RECEIPT_PREDICATE
    assert [(one.name, one.sha256) for one in statement.subjects] == [(BOTH.hex(), sha256(b"hello world").digest())]
    assert statement.predicate["inputs"] == [HELLO.hex(), WORLD.hex()]
    assert statement.predicate["executors"][0]["name"] == "site \N{SNOWMAN}"
    assert statement.predicate["computationKey"] == made.computation().key.hex()
    assert Receipt.from_bytes(base64.b64decode(statement.predicate["receipt"])) == made.statement()
    with pytest.raises(PeerError):
        verified_statement(data, [public_key_of(b"x" * 32)])
    assert export_dsse(made, SEED) == data


def test_a_failed_run_is_a_statement_about_its_result():
    """There is always something to be about."""
    made = bundle((HELLO,))
    statement = verified_statement(export_dsse(made, SEED), [KEY])
    assert [one.name for one in statement.subjects] == [made.statement().output.hex()]


def test_the_signature_is_that_of_an_independent_reading():
    """The pre-authentication encoding written out, and cryptography asked directly."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    envelope = Envelope.from_bytes(export_dsse(bundle(), SEED))
    kind, payload = envelope.payload_type.encode(), envelope.payload
    encoded = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])
    Ed25519PublicKey.from_public_bytes(KEY).verify(envelope.signatures[0].signature, encoded)


def test_the_envelope_is_checked_by_securesystemslib(require):
    """The library of who wrote DSSE."""
    require("securesystemslib")
    from securesystemslib import dsse, signer

    data = json.loads(export_dsse(bundle(), SEED))
    envelope = dsse.Envelope.from_dict(data)
    mine, other = (
        signer.SSlibKey(seed.hex(), "ed25519", "ed25519", {"public": public_key_of(seed).hex()})
        for seed in (SEED, b"x" * 32)
    )
    for key in (mine, other):
        key.keyid = KEY.hex()  # what names the key in the envelope decides nothing
    envelope.verify([mine], 1)
    with pytest.raises(Exception, match="threshold"):
        envelope.verify([other], 1)


def exported(made, *edges):
    return json.loads(export_prov(made, edges))


def test_provenance_has_inputs_outputs_program_and_executor():
    """Artifacts by reference, the run by that of its receipt."""
    made = bundle()
    document = exported(made)
    run_name = f"tw:run-{made.receipt.hex()}"
    assert set(document["entity"]) == {f"tw:artifact-{ref.hex()}" for ref in (HELLO, WORLD, BOTH, CONCAT.reference())}
    assert document["entity"][f"tw:artifact-{WORLD.hex()}"] == {"tw:bytes": 6, "tw:tag": 7}
    assert [one["prov:entity"] for one in document["used"].values()] == [
        f"tw:artifact-{ref.hex()}" for ref in (HELLO, WORLD)
    ]
    assert document["wasGeneratedBy"] == {
        "_:g1": {"prov:entity": f"tw:artifact-{BOTH.hex()}", "prov:activity": run_name}
    }
    (agent,) = document["agent"].values()
    assert agent == {"prov:type": "tw:executor", "tw:name": "site \N{SNOWMAN}", "tw:publicKey": KEY.hex()}
    assert document["wasAssociatedWith"]["_:a1"]["prov:plan"] == f"tw:artifact-{CONCAT.reference().hex()}"
    assert "wasDerivedFrom" not in document


def test_times_are_those_of_the_receipt_or_none():
    """A reproducible receipt has none."""
    (activity,) = exported(bundle())["activity"].values()
    assert "prov:startTime" not in activity
    clock = iter([1_700_000_000 * SECOND_NS, 1_700_000_001 * SECOND_NS])
    (activity,) = exported(bundle(now=lambda: next(clock)))["activity"].values()
    assert activity["prov:startTime"] == "2023-11-14T22:13:20.000+00:00"
    assert activity["prov:endTime"] == "2023-11-14T22:13:21.000+00:00"


def test_derivations_are_those_of_edges_between_the_runs_artifacts():
    """Of type 1, from their sources to their targets."""
    other = Artifact(b"other").reference()
    document = exported(
        bundle(),
        Edge(DERIVES, (HELLO,), (BOTH,)),
        Edge(DERIVES, (other,), (BOTH,)),
        Edge(DESCRIBES, (WORLD,), (BOTH,)),
    )
    assert list(document["wasDerivedFrom"].values()) == [
        {"prov:generatedEntity": f"tw:artifact-{BOTH.hex()}", "prov:usedEntity": f"tw:artifact-{HELLO.hex()}"}
    ]


def test_provenance_is_read_by_the_package_prov(require):
    """The library of the W3C document's own community: nothing is lost on the way in and out."""
    require("prov")
    from prov import model

    clock = iter([SECOND_NS, 2 * SECOND_NS])
    data = export_prov(bundle(now=lambda: next(clock)), [Edge(DERIVES, (HELLO,), (BOTH,))])
    document = model.ProvDocument.deserialize(content=data.decode(), format="json")
    kinds = [type(record).__name__ for record in document.get_records()]
    assert sorted(kinds) == sorted(
        ["ProvEntity"] * 4
        + ["ProvActivity", "ProvAgent", "ProvUsage", "ProvUsage", "ProvGeneration", "ProvAssociation", "ProvDerivation"]
    )
    again = model.ProvDocument.deserialize(content=document.serialize(format="json"), format="json")
    assert again == document
