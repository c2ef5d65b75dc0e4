"""The gate: the only way into a twin.

machine    the state machine: what is granted, and when
admission  messages to inputs and dead letters
coalescing where of many values the last is enough
room       where the messages of a source that sheds wait
local      what the program itself sets
state      what is known of one source
messages   what goes in and comes out
"""

from __future__ import annotations

from tidewarp.connect.gate.local import LOCAL, LOCAL_MAX, Changes
from tidewarp.connect.gate.machine import Gate
from tidewarp.connect.gate.messages import (
    BEYOND_POLICIES,
    FULL_POLICIES,
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
    Local,
    Missing,
    Passed,
    Paused,
    Policy,
    Read,
    Reconnect,
    Repair,
    Replayed,
    Settled,
    Shed,
)
from tidewarp.connect.gate.state import buried

__all__ = [
    "BEYOND_POLICIES",
    "FULL_POLICIES",
    "GAP_POLICIES",
    "LATE_POLICIES",
    "LOCAL",
    "LOCAL_MAX",
    "TIMES",
    "Append",
    "Appended",
    "Arrived",
    "Asked",
    "Changes",
    "Confirm",
    "Connected",
    "Disconnected",
    "Ended",
    "Gate",
    "Grant",
    "Instruction",
    "Local",
    "Missing",
    "Passed",
    "Paused",
    "Policy",
    "Read",
    "Reconnect",
    "Repair",
    "Replayed",
    "Settled",
    "Shed",
    "buried",
]
