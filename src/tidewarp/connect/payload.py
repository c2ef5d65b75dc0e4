"""The form in which an output leaves: one mapping, the same for every sink.

``{id, tick, sim_ts, timestamp, stream_type, key, value, cause, root, domain}``: ``sim_ts`` is float seconds of
virtual time, ``timestamp`` epoch + tick as ISO 8601 in UTC with milliseconds, ``stream_type`` "event" or "telemetry";
of telemetry the key is called ``path_id``. JSON has no NaN and no infinity: they become null, and how many did is
returned.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from tidewarp.codec import unpack
from tidewarp.connect.contract import Output, RunIdentity
from tidewarp.units import format_instant, in_seconds

__all__ = ["event_payload", "nonfinite", "to_json"]

_encode = msgspec.json.Encoder().encode


def event_payload(output: Output, run: RunIdentity) -> dict[str, Any]:
    """The mapping of one output."""
    return {
        "id": output.id,
        "tick": output.tick,
        "sim_ts": in_seconds(output.tick),
        "timestamp": format_instant(run.epoch_ns + output.tick),
        "stream_type": output.stream,
        "path_id" if output.stream == "telemetry" else "key": output.key,
        "value": unpack(output.value),
        "cause": output.cause,
        "root": output.root,
        "domain": run.domain,
    }


def to_json(output: Output, run: RunIdentity) -> tuple[bytes, int]:
    """One line of JSON without its line end, and how many non-finite numbers became null."""
    payload = event_payload(output, run)
    return _encode(payload), nonfinite(payload["value"])


def nonfinite(value: Any) -> int:
    """How many numbers of ``value`` JSON has no form for."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return sum(map(nonfinite, value.values()))
    if isinstance(value, list):
        return sum(map(nonfinite, value))
    return 0
