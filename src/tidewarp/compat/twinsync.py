"""The names of ``sc_neurocore.digital_twin.twinsync``, with their published signatures, over tidewarp's kernel.

    from tidewarp.compat.twinsync import TwinSession, NullMessageOptimizer, DeltaCheckpoint

is the only line that a program has to change. What behaves differently, and why, is said in ``docs/reference/twinsync.md``.
"""

from __future__ import annotations

from tidewarp.clocks.drift import DriftAutoCorrector, DriftCorrection
from tidewarp.clocks.logical import LamportClock, VectorClock
from tidewarp.kernel.audit import CheckpointAuditChain, ReplayVerifier
from tidewarp.kernel.flow import BackpressureController
from tidewarp.kernel.lookahead import LookaheadConfig, NullMessageOptimizer
from tidewarp.kernel.node_checkpoints import (
    AdaptiveCheckpointInterval,
    Checkpoint,
    CheckpointManager,
    DeltaCheckpoint,
)
from tidewarp.kernel.nodes import EventType, NodeState, SyncMode, TimeWarpEngine, TwinEvent
from tidewarp.kernel.topology import MPIRankMapping, MPITopology
from tidewarp.twin.divergence import DivergenceMetric
from tidewarp.twin.sync import SessionSnapshot, TwinEndpoint, TwinFederation, TwinSession

__all__ = [
    "AdaptiveCheckpointInterval",
    "BackpressureController",
    "Checkpoint",
    "CheckpointAuditChain",
    "CheckpointManager",
    "DeltaCheckpoint",
    "DivergenceMetric",
    "DriftAutoCorrector",
    "DriftCorrection",
    "EventType",
    "LamportClock",
    "LookaheadConfig",
    "MPIRankMapping",
    "MPITopology",
    "NodeState",
    "NullMessageOptimizer",
    "ReplayVerifier",
    "SessionSnapshot",
    "SyncMode",
    "TimeWarpEngine",
    "TwinEndpoint",
    "TwinEvent",
    "TwinFederation",
    "TwinSession",
    "VectorClock",
]
