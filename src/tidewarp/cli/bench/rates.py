"""The figures of ``tidewarp bench control`` that are rates. Each returns its figures and a digest of what it computed.

The sizes are part of the digests, so they do not depend on how long is measured. Ours is always a whole
twin, its gate, journal (WAL, FULL) and outbox included; the reference is plain SimPy doing the same work.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import simpy

import tidewarp as tw
from tidewarp.cli.bench.measure import Best, Prepared, best_of
from tidewarp.cli.bench.published import Published
from tidewarp.cli.bench.synthetic import PATHS, SENSORS, Discard, sensors
from tidewarp.errors import InternalError
from tidewarp.process import DistributionConfig, Environment
from tidewarp.units import in_seconds
from tidewarp.worlds import factory

__all__ = ["ingest", "mm2", "publish", "replay", "request", "timeouts"]

Figures = dict[str, Any]
Process = Generator[simpy.Event, Any, None]

PROCESSES = 10
TIMEOUTS, CYCLES, TASKS, EVENTS, UPDATES = 300_000, 60_000, 20_000, 500_000, 1_000_000
ARRIVALS_PER_S, SERVICES_PER_S = 1.0, 0.6  # of M/M/2, the latter of one server
SPACING_NS = 1_000_000  # between updates: a thousand a second


def timeouts(folder: Path, seconds: float, published: Published) -> Figures:
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

    theirs = published.case("timeouts", size=TIMEOUTS, processes=PROCESSES)
    best = best_of({"simpy": plain, "ours": _run(folder / "timeouts", build, TIMEOUTS), **theirs}, seconds)
    return {
        **_compared(best, "timeouts", "per_s", TIMEOUTS),
        **published.compared(best, "timeouts", "per_s", TIMEOUTS),
        "digest": best["ours"].result.digest,
    }


def request(folder: Path, seconds: float, published: Published) -> Figures:
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

    theirs = published.case("request", size=CYCLES, processes=PROCESSES)
    best = best_of({"simpy": plain, "ours": _run(folder / "request", build, CYCLES), **theirs}, seconds)
    return {
        **_compared(best, "request", "cycles_per_s", CYCLES),
        **published.compared(best, "request", "cycles_per_s", CYCLES),
        "digest": best["ours"].result.digest,
    }


def mm2(folder: Path, seconds: float, published: Published) -> Figures:
    """How fast is a declared line that serves random customers, two at a time, and tells three events of each?

    The reference has the same arrivals and service times, drawn beforehand, and publishes nothing.
    """
    gaps_s, services_s = (
        _drawn(f"line.{kind}.job", rate) for kind, rate in (("arrival", ARRIVALS_PER_S), ("service", SERVICES_PER_S))
    )

    def plain() -> Prepared:
        env = simpy.Environment()
        station = simpy.Resource(env, capacity=2)
        services = iter(services_s)

        def serve() -> Process:
            with station.request() as place:
                yield place
                yield env.timeout(next(services))

        def arrive() -> Process:
            for gap_s in gaps_s:
                yield env.timeout(gap_s)
                env.process(serve())

        env.process(arrive())

        def work() -> float:
            env.run()
            return float(env.now)

        return work

    def build(twin: tw.Twin) -> None:
        line = twin.line("line").add_resource("station", 2)
        line.add_arrival("job", "exponential", rate=ARRIVALS_PER_S)
        line.add_service("job", "exponential", rate=SERVICES_PER_S)

        @line.task("job", "station")
        def serve(number: int) -> dict[str, Any]:
            return {"path_id": "line.service.job", "status": "finished"}

        @line.arrival_loop("job")
        def arrive(line: Any) -> Process:
            for number in range(TASKS):
                yield line.wait_for_arrival("job")
                line.spawn(serve(number))

        twin.sink(sink)

    sink, end_s = Discard(), plain()()
    rates = {"arrivals_per_s": ARRIVALS_PER_S, "services_per_s": SERVICES_PER_S}
    theirs = published.case("mm2", size=TASKS, **rates)
    best = best_of({"simpy": plain, "ours": _run(folder / "mm2", build, end_s + 1e-6), **theirs}, seconds)
    summary = best["ours"].result
    if summary.outputs != 3 * TASKS or abs(in_seconds(sink.last_tick) - end_s) > 1e-6:
        value = f"mm2: {summary.outputs} events, the last at {in_seconds(sink.last_tick)} s and not {end_s} s"
        raise InternalError(value, f"the line and its reference serve the same {TASKS} customers", "report this")
    return {
        **_compared(best, "mm2", "tasks_per_s", TASKS),
        **published.compared(best, "mm2", "tasks_per_s", TASKS),
        "digest": summary.digest,
    }


def ingest(folder: Path, seconds: float, published: Published) -> Figures:
    """How many readings a second are checked, ordered, journaled and applied, each at an instant of its own?

    The reference applies the same readings to a dict, in one SimPy process, without check and journal.
    """

    def plain() -> Prepared:
        env, values = simpy.Environment(), dict[str, float]()

        def feed() -> Process:
            for n in range(UPDATES):
                yield env.timeout(SPACING_NS / 1e9)
                values[PATHS[n % SENSORS]] = n * 0.5

        env.process(feed())
        return env.run

    def build(twin: tw.Twin) -> None:
        for path in PATHS:
            twin.variable(path, float)
        twin.connect(sensors(UPDATES, SPACING_NS))

    theirs = published.case("ingest", size=UPDATES, sensors=SENSORS)
    best = best_of({"simpy": plain, "ours": _run(folder / "ingest", build), **theirs}, seconds)
    summary = best["ours"].result
    return {
        **_compared(best, "ingest", "updates_per_s", UPDATES),
        **published.compared(best, "ingest", "updates_per_s", UPDATES),
        "ingest_bytes_per_update": _newest(folder / "ingest").stat().st_size / summary.inputs,
        "digest": summary.digest,
    }


def publish(folder: Path, seconds: float, published: Published) -> Figures:
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
        twin.sink(Discard())

    theirs = published.case("publish", size=EVENTS)
    best = best_of({"simpy": plain, "ours": _run(folder / "publish", build, EVENTS // 10 + 1), **theirs}, seconds)
    return {
        **_compared(best, "publish", "events_per_s", EVENTS),
        **published.compared(best, "publish", "events_per_s", EVENTS),
        "digest": best["ours"].result.digest,
    }


def replay(folder: Path, seconds: float, published: Published) -> Figures:
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


def _compared(best: dict[str, Best], work: str, rate: str, size: int) -> Figures:
    """Our two figures of a comparison with "simpy": how many times as fast, and ``size`` units of work by time."""
    ours = best["ours"]
    return {f"{work}_vs_simpy": ours.faster_than(best["simpy"]), f"{work}_{rate}": size / ours.seconds}


def _drawn(path: str, rate: float) -> list[float]:
    """TASKS times from the stream of that path, as a twin with seed 0 draws them."""
    sampler, config = Environment().sampler(path), DistributionConfig("exponential", rate=rate)
    return [sampler.sample(config) for _ in range(TASKS)]


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
