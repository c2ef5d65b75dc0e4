"""The journal for people: one row per input, dead letter or turn of the run. Reads; runs no model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tidewarp.connect.documents import DEAD, INPUTS, PATHS, PathTable, decode_inputs
from tidewarp.errors import OperatorError
from tidewarp.store import open_store
from tidewarp.twin.documents import RESUME, Fact, facts, opening, shaped
from tidewarp.twin.run import tick_at
from tidewarp.units import Duration, format_instant, in_seconds

__all__ = ["KINDS", "journal_rows"]

KINDS = ("input", "dead", "open", "resume", "ended", "stop", "mark", "released")

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
    sha256}, and ``open``, ``resume``, ``ended``, ``stop``, ``mark``, ``released`` with what their documents hold.
    ``first`` (inclusive) and ``end`` (exclusive) are virtual times or instants; ``path_glob`` selects inputs,
    ``source`` inputs and dead letters, ``kind`` one kind; ``after`` skips the records up to that number.

    Raises:
        OperatorError: no such file, or not a twin's journal. Corrupt: with the record.
    """
    if kind is not None and kind not in KINDS:
        raise OperatorError(f"kind {kind!r}", f"one of {', '.join(KINDS)}", "choose one of them")
    with contextlib.closing(open_store(path, read_only=True)) as store:
        opened = opening(store.journal)
        ranks = _ranks(opened)
        epoch_ns = opened["epoch_ns"]
        first_tick = -(2**63) if first is None else tick_at(first, epoch_ns)
        end_tick = 2**63 - 1 if end is None else tick_at(end, epoch_ns)
        table = PathTable()
        for fact in facts(store.journal):
            if fact.schema == PATHS:
                with shaped(fact.seq):
                    table.add(fact.value["paths"])
                continue
            if fact.schema == RESUME:
                ranks = _ranks(fact.value)
            if fact.seq <= after:
                continue
            with shaped(fact.seq):
                rows = list(_rows(fact, ranks, table))
            for row in rows:
                if first_tick <= row["tick"] < end_tick and _selected(row, path_glob, source, kind):
                    row["time_s"] = in_seconds(row["tick"])
                    row["timestamp"] = format_instant(epoch_ns + row["tick"])
                    yield row


def _ranks(value: dict[str, Any]) -> dict[str, int]:
    return {name: policy["rank"] for name, policy in value["sources"].items()}


def _selected(row: Row, path_glob: str | None, source: str | None, kind: str | None) -> bool:
    if kind is not None and row["kind"] != kind:
        return False
    if source is not None and row.get("source") != source:
        return False
    return path_glob is None or ("path" in row and fnmatchcase(row["path"], path_glob))


def _rows(fact: Fact, ranks: dict[str, int], table: PathTable) -> Iterator[Row]:
    head: Row = {"seq": fact.seq, "kind": fact.schema.removeprefix("tw."), "tick": fact.tick}
    if fact.schema == INPUTS:
        name = fact.value["source"]
        for one in decode_inputs(fact.value, ranks[name], table):
            for path, value in one.changes:
                place = {"source": name, "partition": one.partition, "offset": one.offset}
                yield {**head, "kind": "input", "tick": one.tick, **place, "path": path, "value": value}
    elif fact.schema == DEAD:
        for partition, offset, rule, message, _, digest in fact.value["letters"]:
            place = {"source": fact.value["source"], "partition": partition, "offset": offset}
            yield {**head, **place, "rule": rule, "message": message, "sha256": digest.hex()}
    else:
        details = {name: value.hex() if isinstance(value, bytes) else value for name, value in fact.value.items()}
        yield {**head, **details, "tick": fact.tick}
