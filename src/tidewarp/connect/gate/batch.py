"""What one journal record, and its dead letters, will hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tidewarp.connect.contract import DeadLetter, Input, Readings
from tidewarp.connect.gate.messages import Shed

__all__ = ["BATCH_BYTES", "ID_MAX", "ROW_BYTES", "Batch"]

BATCH_BYTES = 900_000  # of one record, below the journal's 1 MiB
ROW_BYTES = 40  # of one (input, path) in a record with an `events` column, its text or tree not counted
ID_MAX = 255  # characters of an id, or a cause
_LETTERS_PER_RECORD = 12  # times HEAD_BYTES stays below the journal's 1 MiB


class Batch:
    """Inputs and dead letters that become durable together."""

    def __init__(self, inputs: list[Input] | None = None) -> None:
        self.inputs: list[Input] = [] if inputs is None else inputs
        self.columns: Readings | None = None  # the same, where they came as columns
        self.highest: dict[int, int] = {}  # partition -> highest event tick of its inputs
        self.letters: list[DeadLetter] = []
        self.counted: Counter[str] = Counter()
        self.moved: dict[int, int] = {}  # partition -> last offset of its dead letters
        self.positions: dict[int, int] = {}  # of the source, behind the last message of the batch
        self.shed: Shed | None = None  # beside them
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self.inputs or self.letters or self.counted or self.shed)

    def full(self, batch: int) -> bool:
        """No room for a further message?"""
        return len(self.inputs) >= batch or self._bytes >= BATCH_BYTES // 2 or len(self.letters) >= _LETTERS_PER_RECORD

    def add(self, one: Input, size: int) -> None:
        """Take one input; ``size`` in bytes."""
        self.inputs.append(one)
        self.highest[one.partition] = max(one.event_tick, self.highest.get(one.partition, one.event_tick))
        self._bytes += size

    def closed(self, positions: Mapping[int, int]) -> Batch:
        """The batch with the positions that it makes durable: nothing more is added."""
        self.positions = dict(positions)
        return self
