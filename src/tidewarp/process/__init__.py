"""The SimPy process layer: a plain SimPy model runs on it, a host can pause, feed and repeat it.

    environment   Environment: slices, inputs between instants, outputs, random streams, state
    registry      SimulationRegistry, DynamicValue: typed values at paths that processes wait on
    causality     Causality: the cause and the root of what runs now
    sampler       Sampler: delays from a DistributionConfig, one uniform each
    changes       Change, Changes: a reader that sees every change of a value
    outputs       Outputs: what the model published, encoded and numbered
    rules         Rule: what a path accepts, the table of casts
    parameters    SimParameter and its parts; live: parameters at paths, in step with updates; capacity: those of a capacity
    resources     DynamicResource, Request, Breakdown: units that become more, fewer or fail while work is in progress
    preemption    DynamicPreemptiveResource: units that an important job takes from a less important one
    usage         Statistics: how much a resource was used, in ticks
    containers    DynamicContainer, and stores DynamicStore, on the queues of buffers
    context       SimulationContext: a line declared piece by piece; tasks: its jobs; topology: changes of it from outside

``environment`` uses ``outputs`` and ``registry``, which uses ``rules``, ``changes``, ``until`` and ``live``; resources, containers and
stores stand above them, ``context`` above all. No clock of the host, no I/O.
"""

from __future__ import annotations

from tidewarp.process.changes import Change, Changes
from tidewarp.process.containers import DynamicContainer
from tidewarp.process.context import SimulationContext
from tidewarp.process.distributions import DistributionConfig
from tidewarp.process.environment import INSTANT_EVENTS_MAX, Environment
from tidewarp.process.parameters import BreakdownConfig, CapacityConfig, SimParameter
from tidewarp.process.preemption import DynamicPreemptiveResource
from tidewarp.process.registry import DynamicValue, SimulationRegistry
from tidewarp.process.resources import Breakdown, DynamicResource, Request
from tidewarp.process.rules import Rule
from tidewarp.process.sampler import Sampler
from tidewarp.process.stores import DynamicStore
from tidewarp.process.tasks import Task
from tidewarp.process.usage import Statistics

__all__ = [
    "INSTANT_EVENTS_MAX",
    "Breakdown",
    "BreakdownConfig",
    "CapacityConfig",
    "Change",
    "Changes",
    "DistributionConfig",
    "DynamicContainer",
    "DynamicPreemptiveResource",
    "DynamicResource",
    "DynamicStore",
    "DynamicValue",
    "Environment",
    "Request",
    "Rule",
    "Sampler",
    "SimParameter",
    "SimulationContext",
    "SimulationRegistry",
    "Statistics",
    "Task",
]
