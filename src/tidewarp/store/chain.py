"""From entries to chained records: the part of a journal that every backend shares. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tidewarp.codec import BODY_BYTES_MAX, PUBLISHED, TIMED_KINDS, Record, RecordHeader, record_hash, split_timed_body
from tidewarp.errors import CodecError, OperatorError
from tidewarp.store.contract import CURSOR_BYTES_MAX, NAME_BYTES_MAX, Entry

__all__ = ["Linked", "check_cursors", "check_entries", "check_range", "link", "tick_of"]


class Linked(NamedTuple):
    """A record and its hash (32 bytes)."""

    record: Record
    hash: bytes


def check_entries(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """``entries`` as they will be written.

    Raises:
        CodecError: a kind that is no byte, an unknown flag, a body above 1 MiB, not bytes, or without its tick.
    """
    checked = tuple(entries)
    for place, (kind, body, flags) in enumerate(checked):
        if type(kind) is not int or not 0 <= kind < 256 or type(flags) is not int or flags & ~PUBLISHED:
            raise _refusal(place, f"kind {kind!r:.20}, flags {flags!r:.20}", "a kind is a byte, flags are 0 or 1")
        if type(body) is not bytes:
            raise _refusal(place, f"body: {type(body).__name__}", "a body is bytes")
        if len(body) > BODY_BYTES_MAX:
            raise _refusal(place, f"body: {len(body)} bytes", f"a body has at most {BODY_BYTES_MAX} bytes")
        if kind in TIMED_KINDS and len(body) < 8:
            raise _refusal(place, f"body: {len(body)} bytes", "a timed body begins with an I64 tick")
    return checked


def check_cursors(cursors: Mapping[str, bytes] | None) -> dict[str, bytes]:
    """A copy of ``cursors``.

    Raises:
        CodecError: a name that is not 1 to 1,024 bytes of UTF-8 without NUL, or a cursor that is not bytes.
    """
    checked = dict(cursors or {})
    for source, cursor in checked.items():
        if not _is_name(source):
            raise CodecError(
                f"source {source!r:.60}", f"a name has 1 to {NAME_BYTES_MAX} bytes of UTF-8, no NUL", "rename it"
            )
        if type(cursor) is not bytes or len(cursor) > CURSOR_BYTES_MAX:
            raise CodecError(f"cursor of {source!r:.60}", f"at most {CURSOR_BYTES_MAX} bytes", "keep positions short")
    return checked


def check_range(after: int, limit: int | None) -> None:
    """Raise OperatorError unless both count from 0."""
    if after < 0 or (limit is not None and limit < 0):
        raise OperatorError(f"after {after}, limit {limit}", "both count from 0", "give numbers that are not negative")


def link(domain: bytes, size: int, head: bytes, entries: Sequence[Entry]) -> list[Linked]:
    """The records of ``entries`` behind a journal of ``size`` records whose last hash is ``head``."""
    linked = []
    for seq, (kind, body, flags) in enumerate(entries, size + 1):
        header = RecordHeader(domain, seq, kind, flags, 0, head, len(body), hashlib.sha256(body).digest())
        head = record_hash(header.to_bytes())
        linked.append(Linked(Record(header, body), head))
    return linked


def tick_of(kind: int, body: bytes) -> int | None:
    """The tick of a timed body, None for other kinds."""
    return split_timed_body(body)[0] if kind in TIMED_KINDS else None


def _is_name(source: object) -> bool:
    try:
        return type(source) is str and 0 < len(source.encode()) <= NAME_BYTES_MAX and "\0" not in source
    except UnicodeEncodeError:
        return False


def _refusal(place: int, what: str, rule: str) -> CodecError:
    return CodecError(f"entry {place}: {what}", rule, "split it, or keep it elsewhere and refer to it")
