"""The names of dynamic-des 0.12, with their published signatures, over tidewarp.

    from tidewarp.compat.dynamic_des import SimulationContext, ConsoleEgress, LocalIngress

is the only line that a program has to change. No broker's package is needed before a connector is used; then a missing
one is an error with the command that installs it.
"""

from __future__ import annotations

from typing import Final

from tidewarp.compat.dynamic_des.connectors.admin.kafka import KafkaAdminConnector
from tidewarp.compat.dynamic_des.connectors.egress.kafka import KafkaEgress
from tidewarp.compat.dynamic_des.connectors.egress.local import ConsoleEgress
from tidewarp.compat.dynamic_des.connectors.egress.postgres import PostgresEgress
from tidewarp.compat.dynamic_des.connectors.egress.redis import RedisEgress
from tidewarp.compat.dynamic_des.connectors.egress.storage import JsonlStorageEgress, ParquetStorageEgress
from tidewarp.compat.dynamic_des.connectors.ingress.kafka import KafkaIngress
from tidewarp.compat.dynamic_des.connectors.ingress.local import LocalIngress
from tidewarp.compat.dynamic_des.connectors.ingress.postgres import PostgresIngress
from tidewarp.compat.dynamic_des.connectors.ingress.redis import RedisIngress
from tidewarp.compat.dynamic_des.core.context import SimulationContext
from tidewarp.compat.dynamic_des.core.environment import DynamicRealtimeEnvironment
from tidewarp.compat.dynamic_des.core.registry import SimulationRegistry
from tidewarp.compat.dynamic_des.core.sampler import Sampler
from tidewarp.compat.dynamic_des.models.params import CapacityConfig, DistributionConfig, SimParameter
from tidewarp.compat.dynamic_des.models.schemas import EventPayload, TelemetryPayload
from tidewarp.compat.dynamic_des.resources.container import DynamicContainer
from tidewarp.compat.dynamic_des.resources.resource import DynamicResource
from tidewarp.compat.dynamic_des.resources.store import DynamicStore
from tidewarp.compat.dynamic_des.utils import time_to_seconds

__version__: Final = "0.12.0"
"""Of the published package whose names these are."""

__all__ = [
    "CapacityConfig",
    "ConsoleEgress",
    "DistributionConfig",
    "DynamicContainer",
    "DynamicRealtimeEnvironment",
    "DynamicResource",
    "DynamicStore",
    "EventPayload",
    "JsonlStorageEgress",
    "KafkaAdminConnector",
    "KafkaEgress",
    "KafkaIngress",
    "LocalIngress",
    "ParquetStorageEgress",
    "PostgresEgress",
    "PostgresIngress",
    "RedisEgress",
    "RedisIngress",
    "Sampler",
    "SimParameter",
    "SimulationContext",
    "SimulationRegistry",
    "TelemetryPayload",
    "__version__",
    "time_to_seconds",
]
