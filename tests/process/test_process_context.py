"""The declarative line: jobs and their events, loops, breakdowns, waiting, and the program of the documentation."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from simpy.events import Event

import tidewarp as tw
from tidewarp import codec
from tidewarp.errors import ModelError, Removed, RuleViolation, UnknownPath
from tidewarp.process import (
    BreakdownConfig,
    CapacityConfig,
    DistributionConfig,
    DynamicPreemptiveResource,
    Environment,
    SimParameter,
    SimulationContext,
)

Model = Generator[Event, Any, Any]
SECOND = 10**9


@pytest.fixture
def line() -> SimulationContext:
    return (
        SimulationContext(Environment(seed=3), "L")
        .add_resource("lathe", 1, 3)
        .add_service("milling", "constant", mean=10)
        .add_arrival("parts", "constant", mean=4)
        .add_variable("mode", "auto", one_of=("auto", "stopped"))
        .add_variable("heat", 70.0, low=0, high=200)
    )


def run(line: SimulationContext, until: float) -> list[tuple[float, str, Any]]:
    """What was published since the last call: (s, key, value)."""
    line.env.run(until=until)
    return [(output.tick / SECOND, output.key, codec.unpack(output.value)) for output in line.env.drain()]


def statuses(outputs: list[tuple[float, str, Any]], key: str | None = None) -> list[tuple[float, str]]:
    return [(at, value["lifecycle"]) for at, found, value in outputs if key in (None, found) and "lifecycle" in value]


def test_predecessor_20_a_job_says_when_it_queues_starts_and_finishes(line: SimulationContext) -> None:
    """Predecessor: no `finished`. The user's fields win, `lifecycle` stays ours; the function runs when service starts."""
    called: list[float] = []

    @line.task("milling", "lathe")
    def mill(part: int) -> dict[str, Any]:
        called.append(line.env.now)
        return {"part": part, "status": "good", "lifecycle": "mine"}

    processes = [line.spawn(mill(part)) for part in range(2)]
    outputs = run(line, 30)
    path = {"path_id": "L.service.milling"}
    assert [entry for entry in outputs if entry[1] == "task-1"] == [
        (0.0, "task-1", path | {"status": "queued", "lifecycle": "queued"}),
        (10.0, "task-1", path | {"status": "started", "lifecycle": "started"}),
        (20.0, "task-1", path | {"status": "good", "lifecycle": "finished", "part": 1}),
    ]
    assert called == [0.0, 10.0]
    assert processes[1].value["part"] == 1
    assert (mill.__name__, mill.function.__module__) == ("mill", __name__)


class Part(BaseModel):
    size: float


@dataclasses.dataclass
class Note:
    text: str


@pytest.mark.parametrize(
    ("result", "fields"),
    [
        (None, {}),
        (3, {"result": 3}),
        ("ok", {"result": "ok"}),
        (Part(size=2.5), {"size": 2.5}),
        (Note("x"), {"text": "x"}),
    ],
)
def test_what_is_no_mapping_stands_under_result(line: SimulationContext, result: Any, fields: dict[str, Any]) -> None:
    """Nothing, a value, a pydantic model, a dataclass."""
    mill = line.task("milling", "lathe")(lambda: result)
    line.spawn(mill())
    outputs = run(line, 20)
    base = {"path_id": "L.service.milling", "status": "finished", "lifecycle": "finished"}
    assert outputs[-1] == (10.0, "task-L-1", base | fields)


def test_the_key_is_that_of_the_first_argument(line: SimulationContext) -> None:
    """An int or a text; else a number of the line's own."""
    mill = line.task("milling", "lathe")(lambda *args, **keywords: None)
    for job in (mill("a"), mill(7), mill(part=8), mill(2.5), mill()):
        line.spawn(job)
    queued = [key for _, key, value in run(line, 1) if value["status"] == "queued"]
    assert queued == ["task-a", "task-7", "task-8", "task-L-1", "task-L-2"]


def test_a_generator_function_is_the_service(line: SimulationContext) -> None:
    """It takes as long as it takes, and what it raises is the process's failure."""

    @line.task("milling", "lathe")
    def mill(part: int) -> Model:
        yield line.env.timeout(1)
        value = yield line.env.timeout(2, value="hot")
        try:
            yield line.env.process(failing())
        except KeyError as error:
            return {"saw": value, "caught": str(error)}

    def failing() -> Model:
        yield line.env.timeout(1)
        raise KeyError("x")

    line.spawn(mill(1))
    outputs = run(line, 20)
    assert outputs[-1][0] == 4.0
    assert {"saw": "hot", "caught": "'x'"}.items() <= outputs[-1][2].items()
    assert line.get_resource("lathe").in_use == 0


POLICIES = {
    "resume": [(0, "queued"), (0, "started"), (4, "interrupted"), (9, "resumed"), (15, "finished")],
    "restart": [(0, "queued"), (0, "started"), (4, "interrupted"), (9, "restarted"), (19, "finished")],
    "scrap": [(0, "queued"), (0, "started"), (4, "interrupted"), (4, "scrapped")],
}


@pytest.mark.parametrize("how", ["fail", "alarm", "preempt"])
@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_job_that_loses_its_unit_follows_its_policy(policy: str, generator: bool, how: str) -> None:
    """A failure, an alarm from outside and a preemption are handled alike, by a drawn time and by a generator."""
    line = SimulationContext(Environment(), "L").add_service("milling", "constant", mean=10)
    line.add_resource("lathe", 1, preemptive=how == "preempt")
    lathe = line.get_resource("lathe")
    starts: list[float] = []

    def mill(part: int) -> dict[str, int]:
        starts.append(line.env.now)
        return {"part": part}

    def mill_slowly(part: int) -> Model:
        starts.append(line.env.now)
        yield line.env.timeout(3)
        yield line.env.timeout(7)
        return {"part": part}

    line.spawn(line.task("milling", "lathe", priority=5, on_breakdown=policy)(mill_slowly if generator else mill)(1))

    def disturb() -> Model:
        yield line.env.timeout(4)
        if how == "preempt":
            with lathe.request(0) as urgent:
                yield urgent & line.env.timeout(5)
        elif how == "alarm":
            line.env.registry.update("L.resources.lathe.failed", 1)
            yield line.env.timeout(5)
            line.env.registry.update("L.resources.lathe.failed", 0)
        else:
            lathe.fail(interrupt=True)
            yield line.env.timeout(5)
            lathe.repair()

    line.spawn(disturb())
    outputs = run(line, 50)
    assert statuses(outputs) == POLICIES[policy]
    reasons = {value["reason"] for _, _, value in outputs if "reason" in value}
    assert reasons == {"preemption" if how == "preempt" else "breakdown"}
    assert starts == ([0, 9] if policy == "restart" else [0])
    assert (lathe.in_use, lathe.queue) == (0, [])


def test_a_resumed_job_goes_before_its_equals_but_not_before_more_important_ones() -> None:
    """The half-finished part is the first of its priority."""
    line = SimulationContext(Environment(), "L").add_service("s", "constant", mean=10).add_resource("m", 1)
    jobs = {priority: line.task("s", "m", priority=priority)(lambda part: None) for priority in (0, 1)}
    for part in ("first", "second"):
        line.spawn(jobs[1](part))

    def disturb() -> Model:
        yield line.env.timeout(5)
        line.get_resource("m").fail(interrupt=True)
        line.spawn(jobs[0]("urgent"))
        yield line.env.timeout(5)
        line.get_resource("m").repair()

    line.spawn(disturb())
    finished = [(at, key) for at, key, value in run(line, 100) if value["lifecycle"] == "finished"]
    assert finished == [(20, "task-urgent"), (25, "task-first"), (35, "task-second")]


@pytest.mark.parametrize("policy", ["restart", "scrap"])
def test_a_generator_that_will_not_go_on_is_closed_at_once(line: SimulationContext, policy: str) -> None:
    """What its ``finally`` gives back is free while the unit is down, not whenever memory is tidied."""
    closed: list[float] = []
    kept: list[Model] = []

    def work(part: int) -> Model:
        try:
            yield line.env.timeout(10)
        finally:
            closed.append(line.env.now)

    def mill(part: int) -> Model:
        kept.append(work(part))  # so that it is not closed by its last reference
        yield from kept[-1]

    line.spawn(line.task("milling", "lathe", on_breakdown=policy)(mill)(1))

    def disturb() -> Model:
        yield line.env.timeout(4)
        line.get_resource("lathe").fail(interrupt=True)

    line.spawn(disturb())
    run(line, 7)
    assert closed == [4]


def test_what_a_generator_waits_for_goes_on_while_it_is_held(line: SimulationContext) -> None:
    """Only timeouts stand still. An interrupt that is not about the unit is the generator's own."""
    delivery = line.env.event()
    seen: list[Any] = []

    @line.task("milling", "lathe")
    def mill(part: int) -> Model:
        seen.append((yield delivery))
        try:
            yield line.env.timeout(20)
        except simpy.Interrupt as interrupt:
            seen.append((line.env.now, interrupt.cause))

    process = line.spawn(mill(1))

    def disturb() -> Model:
        yield line.env.timeout(1)
        line.get_resource("lathe").fail(interrupt=True)
        delivery.succeed("steel")
        yield line.env.timeout(4)
        line.get_resource("lathe").repair()
        yield line.env.timeout(3)
        process.interrupt("tea")

    line.spawn(disturb())
    outputs = run(line, 50)
    assert (seen, outputs[-1][0]) == (["steel", (8, "tea")], 8)


@given(
    st.lists(st.tuples(st.floats(0.01, 30), st.floats(0.01, 30)), max_size=6), st.sampled_from(["resume", "restart"])
)
def test_every_job_gets_its_whole_service_whatever_breaks(outages: list[tuple[float, float]], policy: str) -> None:
    """Over any breakdowns: the time in service of a resumed job is its drawn time, and all jobs finish in order."""
    line = SimulationContext(Environment(), "L").add_service("s", "constant", mean=10).add_resource("m", 1)
    job = line.task("s", "m", on_breakdown=policy)(lambda part: None)
    for part in range(3):
        line.spawn(job(part))

    def disturb() -> Model:
        for up, down in outages:
            yield line.env.timeout(up)
            line.get_resource("m").fail(interrupt=True)
            yield line.env.timeout(down)
            line.get_resource("m").repair()

    line.spawn(disturb())
    outputs = run(line, 1_000)
    for part in range(3):
        events = statuses(outputs, f"task-{part}")
        begin = [at for at, status in events if status in ("started", "resumed", "restarted")]
        end = [at for at, status in events if status in ("interrupted", "finished")]
        spans = [b - a for a, b in zip(begin, end, strict=True)]
        assert (sum(spans) if policy == "resume" else spans[-1]) == pytest.approx(10, abs=1e-6)
        assert events[-1][1] == "finished"
    assert line.get_resource("m").statistics.busy_ticks >= 3 * 10 * SECOND - 100


def test_breakdowns_come_by_their_distributions(line: SimulationContext) -> None:
    """Up 15 s, down 5 s; a rate of 0 is never, until it is set; the cause is the breakdown's path."""
    causes: list[Any] = []
    line.add_breakdown(
        "spindle", "lathe", DistributionConfig("constant", mean=15), DistributionConfig("constant", mean=5)
    )

    @line.process
    def hold(ctx: SimulationContext) -> Model:
        while True:
            try:
                with ctx.request("lathe") as place:
                    yield place
                    yield ctx.env.timeout(1_000)
            except simpy.Interrupt as interrupt:
                causes.append((ctx.env.now, interrupt.cause.cause, interrupt.cause.remaining))

    run(line, 36)
    assert causes == [(15, "L.breakdowns.spindle", 985), (35, "L.breakdowns.spindle", 985)]
    line.env.registry.update("L.breakdowns.spindle.up", {"dist": "exponential", "rate": 0})
    run(line, 1_000)
    assert len(causes) == 2
    line.env.registry.update("L.breakdowns.spindle.up", {"dist": "constant", "mean": 10})
    run(line, 1_012)
    assert causes[2][:2] == (1_010, "L.breakdowns.spindle")
    line.remove("spindle")
    run(line, 3_000)
    assert (len(causes), line.get_resource("lathe").failed) == (3, 0)


def test_arrivals_stop_at_rate_0_and_go_on_when_it_is_raised(line: SimulationContext) -> None:
    """The draw is made from the live parameters at the moment of the wait."""
    line.add_arrival("orders", "exponential", rate=0)
    arrived: list[float] = []

    @line.arrival_loop("orders")
    def feed(ctx: SimulationContext) -> Model:
        while True:
            yield ctx.wait_for_arrival("orders")
            arrived.append(ctx.env.now)

    @line.arrival_loop("parts")
    def count(ctx: SimulationContext) -> None:
        ctx.publish("part", ctx.env.now)

    assert [value for _, _, value in run(line, 13)] == [4, 8, 12]
    assert arrived == []
    line.env.registry.update("L.arrival.orders.rate", 1.0)
    run(line, 33)
    assert 5 < len(arrived) < 60
    line.env.registry.update("L.arrival.orders.rate", 0)
    run(line, 60)
    before = len(arrived)
    run(line, 200)
    assert len(arrived) == before
    line.remove("orders")
    run(line, 300)
    assert sum(process.is_alive for process in line.env._live) == 1  # parts go on


def test_waiting_until_a_value_has_a_property(line: SimulationContext) -> None:
    """True already: at once; every change is looked at, also two at one instant; a predicate's error is the waiter's."""
    seen: list[Any] = []
    registry = line.env.registry

    @line.process
    def watch(ctx: SimulationContext) -> Model:
        seen.append((yield ctx.until("mode", "auto")))
        seen.append((yield ctx.wait_until("heat", lambda heat: heat > 100)))
        try:
            yield ctx.wait_until("heat", lambda heat: 1 / (heat - 50) > 10)
        except ZeroDivisionError:
            seen.append(ctx.env.now)

    run(line, 1)
    registry.update("L.variables.heat", 110)
    registry.update("L.variables.heat", 60)
    run(line, 2)
    registry.update("L.variables.heat", 50)
    run(line, 3)
    assert seen == ["auto", 110.0, 2.0]
    with pytest.raises(RuleViolation):
        line.until("mode", "automatic")
    with pytest.raises(ZeroDivisionError):
        line.wait_until("heat", lambda heat: 1 / 0)


def test_thousands_of_abandoned_conditions_leave_nothing_and_one_that_is_waited_for_again_works(
    line: SimulationContext,
) -> None:
    """A condition is looked at only while somebody waits for it, and sees what happened in between."""
    variable = line.watch("heat")
    seen: list[Any] = []

    def impatient() -> Model:
        hot = variable.wait_until(lambda heat: heat > 100)
        yield hot | line.env.timeout(1)
        assert not hot.triggered
        yield line.env.timeout(2)
        seen.append((yield hot | line.env.timeout(5)) == {})

    for _ in range(3_000):
        line.spawn(impatient())
    run(line, 0.5)
    assert len(variable.awaited) == 3_000
    run(line, 2)
    assert variable.awaited == {}
    line.env.registry.update("L.variables.heat", 150)
    run(line, 4)
    assert (seen, variable.awaited) == ([False] * 3_000, {})


def test_a_value_that_was_never_set_fulfils_nothing_and_a_removed_one_says_so(line: SimulationContext) -> None:
    """The predicate is not asked about None; who waits when it is removed gets Removed."""
    line.add_variable("load", None, type=float)
    ends: list[str] = []

    def waiter(event: Event) -> Model:
        try:
            ends.append(str((yield event)))
        except Removed as error:
            ends.append(error.value)

    line.spawn(waiter(line.wait_until("load", lambda load: load > 1)))
    run(line, 1)
    line.env.registry.update("L.variables.load", 2)
    for event in (line.wait_until("heat", lambda heat: heat > 180), line.watch("heat").wait_for_change()):
        line.spawn(waiter(event))
    heat = line.watch("heat")
    run(line, 2)
    line.remove("heat")
    run(line, 3)
    assert ends == ["2.0", "path L.variables.heat", "path L.variables.heat"]
    for call in (heat.wait_for_change, lambda: heat.wait_until(bool)):
        with pytest.raises(Removed):
            call()
    with pytest.raises(UnknownPath):
        heat.update(3)


def test_telemetry_is_published_now_and_after_every_interval(line: SimulationContext) -> None:
    """With the path of the line, on the stream of telemetry; the interval may be text."""

    @line.telemetry_loop("2 s")
    def vitals(ctx: SimulationContext) -> None:
        ctx.publish("lathe.in_use", ctx.get_resource("lathe").in_use)

    line.env.run(until=5)
    outputs = line.env.drain()
    assert [(output.tick // SECOND, output.key, output.stream) for output in outputs] == [
        (at, "L.lathe.in_use", "telemetry") for at in (0, 2, 4)
    ]
    for wrong in (0, -1, "0 s"):
        with pytest.raises(ModelError, match="more than 0 s"):
            line.telemetry_loop(wrong)


def test_causes_and_errors_name_the_functions_of_the_author(line: SimulationContext) -> None:
    """Our wrappers are not what anybody looks for."""
    mill = line.task("milling", "lathe")(lambda part: None)

    @line.arrival_loop("parts")
    def feed(ctx: SimulationContext) -> Model:
        yield ctx.wait_for_arrival("parts")
        ctx.spawn(mill(1))
        with pytest.raises(ModelError, match="by feed: it holds no unit of it"):
            ctx.get_resource("lathe").release()

    line.env.run(until=5)
    assert "feed" in line.env.drain()[0].root


MISTAKES: list[tuple[Callable[[SimulationContext], Any], str]] = [
    (lambda line: line.add_resource("lathe", 1), "declared already"),
    (lambda line: line.add_resource("a.b", 1), "without a dot"),
    (lambda line: line.add_resource("a b", 1), "segments of"),
    (lambda line: line.add_resource("x", None), "say how much"),
    (lambda line: line.add_resource("x", 3, 2), "at most max_cap 2"),
    (lambda line: line.add_store("x", 1.5), "not a whole number"),
    (lambda line: line.add_container("x", 5, init=6), "at most the capacity"),
    (lambda line: line.add_variable("x", 1, low=2), "at least 2"),
    (lambda line: line.add_service("x", "exponential", rate=0), "above 0"),
    (lambda line: line.add_service("x", "normal", mean=1), "normal takes mean and std"),
    (lambda line: line.add_arrival("x", "poisson", rate=1), "dist"),
    (lambda line: line.add_breakdown("x", "nothing", None, None), "there are L.resources.lathe"),
    (lambda line: line.task("milling", "drill")(print), "there are L.resources.lathe"),
    (lambda line: line.task("drilling", "lathe")(print), "no such path"),
    (lambda line: line.task("milling", "lathe", on_breakdown="ignore")(print), "one of resume, restart, scrap"),
    (lambda line: line.task(lambda: None), "a generator function"),
    (lambda line: line.arrival_loop("nothing"), "no such path"),
    (lambda line: line.process(lambda ctx: 3), "a function with yield"),
    (lambda line: line.spawn(iter), "call it"),
    (lambda line: line.value("nothing"), "no such path"),
    (lambda line: line.get_store("lathe"), "no such resource, container or store"),
    (lambda line: line.remove("nothing"), "nothing of L has that name"),
    (lambda line: line.remove("stores.lathe"), "nothing of L has that name"),
]


@pytest.mark.parametrize(("mistake", "rule"), MISTAKES)
def test_a_mistake_is_named_where_it_is_made(line: SimulationContext, mistake: Callable[[Any], Any], rule: str) -> None:
    """In build, with the value, the rule and what to do; nothing is half declared."""
    before = line.env.registry.paths()
    with pytest.raises(ModelError, match=rule) as caught:
        mistake(line)
    assert all((caught.value.value, caught.value.rule, caught.value.action))
    assert line.env.registry.paths() == before


def test_bare_task_is_a_generator_function_of_its_own(line: SimulationContext) -> None:
    """It is spawned like the others, and does all itself."""

    @line.task
    def cut(part: int) -> Model:
        yield line.env.timeout(part)
        return part

    process = line.spawn(cut(3))
    run(line, 5)
    assert process.value == 3


def test_two_things_of_one_name_are_removed_by_their_kind(line: SimulationContext) -> None:
    """A name alone would be a guess."""
    line.add_store("parts", 3)
    with pytest.raises(ModelError, match="it is one of stores, arrival; name one"):
        line.remove("parts")
    line.remove("stores.parts")
    line.remove("parts")
    assert line.env.registry.paths("L.arrival") == line.env.registry.paths("L.stores") == []


def test_a_line_has_what_a_parameter_set_has_registered_for_it() -> None:
    """Resources are built and breakdowns begin without another word."""
    env = Environment()
    constant = DistributionConfig("constant", mean=5)
    env.registry.register_sim_parameter(
        SimParameter(
            sim_id="L",
            resources={"m": CapacityConfig(current_cap=2)},
            containers={"tank": CapacityConfig(current_cap=7.75)},
            stores={"shelf": CapacityConfig(current_cap=3)},
            breakdowns={"b": BreakdownConfig(resource="m", up=constant, down=constant)},
        )
    )
    line = SimulationContext(env, "L")
    assert (line.get_resource("m").capacity, line.get_container("tank").capacity, line.get_store("shelf").capacity) == (
        2,
        7.75,
        3,
    )
    env.run(until=6)
    assert line.get_resource("m").failed == 1
    lost = SimParameter(sim_id="M", breakdowns={"b": BreakdownConfig(resource="m", up=constant, down=constant)})
    env.registry.register_sim_parameter(lost)
    with pytest.raises(UnknownPath, match="there are none yet"):
        SimulationContext(env, "M")
    line.add_resource("p", 1, preemptive=True)
    assert isinstance(line.get_resource("p"), DynamicPreemptiveResource)


# ---------------------------------------------------------------------- the program of the documentation
def factory(readings: list[tuple[float, str, Any]], events: Path) -> Callable[[tw.Twin], None]:
    def build(twin: tw.Twin) -> None:
        line = (
            twin.line("Line_A")
            .add_resource("lathe", current_cap=2, max_cap=5)
            .add_service("milling", "lognormal", mean=300.0, std=60.0)
            .add_arrival("parts", "exponential", rate=1 / 200)
            .add_variable("temperature", 70.0, low=-50.0, high=250.0, unit="degF")
            .add_variable("mode", "auto", one_of=("auto", "stopped"))
        )

        @line.task("milling", "lathe", on_breakdown="resume")
        def mill(part: int) -> dict[str, Any]:
            return {"part": part, "hot": line.value("temperature") > 95.0}

        @line.arrival_loop("parts")
        def feed(ctx: SimulationContext) -> Model:
            for part in itertools.count():
                yield ctx.wait_for_arrival("parts")
                yield ctx.until("mode", "auto")
                ctx.spawn(mill(part))

        @line.process
        def trip(ctx: SimulationContext) -> Model:
            lathe = ctx.get_resource("lathe")
            while True:
                yield ctx.wait_until("temperature", lambda degrees: degrees > 105.0)
                lathe.fail(units=1, interrupt=True)
                yield ctx.env.timeout(1800)
                lathe.repair(units=1)

        @line.telemetry_loop(interval=600.0)
        def vitals(ctx: SimulationContext) -> None:
            ctx.publish("lathe.in_use", ctx.get_resource("lathe").in_use)

        assert twin.line("Line_A") is line
        twin.connect(tw.sources.schedule(readings))
        twin.sink(tw.sinks.jsonl(str(events)))

    return build


def hot_day() -> Iterator[tuple[float, str, Any]]:
    yield 3_000.0, "Line_A.variables.temperature", 99.0
    yield 5_000.0, "Line_A.variables.temperature", 110.0
    yield 5_600.0, "Line_A.variables.temperature", 80.0
    yield 9_000.0, "Line_A.resources.lathe.failed", 2
    yield 9_100.0, "Line_A.topology", {"op": "add_resource", "name": "drill", "current_cap": 2}
    yield 9_200.0, "Line_A.variables.mode", "stopped"
    yield 12_000.0, "Line_A.resources.lathe.failed", 0
    yield 13_000.0, "Line_A.service.milling", {"dist": "constant", "mean": 1.0}
    yield 14_000.0, "Line_A.variables.mode", "auto"


def test_the_program_of_the_documentation_runs_and_replays(tmp_path: Path) -> None:
    """Live, and again from its journal: one digest; the alarm interrupts, the mode stops, the new service counts."""
    build = factory(list(hot_day()), tmp_path / "events.jsonl")
    with tw.open(str(tmp_path / "line.tw"), build) as twin:
        summary = twin.run(until="8h")
        assert twin.registry.get("Line_A.resources.drill.current_cap").value == 2
        assert twin.env.resources["Line_A.resources.lathe"].state()["capacity"] == 2
    assert summary.refused == 0
    text = (tmp_path / "events.jsonl").read_text()
    for status in ("queued", "started", "finished", "interrupted", "resumed"):
        assert f'"lifecycle":"{status}"' in text
    assert '"hot":true' in text
    replayed = tw.replay(str(tmp_path / "line.tw"), build)
    assert replayed.equal
    assert replayed.digest == summary.digest


def test_the_twin_hands_out_containers_stores_parameters_and_samplers(tmp_path: Path) -> None:
    """The members of a twin that stand beside its line."""
    made: dict[str, Any] = {}

    def build(twin: tw.Twin) -> None:
        twin.parameters(SimParameter(sim_id="P", service={"s": DistributionConfig("constant", mean=2)}))
        made["tank"] = twin.container("tank", 7.75, init=1.5)
        made["shelf"] = twin.store("shelf", 3, priority=True)
        made["delay"] = twin.sampler("x").sample(twin.registry.get_config("P.service.s"))
        made["id"] = twin.publish_telemetry("P.level", made["tank"].level)
        made["line"] = twin.line("P")

    with tw.open(str(tmp_path / "p.tw"), build) as twin:
        twin.run(until=1)
        with pytest.raises(ModelError, match="only a journaled input or the model itself"):
            twin.publish_telemetry("P.level", 1)
        with pytest.raises(ModelError, match="from outside the run"):
            made["line"].spawn(x for x in ())
    assert (made["tank"].level, made["shelf"].capacity, made["delay"]) == (1.5, 3, 2.0)
