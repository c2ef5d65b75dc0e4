"""The gate: the only way into a twin.

machine       the state machine: what is granted, and when
sources       all sources together: what there are, and their counts
state         what is known of one source
lateness      whether it is late as a rule
admission     messages to inputs and dead letters
plain         many at once, where all of them are plain
coalescing    where of many values the last is enough
batch         what one journal record will hold
appends       what is on its way to the journal, and what is confirmed behind it
backpressure  which sources are read, and how far ahead
shedding      sources whose messages may be let go
room          where these wait
local         what the program itself sets
redrive       dead letters once more
messages      what goes in and comes out
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
