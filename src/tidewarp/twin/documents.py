"""The journal's documents about the run itself, and the journal read back as one stream of facts.

``tw.open/1``      {domain, epoch_ns, seed, model, sources, versions, platform}; the first record of every run
``tw.resume/1``    {tick, model, sources, versions, platform}: a later life, or a later `run`, went on from here
``tw.stop/1``      {tick, reason, detail}: all instants below ``tick`` are done, none at or above it
``tw.mark/1``      {tick, events, inputs, outputs, digest}: heads of the two chains at ``tick``; ``digest`` is the run
                   digest where the run stopped, else None. In DIGEST records; what a replay is compared with.
``tw.released/1``  {tick, sinks}: the last output id that each sink held. In RELEASED records.

Documents about inputs: ``connect.documents``.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from tidewarp.codec import (
    DIGEST,
    INPUT,
    RELEASED,
    Document,
    pack_document,
    split_timed_body,
    timed_body,
    unpack_document,
)
from tidewarp.errors import CodecError, Corrupt, OperatorError, TidewarpError
from tidewarp.store import Entry, Journal

__all__ = [
    "MARK",
    "OPEN",
    "RELEASED_IDS",
    "RESUME",
    "STOP",
    "Fact",
    "Mark",
    "entry",
    "facts",
    "marks",
    "opening",
    "platform_of",
    "shaped",
]

OPEN, RESUME, STOP, MARK, RELEASED_IDS = "tw.open", "tw.resume", "tw.stop", "tw.mark", "tw.released"
_KINDS = {MARK: DIGEST, RELEASED_IDS: RELEASED}


@dataclass(frozen=True)
class Fact:
    """One record of the journal, decoded."""

    seq: int
    tick: int
    schema: str
    value: Any


@dataclass(frozen=True)
class Mark:
    """The heads of the chains at a tick. ``digest``: hex, or None where the run went on."""

    tick: int
    events: int
    inputs: bytes
    outputs: bytes
    digest: str | None

    def document(self) -> dict[str, Any]:
        """As ``tw.mark`` holds it."""
        return {
            "tick": self.tick,
            "events": self.events,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "digest": self.digest,
        }


def entry(schema: str, tick: int, value: Any) -> Entry:
    """The journal entry of one document of this module."""
    return Entry(_KINDS.get(schema, INPUT), timed_body(tick, pack_document(schema, 1, value)))


def platform_of() -> dict[str, Any]:
    """Versions and platform, for people who compare two runs. Not part of any digest."""
    return {
        "versions": {name: version(name) for name in ("tidewarp", "simpy", "msgspec")},
        "platform": f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}",
    }


def facts(journal: Journal, after: int = 0, kinds: set[int] | None = None) -> Iterator[Fact]:
    """The journal's documents in the order of its records. Raises Corrupt naming the record."""
    for record in journal.read(after=after, kinds=kinds):
        seq = record.header.seq
        try:
            tick, data = split_timed_body(record.body)
            document: Document = unpack_document(data)
        except CodecError as error:
            raise Corrupt(f"record {seq}", f"not a document: {error}", "run tidewarp verify", seq) from error
        yield Fact(seq, tick, document.schema, document.value)


@contextlib.contextmanager
def shaped(seq: int) -> Iterator[None]:
    """Around taking the document of record ``seq`` apart: what has not the shape that its schema promises is Corrupt."""
    try:
        yield
    except Corrupt as error:
        if error.seq is not None:
            raise
        raise Corrupt(f"record {seq}", f"{error.value}: {error.rule}", "restore the file from a copy", seq) from error
    except OperatorError:  # of the model or the machine, not of the record
        raise
    except (TidewarpError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        rule = f"its document does not fit: {error!r:.200}"
        raise Corrupt(f"record {seq}", rule, "restore the file from a copy", seq) from error


def marks(journal: Journal) -> Iterator[tuple[int, Mark]]:
    """All marks of the journal with their records, ascending in both."""
    for fact in facts(journal, kinds={DIGEST}):
        if fact.schema == MARK:
            with shaped(fact.seq):
                yield fact.seq, Mark(**fact.value)


def opening(journal: Journal) -> dict[str, Any]:
    """The ``tw.open`` document that the journal begins with. Raises OperatorError if it begins otherwise."""
    first = next(facts(journal), None)
    if first is None or first.schema != OPEN:
        found = "it is empty" if first is None else f"it begins with {first.schema}"
        raise OperatorError("the journal", f"a twin's journal begins with tw.open and {found}", "name another file")
    value: dict[str, Any] = first.value
    return value
