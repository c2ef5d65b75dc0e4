"""A production line whose furnace follows its measured temperature.

    orders ──► furnace ──► lathe ──► inspection ──► finished | scrapped
                  ▲                       │
                  └─────── rework ────────┘

The furnace slows down above 95 degF, trips above 105 degF and is repaired after 30 minutes; below 50 degF it stands
still. Parts inside it keep the work that they have received. All of it is plain SimPy; only the two
resources and the temperature come from the twin.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from tidewarp.twin import Twin

__all__ = ["SAMPLE", "Line", "Settings", "line"]

SAMPLE = __file__.removesuffix("factory.py") + "samples/machine_temperature.csv.gz"
"""Real telemetry: 22,695 readings of a machine's temperature over 79 days, columns timestamp and value."""

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Settings:
    """Times in seconds, temperatures in degF, shares between 0 and 1."""

    order_mean_s: float = 300.0
    heat_mean_s: float = 420.0
    heat_std_s: float = 90.0
    turn_mean_s: float = 240.0
    furnace_places: int = 2
    lathes: int = 1
    slow_above: float = 95.0
    slow_speed: float = 0.7
    trip_above: float = 105.0
    cold_below: float = 50.0
    repair_s: float = 1_800.0
    faulty: float = 0.02
    faulty_when_hot: float = 0.12
    sample_s: float = 3_600.0


def line(twin: Twin, path: str = "line", settings: Settings | None = None) -> Line:
    """Wire a line into ``twin``: variable ``{path}.furnace.temperature``, resources ``{path}.furnace`` and ``{path}.lathe``.

    It publishes ``{path}.finished`` and ``{path}.scrapped`` per part, ``{path}.furnace`` when the furnace's state
    changes and ``{path}.sample`` every hour.
    """
    return Line(twin, path, settings if settings is not None else Settings())


class Line:
    """The parts in progress, the furnace's state and the processes that move them."""

    def __init__(self, twin: Twin, path: str, settings: Settings) -> None:
        self.twin, self.path, self.settings = twin, path, settings
        self.env = twin.env
        self.temperature = twin.variable(f"{path}.furnace.temperature", float, unit="degF", low=-459.0, high=2_000.0)
        self.furnace = twin.resource(f"{path}.furnace", settings.furnace_places)
        self.lathe = twin.resource(f"{path}.lathe", settings.lathes)
        self.orders = twin.stream(f"{path}.orders")
        self.heats = twin.stream(f"{path}.furnace.heats")
        self.turns = twin.stream(f"{path}.lathe.turns")
        self.faults = twin.stream(f"{path}.inspection.faults")
        self.in_progress: dict[int, str] = {}  # part -> station, in the order of arrival
        self.counts = {"finished": 0, "scrapped": 0, "reworked": 0, "trips": 0}
        self.state = "running"  # of the furnace: running, slow, tripped, cold
        self.speed = 1.0  # share of full speed: 0 stands still
        self.heating: dict[int, simpy.Process] = {}
        twin.state(self.document)
        twin.process(self.take_orders())
        twin.process(self.follow_temperature())
        twin.process(self.sample())

    def document(self) -> dict[str, Any]:
        """What is in progress, for the digest."""
        stations = [[part, station] for part, station in self.in_progress.items()]
        return {"in_progress": stations, "counts": self.counts, "furnace": self.state}

    def take_orders(self) -> Process:
        """One part per order."""
        part = 0
        while True:
            yield self.env.timeout(self.orders.exponential(self.settings.order_mean_s))
            part += 1
            self.twin.process(self.make(part))

    def make(self, part: int) -> Process:
        """A part's way through the line; once it may be sent back."""
        ordered_s = self.env.now
        for attempt in (1, 2):
            self.in_progress[part] = "furnace"
            with self.furnace.request() as place:
                yield place
                hot = yield self.twin.process(self.heat(part))
            self.in_progress[part] = "lathe"
            with self.lathe.request() as place:
                yield place
                yield self.env.timeout(self.turns.exponential(self.settings.turn_mean_s))
            if self.faults.random() >= (self.settings.faulty_when_hot if hot else self.settings.faulty):
                return self.leave(part, "finished", attempt, hot, ordered_s)
            self.counts["reworked"] += attempt == 1
        return self.leave(part, "scrapped", attempt, hot, ordered_s)

    def leave(self, part: int, how: str, attempt: int, hot: bool, ordered_s: float) -> None:
        """Count and publish a part that leaves the line."""
        del self.in_progress[part]
        self.counts[how] += 1
        made_s = self.env.now - ordered_s
        self.twin.publish_event(f"{self.path}.{how}", {"part": part, "made_s": made_s, "attempt": attempt, "hot": hot})

    def heat(self, part: int) -> Generator[simpy.Event, Any, bool]:
        """Work of a drawn length, done at the furnace's speed of each moment. Was it hot at any time?"""
        work_s = self.heats.lognormal(self.settings.heat_mean_s, self.settings.heat_std_s)
        hot = self.state == "slow"
        process = self.env.active_process
        assert process is not None  # this is one
        self.heating[part] = process
        while work_s > 0:
            begun_s, speed = self.env.now, self.speed
            try:
                yield self.env.timeout(work_s / speed) if speed > 0 else self.env.event()
                work_s = 0.0
            except simpy.Interrupt:
                work_s -= (self.env.now - begun_s) * speed
                hot = hot or self.state == "slow"
        del self.heating[part]
        return hot

    def follow_temperature(self) -> Process:
        """Set the furnace's speed by each reading; a trip holds until the repair is done."""
        while True:
            change = yield self.temperature.wait_for_change()
            if change.new > self.settings.trip_above:
                self.counts["trips"] += 1
                self.set_speed(0.0, "tripped")
                yield self.env.timeout(self.settings.repair_s)
            self.set_speed(*self.speed_at(self.temperature.value))

    def speed_at(self, reading: float) -> tuple[float, str]:
        """Speed and state of a furnace that is not tripped."""
        if reading < self.settings.cold_below:
            return 0.0, "cold"
        if reading > self.settings.slow_above:
            return self.settings.slow_speed, "slow"
        return 1.0, "running"

    def set_speed(self, speed: float, state: str) -> None:
        """Let every part in the furnace go on at the new speed, or stand."""
        if state == self.state:
            return
        self.speed, self.state = speed, state
        for process in list(self.heating.values()):
            process.interrupt(state)
        event = {"state": state, "degF": self.temperature.value, "parts": len(self.heating)}
        self.twin.publish_event(f"{self.path}.furnace", event)

    def sample(self) -> Process:
        """How the line stands, every hour."""
        while True:
            yield self.env.timeout(self.settings.sample_s)
            self.twin.publish_event(
                f"{self.path}.sample",
                {
                    **self.counts,
                    "in_progress": len(self.in_progress),
                    "furnace_queue": len(self.furnace.queue),
                    "lathe_queue": len(self.lathe.queue),
                    "speed": self.speed,
                    "degF": self.temperature.value,
                },
            )
