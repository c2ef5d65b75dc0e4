"""`tidewarp run --standby`: two processes, one journal, one twin."""

from __future__ import annotations

import signal
from pathlib import Path

from plant import MODEL, NEW, outputs, records, write, write_plant

from tidewarp.errors import OperatorError

SLOW = (*NEW[:-1], "--factor", "0.5")  # it takes so long that it does not end before it is ended
STANDBY = (*NEW, "--standby")


def begun() -> bool:
    """Has the journal a record?"""
    try:
        return records() >= 1
    except OperatorError:  # it is being made
        return False


def sent() -> int:
    """Whole lines of the sink."""
    return Path("out.jsonl").read_text().count("\n") if Path("out.jsonl").exists() else 0


def undisturbed(run, *seconds: int) -> tuple[str, list[tuple[str, object]]]:
    """Digest and outputs of the run that nothing happens to. Readings at 0, of which nothing is told, and then."""
    times = (f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in (0, *seconds))
    write_plant("time,value\n" + "".join(f"2014-01-01T{time}Z,{n}\n" for n, time in enumerate(times)))
    digest = run("run", "model.py", "--journal", "whole.tw", "--json").done()["digest"]
    found = outputs()
    Path("out.jsonl").unlink()
    return digest, found


def test_a_standby_takes_the_place_of_a_killed_twin(place, run, start):
    """SIGKILL in the middle of the run: the other process ends it, with the digest and the outputs of one run."""
    digest, expected = undisturbed(run, 1, 2, 3600, 3601)
    writer = start(*SLOW)
    writer.wait_for(begun)
    standby = start(*STANDBY, "--factor", "0")
    standby.wait_for(lambda: _follows(standby.process.pid))
    writer.wait_for(lambda: sent() >= 2)
    assert writer.send(signal.SIGKILL).code == -signal.SIGKILL
    ended = standby.end()
    assert (ended.code, ended.err) == (0, "")
    assert (ended.document["digest"], ended.document["resumed"]) == (digest, True)
    assert outputs() == expected
    assert run("replay", "j.tw", "--json").done()["equal"] is True
    run("verify", "j.tw", "--json").done()


def test_one_of_two_standbys_takes_over_and_the_other_stands_by_it(place, run, start):
    """Three processes: each that dies has a successor."""
    digest, expected = undisturbed(run, 2, 102, 402)  # the second is killed in the 6 s behind its first output
    writer = start(*SLOW)
    writer.wait_for(begun)
    others = [start(*STANDBY, "--factor", "0.02") for _ in range(2)]
    for one in others:
        one.wait_for(lambda one=one: _follows(one.process.pid))
    writer.wait_for(lambda: sent() >= 1)
    assert writer.send(signal.SIGKILL).code == -signal.SIGKILL
    before = sent()
    others[0].wait_for(lambda: Path("j.tw.lock").read_text().strip() in {str(one.process.pid) for one in others})
    second = int(Path("j.tw.lock").read_text())
    second, third = sorted(others, key=lambda one: one.process.pid != second)
    second.wait_for(lambda: sent() > before)
    assert second.send(signal.SIGKILL).code == -signal.SIGKILL
    ended = third.end()
    assert (ended.code, ended.document["digest"]) == (0, digest)
    assert outputs() == expected


def test_a_standby_can_be_ended_while_it_waits(plant, run, start):
    """It has no end of its own: that is 0, and the writer has noticed nothing."""
    writer = start(*SLOW)
    writer.wait_for(begun)
    for number in (signal.SIGINT, signal.SIGTERM):
        standby = start(*STANDBY)
        standby.wait_for(lambda standby=standby: _follows(standby.process.pid))
        assert standby.send(number).done() == {"interrupted": True, "journal": "j.tw"}
    assert writer.process.poll() is None
    assert "interrupted" in writer.send(signal.SIGINT).out


def test_a_standby_with_another_model_is_refused_at_once(plant, run, start):
    """While the writer lives, and not when it is needed."""
    writer = start(*SLOW)
    writer.wait_for(begun)
    write(MODEL + "\n")
    assert "changed since this journal was begun" in start(*STANDBY).end().refusal(2)
    assert writer.process.poll() is None


def _follows(pid: int) -> bool:
    """Has this process the journal open?"""
    try:
        return any(str(one.readlink()).endswith("j.tw") for one in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
