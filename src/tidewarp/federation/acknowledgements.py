"""Federation's guard of a collection: hidden bytes stay until every peer has shown that it holds the tombstone.

A peer that does not know of a tombstone shows the artifact still, and may ask for its bytes. What a peer holds is known from
its own heads (:meth:`~tidewarp.federation.ledger.Ledger.acked`): signed by the origin, and the same as ours at that size. A
peer that nobody can pull from is never asked, so it is waited for until it is no peer any more.

An erasure is not asked about: it overrides peers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tidewarp.codec.bodies import ArtifactBody, EdgeBody, ReceiptBody, TombstoneBody
from tidewarp.codec.records import PUBLISHED
from tidewarp.codec.references import Reference
from tidewarp.federation.peers import Peer
from tidewarp.store.admission import Admission
from tidewarp.store.retention import Word

__all__ = ["UNACKNOWLEDGED", "AwaitedPeers"]

UNACKNOWLEDGED = "unacknowledged"


class AwaitedPeers:
    """The :class:`~tidewarp.store.retention.Guard` that waits for peers.

    Args:
        peers: of this site. Those are waited for whose domain counts.
        acked: by the address of a peer and by origin (32 bytes), how many records it has shown to hold.
        admission: of the policy in force.
    """

    name = UNACKNOWLEDGED

    def __init__(self, peers: Collection[Peer], acked: Mapping[str, Mapping[bytes, int]], admission: Admission) -> None:
        self._admission = admission
        self._peers = [
            (one.domain, acked.get(one.url, {}) if one.url else {})
            for one in peers
            if admission.standing(one.domain) is not None
        ]

    def objects(self, ref: Reference, words: Sequence[Word]) -> bool:
        """Whether a peer that may show the artifact has not shown that it holds the last tombstone of each domain."""
        if not self._peers or not any(_adds(word) for word in words):
            return False
        stones = {
            word.domain: word.seq
            for word in words
            if isinstance(word.body, TombstoneBody) and self._admission.standing(word.domain) is not None
        }
        return any(
            origin != writer and held.get(origin, 0) < seq
            for writer, held in self._peers
            for origin, seq in stones.items()
        )


def _adds(word: Word) -> bool:
    """Whether other sites have been told of the artifact."""
    return bool(word.flags & PUBLISHED) and isinstance(word.body, ArtifactBody | EdgeBody | ReceiptBody)
