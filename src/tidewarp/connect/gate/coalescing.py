"""Where of many values the last is enough: the others become no inputs.

Decided before the journal, so a replay needs to know nothing of it. Of a source that the clock waits for nothing is left
out: there each value has its place in virtual time, and how they come in batches must not decide.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tidewarp.connect.contract import Input
from tidewarp.connect.gate.batch import Batch
from tidewarp.connect.gate.messages import Shed
from tidewarp.connect.gate.state import SourceState

__all__ = ["Counts", "coalesce"]


class Counts:
    """What a source was known to have sent before a drain: it is counted anew from what is left of it."""

    def __init__(self, source: SourceState) -> None:
        self._counted = {name: source.counts[name] for name in ("inputs", "late", "clamped", "repaired")}
        self._highest, self._peaks = dict(source.highest), dict(source.peaks)
        self._clamped_to = source.clamped_to

    def restore(self, source: SourceState) -> None:
        """As it was."""
        source.counts.update({name: n - source.counts[name] for name, n in self._counted.items()})
        source.highest, source.peaks, source.clamped_to = self._highest, self._peaks, self._clamped_to


def coalesce(source: SourceState, batches: Sequence[Batch], paths: Collection[str], before: Counts, floor: int) -> int:
    """Keep of ``batches``, one drain, the last input (in key order) that sets one of ``paths`` and nothing else; how many go.

    An input that sets several paths at once stays: it is all or nothing.
    """
    last: dict[str, Input] = {}
    for batch in batches:
        for one in batch.inputs:
            path = one.changes[0][0]
            if len(one.changes) == 1 and path in paths and one > last.get(path, (-1,)):
                last[path] = one
    gone = 0
    for batch in batches:
        stay: list[Input] = []
        go: list[Input] = []
        for one in batch.inputs:
            is_passed = len(one.changes) == 1 and last.get(one.changes[0][0], one) is not one
            (go if is_passed else stay).append(one)
        if go:
            _leave_out(source, batch, stay, go)
            gone += len(go)
    if gone:
        before.restore(source)
        for batch in batches:
            for one in batch.inputs:
                source.note(one)
                source.counts["repaired"] += one.tick < floor
        source.counts["coalesced"] += gone
    return gone


def _leave_out(source: SourceState, batch: Batch, stay: list[Input], go: list[Input]) -> None:
    batch.inputs, batch.columns = stay, None
    positions: dict[int, int] = {}
    for one in go:
        positions[one.partition] = max(one.offset, positions.get(one.partition, -1))
        source.long_bytes -= source.long.pop((one.partition, one.offset), 0)
    source.outstanding -= len(go)
    batch.shed = Shed({"coalesced": len(go)}, positions, [one.id for one in go if one.id])
