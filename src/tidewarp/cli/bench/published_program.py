"""The work of ``tidewarp bench control``, done by a published tool: ``python -m … [MODULE]``, asked as in ``own_process``.

MODULE is what is imported, ``dynamic_des`` (version 0.12 of the package dynamic-des) or something with its names. Each work is
written as that tool's users write it, and where there is a choice, in the way that is faster there: no monitor of its lag,
large batches, nothing of its shutdown timed.
"""

from __future__ import annotations

import asyncio
import importlib
import queue
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable
from importlib import metadata
from typing import Any

from tidewarp.cli.bench.measure import percentile
from tidewarp.cli.bench.own_process import serve
from tidewarp.cli.bench.ticking import behind_ms, latencies_ms
from tidewarp.clocks import WallClock

CLOCK = WallClock()
FLUSH_S = 50.0  # simulated seconds between two of its batches, which are full before
MODULE = "dynamic_des"

Process = Generator[Any, Any, None]


def version() -> dict[str, Any]:
    """Which one it is; fails where it cannot be imported."""
    module = _tool()
    distribution = "dynamic-des" if MODULE == "dynamic_des" else MODULE.partition(".")[0]
    return {"version": metadata.version(distribution), "module": module.__name__}


def timeouts(size: int, processes: int) -> dict[str, Any]:
    """``processes`` that only wait, ``size`` times in all."""
    env = _environment()

    def wait() -> Process:
        for _ in range(size // processes):
            yield env.timeout(1.0)

    for _ in range(processes):
        env.process(wait())
    return _timed(env.run)


def request(size: int, processes: int) -> dict[str, Any]:
    """``processes`` that share two units, ``size`` times in all."""
    tool, env = _tool(), _environment()
    oven = tool.CapacityConfig(current_cap=2, max_cap=2)
    env.registry.register_sim_parameter(tool.SimParameter(sim_id="line", resources={"oven": oven}))
    resource = tool.DynamicResource(env, "line", "oven")

    def use() -> Process:
        for _ in range(size // processes):
            with resource.request() as place:
                yield place
                yield env.timeout(1.0)

    for _ in range(processes):
        env.process(use())
    return _timed(env.run)


def ingest(size: int, sensors: int) -> dict[str, Any]:
    """``size`` updates of ``sensors`` in turn, into its queue and then its registry.

    The clock is held until all are in the queue: at full speed its looks into an empty one would keep the source waiting.
    """
    env = _environment()
    names = _variables(env, sensors)
    source = _Ingress((names[n % sensors], n * 0.5) for n in range(size))

    def watch() -> Process:
        source.all_put.wait()
        last = env.registry.get(names[(size - 1) % sensors])
        while last.value != (size - 1) * 0.5:
            yield env.timeout(0.1)

    before_s = CLOCK.now()
    env.setup_ingress([source])
    env.run(until=env.process(watch()))
    spent_s = CLOCK.now() - before_s
    env.teardown()
    return {"seconds": spent_s}


def publish(size: int) -> dict[str, Any]:
    """``size`` small events, ten at an instant, into a connector that keeps nothing."""
    env, sink = _environment(), _Egress()

    def say() -> Process:
        for n in range(size // 10):
            yield env.timeout(1.0)
            for part in range(10):
                env.publish_event("part.done", {"part": 10 * n + part, "status": "finished"})

    env.setup_egress([sink], flush_interval=FLUSH_S, lag_monitor_interval=None)
    env.process(say())
    before_s = CLOCK.now()
    env.run(until=size // 10 + FLUSH_S + 1.0)
    sink.wait_for(size)
    spent_s = CLOCK.now() - before_s
    env.teardown()
    return {"seconds": spent_s}


def mm2(size: int, arrivals_per_s: float, services_per_s: float) -> dict[str, Any]:
    """``size`` tasks of a declared M/M/2 line, until the last of them is finished."""
    line = _tool().SimulationContext("line", factor=0.0, random_seed=7).add_egress(_Egress())
    line.with_batching(500, FLUSH_S)
    line.add_resource("station", current_cap=2, max_cap=2)
    line.add_service("job", dist="exponential", rate=services_per_s).add_arrival(
        "job", dist="exponential", rate=arrivals_per_s
    )
    ended_s: list[float] = []

    @line.task(service_id="job", resource_id="station")  # type: ignore[untyped-decorator]
    def work(number: int) -> dict[str, Any]:
        return {"path_id": "line.service.job", "status": "finished"}

    def follow(context: Any, number: int) -> Process:
        yield from work(number)
        ended_s.append(CLOCK.now())

    @line.arrival_loop("job")  # type: ignore[untyped-decorator]
    def arrivals(context: Any) -> Process:
        for number in range(size):
            yield context.wait_for_arrival("job")
            context.spawn(follow(context, number))

    before_s = CLOCK.now()
    line.run(until=1.5 * size / arrivals_per_s + 100.0)
    if len(ended_s) < size:
        raise RuntimeError(f"{len(ended_s)} of {size} tasks finished")
    return {"seconds": ended_s[-1] - before_s}


def apply(updates: int, rate_hz: float) -> dict[str, Any]:
    """How long an update takes from its source to the process that waits for it, at factor 1, and how many it sees."""
    env = _environment(1.0)
    (name,) = _variables(env, 1)
    sent_s: list[float] = []
    seen: list[tuple[int, float]] = []

    async def send(ingress_queue: queue.Queue[Any]) -> None:
        started_s = CLOCK.now()
        for n in range(updates):
            await asyncio.sleep(max(0.0, started_s + n / rate_hz - CLOCK.now()))
            sent_s.append(CLOCK.now())
            ingress_queue.put((name, float(n)))

    def watch() -> Process:
        level = env.registry.get(name)
        while True:
            yield level.wait_for_change()
            seen.append((int(level.value), CLOCK.now()))

    env.process(watch())
    env.setup_ingress([_Ingress(send=send)])
    env.run(until=updates / rate_hz + 1.0)
    env.teardown()
    found = latencies_ms(sent_s, seen)
    return {
        "apply_latency_ms_p50": percentile(found, 50),
        "apply_latency_ms_p99": percentile(found, 99),
        "apply_updates_seen": len({n for n, _ in seen}),
    }


def burst(updates: int, sensors: int, wait_s: float, tick_s: float) -> dict[str, Any]:
    """How far its clock falls behind at factor 1, when ``updates`` come at once after ``wait_s``."""
    env = _environment(1.0)
    names = _variables(env, sensors)
    source = _Ingress(((names[n % sensors], float(n)) for n in range(updates)), wait_s)
    noted_s: list[float] = []

    def tick() -> Process:
        last = env.registry.get(names[(updates - 1) % sensors])
        while last.value != float(updates - 1):
            yield env.timeout(tick_s)
            noted_s.append(CLOCK.now() - env.now)

    env.setup_ingress([source])
    env.run(until=env.process(tick()))
    env.teardown()
    found = behind_ms(noted_s)
    return {"burst_behind_ms_max": found[-1], "burst_behind_ms_p99": percentile(found, 99)}


WORKS = {work.__name__: work for work in (version, timeouts, request, ingest, publish, mm2, apply, burst)}


def _tool() -> Any:
    return importlib.import_module(MODULE)


def _environment(factor: float = 0.0) -> Any:
    return _tool().DynamicRealtimeEnvironment(factor=factor)


def _variables(env: Any, count: int) -> list[str]:
    """Paths of as many variables of ``env``, new ones."""
    values = {f"sensor_{n:03d}": -1.0 for n in range(count)}
    env.registry.register_sim_parameter(_tool().SimParameter(sim_id="line", variables=values))
    return [f"line.variables.{name}" for name in values]


def _timed(work: Any) -> dict[str, Any]:
    before_s = CLOCK.now()
    work()
    return {"seconds": CLOCK.now() - before_s}


class _Ingress:
    """A connector that puts all ``updates`` into the tool's queue after ``wait_s``, or does what ``send(queue)`` does."""

    def __init__(
        self,
        updates: Iterable[tuple[str, float]] = (),
        wait_s: float = 0.0,
        send: Callable[[queue.Queue[Any]], Awaitable[None]] | None = None,
    ) -> None:
        self.all_put = threading.Event()
        self._updates, self._wait_s, self._send = updates, wait_s, send

    async def run(self, ingress_queue: queue.Queue[Any]) -> None:
        """Called by the tool, in its thread of connectors."""
        if self._send is not None:
            await self._send(ingress_queue)
        await asyncio.sleep(self._wait_s)
        for update in self._updates:
            ingress_queue.put(update)
        self.all_put.set()
        await asyncio.Event().wait()  # the connector of a broker does not end either


class _Egress:
    """A connector that counts what it takes and keeps nothing."""

    def __init__(self) -> None:
        self._count = 0

    async def run(self, egress_queue: queue.Queue[Any]) -> None:
        """Called by the tool, in its thread of connectors."""
        while True:
            try:
                self._count += len(egress_queue.get_nowait())
            except queue.Empty:
                await asyncio.sleep(0.02)

    def wait_for(self, count: int) -> None:
        """Until it has taken so many."""
        pause = threading.Event()
        while self._count < count:
            pause.wait(0.002)


if __name__ == "__main__":
    MODULE = sys.argv[1] if len(sys.argv) > 1 else MODULE
    sys.exit(serve(WORKS))
