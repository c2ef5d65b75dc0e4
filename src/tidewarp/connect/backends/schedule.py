"""A list of changes at given times as a source: for tests, scenarios and operators' plans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidewarp.codec import pack, unpack
from tidewarp.connect.contract import Decoder, Raw, Update
from tidewarp.errors import OperatorError
from tidewarp.units import Duration, ticks

__all__ = ["ScheduleSource"]


class ScheduleSource:
    """Changes ``(time, path, value)``; time since the twin's epoch (a number is seconds, text like "8h").

    Message k of the list has offset k, so the list may grow between runs at its end. Values are plain:
    None, bool, int, float, str, list, dict. Errors: OperatorError for an entry or a time, CodecError for a value.
    """

    kind = "schedule"

    def __init__(self, entries: Iterable[tuple[Duration, str, Any]], *, name: str = "schedule") -> None:
        self.name = name
        self._changes = [_change(entry) for entry in entries]
        self._payloads = [pack([tick, path, value]) for tick, path, value in self._changes]
        self._at = 0

    def describe(self) -> dict[str, Any]:
        """Nothing that could change a message's meaning."""
        return {"kind": self.kind}

    def paths(self) -> Sequence[str]:
        """Every path of the list."""
        return sorted({path for _, path, _ in self._changes})

    def first_event_ns(self) -> int | None:
        """None: times are relative to the epoch."""
        return None

    def decoder(self, epoch_ns: int) -> Decoder:
        """Of the packed entries."""
        return _Decoder()

    async def open(self, positions: Mapping[int, int]) -> None:
        """Stand behind the last durable entry."""
        self._at = positions.get(0, -1) + 1

    async def read(self, limit: int) -> Sequence[Raw] | None:
        """The next entries; None at the end of the list."""
        part = self._payloads[self._at : self._at + limit]
        first, self._at = self._at, self._at + len(part)
        return [Raw(0, first + n, payload) for n, payload in enumerate(part)] or None

    async def confirm(self, positions: Mapping[int, int]) -> None:
        """Nothing to forget."""

    async def close(self) -> None:
        """Nothing to release."""


def _change(entry: tuple[Duration, str, Any]) -> tuple[int, str, Any]:
    try:
        time, path, value = entry
    except (TypeError, ValueError):
        path = None
    if type(path) is not str:
        raise OperatorError(f"entry {entry!r:.80}", "an entry is (time, path, value), its path is text", "correct it")
    return ticks(time), path, value


class _Decoder:
    def decode(self, raw: Raw) -> Update:
        tick, path, value = unpack(raw.payload)
        return Update(tick, ((path, value),))
