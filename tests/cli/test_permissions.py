"""Files and folders that this user may not read or write."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plant import NEW, RESUMED

pytestmark = pytest.mark.proof("without permission: one line, and nothing is left behind")

AS_NOBODY = """
import contextlib, encodings.utf_8_sig, importlib, io, os, sys
from tidewarp.cli import main
for name in ("run", "replay", "verify", "log"):
    importlib.import_module(f"tidewarp.cli.{name}")
for name in ("csv", "jsonl"):
    importlib.import_module(f"tidewarp.connect.backends.{name}")
with contextlib.redirect_stdout(io.StringIO()):  # whatever is imported late is imported now
    assert main(["doctor", "--json"]) == 0
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def nobody(require, plant, child, monkeypatch) -> Iterator[Callable[..., object]]:
    """``nobody("verify", "j.tw")``: the command as another user, in a directory that this one reaches."""
    require("otheruid")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("model.py", "data.csv"):
            (folder / file).write_bytes(Path(file).read_bytes())
        folder.chmod(0o777)
        monkeypatch.chdir(folder)

        def call(*argv: object) -> object:
            return child(*argv, command=(sys.executable, "-W", "error", "-c", AS_NOBODY))

        yield call
        folder.chmod(0o755)


@pytest.mark.parametrize("file", ["model.py", "data.csv"])
def test_a_file_that_this_user_may_not_read(nobody, file):
    """Model or data: exit 2 with its name."""
    Path(file).chmod(0o600)
    line = nobody(*NEW).refusal(2)
    assert file in line
    assert "permission" in line.lower()
    assert not Path("out.jsonl").exists()


def test_a_journal_that_this_user_may_not_read(nobody, run, monkeypatch):
    folder = Path.cwd()
    run(*NEW).done()
    assert Path.cwd() == folder
    Path("j.tw").chmod(0o600)
    for words in (("verify", "j.tw", "--json"), ("replay", "j.tw", "--json"), ("log", "j.tw", "--json"), RESUMED):
        line = nobody(*words).refusal(2)
        assert "j.tw" in line
        assert "permission" in line


def test_a_journal_that_this_user_may_only_read(nobody, run):
    """Verified, replayed and shown also from a folder that cannot be written; not continued."""
    run(*NEW).done()
    for extra in ("-wal", "-shm"):
        Path(f"j.tw{extra}").unlink(missing_ok=True)
    Path.cwd().chmod(0o755)
    before = sorted(os.listdir())
    assert nobody("verify", "j.tw", "--json").done()["ok"] is True
    assert nobody("replay", "j.tw", "--json").done()["equal"] is True
    assert nobody("log", "j.tw", "--json").done()["count"] > 5
    line = nobody(*RESUMED).refusal(2)
    assert "j.tw" in line
    assert "written" in line
    assert sorted(os.listdir()) == before


def test_a_folder_that_this_user_may_not_write(nobody):
    """A journal that cannot be made, a sink that cannot: exit 2, and nothing is left there."""
    Path.cwd().chmod(0o755)
    before = sorted(os.listdir())
    line = nobody(*NEW).refusal(2)
    assert "j.tw" in line
    assert "ermission denied" in line
    Path("sub").mkdir()
    Path("sub").chmod(0o777)
    line = nobody("run", "model.py", "--journal", "sub/j.tw", "--json").refusal(2)
    assert "out.jsonl: permission denied" in line
    assert sorted(os.listdir()) == sorted([*before, "sub"])
    Path("sub").chmod(0o700)
    assert "sub/j.tw" in nobody("verify", "sub/j.tw", "--json").refusal(2)
