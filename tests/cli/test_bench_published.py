"""The published tool in the benchmark: a process of its own that may be missing, fail or hang without harm."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewarp.cli.bench import control, figures, own_process, published, rates
from tidewarp.cli.bench.own_process import Child, Failed
from tidewarp.cli.bench.published import INSTALL, Published

PROGRAM = """
import os, sys, threading
from tidewarp.cli.bench.own_process import serve
def double(number): return {"double": 2 * number}
def chatter(): print("a word"); os.write(1, b"and another\\n"); return {"said": 2}
def fails(): raise ValueError("not today")
def hangs(): threading.Event().wait()
def dies(): os.write(2, b"the end is near\\n"); os._exit(7)
sys.exit(serve({work.__name__: work for work in (double, chatter, fails, hangs, dies)}))
"""
WORKS: dict[str, dict[str, Any]] = {
    "timeouts": {"size": 200, "processes": 10},
    "request": {"size": 100, "processes": 10},
    "ingest": {"size": 500, "sensors": 20},
    "publish": {"size": 200},
    "mm2": {"size": 30, "arrivals_per_s": 1.0, "services_per_s": 0.6},
    "apply": {"updates": 10, "rate_hz": 50.0},
    "burst": {"updates": 500, "sensors": 20, "wait_s": 0.05, "tick_s": 0.01},
}
MODULES = ["dynamic_des", "tidewarp.compat.dynamic_des"]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    """A process with works of these tests."""
    (tmp_path / "works_of_a_test.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with Child("works_of_a_test") as made:
        yield made


def test_a_child_answers_again_and_again(child: Child) -> None:
    """Also after a work that raised."""
    assert child.ask("double", 60.0, number=21) == {"double": 42}
    with pytest.raises(Failed, match="ValueError: not today"):
        child.ask("fails", 60.0)
    assert child.ask("double", 60.0, number=1) == {"double": 2}


def test_what_a_work_prints_is_no_answer(child: Child) -> None:
    """By Python or past it."""
    assert child.ask("chatter", 60.0) == {"said": 2}
    assert child.ask("double", 60.0, number=3) == {"double": 6}


def test_a_work_that_hangs_is_not_waited_for(child: Child) -> None:
    """The process is ended with its context."""
    with pytest.raises(Failed, match=r"no answer within 0.01 s"):
        child.ask("hangs", 0.01)
    child.close()
    assert child._process.returncode == -9


def test_a_process_that_ends_has_last_words(child: Child) -> None:
    """Its last line on standard error, for this work and for those that follow."""
    for _ in range(2):
        with pytest.raises(Failed, match="the end is near"):
            child.ask("dies", 60.0)


@pytest.fixture(params=MODULES)
def tool(request: pytest.FixtureRequest, require: Callable[[str], None]) -> Iterator[Published]:
    """The tool as published, and our own package of the same names: the program is one for both."""
    if request.param == "dynamic_des":
        require("published")
    with Published(request.param) as found:
        yield found


def test_the_tool_does_each_work(tool: Published) -> None:
    """With figures above zero, and without a failure."""
    answers = {work: tool.ask(work, 0.0, **sizes) for work, sizes in WORKS.items()}
    assert tool.failed == {}
    assert all(min(answer.values()) >= 0 for answer in answers.values() if answer is not None)
    assert {work for work, answer in answers.items() if answer and "seconds" in answer} == {*WORKS} - {"apply", "burst"}
    assert 1 <= answers["apply"]["apply_updates_seen"] <= 10  # type: ignore[index]


def test_its_figures_stand_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under ``published``, with the names of ours, its version, and what it failed at."""
    for name, size in {"TIMEOUTS": 200, "TASKS": 30}.items():
        monkeypatch.setattr(rates, name, size)
    monkeypatch.setattr(figures, "RATE_HZ", 50.0)
    found = control.measure(("timeouts", "mm2", "apply"), 0.0, "tidewarp.compat.dynamic_des")
    theirs = found["published"]
    own = {"apply_updates", *(key for key in found if key.startswith(("apply_commit", "apply_polling")))}
    shared = {"digest", "machine", "published", "published_missing"}
    assert theirs.keys() == (found.keys() - own - shared) | {"version", "failed"}
    assert (theirs["failed"], found["published_missing"]) == ({}, None)
    heads = [column.header for column in control._render(found).columns]  # type: ignore[attr-defined]
    assert heads[3] == f"dynamic-des {theirs['version']}"


def test_what_it_cannot_do_is_told_and_ours_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that has none of the names stands for one that has changed them."""
    monkeypatch.setattr(rates, "TIMEOUTS", 200)
    found = control.measure(("timeouts",), 0.0, "tidewarp.units")
    assert found["timeouts_vs_simpy"] > 0
    assert "DynamicRealtimeEnvironment" in found["published"]["failed"]["timeouts"]
    assert "timeouts_vs_simpy" not in found["published"]
    assert "DynamicRealtimeEnvironment" in control._render(found).caption  # type: ignore[attr-defined]


def test_a_tool_that_does_not_come_to_an_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time it is ended, and the next work gets a new process."""
    with Published("tidewarp.compat.dynamic_des") as tool:
        assert tool.figures("timeouts", 0.0, **WORKS["timeouts"]) != {}
        monkeypatch.setattr(published, "PATIENCE_S", 0.0)
        assert tool.figures("burst", 0.0, **WORKS["burst"] | {"wait_s": 1e6}) == {}
        monkeypatch.undo()
        assert tool.figures("timeouts", 0.0, **WORKS["timeouts"]) != {}
    assert tool.failed == {"burst": "no answer within 0 s"}


def test_a_package_that_is_broken_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and importing it raises: the reason is told with the command that installs it."""
    (tmp_path / "broken_tool.py").write_text("raise ImportError('libsomething.so is gone')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(tmp_path)
    with Published("broken_tool") as tool:
        assert tool.case("timeouts") == {}
        found = tool.document({})
    assert found["published"] is None
    assert "libsomething.so is gone" in found["published_missing"]
    assert INSTALL in found["published_missing"]


def test_a_work_of_ours_that_fails_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its reason: no figure is left out in silence."""
    monkeypatch.setattr(figures, "YEAR_DAYS", -1)
    with Published("a_tool_that_nobody_has") as nobody, pytest.raises(figures.OperatorError, match=r"memory: .*Error"):
        figures.memory(tmp_path, 0.0, nobody)


def test_a_broken_pipe_is_a_failure(child: Child) -> None:
    """A process that ended before it was asked."""
    child._process.kill()
    child._process.wait()
    with pytest.raises(own_process.Failed, match="exit code -9"):
        child.ask("double", 60.0, number=1)
