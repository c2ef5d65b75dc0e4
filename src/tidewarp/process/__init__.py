"""The SimPy process layer: a plain SimPy model runs on it, a host can pause, feed and repeat it.

    environment   Environment: slices, inputs between instants, outputs, random streams, state
    registry      SimulationRegistry, DynamicValue, Change: typed values at paths that processes wait on
    outputs       Outputs: what the model published, encoded and numbered
    rules         Rule: what a path accepts, the table of casts
    resources     DynamicResource, Request: capacity that changes while work is in progress

``environment`` uses ``outputs`` and ``registry``, which uses ``rules``; ``resources`` stand above them. No clock of the host, no I/O.
"""

from __future__ import annotations

from tidewarp.process.environment import INSTANT_EVENTS_MAX, Environment
from tidewarp.process.registry import Change, DynamicValue, SimulationRegistry
from tidewarp.process.resources import DynamicResource, Request
from tidewarp.process.rules import Rule

__all__ = [
    "INSTANT_EVENTS_MAX",
    "Change",
    "DynamicResource",
    "DynamicValue",
    "Environment",
    "Request",
    "Rule",
    "SimulationRegistry",
]
