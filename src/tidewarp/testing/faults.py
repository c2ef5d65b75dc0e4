"""Fault points: have something happen at the n-th arrival at a stage, such as the process's death.

The stages are :data:`tidewarp.observe.STAGES`, the steps of an input's way through a live twin, and
:data:`tidewarp.observe.BLOCK_STAGES`, those of a large block's way into a store. A connector may call
:func:`tidewarp.observe.stage` at a step of its own work, too: a sink at "release.inside", between the parts of a write.

    with armed("journal.commit", die, arrival=3): ...            SIGKILL in the middle of the third commit
    with armed("release.inside", raising(OSError("full"))): ...  a write that fails half-way
    with armed("apply.after", twin.stop): ...                    an orderly stop, behind the first slice

What is done is done in the thread that arrives: the model's, a connector's or the one that commits. One listener at a time
hears the stages of a process, so ``armed`` and ``hearing`` are not nested.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tidewarp.errors import OperatorError
from tidewarp.observe import BLOCK_STAGES, STAGES, on_stage

__all__ = ["armed", "die", "hearing", "raising"]


def die() -> None:
    """SIGKILL for the own process: no handlers, no buffers, no farewell. For a child that the test has made."""
    os.kill(os.getpid(), signal.SIGKILL)


def raising(error: BaseException) -> Callable[[], None]:
    """What raises ``error`` where it is called."""

    def act() -> None:
        raise error

    return act


@contextmanager
def hearing(listener: Callable[[str, int], object]) -> Iterator[Mapping[str, int]]:
    """Let ``listener(stage, arrival)`` hear every stage within the block, arrivals counted from 1 for each stage.

    Yields the arrivals so far, by stage. It is disarmed when the block ends, also with an error.
    """
    arrivals: Counter[str] = Counter()
    lock = threading.Lock()  # two sinks, each in its thread, arrive at one stage

    def listen(name: str) -> None:
        with lock:
            arrivals[name] += 1
            arrival = arrivals[name]
        listener(name, arrival)

    on_stage(listen)
    try:
        yield arrivals
    finally:
        on_stage(None)


@contextmanager
def armed(stage: str, do: Callable[[], object], *, arrival: int = 1) -> Iterator[Mapping[str, int]]:
    """Call ``do`` once, at arrival number ``arrival`` (from 1) at ``stage``; disarmed when the block ends.

    Yields the arrivals so far, by stage: look there afterwards whether the place was reached at all.

    Raises:
        OperatorError: no such stage, or an arrival below 1.
    """
    stages = (*STAGES, *BLOCK_STAGES)
    if stage not in stages or arrival < 1:
        value = f"armed({stage!r}, arrival={arrival})"
        raise OperatorError(value, f"a stage is one of {', '.join(stages)}, an arrival 1 or more", "choose one")

    def listen(name: str, number: int) -> None:
        if (name, number) == (stage, arrival):
            do()

    with hearing(listen) as arrivals:
        yield arrivals
