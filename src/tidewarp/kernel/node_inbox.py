"""What comes into an engine of nodes from outside: sources, their numbers and watermarks, and what can be taken back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tidewarp.clocks.logical import checked_int
from tidewarp.errors import RangeError
from tidewarp.kernel.node_events import Key, TwinEvent
from tidewarp.kernel.node_traffic import FOREVER, Traffic
from tidewarp.kernel.records import Event
from tidewarp.units import TICK_MIN

__all__ = ["Inbox"]

INJECTED_MAX = 2**62 - 1  # sequence numbers above it are those of what nodes send


class Inbox:
    """The injected events that are not committed, and the promises of their sources.

    ``frontier_ns`` is the latest input or watermark: where the physical side stands, -1 before the first.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.frontier_ns = -1
        self._traffic = traffic
        self._following: dict[int, int] = {}  # source -> the next sequence number
        self._given: dict[Key, tuple[TwinEvent | None, int]] = {}
        self._watermarks: dict[int, int] = {}
        self._fed: dict[int, set[int]] = {}  # source -> nodes that it gave events to

    def numbered(self, event: TwinEvent, made: Event) -> Event:
        """``made``, a copy of an event, with the event's sequence number or the next of its source.

        Raises:
            RangeError: the number is taken, or too large.
        """
        sequence = self._following.get(event.source_node, 0) if event.sequence < 0 else event.sequence
        made = (*made[:4], sequence, made[5])
        if made[:5] in self._given or sequence > INJECTED_MAX:
            raise RangeError(
                f"sequence {sequence} of source {event.source_node}",
                f"an event has a number of its own, at most {INJECTED_MAX}",
                "leave it at -1, or count the source's events",
            )
        return made

    def add(self, event: TwinEvent, made: Event) -> None:
        """Queue ``made``, and stamp the event that it is a copy of."""
        event.sequence = sequence = made[4]
        self._following[event.source_node] = max(self._following.get(event.source_node, 0), sequence + 1)
        self._fed.setdefault(event.source_node, set()).add(event.target_node)
        self._given[made[:5]] = (event, self._traffic.inject(made))
        self.frontier_ns = max(self.frontier_ns, event.virtual_time_ns)

    def add_again(self, event: Event) -> None:
        """Queue an event of an earlier life as it is."""
        number = self._traffic.inject(event)
        if event[4] <= INJECTED_MAX:
            self._given[event[:5]] = (None, number)

    def retract(self, key: Key) -> bool:
        """Cancel an event; False if it is committed, or was never injected here."""
        if key not in self._given:
            return False
        self._cancel(key)
        return True

    def annihilates(self, key: Key) -> bool:
        """Whether the user has marked this event as cancelled; then it is gone."""
        event = self._given.get(key, (None, 0))[0]
        if event is None or not event.cancelled:
            return False
        self._cancel(key)
        self._traffic.settle()
        return True

    def _cancel(self, key: Key) -> None:
        self._traffic.retract(key, self._given.pop(key)[1])

    def forget(self, keys: Iterable[Key]) -> None:
        """These are committed: they cannot be taken back any more."""
        for key in keys:
            self._given.pop(key, None)

    # --- watermarks -------------------------------------------------------------------------------

    @property
    def held_ns(self) -> int:
        """The least watermark; without one nothing is held."""
        return min(self._watermarks.values(), default=FOREVER)

    def watermark(self, source: int, tick_ns: int) -> None:
        """Take a source's promise.

        Raises:
            RangeError: it would go back.
        """
        source = checked_int("source_node", source, TICK_MIN)
        self._watermarks[source] = checked_int("watermark tick_ns", tick_ns, self.watermark_of(source))
        self.frontier_ns = max(self.frontier_ns, tick_ns)

    def watermark_of(self, source: int) -> int:
        """What a source has promised last; 0 if it never did."""
        return self._watermarks.get(source, 0)

    def close(self) -> None:
        """No input comes any more: nothing is held."""
        self._watermarks.clear()

    def starving(self, behind_ns: int) -> set[int]:
        """The nodes of sources whose watermark is below a time."""
        late = [source for source, tick in self._watermarks.items() if tick < behind_ns]
        return {node for source in late for node in self._fed.get(source, ())}

    # --- bytes ------------------------------------------------------------------------------------

    def books(self) -> dict[str, Any]:
        """All but the events, as a plain value."""
        return {
            "following": dict(self._following),
            "watermarks": dict(self._watermarks),
            "fed": {source: sorted(nodes) for source, nodes in self._fed.items()},
            "frontier_ns": self.frontier_ns,
        }

    def resume(self, books: dict[str, Any]) -> None:
        """Go on with the books of an earlier life."""
        self._following.update(books["following"])
        self._watermarks.update(books["watermarks"])
        self._fed.update({source: set(nodes) for source, nodes in books["fed"].items()})
        self.frontier_ns = books["frontier_ns"]
