"""What ends a command that has no end of its own: SIGINT and SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from tidewarp.cli.frame import EXIT_INTERRUPTED

__all__ = ["StopSignals"]


class StopSignals:
    """The first SIGINT or SIGTERM ends :meth:`wait`, and calls ``on_first``; a second ends the process at once."""

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        self._on_first = on_first
        self._came = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def have_come(self) -> bool:
        """Whether one has come."""
        return self._came.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until one has come, or for so many wall seconds; whether one has."""
        return self._came.wait(timeout_s)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._came.is_set():
            os._exit(EXIT_INTERRUPTED)
        self._came.set()
        self._on_first()
