"""The journal read back, each record as one typed fact: the only place that takes its documents apart.

What a later record needs of an earlier one (the numbers of paths, the ranks of sources) is the reader's own
matter. What has not the shape that its schema promises is Corrupt, with the record.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from tidewarp.codec import DIGEST, RELEASED, TIMED_KINDS, Document, Record, split_timed_body, unpack_document
from tidewarp.connect.contract import DeadLetter, Input
from tidewarp.connect.documents import DEAD, ENDED, GAP, INPUTS, PATHS, SHED, PathTable, decode_inputs
from tidewarp.connect.gate import LOCAL
from tidewarp.errors import CodecError, Corrupt, OperatorError, TidewarpError
from tidewarp.twin.documents import FORMS, OPEN, PART, STOP, Checkpoint, Mark, Opened, Released, Resumed, Stopped

__all__ = [
    "Dead",
    "Ended",
    "Fact",
    "Inputs",
    "Lacking",
    "Marks",
    "Records",
    "Shed",
    "What",
    "documents",
    "facts",
    "holds_run",
    "opening_of",
    "released_before",
    "shaped",
    "stop_at_end",
    "stop_record",
]


class Records(Protocol):
    """What is read here: a :class:`~tidewarp.store.Journal`, or records that have come another way."""

    @property
    def size(self) -> int:
        """How many there are now."""

    def read(self, after: int = 0, limit: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Record]:
        """Those behind sequence number ``after``, of ``kinds``, at most ``limit``."""


class Inputs(msgspec.Struct, frozen=True):
    """What a source sent, in the order of arrival; none of it, nor of a later record, lies below tick ``admitted``."""

    source: str
    admitted: int
    inputs: list[Input]


class Dead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dead letters: those that are kept, how many of each rule were only counted, and the positions that both moved."""

    source: str
    admitted: int
    letters: list[DeadLetter]
    counted: dict[str, int]
    positions: list[tuple[int, int]]  # partition, offset

    def by_rule(self) -> Counter[str]:
        """How many there are of each rule, kept or not."""
        return Counter(self.counted) + Counter(letter.rule for letter in self.letters)


class Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A source has no more."""

    source: str
    admitted: int


class Lacking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages ``first`` up to, not including, ``end`` of a partition are lost, and the operator accepted that."""

    source: str
    admitted: int
    partition: int
    first: int
    end: int

    @property
    def positions(self) -> list[tuple[int, int]]:
        """Partition and last offset that it moves past."""
        return [(self.partition, self.end - 1)] if self.end > self.first else []


class Shed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages that became no inputs because there were others: how many "coalesced", and "shed" by a full queue."""

    source: str
    admitted: int
    counted: dict[str, int]
    positions: list[tuple[int, int]]  # partition, offset
    ids: list[str]


What = Opened | Resumed | Inputs | Dead | Lacking | Shed | Ended | Mark | Released | Stopped | Checkpoint


class Fact(NamedTuple):
    """One record: its sequence number, the lowest tick that it speaks of, and what it says."""

    seq: int
    tick: int
    what: What


def documents(
    journal: Records, after: int = 0, kinds: Collection[int] | None = None
) -> Iterator[tuple[int, int, Document]]:
    """Sequence number, tick and document of the records behind ``after``. Raises Corrupt naming the record.

    Records of other kinds than the timed ones speak of artifacts: no part of a run.
    """
    for record in journal.read(after=after, kinds=TIMED_KINDS if kinds is None else kinds):
        try:
            tick, data = split_timed_body(record.body)
            document = unpack_document(data)
        except CodecError as error:
            raise Corrupt(
                f"record {record.seq}", f"not a document: {error}", "run tidewarp verify", record.seq
            ) from error
        yield record.seq, tick, document


def facts(
    journal: Records,
    *,
    after: int = 0,
    kinds: Collection[int] | None = None,
    table: PathTable | None = None,
    rank: Callable[[str], int] | None = None,
) -> Iterator[Fact]:
    """The journal's facts in the order of its records. Holds one page of the journal at a time.

    Args:
        journal: as it is now: what is appended later is not read.
        after: facts up to this record are not given; their paths and ranks still count.
        kinds: of these record kinds only.
        table: takes the paths; who goes on writing needs it. Default: one of the reader's own.
        rank: of a source, by name. Default: as the journal's last Opened or Resumed connects it.

    Raises:
        Corrupt: with the record. OperatorError: what ``rank`` raises.
    """
    reader = _Reader(PathTable() if table is None else table, rank)
    for seq, tick, document in documents(journal, kinds=kinds):
        with shaped(seq):
            what = reader.take(document, seq > after)
        if what is not None:
            yield Fact(seq, tick, what)


class _Reader:
    """Documents to facts, in the order of the journal."""

    def __init__(self, table: PathTable, rank: Callable[[str], int] | None) -> None:
        self._table = table
        self._ranks: dict[str, int] = {}
        self._rank = self._recorded_rank if rank is None else rank

    def take(self, document: Document, is_wanted: bool) -> What | None:
        """The fact; None of a document that only the reader needs, and where the fact is not wanted."""
        schema, value = document.schema, document.value
        if schema in FORMS:
            what = msgspec.convert(value, FORMS[schema])
            if isinstance(what, Opened | Resumed):  # a life that was begun with --accept-model may connect more
                self._ranks = {name: policy["rank"] for name, policy in what.sources.items()}
            return what if is_wanted else None
        if schema == PART:
            return None
        if schema == PATHS:
            self._add_paths(value)
            return None
        if schema not in (INPUTS, DEAD, GAP, SHED, ENDED):
            raise Corrupt(f"document {schema!r}", "it is not known", "use a newer tidewarp")
        return self._of_a_source(schema, value) if is_wanted else None

    def _add_paths(self, value: Mapping[str, Any]) -> None:
        if value["first"] != len(self._table):
            raise Corrupt("its paths", "they do not continue the table", "run tidewarp verify")
        self._table.add(value["paths"])

    def _of_a_source(self, schema: str, value: Mapping[str, Any]) -> What:
        rank = self._rank(value["source"])
        if schema == INPUTS:
            admitted = msgspec.convert(value["admitted"], int)
            return Inputs(value["source"], admitted, decode_inputs(value, rank, self._table))
        if schema == DEAD:
            return msgspec.convert(value, Dead)
        if schema == SHED:
            return msgspec.convert(value, Shed)
        return msgspec.convert(value, Lacking) if schema == GAP else msgspec.convert(value, Ended)

    def _recorded_rank(self, source: str) -> int:
        if source == LOCAL and source not in self._ranks:
            return 0
        if source not in self._ranks:
            raise Corrupt(f"source {source!r:.80}", "neither tw.open nor tw.resume names it", "run tidewarp verify")
        return self._ranks[source]


@contextlib.contextmanager
def shaped(seq: int) -> Iterator[None]:
    """Around all that record ``seq`` alone decides: what fails there is Corrupt with its number.

    An error of the model or the machine passes as it is.
    """
    try:
        yield
    except Corrupt as error:
        if error.seq is not None:
            raise
        raise Corrupt(f"record {seq}", f"{error.value}: {error.rule}", "restore the file from a copy", seq) from error
    except OperatorError:
        raise
    except (
        TidewarpError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        msgspec.ValidationError,
    ) as error:
        rule = f"its document does not fit: {error!r:.200}"
        raise Corrupt(f"record {seq}", rule, "restore the file from a copy", seq) from error


class Marks:
    """The marks of a journal, ascending in tick, one of them read ahead where somebody asks for it.

    ``taken``: were all of them?
    """

    def __init__(self, journal: Records) -> None:
        self.taken = False
        read = facts(journal, kinds={DIGEST})
        self._marks = ((fact.seq, fact.what) for fact in read if isinstance(fact.what, Mark))
        self._next: tuple[int, Mark] | None = None

    def up_to(self, tick: int) -> Iterator[tuple[int, Mark]]:
        """Those that were not taken yet and for which all below ``tick`` is enough, with their records."""
        while not self.taken:
            if self._next is None:
                self._next = next(self._marks, None)
                self.taken = self._next is None
            if self._next is None or self._next[1].tick + (self._next[1].ahead > 0) > tick:
                return
            now, self._next = self._next, None
            yield now


def holds_run(journal: Records) -> bool:
    """Whether anything was journaled of a run. A store may hold artifacts before that."""
    return next(documents(journal), None) is not None


def opening_of(journal: Records) -> Opened:
    """What the run in the journal begins with, behind what a store held before.

    Raises:
        OperatorError: there is none, or it is not a twin's. Corrupt: it is misshapen.
    """
    first = next(documents(journal), None)
    if first is None or first[2].schema != OPEN:
        found = "this one holds no run" if first is None else f"it begins with {first[2].schema}"
        raise OperatorError("the journal", f"a twin's run begins with tw.open and {found}", "name another file")
    with shaped(first[0]):
        return msgspec.convert(first[2].value, Opened)


def stop_at_end(journal: Records) -> int | None:
    """The tick of the stop that the run ends with; None if there is no run, or it was not ended in order.

    Artifacts may have been put behind it, which are no part of the run.
    """
    last = _last_document(journal)
    if last is None or last[2].schema != STOP:
        return None
    with shaped(last[0]):
        return msgspec.convert(last[2].value, Stopped).tick


def stop_record(journal: Records) -> Record | None:
    """The record of the stop that the run ends with; None as of :func:`stop_at_end`."""
    last = _last_document(journal)
    if last is None or last[2].schema != STOP:
        return None
    return next(iter(journal.read(after=last[0] - 1, limit=1)))


def _last_document(journal: Records) -> tuple[int, int, Document] | None:
    """That of the last record of the run: looked for from the end, twice as far back each time."""
    size = journal.size
    reach = 1
    while True:
        after = max(size - reach, 0)
        found = deque(documents(journal, after=after), maxlen=1)
        if found or not after:
            return found[0] if found else None
        reach *= 2


def released_before(journal: Records) -> dict[str, str]:
    """The last output id that each sink was known to hold; a sink that was left out for a life keeps its place."""
    last: dict[str, str] = {}
    for fact in facts(journal, kinds={RELEASED}):
        if isinstance(fact.what, Released):
            last.update(fact.what.sinks)
    return last
