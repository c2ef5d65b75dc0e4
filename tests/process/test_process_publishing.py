"""The short ways of publishing and of applying inputs: a skipped step, never another result."""

from __future__ import annotations

from collections.abc import Generator
from enum import StrEnum
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from tidewarp import codec
from tidewarp.codec.canonical import _pack
from tidewarp.connect.contract import Input, Output
from tidewarp.errors import CodecError, ModelError
from tidewarp.process import Environment, SimulationContext

S = 10**9
Process = Generator[simpy.Event, Any, None]


class Colour(StrEnum):
    RED = "red"


class Number(int):
    pass


ODD = st.sampled_from([Colour.RED, Number(3), float("nan"), 2**64, "\ud800", {1}, bytearray(b"x"), (1, 2), [1], {}])
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
KEYS = st.text(max_size=4) | st.sampled_from([Colour.RED, 1, None])


@given(st.dictionaries(KEYS, PLAIN | ODD, max_size=4))
def test_a_flat_mapping_has_the_bytes_and_the_error_of_any_other_value(value: dict[Any, Any]) -> None:
    """Whatever its keys and values are: subclasses, NaN, and what MessagePack has no room for."""

    def said(pack: Any, *more: Any) -> Any:
        try:
            return pack(value, *more)
        except CodecError as error:
            return str(error)

    assert said(codec.pack) == said(_pack, codec.DEPTH_MAX)


def test_ids_and_keys_go_on_beyond_what_is_remembered() -> None:
    """More outputs in one tick, and more keys, than are kept at hand; a bad key is refused at any time."""
    env = Environment()
    ids = [env.publish_event(f"key {n}", n) for n in range(2_500)]
    assert ids == [f"{0:016x}-{n:08x}" for n in range(2_500)]
    with pytest.raises(ModelError, match="printable ASCII"):
        env.publish_event("é", 1)
    assert [one.key for one in env.drain()] == [f"key {n}" for n in range(2_500)]
    assert env.drain() == []
    env.publish_event("key 7", 1)
    assert [(one.id, one.key) for one in env.drain()] == [(f"{0:016x}-{2_500:08x}", "key 7")]


def events_of_a_line(env: Environment) -> list[tuple[int, str, Any]]:
    line = SimulationContext(env, "line")
    line.add_resource("oven", 1).add_service("bake", "constant", mean=2.0)

    @line.task("bake", "oven")
    def nothing(number: int) -> None:
        """Its result is empty."""

    @line.task("bake", "oven")
    def something(number: int) -> dict[str, Any]:
        return {"number": number}

    for n in range(3):
        line.spawn((something if n == 1 else nothing)(n))
    env.run_slice(20 * S)
    return [(one.tick, one.key, codec.unpack(one.value)) for one in env.drain()]


def test_a_job_says_the_same_to_who_takes_the_place_of_publish_event() -> None:
    """Events of a status alone are encoded once; whoever overrides publishing still gets their fields."""
    heard: list[tuple[str, Any]] = []

    class Own(Environment):
        def publish_event(self, key: str, value: object, stream: str = "event") -> str:
            heard.append((key, dict(value)))  # type: ignore[call-overload]
            return super().publish_event(key, value, stream)

    found = events_of_a_line(Environment())
    assert found == events_of_a_line(Own())
    assert [(key, value) for _, key, value in found] == heard
    assert found[0] == (0, "task-0", {"path_id": "line.service.bake", "status": "queued", "lifecycle": "queued"})
    assert [value["lifecycle"] for _, key, value in found if key == "task-1"] == ["queued", "started", "finished"]
    assert [value.get("number") for _, key, value in found if key == "task-1"] == [None, None, 1]


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 2),  # ticks since the one before
        st.sampled_from("abcd"),
        st.sampled_from([0.0, 1.0, 2.0, -1.0, 9.0, 1, "2"]),  # some beyond the range of "b", some to be cast
    ),
    max_size=30,
)


def told(changes: list[tuple[int, str, Any]], *, together: bool) -> Any:
    """What a model with two who watch and one reader that is closed makes of the inputs."""
    env = Environment()
    if not together:  # one by one, and none by the short way
        env.registry.take_quiet = lambda inputs, start, end_s: start  # type: ignore[method-assign]
    seen: list[Any] = []
    for path in "ac":
        env.registry.declare(path, float)
    env.registry.declare("b", float, low=0, high=5)
    env.registry.declare("d", float)
    env.registry.get("c").changes().close()

    def watch(path: str, times: int) -> Process:
        for _ in range(times):
            change = yield env.registry.get(path).wait_for_change()
            seen.append(change)
            env.publish_event("seen", [change.new, env.cause])
            yield env.timeout(1e-9)

    for path, times in (("a", 3), ("d", 1)):
        env.process(watch(path, times))
    env.run_slice(1)
    tick, inputs = 1, []
    for offset, (step, path, value) in enumerate(changes):
        tick += step
        inputs.append(Input(tick, 1, 0, offset, ((path, value),), tick))
    refusals: list[Any] = []
    while inputs:
        env.run_slice(inputs[0].tick)
        done = env.apply_ahead(inputs if together else inputs[:1], refusals)
        inputs = inputs[done:]
    applied_s = env.now
    env.run_slice(tick + 9)
    last = {}
    for path in "abcd":
        event = env.registry.get(path).wait_for_change(since=0)
        last[path] = event.value if event.triggered else None
    outputs: list[Output] = env.drain()
    return env.registry.state(), seen, last, outputs, [(one.input.offset, one.path) for one in refusals], applied_s


@given(CHANGES)
def test_inputs_applied_in_a_series_are_applied_as_one_by_one(changes: list[tuple[int, str, Any]]) -> None:
    """Values, versions, times and causes of changes, who wakes when, what is refused."""
    assert told(changes, together=True) == told(changes, together=False)
