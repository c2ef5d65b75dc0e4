"""The SimPy process layer: a plain SimPy model runs on it, a host can pause, feed and repeat it.

    environment   Environment: slices, inputs between instants, outputs, random streams, state
    registry      SimulationRegistry, DynamicValue: typed values at paths that processes wait on
    changes       Change, Changes: a reader that sees every change of a value
    outputs       Outputs: what the model published, encoded and numbered
    rules         Rule: what a path accepts, the table of casts
    resources     DynamicResource, Request: capacity that changes while work is in progress

``environment`` uses ``outputs`` and ``registry``, which uses ``rules`` and ``changes``; ``resources`` stand above them. No clock of the host, no I/O.
"""

from __future__ import annotations

from tidewarp.process.changes import Change, Changes
from tidewarp.process.environment import INSTANT_EVENTS_MAX, Environment
from tidewarp.process.registry import DynamicValue, SimulationRegistry
from tidewarp.process.resources import DynamicResource, Request
from tidewarp.process.rules import Rule

__all__ = [
    "INSTANT_EVENTS_MAX",
    "Change",
    "Changes",
    "DynamicResource",
    "DynamicValue",
    "Environment",
    "Request",
    "Rule",
    "SimulationRegistry",
]
