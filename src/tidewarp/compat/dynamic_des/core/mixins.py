"""What the environment is mixed of: a registry, connectors that read, connectors that write."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any, Final

from tidewarp.compat.dynamic_des.core.registry import SimulationRegistry

__all__ = ["INGRESS_MAX", "EgressMixIn", "IngressMixIn", "RegistryMixIn"]

INGRESS_MAX: Final = 65_536
"""Updates of the user's own connectors that may wait."""


class RegistryMixIn:
    """A registry of the environment's own."""

    registry: SimulationRegistry

    def setup_registry(self) -> None:
        """Make the registry anew."""
        self.registry = SimulationRegistry(self)  # type: ignore[arg-type]  # mixed into an environment


class IngressMixIn:
    """Where updates come from. All waiting ones of the user's own connectors are in ``ingress_queue``, which is bounded."""

    ingress_queue: queue.Queue[Any]
    ingress_providers: Sequence[Any]

    def setup_ingress(self, providers: Sequence[Any]) -> None:
        """Read from ``providers`` when the simulation runs."""
        self.ingress_providers = list(providers)

    def teardown_ingress(self) -> None:
        """See ``teardown``."""
        self._finish()

    def _finish(self) -> None: ...


class EgressMixIn:
    """Where outputs go. Every provider has a queue of its own; ``egress_queue`` is that of the first."""

    egress_queue: queue.Queue[Any]
    egress_providers: Sequence[Any]
    egress_batch_size: int = 500
    egress_flush_interval: float = 1.0
    egress_lag_monitor_interval: float = 1.0
    egress_drain_stall_seconds: float = 30.0

    def setup_egress(
        self,
        providers: Sequence[Any],
        batch_size: int = 500,
        flush_interval: float = 1.0,
        lag_monitor_interval: float | None = 1.0,
        max_queued_batches: int = 2000,
        drain_stall_seconds: float = 30.0,
    ) -> None:
        """Send outputs to ``providers`` when the simulation runs.

        Args:
            providers: connectors of this package, or the user's own.
            batch_size: records in a list, at most.
            flush_interval: how long records may wait for a list to fill, wall seconds.
            lag_monitor_interval: wall seconds between two measurements of the lag and the other paths of "system."; None or
                0: none.
            max_queued_batches: lists in the queue of one provider, at most.
            drain_stall_seconds: how long the end of a run, and ``teardown``, wait for a provider that takes nothing, wall
                seconds.
        """
        self.egress_providers = list(providers)
        self.egress_batch_size, self.egress_flush_interval = batch_size, flush_interval
        self.egress_lag_monitor_interval = lag_monitor_interval or 0.0
        self.egress_drain_stall_seconds = drain_stall_seconds
        self._queues = [queue.Queue[Any](max_queued_batches) for _ in self.egress_providers]
        self.egress_queue = self._queues[0] if self._queues else queue.Queue(max_queued_batches)

    def teardown_egress(self) -> None:
        """See ``teardown``."""
        self._finish()

    def _finish(self) -> None: ...
