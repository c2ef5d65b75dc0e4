"""A thread that looks at running engines: lets signals be heard, says what holds GVT, ends the process when a handler does not end.

Compiled code cannot be interrupted. So this thread sets the PAUSE word of every watched context block a few times a second,
which ends a slice and lets the main thread answer Ctrl-C; and it follows BEAT, which stands still inside a handler. A handler of
the Python tier is found on the stack of the thread that drives its engine, which costs the handler nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread, current_thread, get_ident
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.kernel.compiled.layout import BEAT, GENERATION, LP, NOW, PAUSE, SEQ, SRC
from tidewarp.kernel.context import Context
from tidewarp.kernel.contract import Kernel
from tidewarp.kernel.lp import methods_of
from tidewarp.kernel.model import Model

__all__ = ["STALL_S", "WATCHDOG", "Block", "Watch", "Watchdog", "blocks_of"]

LOOK_S = 0.1  # wall seconds between two looks
_IDLE_LOOKS = 10  # without an engine to look at, before the thread ends
STALL_S = 5.0
"""Wall seconds without progress of GVT after which it is said once what holds it."""

Block = np.ndarray[Any, np.dtype[np.int64]]

_LOG = logging.getLogger("tidewarp.kernel")


class _Sight(NamedTuple):
    """One call of a handler, by its beat or by its frame, and since when it has been seen (wall seconds)."""

    call: object
    since_s: float
    where: Callable[[], str]  # whose handler it is


def blocks_of(kernel: object) -> list[Block]:
    """The context blocks of a compiled engine, one for each of its threads; none of an engine of the Python tier."""
    block = getattr(kernel, "block", None)
    return [block] if block is not None else list(getattr(kernel, "blocks", ()))


class Watch:
    """One engine, driven by one thread; ``blocks`` are the context blocks of its compiled PEs."""

    def __init__(self, model: Model, timeout_s: float) -> None:
        self.checkpoint: Path | None = None
        """The last one that is durable."""
        self.waiting: list[str] = []
        """What the engine waits for while nobody drives it: sources, outputs that somebody has to take."""
        self._model = model
        self._timeout_s = timeout_s
        self._codes = {method.__code__ for cls in model.classes for method in methods_of(cls)}
        self._kernel: Kernel | None = None  # while it is driven
        self._known: Kernel | None = None
        self._blocks: Sequence[Block] = ()  # of the known one
        self._who = ""  # of several processes, with a comma
        self._thread: int | None = None
        self._seen: dict[int, _Sight] = {}
        self._gvt, self._gvt_told, self._gvt_since_s = -1, -1, 0.0
        self._said: object = None

    def begin(self, kernel: Kernel | None) -> None:
        """The calling thread drives ``kernel`` now; None: it executes ``start``."""
        if kernel is not self._known:
            self._known, self._blocks = kernel, blocks_of(kernel)
            self._who = f"{who}, " if (who := getattr(kernel, "who", "")) else ""
        if not self.waiting:
            self._gvt = -1  # between two runs it stood still because nobody wanted it to move
        self.waiting, self._kernel, self._thread = [], kernel, get_ident()

    def end(self, gvt: int, waiting: list[str]) -> None:
        """It does so no longer; GVT stands at ``gvt``."""
        self._kernel, self._thread, self._gvt_told, self.waiting = None, None, gvt, waiting
        if self._seen:
            self._seen.clear()

    def look(self, now_s: float) -> str | None:
        """Let the slices end, say what holds GVT; a line about the handler that has been running for longer than it may."""
        longest: _Sight | None = None
        for sight in self._sights(now_s):
            longest = sight if longest is None or sight.since_s < longest.since_s else longest
        if longest is not None and now_s - longest.since_s >= self._timeout_s:
            return self._line(longest, now_s)
        self._say_stall(longest, now_s)
        return None

    def _follow(self, gvt: int, now_s: float) -> None:
        if gvt != self._gvt:
            self._gvt, self._gvt_since_s, self._said = gvt, now_s, None

    # --- running handlers -------------------------------------------------------------------------

    def _sights(self, now_s: float) -> Iterator[_Sight]:
        for place, block in enumerate(self._blocks if self._kernel is not None else ()):
            block[PAUSE] = 1
            beat = int(block[BEAT])
            sight = self._sight(place, beat, now_s, partial(self._key_in, block))
            if beat % 2 == 1:
                yield sight
        if (frame := self._handler_frame()) is not None:
            yield self._sight(-1, frame, now_s, partial(self._key_on, frame))
        else:
            self._seen.pop(-1, None)

    def _sight(self, place: int, call: object, now_s: float, where: Callable[[], str]) -> _Sight:
        seen = self._seen.get(place)
        is_same = seen is not None and (seen.call is call if place < 0 else seen.call == call)
        if seen is None or not is_same:
            seen = self._seen[place] = _Sight(call, now_s, where)
        return seen

    def _handler_frame(self) -> FrameType | None:
        """The handler that the driving thread executes in the Python tier, or the ``start``."""
        frame = None if self._thread is None else sys._current_frames().get(self._thread)
        while frame is not None and frame.f_code not in self._codes:
            frame = frame.f_back
        return frame

    def _key_in(self, block: Block) -> str:
        now, generation, lp, src = (int(block[word]) for word in (NOW, GENERATION, LP, SRC))
        return f"{self._model.path(lp)} at {(now, generation, lp, src, int(block[SEQ]) % 2**64)}"

    def _key_on(self, frame: FrameType) -> str:
        line = f"line {frame.f_lineno} of {Path(frame.f_code.co_filename).name}"
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        context = next((x for name in names if isinstance(x := frame.f_locals.get(name), Context)), None)
        caller = frame.f_back
        event = None if caller is None else caller.f_locals.get("event")
        if isinstance(event, tuple):
            return f"{self._model.path(event[2])} at {event[:5]}, {line}"
        if context is not None:
            return f"{self._model.path(context.lp)} at tick {context.now}, {line}"
        return f"{frame.f_code.co_qualname}, {line}"

    def _line(self, sight: _Sight, now_s: float) -> str:
        saved = "there is no checkpoint"
        if self.checkpoint is not None:
            saved = f"the last checkpoint is {self.checkpoint}"
        return (
            f"error: {self._who}{sight.where()}: its handler has been running for {now_s - sight.since_s:.1f} s, handler_timeout_s is "
            f"{self._timeout_s:g} ({saved}); bound its loops by the fields, or raise handler_timeout_s"
        )

    # --- standing still ---------------------------------------------------------------------------

    def _say_stall(self, longest: _Sight | None, now_s: float) -> None:
        """Once until GVT moves, or until that handler has ended."""
        kernel = self._kernel
        if kernel is None or self._blocks:  # within a call, one of the Python tier is not looked into from here
            self._follow(self._gvt_told if kernel is None else kernel.gvt, now_s)
        if longest is not None and now_s - longest.since_s >= STALL_S:
            if self._said != (said := (self._gvt, longest.since_s)):
                self._said = said
                _LOG.warning(
                    "stalled: %sthe handler of %s runs for %.0f s", self._who, longest.where(), now_s - longest.since_s
                )
        elif self._said is None and now_s - self._gvt_since_s >= STALL_S and (lines := self._holders()):
            self._said = self._gvt
            waited_s = now_s - self._gvt_since_s
            _LOG.warning("stalled at tick %d for %.0f s: %s", self._gvt, waited_s, "; ".join(lines))

    def _holders(self) -> list[str]:
        """What holds GVT; of an engine of the Python tier only what it waits for between calls."""
        kernel = self._kernel
        if kernel is None:
            return self.waiting
        return kernel.stalls() if self._blocks else []


def _end(line: str) -> None:
    """Say it and end the process: compiled code gives the thread that runs it no other way out."""
    os.write(2, f"{line}\n".encode(errors="backslashreplace"))
    sys.stdout.flush()
    os._exit(1)


class Watchdog:
    """One thread for all engines of a process; it ends while none is running or waiting, since a process with threads should not fork."""

    def __init__(self, clock: Clock | None = None, end: Callable[[str], None] = _end) -> None:
        self._clock = clock or WallClock()
        self._end = end
        self._never: SimpleQueue[None] = SimpleQueue()  # empty: the thread sleeps on it
        self._watches: list[Watch] = []
        self._thread: Thread | None = None

    def begin(self, watch: Watch, kernel: Kernel | None) -> None:
        """Watch an engine while the calling thread drives it; None: while it executes ``start``."""
        watch.begin(kernel)
        if watch not in self._watches:
            self._watches.append(watch)
        self.wake()

    def end(self, watch: Watch, gvt: int, waiting: list[str]) -> None:
        """It is driven no longer, and looked at as long as it is ``waiting`` for something; GVT stands at ``gvt``."""
        watch.end(gvt, waiting)
        if not waiting:
            self.forget(watch)

    def forget(self, watch: Watch) -> None:
        """Look at it no longer."""
        if watch in self._watches:
            self._watches.remove(watch)

    def wake(self) -> None:
        """Let the thread run; it ends by itself."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="tidewarp-watchdog", daemon=True)
            self._thread.start()

    def lose_thread(self) -> None:
        """In the child of a fork, which has only the thread that forked: begin anew."""
        self._thread = None
        self._watches.clear()

    def _run(self) -> None:
        idle = 0
        while self._thread is current_thread():
            self._clock.wait(self._never, LOOK_S)
            self.look()
            idle = 0 if self._watches else idle + 1
            if idle > _IDLE_LOOKS:
                self._thread = None  # before the last look at the list: who adds to it after that starts another
                if self._watches:
                    self.wake()

    def look(self) -> None:
        """Look at everything once."""
        now_s = self._clock.now()
        for watch in list(self._watches):
            line = watch.look(now_s)
            if line is not None:
                self._end(line)


WATCHDOG = Watchdog()
"""The one of this process."""

os.register_at_fork(after_in_child=WATCHDOG.lose_thread)
