"""The command ``tidewarp`` as its users meet it: in this process where that is enough, else in a child."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tidewarp
from tidewarp.cli import main

SOURCE = str(Path(tidewarp.__file__).parents[1])
COMMAND = [sys.executable, "-W", "error", "-m", "tidewarp"]
TRIES, PAUSE_S = 1_200, 0.05  # a child gets a minute for what it needs milliseconds for


class Ended(NamedTuple):
    """A command that ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON object that stdout holds."""
        assert len(self.out.splitlines()) == 1, self
        document: dict[str, Any] = json.loads(self.out)
        return document

    def done(self) -> dict[str, Any]:
        """The answer of a command that found nothing wrong and had nothing to say beside it."""
        assert (self.code, self.err) == (0, ""), self
        return self.document

    def refusal(self, code: int) -> str:
        """The one error line of a command that ended with ``code``.

        It has value, rule and next action, and nothing else was printed: no traceback, no warning; with --json the
        same three stand in the one object.
        """
        assert self.code == code, self
        (line,) = self.err.splitlines()
        assert line.startswith("error: "), self
        assert not line.startswith("error: internal"), self
        assert line.isprintable(), self
        if self.out:
            error = self.document["error"]
            assert self.document["exit"] == code, self
            assert all(error.values()), self
            assert [*error] == ["value", "rule", "action"], self
            assert line.endswith("; " + escaped(error["action"])), self
        else:
            assert "; " in line, self
        return line


def escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("verify", "j.tw", "--json")`` in this process, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*argv: object) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        return Ended(code, *capsys.readouterr())

    return call


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "HOME": os.environ.get("HOME", "/")}


def child(*argv: object, command: list[str] | None = None, **options: Any) -> Ended:
    """As ``run``, in a process of its own."""
    words = [*(command or COMMAND), *map(str, argv)]
    ended = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, **options)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def start(*argv: object, **options: Any) -> subprocess.Popen[str]:
    """A child that is not waited for."""
    return subprocess.Popen(
        [*COMMAND, *map(str, argv)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for a child that is about to end."""
    try:
        out, err = process.communicate(timeout=TRIES * PAUSE_S)
    finally:
        process.kill()
    return Ended(process.returncode, out, err)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until the child has come so far; fails if it ends before, or after a bounded number of tries."""
    for _ in range(TRIES):
        if condition():
            return
        if process.poll() is not None:
            break
        time.sleep(PAUSE_S)
    process.kill()
    pytest.fail(f"the child did not get there: {process.communicate()}")
