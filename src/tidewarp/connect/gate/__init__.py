"""The gate: the only way into a twin.

machine    the state machine: what is granted, and when
admission  messages to inputs and dead letters
state      what is known of one source
messages   what goes in and comes out
"""

from __future__ import annotations

from tidewarp.connect.gate.machine import Gate
from tidewarp.connect.gate.messages import (
    BEYOND_POLICIES,
    GAP_POLICIES,
    LATE_POLICIES,
    TIMES,
    Append,
    Appended,
    Arrived,
    Asked,
    Confirm,
    Connected,
    Disconnected,
    Ended,
    Grant,
    Instruction,
    Missing,
    Passed,
    Paused,
    Policy,
    Read,
    Reconnect,
    Repair,
    Replayed,
)

__all__ = [
    "BEYOND_POLICIES",
    "GAP_POLICIES",
    "LATE_POLICIES",
    "TIMES",
    "Append",
    "Appended",
    "Arrived",
    "Asked",
    "Confirm",
    "Connected",
    "Disconnected",
    "Ended",
    "Gate",
    "Grant",
    "Instruction",
    "Missing",
    "Passed",
    "Paused",
    "Policy",
    "Read",
    "Reconnect",
    "Repair",
    "Replayed",
]
