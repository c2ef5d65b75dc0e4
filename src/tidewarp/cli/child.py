"""`tidewarp run` in a process of its own, watched through its journal while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tidewarp.connect.documents import INPUTS
from tidewarp.errors import OperatorError, TidewarpError
from tidewarp.store import Store, open_store
from tidewarp.twin.facts import documents

__all__ = ["Child", "JournalCount"]

_POLL_S = 0.02


class JournalCount:
    """How many readings a journal holds, asked again and again while another process writes it."""

    def __init__(self, journal: Path) -> None:
        self._path = journal
        self._store: Store | None = None
        self._seq = 0
        self._count = 0

    def now(self) -> int:
        """Readings durable by now; 0 while there is no journal. Raises Corrupt and StoreFailed as any reader."""
        if self._store is None:
            try:
                self._store = open_store(self._path, read_only=True)
            except OperatorError:  # its writer has not got that far
                return 0
        for seq, _, document in documents(self._store.journal, after=self._seq):
            self._seq = seq
            if document.schema == INPUTS:
                self._count += len(document.value["kinds"])
        return self._count

    def close(self) -> None:
        """Let go of the file."""
        if self._store is not None:
            self._store.close()


class Child:
    """The command ``tidewarp run MODEL --journal line.tw`` in ``folder``. A context manager that leaves no process behind.

    ``model`` is relative to the folder, which is the working directory of the run.
    """

    def __init__(self, folder: Path, model: str, seed: int, batch: int, *, resume: bool = False) -> None:
        options = ["--journal-batch", str(batch), "--seed", str(seed), "--quiet", "--json"]
        self._said = tempfile.TemporaryFile()  # a pipe that nobody reads would block the run
        self._count = JournalCount(folder / "line.tw")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tidewarp", "run", model, "--journal", "line.tw", *options, *["--resume"] * resume],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()  # the journal survives that; it does nothing to a process that has ended
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()
        self._count.close()
        self._said.close()

    def watch(self, readings: int | None, advance: Callable[[int], None]) -> bool:
        """Wait until the journal holds ``readings``; False if the run ended before. None waits for the end.

        ``advance`` hears how many readings are durable, about 50 times a second.
        """
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_POLL_S)
                return False
            done = self._count.now()
            advance(done)
            if readings is not None and done >= readings:
                return True

    def kill(self) -> bool:
        """SIGKILL. False if the run had ended before the signal reached it."""
        self._process.kill()
        return self._process.wait() == -signal.SIGKILL

    def readings(self) -> int:
        """Readings that the journal holds now."""
        return self._count.now()

    def summary(self) -> dict[str, Any]:
        """What the run printed. Raises the error that it ended with."""
        out, _ = self._process.communicate()
        code = self._process.returncode
        try:
            document: dict[str, Any] = json.loads(out)
        except ValueError:
            document = {}
        if code == 0 and "digest" in document:
            return document
        said = document.get("error") or {}
        cause = TidewarpError if code == 1 else OperatorError
        raise cause(
            said.get("value", f"tidewarp run ended with {code}"),
            said.get("rule", self._last_words() or "it said nothing"),
            said.get("action", "run tidewarp doctor"),
        )

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else ""


def _environment() -> dict[str, str]:
    """The variables of the parent; relative places of modules would be others in another working directory."""
    places = os.environ.get("PYTHONPATH")
    if not places:
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, places.split(os.pathsep)))}
