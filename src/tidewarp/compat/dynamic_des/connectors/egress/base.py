"""What a destination of outputs is."""

from __future__ import annotations

import queue
from typing import Any

__all__ = ["BaseEgress", "extract_dict"]


def extract_dict(data: Any) -> Any:
    """A mapping as it is, a pydantic model as the mapping of its fields; all else as it is."""
    if isinstance(data, dict):
        return data
    dump = getattr(data, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    old = getattr(data, "dict", None)
    return old() if callable(old) else data


class BaseEgress:
    """Subclass it and write ``run``: it gets a queue, a thread and a loop of its own."""

    async def run(self, egress_queue: queue.Queue[Any]) -> None:
        """Take lists of records (see ``models.schemas``) out of the queue, until cancelled."""
        raise NotImplementedError(f"{type(self).__name__}.run")
