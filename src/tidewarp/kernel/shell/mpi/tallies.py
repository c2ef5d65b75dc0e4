"""Statistics of all ranks together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields

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


def numbers(parts: Sequence[Statistics]) -> list[int]:
    """The sums of these as a list."""
    flat = [0] * (len(fields(Statistics)) - 1 + len(parts[0].rollback_lengths))
    for part in parts:
        flat = [a + b for a, b in zip(flat, _flat(part), strict=True)]
    return flat


def _flat(part: Statistics) -> list[int]:
    plain = [getattr(part, field.name) for field in fields(Statistics) if field.name != "rollback_lengths"]
    return [*plain, *part.rollback_lengths]


def total(ranks: Sequence[Sequence[int]]) -> Statistics:
    """The statistics of a run from the :func:`numbers` of each rank."""
    names = [field.name for field in fields(Statistics) if field.name != "rollback_lengths"]
    columns = list(zip(*ranks, strict=True))
    found = Statistics(rollback_lengths=[sum(column) for column in columns[len(names) :]])
    for name, column in zip(names, columns, strict=False):
        setattr(found, name, _JOINED.get(name, sum)(column))
    return found
