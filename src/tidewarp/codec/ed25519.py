"""Ed25519 (RFC 8032): a seed of 32 bytes, its public key of 32, signatures of 64. Deterministic, hence pure.

`cryptography` is imported where it is used: that takes 30 ms, and who reads or runs needs none of it.
"""

from __future__ import annotations

from tidewarp.errors import CodecError

__all__ = ["SIGNATURE_BYTES", "is_signed", "public_key_of", "sign"]

SIGNATURE_BYTES = 64


def public_key_of(seed: bytes) -> bytes:
    """The public key of ``seed``.

    Raises:
        CodecError: the seed has not 32 bytes, as for :func:`sign`.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(_whole(seed, "a seed")).public_key().public_bytes_raw()


def sign(seed: bytes, data: bytes) -> bytes:
    """The signature of ``seed``'s key over ``data``."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(_whole(seed, "a seed")).sign(data)


def is_signed(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Did the holder of ``public_key`` make ``signature`` over ``data``? A signature of another length is none.

    Raises:
        CodecError: the public key has not 32 bytes.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(_whole(public_key, "a public key"))
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _whole(key: bytes, what: str) -> bytes:
    if len(key) != 32:
        raise CodecError(f"{what} of {len(key)} bytes", "an Ed25519 key has 32 bytes", "give the raw key")
    return key
