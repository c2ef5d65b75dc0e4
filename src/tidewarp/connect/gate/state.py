"""What the gate knows of one source: how far it is, how far it lets the clock go, and what was counted."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from tidewarp.connect.contract import Decoder, Input, Raw
from tidewarp.connect.gate.lateness import Lateness
from tidewarp.connect.gate.messages import Policy, Replayed
from tidewarp.connect.gate.room import Room
from tidewarp.errors import InternalError
from tidewarp.units import TICK_MAX

__all__ = ["IDS_MAX", "QUEUE_BYTES_MAX", "SourceState", "buried", "digest_of"]

QUEUE_BYTES_MAX: Final = 64 << 20  # of the long inputs that may wait, per source
IDS_MAX: Final = 65_536  # of the last messages, per source


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
        self.under_way = 0  # of these, on their way to the journal
        self.long: dict[tuple[int, int], int] = {}  # of these, (partition, offset) -> bytes of the long ones
        self.long_bytes = 0
        self.positions: dict[int, int] = {}  # partition -> last offset admitted or buried
        self.repeated: dict[int, int] = {}  # partition -> last offset of a duplicate by id, which no record holds
        self.to_confirm: dict[
            int, Mapping[int, int]
        ] = {}  # ticket -> positions that are durable, others before them not
        self.ids: dict[
            str, None
        ] = {}  # of the last messages that have one, in order of arrival; of letters see `buried`
        self.epoch_ns = 0  # Unix ns of tick 0
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

        # What follows is silence by a clock that stands still while an open source is not read: nobody hears it then.
        self.expected: frozenset[int] = frozenset()  # partitions that it reads, heard or not
        self.heard_s: dict[int, float] = {}  # partition -> when its last message came
        self.opened_s = 0.0
        self._unread_s = 0.0  # how far that clock is behind the host's
        self._unread_since_s: float | None = 0.0  # host time from which it stands still
        self.room: Room | None = None  # of a source that sheds
        if policy.full != "block":
            self.room = Room(policy.queue, QUEUE_BYTES_MAX, oldest=policy.full == "drop_oldest")
        self.present = 0  # the highest tick that virtual time had reached by the wall when it was heard
        self.pause_s = policy.retry_s[0]  # before it is opened again
        self.reason = ""  # why it is down, or has failed
        self.failed = False  # the run ends with it
        self.lateness = Lateness()

    def watermark(self, now_s: float) -> int:
        """The clock may not pass this tick (exclusive); -1 before the first event, TICK_MAX: it does not hold the clock."""
        if self.ended or not self.policy.wait:
            return TICK_MAX
        idle_s = self.policy.idle_s
        if idle_s is None:
            is_known = self.durable and self.durable.keys() >= self.expected
            return min(self.durable.values()) - self.policy.disorder if is_known else -1
        listened_s = self.listened_s(now_s)
        speaking = [
            tick for p, tick in self.durable.items() if listened_s < self.heard_s.get(p, self.opened_s) + idle_s
        ]
        is_known = self.durable and self.durable.keys() >= self.expected
        if not is_known and listened_s < self.opened_s + idle_s:
            return -1
        return min(speaking) - self.policy.disorder if speaking else TICK_MAX

    def silent_s(self, now_s: float) -> float:
        """The host time at which the next partition will have been silent for too long; inf if none will."""
        if self.ended or not self.policy.wait or self.policy.idle_s is None or self._unread_since_s is not None:
            return math.inf
        heard_s = [self.heard_s.get(p, self.opened_s) for p in {*self.durable, *self.expected}] or [self.opened_s]
        listened_s = self.listened_s(now_s)
        ends_s = (heard + self.policy.idle_s for heard in heard_s)
        return min((end_s for end_s in ends_s if end_s > listened_s), default=math.inf) + self._unread_s

    def listened_s(self, now_s: float) -> float:
        """Host time less that in which it was open and not read."""
        return (now_s if self._unread_since_s is None else self._unread_since_s) - self._unread_s

    def listen(self, now_s: float, *, on: bool) -> None:
        """It is read, or down, from now on (``on``), or it is open and not read."""
        if not on:
            self._unread_since_s = now_s if self._unread_since_s is None else self._unread_since_s
        elif self._unread_since_s is not None:
            self._unread_s += now_s - self._unread_since_s
            self._unread_since_s = None

    @property
    def horizon(self) -> int:
        """How far below the clock an input of it may still come in."""
        return 0 if self.ended else self.reach_back

    @property
    def reach_back(self) -> int:
        """Likewise in any life."""
        return self.policy.horizon if self.policy.late == "repair" else 0

    @property
    def state(self) -> str:
        """For people: starting, connected, paused (its queue is full), down (it is tried again), ended, failed (so does the run)."""
        if self.failed:
            return "failed"
        if self.ended:
            return "ended"
        if not self.open:
            return "down" if self.reason else "starting"
        return "paused" if self.full else "connected"

    @property
    def acknowledged(self) -> dict[int, int]:
        """What the target may forget once all of it is durable."""
        return _furthest(self.positions, self.repeated)

    @property
    def heard(self) -> dict[int, int]:
        """Behind what it is opened again: all that came, what waits to be admitted among it."""
        return self.acknowledged if self.room is None else _furthest(self.acknowledged, self.room.arrived)

    def acknowledged_in(self, partition: int) -> int:
        """The last offset of a partition that came; -1 if none did."""
        return max(self.positions.get(partition, -1), self.repeated.get(partition, -1))

    def has_buried(self, identity: str, raw: Raw) -> bool:
        """Did one of the last dead letters have this id, and these bytes? Others with its id may be its correction."""
        return bool(identity and self.dead) and buried(identity, digest_of(raw)) in self.ids

    def remember(self, identity: str) -> None:
        """Know this id again."""
        self.ids[identity] = None
        if len(self.ids) > IDS_MAX:
            del self.ids[next(iter(self.ids))]

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

    def recover(self, event: Replayed, floor: int) -> None:
        """Know again what a record of the journal says of it; the clock had come to ``floor``. Raises InternalError."""
        for one in event.inputs:
            if one.tick < floor:
                raise InternalError(f"an input at tick {one.tick}", f"the floor was {floor}", "report this")
            self.note(one)
            if one.offset > self.positions.get(one.partition, -1):  # else it was a dead letter before
                self.positions[one.partition] = one.offset
            self.counts["repaired"] += one.tick < event.admitted
        self.hold(self.highest)
        if self.policy.time == "arrival":
            self.present = max(self.present, *self.highest.values(), 0)
        self.outstanding += len(event.inputs)
        for partition, offset in event.positions.items():  # a dead letter may lie before the last input of its batch
            self.positions[partition] = max(offset, self.positions.get(partition, -1))
        for identity in event.ids:
            self.remember(identity)
        self.dead.update(event.dead)
        self.letter_bytes += event.letter_bytes
        self.counts["gaps"] += event.gaps
        self.counts.update(event.shed)
        if "late" in event.dead:
            self.counts["late"] += event.dead["late"]
            self.counts["dropped"] += event.dead["late"]
        self.ended = event.ended

    def rise(self, partition: int, event_tick: int, offset: int) -> None:
        """The highest event tick of a partition is now this, of the message at ``offset``."""
        self.highest[partition] = event_tick
        self.peaks[partition] = offset
        self._raise_bound()

    def _raise_bound(self) -> None:
        if self.highest.keys() >= self.expected:
            self.bound = max(self.bound, min(self.highest.values(), default=0) - self.policy.disorder)

    def expect(self, partitions: Collection[int]) -> None:
        """These are read: none of their messages is late because another partition was heard first."""
        if not self.expected:  # a replay does not know them, and took what it had heard for all there is
            self.bound = max(self.reached, 0)
        self.expected = frozenset(partitions)
        self._raise_bound()

    def hold(self, highest: Mapping[int, int]) -> None:
        """The journal has inputs up to these event ticks, by partition."""
        for partition, event_tick in highest.items():
            self.durable[partition] = max(event_tick, self.durable.get(partition, event_tick))


def digest_of(raw: Raw) -> bytes:
    """The SHA-256 of all bytes of a message."""
    return hashlib.sha256(raw.payload).digest() if raw.sha256 is None else raw.sha256


def buried(identity: str, sha256: bytes) -> str:
    """Under which a dead letter is remembered. No input has such an id: theirs begin with ``id:`` or ``at:``."""
    return f"dead:{sha256.hex()}:{identity}"


def _furthest(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {p: max(one.get(p, -1), other.get(p, -1)) for p in {**one, **other}}
