"""Statistics of all ranks together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import chain

from tidewarp.kernel.contract import Statistics

__all__ = ["numbers", "total"]

_JOINED: dict[str, Callable[[Iterable[int]], int]] = {
    "gvt_rounds": max,
    "window_ticks": min,
    "window_least_ticks": min,
    "window_greatest_ticks": max,
    "send_queue_most": max,
}
"""What is not the sum over ranks."""


_PLAIN = [field.name for field in fields(Statistics) if field.type == "int"]
_CLASSES = ("executed_by_class", "rolled_back_by_class")


def numbers(part: Statistics) -> list[int]:
    """The counts of a rank as a list."""
    lists = [getattr(part, name) for name in ("rollback_lengths", *_CLASSES)]
    return [*(getattr(part, name) for name in _PLAIN), *chain(*lists)]


def total(ranks: Sequence[Sequence[int]], classes: int) -> Statistics:
    """The statistics of a run from the :func:`numbers` of each rank; ``classes``: how many the model has."""
    columns = list(zip(*ranks, strict=True))
    found = Statistics()
    for name, column in zip(_PLAIN, columns, strict=False):
        setattr(found, name, _JOINED.get(name, sum)(column))
    sums = [sum(column) for column in columns[len(_PLAIN) :]]
    end = len(sums) - 2 * classes
    found.rollback_lengths = sums[:end]
    found.executed_by_class, found.rolled_back_by_class = sums[end : end + classes], sums[end + classes :]
    return found
