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
        """``payload``: as ``connect.payload.event_payload`` makes it; its ``stream_type`` may be left out."""
        name = "path_id" if "path_id" in payload else "key"
        head = {"stream_type": payload["stream_type"]} if "stream_type" in payload else {}
        return {
            **head,
            **self._stamps(payload["sim_ts"]),
            name: payload[name],
            "value": payload["value"],
        }

    def telemetry(self, path: str, value: Any, now_s: float) -> dict[str, Any]:
        """A record that is no output of the model."""
        return {"stream_type": "telemetry", **self._stamps(now_s), "path_id": path, "value": value}

    def _stamps(self, now_s: float) -> dict[str, Any]:
        stamp = (self._start + timedelta(seconds=now_s)).isoformat(timespec="milliseconds")
        return {"sim_ts": round(now_s, 3), "timestamp": stamp}
