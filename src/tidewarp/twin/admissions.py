"""Journal before apply: what the gate admits is written, and the gate hears when it is durable. Only then it is granted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from tidewarp.clocks import Clock
from tidewarp.codec import INPUT, timed_body
from tidewarp.connect.contract import Input
from tidewarp.connect.documents import (
    PathTable,
    encode_dead,
    encode_ended,
    encode_gap,
    encode_inputs,
    encode_shed,
    pack_positions,
)
from tidewarp.connect.gate import Append, Appended
from tidewarp.connect.shell import Inbox
from tidewarp.observe import stage
from tidewarp.store import Entry, Journal

__all__ = ["Admissions", "Committed", "admission_entries"]

_TICK = itemgetter(Input._fields.index("tick"))
_AHEAD_MAX_S: Final = 0.1  # how far ahead of the wall an arrival may be stamped
_CALMER: Final = 0.98  # what the way of one batch to the disk still counts for after the next one


@dataclass(frozen=True)
class Committed:
    """The journal has taken a batch, or could not: ``future`` says so. Host times in seconds."""

    ticket: int
    heard_s: float  # when the messages of which it was made had come
    submitted_s: float
    future: Future[Any]


def admission_entries(batch: Append, table: PathTable) -> list[Entry]:
    """The records of what the gate admits together. ``table`` learns the paths that are new in the journal."""
    entries: list[Entry] = []

    def at_floor(document: bytes) -> None:
        entries.append(Entry(INPUT, timed_body(batch.admitted, document), last_tick=batch.admitted))

    if batch.inputs:
        ticks = list(map(_TICK, batch.inputs))
        first = min(ticks)
        *paths, inputs = encode_inputs(batch.source, batch.admitted, batch.inputs, table, batch.columns)
        entries += [Entry(INPUT, timed_body(first, document), last_tick=first) for document in paths]
        entries.append(Entry(INPUT, timed_body(first, inputs), last_tick=max(ticks)))
    if batch.letters or batch.counted:
        at_floor(encode_dead(batch.source, batch.admitted, batch.letters, batch.counted, batch.moved))
    if batch.shed is not None:
        shed = batch.shed
        at_floor(encode_shed(batch.source, batch.admitted, shed.counted, shed.positions, shed.ids))
    if batch.ended:
        at_floor(encode_ended(batch.source, batch.admitted))
    if batch.gap is not None:
        gap = batch.gap
        at_floor(encode_gap(batch.source, batch.admitted, gap.partition, gap.first, gap.end))
    return entries


class Admissions:
    """Writes admissions to the journal. :class:`Committed` reaches the inbox when one is durable, or has failed.

    ``spend(stage, since_s)`` counts the wall seconds that it took. ``way_s``: how many it takes at present, 0.1 at most, until
    what has come is durable and the host knows it.
    """

    def __init__(
        self, journal: Journal, table: PathTable, inbox: Inbox, clock: Clock, spend: Callable[[str, float], None]
    ) -> None:
        self._journal, self._table, self._inbox, self._clock = journal, table, inbox, clock
        self._spend = spend
        self.way_s = 0.0

    def submit(self, batch: Append, heard_s: float) -> None:
        """Records and positions in one transaction. The messages of ``batch`` had come at host time ``heard_s``."""
        entries = admission_entries(batch, self._table)
        stage("journal.before")
        future = self._journal.submit(entries, cursors={batch.source: pack_positions(batch.positions)})
        message = Committed(batch.ticket, heard_s, self._clock.now(), future)
        future.add_done_callback(lambda _: self._inbox.put(message))

    def take(self, message: Committed) -> Appended:
        """What the gate is to hear of it. Raises what the journal raised."""
        message.future.result()
        way_s = max(self._clock.now() - message.heard_s, _CALMER * self.way_s)
        self.way_s = min(way_s, _AHEAD_MAX_S)
        self._spend("journal", message.submitted_s)
        return Appended(message.ticket)
