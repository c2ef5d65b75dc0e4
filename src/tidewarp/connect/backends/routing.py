"""Where a record goes within the folder of a sink, as a function of the user says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["PathRouter", "Router"]

PathRouter = Callable[[Mapping[str, Any]], str | None]
"""Record -> path below the sink's folder, with ``/`` between its names; None drops the record."""

_PATH_MAX, _NAME_BYTES_MAX = 1_000, 255


class Router:
    """Asks ``route``; what it drops is counted in ``dropped``, what it cannot say in ``misrouted``."""

    def __init__(self, route: PathRouter | None) -> None:
        self.dropped = self.misrouted = 0
        self._route = route

    def counts(self) -> dict[str, int]:
        """Both, by name."""
        return {"dropped": self.dropped, "misrouted": self.misrouted}

    def path(self, record: Mapping[str, Any], default: str) -> str | None:
        """None for nowhere. ``default`` where there is no route, or it raises or names no path below the folder."""
        if self._route is None:
            return default
        try:
            path = self._route(record)
        except Exception:  # anybody's code: a record that it does not know ends no run
            path = ""
        if path is None:
            self.dropped += 1
        elif not _is_below(path):
            self.misrouted += 1
            return default
        return path


def _is_below(path: object) -> bool:
    """Is it a path below a folder that no reader of the folder leaves out?"""
    if type(path) is not str or not path.isprintable() or len(path) > _PATH_MAX:
        return False
    return all(name and name[0] not in "._" and len(name.encode()) <= _NAME_BYTES_MAX for name in path.split("/"))
