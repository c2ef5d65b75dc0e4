"""How far the digital twin is from the physical thing, as one number."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidewarp.clocks.logical import checked_int
from tidewarp.errors import RangeError
from tidewarp.units import TICK_MIN

__all__ = ["DivergenceMetric", "checked_number"]


def checked_number(what: str, value: Any, least: float = -math.inf, *, finite: bool = True) -> float:
    """``value`` as a float of at least ``least``; NumPy's numbers are welcome, bools and NaN are not, nor infinity if ``finite``.

    Raises:
        RangeError: anything else; ``what`` names it.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.nan
        if number >= least and (math.isfinite(number) or not (finite or math.isnan(number))):
            return number
    kind = "a finite number" if finite else "a number"
    low = "" if least == -math.inf else f" from {least:g} on"
    raise RangeError(f"{what} {value!r:.80}", f"it is {kind}{low}", f"correct {what}")


@dataclass
class DivergenceMetric:
    """The parts of a divergence; rates and identity are relative numbers, the offset is in ns.

    ``causal_violations`` are pairs that ``TimeWarpEngine.verify_causal_order`` found. A rollback is no violation: it
    is how a late event is put where it belongs.

    Raises:
        RangeError: a part that is no finite number, a rate or count below 0, a tolerance that is no number from 0 on.
    """

    spike_rate_divergence: float = 0.0
    timing_offset_ns: int = 0
    identity_drift: float = 0.0
    causal_violations: int = 0
    tolerance: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        self.spike_rate_divergence = checked_number("spike_rate_divergence", self.spike_rate_divergence, 0)
        self.timing_offset_ns = checked_int("timing_offset_ns", self.timing_offset_ns, TICK_MIN)
        self.identity_drift = checked_number("identity_drift", self.identity_drift, 0)
        self.causal_violations = checked_int("causal_violations", self.causal_violations)
        self.tolerance = checked_number("tolerance", self.tolerance, 0, finite=False)

    @property
    def total_divergence(self) -> float:
        """Rate + offset in ms + identity + 0.1 for each violation."""
        offset_ms = abs(self.timing_offset_ns) / 1e6
        return self.spike_rate_divergence + offset_ms + self.identity_drift + 0.1 * self.causal_violations

    @property
    def within_tolerance(self) -> bool:
        """The total is below ``tolerance``."""
        return self.total_divergence < self.tolerance
