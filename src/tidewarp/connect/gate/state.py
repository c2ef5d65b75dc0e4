"""What the gate knows of one source: how far it is, how far it lets the clock go, and what was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from tidewarp.connect.contract import Decoder, Input
from tidewarp.connect.gate.messages import Policy
from tidewarp.units import TICK_MAX

__all__ = ["QUEUE_BYTES_MAX", "SourceState"]

QUEUE_BYTES_MAX: Final = 64 << 20  # of the long inputs that may wait, per source


class SourceState:
    """What the gate knows of one source."""

    def __init__(self, name: str, rank: int, policy: Policy) -> None:
        self.name = name
        self.rank = rank
        self.policy = policy
        self.decoder: Decoder | None = None  # of messages that need one
        self.open = False
        self.reading = False
        self.ended = False
        self.outstanding = 0  # admitted, not yet granted
        self.long: dict[tuple[int, int], int] = {}  # of these, (partition, offset) -> bytes of the long ones
        self.long_bytes = 0
        self.positions: dict[int, int] = {}  # partition -> last offset admitted or buried
        self.highest: dict[int, int] = {}  # partition -> highest event tick admitted: what late is measured by
        self.durable: dict[int, int] = {}  # likewise of what the journal holds: the watermark, since it moves the clock
        # Below this tick an event is too late. By what was admitted, not by what the clock has made of it: so the
        # same messages are too late in every life, whatever the batches and the timing. It never goes back, not
        # even when a partition shows itself late.
        self.bound = 0
        self.reached = -1  # where its end had let the clock go before it was opened again
        self.peaks: dict[int, int] = {}  # partition -> offset of its highest event
        self.counts: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.letter_bytes = 0
        self.clamped_to = -1  # the highest tick that a late input was moved to

    @property
    def watermark(self) -> int:
        """The clock may not pass this tick (exclusive); -1 before the first event."""
        if self.ended:
            return TICK_MAX
        return min(self.durable.values()) - self.policy.disorder if self.durable else -1

    @property
    def full(self) -> bool:
        """May nothing more wait?"""
        return self.outstanding >= self.policy.queue or self.long_bytes >= QUEUE_BYTES_MAX

    def admit_long(self, one: Input, size: int) -> None:
        """Count an input of many bytes that waits."""
        self.long[one.partition, one.offset] = size
        self.long_bytes += size

    def note(self, one: Input) -> None:
        """Count an input in order of arrival. Late: below the highest event time seen in its partition."""
        self.counts["inputs"] += 1
        event_tick = one.event_tick
        if one.tick != event_tick:
            self.counts["clamped"] += 1
            self.clamped_to = max(self.clamped_to, one.tick)
        highest = self.highest.get(one.partition)
        if highest is None or event_tick > highest:
            self.rise(one.partition, event_tick, one.offset)
        elif event_tick < highest:
            self.counts["late"] += 1

    def rise(self, partition: int, event_tick: int, offset: int) -> None:
        """The highest event tick of a partition is now this, of the message at ``offset``."""
        self.highest[partition] = event_tick
        self.peaks[partition] = offset
        lowest = event_tick if len(self.highest) == 1 else min(self.highest.values())
        self.bound = max(self.bound, lowest - self.policy.disorder)

    def hold(self, highest: Mapping[int, int]) -> None:
        """The journal has inputs up to these event ticks, by partition."""
        for partition, event_tick in highest.items():
            self.durable[partition] = max(event_tick, self.durable.get(partition, event_tick))
