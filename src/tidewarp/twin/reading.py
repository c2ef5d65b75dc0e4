"""The journal for people: one row per input, dead letter or turn of the run. Reads; runs no model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tidewarp.errors import OperatorError
from tidewarp.store import open_store
from tidewarp.twin.documents import FORMS
from tidewarp.twin.facts import Dead, Ended, Fact, Inputs, Lacking, Shed, facts, opening_of
from tidewarp.twin.run import tick_at
from tidewarp.units import TICK_MAX, TICK_MIN, Duration, format_instant, in_seconds

__all__ = ["KINDS", "journal_rows"]

_KIND_OF: dict[type, str] = {
    Inputs: "input",
    Dead: "dead",
    Lacking: "gap",
    Shed: "shed",
    Ended: "ended",
    **{form: schema.removeprefix("tw.") for schema, form in FORMS.items()},
}
KINDS = (*_KIND_OF.values(),)
"""Every kind of row."""

Row = dict[str, Any]


def journal_rows(
    path: str | Path,
    *,
    first: Duration | datetime | None = None,
    end: Duration | datetime | None = None,
    path_glob: str | None = None,
    source: str | None = None,
    kind: str | None = None,
    after: int = 0,
) -> Iterator[Row]:
    """Rows of the journal in the order of its records, each with ``seq``, ``kind``, ``tick``, ``time_s`` and ``timestamp``.

    Kinds: ``input`` {source, partition, offset, path, value}, ``dead`` {source, partition, offset, rule, message,
    sha256}, ``gap`` {source, partition, first, end}, ``shed`` {source, coalesced, shed}, and ``open``, ``resume``,
    ``ended``, ``stop``, ``mark``, ``released``, ``checkpoint`` with what their documents hold.
    ``first`` (inclusive) and ``end`` (exclusive) are virtual times or instants; ``path_glob`` selects inputs,
    ``source`` inputs and dead letters, ``kind`` one kind; ``after`` skips the records up to that number.

    Raises:
        OperatorError: no such file, or not a twin's journal. Corrupt: with the record.
    """
    if kind is not None and kind not in KINDS:
        raise OperatorError(f"kind {kind!r}", f"one of {', '.join(KINDS)}", "choose one of them")
    with contextlib.closing(open_store(path, read_only=True)) as store:
        epoch_ns = opening_of(store.journal).epoch_ns
        first_tick = TICK_MIN if first is None else tick_at(first, epoch_ns)
        end_tick = TICK_MAX if end is None else tick_at(end, epoch_ns)
        for fact in facts(store.journal, after=after):
            for row in _rows(fact):
                if first_tick <= row["tick"] < end_tick and _selected(row, path_glob, source, kind):
                    row["time_s"] = in_seconds(row["tick"])
                    row["timestamp"] = format_instant(epoch_ns + row["tick"])
                    yield row


def _selected(row: Row, path_glob: str | None, source: str | None, kind: str | None) -> bool:
    if kind is not None and row["kind"] != kind:
        return False
    if source is not None and row.get("source") != source:
        return False
    return path_glob is None or ("path" in row and fnmatchcase(row["path"], path_glob))


def _rows(fact: Fact) -> Iterator[Row]:
    what = fact.what
    head: Row = {"seq": fact.seq, "kind": _KIND_OF[type(what)], "tick": fact.tick}
    match what:
        case Inputs():
            for one in what.inputs:
                place = {"source": what.source, "partition": one.partition, "offset": one.offset}
                for path, value in one.changes:
                    yield {**head, "tick": one.tick, **place, "path": path, "value": value}
        case Dead():
            for letter in what.letters:
                place = {"source": what.source, "partition": letter.partition, "offset": letter.offset}
                yield {**head, **place, "rule": letter.rule, "message": letter.message, "sha256": letter.sha256.hex()}
        case Lacking():
            place = {"source": what.source, "partition": what.partition, "first": what.first, "end": what.end}
            yield {**head, **place}
        case Shed() if what.counted:  # else it says which target its source reads
            yield {**head, "source": what.source, "admitted": what.admitted, **what.counted}
        case Shed():
            return
        case Ended():
            yield {**head, "source": what.source, "admitted": what.admitted}
        case _:
            details = {
                name: value.hex() if isinstance(value, bytes) else value for name, value in what.document().items()
            }
            yield {**head, **details, "tick": fact.tick}
