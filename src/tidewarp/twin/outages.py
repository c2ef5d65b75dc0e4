"""What the log says of connectors that cannot be reached: one line when one goes down, one when it is back."""

from __future__ import annotations

import logging
import math
from typing import Final

__all__ = ["Outages"]

_STEADY_S: Final = 1.0  # so long it has to be open: a target may be there, and fail at the first read or write
_REASON_MAX: Final = 400  # characters of a line
_LOG = logging.getLogger("tidewarp.twin")


class Outages:
    """Of sources and sinks, by what a person calls them: "source x". Host times in seconds."""

    def __init__(self) -> None:
        self._down: dict[str, float] = {}  # since when
        self._open: dict[str, float] = {}  # of these: since when it is open again

    @property
    def due_s(self) -> float:
        """When :meth:`look` may have something to say; inf if nothing is open again."""
        return min(self._open.values(), default=math.inf) + _STEADY_S

    def down(self, who: str, reason: str, now_s: float) -> None:
        """It could not be reached, once more or for the first time."""
        self._open.pop(who, None)
        if who not in self._down:
            self._down[who] = now_s
            shown = reason.encode("unicode_escape").decode()[:_REASON_MAX]
            _LOG.warning("%s is down: %s; it is tried again until it answers", who, shown)

    def opened(self, who: str, now_s: float) -> None:
        """It could be opened."""
        if who in self._down:
            self._open.setdefault(who, now_s)

    def look(self, now_s: float) -> None:
        """Tell which are back; at the end of a run, when ``now_s`` is inf, all that are open."""
        for who, open_s in [*self._open.items()]:
            if open_s + _STEADY_S <= now_s:
                _LOG.info("%s is back after %.1f s", who, open_s - self._down.pop(who))
                del self._open[who]
