"""Timing that a noisy machine does not spoil: cases take turns, and a ratio is the median over the rounds.

A machine's speed may change by half within a run. The best rounds of two cases then belong to different machines; two
rounds next to each other seldom do.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from tidewarp.clocks import WallClock

__all__ = ["Best", "Dropped", "Elsewhere", "Slope", "best_of", "percentile", "slope"]

Prepared = Callable[[], Any]

_CORRELATION_MAX = 0.99  # of neighbouring errors: beyond it, a series says nothing about its slope


class Dropped(Exception):
    """Work raises it that cannot be finished: its case has no rounds, and the others go on."""


class Elsewhere(NamedTuple):
    """Work returns it that was timed where it was done: wall seconds without what it took to ask for it, and the result."""

    seconds: float
    result: Any


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

    A case is called before every round to prepare it; only what it returns is timed, after a full collection. One that
    raises Dropped is left out of the result.
    """
    clock = WallClock()
    started_s = clock.now()
    left = dict(cases)
    best: dict[str, Best] = {}
    while not best or clock.now() - started_s < seconds:
        for name, prepare in cases.items():
            if name not in left:
                continue
            work = prepare()
            gc.collect()
            before_s = clock.now()
            try:
                result = work()
            except Dropped:
                del left[name]
                best.pop(name, None)
                continue
            spent_s = clock.now() - before_s
            if isinstance(result, Elsewhere):
                spent_s, result = result
            rounds = [*best[name].rounds, spent_s] if name in best else [spent_s]
            is_best = spent_s <= min(rounds)
            best[name] = Best(spent_s, result, rounds) if is_best else best[name]._replace(rounds=rounds)
    return best


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of ``values`` (at least one) that ``percent`` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


class Slope(NamedTuple):
    """A line through a series: its rise per step, and the half width of its 95 % confidence interval."""

    rise: float
    margin: float


def slope(values: Sequence[float]) -> Slope:
    """Least squares over equidistant ``values`` (at least 3), the interval widened for errors that resemble their neighbours.

    The interval is the normal one (1.96) for independent errors, times sqrt((1 + r) / (1 - r)) where r is the correlation
    of neighbouring residuals, as for a first-order autoregression: memory grows in steps, and its samples do not
    scatter each for itself.
    """
    n = len(values)
    mean_x, mean_y = (n - 1) / 2, math.fsum(values) / n
    spread = math.fsum((x - mean_x) ** 2 for x in range(n))
    rise = math.fsum((x - mean_x) * (y - mean_y) for x, y in enumerate(values)) / spread
    residues = [y - mean_y - rise * (x - mean_x) for x, y in enumerate(values)]
    squares = math.fsum(residue**2 for residue in residues)
    margin = 1.96 * math.sqrt(squares / (n - 2) / spread)
    products = math.fsum(one * other for one, other in itertools.pairwise(residues))
    r = min(max(products / squares, 0.0), _CORRELATION_MAX) if squares else 0.0
    return Slope(rise, margin * math.sqrt((1 + r) / (1 - r)))
