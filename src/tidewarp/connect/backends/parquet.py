"""Parquet files as a source: columns of readings, a row group at a time."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import UTC
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tidewarp.connect.contract import Readings, Source
from tidewarp.errors import CodecError, InternalError, MissingExtra, OperatorError
from tidewarp.units import parse_instant

__all__ = ["ParquetSource"]

_ROWS = 8_192  # decoded at once
_ROWS_FOR_FIRST_TIME = 1_000
_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_NS = 86_400 * 10**9


class ParquetSource(Source):
    """Readings in a Parquet file, or in all ``*.parquet`` below a folder in the order of their names. Needs pyarrow.

    Args:
        path: the file or the folder. Names that begin with a dot or a line (``.``, ``_``) are left out.
        time: the column with the event time: timestamp (UTC if it has no zone), date, Unix seconds (a number), or text as in
            a csv source.
        map: column -> registry path, for columns of numbers, text, bool, lists and structs. Each cell is one input; a null
            sets nothing.
        name: of the source in the journal; default: the file's name up to its first dot.

    The offset of a cell is its number among the cells that are not null, row by row, from 1. A row without a time that can be
    read makes dead letters of its cells. Memory: a row group of the named columns. Raises OperatorError when it is opened
    and a file or a column is missing, or of another type.
    """

    kind = "parquet"

    def __init__(self, path: str | Path, *, time: str, map: Mapping[str, str], name: str | None = None) -> None:
        if not map:
            raise OperatorError("map={}", "a parquet source sets at least one path", "give map={column: path}")
        self.path = Path(path)
        self.name = name if name is not None else self.path.name.split(".")[0] or "parquet"
        self._time, self._map, self._epoch_ns = time, dict(map), 0
        self._parts: Generator[_Cells, None, None] | None = None
        self._left = _Cells([], [], [])
        self._given = 0

    def describe(self) -> dict[str, Any]:
        """Columns and map; not the place of the files, which may move."""
        return {"kind": self.kind, "time": self._time, "map": self._map}

    def paths(self) -> Sequence[str]:
        """The paths that its columns are mapped to."""
        return sorted(set(self._map.values()))

    def first_event_ns(self) -> int | None:
        """The time of the first of the first 1,000 cells that has one; reads the head of the first file."""
        cells = (time for part in self._read_files(0, first_rows=_ROWS_FOR_FIRST_TIME) for time in part.times)
        return next((time for time in islice(cells, _ROWS_FOR_FIRST_TIME) if isinstance(time, int)), None)

    def decoder(self, epoch_ns: int) -> None:
        """None: the columns need no decoding."""
        self._epoch_ns = epoch_ns

    async def open(self, positions: Mapping[int, int]) -> None:
        """Check the columns of all files, and stand behind the last durable cell."""
        for file in self._files():
            self._open_file(file).close()
        self._given = positions.get(0, 0)
        self._parts, self._left = self._read_files(self._given), _Cells([], [], [])

    async def read(self, limit: int) -> Readings | None:
        """The next cells; None behind the last file."""
        if self._parts is None:
            raise InternalError(f"source {self.name!r}", "a source is opened before it is read", "report this")
        if not self._left.times:
            self._left = next(self._parts, self._left)
        if not self._left.times:
            return None
        now, self._left = self._left.split(limit)
        first, self._given = self._given + 1, self._given + len(now.times)
        epoch_ns = self._epoch_ns
        ticks = [time - epoch_ns if type(time) is int else time for time in now.times]
        return Readings(0, first, ticks, now.paths, now.values)

    async def close(self) -> None:
        """Close the file that is being read."""
        if self._parts is not None:
            self._parts.close()
            self._parts = None

    # ------------------------------------------------------------------ files
    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        found = sorted(self.path.rglob("*.parquet"))
        files = [file for file in found if not any(part[0] in "._" for part in file.relative_to(self.path).parts)]
        if not files:
            raise OperatorError(str(self.path), "there is no *.parquet below it", "name the folder of the files")
        return files

    def _open_file(self, path: Path) -> Any:
        """The file, whose columns are right. OperatorError for all that is wrong with it."""
        pa, parquet = _driver(f"parquet source {self.name!r}")
        try:
            file = parquet.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise OperatorError(str(path), f"cannot be read: {error}", "give a Parquet file") from error
        try:
            schema = file.schema_arrow
            for column in (self._time, *self._map):
                if schema.names.count(column) != 1:
                    found = ", ".join(map(repr, schema.names[:20])) or "none"
                    raise OperatorError(f"column {column!r} of {path}", f"the file has {found}", "name one of these")
                is_right = _is_time if column == self._time else _is_plain
                if not is_right(pa, schema.field(column).type):
                    rule = f"it is of type {schema.field(column).type}"
                    raise OperatorError(f"column {column!r} of {path}", rule, "give one of the types that are read")
        except OperatorError:
            file.close()
            raise
        return file

    def _read_files(self, after: int, first_rows: int = _ROWS) -> Generator[_Cells, None, None]:
        """The cells behind number ``after``."""
        left = after
        for path in self._files():
            file = self._open_file(path)
            pa, _ = _driver(self.name)
            try:
                for batch in self._batches(file, first_rows):
                    cells = sum(len(batch) - batch.column(column).null_count for column in self._map)
                    if cells <= left:
                        left -= cells
                        continue
                    yield self._cells(pa, batch).split(left)[1]
                    left = 0
            except (OSError, pa.ArrowException) as error:
                raise OperatorError(str(path), f"cannot be read on: {error}", "repair it, then --resume") from error
            finally:
                file.close()
        if left:
            rule = f"it has {after - left} cells, and {after} were read before"
            raise OperatorError(str(self.path), rule, "bring the whole file back, then --resume")

    def _batches(self, file: Any, rows: int) -> Iterator[Any]:
        for group in range(file.num_row_groups):  # all at once, it would read ahead
            yield from file.iter_batches(rows, row_groups=[group], columns=[self._time, *self._map])

    def _cells(self, pa: Any, batch: Any) -> _Cells:
        times = _unix_ns(pa, batch.column(self._time))
        columns = [batch.column(column).to_pylist() for column in self._map]
        if len(columns) == 1 and None not in columns[0]:
            return _Cells(times, [*self._map.values()] * len(times), columns[0])
        paths = [*self._map.values()]
        cells = [
            (time, path, value)
            for time, *values in zip(times, *columns, strict=True)
            for path, value in zip(paths, values, strict=True)
            if value is not None
        ]
        return _Cells(*(list(part) for part in zip(*cells, strict=True))) if cells else _Cells([], [], [])


class _Cells(NamedTuple):
    """Cells that set something. A time is Unix ns, or the text of what is none: the gate refuses that."""

    times: list[Any]
    paths: list[str]
    values: list[Any]

    def split(self, count: int) -> tuple[_Cells, _Cells]:
        """The first ``count``, and the rest."""
        return _Cells(*(part[:count] for part in self)), _Cells(*(part[count:] for part in self))


def _driver(what: str) -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # type: ignore[import-not-found, unused-ignore]
        import pyarrow.parquet as parquet  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtra(what, "it needs pyarrow", "pip install 'tidewarp[parquet]'") from error
    return pa, parquet


def _is_time(pa: Any, kind: Any) -> bool:
    tests = (pa.types.is_timestamp, pa.types.is_date, pa.types.is_integer, pa.types.is_floating, _is_text)
    return any(test(kind) for test in tests)


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view") or "values=string" in str(kind)


def _is_plain(pa: Any, kind: Any) -> bool:
    """Is it a type of values that a path may have?"""
    if pa.types.is_struct(kind):
        return all(_is_plain(pa, kind.field(n).type) for n in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain(pa, kind.value_type)
    tests = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_null, _is_text)
    return any(test(kind) for test in tests)


def _unix_ns(pa: Any, column: Any) -> list[Any]:
    """Each time as Unix ns, exactly; as text if it is none."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _scaled(column.cast(pa.int64()), _UNIT_NS[kind.unit])
    if pa.types.is_date32(kind):
        return _scaled(column.cast(pa.int32()), _DAY_NS)
    if pa.types.is_date64(kind):
        return _scaled(column.cast(pa.int64()), _UNIT_NS["ms"])
    if pa.types.is_integer(kind):
        return _scaled(column, 10**9)
    return [*map(_of_float if pa.types.is_floating(kind) else _of_text, column.to_pylist())]


def _scaled(column: Any, unit_ns: int) -> list[Any]:
    values = column.to_pylist()
    if column.null_count:
        return ["None" if value is None else value * unit_ns for value in values]
    return [value * unit_ns for value in values]


def _of_float(seconds: float | None) -> Any:
    if seconds is None or not math.isfinite(seconds):
        return f"{seconds}"
    whole = int(seconds)
    return whole * 10**9 + round((seconds - whole) * 10**9)


def _of_text(text: str | None) -> Any:
    try:
        return parse_instant((text or "").strip(), UTC)
    except CodecError:
        return f"{text!r:.80}"
