"""What leaves a simulation, as pydantic models: for tests and for whoever reads the streams."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

__all__ = ["BaseStreamPayload", "EventPayload", "TelemetryPayload"]


class BaseStreamPayload(BaseModel):
    """What both streams have: ``sim_ts`` in seconds of virtual time, ``timestamp`` as ISO 8601."""

    stream_type: Literal["telemetry", "event"]
    sim_ts: float
    timestamp: str


class TelemetryPayload(BaseStreamPayload):
    """A measurement of ``path_id``."""

    stream_type: Literal["telemetry"] = "telemetry"
    path_id: str
    value: Any


class EventPayload(BaseStreamPayload):
    """An event; those of one ``key`` keep their order in a broker."""

    stream_type: Literal["event"] = "event"
    key: str
    value: Any
