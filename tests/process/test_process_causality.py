"""Every event knows what made it happen, back to the input or the process that began it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
import simpy
from pydantic import BaseModel

from tidewarp.codec import unpack
from tidewarp.connect.contract import Input, Output
from tidewarp.process import DynamicResource, Environment
from tidewarp.process.changes import Change

S = 10**9
Process = Generator[simpy.Event, Any, None]


def given(tick: int, value: float, offset: int = 0, **more: str) -> Input:
    return Input(tick, 1, 2, offset, (("a", value),), tick, **more)


def links(outputs: list[Output]) -> list[tuple[str, str, str]]:
    """(key, what the cause is, root): a cause that is an output stands by its key."""
    keys = {one.id: one.key for one in outputs}
    return [(one.key, keys.get(one.cause, one.cause), one.root) for one in outputs]


def sliced(env: Environment) -> None:
    while env.run_slice(1_000 * S, 1) == "budget":
        pass


def stepped(env: Environment) -> None:
    while env.peek() < 1_000:
        env.step()


DRIVES: list[Callable[[Environment], None]] = [sliced, stepped, lambda env: env.run(until=1_000)]


@pytest.mark.parametrize("drive", DRIVES, ids=["slices", "steps", "run"])
def test_a_publication_is_the_cause_of_what_its_process_does_next(drive: Callable[[Environment], None]) -> None:
    """Through timeouts, spawned processes, conditions, interrupts and a unit that another process gives back."""
    env = Environment()
    oven = DynamicResource(env, "oven", 1)

    def child() -> Process:
        env.publish_event("child", None)
        yield env.timeout(50) | env.event()
        env.publish_event("child.later", None)

    def first() -> Process:
        env.publish_event("first", None)
        with oven.request() as place:
            yield place
            yield env.timeout(1)
            env.publish_event("first.done", None)
        env.process(child())
        sleeping.interrupt()

    def second() -> Process:
        with oven.request() as place:
            yield place
            env.publish_event("second.has", None)

    def sleeper() -> Process:
        with pytest.raises(simpy.Interrupt):
            yield env.event()
        env.publish_event("woken", None)

    env.process(first())
    env.process(second())
    sleeping = env.process(sleeper())
    drive(env)
    root = "process:0:first"
    assert links(env.drain()) == [
        ("first", root, root),
        ("first.done", "first", root),
        ("child", "first.done", root),
        ("woken", "first.done", root),
        ("second.has", "first.done", root),
        ("child.later", "child", root),
    ]
    assert (env.cause, env.root) == (None, None)


@pytest.mark.parametrize("drive", DRIVES, ids=["slices", "steps", "run"])
def test_two_who_wait_for_one_event_do_not_inherit_from_each_other(drive: Callable[[Environment], None]) -> None:
    """The first of them publishes; the cause of the second is still the event's."""
    env = Environment()
    bell = env.event()

    def waits(name: str) -> Process:
        yield bell
        env.publish_event(name, None)

    def rings() -> Process:
        yield env.timeout(3)
        env.publish_event("ring", None)
        bell.succeed()

    for generator in (waits("one"), waits("two"), rings()):
        env.process(generator)
    drive(env)
    root = "process:2:rings"
    assert links(env.drain()) == [("ring", root, root), ("one", "ring", root), ("two", "ring", root)]


def test_an_input_is_a_root_named_by_its_place_or_by_the_output_that_it_carries() -> None:
    """Also where it wakes a process that was started under another root."""
    env = Environment()
    env.causality.sources = {1: "plc"}
    value = env.registry.declare("a", float)
    seen: list[tuple[str | None, str | None, Change]] = []

    def watch() -> Process:
        while True:
            change = yield value.wait_for_change()
            seen.append((env.cause, env.root, change))
            env.publish_telemetry("line.seen", change.new)
            yield env.timeout(1)
            env.publish_event("after", None)

    env.process(watch())
    env.run_slice(S)
    env.apply([given(S, 1.0, 7)])
    env.run_slice(5 * S)
    env.apply([given(5 * S, 2.0, 8, cause="00-01")])
    env.run_slice(9 * S)
    here, there = "plc[2:7]", "00-01"
    assert [(cause, root, change.cause) for cause, root, change in seen] == [(here,) * 3, (there,) * 3]
    outputs = env.drain()
    assert links(outputs) == [
        ("line.seen", here, here), ("after", "line.seen", here),
        ("line.seen", there, there), ("after", "line.seen", there),
    ]  # fmt: skip
    assert [one.stream for one in outputs] == ["telemetry", "event"] * 2


def test_inputs_of_one_series_have_their_own_causes() -> None:
    """Each wakes a waiter of its own; a refusal is caused by what was refused."""
    env = Environment()
    for path in "ab":
        env.registry.declare(path, float, high=5)

    def watch(path: str) -> Process:
        yield env.registry.get(path).wait_for_change()
        env.publish_event(path, None)

    env.process(watch("a"))
    env.process(watch("b"))
    env.run_slice(S)
    inputs = [
        Input(S, 1, 0, 0, (("a", 1.0),), S),
        Input(S, 1, 0, 1, (("b", 9.0),), S),
        Input(S, 1, 0, 2, (("b", 2.0),), S),
    ]
    assert len(env.apply(inputs)) == 1
    env.run_slice(2 * S)
    ids = [f"1[0:{offset}]" for offset in range(3)]
    assert links(env.drain()) == [
        ("system.input.refused", ids[1], ids[1]),
        ("a", ids[0], ids[0]),
        ("b", ids[2], ids[2]),
    ]


def test_a_change_that_is_asked_for_later_names_the_cause_that_it_had() -> None:
    """`since` gives the last change, whoever asks."""
    env = Environment()
    value = env.registry.declare("a", float)
    got: list[Change] = []

    def late() -> Process:
        yield env.timeout(4)
        got.append((yield value.wait_for_change(since=0)))

    env.process(late())
    env.run_slice(S)
    env.apply([given(S, 1.0, 3)])
    env.run_slice(9 * S)
    assert got == [Change("a", None, 1.0, 1, S, "1[2:3]")]


def test_what_nobody_caused_says_so() -> None:
    """A publication while building, or by a callback of an event made then, has no cause and founds no root."""
    env = Environment()
    env.publish_event("built", None)
    env.timeout(1).callbacks.append(lambda _: env.publish_event("called", None))

    def plain() -> Process:
        yield env.timeout(2)
        env.publish_event("plain", None)

    env.process(plain())
    env.run_slice(3 * S)
    root = "process:0:plain"
    assert links(env.drain()) == [("built", "", ""), ("called", "", ""), ("plain", root, root)]


def test_a_failure_or_a_stop_leaves_nothing_current() -> None:
    """What is started afterwards is a root."""
    env = Environment()

    def fails() -> Process:
        yield env.timeout(1)
        raise OSError("broken")

    env.process(fails())
    with pytest.raises(OSError, match="broken"):
        env.run()
    assert env.cause is None
    stop = env.timeout(1)
    env.run(until=stop)
    assert (env.cause, env.root) == (None, None)
    stop.env.process(iter_of(env))
    env.run()
    assert [one.root for one in env.drain()] == ["process:1:iter_of"]


def iter_of(env: Environment) -> Process:
    yield env.timeout(1)
    env.publish_event("x", None)


def test_origins_form_no_chain() -> None:
    """After many publications in one process an event holds two short texts, and nothing that leads further back."""
    env = Environment()

    def speaks() -> Process:
        for _ in range(1_000):
            env.publish_event("x", None)
            yield env.timeout(1)

    env.process(speaks())
    env.run_slice(900 * S)
    (entry,) = env._queue
    origin = entry[3]._origin  # type: ignore[attr-defined]
    assert [type(part) for part in origin] == [str, str]
    assert sum(map(len, origin)) < 60


def test_an_event_that_was_put_into_the_queue_by_hand_has_no_cause() -> None:
    """SimPy's queue stays a list of (time, priority, sequence, event); who writes into it is not stopped."""
    env = Environment()
    event = simpy.Event(env)
    event._ok, event._value = True, None
    event.callbacks.append(lambda _: env.publish_event("x", env.cause))
    env._queue.append((1.0, simpy.core.NORMAL, 0, event))
    env.run_slice(2 * S)
    assert [(one.cause, one.root) for one in env.drain()] == [("", "")]


def test_a_schedule_of_ones_own_sees_every_event() -> None:
    """As with SimPy, `env.schedule` may be wrapped on the object: timeouts pass through it, and keep their causes."""
    env = Environment()
    schedule, seen = env.schedule, []

    def noting(event: simpy.Event, *more: Any, **options: Any) -> None:
        seen.append(type(event).__name__)
        schedule(event, *more, **options)

    env.schedule = noting  # type: ignore[method-assign]
    env.process(iter_of(env))
    env.run()
    assert seen == ["Initialize", "Timeout", "Process"]
    assert [one.root for one in env.drain()] == ["process:0:iter_of"]


def test_a_pydantic_model_is_published_as_its_fields() -> None:
    """Its JSON form, so a moment in it is text; one that has no such form is noted as any other value."""

    class Done(BaseModel):
        part: int
        at: datetime

    class Odd(BaseModel):
        model_config = {"arbitrary_types_allowed": True}
        what: object

    env = Environment()
    env.publish_event("done", Done(part=3, at=datetime(2026, 11, 22, tzinfo=UTC)))
    env.publish_event("odd", Odd(what=Odd))
    done, odd = env.drain()
    assert unpack(done.value) == {"part": 3, "at": "2026-11-22T00:00:00Z"}
    assert unpack(odd.value)["undeliverable"] == "Odd"
    assert env.undeliverable == 1


@dataclass
class Cut:
    depth: float
    by: dict[str, Any]


def test_dataclasses_and_mappings_are_published_as_their_fields() -> None:
    """Also within a list or an object; nesting without end is noted, whatever the depth of the stack."""

    class Tool(BaseModel):
        name: str

    env = Environment()
    env.publish_event(
        "cut", Cut(0.5, {"tools": [Tool(name="drill")], "more": MappingProxyType({"n": (1, Cut(1.0, {}))})})
    )
    endless: dict[str, Any] = {}
    endless["self"] = endless
    env.publish_event("endless", Cut(0.5, endless))
    env.publish_event("key", MappingProxyType({1: 2}))
    env.publish_event("class", Cut)
    values = [unpack(output.value) for output in env.drain()]
    whole = {"tools": [{"name": "drill"}], "more": {"n": [1, {"depth": 1.0, "by": {}}]}}
    assert values[0] == {"depth": 0.5, "by": whole}
    assert [(one["undeliverable"], one["reason"].rpartition(": ")[2]) for one in values[1:]] == [
        ("Cut", "nested too deep"),
        ("mappingproxy", "map keys are str"),
        ("type", "no canonical form"),
    ]
    assert env.undeliverable == 3
