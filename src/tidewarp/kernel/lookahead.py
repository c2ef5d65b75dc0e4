"""Promises: what lets a conservative engine go on without ever taking anything back.

Each PE (or node) tells the others how far it has come, in a *null message*; what it sends from then on arrives a
*lookahead* later at least. The least of what the others promise is the bound of one's own events (Chandy and Misra 1979,
Bryant 1977).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from tidewarp.errors import RangeError, RuleViolation, ZeroLookahead
from tidewarp.kernel.model import Links, Model
from tidewarp.kernel.partition import sources_of
from tidewarp.units import TICK_MAX

__all__ = ["LookaheadConfig", "NullMessageOptimizer", "links_between", "promises_between"]


@dataclass
class LookaheadConfig:
    """One node's promise: nothing that it sends arrives before ``last_null_message_ns + lookahead_ns``.

    Times are whole nanoseconds from 0 to 2**63 - 1.

    Raises:
        RangeError: a time that is none (also a ValueError).
    """

    node_id: int
    lookahead_ns: int = 1000
    last_null_message_ns: int = 0

    def __post_init__(self) -> None:
        _check("node_id", self.node_id)
        _check("lookahead_ns", self.lookahead_ns)
        _check("last_null_message_ns", self.last_null_message_ns)

    @property
    def bound_ns(self) -> int:
        """The first time at which something of this node may arrive."""
        return min(self.last_null_message_ns + self.lookahead_ns, TICK_MAX)

    def can_advance_to(self, target_ns: int) -> bool:
        """Whether a clock that waits for this node alone may stand at ``target_ns``.

        A clock may reach the bound; an event at the bound must wait, because something may still arrive at that very time.
        """
        return _check("target_ns", target_ns) <= self.bound_ns

    def send_null_message(self, current_ns: int) -> int:
        """Tell the others that this node has come to ``current_ns``; returns the bound that they may rely on.

        Raises:
            RuleViolation: an earlier time than was told before (also a ValueError).
        """
        if _check("current_ns", current_ns) < self.last_null_message_ns:
            raise RuleViolation(
                f"a null message of node {self.node_id} at {current_ns} ns",
                f"it told {self.last_null_message_ns} ns before, and a null message may not go back",
                "tell a time that never falls",
            )
        self.last_null_message_ns = current_ns
        return self.bound_ns


@dataclass
class NullMessageOptimizer:
    """The promises among ``num_nodes`` nodes, each with one lookahead for all others unless a pair has its own.

    The conservative engine of the Python tier keeps one for its PEs: promises are numbers that are looked up,
    never messages that wait in a queue.

    Raises:
        RangeError: a number of nodes below 1, a lookahead that is no time (also a ValueError).
    """

    num_nodes: int
    default_lookahead_ns: int = 1000
    configs: dict[int, LookaheadConfig] = field(init=False)
    _pairs: dict[tuple[int, int], int | None] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if _check("num_nodes", self.num_nodes) < 1:
            raise RangeError(f"num_nodes {self.num_nodes}", "there is one node at least", "correct the number")
        _check("default_lookahead_ns", self.default_lookahead_ns)
        self.configs = {node: LookaheadConfig(node, self.default_lookahead_ns) for node in range(self.num_nodes)}

    def set_lookahead(self, src: int, dst: int, ns: int | None) -> None:
        """What ``src`` sends to ``dst`` takes ``ns`` at least; None: it never sends there, so ``dst`` need not wait for it.

        Raises:
            RuleViolation: no such node, or one node twice (also a ValueError).
        """
        self._config(src), self._config(dst)
        if src == dst:
            raise RuleViolation(f"lookahead of node {src} to itself", "a node waits for others only", "name two nodes")
        self._pairs[src, dst] = None if ns is None else _check("ns", ns)

    def lookahead(self, src: int, dst: int) -> int | None:
        """The lookahead from ``src`` to ``dst``; None: no channel."""
        return self._pairs.get((src, dst), self._config(src).lookahead_ns)

    def promise(self, src: int, dst: int) -> int:
        """Nothing of ``src`` arrives at ``dst`` below this time any more; 2**63 - 1 without a channel."""
        ns = self.lookahead(src, dst)
        return TICK_MAX if ns is None else min(self.configs[src].last_null_message_ns + ns, TICK_MAX)

    def safe_advance_time(self, node_id: int) -> int:
        """The least promise that the others gave to ``node_id``: its clock may reach it, its events must lie below it.

        2**63 - 1 for a node that nobody sends to.
        """
        self._config(node_id)
        return min((self.promise(src, node_id) for src in self.configs if src != node_id), default=TICK_MAX)

    def broadcast_null(self, node_id: int, current_ns: int) -> int:
        """``node_id`` has come to ``current_ns``: what it sends from now on is sent then or later. Returns the least bound.

        Raises:
            RuleViolation: no such node, or an earlier time than before (also a ValueError).
        """
        self._config(node_id).send_null_message(current_ns)
        return min((self.promise(node_id, dst) for dst in self.configs if dst != node_id), default=TICK_MAX)

    def earliest(self, firsts: Sequence[int]) -> list[int]:
        """When each node can execute something at the earliest: its next event, of ``firsts``, or what another's can cause.

        ``firsts`` has one time for each node, 2**63 - 1 where nothing is left.
        """
        found = list(firsts)
        if not self._pairs:  # one lookahead for all: what the least event causes comes first
            caused = min(found) + self.default_lookahead_ns
            return [min(time, caused) for time in found]
        heap = [(time, node) for node, time in enumerate(found)]
        heapify(heap)
        while heap:
            time, src = heappop(heap)
            if time > found[src]:
                continue
            for dst in self.configs:
                ns = None if dst == src else self.lookahead(src, dst)
                if ns is not None and time + ns < found[dst]:
                    found[dst] = time + ns
                    heappush(heap, (found[dst], dst))
        return found

    def zero_cycle(self) -> list[int]:
        """Nodes that wait for each other without lookahead, each sending to the next and the last to the first; or none."""
        rest = {
            src: [dst for dst in self.configs if dst != src and self.lookahead(src, dst) == 0] for src in self.configs
        }
        while leaves := [node for node, targets in rest.items() if not any(dst in rest for dst in targets)]:
            for node in leaves:
                del rest[node]
        path = [min(rest)] if rest else []
        while path and path[-1] not in path[:-1]:
            path.append(min(dst for dst in rest[path[-1]] if dst in rest))
        return path[path.index(path[-1]) + 1 :] if path else []

    def require_progress(self) -> None:
        """Refuse lookaheads with which nodes would wait for each other for ever.

        Raises:
            ZeroLookahead: a cycle of channels whose lookaheads add up to 0; the error names it.
        """
        if cycle := self.zero_cycle():
            raise ZeroLookahead(
                " -> ".join(f"node {node}" for node in [cycle[-1], *cycle]),
                "the lookaheads of this cycle add up to 0, so each node waits for the next",
                "give one of its channels a lookahead above 0",
            )

    def _config(self, node_id: int) -> LookaheadConfig:
        if type(node_id) is not int or node_id not in self.configs:
            raise RuleViolation(f"node {node_id!r}", f"nodes are 0 to {self.num_nodes - 1}", "correct the number")
        return self.configs[node_id]


def links_between(model: Model, pe_of: Sequence[int], src_pe: int, dst_pe: int) -> tuple[int, int, int] | None:
    """The link (LP, LP, ticks) with the least lookahead from one PE to another; None where no LP sends across.

    A model without links lets every LP send to every other one, with the model's own lookahead.
    """
    owners = np.asarray(pe_of)
    if model.links is None:
        return int(np.argmax(owners == src_pe)), int(np.argmax(owners == dst_pe)), model.lookahead
    sources = sources_of(model.links)
    across = np.flatnonzero((owners[sources] == src_pe) & (owners[model.links.dst] == dst_pe))
    if not len(across):
        return None
    least = int(across[np.argmin(model.links.lookahead[across])])
    return int(sources[least]), int(model.links.dst[least]), int(model.links.lookahead[least])


def promises_between(model: Model, pe_of: Sequence[int]) -> NullMessageOptimizer:
    """The promises among the PEs of a partition: one lookahead for each pair, the least of all links that cross.

    Raises:
        ZeroLookahead: PEs that would wait for each other for ever; the error names the LPs.
    """
    model.freeze()
    promises = NullMessageOptimizer(max(pe_of) + 1, model.lookahead)
    if model.links is not None:
        least = _least_between(model.links, pe_of)
        for (src, dst), ns in np.ndenumerate(least):
            if src != dst:
                promises.set_lookahead(src, dst, None if ns < 0 else int(ns))
    if cycle := promises.zero_cycle():
        hops = [links_between(model, pe_of, src, dst) for src, dst in zip([cycle[-1], *cycle], cycle, strict=False)]
        named = [f"{model.path(hop[0])} -> {model.path(hop[1])}" for hop in hops if hop is not None]
        raise ZeroLookahead(
            f"PEs {', '.join(map(str, [cycle[-1], *cycle[:-1]]))} wait for each other: {', '.join(named)}",
            "the lookaheads of this cycle add up to 0, so no PE could ever be sure that nothing more comes",
            "declare a lookahead above 0 on one of these links, place these LPs on one PE, or use the optimistic kernel",
        )
    return promises


def _least_between(links: Links, pe_of: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[source PE, destination PE]: least lookahead of the links that cross, -1 without any."""
    owners = np.asarray(pe_of, np.int64)
    pes = int(owners.max()) + 1
    least = np.full((pes, pes), TICK_MAX, np.int64)
    crossed = np.zeros((pes, pes), np.bool_)
    ends = owners[sources_of(links)], owners[links.dst]
    np.minimum.at(least, ends, links.lookahead)
    crossed[ends] = True
    return np.where(crossed, least, -1)


def _check(what: str, value: int) -> int:
    if type(value) is not int or not 0 <= value <= TICK_MAX:
        raise RangeError(f"{what} {value!r}", "it is a whole number from 0 to 2**63 - 1", "correct it")
    return value
