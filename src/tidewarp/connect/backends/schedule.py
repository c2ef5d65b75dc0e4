"""A list of changes at given times as a source: for tests, scenarios and operators' plans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidewarp.codec import pack, unpack
from tidewarp.connect.contract import Readings, Source
from tidewarp.errors import OperatorError
from tidewarp.units import Duration, ticks

__all__ = ["ScheduleSource"]


class ScheduleSource(Source):
    """Changes ``(time, path, value)``; time since the twin's epoch (a number is seconds, text like "8h").

    Message k of the list has offset k, so the list may grow between runs at its end. Values are plain:
    None, bool, int, float, str, list, dict. Errors: OperatorError for an entry or a time, CodecError for a value.
    """

    kind = "schedule"

    def __init__(self, entries: Iterable[tuple[Duration, str, Any]], *, name: str = "schedule") -> None:
        self.name = name
        changes = [_change(entry) for entry in entries]
        self._ticks = [tick for tick, _, _ in changes]
        self._paths = [path for _, path, _ in changes]
        self._values = [value for _, _, value in changes]
        self._at = 0

    def paths(self) -> Sequence[str]:
        """Every path of the list."""
        return sorted(set(self._paths))

    def decoder(self, epoch_ns: int) -> None:
        """None: the list needs no decoding."""

    async def open(self, positions: Mapping[int, int]) -> None:
        """Stand behind the last durable entry."""
        self._at = positions.get(0, -1) + 1

    async def read(self, limit: int) -> Readings | None:
        """The next entries; None at the end of the list."""
        first = self._at
        self._at = min(first + limit, len(self._ticks))
        part = slice(first, self._at)
        if first == self._at:
            return None
        return Readings(0, first, self._ticks[part], self._paths[part], self._values[part])


def _change(entry: tuple[Duration, str, Any]) -> tuple[int, str, Any]:
    try:
        time, path, value = entry
    except (TypeError, ValueError):
        path = None
    if type(path) is not str:
        raise OperatorError(f"entry {entry!r:.80}", "an entry is (time, path, value), its path is text", "correct it")
    return ticks(time), path, unpack(pack(value))  # a copy: what was given is what is sent
