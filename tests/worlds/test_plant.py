"""The line to copy from: parts are conserved, machines follow their temperature, operators come and go, replay is equal."""

from __future__ import annotations

import json

import pytest

import tidewarp as tw
from five_days import sample
from tidewarp.worlds import plant

EXACT = {"machines": {"oven": plant.Machine(slow_speed=0.5)}, "shifts": [plant.Shift(0, 1)], "order_mean_s": 1e9}
DAY = 288  # readings
OVEN = plant.Station("oven", 1000.0, 0.0)


def run(tmp_path, until, temperatures=(), parts=0, name="oven_temperature", **options):
    """The line, and its events, with these (seconds, degF) and so many parts at the start."""
    lines = []

    def build(twin):
        lines.append(plant.line(twin, **options))
        for _ in range(parts):
            lines[-1].order(None)
        readings = [(at, f"Line_A.variables.{name}", degf) for at, degf in temperatures]
        twin.connect(tw.sources.schedule(readings))
        twin.sink(tw.sinks.jsonl(tmp_path / "events.jsonl"))

    journal = tmp_path / "a.tw"
    with tw.open(journal, build, seed=5) as twin:
        twin.run(until=until)
    assert tw.replay(journal, build).equal
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    return lines[0], events


def of(events, key):
    return [(event["sim_ts"], event["value"]) for event in events if event.get("key") == f"Line_A.{key}"]


@pytest.mark.parametrize(
    ("temperatures", "made_s", "hot"),
    [
        ([], 1000.0, False),
        ([(400, 96)], 400 + 600 / 0.5, True),
        ([(400, 106), (500, 80)], 400 + 1800 + 600, False),
        ([(400, 106), (500, 106)], 400 + 1800 + 600 / 0.5, True),
        ([(400, 96), (600, 106), (700, 80)], 600 + 1800 + 500, True),
    ],
    ids=["steady", "slowed", "tripped", "still hot behind the repair", "slowed, then tripped"],
)
def test_a_part_keeps_the_work_it_has_received(tmp_path, temperatures, made_s, hot):
    """95 and 105 degF are the bounds, a repair takes half an hour; the part takes as much longer as the oven was slower."""
    _, events = run(tmp_path, "3h", temperatures, 1, stations=[OVEN], **EXACT)
    ((_, part),) = of(events, "finished")
    assert part["made_s"] == pytest.approx(made_s, abs=1e-3)
    assert part["hot"] is hot


def test_a_full_buffer_blocks_the_place_in_front_of_it(tmp_path):
    """The first station is done after 1,000 s with each part, the second takes twice as long: from the third on they wait."""
    stations = [OVEN, plant.Station("press", 2000.0, 0.0, buffer=1, attended=False)]
    line, events = run(tmp_path, 8_500, parts=9, stations=stations, **EXACT)
    assert [at for at, _ in of(events, "finished")] == [3000.0, 5000.0, 7000.0]
    assert len(line.parts) == 6  # one pressed, one in the buffer, one that blocks the oven, three orders
    assert len(line.line.get_store("oven").items) == 3


def test_without_operators_attended_work_waits_and_other_work_goes_on(tmp_path):
    """The first shift begins at two o'clock and ends at three; what an operator has begun is finished."""
    shifts = [plant.Shift(0, 0), plant.Shift(2, 1), plant.Shift(3, 0)]
    stations = [plant.Station("press", 600.0, 0.0, attended=False), OVEN]
    _, events = run(tmp_path, "20h", parts=9, stations=stations, **{**EXACT, "shifts": shifts})
    assert [at for at, _ in of(events, "finished")] == [8200.0, 9200.0, 10200.0, 11200.0]


def test_faults_are_worked_on_again_and_then_scrapped(tmp_path):
    """A part that always fails goes round as often as it may."""
    station = OVEN._replace(faulty=1.0, faulty_hot=1.0)
    line, events = run(tmp_path, "3h", parts=1, stations=[station], attempts=3, **EXACT)
    ((at, part),) = of(events, "scrapped")
    assert (at, part["attempt"], line.counts["reworked"]) == (3000.0, 3, 2)


def test_no_part_is_lost_on_real_telemetry(tmp_path):
    """Ordered = finished + scrapped + in progress, on four days in which the machine trips; the replay is equal."""
    header, rows = sample()
    (tmp_path / "readings.csv").write_text("\n".join([header, *rows[DAY * 21 : DAY * 25]]))
    lines = []

    def build(twin):
        lines.append(plant.line(twin))
        path = "Line_A.variables.furnace_temperature"
        source = tw.sources.csv(tmp_path / "readings.csv", time="timestamp", map={"value": path})
        twin.connect(source, disorder="1h")

    with tw.open(tmp_path / "a.tw", build, seed=7) as twin:
        twin.run()
    (line,) = lines
    counts = line.counts
    assert counts["finished"] + counts["scrapped"] + len(line.parts) == counts["ordered"] > 1_000
    assert min(counts["trips"], counts["reworked"]) > 0
    assert tw.replay(tmp_path / "a.tw", build).equal


def test_parameters_change_from_outside(tmp_path):
    """A faster oven, a second place for nobody to serve: paths are the line's own."""

    def build(twin):
        line = plant.line(twin, stations=[OVEN], **EXACT)
        line.order(None)
        line.order(None)
        twin.connect(tw.sources.schedule([(500, "Line_A.service.oven.mean", 100.0)]))
        twin.sink(tw.sinks.jsonl(tmp_path / "events.jsonl"))

    with tw.open(":memory:", build) as twin:
        twin.run(until="2h")
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [at for at, _ in of(events, "finished")] == pytest.approx([1000.0, 1100.0])
