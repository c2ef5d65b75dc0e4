"""Outputs kept in the memory of the program: for tests and notebooks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from tidewarp.connect.contract import Output, Refused, RunIdentity, Sink
from tidewarp.connect.payload import event_payload
from tidewarp.errors import OperatorError

__all__ = ["MemorySink"]


class MemorySink(Sink):
    """Keeps the mapping of each output in :attr:`records`, in order. Make it outside of ``build``, to read it afterwards:

        published = tw.sinks.memory()

        def build(twin):
            ...
            twin.sink(published)

    A later life in the same program adds what the one before has not delivered. With the program the records are gone: a
    journal that is resumed by another one does not bring back what was delivered (``tw.replay`` makes all of it again).
    A new journal with the key of an earlier one, whose outputs are here, is refused: its outputs have the same ids.

    Args:
        keep: records, at most; the oldest go first, and are counted (``dropped``).
        name: in the journal and in all counts.
    """

    kind = "memory"
    delivery = "at_least_once"

    def __init__(self, *, keep: int = 1_000_000, name: str = "memory") -> None:
        if keep < 1:
            raise OperatorError(f"keep={keep}", "one record is kept at least", "give a larger one")
        self.name = name
        self.dropped = 0
        self._records: deque[dict[str, Any]] = deque(maxlen=keep)
        self._run = RunIdentity("", 0)
        self._last = ""  # id, of this run

    @property
    def records(self) -> list[dict[str, Any]]:
        """What was published so far, as ``connect.payload.event_payload`` makes it; numbers are what they were."""
        return list(self._records)

    def counts(self) -> dict[str, int]:
        """Records that made room for later ones."""
        return {"dropped": self.dropped}

    async def open(self, run: RunIdentity) -> str | None:
        """The last id of this run that this object was given; None: what a former process has kept, nobody can tell."""
        if run.domain != self._run.domain:
            self._last = ""
        self._run = run
        return self._last or None

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """Keep what is not kept already."""
        fresh = [output for output in batch if output.id > self._last]
        before = len(self._records)
        self._records.extend([event_payload(output, self._run) for output in fresh])  # all, or none if a form raises
        self.dropped += before + len(fresh) - len(self._records)
        self._last = max(self._last, batch[-1].id)
        return []
