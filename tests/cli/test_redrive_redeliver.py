"""`tidewarp redrive` and `tidewarp redeliver`: what was refused comes in after all, what was lost goes out again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from plant import NEW, RESUMED, changed, outputs, records, write, write_plant

from tidewarp.connect.outbox import Outbox
from tidewarp.twin import journal_rows

NARROW = ('twin.variable("plant.level", float)', 'twin.variable("plant.level", float, high=2.5)')
BROKEN = """
import json
import tidewarp as tw
from pathlib import Path
from tidewarp.connect.contract import Sink

class Out(Sink):
    name, kind, delivery = "out", "test", "once"

    async def open(self, run):
        if Path("down").exists():
            raise ConnectionError("nobody listens at user:secret@host"[:14])
        return max(self._held(), default="")

    def _held(self):
        return Path("held").read_text().split() if Path("held").exists() else []

    async def write(self, batch):
        held = self._held()
        if Path("limit").exists() and len(held) >= int(Path("limit").read_text()):
            raise ConnectionError("gone")
        Path("held").write_text(" ".join([*held, *(one.id for one in batch)]))
        return []

def build(twin):
    def tick():
        while True:
            yield twin.env.timeout(1)
            twin.publish_event("tick", twin.now)

    twin.process(tick())
    twin.sink(Out(), batch=3, queue=4)
    twin.sink(tw.sinks.jsonl("other.jsonl"))
"""


def test_dead_letters_come_in_after_a_model_change(plant, run):
    """What is above the range is a letter; the range is widened; then it is an input, once, behind everything else."""
    changed(*NARROW)
    first = run(*NEW).done()
    assert (first["inputs"], first["dead_letters"]) == (3, 2)
    write_plant()
    assert "--accept-model" in run("redrive", "j.tw", "--source", "data", "--json").refusal(2)
    driven = ("redrive", "j.tw", "--source", "data", "--accept-model")
    assert run(*driven, "--json").done() == {"done": 2, "left": 0, "rules": {}}
    assert run(*driven).out == "done 0\nleft 0\n"
    assert run("verify", "j.tw", "--json").done()["inputs"] == 5
    again = run("replay", "j.tw", "--json").done()
    assert (again["equal"], again["digest"]) == (True, first["digest"])
    last = run(*RESUMED, "--accept-model").done()
    assert (last["inputs"], [value for _, value in outputs()]) == (5, [1.0, 2.0, 3.0, 4.0])
    assert run("replay", "j.tw", "--json").done()["equal"] is True


def test_a_redrive_of_what_is_not_there_is_refused(plant, run):
    """No journal, no such source, a model that still refuses the same."""
    assert "no such journal" in run("redrive", "j.tw", "--source", "data", "--json").refusal(2)
    assert not Path("j.tw").exists()
    changed(*NARROW)
    run(*NEW).done()
    assert "connects data" in run("redrive", "j.tw", "--source", "nobody", "--json").refusal(2)
    left = run("redrive", "j.tw", "--source", "data", "--json").done()
    assert left == {"done": 0, "left": 2, "rules": {"value": 2}}
    assert run("redrive", "j.tw", "--source", "data").out == "done 0\nleft 2 (value 2)\n"


def test_a_sink_that_lost_its_last_outputs_gets_them_again(plant, run):
    """As they were, with their ids; what it holds is not sent; the journal is at rest as before."""
    first = run(*NEW).done()
    held = outputs()
    Path("out.jsonl").write_text("".join(f"{line}\n" for line in Path("out.jsonl").read_text().splitlines()[:2]))
    found = run("redeliver", "j.tw", "--sink", "out", "--json").done()
    assert (found["done"], found["left"], found["skipped"], found["last_id"]) == (2, 0, 2, held[-1][0])
    assert outputs() == held
    before = records()
    assert run("redeliver", "j.tw", "--sink", "out").out.startswith("done    0\nleft    0\nskipped 4 held already\n")
    assert records() == before
    again = run("replay", "j.tw", "--json").done()
    assert (again["equal"], again["digest"]) == (True, first["digest"])
    assert list(journal_rows("j.tw"))[-1]["kind"] == "stop"
    assert run(*RESUMED).done()["digest"] == first["digest"]
    assert "the model has out" in run("redeliver", "j.tw", "--sink", "nobody", "--json").refusal(2)


def test_a_sink_that_cannot_be_reached_ends_with_3(place, run, monkeypatch):
    """At once, or on the way: then the answer says how many are left, and the next call goes on there."""
    write(BROKEN)
    run(*NEW, "--until", "20").done()
    ids = Path("held").read_text().split()
    assert len(ids) == 19
    Path("held").write_text(" ".join(ids[:2]))
    Path("other.jsonl").write_text("")
    Path("down").touch()
    assert "cannot be reached" in run("redeliver", "j.tw", "--sink", "out", "--json").refusal(3)
    Path("down").unlink()
    Path("limit").write_text("8")
    whole = Outbox.delivery
    monkeypatch.setattr(
        Outbox, "delivery", lambda box, name: replace(whole(box, name), stall_s=1.0, retry_s=(0.01, 0.02))
    )
    ended = run("redeliver", "j.tw", "--sink", "out", "--json")
    assert ended.code == 3
    found = json.loads(ended.out)
    assert (found["done"], found["left"], found["reason"]) == (6, 11, "ConnectionError: gone")
    assert found["last_id"] == ids[7]
    Path("limit").unlink()
    assert run("redeliver", "j.tw", "--sink", "out", "--json").done()["done"] == 11
    assert Path("held").read_text().split() == ids
    assert Path("other.jsonl").read_text() == ""


def test_nobody_else_may_write_the_journal_meanwhile(place, run, start):
    """A living twin delivers by itself."""
    write(BROKEN)
    twin = start(*NEW[:-1], "--factor", "1")
    twin.wait_for(lambda: Path("held").exists())
    for words in (("redeliver", "j.tw", "--sink", "out"), ("redrive", "j.tw", "--source", "no")):
        assert "writes this journal" in run(*words, "--json").refusal(2)
    assert "interrupted" in twin.send(2).out


@pytest.mark.parametrize("name", ["redrive", "redeliver"])
def test_a_damaged_journal_is_named(plant, run, name):
    """As by every other reader."""
    Path("j.tw").write_text("no journal")
    option = "--source" if name == "redrive" else "--sink"
    assert "not a tidewarp journal" in run(name, "j.tw", option, "data", "--json").refusal(2)
