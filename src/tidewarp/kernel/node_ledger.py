"""The committed side of an engine of nodes: counts, digest, outputs, identities; and the check of causal order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias

from tidewarp.codec import Digest
from tidewarp.kernel.node_events import Key
from tidewarp.kernel.node_runtime import NodeState, packed
from tidewarp.kernel.records import Event
from tidewarp.kernel.trace import Output
from tidewarp.kernel.values import pack_value

__all__ = ["Effect", "NodeLedger", "causal_violations", "event_value"]

Effect: TypeAlias = tuple[Event, Sequence[Any], Sequence[tuple[int, Any]]]
"""An executed event, what it emitted, and what it added to identities."""


class NodeLedger:
    """Takes committed events in key order, as :class:`~tidewarp.kernel.trace.Ledger` does for models.

    The digest is a chain of one link for each event, so that it can be saved between any two of them.
    """

    def __init__(self, nodes: Sequence[NodeState], outputs_max: int) -> None:
        self.committed = 0
        self.released = 0
        self.heads = [bytes(32), bytes(32)]  # of the events, of the outputs
        self.outputs: deque[Output] = deque()
        self.outputs_max = outputs_max
        self.tick = -1
        self.at_tick = 0
        self._nodes = nodes

    @property
    def full(self) -> bool:
        """No more outputs fit until some are taken."""
        return len(self.outputs) >= self.outputs_max

    def commit(self, events: Sequence[Event]) -> None:
        """Chain committed events."""
        self.committed += len(events)
        for event in events:
            self.heads[0] = link(self.heads[0], event_value(event))

    def emit(self, event: Event, payloads: Sequence[Any]) -> None:
        """Put the outputs of a committed event out."""
        tick = event[0]
        self.heads[1] = link(self.heads[1], [*event[:5], *payloads])
        if tick != self.tick:
            self.tick, self.at_tick = tick, 0
        for payload in payloads:
            self.outputs.append(Output(f"{tick:016x}-{self.at_tick:08x}", tick, event[2], payload))
            self.at_tick += 1
            self.released += 1

    def add(self, adds: Sequence[tuple[int, Any]]) -> None:
        """Apply what a committed event added to identities."""
        for node, amount in adds:
            self._nodes[node].identity_deep += amount

    def digest(self, tail: Sequence[Effect], pending: Sequence[Event]) -> str:
        """SHA-256 (64 digits) over all effective events in key order, the nodes' states, and the events still to come.

        ``tail`` is what is executed and not committed. The result does not depend on where GVT stands.
        """
        events, outputs = self.heads
        deep = [node.identity_deep for node in self._nodes]
        for event, emitted, adds in sorted(tail, key=_key):
            events = link(events, event_value(event))
            if emitted:
                outputs = link(outputs, [*event[:5], *emitted])
            for place, amount in adds:
                deep[place] += amount
        digest = Digest("TWSYNC1")
        digest.add(events)
        digest.add(outputs)
        for node, identity in zip(self._nodes, deep, strict=True):
            digest.add(_node_bytes(node, identity))
        for event in sorted(pending, key=_event_key):
            digest.add(pack_value(event_value(event), "event"))
        return digest.hexdigest()


def link(head: bytes, value: list[Any]) -> bytes:
    """The next head of a chain: 32 bytes over the last and a value."""
    digest = Digest("TWSYNC1/link")
    digest.add(head)
    digest.add(pack_value(value, "event"))
    return digest.digest()


def event_value(event: Event) -> list[Any]:
    """An event as a value that :func:`~tidewarp.kernel.values.pack_value` takes; its cause is not in it."""
    delivery = event[5]
    return [*event[:5], delivery.event_type.value, delivery.payload, delivery.lamport_ts, delivery.vector_ts]


def _node_bytes(node: NodeState, identity: float) -> bytes:
    vector = None if node.vector_clock is None else node.vector_clock.clock
    draws = 0 if node.stream is None else node.stream.count
    fields = [node.local_virtual_time_ns, node.lamport.time, vector, draws, identity, packed(node)]
    return pack_value(fields, f"node {node.node_id}")


def _key(effect: Effect) -> Key:
    return effect[0][:5]


def _event_key(event: Event) -> Key:
    return event[:5]


def causal_violations(log: Sequence[tuple[Key, Key | None]]) -> list[tuple[int, int]]:
    """Pairs of places (i, j), i < j, that are the wrong way round in a log of (key, key of the cause).

    Two events of one node of which the first has the greater key, next to each other or not; and an event that stands
    before the one that sent it. Linear where all is well, quadratic in a node that is not in order.
    """
    wrong: set[tuple[int, int]] = set()
    places: dict[int, list[int]] = {}
    place_of: dict[Key, int] = {}
    for place, (key, _) in enumerate(log):
        places.setdefault(key[2], []).append(place)
        place_of[key] = place
    for own in places.values():
        keys = [log[place][0] for place in own]
        if any(b < a for a, b in itertools.pairwise(keys)):
            wrong |= {(i, j) for n, i in enumerate(own) for j in own[n + 1 :] if log[j][0] < log[i][0]}
    for place, (_, cause) in enumerate(log):
        sent = -1 if cause is None else place_of.get(cause, -1)
        if sent > place:
            wrong.add((place, sent))
    return sorted(wrong)
