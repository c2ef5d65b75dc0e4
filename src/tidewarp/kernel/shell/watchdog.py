"""A thread that looks at running handlers: lets signals be heard, and ends the process when a handler does not end.

Compiled code cannot be interrupted. So this thread sets the PAUSE word of every watched context block a few times a second,
which ends a slice and lets the main thread answer Ctrl-C; and it follows BEAT, which stands still inside a handler.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

import numpy as np

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.kernel.compiled.layout import BEAT, GENERATION, LP, NOW, PAUSE, SEQ, SRC
from tidewarp.kernel.model import Model

__all__ = ["WATCHDOG", "Watch", "Watchdog"]

LOOK_S = 0.1  # wall seconds between two looks

Block = np.ndarray[Any, np.dtype[np.int64]]


class _Sight(NamedTuple):
    """A beat, and since when it has been the same (wall seconds)."""

    beat: int
    since_s: float


class Watch:
    """The context blocks of one engine, each of them of one thread."""

    def __init__(self, model: Model, blocks: Sequence[Block], timeout_s: float) -> None:
        self.model = model
        self.blocks = blocks
        self.timeout_s = timeout_s
        self._seen: dict[int, _Sight] = {}

    def look(self, now_s: float) -> str | None:
        """Let the slices end; a line about the handler that has been running for longer than it may."""
        for place, block in enumerate(self.blocks):
            block[PAUSE] = 1
            beat = int(block[BEAT])
            seen = self._seen.get(place)
            if seen is None or seen.beat != beat:
                self._seen[place] = _Sight(beat, now_s)
            elif beat % 2 == 1 and now_s - seen.since_s >= self.timeout_s:
                return self._line(block, now_s - seen.since_s)
        return None

    def _line(self, block: Block, running_s: float) -> str:
        now, generation, lp, src = (int(block[word]) for word in (NOW, GENERATION, LP, SRC))
        key = (now, generation, lp, src, int(block[SEQ]) % 2**64)
        return (
            f"error: {self.model.path(lp)} at {key}: its handler has been running for {running_s:.0f} s, handler_timeout_s is {self.timeout_s:g}; "
            "bound its loops by the fields, or raise handler_timeout_s"
        )


def _end(line: str) -> None:
    """Say it and end the process: compiled code gives the thread that runs it no other way out."""
    os.write(2, f"{line}\n".encode(errors="backslashreplace"))
    sys.stdout.flush()
    os._exit(1)


class Watchdog:
    """One thread for all engines of a process; it sleeps while none is running."""

    def __init__(self, clock: Clock | None = None, end: Callable[[str], None] = _end) -> None:
        self._clock = clock or WallClock()
        self._end = end
        self._inbox: SimpleQueue[bool] = SimpleQueue()
        self._watches: list[Watch] = []
        self._thread: Thread | None = None

    @contextlib.contextmanager
    def watching(self, model: Model, blocks: Sequence[Block], timeout_s: float) -> Iterator[None]:
        """Watch these blocks while the body runs; ``timeout_s``: wall seconds that one handler may take."""
        watch = self.watch(model, blocks, timeout_s)
        if self._thread is None or not self._thread.is_alive():  # not alive: in the child of a fork
            self._thread = Thread(target=self._run, name="tidewarp-watchdog", daemon=True)
            self._thread.start()
        if len(self._watches) == 1:
            self._inbox.put(True)
        try:
            yield
        finally:
            self.forget(watch)

    def watch(self, model: Model, blocks: Sequence[Block], timeout_s: float) -> Watch:
        """Look at these blocks from now on."""
        watch = Watch(model, blocks, timeout_s)
        self._watches.append(watch)
        return watch

    def forget(self, watch: Watch) -> None:
        """Look at them no longer."""
        self._watches.remove(watch)

    def _run(self) -> None:
        while True:
            self._clock.wait(self._inbox, LOOK_S if self._watches else None)
            self.look()

    def look(self) -> None:
        """Look at everything once."""
        now_s = self._clock.now()
        for watch in list(self._watches):
            line = watch.look(now_s)
            if line is not None:
                self._end(line)


WATCHDOG = Watchdog()
"""The one of this process."""
