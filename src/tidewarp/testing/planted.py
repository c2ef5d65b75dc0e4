"""Bugs that can be planted into the compiled optimistic engine, and schedules of it that repeat: the test of its tests.

    with planted("lose_anti"), interleaved(7):
        run(model, until, kernel="optimistic", tier="compiled", workers=3)

:func:`interleaved` runs the PEs of every engine opened inside it in the calling thread, a few turns each, in an order that a seed
decides. What then differs from the sequential reference differs again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tidewarp.errors import InternalError
from tidewarp.kernel.shell.compiled import load_kernel
from tidewarp.seeds import Stream

__all__ = ["BUGS", "Interleaved", "interleaved", "planted"]

BUGS = (
    "lose_anti",
    "time_only",
    "keep_draws",
    "keep_count",
    "fossil_early",
    "skip_send_min",
    "read_round_late",
    "inclusive_window",
    "reuse_number",
    "skip_queue_min",
    "lose_cascade",
    "keep_row",
    "settle_early",
    "undo_one",
    "lazy_keeps_all",
    "lazy_forgets",
)
"""Names; what each does is said where :mod:`tidewarp.kernel.compiled` looks at its register FAULT."""


@contextmanager
def planted(bug: str) -> Iterator[None]:
    """Engines that are opened inside have this bug, one of :data:`BUGS`; the compiled code stays what it is."""
    for name in ("merge", "slices", "recall"):
        load_kernel(name)
    from tidewarp.kernel.compiled import pe
    from tidewarp.kernel.compiled.optimistic import CompiledOptimistic

    number = int(getattr(pe, bug.upper()))
    original = CompiledOptimistic._new_pes

    def with_bug(self: Any, image: Any) -> Any:
        made = original(self, image)
        for me in made:
            me.reg[pe.FAULT] = number
        return made

    CompiledOptimistic._new_pes = with_bug  # type: ignore[method-assign]
    try:
        yield
    finally:
        CompiledOptimistic._new_pes = original  # type: ignore[method-assign]


class Interleaved:
    """In the place of threads: the PEs take turns in one thread, in an order that ``stream`` decides.

    A run that takes more than ``slices_max`` slices is ended: it would never end.
    """

    def __init__(self, count: int, stream: Stream, turns_max: int, slices_max: int) -> None:
        self._count = count
        self._stream = stream
        self._turns_max = turns_max
        self._slices_left = slices_max
        self._at_work: list[int] = []
        self._posted: deque[Any] = deque()
        self._step: Callable[[int, Callable[[Any], None], int], bool] | None = None

    @property
    def running(self) -> int:
        """How many PEs have not ended their work, or have posted what nobody has taken."""
        return len(self._at_work) + len(self._posted)

    def start(self, work: Any) -> None:
        """Let every PE work; ``work`` is the method of the engine that a thread would run."""
        self._step = work.__self__.step
        self._at_work = list(range(self._count))

    def take(self, timeout_s: float) -> Any:
        """What was posted before, else what a few turns of one PE post; time does not pass.

        Raises:
            InternalError: the run does not come to an end.
        """
        if self._posted:
            return self._posted.popleft()
        assert self._step is not None
        p = self._at_work[self._stream.below(len(self._at_work))]
        self._slices_left -= 1
        if self._slices_left < 0:
            self._at_work.clear()
            raise InternalError("a run of many slices", "it does not come to an end", "look at what is planted")
        if not self._step(p, self._posted.append, 1 + self._stream.below(self._turns_max)):
            self._at_work.remove(p)
        return self._posted.popleft() if self._posted else None

    def close(self) -> None:
        """Nothing to end."""


@contextmanager
def interleaved(seed: int, turns_max: int = 3, slices_max: int = 50_000) -> Iterator[None]:
    """Engines that are opened inside take their turns in the order of ``seed`` (U64), at most ``turns_max`` in a row."""
    from tidewarp.kernel.shell import threads

    original = threads.Threads

    def make(count: int, clock: Any) -> Interleaved:
        return Interleaved(count, Stream(seed, "interleaved"), turns_max, slices_max)

    threads.Threads = make  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        threads.Threads = original  # type: ignore[misc]
