"""What the program itself sets, as inputs of the source "local": rank 0, one partition, its offsets a count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tidewarp.connect.contract import Checker, Input
from tidewarp.connect.documents import value_bytes
from tidewarp.connect.gate.batch import BATCH_BYTES, ROW_BYTES, Batch
from tidewarp.connect.gate.messages import Policy
from tidewarp.connect.gate.state import SourceState
from tidewarp.errors import RuleViolation

__all__ = ["LOCAL", "LOCAL_MAX", "Changes", "admitted", "checked", "local_source"]

LOCAL: Final = "local"
LOCAL_MAX: Final = 65_536  # inputs that may wait
_PARTITION = 0

Changes = tuple[tuple[str, Any], ...]


def local_source() -> SourceState:
    """The state of the source: nobody waits for it, and it has no end."""
    return SourceState(LOCAL, 0, Policy(late="clamp", time="arrival", wait=False, queue=LOCAL_MAX, batch=512))


def checked(changes: Sequence[tuple[str, object]], rule: Callable[[str], Checker]) -> Changes:
    """``changes`` as their paths' types. Raises UnknownPath and RuleViolation."""
    found = tuple([(path, rule(path).check(value)) for path, value in changes])
    size = sum(map(_size, found))
    if not found or size > BATCH_BYTES // 2:
        value = f"an update of {len(found)} paths, {size} bytes"
        raise RuleViolation(value, f"it sets one path or more, and has at most {BATCH_BYTES // 2} bytes", "divide it")
    return found


def admitted(source: SourceState, updates: Sequence[tuple[int, Changes]], floor: int) -> list[Batch]:
    """Inputs of these updates, each at the tick at which it came, or where the clock stands; never before the one before."""
    batches = [Batch()]
    offset = source.positions.get(_PARTITION, -1)
    for present, changes in updates:
        if batches[-1].full(source.policy.batch):
            batches[-1].closed(source.positions)
            batches.append(Batch())
        offset += 1
        tick = max(floor, source.bound, present)
        one = Input(tick, source.rank, _PARTITION, offset, changes, tick)
        source.note(one)  # which raises the bound: the next one is no earlier
        source.positions[_PARTITION] = offset
        source.outstanding += 1
        batches[-1].add(one, sum(map(_size, changes)))
    batches[-1].closed(source.positions)
    return batches


def _size(change: tuple[str, Any]) -> int:
    return ROW_BYTES + len(value_bytes(change[1])[1])
