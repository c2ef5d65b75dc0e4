"""Does a twin grow? Its resident set while virtual time goes by at full speed, in a process that has done nothing else."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Generator
from pathlib import Path
from typing import Any

import simpy

import tidewarp as tw
from tidewarp.cli.bench.measure import slope
from tidewarp.cli.bench.synthetic import PATHS, Columns, Discard, sensors
from tidewarp.connect import Readings
from tidewarp.observe import SilentProbe
from tidewarp.worlds import factory

__all__ = ["day", "memory", "peak_bytes"]

DAY_S = 86_400
READING_S = 300  # between readings of the year, as in the sample
UPDATES_PER_S = 1_000  # of the day
SAMPLES = 240  # of the resident set in a day, or in a part of it
WARM_UP = 3  # the first of so many equal parts of a day is not looked at

Process = Generator[simpy.Event, Any, None]


def memory(folder: str, days: int, warm_up_days: int) -> dict[str, Any]:
    """A simulated year of readings on the line of the sample; the resident set after every day of it.

    ``rss_slope_bytes_per_day`` and its 95 % interval are of the days after the warm-up.
    """
    probe = _Resident(DAY_S)

    def build(twin: tw.Twin) -> None:
        factory.line(twin, "line")
        twin.connect(_temperatures(days))
        twin.sink(tw.sinks.jsonl(Path(folder) / "year.jsonl"))

    with tw.open(Path(folder) / "year.tw", build, seed=7, probe=probe) as twin:
        summary = twin.run()
    line = slope(probe.bytes[warm_up_days:])
    return {
        "rss_slope_bytes_per_day": line.rise,
        "rss_slope_margin_bytes_per_day": line.margin,
        "rss_growth_percent_per_year": 100 * line.rise * 365 / probe.bytes[warm_up_days],
        "rss_mib": probe.bytes[-1] / 2**20,
        "year_readings": summary.inputs,
        "digest": summary.digest,
    }


def day(folder: str, simulated_s: int) -> dict[str, Any]:
    """A day, or ``simulated_s`` of it, at a thousand updates a second; each second one of them wakes a process that publishes.

    The slope is in MB for a whole day, with the half width of its 95 % interval.
    """
    probe = _Resident(simulated_s / SAMPLES)

    def build(twin: tw.Twin) -> None:
        variables = [twin.variable(path, float) for path in PATHS]

        def report() -> Process:
            while True:
                change = yield variables[0].wait_for_change()
                twin.publish_telemetry(change.path, change.new)
                yield twin.env.timeout(1.0 - 1.5 / UPDATES_PER_S)

        twin.process(report())
        twin.connect(sensors(simulated_s * UPDATES_PER_S, 10**9 // UPDATES_PER_S))
        twin.sink(Discard())

    with tw.open(Path(folder) / "day.tw", build, probe=probe) as twin:
        summary = twin.run()
    line = slope(probe.bytes[len(probe.bytes) // WARM_UP :])
    per_day = DAY_S / probe.interval_s / 1e6
    return {
        "day_updates": summary.inputs,
        "day_outputs": summary.outputs,
        "day_hours": simulated_s / 3_600,
        "day_rss_slope_mb": line.rise * per_day,
        "day_rss_slope_margin_mb": line.margin * per_day,
        "day_rss_mib": probe.bytes[-1] / 2**20,
        "day_updates_per_s": summary.inputs / summary.wall_s,
    }


def _temperatures(days: int) -> Columns:
    """Temperatures that rise into the range where the line slows and trips, a day to a batch."""

    def readings(rows: range) -> Readings:
        ticks = [n * READING_S * 10**9 for n in rows]
        values = [70.0 + n % 400 / 10 for n in rows]
        return Readings(0, rows[0], ticks, ["line.furnace.temperature"] * len(rows), values)

    per_day = DAY_S // READING_S
    return Columns(readings(range(at * per_day, (at + 1) * per_day)) for at in range(days))


class _Resident(SilentProbe):
    """Looks at the resident set every ``interval_s`` of virtual time."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.bytes: list[int] = []

    def progress(self, done: float, total: float | None) -> None:
        """``done`` is the virtual time in seconds."""
        while done >= self.interval_s * (len(self.bytes) + 1):
            self.bytes.append(_resident_bytes())


def _resident_bytes() -> int:
    """Of this process and its children: a twin may run its model in one of them."""
    children = Path("/proc/self/task").glob("*/children")
    pids = ["self", *(pid for one in children for pid in one.read_text().split())]
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """The largest resident set so far, of this process or of one that it made by fork and that has ended.

    Its own is read from /proc: what getrusage says begins with that of whoever started the process.
    """
    own = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert own is not None
    return 1024 * max(int(own[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
