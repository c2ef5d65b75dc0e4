"""The kill harness in the hands of a third person: his model is a file, with names and data of its own."""

from __future__ import annotations

import sys

import pytest

from tidewarp.errors import OperatorError
from tidewarp.testing import KillTrial

MODEL = """
import tidewarp as tw

def build(twin):
    level = twin.variable("tank.level", float)

    def watch():
        while True:
            change = yield level.wait_for_change()
            twin.publish_event("tank.level", change.new)

    twin.process(watch())
    twin.connect(tw.sources.csv("levels.csv", time="t", map={"level": "tank.level"}))
    twin.sink(tw.sinks.jsonl("done.jsonl"))
"""


@pytest.fixture
def model(tmp_path, require, monkeypatch):
    require("fork")
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "levels.csv").write_text("t,level\n" + "".join(f"{n},{n * n % 97}\n" for n in range(300)))
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    yield path
    sys.modules.pop("tidewarp_model", None)


@pytest.mark.parametrize("mode", ["armed", "moments", "command"])
def test_a_model_is_killed_by_its_path(mode, model, tmp_path):
    """With its own data and the name of its own output file; nothing else has to be given, not even the command."""
    trial = KillTrial(model, tmp_path / "runs", outputs="done.jsonl", files=[tmp_path / "levels.csv"])
    report = trial.run(mode, kills=4)
    assert not report.failures, report.table()
    assert report.kills == 4
    assert trial.done["outputs"] > 200


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"outputs": "events.jsonl"}, "events.jsonl': 0 lines, .* give the name that its sink has"),
        ({"files": []}, r"no such file or directory[\s\S]*give files="),
        ({"files": ["levels.txt"]}, "levels.txt: cannot be copied"),
    ],
)
def test_what_is_missing_is_said(options, told, model, tmp_path):
    """Before anything is killed."""
    given = {"outputs": "done.jsonl", "files": [tmp_path / "levels.csv"], **options}
    with pytest.raises(OperatorError, match=told):
        KillTrial(model, tmp_path / "runs", **given)


def test_a_function_has_no_command(tmp_path, require):
    """What to run is then the caller's to say."""
    require("fork")
    trial = KillTrial(lambda twin: twin.variable("a", int), tmp_path)
    with pytest.raises(OperatorError, match="it needs a command"):
        trial.run("command", kills=1)
