"""``tidewarp doctor`` tells what is missing, and that a small twin and its replay agree."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tidewarp.cli import doctor, main

ROOT = Path(__file__).parents[2]
TESTED = {"ok": True, "digest_live": "ab", "digest_replayed": "ab", "error": None}


def test_doctor_knows_every_dependency():
    """The packages that it looks for are those that the project declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(doctor.DEPENDENCIES) == sorted(re.match(r"[\w-]+", line)[0] for line in project["dependencies"])


def test_doctor_runs_a_twin_and_its_replay(capsys):
    """On a machine that can run the tests everything works, the small twin included."""
    code = main(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["self_test"]["error"] is None
    assert document["self_test"]["digest_live"] == document["self_test"]["digest_replayed"]
    assert re.fullmatch("[0-9a-f]{64}", document["self_test"]["digest_live"])
    assert (code, document["ok"]) == (0, True)


def test_missing_package_is_named_with_its_remedy(monkeypatch, capsys):
    """A dependency that is not installed makes the command end with 1 and say how to get it."""
    monkeypatch.setattr(doctor, "self_test", lambda: TESTED)
    monkeypatch.setattr(doctor, "DEPENDENCIES", ("click", "no-such-package-here"))
    assert main(["doctor"]) == 1
    assert "MISSING: pip install no-such-package-here" in capsys.readouterr().out


def test_missing_extra_is_no_failure(monkeypatch, capsys):
    """Optional parts are listed with the command that installs them; without them the command still ends with 0."""
    requirements = ["click>=8", "no-such-package-here>=2; extra == 'kafka'", 'pytest>=8 ; extra == "test"']
    monkeypatch.setattr(doctor, "self_test", lambda: TESTED)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: requirements)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["extras"] == {
        "kafka": {"missing": ["no-such-package-here"], "install": "pip install 'tidewarp[kafka]'"},
        "test": {"missing": [], "install": "pip install 'tidewarp[test]'"},
    }


@pytest.mark.parametrize("facility", ["_has_wal", "self_test"])
def test_what_every_twin_needs_decides(facility, monkeypatch, capsys):
    """Without a write-ahead log, or with a self-test that fails, the command ends with 1."""
    monkeypatch.setattr(doctor, "self_test", lambda: TESTED)
    broken = {"_has_wal": False, "self_test": {**TESTED, "ok": False, "error": "no\x1b journal"}}
    monkeypatch.setattr(doctor, facility, lambda: broken[facility])
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "DOES NOT WORK" in out
    assert "\x1b" not in out
