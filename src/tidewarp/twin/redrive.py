"""Dead letters as inputs after all: once the model has changed, what it could not take may fit.

A letter was driven if an input of its source has its offset: no record says so besides, and a replay needs none. So a
redrive that is killed goes on with what is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from tidewarp.codec import INPUT, split_timed_body
from tidewarp.connect.contract import DeadLetter, Decoder, Raw
from tidewarp.connect.gate.redrive import Cells
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.store import Entry, Journal
from tidewarp.twin.documents import Opened, Resumed
from tidewarp.twin.facts import Dead, Inputs, facts, stop_record
from tidewarp.twin.host import Host

if TYPE_CHECKING:
    from tidewarp.twin.session import Twin

__all__ = ["Redriven", "redrive", "stop_again"]

_PART_LETTERS, _PART_BYTES = 500, 8 << 20


@dataclass(frozen=True)
class Redriven:
    """What became of a source's dead letters: inputs now (``done``), or letters still (``left``), by rule.

    Rules of what is left: "late" (dropped by the source's policy, not by a rule), "cut" (longer than the 64 KiB that a
    letter keeps), "counted" (beyond the 100,000 letters or 256 MiB that are kept), "duplicate" (another copy came in),
    or the rule that the message breaks today.
    """

    done: int
    left: int
    rules: dict[str, int] = field(default_factory=dict)


def redrive(twin: Twin, host: Host, journal: Journal, name: str) -> Redriven:
    """Admit the dead letters of source ``name`` again; all is durable on return. No source is opened.

    Raises:
        OperatorError: no such source, or the journal has it at another rank.
        MissingExtra: a server that its decoder asks (for a schema) cannot be reached.
    """
    if name not in twin._sources:
        known = ", ".join(sorted(twin._sources)) or "none"
        raise OperatorError(f"source {name!r}", f"the model connects {known}", "name one of these")
    decoder = twin._decoders.get(name, twin._sources[name].decoder)(twin._epoch_ns or 0) or Cells()
    letters = _Letters(journal, name, twin._gate.sources.rank(name))
    again = stop_again(journal)
    before = twin._gate.sources.counts()["inputs"]
    for part in letters.parts():
        _prepare(name, decoder, part)
        appends, unfit = twin._gate.readmit(name, part, decoder, twin._epoch_ns or 0, letters.admitted)
        with twin._between_runs():
            host.append(appends)
        done = sum(len(append.inputs) for append in appends)
        letters.left.update(letter.rule for letter in unfit)
        letters.left["duplicate"] += len(part) - done - len(unfit)
    done = twin._gate.sources.counts()["inputs"] - before
    if done and again:
        journal.append(again)
    left = +letters.left
    return Redriven(done, left.total(), dict(sorted(left.items())))


def stop_again(journal: Journal) -> list[Entry]:
    """The stop that the run ends with, for who appends to one at rest: it has to stay the last that is said of it."""
    last = stop_record(journal)
    return [] if last is None else [Entry(last.kind, last.body, last_tick=split_timed_body(last.body)[0])]


def _prepare(name: str, decoder: Decoder, letters: list[DeadLetter]) -> None:
    """As a source's thread does: let the decoder fetch what it needs to know."""
    prepare = getattr(decoder, "prepare", None)
    if prepare is None:
        return
    try:
        for letter in letters:
            prepare(Raw(letter.partition, letter.offset, letter.head))
    except OSError as error:
        value = f"source {name!r}: {type(error).__name__}: {error}"
        raise MissingExtra(value, "its decoder asks a server for schemas", "start the server, then again") from error


class _Letters:
    """The dead letters of a source that were not driven yet. ``left`` counts those of them that cannot be, by rule."""

    def __init__(self, journal: Journal, source: str, rank: int) -> None:
        self.left: Counter[str] = Counter()
        self.admitted = 0  # the furthest that the clock is known to have come
        self._journal, self._source, self._rank = journal, source, rank
        self._waiting: set[tuple[int, int]] = set()
        for what in self._facts():
            if isinstance(what, Dead):
                self.left["counted"] += sum(what.counted.values())
                self._waiting.update((letter.partition, letter.offset) for letter in what.letters)
            else:
                self._waiting.difference_update((one.partition, one.offset) for one in what.inputs)

    def _facts(self) -> Iterator[Dead | Inputs]:
        recorded = 0
        for fact in facts(self._journal, kinds={INPUT}):
            what = fact.what
            if isinstance(what, Opened | Resumed):
                recorded = what.sources.get(self._source, {}).get("rank", self._rank)
            self.admitted = max(self.admitted, getattr(what, "admitted", 0))
            if isinstance(what, Dead | Inputs) and what.source == self._source:
                yield what
        if recorded != self._rank:
            value = f"source {self._source!r}: the journal has it at rank {recorded}, the model at {self._rank}"
            rule = "the rank orders inputs of one time"
            raise OperatorError(
                value, rule, "begin a life with these sources first: tidewarp run --resume --accept-model"
            )

    def parts(self) -> Iterator[list[DeadLetter]]:
        """Those that may fit now, in the order of the journal."""
        part: list[DeadLetter] = []
        size = 0
        for what in self._facts():
            if not isinstance(what, Dead):
                continue
            for letter in what.letters:
                if (letter.partition, letter.offset) not in self._waiting:
                    continue
                if letter.rule == "late" or sha256(letter.head).digest() != letter.sha256:
                    self.left["late" if letter.rule == "late" else "cut"] += 1
                    continue
                part.append(letter)
                size += len(letter.head)
                if len(part) >= _PART_LETTERS or size >= _PART_BYTES:
                    yield part
                    part, size = [], 0
        if part:
            yield part
