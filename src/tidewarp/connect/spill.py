"""Outputs that wait in a file because their sink is slow or down: a queue on disk, first in, first out.

Nothing of it has to survive the process, since the journal can make every output again: it is never synced, and
removed at the end. A frame is the length of its body (4 bytes, big-endian) and the body, the packed fields of one Output.
Once what was taken is half of the file, and much, what waits moves to its beginning: a slow sink makes no endless file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from tidewarp.codec import pack, unpack
from tidewarp.connect.contract import Output
from tidewarp.errors import InternalError, OperatorError

__all__ = ["SpillFile"]

_LENGTH = struct.Struct(">I")
_TAKEN_BYTES = 16 << 20  # that a file may hold of what waits no longer, if that is less than half of it
_COPY_BYTES = 1 << 20


class SpillFile:
    """The queue of one sink, at ``path``. Not safe for several threads at once.

    Raises OperatorError where the file cannot be made, OSError where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._start = 0  # of what was not taken yet
        self._end = 0

    def append(self, outputs: Sequence[Output]) -> None:
        """Put ``outputs`` behind what waits."""
        file = self._file or self._create()
        bodies = [pack([*output]) for output in outputs]
        file.seek(self._end)
        file.write(b"".join([_LENGTH.pack(len(body)) + body for body in bodies]))
        file.flush()
        self._end = file.tell()

    def take(self, count: int) -> list[Output]:
        """The first ``count`` outputs, which wait no longer."""
        if self._file is None:
            raise InternalError(str(self.path), "nothing was put into it", "report this")
        self._file.seek(self._start)
        outputs = []
        for _ in range(count):
            (length,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
            outputs.append(Output(*unpack(self._file.read(length))))
        self._start = self._file.tell()
        if self._start == self._end:
            self._start = self._end = 0
            self._file.truncate(0)
        elif self._start >= max(_TAKEN_BYTES, self._end - self._start):
            self._move_up(self._file)
        return outputs

    def _move_up(self, file: BinaryIO) -> None:
        """Put what waits at the beginning of the file; it is no longer than what lies before it."""
        size = self._end - self._start
        for at in range(0, size, _COPY_BYTES):
            file.seek(self._start + at)
            part = file.read(min(_COPY_BYTES, size - at))
            file.seek(at)
            file.write(part)
        file.truncate(size)
        self._start, self._end = 0, size

    def close(self) -> None:
        """Remove the file. Safe to call twice."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
            self.path.unlink(missing_ok=True)

    def _create(self) -> BinaryIO:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            action = "name another folder in TIDEWARP_SPILL_DIR"
            raise OperatorError(str(self.path), (error.strerror or str(error)).lower(), action) from error
        self._file = os.fdopen(fd, "r+b")
        return self._file
