"""Queues: a shop whose customers are turned away when a line is full, and an open network of stations (Jackson 1957).

Both declare their links, so that the conservative engine knows who can hold whom up: in the shop servers wait for the door and
the door for nobody, in the network each station waits for those that send to it.
"""

from __future__ import annotations

from typing import NamedTuple

from tidewarp.errors import OperatorError
from tidewarp.kernel import Array, Context, LogicalProcess, Model, f64, i64, on
from tidewarp.units import seconds

__all__ = [
    "Arrival",
    "Customer",
    "Departure",
    "Done",
    "Door",
    "Job",
    "Left",
    "Network",
    "Ready",
    "Server",
    "Shop",
    "Station",
    "network",
    "shop",
]

LINE = 16  # customers at a server, the one who is served included
QUEUE = 64  # jobs at a station

# --- the shop -----------------------------------------------------------------------------------------


class Customer(NamedTuple):
    """Somebody on the way from the door to a server."""

    number: i64


class Ready(NamedTuple):
    """To the door: let the next one in. To a server: the first in line is done."""


class Departure(NamedTuple):
    """Output: a customer leaves."""

    server: i64
    stay: i64  # ticks at the server


class Shop(NamedTuple):
    """Parameters, in ticks."""

    interarrival: i64  # mean
    service: i64  # mean
    walk: i64  # from the door to a server


class Door(LogicalProcess):
    """Lets customers in and sends each to any server."""

    admitted: i64

    def start(self, ctx: Context) -> None:
        """Wait for the first one."""
        ctx.send(ctx.lp, ctx.exponential(ctx.params.interarrival), Ready())

    @on(Ready)
    def admit(self, now: int, ready: Ready, ctx: Context) -> None:
        """Let one in, and wait for the next."""
        self.admitted += 1
        ctx.send(ctx.out(ctx.below(ctx.n_out)), ctx.params.walk, Customer(self.admitted))
        ctx.send(ctx.lp, ctx.exponential(ctx.params.interarrival), Ready())


class Server(LogicalProcess):
    """Serves one customer after the other; a line of :data:`LINE` is full."""

    line: Array[i64, 16]  # when those who are here arrived, a ring
    first: i64
    length: i64

    @on(Customer)
    def arrive(self, now: int, customer: Customer, ctx: Context) -> None:
        """Join the line, or turn away."""
        if self.length == LINE:
            ctx.add("turned_away")
            return
        self.line[(self.first + self.length) % LINE] = now
        self.length += 1
        if self.length == 1:
            ctx.send(ctx.lp, ctx.exponential(ctx.params.service), Ready())

    @on(Ready)
    def finish(self, now: int, ready: Ready, ctx: Context) -> None:
        """Let the first one go."""
        ctx.emit(Departure(ctx.lp, now - self.line[self.first]))
        self.first = (self.first + 1) % LINE
        self.length -= 1
        if self.length > 0:
            ctx.send(ctx.lp, ctx.exponential(ctx.params.service), Ready())


def shop(
    servers: int = 15,
    interarrival: int = seconds(1),
    service: int = seconds(14),
    walk: int = seconds(0.5),
    seed: int = 1,
) -> Model:
    """One door and ``servers`` servers; times in ticks. Each :class:`Departure` is an output; ``turned_away`` is counted.

    Raises:
        ModelError: a number that the model does not take.
    """
    model = Model("shop", Shop(interarrival, service, walk), seed=seed)
    door = model.add(Door, 1, path="door")
    model.link(door, model.add(Server, servers, path="server"), lookahead=walk)
    model.accumulator("turned_away")
    return model


# --- the network --------------------------------------------------------------------------------------


class Arrival(NamedTuple):
    """To oneself: a job comes from outside."""


class Job(NamedTuple):
    """A job on the way to a station."""

    entered: i64  # tick at which it came into the network


class Done(NamedTuple):
    """To oneself: the first job is done."""


class Left(NamedTuple):
    """Output: a job leaves the network."""

    station: i64
    stay: i64  # ticks in the network


class Network(NamedTuple):
    """Parameters."""

    interarrival: i64  # mean, ticks, at each station
    service: i64  # mean, ticks
    walk: i64  # ticks between two stations
    leave: f64  # share of jobs that leave after a service


class Station(LogicalProcess):
    """One server and its queue; a job that finds :data:`QUEUE` others is lost."""

    queue: Array[i64, 64]  # when those who are here entered the network, a ring
    first: i64
    length: i64
    served: i64
    busy: i64  # ticks of service so far, that of the job in service not counted
    began: i64  # tick at which this service began

    def start(self, ctx: Context) -> None:
        """Wait for the first job from outside."""
        ctx.send(ctx.lp, ctx.exponential(ctx.params.interarrival), Arrival())

    @on(Arrival)
    def arrive(self, now: int, arrival: Arrival, ctx: Context) -> None:
        """A job from outside comes as one from another station does, without a walk."""
        ctx.send(ctx.lp, 0, Job(now))
        ctx.send(ctx.lp, ctx.exponential(ctx.params.interarrival), Arrival())

    @on(Job)
    def join(self, now: int, job: Job, ctx: Context) -> None:
        """Queue a job."""
        if self.length == QUEUE:
            ctx.add("lost")
            return
        self.queue[(self.first + self.length) % QUEUE] = job.entered
        self.length += 1
        if self.length == 1:
            self.began = now
            ctx.send(ctx.lp, ctx.exponential(ctx.params.service), Done())

    @on(Done)
    def finish(self, now: int, done: Done, ctx: Context) -> None:
        """Send the first job on, or let it leave."""
        entered = self.queue[self.first]
        self.first = (self.first + 1) % QUEUE
        self.length -= 1
        self.served += 1
        self.busy += now - self.began
        if ctx.random() < ctx.params.leave:
            ctx.emit(Left(ctx.lp, now - entered))
        else:
            ctx.send(ctx.out(ctx.below(ctx.n_out)), ctx.params.walk, Job(entered))
        if self.length > 0:
            self.began = now
            ctx.send(ctx.lp, ctx.exponential(ctx.params.service), Done())


def network(
    stations: int = 64,
    degree: int = 2,
    load: float = 0.7,
    leave: float = 0.5,
    service: int = seconds(1),
    walk: int = seconds(0.1),
    seed: int = 1,
) -> Model:
    """A ring of ``stations``, each linked to the next ``degree``; ``service`` and ``walk`` in ticks.

    Jobs come from outside to each station, so many that every one of them is busy for the share ``load`` of the time (their
    rates add up to arrivals / ``leave``). As long as hardly any are lost, a station holds load / (1 - load) jobs on average.

    Raises:
        OperatorError: a share that is not above 0 and below 1 (``leave`` may be 1), or a degree without so many others.
    """
    if not (0.0 < load < 1.0 and 0.0 < leave <= 1.0):
        raise OperatorError(f"load {load!r}, leave {leave!r}", "they are shares: above 0, load below 1", "correct them")
    if not 1 <= degree < stations:
        raise OperatorError(f"degree {degree!r}", f"there are {stations} stations", "link each to 1 or more others")
    interarrival = round(service / (leave * load))
    model = Model("network", Network(interarrival, service, walk, leave), seed=seed)
    lps = model.add(Station, stations, path="station")
    for lp in lps:
        model.link(lp, [(lp + step) % stations for step in range(1, degree + 1)], lookahead=walk)
    model.accumulator("lost")
    return model
