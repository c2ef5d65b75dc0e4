"""How an engine of nodes keeps step with the physical side: three policies, one for each mode.

A policy says which event may run, which input is too late, and what can be moved when nothing may run. Everything else
is the same in all modes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tidewarp.kernel.lookahead import NullMessageOptimizer
from tidewarp.kernel.node_events import Key
from tidewarp.kernel.node_inbox import Inbox
from tidewarp.kernel.node_traffic import FOREVER, Traffic
from tidewarp.units import TICK_MAX

__all__ = ["Conservative", "Lockstep", "Optimistic", "Policy"]


class Policy(Protocol):
    """What the engine asks."""

    stands: str
    """What ``bound_ns`` is, in words."""

    def may_run(self, key: Key) -> bool:
        """Whether an event may be executed as things stand."""

    def open_up(self) -> None:
        """The least event may not run: move what can be moved without anybody else."""

    def bound_ns(self, node: int) -> int:
        """The first time at which input for a node is taken."""

    def precedes(self, key: Key) -> bool:
        """Whether an event at that time or later is too late all the same."""


class Optimistic:
    """Run ahead, at most ``window_ns`` beyond GVT, and repair."""

    stands = "GVT stands"

    def __init__(self, traffic: Traffic, window_ns: int | None, compute_gvt: Callable[[], int]) -> None:
        self._traffic = traffic
        self._window_ns = window_ns
        self._compute_gvt = compute_gvt

    def may_run(self, key: Key) -> bool:
        """Within the window."""
        return self._window_ns is None or key[0] < self._traffic.rounds.gvt[0] + self._window_ns

    def open_up(self) -> None:
        """Move GVT, and the window with it."""
        if self._window_ns is not None:
            self._compute_gvt()

    def bound_ns(self, node: int) -> int:
        """Whatever GVT has not passed can be repaired."""
        return 0

    def precedes(self, key: Key) -> bool:
        """Nothing is too late above GVT."""
        return False


class Lockstep:
    """Both sides step together: nothing runs beyond the latest input, no input comes before the last executed event."""

    stands = "both sides have come together, and stand"

    def __init__(self, inbox: Inbox, now_ns: Callable[[], int]) -> None:
        self._inbox = inbox
        self._now_ns = now_ns

    def may_run(self, key: Key) -> bool:
        """Up to where the physical side stands."""
        return key[0] <= self._inbox.frontier_ns

    def open_up(self) -> None:
        """Only the physical side can go on."""

    def bound_ns(self, node: int) -> int:
        """Now or later."""
        return self._now_ns()

    def precedes(self, key: Key) -> bool:
        """At the same instant the order of keys is repaired."""
        return False


class Conservative:
    """Execute only what nothing can precede: below watermarks, and below what the other nodes promise.

    ``exchanges``: whether nodes may send to one another at all. Promises are renewed when nothing may run, and never before:
    null messages on demand.
    """

    stands = "the node has executed or promised, and stands"

    def __init__(self, traffic: Traffic, inbox: Inbox, promises: NullMessageOptimizer, exchanges: bool) -> None:
        self._traffic = traffic
        self._inbox = inbox
        self._promises = promises
        self._exchanges = exchanges
        self._checked = not exchanges

    def may_run(self, key: Key) -> bool:
        """Below the time that nothing for its node arrives under any more."""
        promised = self._promises.safe_advance_time(key[2]) if self._exchanges else FOREVER
        return key[0] < min(self._inbox.held_ns, promised)

    def open_up(self) -> None:
        """All nodes promise anew: none sends before its next event, nor before what another's can cause.

        Raises:
            ZeroLookahead: a cycle of nodes without lookahead.
        """
        if not self._checked:
            self._promises.require_progress()
            self._checked = True
        firsts = [TICK_MAX if first is None else first[0] for first in self._traffic.firsts]
        for node, time in enumerate(self._promises.earliest(firsts)):
            come_ns = min(time, self._inbox.held_ns, TICK_MAX)
            if come_ns > self._promises.configs[node].last_null_message_ns:
                self._promises.broadcast_null(node, come_ns)

    def bound_ns(self, node: int) -> int:
        """What a node has promised, or executed: nothing is ever undone."""
        executed = self._traffic.executed(node)
        done_ns = executed[-1].event[0] if executed else 0
        return max(done_ns, self._promises.configs[node].last_null_message_ns)

    def precedes(self, key: Key) -> bool:
        """At the same time, by the key, not after what its node has executed."""
        executed = self._traffic.executed(key[2])
        return bool(executed) and key <= executed[-1].event[:5]
