"""How far a long command has come, for whoever sits at a terminal."""

from __future__ import annotations

import contextlib
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ProgressBar"]

STEPS = 500  # a bar of known length is drawn at most this often


class ProgressBar:
    """A :class:`~tidewarp.observe.Probe` that draws a bar on stderr; silent where that is no terminal.

    It is drawn by the calls alone. rich would rather draw from a thread, and a process with threads
    must not fork, which is what a twin does for its snapshots and branches.
    """

    def __init__(self, label: str, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        """``label`` stands before the bar; ``quiet`` draws nothing; ``stream`` is stderr unless given."""
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._is_drawn = not quiet and self._stream is not None and self._stream.isatty()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._step = -1

    def __enter__(self) -> Self:
        if self._is_drawn:
            with contextlib.suppress(OSError, ValueError):
                self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.stop()
            self._bar = None

    def add(self, name: str, n: int = 1) -> None:
        """Ignore: counts are for metrics."""

    def progress(self, done: float, total: float | None) -> None:
        """Draw ``done`` of ``total`` units; total None draws a bar without end. Never raises."""
        if self._bar is None or self._task is None or not self._is_new(done, total):
            return
        with contextlib.suppress(OSError, ValueError):
            self._bar.update(self._task, completed=done, total=total)
            self._bar.refresh()

    def _is_new(self, done: float, total: float | None) -> bool:
        step = int(STEPS * done / total) if total else self._step + 1
        is_new = step != self._step
        self._step = step
        return is_new

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task(self._label, total=None)
        self._bar.start()
