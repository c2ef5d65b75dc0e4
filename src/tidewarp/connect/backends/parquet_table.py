"""One folder of Parquet parts with one schema: each output once, in parts that are whole or not there.

A part ``part-{first id}.parquet`` is written aside, synced where the file system is this machine's, and renamed. Its
footer says whose it is, and the ids that it reaches from and to: what the last part holds is not taken again. Eight parts
of one level become one of the next, so that a row is rewritten a few times and no more; a kill between the rename of the
merged part and the removal of the others leaves parts that it covers, which the next life removes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from tidewarp.connect.backends.parquet_types import Misfit, shaped, shared, type_of, written_type
from tidewarp.connect.contract import Refused, RunIdentity
from tidewarp.errors import OperatorError
from tidewarp.observe import stage

__all__ = ["Files", "Table"]

_FAN = 8  # parts of one level that become one of the next
_FOOTERS = 64  # that are read when a folder is opened: more parts than may wait to be merged
_TEXTS = ("id", "stream_type", "key", "path_id", "cause", "root", "domain")


class Files(NamedTuple):
    """A file system as pyarrow knows it."""

    pa: Any
    parquet: Any
    system: Any
    is_local: bool

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        found = self.system.get_file_info(self.pa.fs.FileSelector(folder, allow_not_found=True))
        return sorted(one.base_name for one in found if one.is_file)

    def store(self, path: str, schema: Any, batches: Iterator[Any]) -> None:
        """Write a part aside, and rename it when it is whole and durable."""
        aside = str(PurePosixPath(path).parent / f".{PurePosixPath(path).name}")
        with self.system.open_output_stream(aside) as stream, self.parquet.ParquetWriter(stream, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        stage("release.inside")
        self._sync(aside)
        self.system.move(aside, path)
        self._sync(str(PurePosixPath(path).parent))
        stage("release.inside")

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.system.delete_file(path)

    def _sync(self, path: str) -> None:
        if not self.is_local:
            return  # an object store has it when the stream is closed
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class _Part(NamedTuple):
    path: str
    first: str
    last: str
    rows: int
    level: int
    domain: str
    kind: Any  # type of the column `value`


class Table:
    """The parts of one folder, for one run. Raises OperatorError for a folder that is another's.

    Args:
        files: where it is.
        folder: its path there; made if it is not there.
        run: whose outputs it takes.
        rows: a part that has so many, or nearly, is merged no more.
    """

    def __init__(self, files: Files, folder: str, run: RunIdentity, rows: int) -> None:
        self._files, self._folder, self._run, self._rows = files, folder, run, rows
        files.system.create_dir(folder, recursive=True)
        names = files.names(folder)
        for name in names:
            if name.startswith(".part-"):  # of a life that was killed
                files.remove(f"{folder}/{name}")
        newest = [name for name in names if name.startswith("part-")][-_FOOTERS:]
        self._parts: list[_Part] = []
        for part in map(self._read_footer, newest):
            if self._parts and part.first <= self._parts[-1].last:
                files.remove(part.path)  # merged
            else:
                self._parts.append(part)
        self._last = self._parts[-1].last if self._parts else ""
        self._kind = self._parts[-1].kind if self._parts else files.pa.null()

    def write(self, records: Sequence[dict[str, Any]]) -> list[Refused]:
        """Add the records (ids ascending) that the folder has not. What does not fit its schema is refused."""
        pa, refused, kept, kind = self._files.pa, list[Refused](), list[dict[str, Any]](), self._kind
        for record in records:
            try:
                wider = shared(pa, kind, type_of(pa, record["value"]))
            except Misfit as error:
                refused.append(Refused(record["id"], f"{error}; route it to another path"))
                continue
            if record["id"] > self._last:  # else it is held; what was refused before has been refused again
                kind = wider
                kept.append(record)
        if kept:
            self._widen(written_type(pa, kind))
            self._add(kept)
            self._merge()
        return refused

    # ------------------------------------------------------------------ parts
    def _add(self, records: Sequence[dict[str, Any]]) -> None:
        pa, first, last = self._files.pa, records[0]["id"], records[-1]["id"]
        part = _Part(f"{self._folder}/part-{first}.parquet", first, last, len(records), 0, self._run.domain, self._kind)
        columns = {name: pa.array([record.get(name) for record in records], pa.string()) for name in _TEXTS}
        columns["tick"] = pa.array([record["tick"] for record in records], pa.int64())
        columns["sim_ts"] = pa.array([record["sim_ts"] for record in records], pa.float64())
        unix_ms = [(self._run.epoch_ns + record["tick"]) // 10**6 for record in records]
        columns["timestamp"] = pa.array(unix_ms, pa.timestamp("ms", "UTC"))
        columns["value"] = pa.array([shaped(pa, record["value"], self._kind) for record in records], self._kind)
        schema = self._schema(part)
        self._files.store(part.path, schema, iter([pa.record_batch([columns[name] for name in schema.names], schema)]))
        self._parts.append(part)
        self._last = last

    def _merge(self) -> None:
        """Make one part of the last eight, for as long as these are of one level and not too many rows."""
        while True:
            tail = self._parts[-_FAN:]
            rows, levels = sum(part.rows for part in tail), {part.level for part in tail}
            if len(tail) < _FAN or len(levels) > 1 or rows > self._rows:
                break
            merged = tail[0]._replace(last=tail[-1].last, rows=rows, level=tail[0].level + 1)
            self._files.store(merged.path, self._schema(merged), self._batches(tail))
            self._parts[-_FAN:] = [merged]
            for part in tail[1:]:
                self._files.remove(part.path)
                stage("release.inside")
        del self._parts[:-_FOOTERS]

    def _widen(self, kind: Any) -> None:
        """Give all parts this type of value, the last one last: it says what the folder has."""
        if kind == self._kind:
            return
        self._kind = kind
        known = {part.path: part for part in self._parts}
        for name in self._files.names(self._folder):
            if name.startswith("part-"):
                path = f"{self._folder}/{name}"
                part = known.get(path) or self._read_footer(name)
                if part.kind != kind:
                    self._files.store(path, self._schema(part), self._batches([part]))
        self._parts = [part._replace(kind=kind) for part in self._parts]

    def _batches(self, parts: Sequence[_Part]) -> Iterator[Any]:
        """The rows of some parts, a batch at a time, with values of the folder's type."""
        pa, schema = self._files.pa, self._schema(parts[0])
        for part in parts:
            with self._files.system.open_input_file(part.path) as stream:
                for batch in self._files.parquet.ParquetFile(stream).iter_batches():
                    columns = [batch.column(field.name).cast(field.type, safe=False) for field in schema]
                    yield pa.record_batch(columns, schema.remove_metadata())

    # ------------------------------------------------------------------ schema and footer
    def _schema(self, part: _Part) -> Any:
        pa = self._files.pa
        texts = [(name, pa.string()) for name in _TEXTS]
        times = [("tick", pa.int64()), ("sim_ts", pa.float64()), ("timestamp", pa.timestamp("ms", "UTC"))]
        fields = [texts[0], *times, *texts[1:4], ("value", self._kind), *texts[4:]]
        said = {"first": part.first, "last": part.last, "level": str(part.level), "domain": part.domain}
        return pa.schema(fields, {f"tidewarp.{key}": value for key, value in said.items()})

    def _read_footer(self, name: str) -> _Part:
        path, pa = f"{self._folder}/{name}", self._files.pa
        try:
            with self._files.system.open_input_file(path) as stream:
                file = self._files.parquet.ParquetFile(stream)
                said, rows, schema = file.metadata.metadata or {}, file.metadata.num_rows, file.schema_arrow
            first, last, level, domain = (
                said[b"tidewarp.%s" % key].decode() for key in (b"first", b"last", b"level", b"domain")
            )
            part = _Part(path, first, last, rows, int(level), domain, schema.field("value").type)
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise self._foreign(path, f"this is no part of one: {error}") from None
        if domain != self._run.domain:
            raise self._foreign(path, f"this one holds outputs of the journal with domain {domain[:16]}…")
        return part

    def _foreign(self, path: str, found: str) -> OperatorError:
        return OperatorError(path, f"a parquet sink continues its own folder, and {found}", "name another path")
