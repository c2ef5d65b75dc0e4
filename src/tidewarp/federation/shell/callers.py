"""Whom a server answers: asked anew for each connection and each request, so that what is adopted counts at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from tidewarp.federation.shell.tls import Tls
from tidewarp.store.admission import Role

__all__ = ["Callers", "FixedCallers"]


class Callers(Protocol):
    """Who may speak to a server, and what he has."""

    def tls(self) -> Tls | None:
        """With which key the server speaks, the same object while nothing has changed; None: without TLS, to this machine."""

    def keys(self) -> frozenset[bytes]:
        """The keys (32 bytes each) that may speak over TLS."""

    def roles(self) -> Mapping[bytes, frozenset[Role]]:
        """What the policy gives to who holds one of them."""


class FixedCallers(NamedTuple):
    """Those who were known at the start."""

    spoken: Tls | None
    given: Mapping[bytes, frozenset[Role]]

    def tls(self) -> Tls | None:
        """As the protocol says."""
        return self.spoken

    def keys(self) -> frozenset[bytes]:
        """As the protocol says."""
        return frozenset() if self.spoken is None else self.spoken.pinned

    def roles(self) -> Mapping[bytes, frozenset[Role]]:
        """As the protocol says."""
        return self.given
