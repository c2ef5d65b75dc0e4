from __future__ import annotations

import pytest

from tidewarp.codec.ed25519 import SIGNATURE_BYTES, is_signed, public_key_of, sign
from tidewarp.errors import CodecError

# RFC 8032, section 7.1, test 3.
SEED = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
PUBLIC_KEY = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
DATA = bytes.fromhex("af82")
SIGNATURE = bytes.fromhex(
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)


def test_the_vector_of_the_rfc() -> None:
    assert public_key_of(SEED) == PUBLIC_KEY
    assert sign(SEED, DATA) == SIGNATURE
    assert len(SIGNATURE) == SIGNATURE_BYTES
    assert is_signed(PUBLIC_KEY, SIGNATURE, DATA)


def test_every_flipped_bit_is_no_signature() -> None:
    for whole in (SIGNATURE, DATA):
        for bit in range(8 * len(whole)):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            pair = (bytes(flipped), DATA) if whole is SIGNATURE else (SIGNATURE, bytes(flipped))
            assert not is_signed(PUBLIC_KEY, *pair)


@pytest.mark.parametrize("signature", [b"", SIGNATURE[:-1], SIGNATURE + b"\0"])
def test_a_signature_of_another_length_is_none(signature: bytes) -> None:
    assert not is_signed(PUBLIC_KEY, signature, DATA)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_key_has_32_bytes(key: bytes) -> None:
    for call in (lambda: public_key_of(key), lambda: sign(key, DATA), lambda: is_signed(key, SIGNATURE, DATA)):
        with pytest.raises(CodecError):
            call()
