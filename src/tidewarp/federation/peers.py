"""The peers of a site: what is its own affair, and no part of the policy: where they answer, their keys, their quotas.

    [peers.hall]
    domain = "<64 hexadecimal digits>"    # that it writes
    key = "<64 hexadecimal digits>"       # the Ed25519 public key of its certificate: pinned
    url = "https://192.0.2.7:7001"        # default: nobody pulls from it

    [quotas]                           # bytes of artifacts of a domain that this site takes
    <64 hexadecimal digits> = 1000000

The text is ``peers.toml`` of a store. It is not hashed, and no other site sees it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

from tidewarp.errors import OperatorError

__all__ = ["Peer", "Peers"]

_HEX = re.compile("[0-9a-f]{64}")
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_URL = re.compile(r"https?://[^\s/?#@\"\\]+")
_PEERS_MAX = 4_096
_ACTION = "write it as: tidewarp peer trust"


class Peer(NamedTuple):
    """A site, and the domain (32 bytes) that it writes.

    ``key`` is the Ed25519 public key (32 bytes) of its certificate, ``url`` empty where nobody pulls from it.
    """

    name: str
    domain: bytes
    key: bytes
    url: str = ""


class Peers:
    """All peers, by name, and the quotas of domains (32 bytes) in bytes.

    Raises:
        OperatorError: a name, an address, a key or a quota breaks its rule; two peers have one name, or one address.
    """

    def __init__(self, peers: tuple[Peer, ...] = (), quotas: Mapping[bytes, int] | None = None) -> None:
        self.peers = tuple(sorted(peers))
        self.quotas = MappingProxyType(dict(sorted((quotas or {}).items())))
        if len(self.peers) > _PEERS_MAX:
            raise OperatorError(f"{len(self.peers)} peers", f"there are at most {_PEERS_MAX}", "leave some out")
        for peer in self.peers:
            _check_peer(peer)
        for what in ([one.name for one in self.peers], [one.url for one in self.peers if one.url]):
            for one in what:
                if what.count(one) > 1:
                    raise OperatorError(one, "two peers have it", "give each its own")
        for domain, quota in self.quotas.items():
            if len(domain) != 32 or type(quota) is not int or not 0 <= quota < 1 << 63:
                raise OperatorError(f"quota {quota!r:.40}", "it is a number of bytes", _ACTION)

    def at(self, url: str) -> Peer | None:
        """The peer that answers at ``url``."""
        return next((one for one in self.peers if one.url and one.url.rstrip("/") == url.rstrip("/")), None)

    def of(self, domain: bytes) -> Peer | None:
        """The peer that writes ``domain`` (32 bytes)."""
        return next((one for one in self.peers if one.domain == domain), None)

    def keys(self) -> frozenset[bytes]:
        """The keys that are pinned, 32 bytes each."""
        return frozenset(one.key for one in self.peers)

    def including(self, peer: Peer) -> Peers:
        """The same, with ``peer`` in place of any of its name or domain."""
        others = (one for one in self.peers if one.name != peer.name and one.domain != peer.domain)
        return Peers((*others, peer), self.quotas)

    def to_toml(self) -> str:
        """The text that :meth:`from_toml` reads."""
        lines: list[str] = []
        for peer in self.peers:
            lines += [f'[peers."{peer.name}"]', f'domain = "{peer.domain.hex()}"', f'key = "{peer.key.hex()}"']
            lines += [f'url = "{peer.url}"', ""] if peer.url else [""]
        if self.quotas:
            lines += ["[quotas]", *(f"{domain.hex()} = {quota}" for domain, quota in self.quotas.items()), ""]
        return "\n".join(lines)

    @classmethod
    def from_toml(cls, text: str) -> Peers:
        """The peers of ``text``.

        Raises:
            OperatorError: no TOML, a key that is not known (the nearest one is named), or as the class.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise OperatorError("peers.toml", f"no TOML: {error}", _ACTION) from None
        table = _table(document, "peers.toml", ("peers", "quotas"))
        peers = [_peer_of(name, one) for name, one in _table(table.get("peers", {}), "peers").items()]
        quotas = {_hex(domain, "domain"): quota for domain, quota in _table(table.get("quotas", {}), "quotas").items()}
        return cls(tuple(peers), quotas)


def _check_peer(peer: Peer) -> None:
    if not _NAME.fullmatch(peer.name):
        raise OperatorError(
            f"name {peer.name!r:.80}", "a name has at most 64 letters, digits and ._-", "choose another"
        )
    if len(peer.key) != 32 or len(peer.domain) != 32:
        rule = "a public key and a domain have 32"
        raise OperatorError(f"key of {len(peer.key)} bytes, domain of {len(peer.domain)}", rule, "give all of it")
    if peer.url and not _URL.fullmatch(peer.url):
        rule = "the address of a peer is http://HOST:PORT or https://HOST:PORT"
        raise OperatorError(f"url {peer.url!r:.80}", rule, "give its address")


def _peer_of(name: str, document: object) -> Peer:
    table = _table(document, f"peer {name!r:.80}", ("domain", "key", "url"))
    url = table.get("url", "")
    if type(url) is not str:
        raise OperatorError(f"url {url!r:.80}", "it is text", _ACTION)
    return Peer(name, _hex(table.get("domain"), "domain"), _hex(table.get("key"), "key"), url)


def _table(value: object, what: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    if type(value) is not dict:
        raise OperatorError(f"{what}: {value!r:.40}", "it is a table", _ACTION)
    for key in value:
        if known is not None and key not in known:
            near = get_close_matches(key[:64], known, n=1, cutoff=0)
            raise OperatorError(
                f"key of {what}: {key!r:.80}", f"known are {', '.join(known)}", f"did you mean {near[0]}?"
            )
    return value


def _hex(text: object, what: str) -> bytes:
    if type(text) is not str or not _HEX.fullmatch(text):
        raise OperatorError(f"{what} {text!r:.80}", "it has 64 lower-case hexadecimal digits", "copy all of it")
    return bytes.fromhex(text)
