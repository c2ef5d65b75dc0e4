"""DSSE envelopes, and the in-toto statements inside them: a signature that tools of others can check.

An envelope signs a payload together with its type, as the pre-authentication encoding
``DSSEv1 <bytes of type> <type> <bytes of payload> <payload>``. Sources: github.com/secure-systems-lab/dsse, version 1,
and github.com/in-toto/attestation, Statement version 1. Both are JSON of others, so what is read may have other
spaces, another order and more fields than what is written here, which has one form: keys in order, no spaces, no
floats. Hence a payload is verified first and the very same bytes are parsed then; nothing is encoded again.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from tidewarp.codec.ed25519 import is_signed, public_key_of, sign
from tidewarp.errors import CodecError, PeerError

__all__ = [
    "ENVELOPE_BYTES_MAX",
    "IN_TOTO",
    "RECEIPT_PREDICATE",
    "STATEMENT",
    "Envelope",
    "EnvelopeSignature",
    "Statement",
    "Subject",
    "pre_authentication_encoding",
    "receipt_statement",
    "sign_envelope",
    "verified_statement",
]

IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
RECEIPT_PREDICATE = "urn:tidewarp:receipt:1"
ENVELOPE_BYTES_MAX = 1 << 22
SIGNATURES_MAX = 16

_INT_MAX = 2**53 - 1  # above it readers of JSON differ
_STANDARD = str.maketrans("-_", "+/")  # of the URL-safe alphabet
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ACTION = "send a DSSE envelope with an in-toto Statement v1"


class EnvelopeSignature(NamedTuple):
    """A signature over the encoding. ``keyid`` helps people to find the key; nothing is decided by it."""

    keyid: str
    signature: bytes


class Envelope(NamedTuple):
    """A payload, its type and the signatures over both."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    def to_bytes(self) -> bytes:
        """The envelope as JSON.

        Raises:
            CodecError: a text has a lone surrogate, or it is longer than a reader would take.
        """
        return _bounded(
            _json(
                {
                    "payload": _base64(self.payload),
                    "payloadType": self.payload_type,
                    "signatures": [{"keyid": one.keyid, "sig": _base64(one.signature)} for one in self.signatures],
                }
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """The envelope that the JSON ``data`` says; no signature is checked.

        Base64 may be standard or URL-safe, as DSSE asks of every reader. Unknown fields are ignored.

        Raises:
            CodecError: no such JSON, a key twice, more than 4 MiB or more than 16 signatures.
        """
        fields = _object(_parsed(_bounded(data), "envelope"), "envelope")
        rows = _field(fields, "signatures", list, "envelope")
        if len(rows) > SIGNATURES_MAX:
            raise CodecError(f"{len(rows)} signatures", f"an envelope has at most {SIGNATURES_MAX}", "drop some")
        return cls(
            _field(fields, "payloadType", str, "envelope"),
            _bytes(_field(fields, "payload", str, "envelope"), "payload"),
            tuple(_signature(_object(row, "signature")) for row in rows),
        )

    def verify(self, public_keys: Collection[bytes]) -> tuple[bytes, ...]:
        """The Ed25519 keys among ``public_keys`` (32 bytes each) that signed this, in the order of their signatures.

        Signatures of others are skipped, as DSSE says.

        Raises:
            PeerError: none of them signed.
        """
        encoding = pre_authentication_encoding(self.payload_type, self.payload)
        signers: list[bytes] = []
        for one in self.signatures:
            for public_key in public_keys:
                if public_key not in signers and is_signed(public_key, one.signature, encoding):
                    signers.append(public_key)
        if not signers:
            raise PeerError(
                f"envelope of {self.payload_type[:80]!r} with {len(self.signatures)} signatures",
                f"none of the {len(public_keys)} known keys signed it",
                "do not use what is in it; ask for the key of its writer in another way",
            )
        return tuple(signers)


class Subject(NamedTuple):
    """What a statement is about: a name, and the SHA-256 (32 bytes) of the content, which alone is compared."""

    name: str
    sha256: bytes


class Statement(NamedTuple):
    """An in-toto Statement v1: what ``predicate_type`` says of the subjects, in the words of ``predicate``."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: dict[str, Any]

    def to_bytes(self) -> bytes:
        """The statement as JSON; the predicate may hold None, bool, int below 2**53, str, list and dict.

        Raises:
            CodecError: a predicate with anything else, a digest that has not 32 bytes, no subject, or two of one name.
        """
        names = [subject.name for subject in self.subjects]
        if not names or len(set(names)) < len(names):
            raise CodecError(
                f"{len(names)} subjects, {len(set(names))} names",
                "each subject has a name of its own",
                "name each once",
            )
        for subject in self.subjects:
            if len(subject.sha256) != 32:
                raise CodecError(f"digest of {len(subject.sha256)} bytes", "a SHA-256 has 32 bytes", "hash the content")
        _check_plain(self.predicate, "predicate")
        return _json(
            {
                "_type": STATEMENT,
                "predicate": self.predicate,
                "predicateType": self.predicate_type,
                "subject": [{"digest": {"sha256": one.sha256.hex()}, "name": one.name} for one in self.subjects],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Statement:
        """The statement that the JSON ``data`` says. Unknown fields are ignored, as in-toto says.

        Raises:
            CodecError: no such JSON, a key twice, no subject, or one without a SHA-256.
        """
        fields = _object(_parsed(data, "statement"), "statement")
        if fields.get("_type") != STATEMENT:
            raise CodecError(f"_type {fields.get('_type')!r:.80}", f"a statement has {STATEMENT}", _ACTION)
        rows = _field(fields, "subject", list, "statement")
        if not rows:
            raise CodecError("no subject", "a statement is about something", _ACTION)
        predicate = fields.get("predicate", {})
        return cls(
            tuple(_subject(_object(row, "subject")) for row in rows),
            _field(fields, "predicateType", str, "statement"),
            _object({} if predicate is None else predicate, "predicate"),
        )


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """PAE of DSSE, which is what a key signs; lengths are those of bytes.

    Raises:
        CodecError: the type has a lone surrogate.
    """
    try:
        kind = payload_type.encode()
    except UnicodeEncodeError as error:
        raise CodecError(
            f"payload type with {payload_type[error.start]!r}", "a lone surrogate has no UTF-8", _ACTION
        ) from None
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload_type: str, payload: bytes, seed: bytes) -> Envelope:
    """The envelope with one signature, made by the Ed25519 key of ``seed`` (32 bytes); keyid is the public key in hex.

    Raises:
        CodecError: as :func:`pre_authentication_encoding`, or the seed has not 32 bytes.
    """
    signature = sign(seed, pre_authentication_encoding(payload_type, payload))
    return Envelope(payload_type, payload, (EnvelopeSignature(public_key_of(seed).hex(), signature),))


def receipt_statement(outputs: Sequence[Subject], receipt: bytes, fields: Mapping[str, Any]) -> Statement:
    """The statement that a receipt is exported as: about the outputs, by the SHA-256 of their payloads.

    The predicate is ``fields``, which say the receipt in words, and ``receipt``, its bytes in base64, which count.
    """
    return Statement(tuple(outputs), RECEIPT_PREDICATE, {**fields, "receipt": _base64(receipt)})


def verified_statement(data: bytes, public_keys: Collection[bytes]) -> Statement:
    """The statement in the envelope ``data``, read only after one of ``public_keys`` was found to have signed it.

    Raises:
        PeerError: none of the keys signed it.
        CodecError: it is no envelope, or what is in it is no in-toto Statement v1.
    """
    envelope = Envelope.from_bytes(data)
    envelope.verify(public_keys)
    if envelope.payload_type != IN_TOTO:
        raise CodecError(f"payload type {envelope.payload_type[:80]!r}", f"a statement has {IN_TOTO}", _ACTION)
    return Statement.from_bytes(envelope.payload)


def _bounded(data: bytes) -> bytes:
    if len(data) > ENVELOPE_BYTES_MAX:
        raise CodecError(f"envelope of {len(data)} bytes", f"it has at most {ENVELOPE_BYTES_MAX}", "state less in one")
    return data


def _signature(fields: dict[str, Any]) -> EnvelopeSignature:
    keyid = _field(fields, "keyid", str, "signature") if "keyid" in fields else ""
    return EnvelopeSignature(keyid, _bytes(_field(fields, "sig", str, "signature"), "signature"))


def _subject(fields: dict[str, Any]) -> Subject:
    name = _field(fields, "name", str, "subject") if "name" in fields else ""
    digest = _field(_field(fields, "digest", dict, "subject"), "sha256", str, "digest")
    if not _SHA256.fullmatch(digest):
        raise CodecError(f"sha256 {digest[:80]!r}", "64 lower-case hex digits", _ACTION)
    return Subject(name, bytes.fromhex(digest))


def _parsed(data: bytes, what: str) -> Any:
    try:
        return json.loads(data.decode(), object_pairs_hook=_unrepeated, parse_constant=_no_constant)
    except CodecError:
        raise
    except RecursionError:
        raise CodecError(f"{what} of {len(data)} bytes", "nested too deep", "send a flatter value") from None
    except ValueError as error:
        raise CodecError(f"{what} of {len(data)} bytes", f"not JSON: {error}", _ACTION) from None


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise CodecError(
            f"an object of {len(pairs)} keys", "a key stands once: readers differ on which counts", _ACTION
        )
    return fields


def _no_constant(name: str) -> Any:
    raise CodecError(name, "JSON has no such number", _ACTION)


def _object(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise CodecError(f"{what} of type {type(value).__name__}", "it is an object", _ACTION)
    return value


def _field(fields: dict[str, Any], key: str, kind: type, what: str) -> Any:
    value = fields.get(key)
    if type(value) is not kind:
        raise CodecError(
            f"{key} of type {type(value).__name__}", f"{what} has {key!r} of type {kind.__name__}", _ACTION
        )
    return value


def _check_plain(value: Any, path: str, depth: int = 64) -> None:
    kind = type(value)
    if kind is dict or kind is list:
        if not depth:
            raise CodecError(path[:80], "nested too deep", "write a flatter predicate")
        for key, item in value.items() if kind is dict else enumerate(value):
            if kind is dict and type(key) is not str:
                raise CodecError(f"{path[:80]}: a key of type {type(key).__name__}", "keys are str", "write it as text")
            _check_plain(item, f"{path}.{key}", depth - 1)
    elif not (value is None or kind is bool or kind is str or (kind is int and abs(value) <= _INT_MAX)):
        raise CodecError(
            f"{path[:80]}: {value!r:.40}",
            "a predicate holds None, bool, int below 2**53, str, list and dict, since readers of JSON differ on others",
            "write it as text",
        )


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    except UnicodeEncodeError:
        raise CodecError("text with a lone surrogate", "a lone surrogate has no UTF-8", "drop it") from None


def _bytes(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text.translate(_STANDARD), validate=True)
    except ValueError:
        raise CodecError(f"{what} {text[:80]!r}", "base64, standard or URL-safe, padded", _ACTION) from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
