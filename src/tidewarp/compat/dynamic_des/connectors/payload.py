"""An output as the mapping that was published: exactly its keys, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

__all__ = ["Form"]


class Form:
    """Makes records for a simulation that began at ``start``; without a zone there, their timestamps have none."""

    def __init__(self, start: datetime) -> None:
        self._start = start

    def record(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """``payload``: as ``connect.payload`` makes it."""
        name = "path_id" if "path_id" in payload else "key"
        return {
            "stream_type": payload["stream_type"],
            **self._stamps(payload["sim_ts"]),
            name: payload[name],
            "value": payload["value"],
        }

    def _stamps(self, now_s: float) -> dict[str, Any]:
        stamp = (self._start + timedelta(seconds=now_s)).isoformat(timespec="milliseconds")
        return {"sim_ts": round(now_s, 3), "timestamp": stamp}
