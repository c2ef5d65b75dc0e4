"""A production line to copy from: buffers, machines that follow their temperature, quality, rework, operators' shifts.

    orders ─► furnace ─► [buffer] ─► lathe ─► [buffer] ─► inspection ─► finished | scrapped
      ▲                                                       │
      └───────────────────────── rework ──────────────────────┘

A machine slows down above 95 degF, trips above 105 degF and is repaired after 30 minutes; what is in it keeps the work that
it has received. A part that finds no room in the next buffer stays where it is and blocks its place. All numbers can be
changed from outside at the paths of the line (``Line_A.service.furnace.mean``, ``Line_A.resources.lathe.current_cap``...).
``worlds.factory`` is the smaller line of the demo.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import simpy

from tidewarp.twin import Twin

__all__ = ["MACHINES", "SHIFTS", "STATIONS", "Line", "Machine", "Part", "Shift", "Station", "line"]

Process = Generator[simpy.Event, Any, None]


class Machine(NamedTuple):
    """What parts are worked on. Its temperature, in degF, is the variable ``{machine}_temperature``."""

    places: int = 1  # parts that it holds at once
    slow_above: float = 95.0
    slow_speed: float = 0.7  # share of full speed
    trip_above: float = 105.0
    repair_s: float = 1_800.0


class Station(NamedTuple):
    """A step of every part's way: a machine of that name, the time that it takes, and the buffer in front of it."""

    name: str
    mean_s: float
    std_s: float
    buffer: int = 10_000  # parts
    attended: bool = True  # an operator has to be there while it works
    faulty: float = 0.0  # share of parts that come out with a fault
    faulty_hot: float = 0.0  # the same while the machine is slowed down


class Shift(NamedTuple):
    """From this hour of each day on so many operators are there."""

    from_h: float
    operators: int


MACHINES: Mapping[str, Machine] = {"furnace": Machine(places=2), "lathe": Machine()}
STATIONS: Sequence[Station] = (
    Station("furnace", 420.0, 90.0, attended=False, faulty=0.01, faulty_hot=0.10),
    Station("lathe", 240.0, 60.0, buffer=8, faulty=0.01, faulty_hot=0.05),
    Station("inspection", 60.0, 10.0, buffer=4),
)
SHIFTS: Sequence[Shift] = (Shift(6, 3), Shift(14, 2), Shift(22, 1))


@dataclass
class Part:
    """A part on its way."""

    number: int
    ordered_s: float
    attempt: int = 1
    faulty: bool = False
    hot: bool = False  # a machine was slow while it was in it


def line(
    twin: Twin,
    sim_id: str = "Line_A",
    *,
    machines: Mapping[str, Machine] = MACHINES,
    stations: Sequence[Station] = STATIONS,
    shifts: Sequence[Shift] = SHIFTS,
    order_mean_s: float = 300.0,
    attempts: int = 2,
) -> Line:
    """Wire a line into ``twin``. A station without a machine of its name has one place, which never trips.

    It publishes the events ``{sim_id}.finished`` and ``{sim_id}.scrapped`` per part, ``{sim_id}.{machine}`` when a machine's
    state changes, and hourly telemetry: ``{sim_id}.in_progress``, ``{sim_id}.buffer.{station}``.
    """
    return Line(twin, sim_id, machines, stations, shifts, order_mean_s, attempts)


class Line:
    """The parts in progress, the machines' states, and the processes."""

    def __init__(
        self,
        twin: Twin,
        sim_id: str,
        machines: Mapping[str, Machine],
        stations: Sequence[Station],
        shifts: Sequence[Shift],
        order_mean_s: float,
        attempts: int,
    ) -> None:
        self.twin, self.sim_id, self.env = twin, sim_id, twin.env
        self.machines = {one.name: machines.get(one.name) for one in stations}
        self.stations, self.shifts, self.attempts = stations, shifts, attempts
        self.parts: dict[int, Part] = {}  # in progress, by number
        self.counts = {"ordered": 0, "finished": 0, "scrapped": 0, "reworked": 0, "trips": 0}
        self.speeds = dict.fromkeys(self.machines, 1.0)
        self.working: dict[str, dict[int, simpy.Process]] = {name: {} for name in self.machines}
        self.faults = twin.stream(f"{sim_id}.faults")

        self.line = twin.line(sim_id)
        self.line.add_arrival("orders", "exponential", rate=1 / order_mean_s)
        self.line.add_resource("operators", shifts[-1].operators, max(one.operators for one in shifts))
        self.line.process(lambda _: self.follow_shifts())
        for n, station in enumerate(stations):
            machine = self.machines[station.name]
            places = machine.places if machine is not None else 1
            self.line.add_store(station.name, station.buffer)
            self.line.add_resource(station.name, places)
            self.line.add_service(station.name, "lognormal", mean=station.mean_s, std=station.std_s)
            for _ in range(places):
                self.line.spawn(self.serve(n))
            if machine is not None:
                rule = {"type": float, "unit": "degF", "low": -459.0, "high": 2_000.0}
                self.line.add_variable(f"{station.name}_temperature", None, **rule)
                self.line.spawn(self.follow_temperature(station.name, machine))
        self.line.arrival_loop("orders")(self.order)
        self.line.telemetry_loop("1h")(self.sample)
        twin.state(self.document)

    def document(self) -> dict[str, Any]:
        """What is in progress, for the digest."""
        parts = [[part.number, part.attempt, part.faulty, part.hot] for part in self.parts.values()]
        return {"parts": parts, "counts": self.counts, "speeds": self.speeds}

    # ------------------------------------------------------------------ parts
    def order(self, _: Any) -> None:
        """One part per order, which waits in front of the first station."""
        self.counts["ordered"] += 1
        part = self.parts[self.counts["ordered"]] = Part(self.counts["ordered"], self.env.now)
        self.line.get_store(self.stations[0].name).put(part)

    def serve(self, n: int) -> Process:
        """One place of a station: take a part, work on it, hand it on."""
        station = self.stations[n]
        buffer = self.line.get_store(station.name)
        while True:
            part: Part = yield buffer.get()
            yield from self.work(station, part)
            if n + 1 < len(self.stations):
                yield self.line.get_store(self.stations[n + 1].name).put(part)
            else:
                self.leave(part)

    def work(self, station: Station, part: Part) -> Process:
        """Work of a drawn length, done at the machine's speed of each moment; behind a trip it goes on with what is left."""
        name = station.name
        needs = (name, "operators") if station.attended else (name,)
        left_s = self.env.sampler(f"{self.sim_id}.service.{name}").sample(self.line.service(name))
        hot, priority = False, 1
        process = self.env.active_process
        assert process is not None  # this is one
        while left_s > 0:
            begun_s, speed = self.env.now, 0.0  # nothing is done until all is there
            try:
                with ExitStack() as held:
                    for need in needs:
                        yield held.enter_context(self.line.request(need, priority))
                    begun_s, speed = self.env.now, self.speeds[name]
                    hot = hot or speed < 1
                    self.working[name][part.number] = process
                    yield self.env.timeout(left_s / speed)
                    left_s = 0.0
            except simpy.Interrupt:  # a trip, or another speed: it asks anew, before those that have not begun
                left_s -= (self.env.now - begun_s) * speed
                priority = 0
            finally:
                self.working[name].pop(part.number, None)
        part.hot = part.hot or hot
        part.faulty = part.faulty or self.faults.random() < (station.faulty_hot if hot else station.faulty)

    def leave(self, part: Part) -> None:
        """What inspection says: good, once more, or scrap."""
        if part.faulty and part.attempt < self.attempts:
            self.counts["reworked"] += 1
            part.attempt, part.faulty = part.attempt + 1, False
            self.line.get_store(self.stations[0].name).put(part)
            return
        how = "scrapped" if part.faulty else "finished"
        del self.parts[part.number]
        self.counts[how] += 1
        made_s = self.env.now - part.ordered_s
        event = {"part": part.number, "made_s": made_s, "attempt": part.attempt, "hot": part.hot}
        self.twin.publish_event(f"{self.sim_id}.{how}", event)

    # ------------------------------------------------------------------ machines and people
    def follow_temperature(self, name: str, machine: Machine) -> Process:
        """Set the speed by each reading; a trip stops the work in progress until the repair is done."""
        temperature, resource = self.line.watch(f"{name}_temperature"), self.line.get_resource(name)
        while True:
            change = yield temperature.wait_for_change()
            if change.new > machine.trip_above:
                self.counts["trips"] += 1
                self.tell(name, "tripped")
                resource.fail(machine.places, interrupt=True)
                yield self.env.timeout(machine.repair_s)
                resource.repair(machine.places)
                self.tell(name, "repaired")
            speed = machine.slow_speed if temperature.value > machine.slow_above else 1.0
            if speed != self.speeds[name]:
                self.speeds[name] = speed
                self.tell(name, "slow" if speed < 1 else "running")
                for process in [*self.working[name].values()]:
                    process.interrupt("speed")

    def follow_shifts(self) -> Process:
        """Set the number of operators, day by day. Who has begun something finishes it."""
        path = f"{self.sim_id}.resources.operators.current_cap"
        while True:
            day_s = self.env.now - self.env.now % 86_400
            for shift in self.shifts:
                yield self.env.timeout(max(0.0, day_s + shift.from_h * 3_600 - self.env.now))
                self.twin.registry.update(path, shift.operators)
            yield self.env.timeout(day_s + 86_400 - self.env.now)

    def tell(self, name: str, state: str) -> None:
        """Publish a machine's new state."""
        degf = self.line.value(f"{name}_temperature")
        self.twin.publish_event(f"{self.sim_id}.{name}", {"state": state, "degF": degf})

    def sample(self, _: Any) -> None:
        """How the line stands, every hour."""
        self.line.publish("in_progress", len(self.parts))
        for station in self.stations:
            self.line.publish(f"buffer.{station.name}", len(self.line.get_store(station.name).items))
