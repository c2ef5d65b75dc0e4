"""What is on its way to the journal, and what a source is told to forget once the journal has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from tidewarp.connect.contract import Gap, Input
from tidewarp.connect.gate.batch import Batch
from tidewarp.connect.gate.messages import Append, Confirm
from tidewarp.connect.gate.state import SourceState
from tidewarp.units import TICK_MAX

__all__ = ["Appends", "Pending"]

_TICK = itemgetter(Input._fields.index("tick"))


class Pending(NamedTuple):
    """One batch on its way."""

    source: SourceState
    positions: Mapping[int, int]  # of the source, that it makes durable
    inputs: Sequence[Input] = ()
    lowest: int = TICK_MAX  # tick of its inputs
    highest: Mapping[int, int] = {}  # partition -> event tick of its inputs
    ended: bool = False


class Appends:
    """Batches on their way to the journal, by ticket, ascending."""

    def __init__(self) -> None:
        self._pending: dict[int, Pending] = {}
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._pending)

    def add(
        self, source: SourceState, batch: Batch, floor: int, *, ended: bool = False, gap: Gap | None = None
    ) -> Append:
        """Send a batch on its way: the instruction, with its ticket."""
        self._tickets += 1
        inputs = tuple(batch.inputs)
        lowest = min(map(_TICK, inputs), default=TICK_MAX)
        self._pending[self._tickets] = Pending(source, batch.positions, inputs, lowest, batch.highest, ended)
        source.under_way += len(inputs)
        return Append(
            self._tickets,
            source.name,
            floor,
            inputs,
            tuple(batch.letters),
            dict(batch.counted),
            batch.positions,
            batch.moved,
            ended,
            batch.columns,
            gap,
            batch.shed,
        )

    def pop(self, ticket: int) -> Pending:
        """The journal holds it."""
        pending = self._pending.pop(ticket)
        pending.source.under_way -= len(pending.inputs)
        return pending

    @property
    def lowest(self) -> int:
        """Tick of the first input that is on its way to the journal."""
        return min((pending.lowest for pending in self._pending.values()), default=TICK_MAX)

    def confirm(self, source: SourceState) -> list[Confirm]:
        """What its target may forget. A later batch may be durable first: what is told is durable with all before it."""
        under_way = min((ticket for ticket, one in self._pending.items() if one.source is source), default=math.inf)
        ready = [ticket for ticket in source.to_confirm if ticket < under_way]
        told = [source.to_confirm.pop(ticket) for ticket in sorted(ready)]
        return [Confirm(source.name, told[-1])] if told else []

    def confirm_repeated(self, source: SourceState) -> list[Confirm]:
        """A duplicate by id is in no record. Its first copy is durable once nothing of its source is under way."""
        if not source.repeated or any(pending.source is source for pending in self._pending.values()):
            return []
        told = Confirm(source.name, source.acknowledged)
        source.repeated = {p: offset for p, offset in source.repeated.items() if offset > source.positions.get(p, -1)}
        return [told]
