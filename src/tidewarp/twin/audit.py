"""Checking a journal without running its model.

What is checked, from the bytes up: every stored byte of the file (``store.check_file``), every document, the
order of floors and stamps, the source cursors against the records that moved them, and the chain of inputs
of every mark, made anew from the inputs in key order.
"""

from __future__ import annotations

import contextlib
import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewarp.codec import Chain, record_hash
from tidewarp.connect.contract import Input
from tidewarp.connect.documents import DEAD, ENDED, INPUTS, PATHS, PathTable, decode_inputs, pack_positions
from tidewarp.errors import Corrupt, OperatorError
from tidewarp.observe import SILENT, Probe
from tidewarp.store import Journal, check_file, open_store
from tidewarp.twin.documents import MARK, OPEN, RELEASED_IDS, RESUME, STOP, Fact, facts, marks, shaped
from tidewarp.twin.run import chain_input

__all__ = ["Verified", "verify"]


@dataclass(frozen=True)
class Verified:
    """A journal that holds what was written. ``digest``: of its last stop, None if it was not ended in order."""

    domain: str
    records: int
    head: str
    digest: str | None
    inputs: int
    marks: int
    head_seq: int | None  # where the head that was asked for stands


def verify(path: str | Path, *, head: str | None = None, probe: Probe = SILENT) -> Verified:
    """Check a whole journal; ``head`` (hex) is a record hash that was kept elsewhere and must be in it.

    Raises:
        Corrupt: something differs from what was written; the record, page or table is named.
        OperatorError: no such file, no permission, or ``head`` is not 64 hex digits.
    """
    wanted = None if head is None else _head(head)
    checked = check_file(path)
    with contextlib.closing(open_store(path, read_only=True)) as store:
        auditor = _Auditor(store.journal)
        for fact in facts(store.journal):
            auditor.take(fact)
            probe.progress(fact.seq, checked.records)
        auditor.close()
        head_seq = None if wanted is None else _find(store.journal, wanted, str(path))
    return Verified(
        checked.domain.hex(),
        checked.records,
        checked.head.hex(),
        auditor.digest,
        auditor.inputs,
        auditor.marks,
        head_seq,
    )


def _head(text: str) -> bytes:
    try:
        head = bytes.fromhex(text)
    except ValueError:
        head = b""
    if len(head) != 32:
        raise OperatorError(f"--head {text}", "a head is 64 hex digits", "give the head that run printed")
    return head


def _find(journal: Journal, head: bytes, path: str) -> int:
    for record in journal.read():
        if record_hash(record.header.to_bytes()) == head:
            return record.seq
    raise Corrupt(
        f"{path}: head {head.hex()}",
        f"none of its {journal.size} records has this hash: records that it once held are gone or replaced",
        "restore the file from a copy",
    )


class _Auditor:
    """Takes the facts of one journal in order. Each complaint names the record."""

    def __init__(self, journal: Journal) -> None:
        self.digest: str | None = None
        self.inputs = self.marks = 0
        self._journal = journal
        self._table = PathTable()
        self._ranks: Mapping[str, int] = {}
        self._names: dict[int, str] = {}
        self._positions: dict[str, dict[int, int]] = {}
        self._floor = 0
        self._chain = Chain()
        self._waiting: list[Input] = []
        self._pending = deque(marks(journal))

    def take(self, fact: Fact) -> None:
        """One fact. Whatever is wrong with it becomes Corrupt with its record."""
        with shaped(fact.seq):
            self._take(fact)

    def _take(self, fact: Fact) -> None:
        value = fact.value
        if (fact.seq == 1) != (fact.schema == OPEN):
            raise _bad(fact.seq, "a journal begins with tw.open, once")
        if fact.schema == OPEN:
            self._open(value)
        elif fact.schema == PATHS:
            if value["first"] != len(self._table):
                raise _bad(fact.seq, "its paths do not continue the table")
            self._table.add(value["paths"])
        elif fact.schema in (INPUTS, DEAD, ENDED):
            self._admit(fact)
        elif fact.schema in (MARK, STOP):
            self._reach(value["tick"])
            self.digest = value["digest"] if fact.schema == MARK else self.digest
        elif fact.schema == RESUME:
            self._know(value["sources"])
        elif fact.schema != RELEASED_IDS:
            raise _bad(fact.seq, f"document {fact.schema!r} is not known")

    def _open(self, value: Mapping[str, Any]) -> None:
        if value["domain"] != self._journal.domain.hex():
            raise _bad(1, "it was opened for another domain")
        self._know(value["sources"])

    def _know(self, sources: Mapping[str, Any]) -> None:
        """A life that was begun with --accept-model may connect more sources."""
        self._ranks = {name: policy["rank"] for name, policy in sources.items()}
        self._names = {rank: name for name, rank in self._ranks.items()}

    def _admit(self, fact: Fact) -> None:
        value = fact.value
        source, admitted = value["source"], value["admitted"]
        if source not in self._ranks:
            raise _bad(fact.seq, f"tw.open names no source {source!r:.80}")
        if admitted < self._floor:
            raise _bad(fact.seq, f"its floor {admitted} lies below an earlier one, {self._floor}")
        self._floor = admitted
        positions = self._positions.setdefault(source, {})
        if fact.schema == INPUTS:
            for one in decode_inputs(value, self._ranks[source], self._table):
                if one.tick < admitted:
                    raise _bad(fact.seq, f"an input at tick {one.tick} lies below its floor {admitted}")
                positions[one.partition] = max(positions.get(one.partition, -1), one.offset)
                heapq.heappush(self._waiting, one)
                self.inputs += 1
        for partition, offset in value.get("positions", ()):
            if type(partition) is not int or type(offset) is not int:
                raise _bad(fact.seq, "a position is a partition and an offset")
            positions[partition] = max(positions.get(partition, -1), offset)
        self._reach(admitted)

    def _reach(self, floor: int) -> None:
        """All inputs below ``floor`` are known: compare the marks up to it."""
        while self._pending and self._pending[0][1].tick <= floor:
            seq, mark = self._pending.popleft()
            while self._waiting and self._waiting[0].tick < mark.tick:
                one = heapq.heappop(self._waiting)
                chain_input(self._chain, self._names[one.rank], one)
            if self._chain.head() != mark.inputs:
                raise _bad(seq, f"the inputs below tick {mark.tick} do not give its chain of inputs")
            self.marks += 1

    def close(self) -> None:
        """What only the whole journal tells: the cursors."""
        expected = {source: pack_positions(positions) for source, positions in self._positions.items()}
        found = self._journal.cursors()
        for source in sorted({*expected, *found}):
            if expected.get(source) != found.get(source):
                raise Corrupt(
                    f"table source_cursor, source {source!r}",
                    "its records lead to another position",
                    "restore the file from a copy",
                )


def _bad(seq: int, rule: str) -> Corrupt:
    return Corrupt(f"record {seq}", rule, "restore the file from a copy", seq)
