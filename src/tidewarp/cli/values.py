"""Values as JSON can say them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from tidewarp.errors import InternalError

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """``value`` in JSON's types: NaN and infinities are null, bytes hexadecimal, paths text, tuples arrays.

    Text that is no Unicode (a file name of stray bytes) has these escaped. Raises InternalError for any other type.
    """
    match value:
        case None | bool() | int():
            return value
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {plain(str(key)): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case bytes():
            return value.hex()
        case PurePath():
            return plain(str(value))
    raise InternalError(f"a value of type {type(value).__name__}", "has no form in JSON", "please report it")
