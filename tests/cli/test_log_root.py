"""`tidewarp log --root`: what followed from one input, each output below its cause."""

from __future__ import annotations

from pathlib import Path

from plant import NEW, write

MODEL = """
import tidewarp as tw

def build(twin):
    level = twin.variable("plant.level", float)

    def watch():
        while True:
            change = yield level.wait_for_change()
            twin.publish_event("seen", change.new)
            twin.process(check())
            yield twin.env.timeout(1)
            twin.publish_telemetry("plant.rate", float("nan"))
            yield twin.env.timeout(1)
            twin.publish_event("slept", None)

    def check():
        yield twin.env.timeout(5)
        twin.publish_event("checked", None)

    twin.process(watch())
    twin.connect(tw.sources.csv("data.csv", time="time", map={"value": "plant.level"}))
"""
DATA = "time,value\n2014-01-01T00:00:00Z,1\n2014-01-01T00:01:00Z,2\n2014-01-01T00:02:00Z,3\n"


def journal(run) -> None:
    write(MODEL)
    Path("data.csv").write_text(DATA)
    assert run(*NEW[:-1]).code == 0


def test_the_outputs_under_a_root_stand_below_their_causes(place, run):
    """An output that has several consequences indents them; one behind the other stay in one column."""
    journal(run)
    document = run("log", "j.tw", "--root", "data[0:2]", "--json").done()
    rows = document["outputs"]
    assert document["count"] == 4
    assert [(row["key"], row["stream"], row["depth"]) for row in rows] == [
        ("seen", "event", 0), ("plant.rate", "telemetry", 1), ("slept", "event", 1), ("checked", "event", 1),
    ]  # fmt: skip
    assert [row["cause"] for row in rows] == ["data[0:2]", rows[0]["id"], rows[1]["id"], rows[0]["id"]]
    assert (rows[0]["time_s"], rows[0]["value"]) == (60.0, 2.0)
    lines = run("log", "j.tw", "--root", "data[0:2]", "--limit", "2").out.splitlines()
    assert lines[0] == "data[0:2]"
    assert [line.split()[-2:] for line in lines[1:]] == [["seen", "2.0"], ["plant.rate", "nan"], ["larger", "--limit"]]


def test_a_root_without_outputs_is_refused_with_where_to_find_one(place, run):
    """A wrong id, and one of an input that woke nobody."""
    journal(run)
    assert "take an input from tidewarp log" in run("log", "j.tw", "--root", "data[0:9]").refusal(2)
