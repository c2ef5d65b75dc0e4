"""NaN and infinities: refused, unless a float variable is declared for them; then they are values like any other."""

from __future__ import annotations

import math
from typing import Any

import pytest

import tidewarp as tw
from tidewarp.connect.contract import Input
from tidewarp.errors import ModelError, RuleViolation
from tidewarp.process import Environment, Rule

ANY = Rule("v", float, nonfinite=True)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (math.nan, math.nan),
        (-math.nan, math.nan),
        ("NaN", math.nan),
        ("nan", math.nan),
        (math.inf, math.inf),
        ("Infinity", math.inf),
        ("inf", math.inf),
        (-math.inf, -math.inf),
        ("-Infinity", -math.inf),
        (7, 7.0),
        ("7.5", 7.5),
    ],
    ids=str,
)
def test_a_variable_that_is_declared_for_them_takes_them(given: object, stored: float) -> None:
    """Also as text, as files and databases write them; there is one NaN, whatever its sign or payload was."""
    found = ANY.check(given)
    assert repr(found) == repr(stored)
    assert math.copysign(1, found) == math.copysign(1, stored)


@pytest.mark.parametrize("given", ["1e400", 10**400, "nano", True, None, "--inf"], ids=lambda item: str(item)[:10])
def test_what_is_no_number_stays_refused(given: object) -> None:
    """A number too large for a float is a mistake, not an infinity."""
    with pytest.raises(RuleViolation):
        ANY.check(given)


def test_a_range_binds_infinities_and_has_no_place_for_nan() -> None:
    """NaN passes: it says that there is no number; an infinity is beyond every end."""
    ranged = Rule("v", float, low=0, nonfinite=True)
    assert math.isnan(ranged.check(math.nan))
    assert ranged.check(math.inf) == math.inf
    with pytest.raises(RuleViolation, match="at least 0"):
        ranged.check(-math.inf)
    assert (ranged.floats, ANY.floats) == ((0, math.inf), (-math.inf, math.inf))


@pytest.mark.parametrize("rule", [{"type": int}, {"type": None}, {"type": float, "one_of": (1.0, 2.0)}], ids=str)
def test_only_a_float_without_a_choice_can_be_declared_so(rule: dict[str, Any]) -> None:
    """NaN is in no choice: it equals nothing."""
    with pytest.raises(ModelError, match="nonfinite=True of v"):
        Rule("v", nonfinite=True, **rule)


def test_nan_after_nan_is_no_change() -> None:
    """So who waits for changes is not woken by a sensor that keeps saying that it has none."""
    env = Environment()
    value = env.registry.declare("v", float, 1.0, nonfinite=True)
    seen: list[float] = []

    def watch() -> Any:
        changes = value.changes()
        while True:
            seen.append((yield changes.next()).new)

    env.process(watch())
    for tick, reading in enumerate((math.nan, math.nan, 2.0, math.inf, math.inf, -math.inf, math.nan), 1):
        env.run_slice(tick)
        env.apply([Input(tick, 1, 0, tick, (("v", reading),), tick)])
    env.run_slice(100)
    assert repr(seen) == "[nan, 2.0, inf, -inf, nan]"
    assert value.version == 5


def _model(twin: tw.Twin) -> None:
    value = twin.variable("a.level", float, nonfinite=True)
    twin.variable("a.plain", float)

    def follow() -> Any:
        changes = value.changes()
        while True:
            twin.publish_event("level", {"value": (yield changes.next()).new})

    twin.process(follow())
    readings = [(1, "a.level", math.nan), (2, "a.level", math.inf), (3, "a.plain", math.nan), (4, "a.level", 5.0)]
    twin.connect(tw.sources.schedule(readings))


def test_they_are_journaled_replayed_and_told(tmp_path: Any) -> None:
    """Of Readings: the journal keeps them, the replay has their digest, JSON has null for them and says how many."""
    path, told = tmp_path / "a.tw", tmp_path / "told.jsonl"

    def build(twin: tw.Twin) -> None:
        _model(twin)
        twin.sink(tw.sinks.jsonl(told))

    with tw.open(path, build) as twin:
        summary = twin.run()
    assert (summary.inputs, summary.dead, summary.outputs) == (3, {"value": 1}, 3)
    assert told.read_text().count('"value":{"value":null}') == 2
    assert [one["nonfinite"] for one in summary.sinks.values()] == [2]
    again = tw.replay(path, build)
    assert (again.equal, again.digest) == (True, summary.digest)


def test_csv_says_nan_in_words(tmp_path: Any) -> None:
    """A cell that reads NaN sets a variable that is declared for it, and is a dead letter for another."""
    table = tmp_path / "a.csv"
    table.write_text("t,level,plain\n2026-01-01T00:00:01Z,NaN,\n2026-01-01T00:00:02Z,,NaN\n")

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", float, nonfinite=True)
        twin.variable("a.plain", float)
        twin.connect(tw.sources.csv(table, time="t", map={"level": "a.level", "plain": "a.plain"}))

    with tw.open(tmp_path / "a.tw", build) as twin:
        summary = twin.run()
        assert math.isnan(twin.registry.get("a.level").value)
    assert (summary.inputs, summary.dead) == (1, {"value": 1})


def test_a_table_keeps_them(tmp_path: Any) -> None:
    """Parquet has NaN and infinities, so they are not counted as lost there."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'tidewarp[parquet]'")

    def build(twin: tw.Twin) -> None:
        _model(twin)
        twin.sink(tw.sinks.parquet(tmp_path / "told"))

    with tw.open(tmp_path / "a.tw", build) as twin:
        summary = twin.run()
    rows = [
        row for file in sorted((tmp_path / "told").rglob("*.parquet")) for row in parquet.read_table(file).to_pylist()
    ]
    assert "nan" in repr(rows)
    assert "inf" in repr(rows)
    assert [one["nonfinite"] for one in summary.sinks.values()] == [0]


def test_a_decoder_of_yours_may_give_them(tmp_path: Any) -> None:
    """JSON has no NaN, so its messages have none either; what another form of message says, passes."""
    sent = [b"nan", b"1.5", b'{"path": "a.level", "value": NaN}']

    async def messages() -> Any:
        for one in sent:
            yield one

    def parse(payload: bytes) -> Any:
        return {"path": "a.level", "value": float(payload)}

    def build(twin: tw.Twin) -> None:
        twin.variable("a.level", float, nonfinite=True)
        twin.connect(tw.sources.python(messages), name="own", decoder=parse)
        twin.connect(tw.sources.python(messages), name="json")

    with tw.open(tmp_path / "a.tw", build) as twin:
        summary = twin.run(factor=0)
    assert (summary.inputs, summary.dead) == (2, {"decode": 1, "json": 2, "shape": 1})
    again = tw.replay(tmp_path / "a.tw", build)
    assert (again.equal, again.digest) == (True, summary.digest)
