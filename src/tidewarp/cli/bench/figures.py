"""The workloads of ``tidewarp bench control``. Each returns its figures and a digest of what it computed.

The sizes are part of the digests, so they do not depend on how long is measured. Ours is always a whole
twin, its gate, journal (WAL, FULL) and outbox included; the reference is plain SimPy doing the same work.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import simpy

import tidewarp as tw
from tidewarp.cli.bench.measure import Prepared, best_of, slope
from tidewarp.connect import Output, Readings, Refused, RunIdentity, Sink, Source
from tidewarp.observe import SilentProbe
from tidewarp.worlds import factory

__all__ = ["FIGURES"]

Figures = dict[str, Any]
Process = Generator[simpy.Event, Any, None]

PROCESSES = 10
TIMEOUTS, CYCLES, EVENTS, UPDATES = 300_000, 60_000, 500_000, 1_000_000
PATHS = [f"line.sensor_{n:03d}" for n in range(200)]
SPACING_NS = 1_000_000  # between updates: a thousand a second
DAY_S, YEAR_DAYS, WARM_UP_DAYS = 86_400, 365, 180
READING_S = 300  # between readings of the year, as in the sample


def timeouts(folder: Path, seconds: float) -> Figures:
    """How fast is a model of ten processes that only wait?"""

    def wait(env: simpy.Environment) -> Process:
        for _ in range(TIMEOUTS // PROCESSES):
            yield env.timeout(1.0)

    def plain() -> Prepared:
        env = simpy.Environment()
        for _ in range(PROCESSES):
            env.process(wait(env))
        return env.run

    def build(twin: tw.Twin) -> None:
        for _ in range(PROCESSES):
            twin.process(wait(twin.env))

    best = best_of({"simpy": plain, "ours": _run(folder / "timeouts", build, TIMEOUTS)}, seconds)
    return {
        "timeouts_vs_simpy": best["ours"].faster_than(best["simpy"]),
        "timeouts_per_s": TIMEOUTS / best["ours"].seconds,
        "digest": best["ours"].result.digest,
    }


def request(folder: Path, seconds: float) -> Figures:
    """How fast do ten processes share a resource of two units?"""

    def use(env: simpy.Environment, oven: Any) -> Process:
        for _ in range(CYCLES // PROCESSES):
            with oven.request() as place:
                yield place
                yield env.timeout(1.0)

    def plain() -> Prepared:
        env = simpy.Environment()
        oven = simpy.Resource(env, capacity=2)
        for _ in range(PROCESSES):
            env.process(use(env, oven))
        return env.run

    def build(twin: tw.Twin) -> None:
        oven = twin.resource("line.oven", capacity=2)
        for _ in range(PROCESSES):
            twin.process(use(twin.env, oven))

    best = best_of({"simpy": plain, "ours": _run(folder / "request", build, CYCLES)}, seconds)
    return {
        "request_vs_simpy": best["ours"].faster_than(best["simpy"]),
        "request_cycles_per_s": CYCLES / best["ours"].seconds,
        "digest": best["ours"].result.digest,
    }


def ingest(folder: Path, seconds: float) -> Figures:
    """How many readings a second are checked, ordered, journaled and applied, each at an instant of its own?

    The reference applies the same readings to a dict, in one SimPy process, without check and journal.
    """

    def plain() -> Prepared:
        env, values = simpy.Environment(), dict[str, float]()

        def feed() -> Process:
            for n in range(UPDATES):
                yield env.timeout(SPACING_NS / 1e9)
                values[PATHS[n % len(PATHS)]] = n * 0.5

        env.process(feed())
        return env.run

    def build(twin: tw.Twin) -> None:
        for path in PATHS:
            twin.variable(path, float)
        twin.connect(_Sensors())

    best = best_of({"simpy": plain, "ours": _run(folder / "ingest", build)}, seconds)
    summary = best["ours"].result
    return {
        "ingest_updates_per_s": UPDATES / best["ours"].seconds,
        "ingest_vs_simpy": best["ours"].faster_than(best["simpy"]),
        "ingest_bytes_per_update": _newest(folder / "ingest").stat().st_size / summary.inputs,
        "digest": summary.digest,
    }


def publish(folder: Path, seconds: float) -> Figures:
    """How many small events a second are encoded, chained and handed to a sink?

    The reference is a SimPy process that writes each as JSON and hashes it.
    """

    def events(env: simpy.Environment, say: Callable[[str, Any], object]) -> Process:
        for n in range(EVENTS // 10):
            yield env.timeout(1.0)
            for part in range(10):
                say("part.done", {"part": 10 * n + part, "status": "finished"})

    def plain() -> Prepared:
        env, digest, encode = simpy.Environment(), hashlib.sha256(), msgspec.json.Encoder().encode
        env.process(events(env, lambda key, value: digest.update(encode([env.now, key, value]))))
        return env.run

    def build(twin: tw.Twin) -> None:
        twin.process(events(twin.env, twin.publish_event))
        twin.sink(_Discard())

    best = best_of({"simpy": plain, "ours": _run(folder / "publish", build, EVENTS // 10 + 1)}, seconds)
    return {
        "publish_events_per_s": EVENTS / best["ours"].seconds,
        "publish_vs_simpy": best["ours"].faster_than(best["simpy"]),
        "digest": best["ours"].result.digest,
    }


def replay(folder: Path, seconds: float) -> Figures:
    """How long does a recovery of a month take, and how fast is the replay of the 79 days of the sample?

    The reference of the replay is the live run that made the journal.
    """

    def build(twin: tw.Twin) -> None:
        factory.line(twin, "line")
        readings = tw.sources.csv(factory.SAMPLE, time="timestamp", map={"value": "line.furnace.temperature"})
        twin.connect(readings, disorder="1h")

    journal = folder / "sample.tw"
    with tw.open(journal, build, seed=7) as twin:
        live_s = twin.run(until="30d").wall_s
    recovered = best_of({"recovery": lambda: lambda: tw.open(journal, build, seed=7).close()}, 0.0)
    with tw.open(journal, build, seed=7) as twin:
        summary = twin.run()
    replayed = best_of({"replay": lambda: lambda: tw.replay(journal, build)}, seconds)["replay"]
    return {
        "recovery_month_s": recovered["recovery"].seconds,
        "replay_speed_x": summary.virtual_time_s / replayed.seconds,
        "replay_events_per_s": summary.events / replayed.seconds,
        "replay_vs_live": (live_s + summary.wall_s) / replayed.seconds,
        "replay_equal": replayed.result.equal,
        "digest": replayed.result.digest,
    }


def memory(folder: Path, seconds: float) -> Figures:
    """Does a twin grow? One simulated year of readings, the resident set looked at after every day of it.

    ``rss_slope_bytes_per_day`` and its 95 % interval are of the days after the warm-up. Says something only in a
    process that has done nothing else: that is why it is measured first.
    """
    probe = _Resident()

    def build(twin: tw.Twin) -> None:
        factory.line(twin, "line")
        twin.connect(_Year())
        twin.sink(tw.sinks.jsonl(folder / "year.jsonl"))

    with tw.open(folder / "year.tw", build, seed=7, probe=probe) as twin:
        summary = twin.run()
    line = slope(probe.bytes_per_day[WARM_UP_DAYS:])
    return {
        "rss_slope_bytes_per_day": line.rise,
        "rss_slope_margin_bytes_per_day": line.margin,
        "rss_growth_percent_per_year": 100 * line.rise * YEAR_DAYS / probe.bytes_per_day[WARM_UP_DAYS],
        "rss_mib": probe.bytes_per_day[-1] / 2**20,
        "year_readings": summary.inputs,
        "digest": summary.digest,
    }


FIGURES: Mapping[str, Callable[[Path, float], Figures]] = {
    "memory": memory,
    "timeouts": timeouts,
    "request": request,
    "ingest": ingest,
    "publish": publish,
    "replay": replay,
}
"""Each figure by name, in the order in which they are measured."""


def _run(folder: Path, build: Callable[[tw.Twin], None], until: float | None = None) -> Callable[[], Prepared]:
    """A case: the run of a new twin, its journal in ``folder``; opening it is not timed."""
    folder.mkdir()
    numbers = itertools.count()

    def prepare() -> Prepared:
        twin = tw.open(folder / f"{next(numbers):06d}.tw", build)

        def work() -> tw.Summary:
            with twin:
                return twin.run(until)

        return work

    return prepare


def _newest(folder: Path) -> Path:
    return max(folder.glob("*.tw"))


class _Columns(Source):
    """What the synthetic sources share: batches of columns."""

    kind = name = "bench"

    def __init__(self) -> None:
        self._batches: Iterator[Readings] = iter(())

    def decoder(self, epoch_ns: int) -> None:
        """It gives Readings."""

    async def read(self, limit: int) -> Readings | None:
        """The next batch."""
        return next(self._batches, None)


class _Sensors(_Columns):
    """UPDATES readings of 200 sensors in batches of 8,192."""

    async def open(self, positions: Mapping[int, int]) -> None:
        """From the beginning: a measurement is not resumed."""
        self._batches = (self._batch(range(at, min(at + 8_192, UPDATES))) for at in range(0, UPDATES, 8_192))

    @staticmethod
    def _batch(rows: range) -> Readings:
        width = len(PATHS)
        ticks = [(n + 1) * SPACING_NS for n in rows]
        return Readings(0, rows[0], ticks, [PATHS[n % width] for n in rows], [n * 0.5 for n in rows])


class _Year(_Columns):
    """A year of temperatures that rise into the range where the line slows and trips, a day to a batch."""

    async def open(self, positions: Mapping[int, int]) -> None:
        """From the beginning: a measurement is not resumed."""
        per_day = DAY_S // READING_S
        self._batches = (self._batch(range(day * per_day, (day + 1) * per_day)) for day in range(YEAR_DAYS))

    @staticmethod
    def _batch(rows: range) -> Readings:
        ticks = [n * READING_S * 10**9 for n in rows]
        return Readings(
            0, rows[0], ticks, ["line.furnace.temperature"] * len(rows), [70.0 + n % 400 / 10 for n in rows]
        )


class _Discard(Sink):
    """A sink that keeps nothing."""

    kind = name = "discard"
    delivery = "once"

    async def open(self, run: RunIdentity) -> str:
        """It holds nothing."""
        return ""

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """Take the batch."""
        return []


class _Resident(SilentProbe):
    """Looks at the resident set of this process once per simulated day."""

    def __init__(self) -> None:
        self.bytes_per_day: list[int] = []
        self._page = os.sysconf("SC_PAGE_SIZE")

    def progress(self, done: float, total: float | None) -> None:
        """``done`` is the virtual time in seconds."""
        while done >= DAY_S * (len(self.bytes_per_day) + 1):
            resident = Path("/proc/self/statm").read_text().split()[1]
            self.bytes_per_day.append(int(resident) * self._page)
