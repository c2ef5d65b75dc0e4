"""Every byte form of the store: golden bytes, both ways for any value, and no second form for any bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import second_decoder as second
from hypothesis import given
from hypothesis import strategies as st
from store_values import ARTIFACTS, FORMS, HASHES, plain

from tampering import flips
from tidewarp.codec import PUBLISHED, RecordHeader, domain_of, genesis, record_hash
from tidewarp.codec.artifacts import EMPTY, TAG_EDGE, TAG_RECEIPT, TAG_SCHEME, Artifact, artifact_head
from tidewarp.codec.batches import BODY, BatchItem, encode_batch
from tidewarp.codec.bodies import ArtifactBody, BranchBody, EdgeBody, ReceiptBody, TombstoneBody, decode_body
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.references import SHA256, Reference
from tidewarp.codec.snapshots import NO_POLICY, Snapshot
from tidewarp.errors import CodecError

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}
GOLDEN = [
    ("reference", "ref_hello"),
    ("reference", "ref_hello_tag7"),
    ("artifact", "artifact_empty"),
    ("artifact", "artifact_hello"),
    ("artifact", "artifact_hello_tag7"),
    ("edge", "edge"),
    ("snapshot", "snapshot"),
    ("batch", "batch_record1"),
    *((f"body {VECTORS[f'record{seq}_header'][44]:02x}", f"record{seq}_body") for seq in range(1, 7)),
    *(("header", f"record{seq}_header") for seq in range(1, 7)),
]
FORM = pytest.mark.parametrize("form", FORMS)
EACH_GOLDEN = pytest.mark.parametrize(("form", "name"), GOLDEN, ids=[name for _, name in GOLDEN])


def agreed(form: str, data: bytes) -> Any:
    """What both decoders say that ``data`` is, or None where both refuse it; its one form is ``data``."""
    _, write, read, again = FORMS[form]
    try:
        value = read(data)
    except CodecError:
        with pytest.raises(second.Refused):
            again(data)
        return None
    assert plain(value) == again(data)
    assert write(value) == data
    return value


def test_the_worked_history() -> None:
    """Six records, from their values to their bytes, and everything that the specification gives about them."""
    hello, world, output = Artifact(b"hello"), Artifact(b" world"), Artifact(b"hello world")
    edge = Edge(DERIVES, (hello.reference(),), (world.reference(),))
    receipt = Artifact(VECTORS["receipt"], TAG_RECEIPT).reference()
    bodies = [
        ArtifactBody(hello.reference(), None, 5),
        ArtifactBody(world.reference(), None, 6),
        EdgeBody(edge),
        ArtifactBody(output.reference(), None, 11),
        ReceiptBody(receipt, VECTORS["computation_key"], (output.reference(),)),
        TombstoneBody(world.reference()),
    ]
    domain = domain_of(VECTORS["public_key"])
    prev = genesis(domain)
    for seq, body in enumerate(bodies, 1):
        data = body.to_bytes()
        assert data == VECTORS[f"record{seq}_body"]
        header = RecordHeader(domain, seq, body.kind, PUBLISHED, 0, prev, len(data), hashlib.sha256(data).digest())
        assert header.to_bytes() == VECTORS[f"record{seq}_header"]
        assert decode_body(header.kind, data) == body
        prev = record_hash(header.to_bytes())
        assert prev == VECTORS[f"record{seq}_hash"]
    snapshot = Snapshot(NO_POLICY, ((domain, 6, prev),))
    assert (snapshot.to_bytes(), snapshot.id()) == (VECTORS["snapshot"], VECTORS["snapshot_id"])
    first = BatchItem(
        RecordHeader.from_bytes(VECTORS["record1_header"]), BODY, VECTORS["record1_body"], hello.to_bytes()
    )
    assert encode_batch([first]) == VECTORS["batch_record1"]


def test_artifacts_and_edges() -> None:
    """Bytes, references and slot keys that the specification prints."""
    hello, world = Artifact(b"hello"), Artifact(b" world")
    assert Artifact(b"").to_bytes() == VECTORS["artifact_empty"]
    assert EMPTY.to_bytes() == VECTORS["ref_empty"]
    assert hello.to_bytes() == VECTORS["artifact_hello"]
    assert hello.reference().to_bytes() == VECTORS["ref_hello"]
    assert hello.reference().encoded() == VECTORS["encoded_ref_hello"]
    assert hello.reference().hex() == VECTORS["ref_hello"].hex()
    assert world.reference().to_bytes() == VECTORS["ref_world"]
    assert Artifact(b"hello", 7).to_bytes() == VECTORS["artifact_hello_tag7"]
    assert Artifact(b"hello", 7).reference().to_bytes() == VECTORS["ref_hello_tag7"]
    assert Artifact(b"PEL/PROGRAM-DAG/1 tidewarp profile 1", TAG_SCHEME).reference().to_bytes() == VECTORS["scheme_ref"]
    edge = Edge(DERIVES, (hello.reference(),), (world.reference(),), EMPTY)
    assert edge.to_bytes() == VECTORS["edge"]
    assert (
        edge.reference().to_bytes() == VECTORS["ref_edge"] == Artifact(VECTORS["edge"], TAG_EDGE).reference().to_bytes()
    )
    assert edge.slot_key() == VECTORS["slot_key"]
    assert edge._replace(payload=world.reference()).slot_key() == VECTORS["slot_key"]
    assert Edge(DERIVES, edge.targets, edge.sources).slot_key() != VECTORS["slot_key"]


@given(ARTIFACTS)
def test_an_artifact_is_named_by_its_bytes(artifact: Artifact) -> None:
    """Its tag among them: tag 0 is not the same as none."""
    assert artifact.reference() == Reference(SHA256, hashlib.sha256(artifact.to_bytes()).digest())
    assert Artifact(artifact.payload, 0).reference() != Artifact(artifact.payload).reference()


def test_a_payload_may_be_hashed_in_pieces() -> None:
    """The head, then the payload as it comes: the reference of the whole."""
    digest = hashlib.sha256(artifact_head(11, 7))
    digest.update(b"hello")
    digest.update(b" world")
    assert Reference(SHA256, digest.digest()) == Artifact(b"hello world", 7).reference()


@EACH_GOLDEN
def test_golden_bytes_are_read_and_written_again(form: str, name: str) -> None:
    assert agreed(form, VECTORS[name]) is not None


@EACH_GOLDEN
def test_every_flipped_bit_is_refused_or_is_another_value(form: str, name: str) -> None:
    """So is a byte more or less; and the two decoders agree on which is which."""
    whole = VECTORS[name]
    value = FORMS[form].read(whole)
    outcomes = [agreed(form, data) for data in flips(whole)]
    assert len(outcomes) == 8 * len(whole) + 2
    assert value not in outcomes
    assert outcomes.count(None) >= 2


@FORM
@given(data=st.data())
def test_every_value_comes_back(form: str, data: st.DataObject) -> None:
    """Written and read, it is the same; and the second decoder reads the same."""
    values, write, _, _ = FORMS[form]
    value = data.draw(values)
    assert agreed(form, write(value)) == value


@FORM
@given(data=st.data())
def test_any_bytes_are_refused_or_have_one_form(form: str, data: st.DataObject) -> None:
    """Bytes near to a value's, or any: what is accepted is written as the same bytes."""
    values, write, _, _ = FORMS[form]
    near = bytearray(write(data.draw(values)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(near)))
        end = data.draw(st.integers(at, min(len(near), at + 8)))
        near[at:end] = data.draw(st.binary(max_size=8))
    agreed(form, bytes(near))
    agreed(form, data.draw(st.binary(max_size=80)))


@given(HASHES, st.text(max_size=5))
def test_a_branch_has_the_domain_of_its_first_body(head: bytes, name: str) -> None:
    body = BranchBody(VECTORS["domain_id"], 6, head, name)
    assert body.domain == hashlib.sha256(b"TWBR1" + body.to_bytes()).digest()


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x20, 0x21, 0x22, 0x23, 0x32, 0x51, 0x80, 0xFF])
def test_other_kinds_say_nothing_here(kind: int) -> None:
    """Timed, reserved, opaque and unknown: stored and relayed, whatever their bytes are."""
    assert decode_body(kind, b"anything") is None
