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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, NamedTuple

from tidewarp.connect.contract import Checker, DeadLetter, Decoder, Gap, Input, Raw, Readings
from tidewarp.connect.gate import state
from tidewarp.connect.gate.admission import Admission, Moment
from tidewarp.connect.gate.batch import Batch
from tidewarp.connect.gate.local import LOCAL, Changes, admitted, checked, local_source
from tidewarp.connect.gate.messages import (
    Append,
    Appended,
    Arrived,
    Asked,
    Confirm,
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
    Policy,
    Read,
    Reconnect,
    Repair,
    Replayed,
    Settled,
    Shed,
)
from tidewarp.connect.gate.redrive import readmitted
from tidewarp.connect.gate.state import SourceState
from tidewarp.errors import InternalError, OperatorError
from tidewarp.observe import SILENT, Probe
from tidewarp.units import TICK_MAX, following

__all__ = ["Gate"]

_TICK, _RANK = (itemgetter(Input._fields.index(name)) for name in ("tick", "rank"))


class _Appending(NamedTuple):
    """What is on its way to the journal."""

    source: SourceState
    positions: Mapping[int, int]  # of the source, that it makes durable
    inputs: Sequence[Input] = ()
    lowest: int = TICK_MAX  # tick of its inputs
    highest: Mapping[int, int] = {}  # partition -> event tick of its inputs
    ended: bool = False


class Gate:
    """See the module's docstring. ``rule(path)`` gives the static checker of a path, raising UnknownPath."""

    def __init__(self, rule: Callable[[str], Checker], probe: Probe = SILENT) -> None:
        self._admission = Admission(rule, probe)
        self._rule = rule
        self._sources: dict[str, SourceState] = {}
        self._local = local_source()
        self._held: list[Input] = []  # durable, in key order
        self._appending: dict[int, _Appending] = {}
        self._tickets = 0
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
    def register(self, name: str, policy: Policy) -> int:
        """Make a source known; its rank. Raises OperatorError for a name that is taken."""
        if name in self._sources:
            raise OperatorError(f"source {name!r}", "each source has a name of its own", "give connect(name=...)")
        rank = len(self._sources) + 1
        self._sources[name] = SourceState(name, rank, policy)
        return rank

    def reopen(self, name: str, *, stopped: bool = False) -> None:
        """The source is about to be opened: whatever an earlier life was told, it may have more by now.

        An end that the journal holds may have let the clock go as far as it could without this source, and outputs
        leave with it: what the source brings below that is too late. A life that ``stopped`` in order went no further
        than the floor.
        """
        source = self._sources[name]
        if source.ended:
            reached = self.floor if stopped else self.end if self.finished else self._reach()
            source.reached = reached
            source.bound = max(source.bound, reached)
            source.ended = False

    def positions(self, name: str) -> dict[int, int]:
        """Partition -> last offset that came: behind these the source is to be opened."""
        return self._sources[name].heard

    def judge_by(self, rule: Callable[[str], Checker]) -> None:
        """Ask this from now on for the checker of a path: the model was built anew."""
        self._rule = rule
        self._admission.judge_by(rule)

    def checked(self, changes: Sequence[tuple[str, object]]) -> Changes:
        """What the program wants to set, as the paths' types. Safe from any thread. Raises UnknownPath, RuleViolation."""
        return checked(changes, self._rule)

    def reopen_local(self, delivered: int, *, stopped: bool) -> None:
        """The program may set something from now on: behind everything that an earlier life may have shown.

        That life may have gone as far as its data let it, and its sinks hold outputs up to tick ``delivered``. One
        that stopped in order, or that journaled GVT, has left nothing above the floor.
        """
        reached = self.floor
        if not (stopped or self.lives or self.repairs or self.has_local):
            furthest = self.end if self.finished else self._reach()
            reached = max(delivered, furthest if furthest < TICK_MAX else 0)
        self._local.bound = max(self._local.bound, reached)

    def rank(self, name: str) -> int:
        """The rank of a source. Raises OperatorError if the model does not connect it."""
        if name == LOCAL and name not in self._sources:
            return self._local.rank
        try:
            return self._sources[name].rank
        except KeyError:
            raise OperatorError(
                f"source {name!r}", "the journal has inputs of it and the model does not connect it", "connect it"
            ) from None

    @property
    def next_tick(self) -> int:
        """Tick of the first input that is held; TICK_MAX if none is."""
        return self._held[0].tick if self._held else TICK_MAX

    @property
    def has_local(self) -> bool:
        """Has the program itself set anything, in this life or an earlier one?"""
        return bool(self._local.positions)

    @property
    def local_waiting(self) -> int:
        """Inputs of the program that are not yet granted."""
        return self._local.outstanding

    @property
    def local_offset(self) -> int:
        """Of the last input of the program; -1 before the first."""
        return self._local.positions.get(0, -1)

    @property
    def local_tick(self) -> int:
        """Tick of the last input of the program, or of the first that it could make: none comes before it."""
        return max(self.floor, self._local.bound)

    @property
    def takes_local(self) -> bool:
        """May the program set anything? Not where a source of the model has that name."""
        return LOCAL not in self._sources

    @property
    def has_sources(self) -> bool:
        """Does the model connect any source?"""
        return bool(self._sources)

    @property
    def repairs(self) -> bool:
        """Is there a source whose late inputs are put in their place below the floor?"""
        return any(source.policy.late == "repair" for source in self._sources.values())

    @property
    def lives(self) -> bool:
        """Is there a source that the clock does not wait for?"""
        return any(not source.policy.wait or source.policy.idle_s is not None for source in self._sources.values())

    @property
    def arrivals_only(self) -> bool:
        """Does every source that the clock does not wait for send what happens when it comes?"""
        return all(source.policy.wait or source.policy.time == "arrival" for source in self._sources.values())

    @property
    def silent_s(self) -> float:
        """The host time at which a silent source may let the clock go on; inf if none will."""
        return min((source.silent_s(self._now_s) for source in self._sources.values()), default=math.inf)

    @property
    def reach(self) -> int:
        """How far the clock may go as it is now, whoever asks."""
        return self._reach()

    @property
    def appending(self) -> bool:
        """Is something on its way to the journal?"""
        return bool(self._appending)

    @property
    def finished(self) -> bool:
        """Have all sources ended, durably? False if there is none."""
        return bool(self._sources) and all(source.ended for source in self._sources.values())

    @property
    def end(self) -> int:
        """The tick behind the last input of all sources so far (exclusive); the floor if that is further."""
        highest = [tick for source in self._all() for tick in (source.clamped_to, *source.highest.values())]
        return max(self.floor, following(max(highest, default=-1)))

    def counts(self) -> dict[str, int]:
        """Totals over all sources, by name: of inputs, of what was special about them, and of dead letters and gaps."""
        total: Counter[str] = Counter()
        for source in self._all():
            total += source.counts
            total["dead_letters"] += sum(source.dead.values())
        names = ("inputs", "late", "repaired", "clamped", "dropped", "coalesced", "duplicates", "dead_letters", "gaps")
        return {name: total[name] for name in names}

    def shed(self) -> dict[str, int]:
        """Source -> messages that its full queue let go, of the sources that shed."""
        return {name: one.counts["shed"] for name, one in self._sources.items() if one.policy.full != "block"}

    @property
    def backlog(self) -> int:
        """Inputs that are admitted and not yet granted, of all sources."""
        return sum(source.outstanding for source in self._all())

    def told(self) -> dict[str, dict[str, Any]]:
        """Source -> its state, the reason why it is down, and its counts."""
        names = ("inputs", "late", "repaired", "dropped", "duplicates", "gaps")
        return {
            name: {
                "state": source.state,
                "reason": source.reason,
                **{count: source.counts[count] for count in names},
                "dead": sum(source.dead.values()),
            }
            for name, source in self._sources.items()
        }

    def dead(self) -> dict[str, int]:
        """Dead letters by rule, over all sources."""
        total: Counter[str] = Counter()
        for source in self._sources.values():
            total += source.dead
        return dict(sorted(total.items()))

    def readmit(
        self, name: str, letters: Sequence[DeadLetter], decoder: Decoder, epoch_ns: int, floor: int
    ) -> tuple[list[Append], list[DeadLetter]]:
        """Dead letters once more, none stamped below ``floor``: what is to be appended, and those that are unfit still."""
        source = self._sources[name]
        moment = Moment(max(self.floor, floor), self.gvt, 0)
        batches, unfit = readmitted(self._admission, source, decoder, epoch_ns, letters, moment)
        return [replace(self._append(source, batch), admitted=moment.floor) for batch in batches], unfit

    # ------------------------------------------------------------------ the machine
    def handle(self, event: Event) -> list[Instruction]:
        """Take one event; what is to be done about it, in order. Raises OperatorError if a policy says stop."""
        return self._handlers[type(event)](event)

    def _handle_connected(self, event: Connected) -> list[Instruction]:
        source = self._sources[event.source]
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
        source = self._sources[event.source]
        self._now_s = max(self._now_s, event.now_s)
        source.open = source.reading = False
        source.listen(self._now_s, on=True)
        source.reason = event.reason
        source.counts["outages"] += 1
        pause_s, source.pause_s = source.pause_s, min(2 * source.pause_s, source.policy.retry_s[1])
        return [Reconnect(source.name, event.now_s + pause_s)]

    def _handle_missing(self, event: Missing) -> list[Instruction]:
        source, gap = self._sources[event.source], event.gap
        if source.policy.gap == "stop":
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
        source = self._sources[event.source]
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
            source.counts["shed"] += source.room.put(_raws(source, event.messages))
            appends = self._admit_waiting(source)
        told = [] if appends else self._confirm_repeated(source)
        return [*appends, *told, *self._reads()]

    def _handle_local(self, event: Local) -> list[Instruction]:
        return [self._append(self._local, batch) for batch in admitted(self._local, event.updates, self.floor)]

    def _handle_settled(self, event: Settled) -> list[Instruction]:
        at = bisect_left(self._held, (self.floor, 1)) if self._held and self._held[0].tick == self.floor else 0
        granted = tuple(self._held[:at])
        del self._held[: len(granted)]
        self.ahead += granted
        self._release(self._local, granted)
        return [Grant(self.floor, granted)] if granted else []

    def _handle_ended(self, event: Ended) -> list[Instruction]:
        source = self._sources[event.source]
        source.reading = source.open = False
        waiting = self._admit_waiting(source, all_of_them=True)
        return [*waiting, self._append(source, Batch().closed(source.positions), ended=True)]

    def _handle_appended(self, event: Appended) -> list[Instruction]:
        source, positions, inputs, lowest, highest, ended = self._appending.pop(event.ticket)
        source.hold(highest)
        if ended:
            source.ended = True
        if positions and source is not self._local:
            source.to_confirm[event.ticket] = positions
        told = [*self._confirm(source), *self._confirm_repeated(source)]
        if lowest >= self.floor:
            self._hold(inputs)
            return [*told, *self._reads()]
        self._hold([one for one in inputs if one.tick >= self.floor])
        below = tuple(one for one in inputs if one.tick < self.floor)
        self._release(source, below)
        return [*told, Repair(lowest, below), *self._reads()]

    def _handle_replayed(self, event: Replayed) -> list[Instruction]:
        source = self._local if self.rank(event.source) == 0 else self._sources[event.source]
        for one in event.inputs:
            if one.tick < self.floor:
                raise InternalError(f"an input at tick {one.tick}", f"the floor was {self.floor}", "report this")
            source.note(one)
            if one.offset > source.positions.get(one.partition, -1):  # else it was a dead letter before
                source.positions[one.partition] = one.offset
            source.counts["repaired"] += one.tick < event.admitted
        source.hold(source.highest)
        if source.policy.time == "arrival":
            source.present = max(source.present, *source.highest.values(), 0)
        self._hold(event.inputs)
        source.outstanding += len(event.inputs)
        for partition, offset in event.positions.items():  # a dead letter may lie before the last input of its batch
            source.positions[partition] = max(offset, source.positions.get(partition, -1))
        for identity in event.ids:
            source.remember(identity)
        source.dead.update(event.dead)
        source.letter_bytes += event.letter_bytes
        source.counts["gaps"] += event.gaps
        source.counts.update(event.shed)
        if "late" in event.dead:
            source.counts["late"] += event.dead["late"]
            source.counts["dropped"] += event.dead["late"]
        source.ended = event.ended
        # Whether a source has ended or not: a later life may have opened it again, and no record says so.
        settled = event.admitted - max((one.reach_back for one in self._sources.values()), default=0)
        self.gvt = max(self.gvt, settled)  # no life admitted anything below it after this record
        return self._grant(settled)

    def _handle_passed(self, event: Passed) -> list[Instruction]:
        self.gvt = max(self.gvt, min(event.floor, self._lowest_appending))
        return self._grant(event.floor)

    def _handle_paused(self, event: Paused) -> list[Instruction]:
        self._paused = True
        return [append for source in self._sources.values() for append in self._admit_waiting(source, all_of_them=True)]

    def _handle_asked(self, event: Asked) -> list[Instruction]:
        self._paused = False
        self._limit = event.limit
        self._now_s = max(self._now_s, event.now_s)
        if self._now_s > 0:  # a recovery tells no time
            for source in self._sources.values():
                if not source.open:
                    source.listen(self._now_s, on=True)
        reach = min(event.limit, self._reach())
        if reach <= self.floor:
            self._refuse_deadlock()
            return self._reads()
        granted = self._grant(reach)
        waiting = [append for source in self._sources.values() for append in self._admit_waiting(source)]
        return [*granted, *waiting, *self._reads()]

    # ------------------------------------------------------------------ parts
    def _drain(self, source: SourceState, messages: Sequence[Raw] | Readings) -> list[Batch]:
        return self._admission.drain(source, messages, Moment(self.floor, self.gvt, source.present))

    def _admit_waiting(self, source: SourceState, *, all_of_them: bool = False) -> list[Append]:
        """Of a source that sheds: a batch ahead, so that what waits behind it can still be let go."""
        appends: list[Append] = []
        room, batch = source.room, source.policy.batch
        while room and (all_of_them or (source.outstanding < batch and not source.full)):
            raws, gone = room.take(batch)
            batches = self._drain(source, raws) if raws else []
            if gone.count:
                batches.append(Batch())
                batches[-1].shed = Shed({"shed": gone.count}, gone.positions)
                for partition, offset in gone.positions.items():
                    source.positions[partition] = max(offset, source.positions.get(partition, -1))
                batches[-1].closed(source.positions)
            appends += [self._append(source, batch) for batch in batches]
        return appends

    def _all(self) -> tuple[SourceState, ...]:
        return (*self._sources.values(), self._local)

    @property
    def _horizon(self) -> int:
        return max((source.horizon for source in self._sources.values()), default=0)

    def _grant(self, reach: int) -> list[Instruction]:
        if reach <= self.floor:
            return []
        self.floor, self.ahead = reach, ()
        self.gvt = max(self.gvt, reach - self._horizon)
        due = bisect_left(self._held, (reach,))
        granted = tuple(self._held[:due])
        del self._held[:due]
        if len(self._sources) == 1 and not self._local.outstanding:
            self._release(next(iter(self._sources.values())), granted)
        elif granted:
            ranks = set(map(_RANK, granted))
            for source in self._all():
                if source.rank in ranks:
                    self._release(source, granted if len(ranks) == 1 else _of(source.rank, granted))
        return [Grant(reach, granted)]

    def _release(self, source: SourceState, inputs: Sequence[Input]) -> None:
        """These no longer wait."""
        source.outstanding -= len(inputs)
        if source.long:
            source.long_bytes -= sum(source.long.pop((one.partition, one.offset), 0) for one in inputs)

    def _confirm(self, source: SourceState) -> list[Confirm]:
        """A later batch may be durable first: what is told is durable with all before it."""
        under_way = min((ticket for ticket, one in self._appending.items() if one.source is source), default=math.inf)
        ready = [ticket for ticket in source.to_confirm if ticket < under_way]
        told = [source.to_confirm.pop(ticket) for ticket in sorted(ready)]
        return [Confirm(source.name, told[-1])] if told else []

    def _confirm_repeated(self, source: SourceState) -> list[Confirm]:
        """A duplicate by id is in no record. Its first copy is durable once nothing of its source is under way."""
        if not source.repeated or any(pending.source is source for pending in self._appending.values()):
            return []
        told = Confirm(source.name, source.acknowledged)
        source.repeated = {p: offset for p, offset in source.repeated.items() if offset > source.positions.get(p, -1)}
        return [told]

    def _hold(self, inputs: Sequence[Input]) -> None:
        """Keep durable inputs in key order until their tick is granted."""
        arrived = sorted(inputs)
        overlaps = self._held and arrived and arrived[0] < self._held[-1]
        self._held += arrived
        if overlaps:
            self._held.sort()  # two ascending runs: a merge

    def _reach(self) -> int:
        """How far the clock may go: below every watermark, and below all that is not yet durable."""
        reach = min((source.watermark(self._now_s) for source in self._sources.values()), default=TICK_MAX)
        return min(reach, self._lowest_appending)

    @property
    def _lowest_appending(self) -> int:
        """Tick of the first input that is on its way to the journal."""
        return min((pending.lowest for pending in self._appending.values()), default=TICK_MAX)

    def _reads(self) -> list[Instruction]:
        """Read a source that holds the clock back until its queue is full; any other one a batch ahead."""
        reads: list[Instruction] = []
        if self._paused:
            return reads
        for source in self._sources.values():
            if not source.open or source.reading or source.ended:
                continue
            policy = source.policy
            room = policy.queue - source.outstanding
            holds_the_clock = source.watermark(self._now_s) <= self.floor < self._limit
            if source.room is not None:
                room = policy.batch
            if (source.room is not None or not source.full) and (
                holds_the_clock or not policy.wait or source.outstanding < policy.batch
            ):
                source.reading = True
                source.listen(self._now_s, on=True)
                reads.append(Read(source.name, min(room, policy.batch)))
        return reads

    def _refuse_deadlock(self) -> None:
        """A full queue of the very source that the clock waits for would never empty."""
        for source in self._sources.values():
            stuck = source.full and not self._appending and not source.reading
            if stuck and source.open and source.watermark(self._now_s) <= self.floor < self._limit:
                raise OperatorError(
                    f"source {source.name!r}: {source.outstanding} inputs ({source.long_bytes} bytes in long ones) wait for its "
                    "watermark",
                    f"its queue holds {source.policy.queue} and {state.QUEUE_BYTES_MAX >> 20} MiB of long ones, "
                    "and must cover the disorder bound",
                    "raise connect(queue=...) or lower connect(disorder=...)",
                )

    def _append(self, source: SourceState, batch: Batch, *, ended: bool = False, gap: Gap | None = None) -> Append:
        self._tickets += 1
        inputs = tuple(batch.inputs)
        lowest = min(map(_TICK, inputs), default=TICK_MAX)
        self._appending[self._tickets] = _Appending(source, batch.positions, inputs, lowest, batch.highest, ended)
        return Append(
            self._tickets,
            source.name,
            self.floor,
            inputs,
            tuple(batch.letters),
            dict(batch.counted),
            batch.positions,
            batch.moved,
            ended,
            batch.columns,
            gap,
            batch.shed,
        )


def _partitions(messages: Sequence[Raw] | Readings) -> set[int]:
    return {messages.partition} if isinstance(messages, Readings) else {raw.partition for raw in messages}


def _raws(source: SourceState, messages: Sequence[Raw] | Readings) -> Sequence[Raw]:
    if isinstance(messages, Readings):
        value = f"source {source.name!r}: full={source.policy.full!r}, and it gives Readings"
        raise OperatorError(value, "only messages are let go", "connect it with full='block'")
    return messages


def _of(rank: int, inputs: Sequence[Input]) -> list[Input]:
    return [one for one in inputs if one.rank == rank]
