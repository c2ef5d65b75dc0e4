"""The table of casts, row by row, and the rules around it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.errors import ModelError, RuleViolation
from tidewarp.process import Rule
from tidewarp.process.rules import DEPTH_MAX, ITEMS_MAX, TEXT_BYTES_MAX, same

ACCEPTED = [
    *[(bool, value, True) for value in (True, 1, 1.0, "true", "TRUE", "Yes", "on", "1")],
    *[(bool, value, False) for value in (False, 0, 0.0, "false", "False", "NO", "off", "0")],
    (int, 7, 7),
    (int, 7.0, 7),
    (int, "7", 7),
    (int, "-12", -12),
    (int, 2**63 - 1, 2**63 - 1),
    (int, -(2**63), -(2**63)),
    (float, 7, 7.0),
    (float, 7.75, 7.75),
    (float, "7.75", 7.75),
    (float, "-1e3", -1000.0),
    (float, 2**64, float(2**64)),
    (str, "abc", "abc"),
    (str, "", ""),
    (str, 42, "42"),
    (str, "x" * TEXT_BYTES_MAX, "x" * TEXT_BYTES_MAX),
    (list, [1, "a", None, [2.5]], [1, "a", None, [2.5]]),
    (list, [0] * ITEMS_MAX, [0] * ITEMS_MAX),
    (dict, {"a": {"b": [1]}}, {"a": {"b": [1]}}),
    *[(None, value, value) for value in (True, 3, 3.5, "text", [1], {"a": 1})],
]
DEEP: list[object] = []
for _ in range(DEPTH_MAX):
    DEEP = [DEEP]
REFUSED = [
    *[(bool, value) for value in (2, -1, 0.5, math.nan, "", "maybe", "truee", [], None)],
    *[(int, value) for value in (True, False, 7.75, "7.75", "7.0", "0x10", "", "१", 2**63, -(2**63) - 1, 2.0**63)],
    *[(int, value) for value in (math.nan, math.inf, "9" * 65, "1_000", " 7", [7], None)],
    *[
        (float, value)
        for value in (True, math.nan, math.inf, -math.inf, "1e400", "NaN", "Infinity", "0x1p3", ".5", None)
    ],
    (float, 10**400),
    *[(str, value) for value in (1.5, True, [], {}, b"abc", None, "\ud800", "x" * (TEXT_BYTES_MAX + 1), 2**64)],
    (str, "é" * TEXT_BYTES_MAX),
    *[(list, value) for value in ("abc", b"abc", (1, 2), {"a": 1}, None, [math.nan], [b""], [0] * (ITEMS_MAX + 1))],
    (list, DEEP),
    (list, [[0] * 5_000, [0] * 5_000]),
    *[(dict, value) for value in ("{}", [], {1: 2}, {"a": math.inf}, {"a": object()}, None)],
    *[(None, value) for value in (None, math.nan, 2**63, b"", (1,), object())],
]


@pytest.mark.parametrize(("kind", "value", "stored"), ACCEPTED, ids=lambda item: str(item)[:30])
def test_accepted_values_are_stored_as_the_declared_type(kind: type | None, value: object, stored: object) -> None:
    """Equal in value and in type: 1 declared bool is True, 7.0 declared int is 7."""
    assert same(Rule("a.b", kind).check(value), stored)


@pytest.mark.parametrize(("kind", "value"), REFUSED, ids=lambda item: str(type(item)) + str(item)[:30])
def test_refused_values_name_value_path_rule_and_next_action(kind: type | None, value: object) -> None:
    """No row lets through what the table refuses; the message has all three parts and no address in memory."""
    with pytest.raises(RuleViolation) as caught:
        Rule("Line_A.x", kind).check(value)
    error = caught.value
    assert error.value.startswith("value ")
    assert error.value.endswith(" for Line_A.x")
    assert error.rule
    assert error.action
    assert " at 0x" not in str(error)
    assert len(str(error)) < 400


def test_predecessor_3_false_as_text_is_false_and_text_is_no_list() -> None:
    """Predecessors: "false" became True, "abc" became a list."""
    assert Rule("p", bool).check("false") is False
    with pytest.raises(RuleViolation, match="not a list"):
        Rule("p", list).check("abc")


@pytest.mark.parametrize("value", [math.inf, math.nan, 7.75])
def test_predecessor_2_and_6_a_capacity_is_a_whole_number(value: float) -> None:
    """Predecessors: Infinity killed the run, 7.75 became 7."""
    with pytest.raises(RuleViolation, match="not a whole number"):
        Rule("r.current_cap", int, low=0).check(value)


def test_a_stored_object_is_a_copy() -> None:
    """What the caller does to its object later does not change the model."""
    given_value = {"a": [1]}
    stored = Rule("p", dict).check(given_value)
    given_value["a"].append(2)
    assert stored == {"a": [1]}


def test_range_and_choice_are_checked_after_the_cast() -> None:
    """Ends are included; the message names the limit and its unit."""
    rule = Rule("t", float, low=-50.0, high=250.0, unit="degF")
    assert rule.check("250") == 250.0
    with pytest.raises(RuleViolation, match=r"value 250\.5 for t: at most 250\.0 degF"):
        rule.check(250.5)
    with pytest.raises(RuleViolation, match=r"at least -50\.0 degF"):
        rule.check(-51)
    with pytest.raises(RuleViolation, match="one of 'auto', 'stopped'"):
        Rule("m", str, one_of=("auto", "stopped")).check("off")
    assert Rule("m", int, one_of=("1", 2.0)).one_of == (1, 2)


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        (bytes, {}),
        (float, {"low": 2, "high": 1}),
        (float, {"low": math.nan}),
        (float, {"high": math.inf}),
        (str, {"low": 1}),
        (int, {"one_of": ()}),
        (list, {"one_of": ([1],)}),
        (int, {"one_of": ("x",)}),
        (int, {"low": True}),
        (int, {"unit": "x" * 65}),
    ],
)
def test_a_rule_without_sense_is_the_authors_error(kind: type, limits: dict[str, object]) -> None:
    """It fails where it is declared, not at the first reading."""
    with pytest.raises(ModelError):
        Rule("p", kind, **limits)  # type: ignore[arg-type]


@given(st.sampled_from([bool, int, float, str, list, dict, None]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_a_cast_is_idempotent_and_raises_nothing_else(kind: type | None, value: object) -> None:
    """Any value is either refused with RuleViolation, or its stored form is stored as itself."""
    rule = Rule("p", kind)
    try:
        stored = rule.check(value)
    except RuleViolation:
        return
    assert same(rule.check(stored), stored)
    assert kind is None or type(stored) is kind
