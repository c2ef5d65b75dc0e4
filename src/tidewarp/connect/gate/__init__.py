"""The gate: the only way into a twin.

machine    the state machine: what is granted, and when
admission  messages to inputs and dead letters
state      what is known of one source
messages   what goes in and comes out
"""

from __future__ import annotations

from tidewarp.connect.gate.machine import Gate
from tidewarp.connect.gate.messages import (
    LATE_POLICIES,
    Append,
    Appended,
    Arrived,
    Asked,
    Connected,
    Ended,
    Grant,
    Instruction,
    Passed,
    Paused,
    Policy,
    Read,
    Replayed,
)

__all__ = [
    "LATE_POLICIES",
    "Append",
    "Appended",
    "Arrived",
    "Asked",
    "Connected",
    "Ended",
    "Gate",
    "Grant",
    "Instruction",
    "Passed",
    "Paused",
    "Policy",
    "Read",
    "Replayed",
]
