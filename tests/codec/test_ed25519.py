from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec.ed25519 import SIGNATURE_BYTES, is_public_key, is_signed, public_key_of, sign
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


@given(st.binary(min_size=32, max_size=32))
def test_every_key_is_a_point(seed: bytes) -> None:
    assert is_public_key(public_key_of(seed))


def test_about_half_of_all_numbers_are_none() -> None:
    """Of those that differ from a key in its first byte."""
    assert 96 < sum(is_public_key(bytes([n]) + PUBLIC_KEY[1:]) for n in range(256)) < 160


P = (1 << 255) - 19


@pytest.mark.parametrize("sign_bit", [0, 1 << 255])
@pytest.mark.parametrize(
    "y",
    [
        2,  # no point has it
        (1 << 255) - 1,  # beyond the field
        P + 3,  # a second form of 3, which a point has
        0,  # of order 4
        1,  # the neutral element
        P - 1,  # of order 2
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    ],
)
def test_what_is_nobodys_key(y: int, sign_bit: int) -> None:
    """No point, a point in a second form, and the points of small order (of those of order 8 all four)."""
    assert not is_public_key((y | sign_bit).to_bytes(32, "little"))
    assert is_public_key((3).to_bytes(32, "little"))


@pytest.mark.parametrize("key", [b"", PUBLIC_KEY[:31], PUBLIC_KEY + b"\0"])
def test_a_point_has_32_bytes(key: bytes) -> None:
    assert not is_public_key(key)
