"""A part of a benchmark in a process of its own: nothing has filled its memory before, and what hangs there hangs nobody.

The process reads a line of JSON for each piece of work and answers with one. :class:`Child` is the side that asks,
:func:`serve` the side that works.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

__all__ = ["Child", "Failed", "serve"]


class Failed(Exception):
    """No answer, or none that is one; the text says why."""


class Child:
    """A process that runs the module ``program``; a context manager that leaves none behind."""

    def __init__(self, program: str, *arguments: str) -> None:
        self._log = tempfile.TemporaryFile()
        command = [sys.executable, "-m", program, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, work: str, timeout_s: float, **sizes: Any) -> dict[str, Any]:
        """What ``work`` gives for these sizes (plain data). Waits for it.

        Raises:
            Failed: it raised, the process ended, or ``timeout_s`` wall seconds have passed; the process is of no more use.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"work": work, **sizes}).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise Failed(self._last_words()) from None
        if not select.select([stdout], [], [], timeout_s)[0]:
            raise Failed(f"no answer within {timeout_s:g} s")
        line = stdout.readline()
        if not line:
            raise Failed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def close(self) -> None:
        """End it, whatever it does. Safe to call twice."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what was asked last, and never read
                    stream.close()

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        words = self._log.read().decode("utf-8", "replace").split("\n")
        said = [word for word in words if word.strip()]
        return said[-1] if said else f"it ended with exit code {self._process.returncode}"


def serve(works: Mapping[str, Callable[..., Mapping[str, Any]]]) -> int:
    """Answer what is asked for on standard input until it ends. What anybody prints goes to standard error meanwhile."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                answer = works[asked.pop("work")](**asked)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    return 0
