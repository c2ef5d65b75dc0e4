"""Signals, a second writer, a writer that was killed: the journal stays whole and the run goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from plant import NEW, RESUMED, outputs, write

from tidewarp import observe

pytestmark = pytest.mark.proof("signals and second writers leave a whole journal")

CLOCKED = """
import os, time
from pathlib import Path
import tidewarp as tw

def build(twin):
    def tick():
        while True:
            twin.publish_event("tick", twin.now)
            while os.path.exists("stuck"):
                Path("busy").touch()
                time.sleep(0.01)
            yield twin.env.timeout(0.01)

    twin.process(tick())
    twin.sink(tw.sinks.jsonl("out.jsonl"))
"""
PACED = ("run", "model.py", "--journal", "j.tw", "--factor", "1", "--json")


def has_outputs() -> bool:
    return Path("out.jsonl").exists() and Path("out.jsonl").stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_in_order(place, run, start, number):
    """Exit 130 and `interrupted`; the journal is ended with its digest, and the run goes on as if nothing had been."""
    write(CLOCKED)
    living = start(*PACED)
    living.wait_for(has_outputs)
    ended = living.send(number)
    assert (ended.code, ended.err) == (130, "")
    assert (ended.document["interrupted"], ended.document["reason"]) == (True, "interrupted")
    assert len(outputs()) == ended.document["outputs"] > 0
    verified = run("verify", "j.tw", "--head", ended.document["head"], "--json").done()
    assert verified["digest"] == ended.document["digest"]
    assert run("replay", "j.tw", "--json").done()["digest"] == ended.document["digest"]
    done = run("run", "model.py", "--journal", "j.tw", "--resume", "--until", 100, "--json").done()
    assert (done["interrupted"], done["resumed"], len(outputs())) == (False, True, 10_000)
    assert done["sinks"]["out"]["skipped"] == ended.document["outputs"]


def test_the_second_signal_ends_at_once(place, run, start):
    """A model that comes to no end of its instant cannot be stopped in order. Its journal is as after a kill."""
    write(CLOCKED)
    Path("stuck").touch()
    living = start(*PACED)
    living.wait_for(Path("busy").exists)
    ended = living.send(signal.SIGINT, signal.SIGTERM)
    assert (ended.code, ended.out, ended.err) == (130, "", "")
    Path("stuck").unlink()
    run("verify", "j.tw", "--json").done()
    assert run("run", "model.py", "--journal", "j.tw", "--resume", "--until", 1, "--json").done()["outputs"] == 100


def test_a_signal_before_the_first_event_is_not_lost(plant, run):
    """It comes while a resumed run writes that it goes on: the run ends there, interrupted."""
    run(*NEW, "--until", "1 min").done()
    heard = []

    def interrupt(stage: str) -> None:
        if stage == "journal.inside" and not heard:
            heard.append(stage)
            signal.raise_signal(signal.SIGINT)

    observe.on_stage(interrupt)
    try:
        ended = run(*RESUMED)
    finally:
        observe.on_stage(None)
    assert (ended.code, ended.document["interrupted"], heard) == (130, True, ["journal.inside"])
    assert ended.document["virtual_time_s"] == 60
    assert run(*RESUMED).done()["inputs"] == 5


def test_a_second_writer(place, run, start):
    """Exit 2 with the pid of the first, which does not notice; readers may stand beside it."""
    write(CLOCKED)
    living = start(*PACED)
    living.wait_for(has_outputs)
    for more in ((), ("--resume",)):
        line = run(*PACED, *more).refusal(2)
        assert f"process {living.process.pid} writes this journal" in line
        assert "j.tw" in line
    assert run("verify", "j.tw", "--json").done()["records"] == 1
    assert run("log", "j.tw", "--json").done()["count"] == 1
    run("replay", "j.tw", "--json").done()
    assert living.send(signal.SIGINT).code == 130
    run("verify", "j.tw", "--json").done()


def test_a_killed_writer_leaves_no_lock(place, run, start):
    """The pid in the lock file is of the past: the next run goes on."""
    write(CLOCKED)
    living = start(*PACED)
    living.wait_for(has_outputs)
    assert living.send(signal.SIGKILL).code == -signal.SIGKILL
    run("verify", "j.tw", "--json").done()
    done = run("run", "model.py", "--journal", "j.tw", "--resume", "--until", 10, "--json").done()
    assert (done["resumed"], done["outputs"]) == (True, len(outputs()))
