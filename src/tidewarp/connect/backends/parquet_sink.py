"""Outputs as an Arrow dataset of Parquet files, each output once. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tidewarp.connect.backends.parquet_table import Files, Table
from tidewarp.connect.backends.routing import PathRouter, Router
from tidewarp.connect.contract import Output, Refused, RunIdentity
from tidewarp.connect.payload import whole_payload
from tidewarp.errors import MissingExtra, OperatorError

__all__ = ["ParquetSink"]

_TABLES_MAX = 1_000  # folders whose state is kept in memory; it is read again from the folder
_KINDS = {bool: "flag", int: "number", float: "number", str: "text", bytes: "bytes", list: "list", dict: "object"}


class ParquetSink:
    """Writes outputs below ``path``; what write() has taken is durable when it returns.

    A folder has one schema: ``id tick sim_ts timestamp stream_type key path_id value cause root domain``, where ``value`` is
    typed by the values. Without a router there is a folder for each kind of them (``event-object``, ``telemetry-number``),
    because a column has one type. Within a folder the type is widened where that loses nothing but the last digits of ints
    beyond 2**53 (int to float, null to anything, a struct to one with more fields): its parts are then rewritten. What
    still does not fit is refused, and becomes a dead letter. NaN and infinities are kept.

    A batch is a part; small parts are merged up to ``rows`` rows. Who reads while parts are merged may see rows twice, and
    knows them by ``id``. One writer per path.

    Args:
        path: the folder, on this machine or in ``filesystem``.
        router: record -> path of a folder below ``path``; None drops the record (``router.dropped`` counts). Where it
            raises, or names no such path (``router.misrouted``), the record goes where it would go without it.
        filesystem: a ``pyarrow.fs.FileSystem``; default: this machine's.
        rows: of a part, at most.
        name: of the sink in the journal; default: the folder's.

    Errors of :meth:`open`: MissingExtra; OperatorError for a path that is no folder. A folder that is another run's is an
    OperatorError of the first write to it.
    """

    kind = "parquet"
    delivery = "once"
    takes_early = False  # its columns have no place for retractions

    def __init__(
        self,
        path: str | Path,
        *,
        router: PathRouter | None = None,
        filesystem: Any = None,
        rows: int = 100_000,
        name: str | None = None,
    ) -> None:
        if rows < 1:
            raise OperatorError(f"rows={rows}", "a part has at least one", "give rows=100_000")
        self.name = name if name is not None else PurePosixPath(str(path)).name or "parquet"
        self.router = Router(router)
        self._path, self._filesystem, self._rows = str(path), filesystem, rows
        self._root = self._path
        self._run = RunIdentity("", 0)
        self._files: Files | None = None
        self._tables: dict[str, Table] = {}

    def counts(self) -> dict[str, int]:
        """What the router dropped or could not say."""
        return self.router.counts()

    async def open(self, run: RunIdentity) -> None:
        """Make the folder. None: each folder below knows what it holds, and drops what it is offered again."""
        await self.close()
        self._run, files = run, self._open_files()
        try:
            if files.system.get_file_info(self._root).type == files.pa.fs.FileType.File:
                raise OperatorError(self._path, "a parquet sink writes a folder, this is a file", "name a folder")
            files.system.create_dir(self._root, recursive=True)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise OperatorError(self._path, str(error), "give parquet() a path that can be written") from error
        self._files = files

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """Add the outputs to their folders, one part each, and merge what has piled up."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for output in batch:
            record = whole_payload(output, self._run)
            folder = self._folder(record)
            if folder is not None:
                groups.setdefault(folder, []).append(record)
        refused: list[Refused] = []
        for folder, records in groups.items():
            table = self._table(folder)
            refused += table.write(records)
            self._tables[folder] = table  # not after an error: then the folder has to say what it holds
        return sorted(refused, key=lambda one: one.id)

    async def close(self) -> None:
        """Forget the folders."""
        self._files = None
        self._tables.clear()

    def _table(self, folder: str) -> Table:
        if self._files is None:
            raise OperatorError(self._path, "the sink is closed", "open it first")
        while len(self._tables) >= _TABLES_MAX:
            del self._tables[next(iter(self._tables))]
        table = self._tables.pop(folder, None)
        return table or Table(self._files, f"{self._root}/{folder}", self._run, self._rows)

    def _folder(self, record: Mapping[str, Any]) -> str | None:
        """Where a record goes, None for nowhere."""
        kind = _KINDS.get(type(record["value"]), "null")
        return self.router.path(record, f"{record['stream_type']}-{kind}")

    def _open_files(self) -> Files:
        try:
            import pyarrow as pa  # type: ignore[import-not-found, unused-ignore]
            import pyarrow.fs as fs  # type: ignore[import-not-found, unused-ignore]
            import pyarrow.parquet as parquet  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise MissingExtra(
                f"parquet sink {self.name!r}", "it needs pyarrow", "pip install 'tidewarp[parquet]'"
            ) from error
        system, self._root = self._filesystem, self._path.rstrip("/") or "/"
        if system is None:
            system = fs.LocalFileSystem()
        while isinstance(system, fs.SubTreeFileSystem):
            system, self._root = system.base_fs, f"{system.base_path.rstrip('/')}/{self._root.lstrip('/')}"
        return Files(pa, parquet, system, isinstance(system, fs.LocalFileSystem))
