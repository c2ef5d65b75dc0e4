"""Rows to a file, CSV, JSON lines or Parquet by its name: written aside and renamed, so that it is whole or not there."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tidewarp.cli.files import beside, naming, refuse_taken
from tidewarp.cli.values import plain
from tidewarp.errors import MissingExtra, OperatorError

__all__ = ["export"]

Rows = Iterator[Mapping[str, Any]]

GROUP_ROWS = 50_000  # of a Parquet file are in memory
_INTS = {"seq", "tick", "partition", "offset", "depth"}
_FLOATS = {"time_s", "number"}


def export(rows: Rows, columns: Sequence[str], out: Path) -> int:
    """Write ``rows`` to ``out``; how many. JSON lines have all of a row, the tables ``columns``.

    In Parquet ``value`` is JSON text, and beside it ``number`` the value as a float, where it is a number.

    Raises:
        OperatorError: another kind of file. MissingExtra: Parquet without pyarrow. OSError: it exists, or cannot be written.
    """
    write = _WRITERS.get(out.suffix)
    if write is None:
        raise OperatorError(str(out), "rows are exported as .csv, .jsonl or .parquet", "name such a file")
    refuse_taken(out)
    aside = beside(out)
    with naming(out):
        try:
            count = write(rows, columns, aside)
            aside.rename(out)
        finally:
            aside.unlink(missing_ok=True)
    return count


def _write_csv(rows: Rows, columns: Sequence[str], path: Path) -> int:
    count = 0
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for count, row in enumerate(rows, 1):  # noqa: B007 - how many there were
            writer.writerow(row)
    return count


def _write_jsonl(rows: Rows, columns: Sequence[str], path: Path) -> int:
    count = 0
    with path.open("x", encoding="utf-8") as file:
        for count, row in enumerate(rows, 1):  # noqa: B007 - how many there were
            file.write(json.dumps(plain(row), allow_nan=False) + "\n")
    return count


def _write_parquet(rows: Rows, columns: Sequence[str], path: Path) -> int:
    try:
        import pyarrow as pa  # type: ignore[import-not-found, unused-ignore]
        import pyarrow.parquet as parquet  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtra(f"a file {path.suffix}", "it needs pyarrow", "pip install 'tidewarp[parquet]'") from error
    types = {
        name: pa.int64() if name in _INTS else pa.float64() if name in _FLOATS else pa.string() for name in columns
    }
    schema = pa.schema({**types, "number": pa.float64()})
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        while group := [_cells(row) for row in islice(rows, GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    if "value" not in row:
        return {**row}
    value = row["value"]
    number = float(value) if type(value) in (int, float) else None
    return {**row, "value": json.dumps(plain(value), allow_nan=False), "number": number}


_WRITERS: dict[str, Callable[[Rows, Sequence[str], Path], int]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
