"""The figures of ``tidewarp bench control`` by name; those here are measured in processes of their own.

What goes by the wall, or is as long as asked for, is no part of a digest.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tidewarp.cli.bench.own_process import Child, Failed
from tidewarp.cli.bench.published import Published
from tidewarp.cli.bench.rates import ingest, mm2, publish, replay, request, timeouts
from tidewarp.cli.bench.synthetic import SENSORS
from tidewarp.errors import OperatorError

__all__ = ["FIGURES"]

Figures = dict[str, Any]

PROGRAM = "tidewarp.cli.bench.live"
YEAR_DAYS, WARM_UP_DAYS = 365, 180
RATE_HZ, UPDATES_MIN = 27.0, 20  # of the updates whose way is timed
BURST, CALM_S, TICK_S = 2_000_000, 0.5, 0.01  # messages, the rest before them, and the ticks that are late
SLOW_S = 0.5  # that the slow sink takes for a batch
DAY_S_PER_S, DAY_S, DAY_S_MIN = 600, 86_400, 12  # simulated seconds of the day for each second to be measured
PATIENCE_S, PATIENCE = 600.0, 10.0  # how long a piece of work may take, and so many times what it was to take


def memory(folder: Path, seconds: float, published: Published) -> Figures:
    """Does a twin grow in a simulated year?"""
    with _own_process(folder, seconds) as ask:
        return ask("memory", days=YEAR_DAYS, warm_up_days=WARM_UP_DAYS)


def apply(folder: Path, seconds: float, published: Published) -> Figures:
    """How long is it from a live source to the process that an update resumes, at factor 1, and is every one seen?

    The reference is plain SimPy in step with the wall, which looks each 0.1 s; and what one commit takes by itself.
    """
    sizes = {"updates": max(UPDATES_MIN, round(RATE_HZ * seconds)), "rate_hz": RATE_HZ}
    with _own_process(folder, seconds) as ask:
        ours = {**ask("apply", **sizes), **ask("commits", **sizes), **ask("polling", **sizes)}
    return {**ours, **published.figures("apply", seconds, **sizes)}


def burst(folder: Path, seconds: float, published: Published) -> Figures:
    """How far does a burst put the clock behind? The reference is the same twin, to which nothing happens for ``seconds``."""
    with _own_process(folder, seconds) as ask:
        rest = ask("burst", updates=0, wait_s=CALM_S + seconds)
    with _own_process(folder, seconds) as ask:  # of its own, because of its memory
        storm = ask("burst", updates=BURST, wait_s=CALM_S)
    return {
        "burst_behind_ms_max": storm["behind_ms_max"],
        "burst_behind_ms_p99": storm["behind_ms_p99"],
        "burst_base_behind_ms_max": rest["behind_ms_max"],
        "burst_base_behind_ms_p99": rest["behind_ms_p99"],
        "burst_updates": BURST,
        "burst_updates_admitted": storm["admitted"],
        "burst_updates_applied": storm["applied"],
        "burst_updates_per_s": BURST / storm["wall_s"],
        "burst_rss_growth_mib": storm["rss_growth_mib"],
        **published.figures("burst", 0.0, updates=BURST, sensors=SENSORS, wait_s=CALM_S, tick_s=TICK_S),
    }


def sinks(folder: Path, seconds: float, published: Published) -> Figures:
    """How far does a slow sink, or one that is down for ``seconds``, put the clock behind, and what does it get in the end?

    The reference is the same twin with a sink that takes everything at once.
    """
    outage = 0.25 * seconds, 1.25 * seconds
    with _own_process(folder, seconds) as ask:
        calm = ask("sink", pause_s=0.0, down=(0.0, 0.0), wall_s=CALM_S + seconds)
        slow = ask("sink", pause_s=SLOW_S, down=(0.0, 0.0), wall_s=CALM_S + seconds)
        dead = ask("sink", pause_s=0.0, down=outage, wall_s=CALM_S + 1.5 * seconds)
    return {
        "sinks_base_behind_ms_max": calm["behind_ms_max"],
        "sinks_slow_lag_change_ms": slow["behind_ms_max"] - calm["behind_ms_max"],
        "sinks_down_lag_change_ms": dead["behind_ms_max"] - calm["behind_ms_max"],
        "sinks_down_s": seconds,
        "sinks_down_refusals": dead["refusals"],
        "sinks_outputs": sum(one["outputs"] for one in (calm, slow, dead)),
        "sinks_lost": sum(one["lost"] for one in (calm, slow, dead)),
        "sinks_doubled": sum(one["doubled"] for one in (calm, slow, dead)),
    }


def day(folder: Path, seconds: float, published: Published) -> Figures:
    """Does a twin grow in a day of a thousand updates a second, or in the part of it for which there is time?"""
    simulated_s = min(DAY_S, max(DAY_S_MIN, math.ceil(DAY_S_PER_S * seconds)))
    with _own_process(folder, seconds) as ask:
        return ask("day", simulated_s=simulated_s)


FIGURES: Mapping[str, Callable[[Path, float, Published], Figures]] = {
    "memory": memory,
    "timeouts": timeouts,
    "request": request,
    "mm2": mm2,
    "ingest": ingest,
    "publish": publish,
    "replay": replay,
    "apply": apply,
    "burst": burst,
    "sinks": sinks,
    "day": day,
}
"""Each figure by name, in the order in which they are measured."""


@contextlib.contextmanager
def _own_process(folder: Path, seconds: float) -> Iterator[Callable[..., Figures]]:
    """A new process of the program: ``ask(work, sizes…)`` gives what a work gives, its files in a new folder in ``folder``.

    A work may take PATIENCE times ``seconds``, and PATIENCE_S.
    """
    with Child(PROGRAM) as child:

        def ask(work: str, **sizes: Any) -> Figures:
            place = folder / f"{work}-{len(list(folder.iterdir()))}"
            place.mkdir()
            try:
                return child.ask(work, PATIENCE_S + PATIENCE * seconds, folder=str(place), **sizes)
            except Failed as error:
                action = "measure the others with --only, and report this"
                raise OperatorError(f"{work}: {error}", "a measurement comes to its end", action) from None

        yield ask
