"""Outputs that wait in a file because their sink is slow or down: a queue on disk, first in, first out.

Nothing of it has to survive the process, since the journal can make every output again: it is never synced, and
removed at the end. A frame is the length of its body (4 bytes, big-endian) and the body, the packed fields of one Output.
Once what was taken is half of the file, and much, what waits moves to its beginning: a slow sink makes no endless file.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from tidewarp.codec import pack, unpack
from tidewarp.connect.contract import Output
from tidewarp.errors import OperatorError

__all__ = ["SpillFile"]

_LENGTH = struct.Struct(">I")
_TAKEN_BYTES = 16 << 20  # that a file may hold of what waits no longer, if that is less than half of it
_COPY_BYTES = 1 << 20
_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)  # when a file is made


class SpillFile:
    """The queue of one sink, at ``path``. Not safe for several threads at once.

    What fails changes nothing: what waits can still be taken. Raises OperatorError where the file cannot be made, OSError
    where it cannot be written or read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._start = 0  # of what was not taken yet
        self._end = 0

    def append(self, outputs: Sequence[Output]) -> None:
        """Put ``outputs`` behind what waits."""
        file = self._create() if self._file is None else self._file
        bodies = [pack([*output]) for output in outputs]
        data = b"".join([_LENGTH.pack(len(body)) + body for body in bodies])
        _write(file, self._end, data)
        self._end += len(data)

    def take(self, count: int) -> list[Output]:
        """The first ``count`` outputs, or as many as there are; they wait no longer."""
        if self._file is None:  # it could not be made
            return []
        outputs: list[Output] = []
        at = self._start
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(at)
            while len(outputs) < count and at < self._end:
                (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
                outputs.append(Output(*unpack(file.read(length))))
                at += _LENGTH.size + length
        self._start = at
        if self._start == self._end:
            self._start = self._end = 0
            os.ftruncate(self._file, 0)
        elif self._start >= max(_TAKEN_BYTES, self._end - self._start):
            self._move_up(self._file)
        return outputs

    def _move_up(self, file: int) -> None:
        """Put what waits at the beginning of the file; it is no longer than what lies before it."""
        size = self._end - self._start
        for at in range(0, size, _COPY_BYTES):
            _write(file, at, os.pread(file, min(_COPY_BYTES, size - at), self._start + at))
        os.ftruncate(file, size)
        self._start, self._end = 0, size

    def close(self) -> None:
        """Remove the file. Safe to call twice."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
            self.path.unlink(missing_ok=True)

    def _create(self) -> int:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in _MAY_PASS:
                raise
            action = "name another folder in TIDEWARP_SPILL_DIR"
            raise OperatorError(str(self.path), (error.strerror or str(error)).lower(), action) from error
        return self._file


def _write(file: int, at: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
