"""Ctrl-C in a run: held back until the run stands where it can be saved."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupted", "Interrupts"]


class Interrupted(KeyboardInterrupt):
    """A run that was interrupted. ``checkpoint`` is the file to resume from; None: it left none."""

    def __init__(self, gvt: int, committed: int, seconds: float, checkpoint: Path | None) -> None:
        super().__init__(gvt, committed, seconds, checkpoint)
        self.gvt = gvt
        self.committed = committed
        self.seconds = seconds
        self.checkpoint = checkpoint

    def __str__(self) -> str:
        saved = "no checkpoint" if self.checkpoint is None else f"resume with {self.checkpoint}"
        return f"interrupted at tick {self.gvt} with {self.committed} events committed in {self.seconds:.1f} s; {saved}"


class Interrupts:
    """While the body runs, the first SIGINT or SIGTERM is noted and the second raises KeyboardInterrupt.

    Only where ``held`` is asked for, in the main thread, and where nobody has a handler of his own.
    """

    def __init__(self, held: bool) -> None:
        self.came = False
        self.held = held and threading.current_thread() is threading.main_thread()
        """Whether signals are held back at all."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        if self.held:
            mine = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
            self._before = {number: signal.signal(number, self._note) for number in mine}
        self.held = bool(self._before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
