"""The short way into a batch is a skipped step, never another result: a decoder with columns, and the same without."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidewarp.connect.contract import Raw, Update
from tidewarp.connect.decoders import JsonMessages
from tidewarp.connect.gate import Append, Appended, Arrived, Asked, Confirm, Connected, Gate, Grant, Policy, Repair
from tidewarp.errors import OperatorError
from tidewarp.process.rules import Rule

S = 10**9
RULES = {"a": Rule("a", int, low=0, high=100), "b": Rule("b", float), "any": Rule("any", None)}


class OneByOne:
    """The same decoder, of which only `decode` is known."""

    def __init__(self, decoder: JsonMessages) -> None:
        self._decoder = decoder

    def decode(self, raw: Raw) -> Update:
        return self._decoder.decode(raw)


fields = st.fixed_dictionaries(
    {"path": st.sampled_from(["a", "a", "b", "any"]), "value": st.sampled_from([1, 2, 3.5, None, True, 7, 500, "x"])},
    optional={"time": st.integers(0, 30), "id": st.sampled_from(["i", "j"]), "cause": st.just("c")},
)
plain = st.fixed_dictionaries({"path": st.sampled_from(["a", "any"]), "value": st.integers(0, 100)})
timed = st.fixed_dictionaries(
    {"path": st.sampled_from(["a", "any"]), "value": st.integers(0, 100), "time": st.integers(0, 30)}
)
steps = st.tuples(
    st.sampled_from([0, 0, 0, 1]),  # partition
    st.sampled_from([1, 1, 1, 2, 0, -1]),  # from the last offset
    st.sampled_from(["", "", "p", "q", "x" * 256]),  # of the target
    st.sampled_from(["", "", "out", "\ud800"]),
    st.none() | st.integers(0, 30) | st.just(10**12),  # s, by the broker
)


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[list[Raw], int, int]]:
    """Batches, each of one kind of message or mixed, the present at each, and how far the clock then goes."""
    last, present = [-1, -1], 0
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([plain, timed, fields]))
        ascending = draw(st.booleans())
        messages: list[dict[str, Any]] = draw(st.lists(kind, max_size=5))
        if ascending:
            messages.sort(key=lambda one: one.get("time", 0))
        is_quiet = draw(st.booleans())
        raws = []
        for one in messages:
            partition, step, name, cause, s = draw(steps)
            if is_quiet:
                partition, step, name, cause = 0, 1, "", ""
            offset = max(0, last[partition] + step)
            last[partition] = max(last[partition], offset)
            time_ns = None if s is None else s * S
            raws.append(Raw(partition, offset, json.dumps(one).encode(), None, time_ns, name, cause))
        present += draw(st.integers(0, 10)) * S  # it never goes back
        batches.append((raws, present, draw(st.integers(0, 15)) * S))
    return batches


@given(
    batches=arrivals(),
    policy=st.builds(
        Policy,
        disorder=st.sampled_from([0, 5 * S]),
        late=st.sampled_from(["repair", "clamp", "drop", "stop"]),
        time=st.sampled_from(["arrival", "payload", "record"]),
        wait=st.booleans(),
        horizon=st.sampled_from([0, 10 * S]),
        batch=st.sampled_from([2, 100]),
    ),
)
def test_many_at_once_are_admitted_as_one_by_one(batches: list[tuple[list[Raw], int, int]], policy: Policy) -> None:
    """Inputs, dead letters, positions, counts, confirmations and what is granted: all the same, also where it stops."""
    decoder = JsonMessages(0)
    results: list[list[Any]] = []
    for one in (decoder, OneByOne(decoder)):
        gate = Gate(RULES.__getitem__)
        gate.sources.register("x", policy)
        gate.handle(Connected("x", one))
        told: list[Any] = []
        try:
            for raws, present, step in batches:
                inputs: list[Any] = []
                letters: list[Any] = []
                for said in gate.handle(Arrived("x", raws, 0.0, present)):
                    if isinstance(said, Append):
                        inputs += said.inputs
                        letters += said.letters
                        for answer in gate.handle(Appended(said.ticket)):
                            told += [answer] if isinstance(answer, Confirm | Repair) else []
                grants = [said for said in gate.handle(Asked(gate.floor + step)) if isinstance(said, Grant)]
                told.append((inputs, letters, grants, gate.positions("x"), gate.sources.counts(), gate.end, gate.gvt))
        except OperatorError as error:
            told.append(str(error))
        results.append(told)
    assert results[0] == results[1]
