"""A small twin in the working directory: a model, five readings of one level, a sink; and what is left of its runs."""

from __future__ import annotations

import json
from pathlib import Path

from tidewarp.store import open_store

MODEL = """
import tidewarp as tw

def build(twin):
    level = twin.variable("plant.level", float)

    def watch():
        while True:
            change = yield level.wait_for_change()
            twin.publish_event("plant.seen", change.new)

    twin.process(watch())
    twin.connect(tw.sources.csv("data.csv", time="time", map={"value": "plant.level"}))
    twin.sink(tw.sinks.jsonl("out.jsonl"))
"""
DATA = "time,value\n" + "".join(f"2014-01-01T00:{n:02d}:00Z,{n}\n" for n in range(5))
NEW = ("run", "model.py", "--journal", "j.tw", "--json")  # a run that begins its journal
RESUMED = (*NEW, "--resume")


def write(model: str, name: str = "model.py") -> None:
    Path(name).write_text(model)


def write_plant(data: str = DATA) -> None:
    """The model and its readings."""
    write(MODEL)
    Path("data.csv").write_text(data)


def changed(old: str, new: str) -> None:
    """Write the model with a part of it replaced."""
    assert old in MODEL
    write(MODEL.replace(old, new))


def records(journal: str | Path = "j.tw") -> int:
    """How many a journal has; 0 for one that was not begun."""
    if not Path(journal).exists():
        return 0
    with open_store(journal, read_only=True) as store:
        return store.journal.size


def outputs() -> list[tuple[str, object]]:
    """What the sink holds: (id, value), each id once and ascending."""
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    ids = [line["id"] for line in lines]
    assert ids == sorted(set(ids))
    return [(line["id"], line["value"]) for line in lines]


def no_run_was_begun(run) -> None:
    """What could not start is started again without --resume, once it is mended."""
    assert records() == 0
    if Path("data.csv").is_dir():
        Path("data.csv").rmdir()
    write_plant()
    assert run(*NEW).done()["inputs"] == 5
