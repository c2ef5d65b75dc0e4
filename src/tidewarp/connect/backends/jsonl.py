"""Outputs as a file of JSON lines that holds each of them once, whatever was killed when.

How "once" is reached: ids ascend, so the last line tells what the file holds; a torn last line is cut off
when the file is opened; what is at or below the last id is not offered again.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tidewarp.connect.backends.routing import PathRouter, Router
from tidewarp.connect.contract import Output, Refused, RunIdentity
from tidewarp.connect.payload import event_payload, to_json
from tidewarp.errors import OperatorError
from tidewarp.observe import stage

__all__ = ["JsonlSink"]

_WRITE_BYTES = 4096  # per system call: a kill may tear the file at any of them, as a full disk may
_LINE_BYTES_MAX = 8 << 20  # a canonical byte is at most six of JSON, so 1 MiB of value always fits
_TAIL_BYTES = 2 * _LINE_BYTES_MAX  # holds the last whole line and a torn one behind it
_FILES_MAX = 100  # of a router, that are open at once
_HEADS = (  # how every line of ours begins, but for its digits; the second one where it is told early
    b'{"id":"0123456789abcdef-01234567","tick":',
    b'{"id":"0123456789abcdef-0123456789abcdef-01234567","tick":',
)
_DIGITS = bytes.maketrans(b"0123456789abcdef", b"0" * 16)


class JsonlSink:
    """Appends one JSON object a line to ``path``; written through to the disk before it counts as delivered.

    Args:
        path: the file.
        router: record -> path of a file below the folder of ``path``; None drops the record (``router.dropped`` counts).
            Where it raises, or names no such path (``router.misrouted``), the record goes to ``path``. Each file then knows
            what it holds, so ``open`` cannot tell, and drops what it is offered again.
        name: of the sink in the journal; default: the file's name up to its first dot.

    Raises OperatorError when opened on a directory, without permission, or on a file that holds something
    else (nothing is overwritten).
    """

    kind = "jsonl"
    delivery = "once"

    def __init__(self, path: str | Path, *, router: PathRouter | None = None, name: str | None = None) -> None:
        self.path = Path(path)
        self.router = Router(router)
        self._files: dict[str, JsonlSink] | None = None if router is None else {}
        self.name = name if name is not None else self.path.name.split(".")[0] or "jsonl"
        self.nonfinite = 0  # numbers that became null
        self._run = RunIdentity("", 0)
        self._file: int | None = None
        self._size = 0
        self._last = ""

    def counts(self) -> dict[str, int]:
        """Numbers that became null, and what the router dropped or could not say."""
        return {"nonfinite": self.nonfinite, **self.router.counts()}

    async def open(self, run: RunIdentity) -> str | None:
        """Cut a torn last line; the id in the last whole one, "" for an empty file. None with a router."""
        self._run = run
        if self._files is not None:
            if not self.path.parent.is_dir():
                raise OperatorError(str(self.path.parent), "there is no such folder", "make it, or name another")
            return None
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OperatorError(str(self.path), reason, "give jsonl() a path that can be written") from error
        self._claim(self._file)
        size = os.lseek(self._file, 0, os.SEEK_END)
        start = max(0, size - _TAIL_BYTES)
        tail = os.pread(self._file, size - start, start)
        end = tail.rfind(b"\n") + 1
        if end == 0 and start > 0:
            raise self._foreign(f"no line end in its last {_TAIL_BYTES} bytes")
        lines = tail[:end].splitlines()
        last = self._last_id(lines[-1]) if lines else ""
        if not lines and not any(_plain(head).startswith(_plain(tail[: len(head)])) for head in _HEADS):
            raise self._foreign(f"it begins with {tail[:20]!r}")
        self._size, self._last = start + end, last
        os.ftruncate(self._file, self._size)
        return last

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """Append what is not held, and fsync. After a failed write the file is cut back, so that a retry starts clean."""
        if self._files is not None:
            return await self._write_routed(self._files, batch)
        if self._file is None:
            raise OperatorError(str(self.path), "the sink is closed", "open it first")
        found = os.fstat(self._file)
        if found.st_size != self._size or not found.st_nlink:
            rule = f"it was {'cut or written by another' if found.st_nlink else 'removed'} while this run writes it"
            raise OperatorError(str(self.path), rule, "restore it, then --resume")
        lines = [to_json(output, self._run, whole=True) for output in batch]
        fresh = [
            (output.id, line, nonfinite)
            for output, (line, nonfinite) in zip(batch, lines, strict=True)
            if len(line) < _LINE_BYTES_MAX and output.id > self._last
        ]
        data = memoryview(b"".join(line + b"\n" for _, line, _ in fresh))
        try:
            os.lseek(self._file, self._size, os.SEEK_SET)
            at = 0
            while at < len(data):
                at += os.write(self._file, data[at : at + _WRITE_BYTES])
                stage("release.inside")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)
        self._last = fresh[-1][0] if fresh else self._last
        self.nonfinite += sum(nonfinite for _, _, nonfinite in fresh)
        return [
            Refused(output.id, f"its line has {len(line)} bytes, a line has at most {_LINE_BYTES_MAX}")
            for output, (line, _) in zip(batch, lines, strict=True)
            if len(line) >= _LINE_BYTES_MAX
        ]

    async def _write_routed(self, files: dict[str, JsonlSink], batch: Sequence[Output]) -> list[Refused]:
        """Each record to its file. A file that fails is opened again, and says what it holds."""
        groups: dict[str, list[Output]] = {}
        for output in batch:
            path = self.router.path(event_payload(output, self._run), self.path.name)
            if path is not None:
                groups.setdefault(path, []).append(output)
        refused: list[Refused] = []
        for path, some in groups.items():
            file = files.pop(path, None) or await self._open_routed(files, path)
            try:
                refused += await file.write(some)
            except BaseException:
                await file.close()
                raise
            files[path] = file
            self.nonfinite, file.nonfinite = self.nonfinite + file.nonfinite, 0
        return sorted(refused, key=lambda one: one.id)

    async def _open_routed(self, files: dict[str, JsonlSink], path: str) -> JsonlSink:
        while len(files) >= _FILES_MAX:
            await files.pop(next(iter(files))).close()
        file = JsonlSink(self.path.parent / path)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        await file.open(self._run)
        return file

    async def close(self) -> None:
        """Close the file, or all of them."""
        while self._files:
            await self._files.popitem()[1].close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _claim(self, file: int) -> None:
        """One writer per file; nothing that is no file."""
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OperatorError(str(self.path), "a jsonl sink writes a regular file", "name another path")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OperatorError(str(self.path), "another sink writes it", "name another path") from error

    def _last_id(self, line: bytes) -> str:
        try:
            held = msgspec.json.decode(line)
            last, domain = held["id"], held["domain"]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, KeyError):
            raise self._foreign(f"its last line is {line[:60]!r}") from None
        if domain != self._run.domain:
            raise self._foreign(f"it holds outputs of the journal with domain {str(domain)[:16]}…")
        if not line.startswith(b'{"id":"%s","tick":' % str(last).encode(errors="replace")):
            raise self._foreign(f"its last line is {line[:60]!r}")
        return str(last)

    def _foreign(self, found: str) -> OperatorError:
        return OperatorError(
            str(self.path), f"a jsonl sink continues its own file, and {found}", "move it away or name another path"
        )


def _plain(head: bytes) -> bytes:
    return head.translate(_DIGITS)
