"""How far the digital twin is from the physical thing, as one number."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["DivergenceMetric"]


@dataclass
class DivergenceMetric:
    """The parts of a divergence; rates and identity are relative numbers, the offset is in ns.

    ``causal_violations`` are pairs that ``TimeWarpEngine.verify_causal_order`` found. A rollback is no violation: it
    is how a late event is put where it belongs.
    """

    spike_rate_divergence: float = 0.0
    timing_offset_ns: int = 0
    identity_drift: float = 0.0
    causal_violations: int = 0
    tolerance: float = field(default=1.0, kw_only=True)

    @property
    def total_divergence(self) -> float:
        """Rate + offset in ms + identity + 0.1 for each violation."""
        offset_ms = abs(self.timing_offset_ns) / 1e6
        return self.spike_rate_divergence + offset_ms + self.identity_drift + 0.1 * self.causal_violations

    @property
    def within_tolerance(self) -> bool:
        """The total is below ``tolerance``."""
        return self.total_divergence < self.tolerance
