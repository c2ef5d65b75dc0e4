"""From entries to chained records: the part of a journal that every backend shares. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import repeat
from typing import NamedTuple

from tidewarp.codec import BODY_BYTES_MAX, PUBLISHED, TIMED_KINDS, Record, RecordHeader, split_timed_body
from tidewarp.codec.bodies import decode_body
from tidewarp.codec.records import HEADER_REST, leaf_before_rest
from tidewarp.errors import CodecError, NotFound, OperatorError
from tidewarp.store.contract import CURSOR_BYTES_MAX, NAME_BYTES_MAX, Entry

__all__ = [
    "Linked",
    "check_cursors",
    "check_entries",
    "check_name",
    "check_range",
    "check_window",
    "link",
    "no_input",
    "tick_of",
]


_NOT_STAMPED = repeat(0)


class Linked(NamedTuple):
    """A new record of ``domain``, its stamp, its hash (32 bytes), and the last tick that its entry named.

    Flat, because one is made for each record that is written; :attr:`record` makes the record of it.
    """

    domain: bytes
    seq: int
    kind: int
    flags: int
    hlc: int
    prev: bytes
    body: bytes
    body_hash: bytes
    hash: bytes
    last_tick: int | None

    @property
    def record(self) -> Record:
        """The record."""
        header = RecordHeader(
            self.domain, self.seq, self.kind, self.flags, self.hlc, self.prev, len(self.body), self.body_hash
        )
        return Record(header, self.body)


def check_entries(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """``entries`` as they will be written.

    Raises:
        CodecError: a kind that is no byte, an unknown flag, a body above 1 MiB, not bytes, or without its tick; also a
            published one of a kind that others read, which is not of its form; a last tick below the first, or of a
            body without one.
    """
    checked = tuple(entries)
    for place, (kind, body, flags, last_tick) in enumerate(checked):
        if type(kind) is not int or not 0 <= kind < 256 or type(flags) is not int or flags & ~PUBLISHED:
            raise _refusal(place, f"kind {kind!r:.20}, flags {flags!r:.20}", "a kind is a byte, flags are 0 or 1")
        if type(body) is not bytes:
            raise _refusal(place, f"body: {type(body).__name__}", "a body is bytes")
        if len(body) > BODY_BYTES_MAX:
            raise _refusal(place, f"body: {len(body)} bytes", f"a body has at most {BODY_BYTES_MAX} bytes")
        if kind in TIMED_KINDS:
            if len(body) < 8:
                raise _refusal(place, f"body: {len(body)} bytes", "a timed body begins with an I64 tick")
        elif flags:
            decode_body(kind, body)
        if last_tick is not None and not _is_last(tick_of(kind, body), last_tick):
            rule = "a timed body ends at an I64 tick that is not below the one it begins with"
            raise _refusal(place, f"last tick {last_tick!r:.40}", rule)
    return checked


def check_cursors(cursors: Mapping[str, bytes] | None) -> dict[str, bytes]:
    """A copy of ``cursors``.

    Raises:
        CodecError: a name that is not 1 to 1,024 bytes of UTF-8 without NUL, or a cursor that is not bytes.
    """
    checked = dict(cursors or {})
    for source, cursor in checked.items():
        check_name(source, "source")
        if type(cursor) is not bytes or len(cursor) > CURSOR_BYTES_MAX:
            raise CodecError(f"cursor of {source!r:.60}", f"at most {CURSOR_BYTES_MAX} bytes", "keep positions short")
    return checked


def check_name(name: str, what: str) -> str:
    """``name``. Raises CodecError: it is not 1 to 1,024 bytes of UTF-8 without NUL."""
    if not _is_name(name):
        raise CodecError(
            f"{what} {name!r:.60}", f"a name has 1 to {NAME_BYTES_MAX} bytes of UTF-8, no NUL", "rename it"
        )
    return name


def check_range(after: int, limit: int | None) -> None:
    """Raise OperatorError unless both count from 0."""
    if after < 0 or (limit is not None and limit < 0):
        raise OperatorError(f"after {after}, limit {limit}", "both count from 0", "give numbers that are not negative")


def check_window(first_tick: int, last_tick: int) -> None:
    """Raise OperatorError unless both are I64 and the first is not behind the last."""
    if not -1 << 63 <= first_tick <= last_tick < 1 << 63:
        raise OperatorError(
            f"ticks {first_tick} to {last_tick}",
            "a window has an I64 tick at each end, in order",
            "give two such ticks",
        )


def link(
    domain: bytes,
    size: int,
    head: bytes,
    entries: Iterable[tuple[int, bytes, int, int | None]],
    hlcs: Iterable[int] = _NOT_STAMPED,
) -> list[Linked]:
    """The records of ``entries`` (fields of an Entry) behind a journal of ``size`` records whose last hash is ``head``, each with the next stamp."""
    linked = []
    seq, before, pack = size, leaf_before_rest(domain), HEADER_REST.pack
    made = tuple.__new__  # as Linked() calls it, in a third of the time
    for (kind, body, flags, last_tick), hlc in zip(entries, hlcs, strict=False):
        seq, prev, body_hash = seq + 1, head, sha256(body).digest()
        head = sha256(before + pack(seq, kind, flags, hlc, prev, len(body), body_hash)).digest()
        linked.append(made(Linked, (domain, seq, kind, flags, hlc, prev, body, body_hash, head, last_tick)))
    return linked


def tick_of(kind: int, body: bytes) -> int | None:
    """The tick of a timed body, None for other kinds."""
    return split_timed_body(body)[0] if kind in TIMED_KINDS else None


def no_input(seq: int) -> NotFound:
    """What is raised where a record of inputs was meant, and ``seq`` is none."""
    return NotFound(f"record {seq}", "it is no record of inputs of this journal", "take a number from read_time")


def _is_last(tick: int | None, last_tick: object) -> bool:
    return tick is not None and type(last_tick) is int and tick <= last_tick < 1 << 63


def _is_name(source: object) -> bool:
    try:
        return type(source) is str and 0 < len(source.encode()) <= NAME_BYTES_MAX and "\0" not in source
    except UnicodeEncodeError:
        return False


def _refusal(place: int, what: str, rule: str) -> CodecError:
    return CodecError(f"entry {place}: {what}", rule, "split it, or keep it elsewhere and refer to it")
