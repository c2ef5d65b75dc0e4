"""The gate: the only way into a twin. Decides what is admitted, with which stamp, and how far the clock may go.

A state machine without I/O: :meth:`Gate.handle` takes one event and returns instructions, which a host
performs in order. An input passes these stations:

    Arrived ──decode, check──► Append ──(journal)──► Durable ──► held in key order ──Asked──► Grant
                    └──► dead letter, in the same Append

What it guarantees, whatever the batch sizes, the timing or the number of sources:

* an input is granted only after the journal holds it (Append before Grant, Durable between them);
* the *floor* never goes back; every input admitted later has a tick at or above it; the simulation may
  process instants below it and no others;
* the floor does not pass the watermark (highest event time seen - disorder) of a source that has not ended;
* inputs are granted in the order of (tick, rank, partition, offset): no trace of arrival is left.

A recovery or a replay drives the same machine with Replayed and Passed in place of Arrived and Appended: as far
as the journal speaks, its floors take the place of the watermarks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from tidewarp.connect.contract import Checker, Input, Readings
from tidewarp.connect.gate import state
from tidewarp.connect.gate.admission import Admission, Batch
from tidewarp.connect.gate.messages import (
    Append,
    Appended,
    Arrived,
    Asked,
    Connected,
    Ended,
    Event,
    Grant,
    Instruction,
    Passed,
    Paused,
    Policy,
    Read,
    Replayed,
)
from tidewarp.connect.gate.state import SourceState
from tidewarp.errors import InternalError, OperatorError
from tidewarp.observe import SILENT, Probe
from tidewarp.units import TICK_MAX, following

__all__ = ["Gate"]

_TICK, _RANK = (itemgetter(Input._fields.index(name)) for name in ("tick", "rank"))


class _Appending(NamedTuple):
    """What is on its way to the journal."""

    source: SourceState
    inputs: Sequence[Input] = ()
    lowest: int = TICK_MAX  # tick of its inputs
    highest: Mapping[int, int] = {}  # partition -> event tick of its inputs
    ended: bool = False


class Gate:
    """See the module's docstring. ``rule(path)`` gives the static checker of a path, raising UnknownPath."""

    def __init__(self, rule: Callable[[str], Checker], probe: Probe = SILENT) -> None:
        self._admission = Admission(rule, probe)
        self._sources: dict[str, SourceState] = {}
        self._held: list[Input] = []  # durable, in key order
        self._appending: dict[int, _Appending] = {}
        self._tickets = 0
        self._limit = 0
        self._paused = False
        self.floor = 0
        self._handlers: dict[type, Callable[[Any], list[Instruction]]] = {
            Connected: self._handle_connected,
            Arrived: self._handle_arrived,
            Ended: self._handle_ended,
            Appended: self._handle_appended,
            Asked: self._handle_asked,
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
        """Partition -> last offset that was admitted or buried."""
        return dict(self._sources[name].positions)

    def rank(self, name: str) -> int:
        """The rank of a source. Raises OperatorError if the model does not connect it."""
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
    def has_sources(self) -> bool:
        """Does the model connect any source?"""
        return bool(self._sources)

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
        highest = [tick for source in self._sources.values() for tick in (source.clamped_to, *source.highest.values())]
        return max(self.floor, following(max(highest, default=-1)))

    def counts(self) -> dict[str, int]:
        """Totals over all sources: inputs, late, clamped, dropped, duplicates, dead_letters."""
        total: Counter[str] = Counter()
        for source in self._sources.values():
            total += source.counts
            total["dead_letters"] += sum(source.dead.values())
        names = ("inputs", "late", "clamped", "dropped", "duplicates", "dead_letters")
        return {name: total[name] for name in names}

    def dead(self) -> dict[str, int]:
        """Dead letters by rule, over all sources."""
        total: Counter[str] = Counter()
        for source in self._sources.values():
            total += source.dead
        return dict(sorted(total.items()))

    # ------------------------------------------------------------------ the machine
    def handle(self, event: Event) -> list[Instruction]:
        """Take one event; what is to be done about it, in order. Raises OperatorError if a policy says stop."""
        return self._handlers[type(event)](event)

    def _handle_connected(self, event: Connected) -> list[Instruction]:
        source = self._sources[event.source]
        source.decoder = event.decoder
        source.open = True
        source.ended = False
        return self._reads()

    def _handle_arrived(self, event: Arrived) -> list[Instruction]:
        source = self._sources[event.source]
        source.reading = False
        if not source.open:
            raise InternalError(
                f"source {source.name!r}", "messages arrive only from a connected source", "report this"
            )
        if isinstance(event.messages, Readings):
            batches = self._admission.readings(source, event.messages, self.floor)
        elif source.decoder is not None:
            batches = self._admission.messages(source, source.decoder, event.messages, self.floor)
        else:
            raise OperatorError(
                f"source {source.name!r}: messages", "without a decoder it gives Readings", "return one from decoder()"
            )
        return [*(self._append(source, batch) for batch in batches), *self._reads()]

    def _handle_ended(self, event: Ended) -> list[Instruction]:
        source = self._sources[event.source]
        source.reading = source.open = False
        self._tickets += 1
        self._appending[self._tickets] = _Appending(source, ended=True)
        return [Append(self._tickets, source.name, self.floor, positions=dict(source.positions), ended=True)]

    def _handle_appended(self, event: Appended) -> list[Instruction]:
        source, inputs, _, highest, ended = self._appending.pop(event.ticket)
        source.hold(highest)
        self._hold(inputs)
        if ended:
            source.ended = True
        return self._reads()

    def _handle_replayed(self, event: Replayed) -> list[Instruction]:
        source = self._sources[event.source]
        for one in event.inputs:
            if one.tick < self.floor:
                raise InternalError(f"an input at tick {one.tick}", f"the floor was {self.floor}", "report this")
            source.note(one)
            source.positions[one.partition] = one.offset
        source.hold(source.highest)
        self._hold(event.inputs)
        source.outstanding += len(event.inputs)
        for partition, offset in event.positions.items():  # a dead letter may lie before the last input of its batch
            source.positions[partition] = max(offset, source.positions.get(partition, -1))
        source.dead.update(event.dead)
        source.letter_bytes += event.letter_bytes
        if "late" in event.dead:
            source.counts["late"] += event.dead["late"]
            source.counts["dropped"] += event.dead["late"]
        source.ended = event.ended
        return self._grant(event.admitted)

    def _handle_passed(self, event: Passed) -> list[Instruction]:
        return self._grant(event.floor)

    def _handle_paused(self, event: Paused) -> list[Instruction]:
        self._paused = True
        return []

    def _handle_asked(self, event: Asked) -> list[Instruction]:
        self._paused = False
        self._limit = event.limit
        reach = min(event.limit, self._reach())
        if reach <= self.floor:
            self._refuse_deadlock()
            return self._reads()
        return [*self._grant(reach), *self._reads()]

    # ------------------------------------------------------------------ parts
    def _grant(self, reach: int) -> list[Instruction]:
        if reach <= self.floor:
            return []
        self.floor = reach
        due = bisect_left(self._held, (reach,))
        granted = tuple(self._held[:due])
        del self._held[:due]
        per_rank = Counter(map(_RANK, granted)) if len(self._sources) > 1 else {1: len(granted)}
        for source in self._sources.values():
            source.outstanding -= per_rank[source.rank]
            if source.long:
                places = [(one.partition, one.offset) for one in granted if one.rank == source.rank]
                source.long_bytes -= sum(source.long.pop(place, 0) for place in places)
        return [Grant(reach, granted)]

    def _hold(self, inputs: Sequence[Input]) -> None:
        """Keep durable inputs in key order until their tick is granted."""
        arrived = sorted(inputs)
        overlaps = self._held and arrived and arrived[0] < self._held[-1]
        self._held += arrived
        if overlaps:
            self._held.sort()  # two ascending runs: a merge

    def _reach(self) -> int:
        """How far the clock may go: below every watermark, and below all that is not yet durable."""
        reach = min((source.watermark for source in self._sources.values()), default=TICK_MAX)
        return min(reach, min((pending.lowest for pending in self._appending.values()), default=TICK_MAX))

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
            holds_the_clock = source.watermark <= self.floor < self._limit
            if not source.full and (holds_the_clock or source.outstanding < policy.batch):
                source.reading = True
                reads.append(Read(source.name, min(room, policy.batch)))
        return reads

    def _refuse_deadlock(self) -> None:
        """A full queue of the very source that the clock waits for would never empty."""
        for source in self._sources.values():
            stuck = source.full and not self._appending and not source.reading
            if stuck and source.open and source.watermark <= self.floor < self._limit:
                raise OperatorError(
                    f"source {source.name!r}: {source.outstanding} inputs ({source.long_bytes} bytes in long ones) wait for its "
                    "watermark",
                    f"its queue holds {source.policy.queue} and {state.QUEUE_BYTES_MAX >> 20} MiB of long ones, "
                    "and must cover the disorder bound",
                    "raise connect(queue=...) or lower connect(disorder=...)",
                )

    def _append(self, source: SourceState, batch: Batch) -> Append:
        self._tickets += 1
        inputs = tuple(batch.inputs)
        lowest = min(map(_TICK, inputs), default=TICK_MAX)
        self._appending[self._tickets] = _Appending(source, inputs, lowest, batch.highest)
        return Append(
            self._tickets,
            source.name,
            self.floor,
            inputs,
            tuple(batch.letters),
            dict(batch.counted),
            batch.positions,
            batch.moved,
            columns=batch.columns,
        )
