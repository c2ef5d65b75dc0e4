"""`tidewarp warm`: what it compiles, what it says, what it refuses."""

from __future__ import annotations

import json

import pytest

from tidewarp.cli import main
from tidewarp.kernel.shell import compiled


def test_without_numba_it_says_what_installs_it(monkeypatch, capsys):
    """Exit 3 and the command."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    compiled.numba_fault.cache_clear()
    assert main(["warm", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["action"] == "pip install 'tidewarp[fast]'"
    compiled.numba_fault.cache_clear()


@pytest.mark.parametrize(("target", "rule"), [("model.py", "FILE:NAME"), ("none.py:model", "no such file")])
def test_a_model_that_is_not_there(target, rule, capsys, require):
    """Exit 2 and the rule."""
    require("numba")
    assert main(["warm", "--model", target]) == 2
    assert rule in capsys.readouterr().err


def test_it_says_what_was_compiled_and_where(monkeypatch, capsys, tmp_path, require):
    """One entry for each unit, in order; a model of one's own is the last."""
    require("numba")
    monkeypatch.setattr(compiled, "KERNELS", compiled.COMMON)
    monkeypatch.setattr(compiled, "_keep_at", lambda root: None)
    path = tmp_path / "own.py"
    path.write_text(
        "from tidewarp.worlds.phold import phold\n\ndef model():\n    return phold(lps=3)\n\ndef other():\n    return 3\n"
    )
    assert main(["warm", "--model", f"{path}:model", "--cache", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"kernels", "cache_dir", "cpu", "seconds"}
    assert [unit["name"] for unit in document["kernels"]][:5] == list(compiled.COMMON)
    assert all(set(unit) == {"name", "seconds", "cached"} for unit in document["kernels"])
    assert main(["warm", "--model", f"{path}:other"]) == 2
    assert "not a kernel Model" in capsys.readouterr().err
