"""What a line is made of changes while it runs, from inside and from outside."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simpy.events import Event

import tidewarp as tw
from tidewarp import codec
from tidewarp.connect.contract import Input
from tidewarp.errors import ModelError, RuleViolation, UnknownPath
from tidewarp.process import DistributionConfig, DynamicPreemptiveResource, Environment, SimulationContext

Model = Generator[Event, Any, Any]
SECOND = 10**9


@pytest.fixture
def line() -> SimulationContext:
    line = SimulationContext(Environment(seed=1), "L")
    return (
        line.add_resource("lathe", 1)
        .add_service("milling", "constant", mean=10)
        .add_arrival("parts", "constant", mean=3)
    )


def put(line: SimulationContext, at: float, *changes: tuple[str, Any]) -> list[str]:
    """One update from outside at a time in s; why it was refused."""
    line.env.run_slice(round(at * SECOND))
    return [
        refusal.reason for refusal in line.env.apply([Input(round(at * SECOND), 1, 0, 0, changes, round(at * SECOND))])
    ]


def order(op: str, name: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "L.topology", {"op": op, "name": name, **fields}


def test_every_kind_of_thing_can_be_added_from_outside(line: SimulationContext) -> None:
    """And is used from that moment on, by updates as by processes."""
    for number, change in enumerate(
        [
            order("add_resource", "drill", current_cap=2, max_cap=4, preemptive=True),
            order("add_container", "tank", current_cap=7.75, init=1.5),
            order("add_store", "shelf", current_cap=3, priority=True),
            order("add_variable", "load", value=None, type="float", low=0, unit="kg"),
            order("add_variable", "mode", value="a", one_of=["a", "b"]),
            order("add_service", "drilling", dist="uniform", low=1, high=2),
            order("add_arrival", "orders", dist="exponential", rate=0),
        ]
    ):
        assert put(line, number + 1, change) == []
    drill = line.get_resource("drill")
    assert isinstance(drill, DynamicPreemptiveResource)
    assert (drill.capacity, line.get_container("tank").level, line.get_store("shelf").capacity) == (2, 1.5, 3)
    assert (
        put(line, 20, ("L.variables.load", "3.5"), ("L.resources.drill.current_cap", 4), ("L.variables.mode", "b"))
        == []
    )
    assert (line.value("load"), drill.capacity, line.value("mode")) == (3.5, 4, "b")
    assert line.service("drilling") == DistributionConfig("uniform", low=1, high=2)


def test_a_removed_resource_fails_who_waits_and_lets_the_job_finish(line: SimulationContext) -> None:
    """Jobs that queue, and those that begin later, are scrapped; the run goes on; the name is free again."""
    mill = line.task("milling", "lathe")(lambda part: {"part": part})
    for part in range(2):
        line.spawn(mill(part))

    @line.arrival_loop("parts")
    def feed(ctx: SimulationContext) -> Model:
        yield ctx.wait_for_arrival("parts")
        yield ctx.wait_for_arrival("parts")
        ctx.spawn(mill(2))

    assert put(line, 5, order("remove", "lathe")) == []
    line.env.run_slice(30 * SECOND)
    outputs = [(output.tick // SECOND, output.key, codec.unpack(output.value)) for output in line.env.drain()]
    assert [(at, key, value["lifecycle"]) for at, key, value in outputs] == [
        (0, "task-0", "queued"),
        (0, "task-1", "queued"),
        (0, "task-0", "started"),
        (5, "task-1", "scrapped"),
        (6, "task-2", "queued"),
        (6, "task-2", "scrapped"),
        (10, "task-0", "finished"),
    ]
    assert "no such path" in put(line, 31, ("L.resources.lathe.current_cap", 2))[0]
    assert line.env.registry.paths("L.resources") == []
    assert put(line, 32, order("add_resource", "lathe", current_cap=3)) == []
    process = line.env.process(mill(3))
    line.env.run_slice(50 * SECOND)
    assert process.value == {"part": 3}


def test_a_removed_service_and_arrival_end_what_needs_them(line: SimulationContext) -> None:
    """A job under way has drawn its time; the loop of the arrival ends, and so does one that waits for a rate above 0."""
    mill = line.task("milling", "lathe")(lambda part: None)
    line.add_arrival("stopped", "exponential", rate=0)

    @line.arrival_loop("stopped")
    def never(ctx: SimulationContext) -> Model:
        yield ctx.wait_for_arrival("stopped")
        raise AssertionError

    @line.arrival_loop("parts")
    def feed(ctx: SimulationContext) -> None:
        ctx.spawn(mill(round(ctx.env.now)))

    assert put(line, 5, order("remove", "milling")) == []
    assert put(line, 7, order("remove", "arrival.parts")) == []
    assert put(line, 8, order("remove", "stopped")) == []
    line.env.run_slice(100 * SECOND)
    outputs = [
        (output.tick // SECOND, output.key, codec.unpack(output.value)["lifecycle"]) for output in line.env.drain()
    ]
    assert [(at, key) for at, key, status in outputs if status == "finished"] == [(13, "task-3")]
    assert [(at, key) for at, key, status in outputs if status == "scrapped"] == [(13, "task-6"), (13, "task-9")]
    assert (line.env.peek(), len(line.env._live)) == (float("inf"), 0)


def test_what_is_replaced_within_an_instant_ends_no_process(line: SimulationContext) -> None:
    """The old resource's queue is scrapped although there is one of that name again; the arrival goes on with the new rate."""
    job = line.task("milling", "lathe")(lambda part: None)
    for part in range(2):
        line.spawn(job(part))
    line.add_arrival("orders", "exponential", rate=0)
    arrived: list[float] = []

    @line.arrival_loop("orders")
    def feed(ctx: SimulationContext) -> None:
        arrived.append(ctx.env.now)

    for name, again in (
        ("lathe", order("add_resource", "lathe", current_cap=1)),
        ("orders", order("add_arrival", "orders", dist="constant", mean=2)),
    ):
        tick = 5 * SECOND
        line.env.run_slice(tick)
        given = [Input(tick, 1, 0, n, (change,), tick) for n, change in enumerate((order("remove", name), again))]
        assert line.env.apply(given) == []
    line.env.run_slice(12 * SECOND)
    outputs = [
        (output.tick // SECOND, output.key, codec.unpack(output.value)["lifecycle"]) for output in line.env.drain()
    ]
    assert outputs[-2:] == [(5, "task-1", "scrapped"), (10, "task-0", "finished")]
    assert arrived == [7, 9, 11]


def test_the_same_order_can_be_given_again_after_its_opposite(line: SimulationContext) -> None:
    """An equal value is no change of the variable, but it is an order."""

    def remove() -> Model:
        yield line.env.timeout(1)
        line.remove("drill")

    for turn in range(3):
        assert put(line, 10 * turn + 1, order("add_resource", "drill", current_cap=1)) == []
        line.env.process(remove())
        assert line.env.registry.paths("L.resources.drill")
    line.env.run_slice(100 * SECOND)
    assert line.env.registry.paths("L.resources.drill") == []


def test_the_model_itself_may_add_and_remove_while_it_runs(line: SimulationContext) -> None:
    """A second machine for a while, with its own breakdowns; who waits for it afterwards is told so."""
    finished: list[float] = []

    @line.process
    def extend(ctx: SimulationContext) -> Model:
        yield ctx.env.timeout(5)
        ctx.add_resource("extra", 1).add_service("quick", "constant", mean=2)
        always = DistributionConfig("constant", mean=3)
        ctx.add_breakdown("rust", "extra", always, always)
        job = ctx.task("quick", "extra")(lambda part: finished.append(ctx.env.now))
        jobs = [ctx.spawn(job(part)) for part in range(3)]
        yield ctx.env.timeout(8)
        ctx.remove("extra")
        yield ctx.env.all_of(jobs)
        ctx.remove("rust")
        ctx.remove("quick")

    line.env.run_slice(100 * SECOND)
    events = [
        (output.tick // SECOND, output.key, codec.unpack(output.value)["lifecycle"]) for output in line.env.drain()
    ]
    assert [event for event in events if event[2] in ("finished", "interrupted", "resumed", "scrapped")] == [
        (7, "task-0", "finished"),
        (8, "task-1", "interrupted"),
        (11, "task-1", "resumed"),
        (12, "task-1", "finished"),
        (14, "task-2", "finished"),
    ]
    assert finished == [5, 7, 12]
    assert line.env.registry.paths() == sorted(
        [
            "L.topology",
            *line.env.registry.paths("L.arrival"),
            *line.env.registry.paths("L.resources.lathe"),
            *line.env.registry.paths("L.service.milling"),
        ]
    )


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "op None: one of add_resource"),
    ({"op": "explode", "name": "x"}, "op 'explode': one of"),
    ({"op": ["add_resource"], "name": "x"}, "one of"),
    ({"op": "add_resource"}, "needs current_cap, name"),
    ({"op": "add_resource", "name": "x", "current_cap": 1, "colour": "red"}, "may have max_cap, preemptive"),
    ({"op": "add_resource", "name": "x", "current_cap": 7.75}, "not a whole number"),
    ({"op": "add_resource", "name": "x", "current_cap": None}, "current_cap None"),
    ({"op": "add_resource", "name": "x", "current_cap": 2, "max_cap": 1}, "at most max_cap 1"),
    ({"op": "add_resource", "name": "x", "current_cap": 2, "preemptive": 1}, "true or false"),
    ({"op": "add_resource", "name": "lathe", "current_cap": 2}, "declared already"),
    ({"op": "add_resource", "name": "a.b", "current_cap": 2}, "without a dot"),
    ({"op": "add_resource", "name": ["a"], "current_cap": 2}, "without a dot"),
    ({"op": "add_resource", "name": "x" * 300, "current_cap": 2}, "at most 255 bytes"),
    ({"op": "add_container", "name": "x", "current_cap": 2, "init": 3}, "at most the capacity"),
    ({"op": "add_variable", "name": "x", "value": 1, "type": "complex"}, "one of bool, int"),
    ({"op": "add_variable", "name": "x", "value": 1, "one_of": 3}, "a list of values"),
    ({"op": "add_variable", "name": "x", "value": "a", "low": "z"}, "low <= high"),
    ({"op": "add_service", "name": "x", "dist": "exponential", "rate": 0}, "above 0"),
    ({"op": "add_service", "name": "x", "dist": "exponential", "rate": "fast"}, "rate"),
    ({"op": "add_breakdown", "name": "x", "resource": "lathe"}, "one of add_resource"),
    ({"op": "remove", "name": "nothing"}, "nothing of L has that name"),
    ({"op": "remove", "name": 3}, "nothing of L has that name|without a dot"),
    ({"op": "remove", "name": "lathe", "force": True}, "remove needs name"),
]


@pytest.mark.parametrize(("document", "rule"), WRONG)
def test_an_order_that_cannot_be_carried_out_is_refused_whole(
    line: SimulationContext, document: dict[str, Any], rule: str
) -> None:
    """It is an update like others: refused by the state of the moment, with the reason, and nothing has changed."""
    before = line.env.registry.state()
    with pytest.raises(RuleViolation, match=rule) as caught:
        line.env.registry.update("L.topology", document)
    assert all((caught.value.value, caught.value.rule, caught.value.action))
    assert line.env.registry.state() == before
    reasons = put(line, 1, ("L.topology", document))
    assert len(reasons) == 1
    assert line.env.registry.state() == before


SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 5) | st.floats() | st.sampled_from(["", "lathe", "x", "constant", "é"])
)
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from(["op", "x", "é"]), SCALARS, max_size=1)
FIELDS = ("name", "current_cap", "max_cap", "init", "priority", "preemptive", "value", "type", "low", "high", "one_of", "unit", "dist", "rate", "mean", "values")  # fmt: skip
ORDERS = st.fixed_dictionaries(
    {
        "op": st.sampled_from(
            ["add_resource", "add_container", "add_store", "add_variable", "add_service", "add_arrival", "remove"]
        )
    },
    optional={field: st.sampled_from(["lathe", "x"]) | JSON if field == "name" else JSON for field in FIELDS},
)


@given(st.lists(ORDERS, max_size=3))
def test_no_order_from_outside_ends_the_run(orders: list[dict[str, Any]]) -> None:
    """Whatever is in it: carried out, or refused with nothing changed."""
    line = SimulationContext(Environment(), "L").add_resource("lathe", 1)
    for at, document in enumerate(orders):
        before = line.env.registry.state()
        if put(line, at + 1, ("L.topology", document)):
            assert line.env.registry.state() == before
    codec.pack(line.env.state())


def test_topology_is_part_of_an_update_that_happens_whole_or_not_at_all(line: SimulationContext) -> None:
    """A line is not changed by an update of which another part is refused."""
    with pytest.raises(RuleViolation):
        line.env.registry.update_many(
            {"L.topology": order("add_resource", "drill", current_cap=1)[1], "L.resources.lathe.current_cap": 9}
        )
    assert line.env.registry.paths("L.resources.drill") == []
    with pytest.raises(UnknownPath, match="no such resource, container or store"):
        line.get_resource("drill")


def test_a_removed_variable_belongs_to_the_registry_alone(line: SimulationContext) -> None:
    """A path that a resource or a distribution stands behind is removed with it, not alone."""
    registry = line.env.registry
    registry.declare("own", float, 1.0)
    registry.remove("own")
    with pytest.raises(UnknownPath):
        registry.update("own", 2.0)
    for path in ("L.resources.lathe.current_cap", "L.service.milling.mean", "L.service.milling", "L.topology"):
        with pytest.raises(ModelError, match="remove that as a whole"):
            registry.remove(path)
    line.env.seal()
    for call in (
        lambda: registry.remove("L.variables.x"),
        lambda: line.remove("lathe"),
        lambda: line.remove("milling"),
    ):
        with pytest.raises(ModelError, match="from outside the run"):
            call()
    assert registry.paths("L.service.milling")


def test_topology_changes_are_replayed(tmp_path: Path) -> None:
    """Added, used, removed and added again: a run from its journal has the same digest."""

    def build(twin: tw.Twin) -> None:
        line = twin.line("L").add_service("s", "exponential", rate=0.1).add_arrival("a", "exponential", rate=0.1)
        line.add_resource("m", 1)
        job = line.task("s", "m")(lambda part: None)

        @line.arrival_loop("a")
        def feed(ctx: SimulationContext) -> None:
            ctx.spawn(job(round(ctx.env.now)))

        twin.connect(
            tw.sources.schedule(
                [
                    (100.0, *order("add_variable", "load", value=1.0)),
                    (200.0, "L.resources.m.max_cap", 4),
                    (300.0, *order("remove", "m")),
                    (400.0, *order("add_resource", "m", current_cap=2)),
                    (500.0, *order("add_resource", "m", current_cap=2)),
                ]
            )
        )

    with tw.open(str(tmp_path / "t.tw"), build) as twin:
        summary = twin.run(until=1_000)
        assert twin.registry.get("L.resources.m.max_cap").value == 2
    assert (summary.refused, tw.replay(str(tmp_path / "t.tw"), build).equal) == (1, True)
