"""Five days of the factory's real readings, and a model that follows them: long enough for late data, short enough to repeat."""

from __future__ import annotations

import contextlib
import gzip
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tidewarp.twin import Build, load_model
from tidewarp.worlds import factory

MODEL = '''
"""The line, and an output that no Latin-1 can hold: a sink that asks the locale would fail or differ."""

from pathlib import Path

import tidewarp as tw
from tidewarp.worlds import factory


def build(twin):
    factory.line(twin, "line")
    states = {"läuft", "steht", "wärmt auf", "ist heiß"}

    def speak():
        while True:
            yield twin.env.timeout(7_200.0)
            twin.publish_event("line.words", {"Maße": sorted(states), "€": twin.now / 3})

    twin.process(speak())
    readings = tw.sources.csv(
        Path(__file__).with_name("readings.csv"), time="timestamp", map={"value": "line.furnace.temperature"}
    )
    twin.connect(readings, disorder="1h")
    twin.sink(tw.sinks.jsonl("events.jsonl"), batch=50)
'''
FIRST, COUNT = 9_500, 1_440  # at row 10,149 the machine's clock jumps back by 55 minutes


def sample() -> tuple[str, list[str]]:
    """The header and all rows of the sample that ships."""
    with gzip.open(factory.SAMPLE, "rt", encoding="ascii") as file:
        header, *rows = file.read().splitlines()
    return header, rows


def five_days() -> tuple[str, list[str]]:
    """The header, and COUNT rows."""
    header, rows = sample()
    return header, rows[FIRST : FIRST + COUNT]


def write_model(folder: Path, header: str, rows: Sequence[str]) -> Path:
    """The model and its readings in ``folder``; a row may hold a byte that is no UTF-8."""
    (folder / "readings.csv").write_bytes(("\n".join([header, *rows]) + "\n").encode("latin-1"))
    model = folder / "model.py"
    model.write_text(MODEL, encoding="utf-8")
    return model


@contextlib.contextmanager
def loaded(model: Path) -> Iterator[Build]:
    """What builds the model; afterwards this process knows nothing of it."""
    path = [*sys.path]
    try:
        yield load_model(str(model))
    finally:
        sys.path[:] = path
        sys.modules.pop("tidewarp_model", None)
