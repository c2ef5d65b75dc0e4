"""What a run came to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from tidewarp.kernel.arrow import table_of
from tidewarp.kernel.contract import Statistics
from tidewarp.kernel.lp import LogicalProcess, form_of_lp
from tidewarp.kernel.model import Model
from tidewarp.kernel.records import HIDDEN, Image, split_rows
from tidewarp.kernel.trace import Output

__all__ = ["OfClass", "Result"]


class OfClass(NamedTuple):
    """What the LPs of one class did: in committed events, ``sent`` messages, those of ``start`` too, and random ``draws``.

    The other counts are of events, since the engine began: ``executed`` = ``committed`` + ``rolled_back``.
    """

    cls: type[LogicalProcess]
    lps: int
    sent: int
    draws: int
    committed: int
    executed: int
    rolled_back: int


@dataclass(frozen=True)
class Result:
    """What a run came to. ``seconds`` is wall time without compilation; ``digest`` is None where it was switched off.

    ``trace_digests`` maps the index of each block of ``trace_interval`` ticks that has events to the head of the chain
    behind it: the first that differs is where two runs part. Empty unless digest="events".
    """

    committed: int
    seconds: float
    digest: str | None
    trace_digests: dict[int, str]
    outputs: list[Output]
    accumulators: dict[str, int]
    stats: Statistics
    model: Model
    image: Image
    checkpoints: int = 0  # made durable on the way
    resumed: int = 0  # of `committed`: events that were in the checkpoint that the run went on from

    @property
    def rolled_back(self) -> int:
        """Events that were executed and undone."""
        return self.stats.rolled_back

    @property
    def rollbacks(self) -> int:
        """How often anything was undone."""
        return self.stats.rollbacks

    @property
    def anti_messages(self) -> int:
        """Anti-messages that left their PE."""
        return self.stats.anti_messages

    @property
    def gvt_rounds(self) -> int:
        """How often GVT was computed."""
        return self.stats.gvt_rounds

    @property
    def events_per_s(self) -> float:
        """Events committed here, in a wall second."""
        return (self.committed - self.resumed) / self.seconds if self.seconds > 0.0 else 0.0

    @property
    def efficiency(self) -> float:
        """Committed events over executed ones, 1.0 where nothing was undone."""
        return (self.committed - self.resumed) / self.stats.executed if self.stats.executed else 1.0

    def state(self, lp: int) -> dict[str, Any]:
        """The fields of one LP at the end; arrays are lists.

        Raises:
            ModelError: no such LP.
        """
        lp = self.model.check_lp(lp)
        group = self.model.group_of(lp)
        form = form_of_lp(group.cls)
        row = self._rows[self.model.groups.index(group)][lp - group.first]
        return dict(zip(form.names, form.unpack(row[HIDDEN.size :]), strict=True))

    def by_class(self) -> list[OfClass]:
        """Counts for each LP class, in the order of their first ``Model.add``."""
        counts = {cls: [0, 0, 0] for cls in self.model.classes}
        for group, rows in zip(self.model.groups, self._rows, strict=True):
            count = counts[group.cls]
            count[0] += group.count
            for row in rows:
                draws, sent = HIDDEN.unpack_from(row)
                count[1] += sent
                count[2] += draws
        stats = self.stats
        events = zip(stats.committed_by_class, stats.executed_by_class, stats.rolled_back_by_class, strict=True)
        return [
            OfClass(cls, lps, sent, draws, *of_events)
            for (cls, (lps, sent, draws)), of_events in zip(counts.items(), events, strict=True)
        ]

    def to_arrow(self) -> Any:
        """The outputs as a ``pyarrow.Table``: ``id tick lp path message``, then a column of structs for each message class.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        return table_of(self.model, self.outputs)

    @cached_property
    def _rows(self) -> list[Any]:
        pairs = zip(self.model.groups, self.image.rows, strict=True)
        return [split_rows(form_of_lp(group.cls), rows, group.count) for group, rows in pairs]
