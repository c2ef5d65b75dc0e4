"""TLS 1.3 between sites. The identity of a site is an Ed25519 public key; names of hosts and dates play no part.

A site shows a certificate that its key has signed for itself. Who has pinned that key trusts, for this one connection,
what the key has signed and nothing else: no authority of the system is asked. A certificate that the pinned key signed
for another key would pass there, so both sides compare the key of the certificate again once the handshake is done.

Only the key is pinned, and OpenSSL wants certificates as its roots. So one is made for each pinned key, under the name
that the certificates of that key give as their issuer. A root is trusted for its key, its own signature is not read.

The private key stands with the certificate in one PEM file, of mode 0600. Nothing here keeps it, shows it or logs it.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Collection
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from tidewarp.codec.ed25519 import public_key_of
from tidewarp.errors import OperatorError, PeerRefused
from tidewarp.store.files import open_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.x509 import Certificate

__all__ = ["Tls", "check_peer_key", "make_identity", "public_key_in"]

_FILE_BYTES_MAX = 64 << 10
_SERIAL = 1
_RESTRICTED = 0o077  # what nobody but the owner may have of a private key


class Tls:
    """How a site speaks TLS: with the key and the certificate in ``file``, to who holds one of the ``pinned`` keys (32 bytes each).

    Raises:
        OperatorError: the file is missing, readable by others, or no such file; nobody is pinned.
    """

    def __init__(self, file: Path, pinned: Collection[bytes]) -> None:
        self.pinned = frozenset(pinned)
        self._file = file
        self.public_key = public_key_in(file)
        """Of this site, 32 bytes: what the others pin."""
        if not self.pinned:
            raise OperatorError(
                "TLS", "no peer's key is known here", "name one: tidewarp peer trust DIR NAME --key HEX"
            )

    def __repr__(self) -> str:
        """Where the key lies, and not what it is."""
        return f"Tls({str(self._file)!r}, {len(self.pinned)} pinned)"

    def server(self) -> ssl.SSLContext:
        """For who listens: asks every client for a certificate, and resumes no session."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0
        return context

    def client(self) -> ssl.SSLContext:
        """For who asks."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the key is the identity
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata="".join(_root(key) for key in sorted(self.pinned)))
        try:
            context.load_cert_chain(self._file, password=_no_password)
        except ssl.SSLError:
            rule = "its private key is sealed, damaged, or not that of its certificate"
            raise OperatorError(str(self._file), rule, "name a file that is not there: it is made") from None
        return context


def check_peer_key(connection: ssl.SSLSocket, pinned: Collection[bytes], who: str) -> bytes:
    """The public key (32 bytes) of the other side, after the handshake.

    Raises:
        PeerRefused: it is not one of ``pinned``.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    shown = connection.getpeercert(binary_form=True)
    key = None if shown is None else x509.load_der_x509_certificate(shown).public_key()
    raw = key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else b""
    if raw not in pinned:
        raise PeerRefused(who, f"its key is {raw.hex() or 'none'}, which is not the one pinned", "ask its operator")
    return raw


def make_identity(file: Path, seed: bytes) -> None:
    """Write ``file``: the private key of ``seed`` (32 bytes) and its certificate, unless it is there. Durable on return.

    Raises:
        OperatorError: it cannot be written.
    """
    if file.exists():
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(_identity(seed))
            stream.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise OperatorError(str(file), f"cannot be written: {error.strerror}", "name another place") from None


def public_key_in(file: Path) -> bytes:
    """The public key (32 bytes) of the certificate in ``file``.

    Raises:
        OperatorError: it is missing, others may read it, or it has no Ed25519 key with its certificate.
    """
    try:
        with BufferedReader(open_regular(file)) as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            key = None if mode & _RESTRICTED else _public_key(stream.read(_FILE_BYTES_MAX))
    except OSError as error:
        raise OperatorError(str(file), f"cannot be read: {error.strerror}", "name the PEM file of this site") from None
    if mode & _RESTRICTED:
        rule = f"a private key is for its owner alone, this file has mode {mode:o}"
        raise OperatorError(str(file), rule, f"chmod 600 {file}")
    if key is None:
        rule = "it has no Ed25519 private key and its certificate, in PEM"
        raise OperatorError(str(file), rule, "name a file that is not there: it is made")
    return key


def _public_key(data: bytes) -> bytes | None:
    """The key of the certificate in ``data``; None if that is no identity."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = x509.load_pem_x509_certificate(data).public_key()
    except ValueError:
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) and b"PRIVATE KEY" in data else None


def _identity(seed: bytes) -> bytes:
    """The PEM bytes of a private key and its certificate: a function of the seed."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(seed)
    certificate = _signed(private, private.public_key(), f"tidewarp {public_key_of(seed).hex()[:32]}", is_root=False)
    unsealed = serialization.NoEncryption()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unsealed)
    return pem + certificate.public_bytes(serialization.Encoding.PEM)


def _root(key: bytes) -> str:
    """A root, as PEM, which makes OpenSSL trust what ``key`` (32 bytes) has signed."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    nobody = Ed25519PrivateKey.from_private_bytes(bytes(32))  # the signature of a root is not read
    name = f"issuer {key.hex()[:32]}"
    root = _signed(nobody, Ed25519PublicKey.from_public_bytes(key), name, is_root=True, issuer=name)
    return root.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _signed(
    signer: Ed25519PrivateKey, key: Ed25519PublicKey, subject: str, *, is_root: bool, issuer: str = ""
) -> Certificate:
    """A certificate without an end: the dates are those that RFC 5280 has for such."""
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.x509.oid import NameOID

    name = issuer or f"issuer {signer.public_key().public_bytes_raw().hex()[:32]}"
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .public_key(key)
        .serial_number(_SERIAL + is_root)
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .sign(signer, None)
    )


def _no_password() -> str:
    """Never ask at a terminal: a key under a password is refused."""
    return ""
