"""The command ``tidewarp`` as its users meet it: in this process where that is enough, else in a child."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from plant import write_plant

import tidewarp
from tidewarp.cli import main

SOURCE = str(Path(tidewarp.__file__).parents[1])
COMMAND = (sys.executable, "-W", "error", "-m", "tidewarp")
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

        It has value, rule and next action and nothing else was printed: no traceback, no warning. With --json the
        same three stand in the one object.
        """
        assert self.code == code, self
        assert self.err.count("\n") == 1, self
        line = self.err.removesuffix("\n")
        assert line.startswith("error: "), self
        assert not line.startswith("error: internal"), self
        assert line.isprintable(), self
        assert "; " in line, self
        if self.out:
            error = self.document["error"]
            assert self.document["exit"] == code, self
            assert [*error] == ["value", "rule", "action"], self
            assert all(error.values()), self
        return line


class Living:
    """A command in a process of its own that is not waited for."""

    def __init__(self, argv: tuple[object, ...]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, argv)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Until it has come so far; fails if it ends before, or after a bounded number of tries."""
        for _ in range(TRIES):
            if condition():
                return
            if self.process.poll() is not None:
                break
            time.sleep(PAUSE_S)
        self.process.kill()
        pytest.fail(f"the child did not get there: {self.process.communicate()}")

    def send(self, *signals: signal.Signals) -> Ended:
        """Send the signals, wait for the end."""
        for number in signals:
            self.process.send_signal(number)
        return self.end()

    def end(self) -> Ended:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=TRIES * PAUSE_S)
        return Ended(self.process.returncode, out, err)


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "HOME": os.environ.get("HOME", "/")}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of this process and its children: empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a model's folder is put in front
    return tmp_path


@pytest.fixture
def plant(place: Path) -> Path:
    """A model and its five readings, in the working directory."""
    write_plant()
    return place


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """``run("verify", "j.tw", "--json")`` in this process."""

    def call(*argv: object) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        return Ended(code, *capsys.readouterr())

    return call


@pytest.fixture
def sites(run: Callable[..., Ended]) -> tuple[str, str]:
    """Two empty stores."""
    for place in "AB":
        run("store", "init", place, "--json").done()
    return "A", "B"


@pytest.fixture
def child(place: Path) -> Callable[..., Ended]:
    """As ``run``, in a process of its own; ``command`` stands in the place of ``tidewarp``."""

    def call(*argv: object, command: tuple[object, ...] = COMMAND, **options: Any) -> Ended:
        words = [str(word) for word in (*command, *argv)]
        ended = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, **options)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return call


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., Living]]:
    """As ``child``, but not waited for; what still lives at the end of the test is killed."""
    living: list[Living] = []

    def call(*argv: object) -> Living:
        living.append(Living(argv))
        return living[-1]

    yield call
    for one in living:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


class Site:
    """A site that serves its store."""

    def __init__(self, living: Any, url: str) -> None:
        self.living = living
        self.url = url

    def stop(self) -> None:
        """In order: exit 0, nothing more said."""
        ended = self.living.send(signal.SIGTERM)
        assert (ended.code, ended.err) == (0, "")


@pytest.fixture
def serve(start: Callable[..., Any]) -> Callable[..., Site]:
    """``serve("A")``: a process that serves the store, ready to be asked."""

    def call(place: Any, *options: Any) -> Site:
        living = start("peer", "serve", place, "--port", 0, *options)
        scheme = "https" if "--tls" in options else "http"
        line = living.process.stdout.readline()
        said = living.process.stderr.read() if not line else ""
        assert line.startswith(f"serving {scheme}://127.0.0.1:"), (line, said)
        return Site(living, line.removeprefix("serving ").strip())

    return call
