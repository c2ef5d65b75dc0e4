"""`tidewarp verify --replay-cuts`: the run from each cut to the next, and what it says where that is another run."""

from __future__ import annotations

from pathlib import Path

MODEL = """
import tidewarp as tw

def build(twin):
    made = twin.restored or {"parts": 0}

    def work():
        yield twin.env.timeout(10)
        made["parts"] += STEP
        yield twin.cut()

    twin.state(lambda: made)
    twin.process(work())
"""


def test_cuts_are_replayed_and_a_difference_is_named(place, run):
    """Exit 0 with their number; with another model exit 1, the record and what differs."""
    for name, step in (("model.py", 1), ("other.py", 2)):
        Path(name).write_text(MODEL.replace("STEP", str(step)))
    assert run("run", "model.py", "--journal", "a.tw", "--until", "35", "--json").code == 0
    found = run("verify", "a.tw", "--replay-cuts", "--json")
    assert (found.code, found.document["ok"], found.document["cuts"]) == (0, True, 3)
    other = run("verify", "a.tw", "--replay-cuts", "--model", "other.py", "--json")
    assert (other.code, other.document["ok"], other.document["cuts"]) == (1, False, 0)
    assert other.document["first_difference"]["parts"] == ["reference"]
    shown = run("verify", "a.tw", "--replay-cuts", "--model", "other.py").out
    assert "first difference: reference at tick 10000000001, record" in shown
    assert "cuts" not in run("verify", "a.tw", "--json").document
