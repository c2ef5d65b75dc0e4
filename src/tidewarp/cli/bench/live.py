"""Figures of a twin in step with the wall, each measured in a process of its own: latency, bursts, slow and dead sinks.

Everything is seen from inside the model, where it hurts: a process that ticks notes how far its clock is behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import simpy
from simpy.rt import RealtimeEnvironment

import tidewarp as tw
from tidewarp.cli.bench.measure import percentile
from tidewarp.cli.bench.own_process import serve
from tidewarp.cli.bench.resident import day, memory, peak_bytes
from tidewarp.cli.bench.synthetic import PATHS, Burst, Moody
from tidewarp.cli.bench.ticking import Notes, behind_ms, latencies_ms
from tidewarp.clocks import WallClock

__all__ = ["WORKS", "apply", "burst", "commits", "polling", "sink"]

CLOCK = WallClock()
TICK_S = 0.01
OUTPUTS_PER_TICK = 10
POLL_S = 0.1  # simulated seconds between two looks of the reference
_ROOM = 1_000_000  # ticks: almost three hours of them

Process = Generator[simpy.Event, Any, Any]


def apply(folder: str, updates: int, rate_hz: float) -> dict[str, Any]:
    """How long is it from a live source to the process that an update resumes, commit included, on an idle twin?"""
    sent_s, seen_s, seen = Notes(updates), Notes(updates), Notes(updates)

    async def readings() -> AsyncIterator[dict[str, Any]]:
        started_s = CLOCK.now()
        for n in range(updates):
            await asyncio.sleep(max(0.0, started_s + n / rate_hz - CLOCK.now()))
            sent_s.add(CLOCK.now())
            yield {"path": "line.level", "value": n}

    def build(twin: tw.Twin) -> None:
        changes = twin.variable("line.level", int).changes(capacity=updates)

        def watch() -> Process:
            while True:
                change = yield changes.next()
                seen_s.add(CLOCK.now())
                seen.add(change.new)

        twin.process(watch())
        twin.connect(tw.sources.python(readings))

    with tw.open(Path(folder) / "apply.tw", build) as twin:
        twin.run()
    found = latencies_ms(sent_s.all(), zip(map(int, seen.all()), seen_s.all(), strict=True))
    return {
        "apply_latency_ms_p50": percentile(found, 50),
        "apply_latency_ms_p99": percentile(found, 99),
        "apply_updates": updates,
        "apply_updates_seen": len(set(seen.all())),
    }


def polling(folder: str, updates: int, rate_hz: float) -> dict[str, Any]:
    """The reference of apply: plain SimPy in step with the wall, which looks for what has come each POLL_S.

    Of several updates that it finds, the process that waits sees the last, as where a value is overwritten. Nothing is
    written to ``folder``.
    """
    env = RealtimeEnvironment(factor=1.0, strict=False)
    changed = env.event()
    seen: list[tuple[int, float]] = []
    started_s = CLOCK.now()

    def look() -> Process:
        nonlocal changed
        came = 0
        while came < updates:
            yield env.timeout(POLL_S)
            due = min(updates, int((CLOCK.now() - started_s) * rate_hz) + 1)
            if due > came:
                came = due
                changed.succeed(came - 1)
                changed = env.event()

    def watch() -> Process:
        while True:
            number = yield changed
            seen.append((number, CLOCK.now()))

    env.process(watch())
    env.run(until=env.process(look()))
    found = latencies_ms([started_s + n / rate_hz for n in range(updates)], seen)
    return {
        "apply_polling_ms_p50": percentile(found, 50),
        "apply_polling_ms_p99": percentile(found, 99),
        "apply_polling_seen": len(seen),
    }


def commits(folder: str, updates: int, rate_hz: float) -> dict[str, Any]:
    """What the disk takes of a latency: as many commits of one row each, at the same rate, in SQLite (WAL, FULL) alone."""
    spent_ms: list[float] = []
    pause = threading.Event()
    with contextlib.closing(sqlite3.connect(Path(folder) / "commits.sqlite", isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE log (body BLOB)"):
            connection.execute(statement)
        for _ in range(updates):
            pause.wait(1.0 / rate_hz)
            before_s = CLOCK.now()
            connection.execute("INSERT INTO log VALUES (zeroblob(200))")
            spent_ms.append(1e3 * (CLOCK.now() - before_s))
    return {"apply_commit_ms_p50": percentile(spent_ms, 50), "apply_commit_ms_p99": percentile(spent_ms, 99)}


def burst(folder: str, updates: int, wait_s: float) -> dict[str, Any]:
    """How far behind is the clock of a ticking twin, when ``updates`` come at once after ``wait_s``? None come: at rest.

    ``applied`` is counted by the model: values that its variables have had.
    """
    noted_s, applied = Notes(_ROOM), Notes(_ROOM)

    def build(twin: tw.Twin) -> None:
        variables = [twin.variable(path, float) for path in PATHS]

        def count() -> int:
            total = sum(variable.version for variable in variables)
            applied.add(total)
            return total

        twin.state(count)
        twin.process(_tick(twin, noted_s))
        twin.connect(Burst(updates, wait_s))

    before = peak_bytes()
    with tw.open(Path(folder) / "burst.tw", build) as twin:
        summary = twin.run()
    found = behind_ms(noted_s.all())
    return {
        "behind_ms_max": found[-1],
        "behind_ms_p99": percentile(found, 99),
        "admitted": summary.inputs,
        "applied": int(applied.all()[-1]),
        "rss_growth_mib": (peak_bytes() - before) / 2**20,
        "wall_s": summary.wall_s,
    }


def sink(folder: str, pause_s: float, down: tuple[float, float], wall_s: float) -> dict[str, Any]:
    """How far behind is the clock of a twin that publishes at each tick, with a sink that is slow or down meanwhile?"""
    noted_s = Notes(_ROOM)
    moody = Moody(pause_s, down)

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    def build(twin: tw.Twin) -> None:
        twin.process(_tick(twin, noted_s, twin.publish_event))
        twin.connect(tw.sources.python(nothing))
        twin.sink(moody)

    with tw.open(Path(folder) / "sink.tw", build) as twin:
        summary = twin.run(until=wall_s)
    found = behind_ms(noted_s.all())
    return {
        "behind_ms_max": found[-1],
        "behind_ms_p99": percentile(found, 99),
        "outputs": summary.outputs,
        "lost": summary.outputs - len(set(moody.ids)),
        "doubled": len(moody.ids) - len(set(moody.ids)),
        "refusals": moody.refusals,
    }


def _tick(twin: tw.Twin, noted_s: Notes, publish: Callable[[str, Any], object] | None = None) -> Process:
    for n in range(_ROOM):
        yield twin.env.timeout(TICK_S)
        noted_s.add(CLOCK.now() - twin.env.now)
        if publish is not None:
            for _ in range(OUTPUTS_PER_TICK):
                publish("tick", n)


WORKS = {work.__name__: work for work in (apply, polling, commits, burst, sink, memory, day)}

if __name__ == "__main__":
    sys.exit(serve(WORKS))
