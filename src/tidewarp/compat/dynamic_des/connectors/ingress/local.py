"""A list of updates at given times."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

from tidewarp.compat.dynamic_des.connectors.ingress.base import BaseIngress
from tidewarp.errors import OperatorError

__all__ = ["LocalIngress"]


class LocalIngress(BaseIngress):
    """``(seconds, path, value)`` each. In a simulation the seconds are those of virtual time, at every factor.

    Raises:
        OperatorError: an entry is something else.
    """

    def __init__(self, schedule: Iterable[tuple[float, str, Any]]) -> None:
        entries: list[Any] = list(schedule)
        for entry in entries:
            if not isinstance(entry, tuple | list) or len(entry) != 3 or type(entry[1]) is not str:
                rule = "it is (seconds, path, value), its path is text"
                raise OperatorError(f"entry {entry!r:.80} of LocalIngress", rule, "correct it")
        self.schedule = sorted(entries, key=lambda entry: entry[0])

    async def run(self, ingress_queue: queue.Queue[Any]) -> None:
        """Outside of a simulation: put each update when its seconds have passed by the wall."""
        last = 0.0
        for seconds, path, value in self.schedule:
            await asyncio.sleep(seconds - last)
            ingress_queue.put((path, value))
            last = seconds
