"""The short way into a batch, for messages with nothing special about them: a skipped step, never another result.

Both functions give None where any message asks for more: a duplicate, a late one, an id that was seen, a value that
breaks its rule. Then all of them go message by message (``admission``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice, pairwise, repeat
from operator import gt, itemgetter
from typing import Any

from tidewarp.connect.contract import Input, Raw, Readings
from tidewarp.connect.gate.batch import BATCH_BYTES, ID_MAX, Batch
from tidewarp.connect.gate.state import SourceState
from tidewarp.units import TICK_MAX

__all__ = ["plain_messages", "plain_readings"]

Checked = Callable[[Sequence[str], Sequence[Any]], "Sequence[Any] | None"]
"""Values as their paths' types; None if one of them does not fit."""

_SHORT = frozenset({type(None), bool, int, float})  # values of at most 8 bytes in a record
_SHA256, _TIME, _ID, _CAUSE = (itemgetter(Raw._fields.index(name)) for name in ("sha256", "time_ns", "id", "cause"))
_PARTITION, _OFFSET, _PAYLOAD = (itemgetter(Raw._fields.index(name)) for name in ("partition", "offset", "payload"))
_TICK = itemgetter(Input._fields.index("tick"))
_input = partial(tuple.__new__, Input)  # Input._make without its call in Python


def plain_readings(source: SourceState, part: Readings, bound: int, checked: Checked) -> Batch | None:
    """The inputs of columns that ascend from ``bound`` on; their offsets follow each other."""
    partition, first, ticks, paths, values = part
    end = first + len(ticks)
    if (
        source.policy.time != "payload"
        or not (type(partition) is type(first) is int)
        or (partition >> 16 or first <= source.positions.get(partition, -1) or end >> 48)
        or not _are_plain(ticks, paths, values)
        or not _ascend(ticks, max(bound, source.highest.get(partition, 0)))
        or (found := checked(paths, values)) is None
    ):
        return None
    none = repeat("")
    changes = zip(zip(paths, found, strict=True), strict=True)
    fields = (ticks, repeat(source.rank), repeat(partition), range(first, end), changes, ticks, none, none)
    batch = Batch(list(map(_input, zip(*fields, strict=False))))
    batch.columns = part._replace(values=found)
    _take_over(source, batch, {partition: end - 1}, {partition: ticks[-1]})
    return batch


def plain_messages(
    source: SourceState,
    raws: Sequence[Raw],
    columns: Callable[[Sequence[bytes]], tuple[Sequence[str], Sequence[Any], Sequence[int] | None] | None],
    now: int,
    bound: int,
    checked: Checked,
) -> Batch | None:
    """The inputs of messages that ``columns`` can read as paths, values and ticks (None: they say no time).

    ``now`` is the stamp of what is ordered by arrival; ``bound`` the tick below which an event is late.
    """
    if set(map(type, raws)) != {Raw} or any(map(_SHA256, raws)):
        return None
    lasts = _lasts(source, raws)
    if lasts is None or (read := columns([*map(_PAYLOAD, raws)])) is None:
        return None
    paths, values, own = read
    ticks = _stamps(source, raws, own, now)
    if ticks is None or not _are_plain(ticks, paths, values):
        return None
    if source.policy.time != "arrival" and (
        len(lasts) > 1 or not _ascend(ticks, max(bound, *source.highest.values(), 0))
    ):
        return None
    ids = [f"at:{name}" if name else "" for name in map(_ID, raws)]
    if not _are_words(ids, ID_MAX + 3) or not _are_words([*map(_CAUSE, raws)], ID_MAX):
        return None
    if any(ids) and (len({*ids}) != len(ids) or not source.ids.keys().isdisjoint(ids)):
        return None
    if source.dead and any(map(source.has_buried, ids, raws)):
        return None
    if (found := checked(paths, values)) is None:
        return None
    changes = zip(zip(paths, found, strict=True), strict=True)
    places = (map(_PARTITION, raws), map(_OFFSET, raws))
    fields = (ticks, repeat(source.rank), *places, changes, ticks, ids, map(_CAUSE, raws))
    batch = Batch(list(map(_input, zip(*fields, strict=False))))
    for name in filter(None, ids):
        source.remember(name)
    _take_over(source, batch, lasts, dict.fromkeys(lasts, ticks[-1]))
    return batch


def _are_plain(ticks: Sequence[int], paths: Sequence[str], values: Sequence[Any]) -> bool:
    return set(map(type, ticks)) == {int} and set(map(type, paths)) == {str} and _SHORT.issuperset(map(type, values))


def _are_words(words: Sequence[str], longest: int) -> bool:
    """Can a record hold them, beside so many short values?"""
    if set(map(type, words)) != {str}:
        return False
    together = "".join(words)
    return together.isascii() and len(together) <= BATCH_BYTES // 4 and max(map(len, words)) <= longest


def _ascend(ticks: Sequence[int], lowest: int) -> bool:
    return lowest <= ticks[0] and ticks[-1] < TICK_MAX and not any(map(gt, ticks, islice(ticks, 1, None)))


def _lasts(source: SourceState, raws: Sequence[Raw]) -> dict[int, int] | None:
    """Partition -> last offset, if each offset is above the one before it in its partition, and all are of a right size."""
    lasts: dict[int, int] = {}
    if len(set(map(_PARTITION, raws))) == 1:
        partition = raws[0].partition
        offsets = [source.acknowledged_in(partition), *map(_OFFSET, raws)]
        if set(map(type, offsets)) != {int} or any(one >= other for one, other in pairwise(offsets)):
            return None
        lasts[partition] = offsets[-1]
    else:
        for raw in raws:
            partition, offset = raw.partition, raw.offset
            last = lasts.get(partition)
            if type(offset) is not int or offset <= (source.acknowledged_in(partition) if last is None else last):
                return None
            lasts[partition] = offset
    sound = all(
        type(partition) is int and not partition >> 16 and not offset >> 48 for partition, offset in lasts.items()
    )
    return lasts if sound else None


def _stamps(source: SourceState, raws: Sequence[Raw], own: Sequence[int] | None, now: int) -> Sequence[int] | None:
    """The ticks by the source's policy; None if a message does not say when it happened."""
    if source.policy.time == "arrival":
        return [now] * len(raws)
    if source.policy.time == "payload":
        return own
    times = [*map(_TIME, raws)]
    return None if None in times else [time - source.epoch_ns for time in times if time is not None]


def _take_over(source: SourceState, batch: Batch, lasts: dict[int, int], highest: dict[int, int]) -> None:
    """What the source is known to have sent now."""
    count = len(batch.inputs)
    source.counts["inputs"] += count
    source.outstanding += count
    source.positions.update(lasts)
    batch.highest.update(highest)
    for partition, tick in highest.items():
        if tick > source.highest.get(partition, -1):
            peak = (
                batch.inputs[bisect_left(batch.inputs, tick, key=_TICK)].offset if len(lasts) == 1 else lasts[partition]
            )
            source.rise(partition, tick, peak)
