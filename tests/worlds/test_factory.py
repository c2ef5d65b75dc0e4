"""The factory line: the furnace follows its temperature, and parts keep the work they have received."""

import json

import pytest

import tidewarp as tw
from tidewarp.worlds import factory


def run(tmp_path, temperatures, until, **settings):
    """The events of a line whose furnace has these (seconds, degF)."""

    def build(twin):
        factory.line(twin, "line", factory.Settings(**settings))
        twin.connect(tw.sources.schedule([(at, "line.furnace.temperature", degf) for at, degf in temperatures]))
        twin.sink(tw.sinks.jsonl(tmp_path / "events.jsonl"))

    with tw.open(":memory:", build, seed=5) as twin:
        twin.run(until=until)
    return [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]


def states(events):
    return [(event["sim_ts"], event["value"]["state"]) for event in events if event["key"] == "line.furnace"]


def test_the_furnace_slows_trips_is_repaired_and_stands_when_cold(tmp_path):
    """95, 105 and 50 degF are the bounds; a repair takes half an hour and ends in the state of that moment."""
    temperatures = [(0, 80), (600, 96), (1200, 94), (1800, 106), (2400, 70), (6000, 40), (7200, 60)]
    assert states(run(tmp_path, temperatures, "3h")) == [
        (600.0, "slow"),
        (1200.0, "running"),
        (1800.0, "tripped"),
        (3600.0, "running"),
        (6000.0, "cold"),
        (7200.0, "running"),
    ]


@pytest.mark.parametrize(
    ("temperatures", "made_s"),
    [
        ([(0, 80)], 1000.0),
        ([(0, 80), (400, 96)], 400 + 600 / 0.5),
        ([(0, 80), (400, 106), (500, 80)], 400 + 1800 + 600),
        ([(0, 80), (400, 30), (700, 80), (800, 30), (900, 80)], 1000 + 300 + 100),
    ],
    ids=["steady", "slowed", "tripped", "cold twice"],
)
def test_a_part_keeps_the_work_it_has_received(tmp_path, temperatures, made_s):
    """A part that needs 1,000 s of heat takes exactly as much longer as the furnace was slower."""
    exact = {"heat_mean_s": 1000.0, "heat_std_s": 0.0, "turn_mean_s": 1e-9, "slow_speed": 0.5, "faulty": 0.0}

    def build(twin):
        line = factory.line(twin, "line", factory.Settings(order_mean_s=1e12, faulty_when_hot=0.0, **exact))
        twin.process(line.make(1))
        twin.connect(tw.sources.schedule([(at, "line.furnace.temperature", degf) for at, degf in temperatures]))
        twin.sink(tw.sinks.jsonl(tmp_path / "events.jsonl"))

    with tw.open(":memory:", build, seed=5) as twin:
        twin.run(until="3h")
    finished = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    (part,) = [event["value"] for event in finished if event["key"] == "line.finished"]
    assert part["made_s"] == pytest.approx(made_s, abs=1e-3)


def test_no_part_is_lost(tmp_path):
    """Ordered = finished + scrapped + in progress, on ten days of real telemetry with a planned shutdown."""
    lines = []

    def build(twin):
        lines.append(factory.line(twin, "line"))
        source = tw.sources.csv(factory.SAMPLE, time="timestamp", map={"value": "line.furnace.temperature"})
        twin.connect(source, disorder="1h")

    with tw.open(":memory:", build, seed=7) as twin:
        twin.run(until="15d")
    line = lines[0]
    ordered = twin.stream("line.orders").count - 1  # the last draw is of the order that is yet to come
    assert line.counts["finished"] + line.counts["scrapped"] + len(line.in_progress) == ordered > 3_000
    assert line.counts["reworked"] > 0
    assert line.furnace.in_use <= 2
    assert len(line.heating) <= 2
