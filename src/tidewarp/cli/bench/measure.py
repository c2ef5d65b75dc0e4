"""Timing that a noisy machine does not spoil: cases take turns, and a ratio is the median over the rounds.

A machine's speed may change by half within a run. The best rounds of two cases then belong to different machines; two
rounds next to each other seldom do.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from tidewarp.clocks import WallClock

__all__ = ["Best", "Slope", "best_of", "slope"]

Prepared = Callable[[], Any]


class Best(NamedTuple):
    """The shortest round of one case in wall seconds, what the case returned then, and all its rounds in seconds."""

    seconds: float
    result: Any
    rounds: list[float]

    def faster_than(self, other: Best) -> float:
        """How many times as fast as ``other``, which took turns with it: the median over the rounds."""
        return median(theirs / ours for ours, theirs in zip(self.rounds, other.rounds, strict=True))


def best_of(cases: Mapping[str, Callable[[], Prepared]], seconds: float) -> dict[str, Best]:
    """Run the cases in turn until ``seconds`` of wall time have passed, each at least once.

    A case is called before every round to prepare it; only what it returns is timed, after a full collection.
    """
    clock = WallClock()
    started_s = clock.now()
    best: dict[str, Best] = {}
    while not best or clock.now() - started_s < seconds:
        for name, prepare in cases.items():
            work = prepare()
            gc.collect()
            before_s = clock.now()
            result = work()
            spent_s = clock.now() - before_s
            rounds = [*best[name].rounds, spent_s] if name in best else [spent_s]
            is_best = spent_s <= min(rounds)
            best[name] = Best(spent_s, result, rounds) if is_best else best[name]._replace(rounds=rounds)
    return best


class Slope(NamedTuple):
    """A line through a series: its rise per step, and the half width of its 95 % confidence interval."""

    rise: float
    margin: float


def slope(values: Sequence[float]) -> Slope:
    """Least squares over equidistant ``values`` (at least 3). The interval assumes independent errors (normal, 1.96)."""
    n = len(values)
    mean_x, mean_y = (n - 1) / 2, math.fsum(values) / n
    spread = math.fsum((x - mean_x) ** 2 for x in range(n))
    rise = math.fsum((x - mean_x) * (y - mean_y) for x, y in enumerate(values)) / spread
    residue = math.fsum((y - mean_y - rise * (x - mean_x)) ** 2 for x, y in enumerate(values))
    return Slope(rise, 1.96 * math.sqrt(residue / (n - 2) / spread))
