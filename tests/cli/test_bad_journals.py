"""A journal that is none, is damaged or holds another run; a sink's file that is not the run's own."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from plant import NEW, RESUMED, changed, no_run_was_begun, outputs, records

from tidewarp.store import open_store

pytestmark = pytest.mark.proof("what is not the run's own is refused and left as it was")


def not_journals() -> dict[str, Callable[[], object]]:
    """Name -> what makes it."""

    def database() -> None:
        with sqlite3.connect("other.tw") as db:
            db.execute("CREATE TABLE t (a)")
        db.close()

    def folder() -> None:
        Path("folder.tw").mkdir()
        Path("folder.tw/note").touch()

    return {
        "folder.tw": folder,
        "no/such/folder.tw": lambda: None,
        "text.tw": lambda: Path("text.tw").write_text("Dear diary,\n" * 500),
        "short.tw": lambda: Path("short.tw").write_text("xy"),
        "other.tw": database,
        "data.csv/j.tw": lambda: None,
        "x" * 300: lambda: None,
        "pipe.tw": lambda: os.mkfifo("pipe.tw"),
    }


@pytest.mark.parametrize("name", not_journals())
def test_a_journal_that_is_none(plant, run, name):
    """Exit 2 for whoever wants to use it, with its name and what it is; it is left as it was."""
    not_journals()[name]()
    kind = stat.S_IFMT(Path(name).stat().st_mode) if os.path.lexists(name[:200]) and len(name) < 200 else None
    before = Path(name).read_bytes() if kind == stat.S_IFREG else None
    for command in ("replay", "log"):
        assert name[:100] in run(command, name, "--json").refusal(2)
    for more in ((), ("--resume",)):
        line = run("run", "model.py", "--journal", name, "--json", *more).refusal(2)
        assert name[:100] in line
        assert "PosixPath" not in line
    if before is None:
        assert name[:100] in run("verify", name).refusal(2)
    else:
        assert "page 1" in run("verify", name).refusal(1)  # it may be one that is damaged
        assert Path(name).read_bytes() == before
    assert not Path("out.jsonl").exists()


def test_an_empty_file_is_a_journal_that_was_not_begun(plant, run):
    """SQLite makes an empty file first, so a creation that was interrupted leaves one."""
    Path("j.tw").touch()
    for command in ("replay", "log"):
        assert "not a tidewarp journal" in run(command, "j.tw", "--json").refusal(2)
    assert "page 1" in run("verify", "j.tw").refusal(1)
    run(*NEW).done()


@pytest.mark.parametrize("command", ["replay", "log", "verify"])
def test_a_journal_that_is_not_there(plant, run, command):
    """Reading makes none."""
    assert "j.tw: there is no such journal" in run(command, "j.tw", "--json").refusal(2)
    assert not Path("j.tw").exists()


def test_resume_on_a_missing_file_starts(plant, run):
    assert run(*RESUMED).done()["resumed"] is False


def test_a_file_that_holds_a_run_needs_resume(plant, run):
    """Exit 2, and nothing is written to it."""
    run(*NEW).done()
    before = records()
    line = run(*NEW).refusal(2)
    assert "j.tw" in line
    assert "--resume" in line
    assert records() == before


def test_a_journal_without_a_twin(place, run):
    """Opened, never begun: nothing to replay or to show, nothing wrong."""
    open_store("j.tw", create=True).close()
    for command in ("replay", "log"):
        assert "begins with tw.open" in run(command, "j.tw", "--json").refusal(2)
    assert run("verify", "j.tw", "--json").done()["records"] == 0


def test_a_damaged_journal(plant, run):
    """Exit 1 with the record, from each command that reads it; the others are for `verify`."""
    run(*NEW).done()
    with sqlite3.connect("j.tw") as db:
        db.execute("UPDATE log SET body = zeroblob(length(body)) WHERE id = (1 << 44) + 3")
    db.close()
    for words in (RESUMED, ("replay", "j.tw", "--json"), ("log", "j.tw", "--json")):
        assert "record 3" in run(*words).refusal(1)
    bad = run("verify", "j.tw", "--json")
    assert (bad.code, bad.document["ok"], bad.document["first_bad"]["seq"]) == (1, False, 3)
    assert "record 3" in run("verify", "j.tw").refusal(1)


def test_a_replay_whose_model_moved(plant, run):
    """The recorded path is tried; --model names another."""
    run(*NEW).done()
    Path("model.py").rename("moved.py")
    assert "model.py: no such file" in run("replay", "j.tw", "--json").refusal(2)
    assert run("replay", "j.tw", "--model", "moved.py", "--json").done()["equal"] is True


@pytest.mark.parametrize(
    ("content", "words"),
    [("notes\n", "its last line is"), ('{"id":"1"}\n', "its last line is"), ("notes", "it begins with")],
)
def test_a_sink_does_not_overwrite_what_is_not_its_own(plant, run, content, words):
    Path("out.jsonl").write_text(content)
    line = run(*NEW).refusal(2)
    assert "out.jsonl" in line
    assert words in line
    assert Path("out.jsonl").read_text() == content
    assert records() == 0


def test_a_sink_of_another_run(plant, run):
    """A second journal does not go on with the first one's outputs."""
    run(*NEW).done()
    held = outputs()
    line = run("run", "model.py", "--journal", "k.tw", "--json").refusal(2)
    assert "another" in line
    assert "out.jsonl" in line
    assert (outputs(), records("k.tw")) == (held, 0)


def test_a_sink_without_a_folder(plant, run):
    changed("out.jsonl", "no/such/out.jsonl")
    assert "no/such/out.jsonl: no such file or directory" in run(*NEW).refusal(2)
    no_run_was_begun(run)
