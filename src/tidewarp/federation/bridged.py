"""What a bridge adds to the heads that are kept of a domain: records behind the last of them that can be shown too.

A pull that stopped within a batch holds records that no head ends with. The head of then covers them, and the consistency
proof that was checked when they came says so (:class:`~tidewarp.federation.messages.Bridge`). Who holds them shows both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tidewarp.codec.heads import SignedHead
from tidewarp.federation.contract import DomainState, Holdings
from tidewarp.federation.messages import Bridge
from tidewarp.store.signers import is_of_root, keys_of

__all__ = ["bridge_beyond"]


def bridge_beyond(
    holdings: Holdings, state: DomainState, heads: Sequence[SignedHead], bridges: Mapping[bytes, Bridge]
) -> Bridge | None:
    """The bridge of a foreign domain, if it covers more records than the last of its ``heads``, and others believe it.

    They do if the root key has signed the head that it leads to, or a key that the last of ``heads`` makes known: a list of
    keys that came meanwhile may have left out who signed it.
    """
    bridge = bridges.get(state.id)
    size = heads[-1].size if heads else 0
    if bridge is None or state.id == holdings.domain or not size < bridge.size <= state.size:
        return None
    declared = keys_of(holdings.keys_record(state.id, size)) if size else ()
    return bridge if any(is_of_root(bridge.head, key) for key in (state.key, *declared)) else None
