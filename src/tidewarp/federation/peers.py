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
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from tidewarp.errors import OperatorError
from tidewarp.federation.addresses import ADDRESS_RULE, parse_address
from tidewarp.federation.reading import StrictReader

__all__ = ["Peer", "Peers"]

_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PEERS_MAX = 4_096
_ACTION = "write it as: tidewarp peer trust"
_READER = StrictReader(_ACTION)


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
                raise OperatorError(f"quota of {domain.hex()}: {quota!r:.40}", "it is a number of bytes", _ACTION)

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
        table = _READER.table(_READER.toml(text, "peers"), "peers", ("peers", "quotas"))
        peers = [_peer_of(name, one) for name, one in _READER.table(table.get("peers", {}), "peers").items()]
        quotas = {
            _READER.hash32(domain, "quota of domain"): quota
            for domain, quota in _READER.table(table.get("quotas", {}), "quotas").items()
        }
        return cls(tuple(peers), quotas)


def _check_peer(peer: Peer) -> None:
    if not _NAME.fullmatch(peer.name):
        raise OperatorError(
            f"name {peer.name!r:.80}", "a name has at most 64 letters, digits and ._-", "choose another"
        )
    if len(peer.key) != 32 or len(peer.domain) != 32:
        rule = "a public key and a domain have 32"
        raise OperatorError(f"key of {len(peer.key)} bytes, domain of {len(peer.domain)}", rule, "give all of it")
    if peer.url and parse_address(peer.url) is None:
        raise OperatorError(f"peer {peer.name}: url {peer.url!r:.80}", ADDRESS_RULE, "give its address")


def _peer_of(name: str, document: object) -> Peer:
    peer = f"peer {name!r:.80}"
    table = _READER.table(document, peer, ("domain", "key", "url"))
    url = table.get("url", "")
    if type(url) is not str:
        raise OperatorError(f"{peer}: url {url!r:.80}", "it is text", _ACTION)
    domain, key = (_READER.hash32(table.get(one), f"{peer}: {one}") for one in ("domain", "key"))
    return Peer(name, domain, key, url)
