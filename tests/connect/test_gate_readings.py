"""Columns of readings and the same as single messages: one algorithm, whichever way they come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import unpack
from tidewarp.connect.contract import Input, Raw, Readings, Update
from tidewarp.connect.documents import PathTable, encode_inputs
from tidewarp.connect.gate import Append, Appended, Arrived, Asked, Connected, Gate, Policy
from tidewarp.errors import OperatorError, TidewarpError, UnknownPath
from tidewarp.process.rules import Rule
from tidewarp.units import TICK_MAX

RULES = {"a": Rule("a", float, low=0), "b": Rule("b", int), "c": Rule("c", str), "d": Rule("d", bool)}
VALUES: list[Any] = [0, 1, 2.0, 3.5, -1, True, "4", "x", None, [1], float("nan")]


class Packed:
    """The decoder of what `Readings.raw` writes."""

    def decode(self, raw: Raw) -> Update:
        tick, path, value = unpack(raw.payload)
        return Update(tick, ((path, value),))


def rule(path: str) -> Rule:
    if path not in RULES:
        raise UnknownPath(f"path {path}", "no such path", "declare it")
    return RULES[path]


def lived(policy: Policy, batches: list[Readings], *, columns: bool) -> tuple[list[Any], Any]:
    """Everything that the gate said about them, and the error that ended it, if one did."""
    gate = Gate(rule)
    gate.sources.register("s", policy)
    gate.sources.register("other", Policy())
    gate.handle(Connected("s", None if columns else Packed()))
    said: list[Any] = []
    try:
        for batch in batches:
            messages = batch if columns else [batch.raw(k) for k in range(len(batch.ticks))]
            instructions = gate.handle(Arrived("s", messages))
            appends = [one for one in instructions if isinstance(one, Append)]
            # How they are spread over records is no part of what they say.
            said += [[one for append in appends for one in getattr(append, part)] for part in ("inputs", "letters")]
            for append in appends:
                gate.handle(Appended(append.ticket))
            said.append(gate.handle(Asked(batch.ticks[0] if batch.ticks else 0)))
            said.append(
                (gate.sources.counts(), gate.sources.dead(), gate.positions("s"), gate.next_tick, gate.floor, gate.end)
            )
    except TidewarpError as error:
        return said, (type(error), error.args)
    return said, None


@st.composite
def batches(draw: st.DrawFn) -> list[Readings]:
    """In order or not, of any value and any path, at times with repeated offsets."""
    found: list[Readings] = []
    first = tick = 0
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0, 9))
        steps = st.integers(0, 5) if draw(st.booleans()) else st.integers(-8, 8)
        ticks = []
        for _ in range(size):
            tick = max(0, tick + draw(steps))
            ticks.append(tick)
        plain = draw(st.booleans())
        paths = draw(st.lists(st.sampled_from("ab" if plain else "abcdx"), min_size=size, max_size=size))
        values = draw(st.lists(st.sampled_from(VALUES[:4] if plain else VALUES), min_size=size, max_size=size))
        found.append(Readings(draw(st.integers(0, 1)), max(0, first - draw(st.integers(0, 1))), ticks, paths, values))
        first += size
    return found


@given(batches(), st.sampled_from(["stop", "clamp", "drop"]), st.integers(0, 6), st.integers(1, 5))
def test_columns_say_what_their_messages_say(
    given_batches: list[Readings], late: str, disorder: int, batch: int
) -> None:
    """Appends, grants, counts, dead letters, positions and errors are the same: the fast path is no other algorithm."""
    policy = Policy(disorder=disorder, late=late, batch=batch)
    by_column, by_message = (lived(policy, given_batches, columns=columns) for columns in (True, False))
    assert by_column == by_message


def admitted(*batches: Readings) -> tuple[list[Input], Gate]:
    gate = Gate(rule)
    gate.sources.register("s", Policy(late="drop"))
    gate.handle(Connected("s", None))
    inputs: list[Input] = []
    for batch in batches:
        for instruction in gate.handle(Arrived("s", batch)):
            if isinstance(instruction, Append):
                inputs += instruction.inputs
    return inputs, gate


def test_a_plain_batch_is_cast_and_stamped() -> None:
    """Each reading is an input of its own, its value as declared."""
    inputs, gate = admitted(Readings(2, 7, [10, 10, 30], ["a", "b", "a"], [1, 2.0, 3]))
    assert inputs == [
        Input(10, 1, 2, 7, (("a", 1.0),), 10),
        Input(10, 1, 2, 8, (("b", 2),), 10),
        Input(30, 1, 2, 9, (("a", 3.0),), 30),
    ]
    assert [type(one.changes[0][1]) for one in inputs] == [float, int, float]
    assert gate.positions("s") == {2: 9}


def test_columns_make_the_record_that_their_inputs_make() -> None:
    """One form in the journal, whichever way it was encoded."""
    gate = Gate(rule)
    gate.sources.register("s", Policy())
    gate.handle(Connected("s", None))
    batch = Readings(2, 7, [10, 10, 30, 40], ["a", "b", "a", "d"], [1, 2.0, 3.5, 0])
    (append,) = (one for one in gate.handle(Arrived("s", batch)) if isinstance(one, Append))
    assert append.columns is not None
    assert append.columns.values == [1.0, 2, 3.5, False]
    by_column = encode_inputs("s", 0, append.inputs, PathTable(), append.columns)
    assert by_column == encode_inputs("s", 0, append.inputs, PathTable())


@pytest.mark.parametrize(
    ("batch", "dead"),
    [
        (Readings(0, 0, [1, True], ["a", "a"], [1.0, 1.0]), {"time": 1}),
        (Readings(0, 0, [1, 2.5], ["a", "a"], [1.0, 1.0]), {"time": 1}),
        (Readings(0, 0, [1, TICK_MAX], ["a", "a"], [1.0, 1.0]), {"time": 1}),
        (Readings(0, 0, [1, 2], ["a", ["a"]], [1.0, 1.0]), {"path": 1}),  # type: ignore[list-item]
        (Readings(0, 0, [1, 2], ["a", "x"], [1.0, 1.0]), {"value": 1}),
        (Readings(0, 0, [1, 2], ["a", "a"], [1.0, -1.0]), {"value": 1}),
        (Readings(0, 0, [1, 2], ["a", "a"], [1.0, object()]), {"value": 1}),
    ],
)
def test_one_bad_reading_is_one_dead_letter(batch: Readings, dead: dict[str, int]) -> None:
    """The rest of its batch is admitted; nothing from outside ends a run by its type."""
    inputs, gate = admitted(batch)
    assert [one.offset for one in inputs] == [0]
    assert gate.sources.dead() == dead


class Name(str):
    """As NumPy's: equal to a text, and no text of ours."""

    __slots__ = ()


def test_a_path_of_another_type_is_one_dead_letter_whatever_its_batch() -> None:
    """Equal to a plain path beside it, it would be admitted or not by the size of the batch."""
    inputs, gate = admitted(Readings(0, 0, [1, 2, 3], ["a", Name("a"), "b"], [1.0, 2.0, 3.0]))
    assert [one.offset for one in inputs] == [0, 2]
    assert gate.sources.dead() == {"path": 1}


@pytest.mark.parametrize(
    "batch",
    [
        Readings(True, 0, [1], ["a"], [1.0]),
        Readings(0, 1.0, [1], ["a"], [1.0]),  # type: ignore[arg-type]
        Readings(0.0, 1, [1], ["a"], [1.0]),  # type: ignore[arg-type]
    ],
)
def test_a_place_that_is_no_int_is_the_source_s_fault(batch: Readings) -> None:
    """The journal would give it back as another value, and a replay would differ."""
    with pytest.raises(OperatorError, match="partition and offset are int"):
        admitted(batch)


def test_columns_of_unequal_length_are_the_source_s_fault() -> None:
    """No row of them could be trusted."""
    with pytest.raises(OperatorError, match="2 ticks, 1 paths, 2 values"):
        admitted(Readings(0, 0, [1, 2], ["a"], [1.0, 2.0]))


def test_messages_of_a_source_without_decoder_are_its_fault() -> None:
    """It promised Readings."""
    gate = Gate(rule)
    gate.sources.register("s", Policy())
    gate.handle(Connected("s", None))
    with pytest.raises(OperatorError, match="without a decoder"):
        gate.handle(Arrived("s", [Raw(0, 0, b"")]))
