"""A file of JSON lines as a source, whole or while it grows: one line is one message, its number is its offset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tidewarp.connect.backends.lines import DAMAGED, LineReader, open_lines, read_lines
from tidewarp.connect.contract import Decoder, Raw, Source, Undecodable, Update
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import InternalError, OperatorError

__all__ = ["JsonlSource"]

_LINES_FOR_FIRST_TIME = 1_000


class JsonlSource(Source):
    """One JSON object a line, as :class:`~tidewarp.connect.decoders.JsonMessages` reads it; ``.gz`` is unpacked.

    Args:
        path: the file.
        time: the field with the event time: ISO 8601 (UTC without a zone) or Unix seconds.
        follow: at the end of the file wait for more: a file that grows is a live source. A line that is being written
            is no line yet; a file that is cut or replaced meanwhile ends the run with an OperatorError.
        map: field -> path. The fields of a line are applied together, or none of them.
        name: of the source in the journal; default: the file's name up to its first dot.

    Line n has offset n, from 1. Blank lines are no messages but are numbered. A line without a time is a dead letter,
    unless the file is followed: then it may be stamped when it comes. Bad lines become dead letters. Raises OperatorError
    when it is opened and there is no such file.
    """

    kind = "jsonl"

    def __init__(
        self,
        path: str | Path,
        *,
        time: str = "time",
        follow: bool = False,
        map: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = name if name is not None else self.path.name.split(".")[0] or "jsonl"
        self.clock = "wall" if follow else "data"
        self._time, self._follow = time, follow
        self._map = None if map is None else dict(map)
        self._reader: LineReader | None = None

    def describe(self) -> dict[str, Any]:
        """Time, map, whether it is followed; not the place of the file, which may move."""
        return {"kind": self.kind, "time": self._time, "map": self._map, "follow": self._follow}

    def paths(self) -> Sequence[str]:
        """The paths that fields are mapped to."""
        return sorted(set((self._map or {}).values()))

    def first_event_ns(self) -> int | None:
        """The time of the first line that has one; reads the head of the file. None where it is followed."""
        if self._follow:
            return None
        decoder = self.decoder(0)
        with open_lines(self.path, self.kind, self._follow) as file:
            try:
                for raw in islice(read_lines(file), _LINES_FOR_FIRST_TIME):
                    try:
                        return decoder.decode(raw).tick
                    except Undecodable:
                        continue
            except DAMAGED as error:
                rule = f"cannot be read: {error}"
                raise OperatorError(str(self.path), rule, "repair it, or give another file") from error
        return None

    def decoder(self, epoch_ns: int) -> Decoder:
        """Of lines."""
        return _Lines(epoch_ns, self._map, self._time, is_timed=not self._follow)

    async def open(self, positions: Mapping[int, int]) -> None:
        """Stand behind the last durable line."""
        await self.close()
        file = open_lines(self.path, self.kind, self._follow)
        self._reader = LineReader(self.path, file, positions.get(0, 0), self._follow)

    async def read(self, limit: int) -> Sequence[Raw] | None:
        """The next lines; None at the end of the file, unless it is followed."""
        if self._reader is None:
            raise InternalError(f"source {self.name!r}", "a source is opened before it is read", "report this")
        return await self._reader.read(limit)

    async def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _Lines(JsonMessages):
    """JSON messages whose time is in a field of any name, and has to be there if ``is_timed``."""

    def __init__(self, epoch_ns: int, map: Mapping[str, str] | None, time: str, *, is_timed: bool) -> None:
        super().__init__(epoch_ns, map=map)
        self._time, self._is_timed = time, is_timed

    def columns(self, payloads: Sequence[bytes]) -> tuple[list[str], list[Any], list[int] | None] | None:
        """As of the base; None where that would not look at the right field, or a time is missing."""
        found = super().columns(payloads) if self._time == "time" else None
        return None if found is None or (self._is_timed and found[2] is None) else found

    def update(self, message: object) -> Update:
        """What one line says."""
        if self._time != "time" and isinstance(message, Mapping):
            message = {**message, "time": message.get(self._time)}
        update = super().update(message)
        if self._is_timed and update.tick is None:
            rule = f"the field {self._time!r} says when"
            raise Undecodable("a line without a time", rule, "add it, or name the field: time=…", "time")
        return update
