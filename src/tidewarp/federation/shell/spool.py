"""Temporary files for artifacts on their way: in memory while they are small."""

from __future__ import annotations

import tempfile
from typing import BinaryIO, cast

__all__ = ["new_spool"]

_IN_MEMORY_BYTES = 1 << 20


def new_spool() -> BinaryIO:
    """A file without a name, which is gone when it is closed."""
    return cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES))
