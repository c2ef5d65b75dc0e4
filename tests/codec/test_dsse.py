from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec.dsse import (
    ENVELOPE_BYTES_MAX,
    IN_TOTO,
    RECEIPT_PREDICATE,
    SIGNATURES_MAX,
    Envelope,
    EnvelopeSignature,
    Statement,
    Subject,
    pre_authentication_encoding,
    receipt_statement,
    sign_envelope,
    verified_statement,
)
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.errors import CodecError, PeerError

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}
SEED, PUBLIC_KEY = bytes(range(32)), VECTORS["public_key"]
OTHER_SEED = bytes(32)
HELLO_WORLD = hashlib.sha256(b"hello world").digest()

# The example of the DSSE protocol, section "Test Vectors".
PUBLISHED = (
    b'{"payload": "aGVsbG8gd29ybGQ=",\n'
    b' "payloadType": "http://example.com/HelloWorld",\n'
    b' "signatures": [{"sig": "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}'
)
PUBLISHED_KEY = ec.EllipticCurvePublicNumbers(
    46950820868899156662930047687818585632848591499744589407958293238635476079160,
    5640078356564379163099075877009565129882514886557779369047442380624545832820,
    ec.SECP256R1(),
).public_key()

JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(1 - 2**53, 2**53 - 1), st.text(st.characters(codec="utf-8"))),
    lambda items: st.one_of(
        st.lists(items, max_size=3), st.dictionaries(st.text(st.characters(codec="utf-8")), items, max_size=3)
    ),
    max_leaves=8,
)
STATEMENTS = st.builds(
    Statement,
    st.lists(
        st.builds(Subject, st.text(st.characters(codec="utf-8")), st.binary(min_size=32, max_size=32)),
        min_size=1,
        max_size=3,
        unique_by=lambda subject: subject.name,
    ).map(tuple),
    st.text(st.characters(codec="utf-8")),
    st.dictionaries(st.text(st.characters(codec="utf-8")), JSON_VALUES, max_size=3),
)


def worked_statement() -> Statement:
    """The receipt of the worked history, exported."""
    return receipt_statement(
        [Subject(VECTORS["ref_output"].hex(), HELLO_WORLD)], VECTORS["receipt"], {"program": "…", "started_at": "0"}
    )


# ---- envelopes -----------------------------------------------------------------------------------------------------


def test_the_published_encoding() -> None:
    encoding = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoding == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_the_published_signature() -> None:
    """The published envelope is read, and the ECDSA signature in it is one over our encoding."""
    envelope = Envelope.from_bytes(PUBLISHED)
    assert (envelope.payload_type, envelope.payload) == ("http://example.com/HelloWorld", b"hello world")
    ((keyid, signature),) = envelope.signatures
    assert keyid == ""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    der = encode_dss_signature(r, s)
    encoding = pre_authentication_encoding(envelope.payload_type, envelope.payload)
    PUBLISHED_KEY.verify(der, encoding, ec.ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        PUBLISHED_KEY.verify(der, encoding + b" ", ec.ECDSA(SHA256()))
    with pytest.raises(PeerError):  # no Ed25519 key of ours made it
        envelope.verify([PUBLIC_KEY])


def test_lengths_are_those_of_bytes() -> None:
    assert pre_authentication_encoding("é", b"\0\xff") == b"DSSEv1 2 \xc3\xa9 2 \0\xff"
    assert pre_authentication_encoding("", b"") == b"DSSEv1 0  0 "


@given(st.text(st.characters(codec="utf-8")), st.binary(), st.text(st.characters(codec="utf-8")), st.binary())
def test_two_contents_have_two_encodings(kind: str, payload: bytes, other_kind: str, other: bytes) -> None:
    """Wherever the border between type and payload is moved to."""
    one, two = pre_authentication_encoding(kind, payload), pre_authentication_encoding(other_kind, other)
    assert (one == two) == ((kind, payload) == (other_kind, other))


@given(st.text(st.characters(codec="utf-8")), st.binary())
def test_an_envelope_is_its_json_and_back(kind: str, payload: bytes) -> None:
    envelope = sign_envelope(kind, payload, SEED)
    data = envelope.to_bytes()
    assert Envelope.from_bytes(data) == envelope
    assert sign_envelope(kind, payload, SEED).to_bytes() == data
    assert envelope.verify([public_key_of(OTHER_SEED), PUBLIC_KEY]) == (PUBLIC_KEY,)
    assert json.loads(data)["signatures"][0]["keyid"] == PUBLIC_KEY.hex()


def test_the_json_has_one_form() -> None:
    envelope = Envelope("t", b"p", (EnvelopeSignature("k", b"s"), EnvelopeSignature("", b"")))
    assert envelope.to_bytes() == (
        b'{"payload":"cA==","payloadType":"t","signatures":[{"keyid":"k","sig":"cw=="},{"keyid":"","sig":""}]}'
    )


def test_every_flipped_bit_is_refused_or_says_the_same() -> None:
    """A flip is seen, or it hit the keyid (which nothing is decided by) or made an equal spelling of base64."""
    data = sign_envelope("t", b"payload", SEED).to_bytes()
    keyid = range(data.index(PUBLIC_KEY.hex().encode()) - len('keyid":"'), data.index(b'","sig"') + 1)
    malformed = unsigned = same = 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            envelope = Envelope.from_bytes(bytes(flipped))
            envelope.verify([PUBLIC_KEY])
        except CodecError:
            malformed += 1
        except PeerError:
            unsigned += 1
        else:
            assert (envelope.payload_type, envelope.payload) == ("t", b"payload")
            same += 1
            is_spelling = data[bit // 8 : bit // 8 + 1].isalnum() or data[bit // 8 : bit // 8 + 1] in b"+/"
            assert bit // 8 in keyid or is_spelling
    assert malformed
    assert unsigned
    assert same


def test_keyid_decides_nothing() -> None:
    """A lying hint neither hides a good signature nor lends one to another key."""
    ((_, signature),) = sign_envelope("t", b"p", SEED).signatures
    other = public_key_of(OTHER_SEED)
    envelope = Envelope("t", b"p", (EnvelopeSignature(other.hex(), signature),))
    assert envelope.verify([other, PUBLIC_KEY]) == (PUBLIC_KEY,)
    with pytest.raises(PeerError):
        envelope.verify([other])


def test_signatures_of_others_are_skipped() -> None:
    mine, theirs = sign_envelope("t", b"p", SEED), sign_envelope("t", b"p", OTHER_SEED)
    junk = EnvelopeSignature("", b"no signature")
    envelope = Envelope("t", b"p", (junk, *theirs.signatures, *mine.signatures, *mine.signatures))
    assert envelope.verify([PUBLIC_KEY]) == (PUBLIC_KEY,)
    assert envelope.verify([PUBLIC_KEY, public_key_of(OTHER_SEED)]) == (public_key_of(OTHER_SEED), PUBLIC_KEY)
    for none_of_mine in (Envelope("t", b"p", ()), Envelope("t", b"p", (junk,)), theirs, mine._replace(payload=b"q")):
        with pytest.raises(PeerError):
            none_of_mine.verify([PUBLIC_KEY])
    with pytest.raises(PeerError):
        mine._replace(payload_type="u").verify([PUBLIC_KEY])
    with pytest.raises(PeerError):
        mine.verify([])


def test_both_alphabets_of_base64_are_read() -> None:
    """As DSSE asks of every reader; other spaces, order and fields do not count."""
    payload = b"\xfb\xff\xfe"
    envelope = sign_envelope("t", payload, SEED)
    fields: dict[str, Any] = json.loads(envelope.to_bytes())
    assert fields["payload"] == "+//+"
    fields["payload"] = base64.urlsafe_b64encode(payload).decode()
    fields["later"] = [1.5]
    data = json.dumps(dict(reversed(fields.items())), indent=2).encode()
    assert b"-__-" in data
    assert Envelope.from_bytes(data) == envelope


GOOD: dict[str, Any] = {"payload": "cA==", "payloadType": "t", "signatures": [{"keyid": "k", "sig": "cw=="}]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"{",
        b'{"payload":"cA==","payloadType":"t","signatures":[]} x',
        b'{"payload":"cA==","payload":"cA==","payloadType":"t","signatures":[]}',
        b'{"payload":"cA==","payloadType":"t","signatures":[],"x":NaN}',
        b'{"payload":"cA==","payloadType":"t","signatures":[],"x":' + b"[" * 200_000,
        b'{"payload":"cA==","payloadType":"t","signatures":[],"x":' + b"9" * 10_000 + b"}",
        b" " * (ENVELOPE_BYTES_MAX + 1),
        json.dumps({**GOOD, "payload": None}).encode(),
        json.dumps({**GOOD, "payload": "cA"}).encode(),
        json.dumps({**GOOD, "payload": "c A=="}).encode(),
        json.dumps({**GOOD, "payload": "\ud800"}).encode(),
        json.dumps({**GOOD, "payloadType": 1}).encode(),
        json.dumps({**GOOD, "signatures": {}}).encode(),
        json.dumps({**GOOD, "signatures": ["cw=="]}).encode(),
        json.dumps({**GOOD, "signatures": [{"keyid": "k"}]}).encode(),
        json.dumps({**GOOD, "signatures": [{"keyid": 1, "sig": "cw=="}]}).encode(),
        json.dumps({**GOOD, "signatures": [{"sig": "cw=="}] * (SIGNATURES_MAX + 1)}).encode(),
        json.dumps({key: value for key, value in GOOD.items() if key != "signatures"}).encode(),
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    assert Envelope.from_bytes(json.dumps(GOOD).encode()).payload == b"p"
    with pytest.raises(CodecError):
        Envelope.from_bytes(data)


@given(st.one_of(st.binary(), JSON_VALUES.map(lambda value: json.dumps(value).encode())))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for reader in (Envelope.from_bytes, Statement.from_bytes):
        with pytest.raises(CodecError):
            reader(data)


def test_a_type_without_utf8_is_refused() -> None:
    with pytest.raises(CodecError):
        sign_envelope("\ud800", b"", SEED)
    read = Envelope.from_bytes(json.dumps({**GOOD, "payloadType": "\ud800"}).encode())
    for call in (lambda: read.verify([PUBLIC_KEY]), read.to_bytes):
        with pytest.raises(CodecError):
            call()


def test_what_no_reader_takes_is_not_written() -> None:
    with pytest.raises(CodecError):
        sign_envelope("t", bytes(ENVELOPE_BYTES_MAX), SEED).to_bytes()


# ---- statements ----------------------------------------------------------------------------------------------------


def test_the_statement_of_the_worked_receipt() -> None:
    """About the output by the SHA-256 of its payload, which is what sha256sum prints of the file."""
    statement = worked_statement()
    assert json.loads(statement.to_bytes()) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": VECTORS["ref_output"].hex(), "digest": {"sha256": HELLO_WORLD.hex()}}],
        "predicateType": "urn:tidewarp:receipt:1",
        "predicate": {
            "program": "…",
            "started_at": "0",
            "receipt": base64.b64encode(VECTORS["receipt"]).decode(),
        },
    }
    assert statement.predicate_type == RECEIPT_PREDICATE


def test_a_statement_has_one_form() -> None:
    statement = Statement((Subject("é", bytes(32)),), "u:p", {"b": 1, "a": [None, True]})
    assert statement.to_bytes() == (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"a":[null,true],"b":1},"predicateType":"u:p",'
        b'"subject":[{"digest":{"sha256":"' + b"00" * 32 + '"},"name":"é"}]}'.encode()
    )


def test_ints_end_where_readers_of_json_begin_to_differ() -> None:
    statement = Statement((Subject("x", bytes(32)),), "u:p", {"a": 2**53 - 1, "b": 1 - 2**53})
    assert Statement.from_bytes(statement.to_bytes()) == statement


@given(STATEMENTS)
def test_a_statement_is_its_json_and_back(statement: Statement) -> None:
    data = statement.to_bytes()
    assert Statement.from_bytes(data) == statement
    assert verified_statement(sign_envelope(IN_TOTO, data, SEED).to_bytes(), [PUBLIC_KEY]) == statement


def test_a_statement_is_read_only_after_it_was_verified() -> None:
    """Whatever is in it: who did not sign it decides, not what it says."""
    other = public_key_of(OTHER_SEED)
    good = sign_envelope(IN_TOTO, worked_statement().to_bytes(), SEED).to_bytes()
    assert verified_statement(good, [other, PUBLIC_KEY]) == worked_statement()
    for data in (good, sign_envelope(IN_TOTO, b"no JSON", SEED).to_bytes()):
        with pytest.raises(PeerError) as refused:
            verified_statement(data, [other])
        assert type(refused.value) is PeerError
    with pytest.raises(CodecError):
        verified_statement(sign_envelope(IN_TOTO, b"no JSON", SEED).to_bytes(), [PUBLIC_KEY])
    with pytest.raises(CodecError):  # signed, but as another thing
        verified_statement(sign_envelope("text/plain", worked_statement().to_bytes(), SEED).to_bytes(), [PUBLIC_KEY])


@pytest.mark.parametrize("predicate", [{}, {"predicate": None}, {"predicate": {}}])
def test_a_statement_of_others_is_read(predicate: dict[str, Any]) -> None:
    """Fields that are not known here, no name, no predicate, further digests."""
    data = json.dumps(
        {
            **predicate,
            "later": 1,
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha1": "00", "sha256": HELLO_WORLD.hex()}, "mediaType": "text/plain"}],
            "predicateType": "https://slsa.dev/provenance/v1",
        }
    ).encode()
    assert Statement.from_bytes(data) == Statement((Subject("", HELLO_WORLD),), "https://slsa.dev/provenance/v1", {})


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"_type": None},
        {"subject": []},
        {"subject": {}},
        {"subject": [1]},
        {"subject": [{"name": "x"}]},
        {"subject": [{"name": "x", "digest": {}}]},
        {"subject": [{"name": "x", "digest": {"sha256": "00"}}]},
        {"subject": [{"name": "x", "digest": {"sha256": HELLO_WORLD.hex().upper()}}]},
        {"subject": [{"name": "x", "digest": {"sha256": HELLO_WORLD.hex() + "\n"}}]},
        {"subject": [{"name": 1, "digest": {"sha256": HELLO_WORLD.hex()}}]},
        {"predicateType": None},
        {"predicate": []},
    ],
)
def test_what_is_no_statement_is_refused(change: dict[str, Any]) -> None:
    fields = json.loads(worked_statement().to_bytes())
    assert Statement.from_bytes(json.dumps(fields).encode()) == worked_statement()
    with pytest.raises(CodecError):
        Statement.from_bytes(json.dumps({**fields, **change}).encode())


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [1.0, 2**53, -(2**53), b"bytes", ("tuple",), {1: "key"}, "\ud800", {"\ud800": 1}, nested(70)]
)
def test_what_readers_of_json_differ_on_is_not_written(value: Any) -> None:
    for predicate in ({"x": value}, {"x": [value]}):
        with pytest.raises(CodecError):
            Statement((Subject("x", bytes(32)),), "u:p", predicate).to_bytes()


@pytest.mark.parametrize(
    "subjects", [(), (Subject("x", bytes(32)), Subject("x", HELLO_WORLD)), (Subject("x", bytes(31)),)]
)
def test_subjects_have_names_and_digests(subjects: tuple[Subject, ...]) -> None:
    with pytest.raises(CodecError):
        Statement(subjects, "u:p", {}).to_bytes()
