"""Ctrl-C in a run: held back until the run stands where it can be saved, or where all ranks stand."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["LAUNCHED", "RANK", "Interrupted", "Interrupts", "RankInterrupts", "deadly_signals", "sigterm_interrupts"]

LAUNCHED = "TIDEWARP_LAUNCHED"
"""Set in the environment of ranks whose standard input is a pipe from whoever launched them."""


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


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """While the body runs, SIGTERM raises KeyboardInterrupt as SIGINT does; only in the main thread, and where nobody handles it."""
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def deadly_signals() -> Iterator[None]:
    """While the body runs, SIGINT and SIGTERM end the process where they would raise KeyboardInterrupt, until others handle them.

    For the start of MPI: it waits, deaf to handlers, for ranks that may have been interrupted before they came so far.
    mpiexec ends all when a signal has ended one.
    """
    mine: list[signal.Signals] = []
    if threading.current_thread() is threading.main_thread():
        numbers = (signal.SIGINT, signal.SIGTERM)
        mine = [number for number in numbers if signal.getsignal(number) is signal.default_int_handler]
    for number in mine:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in mine:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)


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
        usual = (signal.SIG_DFL, signal.default_int_handler)
        if self.held:
            mine = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) in usual]
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


class RankInterrupts(Interrupts):
    """Those of a rank: a signal is noted and no more, however often it comes, since the others would wait for one that stops alone.

    The ranks hear of it together, between two stretches of a run. ``mpiexec`` hands a signal on to every rank, and a
    terminal sends it to ``mpiexec`` alone or to all, so a rank may get one twice. The body may enter it again.
    """

    def __init__(self) -> None:
        super().__init__(held=False)
        self.is_last = False
        """The process ends after the body: once one came, more of them must not disturb its end."""
        self._depth = 0

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth == 1:
            self.held = threading.current_thread() is threading.main_thread()
            super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            if not (self.came and self.is_last):
                super().__exit__(kind, error, trace)
            self._before, self.came, self.is_last = {}, False, False

    def follow_launcher(self) -> None:
        """Rank 0 of ranks that ``launch`` started: what it writes is an interrupt; when it is gone, all ranks end.

        mpiexec hands its standard input on to rank 0, and ends the other ranks when that one is killed.
        """
        if LAUNCHED in os.environ:
            threading.Thread(target=self._follow, name="tidewarp-launcher", daemon=True).start()

    def _follow(self) -> None:
        while os.read(0, 64):
            self.came = True
        os.kill(os.getpid(), signal.SIGKILL)  # nobody waits for what this run would still do

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True


RANK = RankInterrupts()
"""The one of this process."""
