"""The gate: the only way into a twin. Decides what is admitted, with which stamp, and how far the clock may go.

A state machine without I/O: :meth:`Gate.handle` takes one event and returns instructions, which a host
performs in order. An input passes these stations:

    Arrived ──decode, check──► Append ──(journal)──► Appended ──► held in key order ──Asked──► Grant
                    └──► dead letter, in the same Append  └──► Repair, if it lies below the floor

What it guarantees, whatever the batch sizes, the timing or the number of sources:

* an input is granted only after the journal holds it (Append before Grant, Appended between them);
* the *floor* never goes back; the simulation may process instants below it and no others;
* every input admitted later has a tick at or above the floor or, if its source repairs, at or above *GVT*, which
  follows the floor at the distance of the greatest horizon and never goes back;
* the floor does not pass the watermark (highest event time seen - disorder) of a source that it waits for;
* inputs are granted in the order of (tick, rank, partition, offset): no trace of arrival is left;
* a source is told to forget only what the journal has (Confirm).

A recovery or a replay drives the same machine with Replayed and Passed in place of Arrived and Appended: as far
as the journal speaks, its floors take the place of the watermarks, and the floor stays a horizon behind them. So what
came late is there before the run is, and nothing has to be repaired a second time.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from tidewarp.connect.contract import Checker, DeadLetter, Decoder, Gap, Input, Raw, Readings
from tidewarp.connect.gate.admission import Admission, Moment
from tidewarp.connect.gate.appends import Appends
from tidewarp.connect.gate.backpressure import reads, refuse_deadlock
from tidewarp.connect.gate.batch import Batch
from tidewarp.connect.gate.local import Changes, admitted, checked
from tidewarp.connect.gate.messages import (
    Append,
    Appended,
    Arrived,
    Asked,
    Connected,
    Disconnected,
    Ended,
    Event,
    Grant,
    Instruction,
    Local,
    Missing,
    Passed,
    Paused,
    Reconnect,
    Repair,
    Replayed,
    Settled,
    Shed,
)
from tidewarp.connect.gate.redrive import readmitted
from tidewarp.connect.gate.shedding import admit_waiting, messages_of
from tidewarp.connect.gate.sources import Sources
from tidewarp.connect.gate.state import SourceState
from tidewarp.errors import InternalError
from tidewarp.observe import SILENT, Probe
from tidewarp.units import TICK_MAX, following

__all__ = ["Gate"]

_RANK = itemgetter(Input._fields.index("rank"))


class Gate:
    """See the module's docstring. ``rule(path)`` gives the static checker of a path, raising UnknownPath.

    ``sources``: what is known of them, for those who ask.
    """

    def __init__(self, rule: Callable[[str], Checker], probe: Probe = SILENT) -> None:
        self.sources = Sources()
        self._admission = Admission(rule, probe)
        self._rule = rule
        self._held: list[Input] = []  # durable, in key order
        self._appends = Appends()
        self._limit = 0
        self._paused = False
        self._now_s = 0.0  # host time, as far as it was told
        self.floor = 0
        self.ahead: tuple[Input, ...] = ()  # inputs at the floor that were granted there
        self.gvt = 0  # nothing below it changes any more: outputs below it may leave
        self._handlers: dict[type, Callable[[Any], list[Instruction]]] = {
            Connected: self._handle_connected,
            Disconnected: self._handle_disconnected,
            Missing: self._handle_missing,
            Arrived: self._handle_arrived,
            Local: self._handle_local,
            Ended: self._handle_ended,
            Appended: self._handle_appended,
            Asked: self._handle_asked,
            Settled: self._handle_settled,
            Replayed: self._handle_replayed,
            Passed: self._handle_passed,
            Paused: self._handle_paused,
        }

    # ------------------------------------------------------------------ what a host may ask
    def reopen(self, name: str, *, stopped: bool = False) -> None:
        """The source is about to be opened: whatever an earlier life was told, it may have more by now.

        An end that the journal holds may have let the clock go as far as it could without this source, and outputs
        leave with it: what the source brings below that is too late. A life that ``stopped`` in order went no further
        than the floor.
        """
        source = self.sources[name]
        if source.ended:
            reached = self.floor if stopped else self.end if self.sources.finished else self.reach
            source.reached = reached
            source.bound = max(source.bound, reached)
            source.ended = False

    def positions(self, name: str) -> dict[int, int]:
        """Partition -> last offset that came: behind these the source is to be opened."""
        return self.sources[name].heard

    def judge_by(self, rule: Callable[[str], Checker]) -> None:
        """Ask this from now on for the checker of a path: the model was built anew."""
        self._rule = rule
        self._admission.judge_by(rule)

    def checked(self, changes: Sequence[tuple[str, object]]) -> Changes:
        """What the program wants to set, as the paths' types. Safe from any thread. Raises UnknownPath, RuleViolation."""
        return checked(changes, self._rule)

    def reopen_local(self, delivered: int, *, stopped: bool) -> None:
        """The program may set something from now on: behind everything that an earlier life may have shown.

        That life may have gone as far as its data let it, and its sinks hold outputs up to tick ``delivered`` (-1:
        none), at which nothing changes any more. One that stopped in order, or that journaled GVT, has left nothing
        above the floor.
        """
        reached = self.floor
        if not (stopped or self.sources.lives or self.sources.repairs or self.sources.has_local):
            furthest = self.end if self.sources.finished else self.reach
            reached = max(following(delivered), furthest if furthest < TICK_MAX else 0)
        self.sources.local.bound = max(self.sources.local.bound, reached)

    @property
    def next_tick(self) -> int:
        """Tick of the first input that is held; TICK_MAX if none is."""
        return self._held[0].tick if self._held else TICK_MAX

    @property
    def local_waiting(self) -> int:
        """Inputs of the program that are not yet granted."""
        return self.sources.local.outstanding

    @property
    def local_offset(self) -> int:
        """Of the last input of the program; -1 before the first."""
        return self.sources.local.positions.get(0, -1)

    @property
    def local_tick(self) -> int:
        """Tick of the last input of the program, or of the first that it could make: none comes before it."""
        return max(self.floor, self.sources.local.bound)

    @property
    def silent_s(self) -> float:
        """The host time at which a silent source may let the clock go on; inf if none will."""
        return min((source.silent_s(self._now_s) for source in self.sources), default=math.inf)

    @property
    def watermark(self) -> int:
        """The least of all sources; TICK_MAX: none of them holds the clock."""
        return min((source.watermark(self._now_s) for source in self.sources), default=TICK_MAX)

    @property
    def reach(self) -> int:
        """How far the clock may go as it is now, whoever asks: below every watermark, and all that is not yet durable."""
        return min(self.watermark, self._appends.lowest)

    @property
    def appending(self) -> bool:
        """Is something on its way to the journal?"""
        return bool(self._appends)

    @property
    def end(self) -> int:
        """The tick behind the last input of all sources so far (exclusive); the floor if that is further."""
        highest = [tick for source in self.sources.all for tick in (source.clamped_to, *source.highest.values())]
        return max(self.floor, following(max(highest, default=-1)))

    def readmit(
        self, name: str, letters: Sequence[DeadLetter], decoder: Decoder, epoch_ns: int, floor: int
    ) -> tuple[list[Append], list[DeadLetter]]:
        """Dead letters once more, none stamped below ``floor``: what is to be appended, and those that are unfit still."""
        source = self.sources[name]
        moment = Moment(max(self.floor, floor), self.gvt, 0)
        batches, unfit = readmitted(self._admission, source, decoder, epoch_ns, letters, moment)
        return [replace(self._append(source, batch), admitted=moment.floor) for batch in batches], unfit

    # ------------------------------------------------------------------ the machine
    def handle(self, event: Event) -> list[Instruction]:
        """Take one event; what is to be done about it, in order. Raises OperatorError if a policy says stop."""
        return self._handlers[type(event)](event)

    def _handle_connected(self, event: Connected) -> list[Instruction]:
        source = self.sources[event.source]
        source.decoder, source.epoch_ns = event.decoder, event.epoch_ns
        source.open = True
        source.ended = False
        self._now_s = max(self._now_s, event.now_s)
        source.listen(self._now_s, on=True)  # being down is silence, not being asked is none
        source.listen(self._now_s, on=False)
        source.opened_s = source.listened_s(self._now_s)
        source.heard_s.clear()
        source.reason = ""
        identity = {p: number for p, number in event.identity.items() if source.positions.get(p) != number}
        if not identity:
            return self._reads()
        source.positions |= identity  # journaled before any message is
        batch = Batch()
        batch.shed = Shed({}, identity)
        return [self._append(source, batch.closed(source.positions)), *self._reads()]

    def _handle_disconnected(self, event: Disconnected) -> list[Instruction]:
        source = self.sources[event.source]
        self._now_s = max(self._now_s, event.now_s)
        source.open = source.reading = False
        source.listen(self._now_s, on=True)
        source.reason = event.reason
        source.counts["outages"] += 1
        pause_s, source.pause_s = source.pause_s, min(2 * source.pause_s, source.policy.retry_s[1])
        return [Reconnect(source.name, event.now_s + pause_s)]

    def _handle_missing(self, event: Missing) -> list[Instruction]:
        source, gap = self.sources[event.source], event.gap
        if source.policy.gap == "stop":
            self.sources.fail(source.name, str(gap))
            raise gap
        waiting = self._admit_waiting(source, all_of_them=True)  # they came before the gap
        self._now_s = max(self._now_s, event.now_s)
        source.open = source.reading = False
        source.listen(self._now_s, on=True)
        source.counts["gaps"] += 1
        if gap.end > gap.first:
            source.positions[gap.partition] = gap.end - 1
        append = self._append(source, Batch().closed(source.positions), gap=gap)
        return [*waiting, append, Reconnect(source.name, event.now_s, gap)]

    def _handle_arrived(self, event: Arrived) -> list[Instruction]:
        source = self.sources[event.source]
        source.reading = False
        if not source.open:
            raise InternalError(
                f"source {source.name!r}", "messages arrive only from a connected source", "report this"
            )
        self._now_s = max(self._now_s, event.now_s)
        source.listen(self._now_s, on=False)
        source.pause_s = source.policy.retry_s[0]
        if event.partitions:
            source.expect(event.partitions)
        source.present = max(source.present, event.present)  # what comes later is not stamped earlier
        if source.policy.idle_s is not None:
            heard_s = source.listened_s(self._now_s)
            source.heard_s.update(dict.fromkeys(_partitions(event.messages), heard_s))
        if source.room is None:
            appends = [self._append(source, batch) for batch in self._drain(source, event.messages)]
        else:
            source.counts["shed"] += source.room.put(messages_of(source, event.messages))
            appends = self._admit_waiting(source)
        told = [] if appends else self._appends.confirm_repeated(source)
        return [*appends, *told, *self._reads()]

    def _handle_local(self, event: Local) -> list[Instruction]:
        local = self.sources.local
        return [self._append(local, batch) for batch in admitted(local, event.updates, self.floor)]

    def _handle_settled(self, event: Settled) -> list[Instruction]:
        at = bisect_left(self._held, (self.floor, 1)) if self._held and self._held[0].tick == self.floor else 0
        granted = tuple(self._held[:at])
        del self._held[: len(granted)]
        self.ahead += granted
        self._release(self.sources.local, granted)
        return [Grant(self.floor, granted)] if granted else []

    def _handle_ended(self, event: Ended) -> list[Instruction]:
        source = self.sources[event.source]
        source.reading = source.open = False
        waiting = self._admit_waiting(source, all_of_them=True)
        return [*waiting, self._append(source, Batch().closed(source.positions), ended=True)]

    def _handle_appended(self, event: Appended) -> list[Instruction]:
        source, positions, inputs, lowest, highest, ended = self._appends.pop(event.ticket)
        source.hold(highest)
        if ended:
            source.ended = True
        if positions and source is not self.sources.local:
            source.to_confirm[event.ticket] = positions
        told = [*self._appends.confirm(source), *self._appends.confirm_repeated(source)]
        if lowest >= self.floor:
            self._hold(inputs)
            return [*told, *self._reads()]
        self._hold([one for one in inputs if one.tick >= self.floor])
        below = tuple(one for one in inputs if one.tick < self.floor)
        self._release(source, below)
        return [*told, Repair(lowest, below), *self._reads()]

    def _handle_replayed(self, event: Replayed) -> list[Instruction]:
        source = self.sources.find(event.source)
        source.recover(event, self.floor)
        self._hold(event.inputs)
        # Whether a source has ended or not: a later life may have opened it again, and no record says so.
        settled = event.admitted - self.sources.reach_back
        self.gvt = max(self.gvt, settled)  # no life admitted anything below it after this record
        return self._grant(settled)

    def _handle_passed(self, event: Passed) -> list[Instruction]:
        self.gvt = max(self.gvt, min(event.floor, self._appends.lowest))
        return self._grant(event.floor)

    def _handle_paused(self, event: Paused) -> list[Instruction]:
        self._paused = True
        return [append for source in self.sources for append in self._admit_waiting(source, all_of_them=True)]

    def _handle_asked(self, event: Asked) -> list[Instruction]:
        self._paused = False
        self._limit = event.limit
        self._now_s = max(self._now_s, event.now_s)
        if self._now_s > 0:  # a recovery tells no time
            for source in self.sources:
                if not source.open:
                    source.listen(self._now_s, on=True)
        reach = min(event.limit, self.reach)
        if reach <= self.floor:
            if not self._appends:
                refuse_deadlock(self.sources, self._now_s, self.floor, self._limit)
            return self._reads()
        granted = self._grant(reach)
        waiting = [append for source in self.sources for append in self._admit_waiting(source)]
        return [*granted, *waiting, *self._reads()]

    # ------------------------------------------------------------------ parts
    def _drain(self, source: SourceState, messages: Sequence[Raw] | Readings) -> list[Batch]:
        return self._admission.drain(source, messages, Moment(self.floor, self.gvt, source.present))

    def _append(self, source: SourceState, batch: Batch, *, ended: bool = False, gap: Gap | None = None) -> Append:
        return self._appends.add(source, batch, self.floor, ended=ended, gap=gap)

    def _admit_waiting(self, source: SourceState, *, all_of_them: bool = False) -> list[Append]:
        return [self._append(source, one) for one in admit_waiting(source, self._drain, all_of_them=all_of_them)]

    def _reads(self) -> list[Instruction]:
        return [] if self._paused else [*reads(self.sources, self._now_s, self.floor, self._limit)]

    def _grant(self, reach: int) -> list[Instruction]:
        if reach <= self.floor:
            return []
        self.floor, self.ahead = reach, ()
        self.gvt = max(self.gvt, reach - self.sources.horizon)
        due = bisect_left(self._held, (reach,))
        granted = tuple(self._held[:due])
        del self._held[:due]
        if len(self.sources) == 1 and not self.sources.local.outstanding:
            self._release(next(iter(self.sources)), granted)
        elif granted:
            ranks = set(map(_RANK, granted))
            for source in self.sources.all:
                if source.rank in ranks:
                    self._release(source, granted if len(ranks) == 1 else _of(source.rank, granted))
        return [Grant(reach, granted)]

    def _release(self, source: SourceState, inputs: Sequence[Input]) -> None:
        """These no longer wait."""
        source.outstanding -= len(inputs)
        if source.long:
            source.long_bytes -= sum(source.long.pop((one.partition, one.offset), 0) for one in inputs)

    def _hold(self, inputs: Sequence[Input]) -> None:
        """Keep durable inputs in key order until their tick is granted."""
        arrived = sorted(inputs)
        overlaps = self._held and arrived and arrived[0] < self._held[-1]
        self._held += arrived
        if overlaps:
            self._held.sort()  # two ascending runs: a merge


def _partitions(messages: Sequence[Raw] | Readings) -> set[int]:
    return {messages.partition} if isinstance(messages, Readings) else {raw.partition for raw in messages}


def _of(rank: int, inputs: Sequence[Input]) -> list[Input]:
    return [one for one in inputs if one.rank == rank]
