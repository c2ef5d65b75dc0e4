"""Drift between a physical clock and a digital one, corrected in whole nanoseconds.

All arithmetic is on integers: the product of 10**18 ns and a float is off by more than 100 ns, and a clock
that has run for years would be corrected by noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tidewarp.clocks.logical import checked_int
from tidewarp.errors import RangeError
from tidewarp.units import TICK_MAX

__all__ = ["DriftAutoCorrector", "DriftCorrection"]


@dataclass(frozen=True)
class DriftCorrection:
    """Move the digital clock of ``node_id`` by ``correction_ns`` (below 0: back), as found when it showed ``applied_at_ns``."""

    correction_ns: int
    applied_at_ns: int
    node_id: int
    reason: str


class DriftAutoCorrector:
    """Asks for a correction where two clocks are more than ``max_drift_ns`` apart.

    A correction is the drift times ``correction_gain`` (the exact value of the float), rounded towards zero but at
    least 1 ns, and never more than ``max_step_ns``. ``corrections`` keeps all of them in order.

    Raises:
        RangeError: a gain outside (0, 1], a bound that is no int of ns.
    """

    def __init__(
        self, max_drift_ns: int = 5000, correction_gain: float = 0.5, *, max_step_ns: int | None = None
    ) -> None:
        if isinstance(correction_gain, bool) or not 0.0 < correction_gain <= 1.0:
            raise RangeError(
                f"correction_gain {correction_gain!r}", "a gain is above 0 and at most 1", "above 1 a clock swings"
            )
        self.max_drift_ns = checked_int("max_drift_ns", max_drift_ns)
        self.correction_gain = correction_gain
        self.max_step_ns = None if max_step_ns is None else checked_int("max_step_ns", max_step_ns, 1)
        self.corrections: list[DriftCorrection] = []
        self._gain = Fraction(correction_gain)

    @property
    def total_corrections(self) -> int:
        """How many corrections were asked for."""
        return len(self.corrections)

    def check_and_correct(
        self, physical_time_ns: int, digital_time_ns: int, node_id: int = 0
    ) -> DriftCorrection | None:
        """The correction that these two times call for; None while they are at most ``max_drift_ns`` apart.

        Raises:
            RangeError: a time that is no int64 >= 0.
        """
        physical_time_ns = checked_int("physical_time_ns", physical_time_ns)
        digital_time_ns = checked_int("digital_time_ns", digital_time_ns)
        node_id = checked_int("node_id", node_id)
        drift_ns = physical_time_ns - digital_time_ns
        if abs(drift_ns) <= self.max_drift_ns:
            return None
        step_ns = max(1, abs(drift_ns) * self._gain.numerator // self._gain.denominator)
        step_ns = min(step_ns, self.max_step_ns or TICK_MAX)
        correction_ns = step_ns if drift_ns > 0 else -step_ns
        correction = DriftCorrection(correction_ns, digital_time_ns, node_id, f"drift={drift_ns}ns")
        self.corrections.append(correction)
        return correction
