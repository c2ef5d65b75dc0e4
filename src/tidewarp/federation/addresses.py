"""Addresses of peers: http://HOST:PORT or https://HOST:PORT, and nothing else that a URL may have."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ADDRESS_RULE", "Address", "parse_address"]

_PORT_MAX = 65_535
_HOST_MAX = 253  # RFC 1035, section 2.3.4: 255 octets, of which text has two less; a label has 63
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_ADDRESS = re.compile(rf"(https?)://(?:\[([0-9A-Fa-f:.]+)\]|({_LABEL}(?:\.{_LABEL})*\.?))(?::([0-9]{{1,5}}))?/?")

ADDRESS_RULE = f"the address of a peer is http://HOST:PORT or https://HOST:PORT, and a port is 1 to {_PORT_MAX}"


class Address(NamedTuple):
    """Scheme, host (an IPv6 address without its brackets) and port; None: the one of the scheme."""

    scheme: str
    host: str
    port: int | None


def parse_address(url: str) -> Address | None:
    """What ``url`` says; None if it breaks :data:`ADDRESS_RULE`."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        return None
    scheme, bracketed, name, digits = found.groups()
    port = None if digits is None else int(digits)
    if len(name or "") > _HOST_MAX or (port is not None and not 1 <= port <= _PORT_MAX):
        return None
    return Address(scheme, bracketed or name, port)
