"""Signed heads: what a journal promises of its first ``size`` records, as a C2SP checkpoint in a C2SP signed note.

    tidewarp/<domain, 64 hex digits>
    <size>
    <root of the Merkle tree over the record hashes, base64>
    head <hash of record number size, 64 hex digits>
    <empty line>
    — <name> <base64 of key id 4 | signature>

The text, which is what a key signs, ends with the newline before the empty line. Sources: c2sp.org/tlog-checkpoint
and c2sp.org/signed-note, version 1. A line of the text behind ``head`` is signed, kept and not read; a signature of
a key that the reader does not know, such as a witness's, is kept and not counted. Numbers, hex and base64 have one
form each, so a note that is read is written again as the same bytes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection
from hashlib import sha256
from typing import NamedTuple

from tidewarp.codec.ed25519 import is_signed, public_key_of, sign
from tidewarp.codec.merkle import EMPTY_ROOT
from tidewarp.codec.records import genesis
from tidewarp.errors import CodecError, PeerError

__all__ = ["NOTE_BYTES_MAX", "SIGNATURES_MAX", "NoteSignature", "SignedHead", "key_id", "sign_head"]

NOTE_BYTES_MAX = 1 << 17
SIGNATURES_MAX = 16  # what every reader of signed notes has to accept
NAME_BYTES_MAX = 1_024

_ED25519 = b"\x01"  # the type of signature in a key id
_KEY_ID_BYTES = 4
_TEXT = re.compile(r"tidewarp/([0-9a-f]{64})\n(0|[1-9][0-9]{0,19})\n([^\n]+)\nhead ([0-9a-f]{64})\n((?:[^\n]+\n)*)")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_DASH = "\N{EM DASH}"
_ACTION = "send the signed note as its writer made it"


class NoteSignature(NamedTuple):
    """One signature line. ``name`` is that of the key, ``key_id`` 4 bytes, ``signature`` 1 byte or more."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """The line, newline included."""
        return f"{_DASH} {self.name} {_base64(self.key_id + self.signature)}\n"

    def described(self) -> str:
        """Its key as an error shows it; the name is a stranger's."""
        return f"{self.name[:80]!r} {self.key_id.hex()}"


class SignedHead(NamedTuple):
    """The head of ``domain`` (32 bytes) at ``size`` records: Merkle ``root`` and ``head``, the hash of the last record.

    Of an empty journal the root is that of no leaves, and the head is what the first record will name as ``prev``.
    ``extensions`` are the lines of the text behind those, without newlines.
    """

    domain: bytes
    size: int
    root: bytes
    head: bytes
    signatures: tuple[NoteSignature, ...]
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """What is signed.

        Raises:
            CodecError: a field breaks its rule.
        """
        lines = [f"tidewarp/{self.domain.hex()}", str(self.size), _base64(self.root), f"head {self.head.hex()}"]
        text = "".join(f"{line}\n" for line in (*lines, *self.extensions))
        if _fields(text) != (self.domain, self.size, self.root, self.head, self.extensions):
            raise CodecError(f"head of {len(self.extensions)} extensions", "an extension is one line", "split it")
        return text

    def note(self) -> str:
        """The whole signed note.

        Raises:
            CodecError: a field or a signature breaks its rule.
        """
        note = f"{self.text()}\n{''.join(signature.line() for signature in self.signatures)}"
        if SignedHead.parse(note) != self:
            raise CodecError("signed head", "it is not what its note says", "give fields as parse() gives them")
        return note

    def to_bytes(self) -> bytes:
        """The note as UTF-8."""
        return self.note().encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedHead:
        """The head whose note is ``data``; no signature is checked.

        Raises:
            CodecError: not UTF-8, or as :meth:`parse`.
        """
        try:
            return cls.parse(data.decode())
        except UnicodeDecodeError as error:
            raise CodecError(f"signed note of {len(data)} bytes", f"it is UTF-8: {error.reason}", _ACTION) from None

    @classmethod
    def parse(cls, note: str) -> SignedHead:
        """The head that ``note`` says; no signature is checked.

        Raises:
            CodecError: not the one form of such a note, more than 128 KiB or more than 16 signatures.
        """
        if _size_of(note) > NOTE_BYTES_MAX:
            raise CodecError(
                f"signed note of {len(note)} characters", f"it has at most {NOTE_BYTES_MAX} bytes", "drop signatures"
            )
        text, _, lines = note.partition("\n\n")
        if not lines.endswith("\n"):
            raise CodecError(
                f"note of {len(note)} characters", "a text, an empty line, and signatures with a newline each", _ACTION
            )
        rows = lines[:-1].split("\n")
        if len(rows) > SIGNATURES_MAX:
            raise CodecError(f"note of {len(rows)} signatures", f"it has at most {SIGNATURES_MAX}", "drop some")
        domain, size, root, head, extensions = _fields(text + "\n")
        return cls(domain, size, root, head, tuple(map(_signature, rows)), extensions)

    def verify(self, public_keys: Collection[bytes]) -> tuple[bytes, ...]:
        """The keys among ``public_keys`` (32 bytes each) that signed this head, in the order of their lines.

        The caller gives the keys that may sign for this domain at this size: the root key, whose ``domain_of`` is the
        domain, and those of its last KEYS record before; a key that was withdrawn is not among them.

        Raises:
            PeerError: none of them signed, or a line that names one of them is not its signature.
        """
        data = self.text().encode()
        signers: list[bytes] = []
        for line in self.signatures:
            for public_key in public_keys:
                if key_id(line.name, public_key) != line.key_id:
                    continue
                if not is_signed(public_key, line.signature, data):
                    raise PeerError(
                        f"{self._described()}, signature of {line.described()}",
                        f"the key {public_key.hex()} did not sign this text",
                        "do not use this head; ask its writer for the true one",
                    )
                if public_key not in signers:
                    signers.append(public_key)
        if not signers:
            raise PeerError(
                f"{self._described()}, signed by {', '.join(map(NoteSignature.described, self.signatures))}",
                f"none of the {len(public_keys)} keys that may sign it did",
                "check which keys the policy, and the domain's KEYS records, name",
            )
        return tuple(signers)

    def _described(self) -> str:
        return f"head of {self.domain.hex()} at {self.size}"


def key_id(name: str, public_key: bytes) -> bytes:
    """The 4 bytes by which a signature line names an Ed25519 key: a hint for finding it, and no proof."""
    return sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:_KEY_ID_BYTES]


def sign_head(domain: bytes, size: int, root: bytes, head: bytes, name: str, seed: bytes) -> SignedHead:
    """The head with one signature, made by the key of ``seed`` (32 bytes) under ``name``.

    Raises:
        CodecError: a hash has not 32 bytes, the size is no U64, or the name is empty, has a space, a plus or a
            control character, or more than 1,024 bytes.
    """
    unsigned = SignedHead(domain, size, root, head, ())
    signature = sign(seed, unsigned.text().encode())
    return unsigned._replace(signatures=(NoteSignature(_named(name), key_id(name, public_key_of(seed)), signature),))


def _fields(text: str) -> tuple[bytes, int, bytes, bytes, tuple[str, ...]]:
    _size_of(text)
    found = _TEXT.fullmatch(text)
    if not found:
        raise CodecError(
            f"text {text[:160]!r}{'…' if len(text) > 160 else ''}",
            "a head has the lines tidewarp/<64 hex>, size, root in base64, head <64 hex>, and no empty one",
            _ACTION,
        )
    domain, size, root, head = bytes.fromhex(found[1]), int(found[2]), _bytes(found[3], "root"), bytes.fromhex(found[4])
    if size >> 64:
        raise CodecError(f"size {size}", "a size is a U64", _ACTION)
    if len(root) != 32:
        raise CodecError(f"root of {len(root)} bytes", "a root has 32 bytes", _ACTION)
    if not size and (root != EMPTY_ROOT or head != genesis(domain)):
        raise CodecError("head at 0", "an empty journal has the root of no leaves, and its genesis as head", _ACTION)
    return domain, size, root, head, tuple(found[5].split("\n")[:-1])


def _signature(line: str) -> NoteSignature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH:
        raise CodecError(
            f"signature line {line[:80]!r}", f"it is {_DASH}, a name and base64, one space between", _ACTION
        )
    data = _bytes(parts[2], f"signature of {parts[1][:80]!r}")
    if len(data) <= _KEY_ID_BYTES:
        raise CodecError(
            f"signature of {len(data)} bytes", "a key id of 4 bytes comes first, then a signature", _ACTION
        )
    return NoteSignature(_named(parts[1]), data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])


def _named(name: str) -> str:
    if not 0 < _size_of(name) <= NAME_BYTES_MAX or "+" in name or any(map(str.isspace, name)):
        raise CodecError(
            f"name {name[:80]!r}",
            f"the name of a key has 1 to {NAME_BYTES_MAX} bytes, no space, no plus and no control character",
            "give another name",
        )
    return name


def _size_of(text: str) -> int:
    """Its bytes as UTF-8; raises CodecError for a character that a note may not have."""
    control = _CONTROL.search(text)
    if control:
        raise CodecError(f"text with {control[0]!r}", "a note has no control characters but newlines", _ACTION)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise CodecError(f"text with {text[error.start]!r}", "a lone surrogate has no UTF-8", _ACTION) from None


def _bytes(text: str, what: str) -> bytes:
    """Of standard base64 in its one form: padded, and with zeros in the bits that are left over."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = None
    if data is None or _base64(data) != text:
        raise CodecError(f"{what} {text[:80]!r}", "base64 as RFC 4648 section 4 writes it, padded", _ACTION)
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
