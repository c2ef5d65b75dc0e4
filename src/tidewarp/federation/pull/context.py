"""What the steps of one pull share: the own holdings as they were at its beginning, and what may be taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tidewarp.codec.batches import BATCH_ITEMS_MAX
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.records import genesis
from tidewarp.codec.references import Reference
from tidewarp.errors import InternalError
from tidewarp.federation.contract import DomainState, Holdings
from tidewarp.federation.messages import Bridge
from tidewarp.federation.verify import Prefix

__all__ = ["ARTIFACT_BYTES_MAX", "RECORDS_PER_BATCH", "Context"]

RECORDS_PER_BATCH = 5_000
ARTIFACT_BYTES_MAX = 16 << 30

_GROWING = ("live", "behind")


class Context:
    """The arguments of :class:`~tidewarp.federation.pull.PullMachine` that say what may be taken, and what has been.

    ``room``: records that may still be taken; None: any number. ``absent``: artifacts whose bytes did not come with the
    records that this pull has committed. ``not_given``: artifacts that the peer, or anybody, does not have to give.
    """

    def __init__(
        self,
        holdings: Holdings,
        domains: Collection[bytes] | None,
        frozen: Mapping[bytes, int],
        chosen: Mapping[bytes, Mapping[int, bytes]],
        bridges: Mapping[bytes, Bridge],
        limit: int,
        artifact_bytes_max: int,
        until: int | None,
        room: int | None,
    ) -> None:
        if not 1 <= limit <= BATCH_ITEMS_MAX:
            raise InternalError(f"limit {limit}", f"a batch has 1 to {BATCH_ITEMS_MAX} records", "give one of these")
        self.holdings = holdings
        self.domains = None if domains is None else frozenset(domains)
        self.frozen = frozen
        self.chosen = chosen
        self.bridges = bridges
        self.limit = limit
        self.artifact_bytes_max = artifact_bytes_max
        self.until = until
        self.room = room
        self.absent: set[Reference] = set()
        self.not_given: set[Reference] = set()
        self.held: dict[bytes, DomainState] = {}

    def begin(self) -> None:
        """Look at what is held."""
        self.held = {one.id: one for one in self.holdings.domains()}

    def size(self, domain: bytes) -> int:
        """Records of ``domain`` that were held when the pull began."""
        return self.held[domain].size if domain in self.held else 0

    def is_frozen(self, domain: bytes) -> bool:
        """May nothing be added to it, since its conflict is open? What comes before a fork may."""
        state, size = self.held.get(domain), self.size(domain)
        return size >= self.frozen.get(domain, size + 1) or (state is not None and state.status not in _GROWING)

    def prefix(self, domain: bytes) -> Prefix:
        """What is held of ``domain``."""
        state = self.held.get(domain)
        if state is None or not state.size:
            return Prefix(0, genesis(domain), Frontier())
        return Prefix(state.size, state.head, self.holdings.frontier(domain))
