"""What a source of updates is."""

from __future__ import annotations

import queue
from typing import Any

__all__ = ["BaseIngress"]


class BaseIngress:
    """Subclass it and write ``run``: it gets a thread and a loop of its own.

    Nothing that it puts is given twice: what was not journaled when the process died is lost.
    """

    async def run(self, ingress_queue: queue.Queue[Any]) -> None:
        """Put ``(path, value)`` into the queue, which is bounded, until cancelled."""
        raise NotImplementedError(f"{type(self).__name__}.run")
