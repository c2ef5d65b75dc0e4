"""Checking a journal without running its model.

What is checked, from the bytes up: every stored byte of the file (``store.check_file``), every document, the
order of floors and stamps, the source cursors against the records that moved them, and the chain of inputs
of every mark, made anew from the inputs in key order.
"""

from __future__ import annotations

import contextlib
import heapq
from dataclasses import dataclass
from pathlib import Path

from tidewarp.codec import Chain, record_hash
from tidewarp.connect.contract import Input
from tidewarp.connect.documents import pack_positions
from tidewarp.errors import Corrupt, OperatorError
from tidewarp.observe import SILENT, Probe
from tidewarp.store import Journal, check_file, key_fault, open_store
from tidewarp.twin.documents import Checkpoint, Mark, Opened, Released, Resumed
from tidewarp.twin.facts import Dead, Ended, Fact, Inputs, Lacking, Shed, facts, shaped
from tidewarp.twin.run import chain_inputs

__all__ = ["Verified", "verify"]


@dataclass(frozen=True)
class Verified:
    """A journal that holds what was written. ``digest``: of its last mark, None if no run ended there."""

    domain: str
    records: int
    head: str
    digest: str | None
    inputs: int
    marks: int
    head_seq: int | None  # where the head that was asked for stands
    key_fault: str | None  # what is wrong with the key beside it: it is no part of a journal, but who goes on needs it


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
        key_fault(path, checked.domain),
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
    """Takes the facts of one journal in order. Each complaint names the record.

    A mark follows all inputs below it, because no later record admits any: so its chain of inputs can be compared
    when it comes, and only the inputs above the last mark wait.
    """

    def __init__(self, journal: Journal) -> None:
        self.digest: str | None = None
        self.inputs = self.marks = 0
        self._journal = journal
        self._is_begun = False
        self._positions: dict[str, dict[int, int]] = {}
        self._floor = 0
        self._settled = 0  # nothing below it changes any more
        self._repairing: set[str] = set()  # sources whose late inputs may lie below the floor
        self._chain = Chain()
        self._ahead = (0, 0)  # tick, and how many inputs at it are in the chain
        self._waiting: list[Input] = []  # a heap, in key order
        self._names: dict[int, str] = {}  # rank -> source

    def take(self, fact: Fact) -> None:
        """One fact. Whatever is wrong with it becomes Corrupt with its record."""
        with shaped(fact.seq):
            self._take(fact)

    def _take(self, fact: Fact) -> None:
        what = fact.what
        if isinstance(what, Opened) != (not self._is_begun):
            raise _bad(fact.seq, "a run begins with tw.open, once")
        self._is_begun = True
        match what:
            case Opened():
                if what.domain != self._journal.domain.hex():
                    raise _bad(fact.seq, "it was opened for another domain")
                self._repairing = {name for name, policy in what.sources.items() if policy.get("late") == "repair"}
            case Resumed():
                self._repairing |= {name for name, policy in what.sources.items() if policy.get("late") == "repair"}
            case Inputs() | Dead() | Lacking() | Shed() | Ended():
                self._admit(fact.seq, what)
                self._check_span(
                    fact.seq, max(one.tick for one in what.inputs) if isinstance(what, Inputs) else fact.tick
                )
            case Released():
                self._settled = max(self._settled, what.gvt)
            case Mark():
                self._compare(fact.seq, what)
            case Checkpoint():
                self._chain_below(fact.seq, what, 0)
                self._chain = Chain(head=what.inputs)

    def _check_span(self, seq: int, last_tick: int) -> None:
        """What the journal finds a record by is no part of the record."""
        noted = self._journal.last_tick(seq)
        if noted is not None and noted != last_tick:
            raise _bad(seq, f"it is noted as ending at tick {noted}, and ends at {last_tick}")

    def _admit(self, seq: int, what: Inputs | Dead | Lacking | Shed | Ended) -> None:
        lowest = self._settled if self._repairing else self._floor  # a life that repairs comes back a horizon behind
        if what.admitted < lowest:
            raise _bad(seq, f"its floor {what.admitted} lies below an earlier one, {lowest}")
        self._floor = what.admitted
        positions = self._positions.setdefault(what.source, {})
        if isinstance(what, Inputs):
            lowest = self._settled if what.source in self._repairing else what.admitted
            for one in what.inputs:
                if one.tick < lowest:
                    raise _bad(seq, f"an input at tick {one.tick} lies below {lowest}, where nothing changes any more")
                positions[one.partition] = max(positions.get(one.partition, -1), one.offset)
                heapq.heappush(self._waiting, one)
                self._names[one.rank] = what.source
            self.inputs += len(what.inputs)
        elif isinstance(what, Dead | Lacking | Shed):
            for partition, offset in what.positions:
                positions[partition] = max(positions.get(partition, -1), offset)

    def _compare(self, seq: int, mark: Mark) -> None:
        self._chain_below(seq, mark, mark.ahead)
        self.digest = mark.digest
        self.marks += 1

    def _chain_below(self, seq: int, mark: Mark | Checkpoint, ahead: int) -> None:
        due: list[Input] = []
        while self._waiting and self._waiting[0].tick < mark.tick:
            due.append(heapq.heappop(self._waiting))
        taken = self._ahead[1] if self._ahead[0] == mark.tick else 0
        self._ahead = mark.tick, max(ahead, taken)
        for _ in range(ahead - taken):
            if not self._waiting or self._waiting[0].tick != mark.tick:
                raise _bad(seq, f"it stands behind {ahead} inputs at tick {mark.tick}, and there are fewer")
            due.append(heapq.heappop(self._waiting))
        chain_inputs(self._chain, self._names, due)
        if self._chain.head() != mark.inputs:
            raise _bad(seq, f"the inputs below tick {mark.tick} do not give its chain of inputs")
        self._floor = max(self._floor, mark.tick)
        self._settled = max(self._settled, mark.tick)

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
