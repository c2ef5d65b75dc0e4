"""The form in which an output leaves: one mapping, the same for every sink.

``{id, tick, sim_ts, timestamp, stream_type, key, value, cause, root, domain}``: ``sim_ts`` is float seconds of
virtual time, ``timestamp`` epoch + tick as ISO 8601 in UTC with milliseconds, ``stream_type`` "event" or "telemetry";
of telemetry the key is called ``path_id``. JSON has no NaN and no infinity: they become null, and how many did is
returned.

Of a sink with ``release="early"`` it has ``provisional: true`` besides, and ``output``, the id of the output with ``~`` and a
number; or ``retracts``, such an id that is not true any more; or ``retracts_from``, a tick from which on none is, of its stream.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from tidewarp.codec import unpack
from tidewarp.connect.contract import Observation, Output, RunIdentity
from tidewarp.units import format_instant, in_seconds

__all__ = ["event_payload", "nonfinite", "observation_payload", "to_json", "whole_payload"]

_encode = msgspec.json.Encoder().encode


def event_payload(output: Output, run: RunIdentity) -> dict[str, Any]:
    """The mapping of one output, in the form of the run."""
    payload = _payload(output, run)
    return payload if run.form is None else dict(run.form(payload))


def whole_payload(output: Output, run: RunIdentity) -> dict[str, Any]:
    """Likewise with all its fields: a form changes them, and leaves none out. For sinks that read what they hold."""
    payload = _payload(output, run)
    return (
        payload if run.form is None else {**payload, **run.form(dict(payload)), "id": output.id, "domain": run.domain}
    )


def observation_payload(observation: Observation, run: RunIdentity) -> dict[str, Any]:
    """The mapping of one observation, in the form of the run: as of telemetry, without what only an output has."""
    payload = {
        "sim_ts": in_seconds(observation.tick),
        "timestamp": format_instant(run.epoch_ns + observation.tick),
        "stream_type": "telemetry",
        "path_id": observation.path,
        "value": observation.value,
        "domain": run.domain,
    }
    return payload if run.form is None else dict(run.form(payload))


def _payload(output: Output, run: RunIdentity) -> dict[str, Any]:
    payload = {
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
    if output.retracts:
        payload |= {"retracts": output.provisional} if output.provisional else {"retracts_from": output.tick}
    elif output.provisional:
        payload |= {"output": output.provisional}
    return payload | {"provisional": True} if output.provisional or output.retracts else payload


def to_json(output: Output, run: RunIdentity, *, whole: bool = False) -> tuple[bytes, int]:
    """One line of JSON (of all fields, if ``whole``) without its line end, and how many non-finite numbers became null."""
    payload = whole_payload(output, run) if whole else event_payload(output, run)
    return _encode(payload), nonfinite(payload.get("value"))


def nonfinite(value: Any) -> int:
    """How many numbers of ``value`` JSON has no form for."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return sum(map(nonfinite, value.values()))
    if isinstance(value, list):
        return sum(map(nonfinite, value))
    return 0
