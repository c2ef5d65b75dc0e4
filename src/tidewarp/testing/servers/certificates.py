"""Certificates for servers on loopback and their clients, made anew by the program ``openssl``."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from tidewarp.testing.servers.base import HOST, program

__all__ = ["Certificates", "make_certificates"]

_REMEDY = "apt-get install openssl"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Certificates(NamedTuple):
    """Files in PEM form. Of ``server`` and ``client`` each holds the key (PKCS#8) and behind it the certificate."""

    authority: Path  # what both sides trust
    server: Path  # for 127.0.0.1 and localhost
    client: Path


def make_certificates(folder: Path) -> Certificates:
    """An authority, and what it has signed for a server and a client; valid for two days.

    Raises:
        MissingExtra: there is no program ``openssl``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority, key = folder / "authority.pem", folder / "authority.key"
    _openssl("req", "-x509", *_KEY, "-subj", "/CN=authority", "-days", "2", "-keyout", key, "-out", authority)
    signed = ("-CA", authority, "-CAkey", key, "-days", "2", "-addext", "basicConstraints=CA:FALSE")
    files = []
    for name in ("server", "client"):
        own, certificate, file = folder / f"{name}.key", folder / f"{name}.crt", folder / f"{name}.pem"
        names = ("-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{HOST},DNS:localhost")
        _openssl("req", "-x509", *_KEY, *names, *signed, "-keyout", own, "-out", certificate)
        file.write_bytes(own.read_bytes() + certificate.read_bytes())
        files.append(file)
    return Certificates(authority, *files)


def _openssl(*words: str | Path) -> None:
    subprocess.run([program("openssl", _REMEDY), *map(str, words)], check=True, capture_output=True)
