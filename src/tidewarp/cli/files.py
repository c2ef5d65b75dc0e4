"""New files of commands: whole, or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["beside", "naming", "refuse_taken", "write_new"]


def refuse_taken(out: Path) -> None:
    """Raise FileExistsError if there is such a file: for who works long before he writes it."""
    if os.path.lexists(out):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(out))


def write_new(out: Path, pieces: Iterable[bytes]) -> int:
    """Write ``pieces`` to the new file ``out``; how many bytes it has. What they raise leaves no file.

    Raises:
        FileExistsError: there is such a file already. OSError: it cannot be written.
    """
    refuse_taken(out)
    aside = beside(out)
    with naming(out):
        file = aside.open("xb", buffering=0)
    size = 0
    try:
        with file:
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    with naming(out):  # not the making of a piece: what that raises is about something else
                        written = file.write(left)
                    left = left[written:]
                size += len(piece)
        with naming(out):
            aside.rename(out)
    finally:
        aside.unlink(missing_ok=True)
    return size


def beside(out: Path) -> Path:
    """The file of this process that becomes ``out`` once it is whole."""
    return out.with_name(f".{out.name}.{os.getpid()}")


@contextmanager
def naming(out: Path) -> Iterator[None]:
    """Let an OSError of the block be about ``out``: a full disk names no file, and a file beside it is nobody's wish."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(out)) from error
