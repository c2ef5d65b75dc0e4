"""The journal for people: one row per input, dead letter or turn of the run. Reads; runs no model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tidewarp.connect.documents import DEAD, INPUTS, PATHS, PathTable, decode_inputs
from tidewarp.store import open_store
from tidewarp.twin.documents import Fact, facts, opening
from tidewarp.units import format_instant, in_seconds

__all__ = ["journal_rows"]

Row = dict[str, Any]


def journal_rows(
    path: str | Path,
    *,
    first_tick: int = -(2**63),
    end_tick: int = 2**63 - 1,
    path_glob: str | None = None,
    source: str | None = None,
    dead: bool = False,
    after: int = 0,
) -> Iterator[Row]:
    """Rows of the journal in the order of its records, each with ``seq``, ``kind``, ``tick``, ``time_s`` and ``timestamp``.

    Kinds: ``input`` {source, partition, offset, path, value}, ``dead`` {source, partition, offset, rule, message,
    sha256}, and ``open``, ``resume``, ``ended``, ``stop``, ``mark``, ``released`` with what their documents hold.
    ``path_glob`` and ``source`` select inputs and dead letters; ``dead`` selects dead letters alone;
    ``after`` skips the records up to that sequence number.
    """
    with contextlib.closing(open_store(path, read_only=True)) as store:
        opened = opening(store.journal)
        ranks = {name: policy["rank"] for name, policy in opened["sources"].items()}
        table = PathTable()
        for fact in facts(store.journal):
            if fact.schema == PATHS:
                table.add(fact.value["paths"])
                continue
            if fact.seq <= after:
                continue
            for row in _rows(fact, ranks, table):
                selected = _selected(row, path_glob, source, dead) and first_tick <= row["tick"] < end_tick
                if selected:
                    row["time_s"] = in_seconds(row["tick"])
                    row["timestamp"] = format_instant(opened["epoch_ns"] + row["tick"])
                    yield row


def _selected(row: Row, path_glob: str | None, source: str | None, dead: bool) -> bool:
    if dead and row["kind"] != "dead":
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
