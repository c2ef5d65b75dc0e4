"""Coalescing: of the values that a live source sends at once the last becomes an input, and the journal says what did not."""

from __future__ import annotations

from typing import Any

import pytest
from gate_driver import RULES, Driver, S
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import pack, unpack
from tidewarp.connect.contract import Raw, Update
from tidewarp.connect.gate import Append, Appended, Arrived, Connected, Gate, Grant, Policy, Replayed
from tidewarp.errors import UnknownPath
from tidewarp.process.rules import Rule

ALL = {**RULES, "last": Rule("last", int, coalesce=True), "latest": Rule("latest", float, coalesce=True)}
LIVE = Policy(time="arrival", wait=False)
TIMED = Policy(time="payload", wait=False, late="repair", horizon=100)


def rule(path: str) -> Rule:
    try:
        return ALL[path]
    except KeyError:
        raise UnknownPath(path, "no such path", "declare it") from None


class Words:
    """A payload is the packed [tick, [[path, value], ...], id]."""

    def decode(self, raw: Raw) -> Update:
        tick, changes, identity = unpack(raw.payload)
        return Update(tick, tuple((path, value) for path, value in changes), identity)


class Coalescing(Driver):
    def __init__(self, **sources: Policy) -> None:
        super().__init__()
        self.gate = Gate(rule)
        for name, policy in sources.items():
            self.gate.sources.register(name, policy)
        for name in sources:
            self.handle(Connected(name, Words()))


def said(offset: int, path: str, value: Any, *, tick: int | None = None, partition: int = 0, id: str = "") -> Raw:
    return Raw(partition, offset, pack([tick, [[path, value]], id]))


def test_of_one_drain_the_last_value_of_a_path_stays() -> None:
    """Of each path on its own; what passed is counted, and its positions and ids stand in the same record."""
    driver = Coalescing(s=LIVE)
    messages = [
        said(0, "last", 1, id="x"),
        said(1, "latest", 0.5),
        said(2, "a", 1),
        said(3, "last", 2),
        said(4, "last", 3),
        said(5, "a", 2),
        said(6, "latest", 1.5),
    ]
    [append] = driver.arrive("s", *messages)
    assert [(one.offset, one.changes) for one in append.inputs] == [
        (2, (("a", 1),)),
        (4, (("last", 3),)),
        (5, (("a", 2),)),
        (6, (("latest", 1.5),)),
    ]
    assert append.shed is not None
    assert (append.shed.counted, append.shed.positions, append.shed.ids) == ({"coalesced": 3}, {0: 3}, ["id:x"])
    assert append.positions == {0: 6}
    assert (driver.gate.sources.counts()["inputs"], driver.gate.sources.counts()["coalesced"]) == (4, 3)
    [append] = driver.arrive("s", said(7, "last", 4))
    assert (len(append.inputs), append.shed) == (1, None)


def test_together_with_other_paths_a_value_stays() -> None:
    """A message that sets several paths is all or nothing."""
    driver = Coalescing(s=LIVE)
    both = Raw(0, 0, pack([None, [["last", 1], ["a", 1]], ""]))
    [append] = driver.arrive("s", both, said(1, "last", 2), said(2, "last", 3))
    assert [one.offset for one in append.inputs] == [0, 2]


def test_the_last_is_the_last_in_event_time() -> None:
    """Not in arrival: an older value that comes later does not win."""
    driver = Coalescing(s=TIMED)
    [append] = driver.arrive("s", said(0, "last", 1, tick=10), said(1, "last", 2, tick=30), said(2, "last", 3, tick=20))
    assert [(one.tick, one.changes) for one in append.inputs] == [(30, (("last", 2),))]
    assert append.shed is not None
    assert (append.positions, append.shed.positions) == ({0: 2}, {0: 2})


def test_of_a_source_that_the_clock_waits_for_nothing_is_left_out() -> None:
    """There each value has its place, and how they come in batches must not decide."""
    driver = Coalescing(s=Policy())
    [append] = driver.arrive("s", *[said(n, "last", n, tick=n) for n in range(5)])
    assert (len(append.inputs), append.shed) == (5, None)


def test_what_was_left_out_waits_no_more() -> None:
    """It takes no place in the queue."""
    driver = Coalescing(s=Policy(time="arrival", wait=False, queue=4, batch=4))
    driver.arrive("s", *[said(n, "last", n) for n in range(4)])
    assert driver.reads == {"s": 3}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["last", "latest", "a"]),
            st.integers(0, 100),
            st.integers(0, 60),
            st.sampled_from([0, 1]),
            st.booleans(),
        ),
        max_size=40,
    ),
    st.booleans(),
)
def test_the_values_after_each_drain_are_those_without_coalescing(messages: list[Any], timed: bool) -> None:
    """And a life that reads the records back knows positions, ids and counts as the first one did."""
    policy = TIMED if timed else LIVE
    driver = Coalescing(s=policy)
    offsets = {0: 0, 1: 0}
    drain: list[Raw] = []
    drains = [drain]
    for n, (path, value, tick, partition, ends) in enumerate(messages):
        drain.append(said(offsets[partition], path, value, tick=tick, partition=partition, id=f"m{n}" if n % 3 else ""))
        offsets[partition] += 1
        if ends:
            drains.append(drain := [])
    second = Gate(rule)
    second.sources.register("s", policy)
    values: dict[str, tuple[Any, int]] = {}
    kept: dict[str, tuple[Any, int]] = {}
    for raws in filter(None, drains):
        for raw in raws:
            tick, [[path, value]], _ = unpack(raw.payload)
            key = (tick if timed else 0, raw.partition, raw.offset)
            values[path] = max(values.get(path, ((-1, 0, 0), 0)), (key, value))  # type: ignore[type-var]
        for append in driver.arrive("s", *raws):
            for one in append.inputs:
                key = (one.event_tick if timed else 0, one.partition, one.offset)
                [(path, value)] = one.changes
                kept[path] = max(kept.get(path, ((-1, 0, 0), 0)), (key, int(value)))  # type: ignore[type-var]
            ids = [one.id for one in append.inputs if one.id]
            second.handle(Replayed("s", append.admitted, append.inputs, ids=ids))
            if append.shed is not None:
                shed = append.shed
                second.handle(Replayed("s", append.admitted, positions=shed.positions, ids=shed.ids, shed=shed.counted))
            driver.handle(Appended(append.ticket))
        driver.appends.clear()
    if timed:
        assert kept == values
    assert second.positions("s") == driver.gate.positions("s")
    assert second.sources.counts() == driver.gate.sources.counts()
    assert sum(driver.gate.sources.counts()[name] for name in ("inputs", "coalesced")) == len(messages)


def test_a_message_that_was_left_out_is_known_again() -> None:
    """Delivered once more under another position it would bring an old value back."""
    gate = Gate(rule)
    gate.sources.register("s", LIVE)
    gate.handle(Replayed("s", 0, positions={0: 3}, ids=["id:x"], shed={"coalesced": 1}))
    gate.handle(Connected("s", Words()))
    instructions = gate.handle(Arrived("s", [said(4, "last", 9, id="x")], 0.0, 5 * S))
    assert not [one for one in instructions if isinstance(one, Append | Grant)]
    assert gate.sources.counts()["duplicates"] == 1


@pytest.mark.parametrize("path", ["last", "a"])
def test_a_new_model_is_asked_anew(path: str) -> None:
    """After a repair the rules are those of the model that was built then."""
    driver = Coalescing(s=LIVE)
    driver.arrive("s", said(0, "last", 0))
    driver.gate.judge_by(lambda name: Rule(name, int, coalesce=name == "a"))
    [append] = driver.arrive("s", *[said(n, path, n) for n in range(1, 4)])
    assert len(append.inputs) == (1 if path == "a" else 3)
