"""Rows of a CSV file as a source: one line is one message, its number in the file is its offset.

The format is RFC 4180 with one restriction: a quoted field does not span lines. That is what makes a
damaged line a matter of that line alone: a stray quote cannot swallow the rest of the file.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tidewarp.connect.backends.lines import DAMAGED, LineReader, open_lines, read_lines
from tidewarp.connect.contract import MESSAGE_BYTES_MAX, Decoder, Raw, Source, Undecodable, Update
from tidewarp.errors import CodecError, InternalError, OperatorError
from tidewarp.units import parse_instant

__all__ = ["CsvSource"]

_ROWS_FOR_FIRST_TIME = 1_000
_update = partial(tuple.__new__, Update)  # without a call in Python for each row


class CsvSource(Source):
    """Readings in a CSV file with a header line; ``.gz`` is read as it is.

    Args:
        path: the file.
        time: the column with the event time: ISO 8601 (with or without zone) or Unix seconds.
        map: column -> registry path. A row is one input: all its columns are applied, or none. An empty cell sets nothing.
        sep: the separator, one character.
        tz: the zone of times without one, an IANA name.
        follow: at the end of the file wait for more: a file that grows is a live source.
        name: of the source in the journal; default: the file's name up to its first dot.

    Row n (the line after the header is row 1) has offset n. Blank lines are no rows but are numbered. A last line
    without a line end is a row, unless the file is followed: so follow a file that is being written.
    Bad rows become dead letters. Raises OperatorError when it is opened and the file, or a column, is missing.
    """

    kind = "csv"

    def __init__(
        self,
        path: str | Path,
        *,
        time: str,
        map: Mapping[str, str],
        sep: str = ",",
        tz: str = "UTC",
        follow: bool = False,
        name: str | None = None,
    ) -> None:
        if not map:
            raise OperatorError("map={}", "a csv source sets at least one path", "give map={column: path}")
        if len(sep) != 1 or sep in '"\r\n':
            raise OperatorError(f"sep={sep!r}", "a separator is one character, no quote, no line end", "give sep=','")
        self.path = Path(path)
        self.name = name if name is not None else self.path.name.split(".")[0] or "csv"
        self._time, self._map, self._sep, self._tz = time, dict(map), sep, tz
        self._zone = _zone(tz)
        self._columns: list[str] | None = None
        self._reader: LineReader | None = None
        self._follow = follow
        self.clock = "wall" if follow else "data"

    def describe(self) -> dict[str, Any]:
        """Columns, map, separator, zone; not the place of the file, which may move."""
        return {"kind": self.kind, "time": self._time, "map": self._map, "sep": self._sep, "tz": self._tz}

    def paths(self) -> Sequence[str]:
        """The paths that its columns are mapped to."""
        return sorted(set(self._map.values()))

    def first_event_ns(self) -> int | None:
        """The time of the first row that has one; reads the head of the file. None where it is followed."""
        if self._follow:
            return None
        file, columns = self._open_file()
        with file:
            decoder = _Decoder(columns, self._time, {}, self._sep, self._zone, 0)
            try:
                for raw in islice(read_lines(file), _ROWS_FOR_FIRST_TIME):
                    try:
                        return decoder.decode(raw).tick
                    except Undecodable:
                        continue
            except DAMAGED as error:
                raise self._unreadable(error) from error
        return None

    def decoder(self, epoch_ns: int) -> Decoder:
        """Of the file's rows, by the header that `open` read."""
        if self._columns is None:
            self._open_file()[0].close()
        return _Decoder(self._columns or [], self._time, self._map, self._sep, self._zone, epoch_ns)

    async def open(self, positions: Mapping[int, int]) -> None:
        """Read the header and stand behind the last durable row."""
        file, _ = self._open_file()
        self._reader = LineReader(self.path, file, positions.get(0, 0), self._follow)

    async def read(self, limit: int) -> Sequence[Raw] | None:
        """The next rows; None at the end of the file, unless it is followed."""
        if self._reader is None:
            raise InternalError(f"source {self.name!r}", "a source is opened before it is read", "report this")
        return await self._reader.read(limit)

    async def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _unreadable(self, error: Exception) -> OperatorError:
        return OperatorError(str(self.path), f"cannot be read on: {error}", "repair it, then --resume")

    def _open_file(self) -> tuple[IO[bytes], list[str]]:
        """The file behind its header, and the header's columns."""
        file = open_lines(self.path, self.kind, self._follow)
        try:
            header = file.readline(MESSAGE_BYTES_MAX)
            if len(header) == MESSAGE_BYTES_MAX:
                raise OperatorError(str(self.path), f"its header has {len(header)} bytes or more", "give a CSV file")
            columns = [cell.strip() for cell in _cells(header.decode("utf-8-sig").strip("\r\n"), self._sep)]
            self._refuse_missing(columns)
        except (*DAMAGED, UnicodeDecodeError, csv.Error) as error:
            file.close()
            raise OperatorError(str(self.path), f"its header is not CSV: {error}", "give a UTF-8 CSV file") from error
        except OperatorError:
            file.close()
            raise
        self._columns = columns
        return file, columns

    def _refuse_missing(self, columns: list[str]) -> None:
        for column in (self._time, *self._map):
            if columns.count(column) != 1:
                found = ", ".join(map(repr, columns[:20])) or "none"
                rule = "the header names it twice" if column in columns else f"the header has {found}"
                raise OperatorError(f"column {column!r} of {self.path}", rule, "name one of these columns")


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # needs no tzdata, and `parse_instant` has a short way for it
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise OperatorError(
            f"tz={name!r}", "not an IANA time zone that is installed", "give 'UTC' or install tzdata"
        ) from error


def _cells(line: str, sep: str) -> list[str]:
    """The fields of one line. Quotes are rare, and `csv` costs four times as much as `split`."""
    if '"' not in line:
        return line.split(sep)
    return next(csv.reader([line], delimiter=sep, strict=True))


class _Decoder:
    """One row to one Update."""

    def __init__(
        self, columns: list[str], time: str, map: Mapping[str, str], sep: str, zone: tzinfo, epoch_ns: int
    ) -> None:
        self._width = len(columns)
        self._time_at = columns.index(time)
        self._targets = [(columns.index(column), path) for column, path in map.items()]
        self._sep, self._zone, self._epoch_ns = sep, zone, epoch_ns

    def decode(self, raw: Raw) -> Update:
        if raw.sha256 is not None:
            raise _bad(raw, "line", f"longer than {MESSAGE_BYTES_MAX} bytes", "split it", "size")
        try:
            cells = _cells(raw.payload.decode(), self._sep)
        except UnicodeDecodeError as error:
            raise _bad(
                raw, repr(raw.payload[error.start : error.end]), "text is UTF-8", "convert the file", "encoding"
            ) from None
        except csv.Error as error:
            raise _bad(raw, repr(raw.payload[:80]), f"not CSV: {error}", "repair the row", "csv") from None
        if len(cells) != self._width:
            raise _bad(raw, f"{len(cells)} fields", f"the header has {self._width}", "repair the row", "fields")
        try:
            tick = parse_instant(cells[self._time_at].strip(), self._zone) - self._epoch_ns
        except CodecError as error:
            raise _bad(raw, error.value, error.rule, error.action, "time") from None
        if not -(2**63) <= tick < 2**63:
            raise _bad(
                raw, cells[self._time_at], "292 years around the epoch can be counted in ns", "give --epoch", "time"
            )
        changes = tuple([(path, cell) for at, path in self._targets if (cell := cells[at].strip())])
        if not changes and self._targets:  # without targets only the time is asked for
            raise _bad(
                raw, "no value", "an empty cell sets nothing, and all of them are empty", "leave it out", "empty"
            )
        return _update((tick, changes, "", ""))


def _bad(raw: Raw, value: str, rule: str, action: str, short: str) -> Undecodable:
    return Undecodable(f"row {raw.offset}: {value}", rule, action, short)
