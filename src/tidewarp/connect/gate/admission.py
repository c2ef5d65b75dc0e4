"""Messages to inputs: decoded, checked, stamped, and gathered into batches of one journal record each.

Columns of readings are admitted together where all of them are plain, ascending and in time; what is not goes
message by message, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

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
from tidewarp.connect.documents import text_of
from tidewarp.connect.gate.batch import BATCH_BYTES, ID_MAX, ROW_BYTES, Batch
from tidewarp.connect.gate.coalescing import Counts, coalesce
from tidewarp.connect.gate.plain import plain_messages, plain_readings
from tidewarp.connect.gate.state import SourceState, buried, digest_of
from tidewarp.errors import OperatorError, PeerError, RuleViolation, UnknownPath
from tidewarp.observe import Probe
from tidewarp.units import TICK_MAX

__all__ = ["Admission", "Moment"]

_LONG_BYTES = 1_024  # below this an input is bounded by the count of inputs alone
_LETTERS_MAX, _LETTER_BYTES_MAX = 100_000, 256 << 20  # kept per source; further ones are counted only
_WORD_MAX = 64  # of the name of a rule
_SHORT = frozenset({type(None), bool, int, float})  # values of at most 8 bytes in a record
_input = partial(tuple.__new__, Input)  # Input._make without its call in Python


class Moment(NamedTuple):
    """Where the run stands when messages are admitted. Ticks."""

    floor: int  # nothing is admitted below it, but for a repair
    gvt: int  # nor that
    present: int  # virtual time by the wall; the first tick at full speed


class Admission:
    """Admits what sources send. ``rule(path)`` gives the static checker of a path, raising UnknownPath."""

    def __init__(self, rule: Callable[[str], Checker], probe: Probe) -> None:
        self._rule = rule
        self._probe = probe
        self._checkers: dict[str, Checker] = {}
        self._coalescing: set[str] = set()  # paths whose last value of a drain is enough

    def judge_by(self, rule: Callable[[str], Checker]) -> None:
        """Ask this for the checker of a path from now on."""
        self._rule = rule
        self._checkers.clear()
        self._coalescing.clear()

    def drain(self, source: SourceState, messages: Sequence[Raw] | Readings, moment: Moment) -> list[Batch]:
        """Decode, check and stamp what one read has brought, and leave out what is coalesced. Raises OperatorError."""
        before = None if source.policy.wait else Counts(source)
        if messages and _is_measured(source, moment):
            source.lateness.note(moment.present, 0)  # unless one of them is late
        if isinstance(messages, Readings):
            batches = self._readings(source, messages, moment)
        elif source.decoder is not None:
            batches = self._messages(source, source.decoder, messages, moment)
        else:
            value = f"source {source.name!r}: messages"
            raise OperatorError(value, "without a decoder it gives Readings", "return one from decoder()")
        if before is not None and self._coalescing:
            self._probe.add("coalesced", coalesce(source, batches, self._coalescing, before, moment.floor))
        return batches

    def _messages(self, source: SourceState, decoder: Decoder, raws: Sequence[Raw], moment: Moment) -> list[Batch]:
        """Together what is plain, message by message, with the same result, what is not."""
        columns = getattr(decoder, "columns", None)
        if columns is not None and 0 < len(raws) <= source.policy.batch:
            bound = _bound(source, moment)
            now = bound if source.policy.wait else max(bound, moment.present)
            batch = plain_messages(source, raws, columns, now, bound, self._checked)
            if batch is not None:
                return [batch.closed(source.positions)]
        return self.one_by_one(source, decoder, raws, moment)

    def one_by_one(self, source: SourceState, decoder: Decoder, raws: Iterable[Raw], moment: Moment) -> list[Batch]:
        """Message by message. Raises OperatorError if a policy says stop."""
        batches: list[Batch] = []
        batch = Batch()
        for raw in raws:
            if type(raw) is not Raw:
                value = f"source {source.name!r}: read() gave a {type(raw).__name__}"
                raise OperatorError(value, "it gives Raw messages, Readings or None", "mend the source")
            last = source.positions.get(raw.partition)
            if last is not None and raw.offset <= last:
                source.counts["duplicates"] += 1
                continue
            if batch.full(source.policy.batch):
                batches.append(batch.closed(source.positions))
                batch = Batch()
            if self._admit(source, decoder, raw, batch, moment):
                source.positions[raw.partition] = raw.offset
            else:
                source.counts["duplicates"] += 1
                source.repeated[raw.partition] = raw.offset
        if batch:
            batches.append(batch.closed(source.positions))
        return batches

    def _readings(self, source: SourceState, readings: Readings, moment: Moment) -> list[Batch]:
        """Column by column what is plain and in order; message by message, with the same result, what is not."""
        partition, first, ticks, paths, values = readings
        if not len(ticks) == len(paths) == len(values):
            raise OperatorError(
                f"source {source.name!r}: Readings of {len(ticks)} ticks, {len(paths)} paths, {len(values)} values",
                "its columns have one length",
                "mend the source",
            )
        batches: list[Batch] = []
        for start in range(0, len(ticks), source.policy.batch):
            rows = slice(start, start + source.policy.batch)
            part = Readings(partition, first + start, ticks[rows], paths[rows], values[rows])
            bound = max(moment.floor, moment.gvt, source.bound)
            batch = plain_readings(source, part, bound, self._checked)
            if batch is None:
                rows_of = [part.raw(k) for k in range(len(part.ticks))]
                batches += self.one_by_one(source, _Rows(part), rows_of, moment)
            else:
                batches.append(batch.closed(source.positions))
        return batches

    def _checked(self, paths: Sequence[str], values: Sequence[Any]) -> Sequence[Any] | None:
        """The values as their paths' types; None if one does not fit."""
        try:
            checkers = {path: self._checker(path) for path in set(paths)}
            if set(map(type, values)) == {float}:
                ranges = {path: checker.floats for path, checker in checkers.items()}
                if len(spans := {*ranges.values()}) == 1 and _lie_in(values, *spans):
                    return values
                ranged = zip(values, map(ranges.__getitem__, paths), strict=True)
                if False not in [low <= value <= high for value, (low, high) in ranged]:
                    return values
            return [checkers[path].check(value) for path, value in zip(paths, values, strict=True)]
        except (TypeError, PeerError, RuleViolation, UnknownPath):  # TypeError: a path that cannot be looked up
            return None

    def _checker(self, path: str) -> Checker:
        if type(path) is not str:  # a decoder may be anybody's code, and not every value can be looked up
            raise Undecodable(f"a path of type {type(path).__name__}", "a path is text", "send its name", "path")
        checker = self._checkers.get(path)
        if checker is None:
            checker = self._checkers[path] = self._rule(path)
            if checker.coalesce:
                self._coalescing.add(path)
        return checker

    def _admit(self, source: SourceState, decoder: Decoder, raw: Raw, batch: Batch, moment: Moment) -> bool:
        """Decode and check one message: an input into the batch, or a dead letter. False: it is a duplicate by its id."""
        if not (type(raw.offset) is type(raw.partition) is int):
            value = f"source {source.name!r}: a message at {raw.partition!r:.40}, {raw.offset!r:.40}"
            raise OperatorError(value, "partition and offset are int", "mend the source")
        if raw.offset >> 48 or raw.partition >> 16:
            input_key(0, source.rank, raw.partition, raw.offset)  # raises: no record could hold this position
        rule, update = "decode", None
        identity = f"at:{raw.id}" if raw.id and _is_sound(raw.id) else ""
        try:
            update = _decode(decoder, raw)
            event = _event_tick(source, raw, update)
            if update.id:
                identity = f"id:{update.id}"
            if identity in source.ids or source.has_buried(identity, raw):
                return False
            rule = "value"
            changes = tuple([(path, self._checker(path).check(value)) for path, value in update.changes])
        except (PeerError, RuleViolation, UnknownPath) as error:
            if identity in source.ids or source.has_buried(identity, raw):
                return False
            short = error.short if isinstance(error, Undecodable) and _is_word(error.short) else rule
            self._bury(source, raw, short, text_of(error), batch, identity)
            return True
        except (TypeError, ValueError) as error:  # `changes` of no pairs: a decoder may be anybody's code
            self._bury(source, raw, "decode", f"message {raw.offset}: its changes: {text_of(error)}", batch, identity)
            return True
        size = sum([ROW_BYTES if type(value) in _SHORT else _size(value) for _, value in changes])
        size += len(identity.encode()) + len((update.cause or raw.cause).encode())
        if size > BATCH_BYTES // 2:
            rule = f"{size} bytes: an input holds at most {BATCH_BYTES // 2}"
            self._bury(source, raw, "size", rule, batch, identity)
            return True
        tick, event = self._stamp(source, raw, event, moment)
        if tick is None:
            source.counts["late"] += 1
            source.counts["dropped"] += 1
            bound = _bound(source, moment)
            rule = f"{event / 10**9:.3f} s lies below the watermark, {bound / 10**9:.3f} s"
            self._bury(source, raw, "late", rule, batch, identity)
            return True
        source.counts["repaired"] += tick < moment.floor
        cause = update.cause or raw.cause
        one = _input((tick, source.rank, raw.partition, raw.offset, changes, event, identity, cause))
        if identity:
            source.remember(identity)
        source.note(one)
        source.outstanding += 1
        if size > _LONG_BYTES:
            source.admit_long(one, size)
        batch.add(one, size)
        return True

    def _stamp(self, source: SourceState, raw: Raw, event: int | None, moment: Moment) -> tuple[int | None, int]:
        """The tick of an input, None if it is dropped, and when it happened. By the source's policy."""
        policy = source.policy
        bound = _bound(source, moment)
        if event is None:
            now = bound if policy.wait else max(bound, moment.present)
            return now, now
        if event >= bound:
            return event, event
        if _is_measured(source, moment):
            source.lateness.note(moment.present, max(moment.present, bound) - event)
        late = policy.late
        if late == "repair":
            if event >= max(moment.gvt, bound - policy.horizon):
                return event, event
            source.counts["beyond"] += 1
            late = policy.beyond
        if late == "stop":
            raise OperatorError(*_late(source, raw, event, moment.floor))
        return None if late == "drop" else bound, event

    def _bury(self, source: SourceState, raw: Raw, rule: str, message: str, batch: Batch, identity: str) -> None:
        kept = sum(source.dead.values()) < _LETTERS_MAX and source.letter_bytes < _LETTER_BYTES_MAX
        source.dead[rule] += 1
        self._probe.add("dead_letters")
        batch.moved[raw.partition] = raw.offset
        if identity:
            source.remember(buried(identity, digest_of(raw)))
        if not kept:
            batch.counted[rule] += 1
            return
        head = raw.payload[:HEAD_BYTES]
        source.letter_bytes += len(head)
        digest = digest_of(raw)
        batch.letters.append(DeadLetter(raw.partition, raw.offset, rule, message[:1000], head, digest, identity))


def _lie_in(values: Sequence[float], span: tuple[float, float]) -> bool:
    total = sum(values)  # NaN if one of them is
    return total == total and span[0] <= min(values) and max(values) <= span[1]


class _Rows(NamedTuple):
    """The decoder of readings that are looked at one by one: their columns say what each message means."""

    readings: Readings

    def decode(self, raw: Raw) -> Update:
        """The row of this message."""
        _, first, ticks, paths, values = self.readings
        row = raw.offset - first
        return Update(ticks[row], ((paths[row], values[row]),))


def _bound(source: SourceState, moment: Moment) -> int:
    """Below this tick an event is too late to be put in its place without a repair.

    Where the clock waits for the source, its own messages alone decide, so the same ones are too late in every life.
    """
    reached = max(moment.floor, moment.gvt)
    return max(reached, source.bound) if source.policy.wait else reached


def _is_measured(source: SourceState, moment: Moment) -> bool:
    """Can its messages be late as a rule? Those with times of their own, where the clock does not wait; none of a redrive."""
    return moment.present > 0 and source.policy.time != "arrival" and not source.policy.wait


def _late(source: SourceState, raw: Raw, tick: int, floor: int) -> tuple[str, str, str]:
    value = f"source {source.name!r}, message {raw.offset}: event time {tick / 10**9:.3f} s of the twin"
    if tick < 0:
        action = "begin a new journal with an earlier --epoch (epoch=), or connect with late='clamp' or late='drop'"
        return value, "time begins at the epoch, tick 0", action
    if tick >= source.bound:
        rule = f"the clock stands at {floor / 10**9:.3f} s already"
        return value, rule, "connect with late='clamp' or late='drop'"
    highest, partition = max(((highest, partition) for partition, highest in source.highest.items()), default=(tick, 0))
    behind = highest - tick
    if behind <= source.policy.disorder:
        rule = f"the source had ended before, and the clock went on to {source.reached / 10**9:.3f} s"
        return value, rule, "begin a new journal, or connect with late='clamp' or late='drop'"
    behind_s = f"{behind // 10**9}.{behind % 10**9:09d}".rstrip("0").rstrip(".")  # exact: it is meant to be copied
    bound_s = f"{source.policy.disorder / 10**9:g}"
    return (
        value,
        f"it lies {behind_s} s below that of message {source.peaks[partition]}, and the disorder bound is {bound_s} s",
        f"connect with disorder of at least {behind_s} s if both times are right, or with late='clamp' or late='drop'",
    )


def _decode(decoder: Decoder, raw: Raw) -> Update:
    """What the message means. Whatever else than a PeerError its decoder raises (it may be anybody's code) is Undecodable."""
    try:
        update = decoder.decode(raw)
    except PeerError:
        raise
    except Exception as error:
        value = f"message {raw.offset}: {type(error).__name__}: {text_of(error)}"
        raise Undecodable(value, "its decoder cannot read it", "mend the decoder or the message", "decode") from error
    if type(update) is not Update:
        raise Undecodable(
            f"message {raw.offset}: its decoder gave a {type(update).__name__}",
            "it gives an Update",
            "mend the decoder",
            "decode",
        )
    if not update.changes:
        raise Undecodable("an update", "it sets at least one path", "leave the message out", "empty")
    if update.tick is not None and not _is_tick(update.tick):
        raise Undecodable(f"tick {update.tick!r:.40}", "a tick is int64 ns", "correct the time", "time")
    for name, word in (("id", update.id), ("cause", update.cause), ("id", raw.id), ("cause", raw.cause)):
        if not _is_sound(word):
            raise Undecodable(f"{name} {word!r:.40}", f"text of at most {ID_MAX}", "shorten it", name)
    return update


def _event_tick(source: SourceState, raw: Raw, update: Update) -> int | None:
    """When it happened, by the source's policy; None: when it comes. Raises Undecodable for what no record can hold."""
    if source.policy.time == "arrival":
        return None
    if source.policy.time == "payload":
        return update.tick
    if raw.time_ns is None:
        return None
    if not _is_tick(raw.time_ns - source.epoch_ns):
        raise Undecodable(f"Unix time {raw.time_ns} ns", "a tick is int64 ns", "correct the time", "time")
    return raw.time_ns - source.epoch_ns


def _is_tick(tick: object) -> bool:
    return type(tick) is int and -TICK_MAX <= tick < TICK_MAX


def _is_sound(word: object) -> bool:
    """Is it text that a record can hold?"""
    if type(word) is not str or len(word) > ID_MAX:
        return False
    return word.isascii() or word.encode("utf-8", "replace") == word.encode("utf-8", "surrogatepass")


def _is_word(short: object) -> bool:
    return type(short) is str and 0 < len(short) <= _WORD_MAX and short.isascii() and short.isprintable()


def _size(value: Any) -> int:
    if isinstance(value, str):
        return ROW_BYTES + 4 * len(value)
    if isinstance(value, dict):
        return ROW_BYTES + sum(_size(key) + _size(part) for key, part in value.items())
    if isinstance(value, list):
        return ROW_BYTES + sum(map(_size, value))
    return ROW_BYTES
