"""New files of commands: whole, or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["refuse_taken", "write_new"]


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
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    size = 0
    try:
        with aside.open("xb") as file:
            for piece in pieces:
                size += file.write(piece)
        aside.rename(out)
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(out)) from error
    finally:
        aside.unlink(missing_ok=True)
    return size
