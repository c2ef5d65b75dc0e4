"""What the commands say to people: everything that is counted and not zero, and what to do next."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from plant import NEW, RESUMED, changed, write, write_plant

from tidewarp.cli.run import _render
from tidewarp.store import open_store

COUNTING = """
import tidewarp as tw

def build(twin):
    twin.resource("plant.oven", capacity=2, max_capacity=3)
    level = twin.variable("plant.level", float, high=100.0)

    def watch():
        while True:
            change = yield level.wait_for_change()
            twin.publish_event("plant.seen", change.new if change.new != 2.0 else {1, 2})

    twin.process(watch())
    twin.connect(tw.sources.csv("data.csv", time="time", map={"value": "plant.level"}), late="clamp")
    twin.connect(tw.sources.schedule([(1.0, "plant.oven.current_cap", 9)]), name="caps")
    twin.sink(tw.sinks.jsonl("out.jsonl"))
"""


def test_a_run_shows_all_that_is_counted_and_not_zero(place, run):
    """Late, clamped, refused, undeliverable, dead by rule; and not what did not happen."""
    write(COUNTING)
    rows = ["00:01:00Z,1", "00:02:00Z,2", "00:01:30Z,3", "00:03:00Z,x", "00:04:00Z,101", "00:05:00Z,4"]
    Path("data.csv").write_text("time,value\n" + "".join(f"2014-01-01T{row}\n" for row in rows))
    shown = run(*NEW[:-1]).out.splitlines()
    assert shown[1:8] == [
        "inputs       5 (1 late, 0 duplicates)",
        "dead letters 2 (value 2)",
        "outputs      4",
        "clamped      1",
        "refused      1",
        "undeliverable 1",
        shown[7],
    ]
    assert "see them     tidewarp log j.tw --dead" in shown
    assert shown[-1].startswith("sink out: 4 sent, 0 held already, last id ")
    again = run("run", "model.py", "--journal", "j.tw", "--resume", "--until", "1h").out
    assert "sink out: 0 sent, 4 held already" in again
    assert not any(word in again for word in ("dropped", "lag", "retried", "for good"))


def test_what_a_sink_met_is_shown():
    """Retries and refusals, with the reason of the last; a lag where there was one."""
    document = dict.fromkeys(("virtual_time_s", "wall_s", "lag_s_max"), 1.5) | dict.fromkeys(
        (
            "inputs",
            "late",
            "duplicates",
            "dead_letters",
            "outputs",
            "repaired",
            "clamped",
            "dropped",
            "gaps",
            "refused",
            "undeliverable",
        ),
        0,
    )
    document |= {"reason": "end", "dead": {}, "digest": "d", "head": "h", "journal": "j.tw", "journal_records": 1}
    document |= {"shed": {"in": 4}, "sources": {"in": {"state": "open", "reason": "", "unread_bytes": 3, "misread": 0}}}
    document["behind"] = {"out": "9 outputs are not delivered (its file is full)"}
    sink = {
        "sent": 5,
        "skipped": 0,
        "retried": 2,
        "dead": 1,
        "refusal": "too large",
        "spilled": 3,
        "behind": 0,
        "state": "down",
        "reason": "refused",
        "last_id": "7",
    }
    shown = _render({**document, "sinks": {"out": sink}}).splitlines()
    assert "lag          1.500 s of wall time, at most" in shown
    assert {"source in: 3 unread bytes", "source in: 4 shed"} <= {*shown}
    assert shown[-1] == "sink out is behind: 9 outputs are not delivered (its file is full)"
    assert (
        shown[-2]
        == "sink out: 5 sent, 0 held already, 2 retried, 3 waited in a file, 1 refused for good (too large), down (refused), last id 7"
    )


@pytest.mark.parametrize("epoch", ["2014", " 1999 "])
def test_an_epoch_that_looks_like_a_year_is_refused(plant, run, epoch):
    """As Unix seconds it would be a moment of 1970, which nobody means who writes four digits."""
    line = run(*NEW, "--epoch", epoch).refusal(2)
    assert "looks like a year" in line
    assert f"write {epoch.strip()}-01-01T00:00:00Z" in line
    assert run(*NEW, "--epoch", "1388534400").done()["epoch"] == "2014-01-01T00:00:00+00:00"


def test_verify_of_a_journal_without_records_says_so(place, run):
    """Nothing is wrong with it, and nothing is in it."""
    open_store("j.tw", create=True).close()
    assert run("verify", "j.tw", "--json").done()["records"] == 0
    shown = run("verify", "j.tw")
    assert (shown.code, shown.out.splitlines()[0][:13]) == (0, "empty        ")
    assert "ok " not in shown.out


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda key: key.unlink(), "it is missing"),
        (lambda key: key.write_bytes(b"half"), "it is damaged"),
        (lambda key: key.write_bytes(bytes(33)), "it is damaged"),
        (lambda key: key.write_bytes(bytes(32)), "it is the key of another journal"),
    ],
)
def test_a_journal_is_continued_with_its_own_key_alone(plant, run, spoil, said):
    """Resuming names the key file; reading, replaying and verifying need no key, and verify tells that it is no good."""
    run(*NEW, "--until", "1 min").done()
    key = Path("j.tw.key")
    kept = key.read_bytes()
    assert run("verify", "j.tw", "--json").done()["key_fault"] is None
    spoil(key)
    line = run(*RESUMED).refusal(2)
    assert "j.tw.key: " + said in line
    assert "put the key back" in line
    assert run("replay", "j.tw", "--json").done()["equal"]
    assert said in run("verify", "j.tw", "--json").done()["key_fault"]
    assert f"key          {said}" in run("verify", "j.tw").out
    key.write_bytes(kept)
    assert run(*RESUMED).done()["inputs"] == 5


@pytest.mark.parametrize("old", ["twin.process(watch())", '"plant.level"})'])
def test_a_changed_model_is_told_before_what_the_change_breaks(plant, run, old):
    """The message names the file and the option, also where the changed model cannot be wired any more."""
    run(*NEW, "--until", "1 min").done()
    changed(old, "oven()" if "watch" in old else '"plant.lebel"})')
    line = run(*RESUMED).refusal(2)
    assert "model.py changed since this journal was begun" in line
    assert "--accept-model" in line


INTERRUPTED = """
import runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and not fired:
            fired.append(name)
            signal.raise_signal(signal.SIGINT)

fired = []
sys.meta_path.insert(0, Interrupt())
sys.argv = ["tidewarp", *sys.argv[1:]]
try:
    runpy.run_module("tidewarp", run_name="__main__", alter_sys=True)
finally:
    assert fired
"""


@pytest.mark.parametrize("module", ["click", "tidewarp.cli.problem", "tidewarp.cli.run", "simpy", "msgspec"])
def test_an_interrupt_while_modules_are_loaded_ends_without_a_traceback(place, child, module):
    """Exit 130, one line, one object, whichever import it meets."""
    write_plant()
    Path("early.py").write_text(INTERRUPTED.format(module=module))
    ended = child(*NEW, command=(sys.executable, "-W", "error", "early.py"))
    assert (ended.code, ended.err) == (130, "interrupted\n")
    assert ended.document == {"interrupted": True, "exit": 130}


def test_an_ignored_interrupt_stays_ignored(place, child):
    """As for a command that a shell has started in the background."""
    write_plant()
    Path("early.py").write_text(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + INTERRUPTED.format(module="click")
    )
    ended = child("--version", command=(sys.executable, "-W", "error", "early.py"))
    assert (ended.code, ended.err) == (0, "")
