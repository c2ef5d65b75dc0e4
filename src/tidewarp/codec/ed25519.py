"""Ed25519 (RFC 8032): a seed of 32 bytes, its public key of 32, signatures of 64. Deterministic, hence pure.

`cryptography` is imported where it is used: that takes 30 ms, and who reads or runs needs none of it.
"""

from __future__ import annotations

from tidewarp.errors import CodecError

__all__ = ["SIGNATURE_BYTES", "is_public_key", "is_signed", "public_key_of", "sign"]

SIGNATURE_BYTES = 64

_P = (1 << 255) - 19  # the field
_D = -121665 * pow(121666, -1, _P) % _P  # of the curve -x² + y² = 1 + d x² y²
_ORDER_8_Y = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_8_Y, _P - _ORDER_8_Y})


def public_key_of(seed: bytes) -> bytes:
    """The public key of ``seed``.

    Raises:
        CodecError: the seed has not 32 bytes, as for :func:`sign`.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(_whole(seed, "a seed")).public_key().public_bytes_raw()


def is_public_key(data: bytes) -> bool:
    """Can ``data`` be somebody's public key? The 32 bytes of a point of the curve, in their one form (RFC 8032, 5.1.3).

    A point of small order is refused: it is nobody's, and everybody can make signatures that fit it.
    """
    number = int.from_bytes(data, "little")
    y = number & (1 << 255) - 1  # the bit above is the sign of x
    if len(data) != 32 or y >= _P or y in _SMALL_ORDER_Y:
        return False
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P  # x²
    return pow(square, (_P - 1) // 2, _P) == 1


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
