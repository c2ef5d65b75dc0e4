"""Sensors: recorded spikes that reach the network from outside, in time or late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tidewarp.errors import OperatorError
from tidewarp.seeds import Stream
from tidewarp.worlds.spiking.lif import Pulse

if TYPE_CHECKING:
    from tidewarp.kernel import Engine, Source

PACE_LEAST = 1_000_000  # ticks, 1 ms

__all__ = ["Recorded", "hand_over", "recording"]


class Recorded(NamedTuple):
    """A sensor's spike into a neuron of a population at a tick."""

    tick: int
    lp: int
    neuron: int


def recording(populations: int, neurons: int, rate_hz: float, step: int, until: int, seed: int) -> list[Recorded]:
    """Spikes of one sensor for each population up to ``until`` (ticks), ``rate_hz`` a second each, in order of time.

    They lie on boundaries of steps, as an electrode's samples do; which neuron a spike goes to is drawn anew each time.

    Raises:
        OperatorError: a rate below 0 or not finite.
    """
    if not 0.0 <= rate_hz <= 1e6:
        raise OperatorError(f"sensor rate {rate_hz!r}", "it is 0 to 1e6 Hz", "choose another rate")
    made = []
    for lp in range(populations if rate_hz > 0.0 else 0):
        draws = Stream(seed, f"sensor.{lp}")
        at_s = draws.exponential(1.0 / rate_hz)
        while (tick := -(-int(at_s * 1e9) // step) * step) <= until:
            made.append(Recorded(tick, lp, draws.below(neurons)))
            at_s += draws.exponential(1.0 / rate_hz)
    return sorted(made)


def hand_over(
    engine: Engine, source: Source, spikes: Sequence[Recorded], until: int, *, late: int = 0, slice: int = 100_000_000
) -> int:
    """Advance ``engine`` to ``until``, giving it each spike ``late`` ticks of virtual time after its own; how many came late.

    The source's watermark stays that far back. So an optimistic engine runs ahead and repairs, and the others wait;
    the digest is that of a run whose spikes were in time. ``slice`` is how far the engine goes between two deliveries
    where none is late. ``spikes`` are in order of time; those beyond ``until`` are not given.

    Raises:
        OperatorError: ``late`` below 0.
    """
    if late < 0:
        raise OperatorError(f"late {late}", "nothing comes before its time", "give 0 or more ticks")
    pace = max(late // 2, PACE_LEAST) if late else slice
    targets = [*range(pace, until, pace), until]
    stops = [(target, target + 1 - late) for target in targets] + [(until, until + 1)] * (late > 0)
    reached, given, late_count = -1, 0, 0
    for target, known in stops:
        first = given
        while given < len(spikes) and spikes[given].tick < known:
            given += 1
        late_count += _inject(engine, source, spikes[first:given], first, reached)
        engine.watermark(source, max(known, 0))
        engine.advance(target)
        reached = target
    return late_count


def _inject(engine: Engine, source: Source, spikes: Sequence[Recorded], first: int, reached: int) -> int:
    """Give these spikes, numbered from ``first``; how many lie at or below ``reached``."""
    late = 0
    for seq, spike in enumerate(spikes, first):
        engine.inject(source, spike.lp, spike.tick, Pulse(spike.neuron), seq=seq)
        late += spike.tick <= reached
    return late
