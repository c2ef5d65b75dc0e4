"""Peers as sources of bytes that are damaged here."""

from __future__ import annotations

import tempfile
from typing import BinaryIO, cast

from tidewarp.codec.bodies import ArtifactBody
from tidewarp.codec.references import Reference
from tidewarp.errors import PeerRefused
from tidewarp.federation.messages import GetArtifact
from tidewarp.federation.shell import PeerClient
from tidewarp.federation.verify import Wanted

__all__ = ["PeerSource"]

_IN_MEMORY_BYTES = 1 << 20
_OK = 200


class PeerSource:
    """The artifacts of one peer. ``fault`` says why it gives none any more, and is empty while it does."""

    def __init__(self, client: PeerClient, domain: bytes) -> None:
        self.fault = ""
        self._client = client
        self._domain = domain

    def fetch(self, ref: Reference, size: int) -> BinaryIO | None:
        """As :class:`~tidewarp.store.damage.ByteSource` says."""
        if self.fault:
            return None
        file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # who takes it closes it
        try:
            answer = self._client.ask(GetArtifact(self._domain, Wanted(0, ref, ArtifactBody(ref, None, size))))
            if answer.status == _OK:
                for piece in [answer.body] if isinstance(answer.body, bytes) else answer.body:
                    file.write(piece)
        except (OSError, PeerRefused) as error:
            self.fault = f"{self._client.url}: {error}"
        if self.fault or answer.status != _OK:
            file.close()
            return None
        file.seek(0)
        return cast("BinaryIO", file)
