"""What the program itself sets, ``twin.apply``: queued while a run is under way, applied at once between two runs.

It goes through the gate as source "local" and is journaled before it is applied, so a replay needs no program.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tidewarp.codec import unpack
from tidewarp.connect.contract import Output
from tidewarp.connect.gate import LOCAL_MAX, Changes
from tidewarp.errors import ModelError, OperatorError, RuleViolation

__all__ = ["MISSING", "LocalQueue", "changes_of", "raise_refusal"]

MISSING: Final[Any] = object()
_BATCH = 512  # of one turn of the host


class LocalQueue:
    """Updates on their way from any thread to the host. Bounded: with those that the clock has not come to, LOCAL_MAX."""

    def __init__(self) -> None:
        self._updates: deque[tuple[int, Changes]] = deque()
        self._lock = threading.Lock()

    def put(self, present: int, changes: Changes, waiting: int) -> bool:
        """Add one that comes at tick ``present``, behind ``waiting`` at the gate; is it the first? Raises OperatorError."""
        with self._lock:
            count = len(self._updates)
            if count + waiting >= LOCAL_MAX:
                rule = f"its queue holds {LOCAL_MAX:,} updates that the clock has not come to"
                raise OperatorError("twin.apply()", rule, "set less often, or let the run go on")
            self._updates.append((present, changes))
        return count == 0

    def __bool__(self) -> bool:
        return bool(self._updates)

    def take(self) -> list[tuple[int, Changes]]:
        """The next few, in order; all are taken when it gives none."""
        with self._lock:
            return [self._updates.popleft() for _ in range(min(_BATCH, len(self._updates)))]


def changes_of(path: str | Mapping[str, Any], value: Any) -> list[tuple[str, Any]]:
    """The arguments of ``twin.apply`` as (path, value) each. Raises ModelError."""
    if isinstance(path, Mapping) and value is MISSING:
        return list(path.items())
    if isinstance(path, Mapping) or value is MISSING:
        raise ModelError("twin.apply()", "it takes a path and a value, or a mapping of them", "give these")
    return [(path, value)]


def raise_refusal(outputs: Sequence[Output], offset: int) -> None:
    """Raise RuleViolation if one of the outputs says that the state of the moment forbade this input of the program."""
    for output in outputs:
        if output.key == "system.input.refused":
            told = unpack(output.value)
            if (told["rank"], told["offset"]) == (0, offset):
                rule = f"the state of the moment forbids it: {told['reason']}"
                raise RuleViolation(f"update of {told['path']}", rule, "look at what it depends on, then set it again")
