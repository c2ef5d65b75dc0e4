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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice, repeat
from operator import itemgetter, lt
from typing import Any, Final, NamedTuple

from tidewarp.clocks import input_key
from tidewarp.connect.contract import (
    HEAD_BYTES,
    Checker,
    DeadLetter,
    Decoder,
    Input,
    Raw,
    Readings,
    Undecodable,
    Update,
)
from tidewarp.errors import InternalError, OperatorError, PeerError, RuleViolation, UnknownPath
from tidewarp.observe import SILENT, Probe
from tidewarp.units import following

__all__ = [
    "FOREVER",
    "LATE_POLICIES",
    "Append",
    "Appended",
    "Arrived",
    "Asked",
    "Connected",
    "Ended",
    "Gate",
    "Grant",
    "Instruction",
    "Passed",
    "Paused",
    "Policy",
    "Read",
    "Replayed",
]

FOREVER: Final = 2**63 - 1  # a tick that no clock reaches
LATE_POLICIES = ("stop", "clamp", "drop")
_ROW_BYTES = 40  # of one (input, path) in a record with an `events` column, its text or tree not counted
_BATCH_BYTES = 900_000  # of one record, below the journal's 1 MiB
QUEUE_BYTES_MAX: Final = 64 << 20  # of the long inputs that may wait, per source
_LONG_BYTES = 1_024  # below this an input is bounded by the count of inputs alone
_LETTERS_MAX, _LETTER_BYTES_MAX = 100_000, 256 << 20  # kept per source; further ones are counted only
_TICK, _RANK, _PARTITION, _EVENT_TICK = (
    itemgetter(Input._fields.index(name)) for name in ("tick", "rank", "partition", "event_tick")
)
_input = partial(tuple.__new__, Input)  # Input._make without its call in Python
_SHORT = frozenset({type(None), bool, int, float})  # values of at most 8 bytes in a record
_LETTERS_PER_RECORD = 12  # times HEAD_BYTES stays below the journal's 1 MiB


@dataclass(frozen=True)
class Policy:
    """How one source is treated. Ticks; ``queue`` and ``batch`` in inputs."""

    disorder: int = 0  # how far below the highest event time a further event may lie
    late: str = "stop"  # what becomes of an event below that: one of LATE_POLICIES
    queue: int = 65_536  # admitted and not yet granted, at most; full: the source is not read
    batch: int = 8_192  # inputs per journal record, at most


# Events: what happened.
@dataclass(frozen=True)
class Connected:
    """A source may be read from now on, behind the positions that the journal holds."""

    source: str
    decoder: Decoder | None  # None: it gives Readings


@dataclass(frozen=True)
class Arrived:
    """What a Read brought."""

    source: str
    messages: Sequence[Raw] | Readings


@dataclass(frozen=True)
class Ended:
    """The source will never have more."""

    source: str


@dataclass(frozen=True)
class Appended:
    """The journal holds what this ticket asked for."""

    ticket: int


@dataclass(frozen=True)
class Asked:
    """The simulation stands at the floor and would go on to ``limit`` (exclusive tick)."""

    limit: int


@dataclass(frozen=True)
class Replayed:
    """One record of the journal, read back. ``inputs`` in order of arrival; positions include dead letters'."""

    source: str
    admitted: int
    inputs: Sequence[Input] = ()
    dead: Mapping[str, int] = field(default_factory=dict)  # rule -> letters
    letter_bytes: int = 0  # that the journal keeps of them
    positions: Mapping[int, int] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True)
class Passed:
    """The journal says that the clock was allowed to get here: a mark, a stop."""

    floor: int


@dataclass(frozen=True)
class Paused:
    """The run comes to rest: read no further until the simulation asks again."""


# Instructions: what is to be done.
@dataclass(frozen=True)
class Read:
    """Ask the source for at most ``limit`` messages. One is under way per source."""

    source: str
    limit: int


@dataclass(frozen=True)
class Append:
    """Write to the journal, in one transaction with ``positions``; then send Appended(ticket)."""

    ticket: int
    source: str
    admitted: int
    inputs: tuple[Input, ...] = ()
    letters: tuple[DeadLetter, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)
    positions: Mapping[int, int] = field(default_factory=dict)  # of all that this source has made durable
    moved: Mapping[int, int] = field(default_factory=dict)  # the part of it that dead letters moved
    ended: bool = False


@dataclass(frozen=True)
class Grant:
    """The simulation may process instants below ``floor``, with these inputs, ascending."""

    floor: int
    inputs: tuple[Input, ...]


Event = Connected | Arrived | Ended | Appended | Asked | Paused | Replayed | Passed
Instruction = Read | Append | Grant


class _Appending(NamedTuple):
    """What is on its way to the journal."""

    source: _Source
    inputs: Sequence[Input]
    lowest: int  # tick of its inputs
    ended: bool


class _Source:
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
        self.counts: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.letter_bytes = 0
        self.clamped_to = -1  # the highest tick that a late input was moved to

    @property
    def watermark(self) -> int:
        """The clock may not pass this tick (exclusive); -1 before the first event."""
        if self.ended:
            return FOREVER
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
            self.rise(one.partition, event_tick)
        elif event_tick < highest:
            self.counts["late"] += 1

    def rise(self, partition: int, event_tick: int) -> None:
        """The highest event tick of a partition is now this."""
        self.highest[partition] = event_tick
        lowest = event_tick if len(self.highest) == 1 else min(self.highest.values())
        self.bound = max(self.bound, lowest - self.policy.disorder)

    def hold(self, inputs: Sequence[Input]) -> None:
        """The journal has these inputs."""
        partitions = set(map(_PARTITION, inputs))
        for partition in partitions:
            of_it = inputs if len(partitions) == 1 else [one for one in inputs if one.partition == partition]
            highest = max(map(_EVENT_TICK, of_it))
            self.durable[partition] = max(highest, self.durable.get(partition, highest))


class Gate:
    """See the module's docstring. ``rule(path)`` gives the static checker of a path, raising UnknownPath."""

    def __init__(self, rule: Callable[[str], Checker], probe: Probe = SILENT) -> None:
        self._rule = rule
        self._checks: dict[str, Callable[[object], Any]] = {}
        self._probe = probe
        self._sources: dict[str, _Source] = {}
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
        self._sources[name] = _Source(name, rank, policy)
        return rank

    def reopen(self, name: str) -> None:
        """The source is about to be opened: whatever an earlier life was told, it may have more by now.

        An end that the journal holds may have let the clock go as far as it could without this source, and outputs
        leave with it: what the source brings below that is too late.
        """
        source = self._sources[name]
        if source.ended:
            source.bound = max(source.bound, self.end if self.finished else self._reach())
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
        """Tick of the first input that is held; FOREVER if none is."""
        return self._held[0].tick if self._held else FOREVER

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
            return [*self._admit_readings(source, event.messages), *self._reads()]
        if source.decoder is None:
            raise OperatorError(
                f"source {source.name!r}: messages", "without a decoder it gives Readings", "return one from decoder()"
            )
        return [*self._admit_messages(source, source.decoder, event.messages), *self._reads()]

    def _handle_ended(self, event: Ended) -> list[Instruction]:
        source = self._sources[event.source]
        source.reading = source.open = False
        self._tickets += 1
        self._appending[self._tickets] = _Appending(source, (), FOREVER, True)
        return [Append(self._tickets, source.name, self.floor, positions=dict(source.positions), ended=True)]

    def _handle_appended(self, event: Appended) -> list[Instruction]:
        source, inputs, _, ended = self._appending.pop(event.ticket)
        self._hold(source, inputs)
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
        self._hold(source, event.inputs)
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

    def _hold(self, source: _Source, inputs: Sequence[Input]) -> None:
        """Keep durable inputs in key order until their tick is granted."""
        source.hold(inputs)
        arrived = sorted(inputs)
        overlaps = self._held and arrived and arrived[0] < self._held[-1]
        self._held += arrived
        if overlaps:
            self._held.sort()  # two ascending runs: a merge

    def _reach(self) -> int:
        """How far the clock may go: below every watermark, and below all that is not yet durable."""
        reach = min((source.watermark for source in self._sources.values()), default=FOREVER)
        return min(reach, min((pending.lowest for pending in self._appending.values()), default=FOREVER))

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
                    f"its queue holds {source.policy.queue} and {QUEUE_BYTES_MAX >> 20} MiB of long ones, "
                    "and must cover the disorder bound",
                    "raise connect(queue=...) or lower connect(disorder=...)",
                )

    def _append(self, source: _Source, batch: _Batch) -> Append:
        self._tickets += 1
        inputs = tuple(batch.inputs)
        lowest = min(map(_TICK, inputs), default=FOREVER)
        self._appending[self._tickets] = _Appending(source, inputs, lowest, False)
        return Append(
            self._tickets,
            source.name,
            self.floor,
            inputs,
            tuple(batch.letters),
            dict(batch.counted),
            dict(source.positions),
            dict(batch.moved),
        )

    def _admit_messages(self, source: _Source, decoder: Decoder, raws: Iterable[Raw]) -> list[Append]:
        appends: list[Append] = []
        batch = _Batch()
        for raw in raws:
            last = source.positions.get(raw.partition)
            if last is not None and raw.offset <= last:
                source.counts["duplicates"] += 1
                continue
            if batch.full(source.policy.batch):
                appends.append(self._append(source, batch))
                batch = _Batch()
            self._admit(source, decoder, raw, batch)
            source.positions[raw.partition] = raw.offset
        if batch:
            appends.append(self._append(source, batch))
        return appends

    def _admit_readings(self, source: _Source, readings: Readings) -> list[Append]:
        """Column by column what is plain and in order; message by message, with the same result, what is not."""
        partition, first, ticks, paths, values = readings
        if not len(ticks) == len(paths) == len(values):
            raise OperatorError(
                f"source {source.name!r}: Readings of {len(ticks)} ticks, {len(paths)} paths, {len(values)} values",
                "its columns have one length",
                "mend the source",
            )
        appends: list[Append] = []
        for start in range(0, len(ticks), source.policy.batch):
            rows = slice(start, start + source.policy.batch)
            part = Readings(partition, first + start, ticks[rows], paths[rows], values[rows])
            inputs = self._plain_inputs(source, part)
            if inputs is None:
                appends += self._admit_messages(source, _Rows(part), map(part.raw, range(len(part.ticks))))
                continue
            source.counts["inputs"] += len(inputs)
            source.outstanding += len(inputs)
            source.positions[partition] = inputs[-1].offset
            source.rise(partition, inputs[-1].tick)
            appends.append(self._append(source, _Batch(inputs)))
        return appends

    def _plain_inputs(self, source: _Source, part: Readings) -> list[Input] | None:
        """The inputs of these readings, if each of them is admitted as it stands; else None."""
        partition, first, ticks, paths, values = part
        end = first + len(ticks)
        lowest = max(self.floor, source.bound, source.highest.get(partition, self.floor))
        if (
            (partition >> 16 or first <= source.positions.get(partition, -1) or end >> 48)
            or set(map(type, ticks)) != {int}
            or not lowest <= ticks[0] <= ticks[-1] < FOREVER
            or any(map(lt, islice(ticks, 1, None), ticks))
            or not _SHORT.issuperset(map(type, values))
        ):
            return None
        try:
            checks = {path: self._check(path) for path in set(paths)}
            checked = [checks[path](value) for path, value in zip(paths, values, strict=True)]
        except (TypeError, PeerError, RuleViolation, UnknownPath):  # TypeError: a path that cannot be looked up
            return None
        changes = zip(zip(paths, checked, strict=True), strict=True)
        columns = (ticks, repeat(source.rank), repeat(partition), range(first, end), changes, ticks)
        return list(map(_input, zip(*columns, strict=False)))

    def _check(self, path: str) -> Callable[[object], Any]:
        if type(path) is not str:  # a decoder may be anybody's code, and not every value can be looked up
            raise Undecodable(f"a path of type {type(path).__name__}", "a path is text", "send its name", "path")
        check = self._checks.get(path)
        if check is None:
            check = self._checks[path] = self._rule(path).check
        return check

    def _admit(self, source: _Source, decoder: Decoder, raw: Raw, batch: _Batch) -> None:
        """Decode and check one message: an input into the batch, or a dead letter."""
        if raw.offset >> 48 or raw.partition >> 16:
            input_key(0, source.rank, raw.partition, raw.offset)  # raises: no record could hold this position
        rule = "decode"
        try:
            update = _decode(decoder, raw)
            rule = "value"
            changes = tuple([(path, self._check(path)(value)) for path, value in update.changes])
        except (PeerError, RuleViolation, UnknownPath) as error:
            short = error.short if isinstance(error, Undecodable) else rule
            self._bury(source, raw, short, str(error), batch)
            return
        size = sum(_size(value) for _, value in changes)
        if size > _BATCH_BYTES // 2:
            self._bury(source, raw, "size", f"{size} bytes: an input holds at most {_BATCH_BYTES // 2}", batch)
            return
        tick = update.tick
        bound = max(self.floor, source.bound)
        if tick < bound:
            if source.policy.late == "stop":
                raise OperatorError(*self._late(source, raw, tick))
            if source.policy.late == "drop":
                source.counts["late"] += 1
                source.counts["dropped"] += 1
                self._bury(source, raw, "late", f"tick {tick} lies below the watermark {bound}", batch)
                return
            tick = bound
        one = Input(tick, source.rank, raw.partition, raw.offset, changes, update.tick)
        source.note(one)
        source.outstanding += 1
        if size > _LONG_BYTES:
            source.admit_long(one, size)
        batch.add(one, size)

    def _late(self, source: _Source, raw: Raw, tick: int) -> tuple[str, str, str]:
        value = f"source {source.name!r}, message {raw.offset}: event time {tick / 10**9:.3f} s of the twin"
        if tick < 0:
            return value, "time begins at the epoch, tick 0", "give an earlier epoch, or late='clamp' or late='drop'"
        if tick >= source.bound:
            rule = f"the clock stands at {self.floor / 10**9:.3f} s already"
            return value, rule, "connect with late='clamp' or late='drop'"
        behind = max(source.highest.values()) - tick
        behind_s = f"{behind // 10**9}.{behind % 10**9:09d}".rstrip("0").rstrip(".")  # exact: it is meant to be copied
        bound_s = f"{source.policy.disorder / 10**9:g}"
        return (
            value,
            f"it lies {behind_s} s below the highest time before it, and the disorder bound is {bound_s} s",
            f"connect with disorder of at least {behind_s} s, or with late='clamp' or late='drop'",
        )

    def _bury(self, source: _Source, raw: Raw, rule: str, message: str, batch: _Batch) -> None:
        kept = sum(source.dead.values()) < _LETTERS_MAX and source.letter_bytes < _LETTER_BYTES_MAX
        source.dead[rule] += 1
        self._probe.add("dead_letters")
        batch.moved[raw.partition] = raw.offset
        if not kept:
            batch.counted[rule] += 1
            return
        head = raw.payload[:HEAD_BYTES]
        source.letter_bytes += len(head)
        digest = raw.sha256 if raw.sha256 is not None else sha256(raw.payload).digest()
        batch.letters.append(DeadLetter(raw.partition, raw.offset, rule, message[:1000], head, digest))


class _Rows(NamedTuple):
    """The decoder of readings that are looked at one by one: their columns say what each message means."""

    readings: Readings

    def decode(self, raw: Raw) -> Update:
        """The row of this message."""
        _, first, ticks, paths, values = self.readings
        row = raw.offset - first
        return Update(ticks[row], ((paths[row], values[row]),))


class _Batch:
    """What one Append will hold."""

    def __init__(self, inputs: list[Input] | None = None) -> None:
        self.inputs: list[Input] = [] if inputs is None else inputs
        self.letters: list[DeadLetter] = []
        self.counted: Counter[str] = Counter()
        self.moved: dict[int, int] = {}
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self.inputs or self.letters or self.counted)

    def full(self, batch: int) -> bool:
        """No room for a further message?"""
        return len(self.inputs) >= batch or self._bytes >= _BATCH_BYTES // 2 or len(self.letters) >= _LETTERS_PER_RECORD

    def add(self, one: Input, size: int) -> None:
        """Take one input; ``size`` in bytes."""
        self.inputs.append(one)
        self._bytes += size


def _decode(decoder: Decoder, raw: Raw) -> Update:
    """What the message means. Whatever else than a PeerError its decoder raises (it may be anybody's code) is Undecodable."""
    try:
        update = decoder.decode(raw)
    except PeerError:
        raise
    except Exception as error:
        value = f"message {raw.offset}: {type(error).__name__}: {error}"
        raise Undecodable(value, "its decoder cannot read it", "mend the decoder or the message", "decode") from error
    _refuse_unsound(update)
    return update


def _refuse_unsound(update: Update) -> None:
    """Raises Undecodable for what a record cannot hold."""
    if not update.changes:
        raise Undecodable("an update", "it sets at least one path", "leave the message out", "empty")
    if type(update.tick) is not int or not -FOREVER <= update.tick < FOREVER:
        raise Undecodable(f"tick {update.tick!r:.40}", "a tick is int64 ns", "correct the time", "time")


def _size(value: Any) -> int:
    if isinstance(value, str):
        return _ROW_BYTES + 4 * len(value)
    if isinstance(value, dict):
        return _ROW_BYTES + sum(_size(key) + _size(part) for key, part in value.items())
    if isinstance(value, list):
        return _ROW_BYTES + sum(map(_size, value))
    return _ROW_BYTES
